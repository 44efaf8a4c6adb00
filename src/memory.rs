//! How the kernel backs our memory. mimalloc asks for huge pages; with them a connection's few small buffers keep a
//! whole 2 MiB resident, and 1,000 idle streams weigh twice as much (docs/BENCHMARKS.md). The worker wants them: it
//! walks through all of its weights for each token.

/// From now on this process, and those it starts, gets small pages only.
pub fn prefer_small_pages() {
    set_huge_pages_disabled(1);
}

/// Takes back what the process that started us has chosen for itself.
pub fn allow_huge_pages() {
    set_huge_pages_disabled(0);
}

#[cfg(target_os = "linux")]
fn set_huge_pages_disabled(disabled: libc::c_ulong) {
    let unused: libc::c_ulong = 0;
    // SAFETY: PR_SET_THP_DISABLE takes a flag and three zeros, and touches no memory of ours. Where the kernel does not
    // know it, nothing changes.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, disabled, unused, unused, unused) };
}

#[cfg(not(target_os = "linux"))]
fn set_huge_pages_disabled(_disabled: u64) {}

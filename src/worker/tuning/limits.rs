//! What a trainer may take from the machine. It asks for less itself, before it computes anything: so whoever starts it
//! needs no rights, and a kill finds nothing half done.

use std::io;

/// How far a trainer stands back behind those that serve; 19 is the farthest.
#[cfg(unix)]
const NICE: libc::c_int = 10;

/// Where the kernel reads whom to kill first when memory is short, and who goes before all others.
#[cfg(target_os = "linux")]
const OOM_SCORE: (&str, &str) = ("/proc/self/oom_score_adj", "1000");

/// Makes this process stand back, allocate no more than `memory_mib`, and end with the process `parent` that started it.
///
/// # Errors
/// If that process is gone already.
#[cfg(target_os = "linux")]
pub(in crate::worker) fn stand_back(memory_mib: u64, parent: u32) -> io::Result<()> {
    let (file, score) = OOM_SCORE;
    if let Err(error) = std::fs::write(file, score) {
        tracing::debug!(%error, "the kernel is not told that a trainer goes first");
    }
    // SAFETY: it takes two numbers. What it returns may be -1 for a success, too; a trainer that stays in front is slow
    // for others, and no more.
    unsafe { libc::nice(NICE) };
    let bytes = memory_mib.saturating_mul(1 << 20);
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the structure lives for the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes a signal's number, and touches no memory of ours.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes nothing.
    let now = unsafe { libc::getppid() };
    // no number stands for an orphan: process 1 may be the worker itself, or another may have taken it in
    if u32::try_from(now) != Ok(parent) {
        return Err(io::Error::other("the worker that started this trainer is gone"));
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(in crate::worker) fn stand_back(_memory_mib: u64, _parent: u32) -> io::Result<()> {
    Ok(())
}

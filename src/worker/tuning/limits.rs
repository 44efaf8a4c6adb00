//! What a trainer may take from the machine. It asks for less itself, before it computes anything: so whoever starts it
//! needs no rights, and a kill finds nothing half done.

use std::io;
use std::path::{Path, PathBuf};

/// How far a trainer stands back behind those that serve; 19 is the farthest.
#[cfg(unix)]
const NICE: libc::c_int = 10;

/// Where the kernel reads whom to kill first when memory is short, and who goes before all others.
#[cfg(target_os = "linux")]
const OOM_SCORE: (&str, &str) = ("/proc/self/oom_score_adj", "1000");

/// Where the kernel shows groups of processes, and which of them this one is in (cgroups of version 2).
const GROUPS: &str = "/sys/fs/cgroup";
const OUR_GROUP: &str = "/proc/self/cgroup";

/// The most memory that this process shares with those around it, bytes: its container's or its unit's bound. None
/// where there is none, or nobody says.
pub(in crate::worker) fn memory_around() -> Option<u64> {
    let ours = std::fs::read_to_string(OUR_GROUP).ok()?;
    least_memory(&ours, |file| std::fs::read_to_string(file).ok())
}

/// The least bound of a group and of those that hold it.
fn least_memory(ours: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let group = ours.lines().find_map(|line| line.strip_prefix("0::"))?;
    let group = Path::new(group.trim_start_matches('/'));
    let files = group.ancestors().map(|group| PathBuf::from(GROUPS).join(group).join("memory.max"));
    // `max` where there is none
    files.filter_map(|file| read(&file)?.trim().parse().ok()).min()
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_bound_of_all_groups_around_counts() {
        let unit = "/sys/fs/cgroup/system.slice/a.service/memory.max";
        let slice = "/sys/fs/cgroup/system.slice/memory.max";
        let container = "/sys/fs/cgroup/memory.max";
        for (ours, bounds, want) in [
            ("0::/system.slice/a.service\n", &[(unit, "4096\n"), (slice, "max\n")][..], Some(4096)),
            ("0::/system.slice/a.service\n", &[(unit, "max\n"), (slice, "512\n")], Some(512)),
            ("0::/system.slice/a.service\n", &[(unit, "4096\n"), (slice, "512\n")], Some(512)),
            ("0::/\n", &[(container, "1024\n")], Some(1024)),
            ("0::/\n", &[(container, "max\n")], None),
            ("0::/\n", &[], None),
            ("4:memory:/a\n", &[(container, "1024\n")], None),
        ] {
            let read = |file: &Path| {
                let found = bounds.iter().find(|(path, _)| Path::new(path) == file);
                found.map(|(_, text)| (*text).to_owned())
            };
            assert_eq!(least_memory(ours, read), want, "{ours} {bounds:?}");
        }
    }
}

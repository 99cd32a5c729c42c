//! What the kernel says of limits, for a check-up: of a process, of its cgroup, and of the whole host.

use std::path::{Path, PathBuf};

use crate::observe::cgroup;
use crate::observe::kernel_file::read_some;

/// The room for a file of the kernel.
const ROOM: usize = 16 << 10;
/// Where the second version of cgroups is mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// How much of something is used, and how much there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) used: u64,
    pub(crate) most: u64,
}

/// The limits that a cgroup sets, those of the groups above it included: the tightest counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CgroupLimits {
    /// In bytes; `None` without a limit.
    pub(crate) memory: Option<Use>,
    /// Processes that the kernel has killed in it for want of memory.
    pub(crate) oom_kills: u64,
    /// Threads and processes; `None` without a limit.
    pub(crate) tasks: Option<Use>,
    /// The periods in which it had to wait for the CPU, of all; `None` without a limit.
    pub(crate) throttled: Option<Use>,
}

/// The limits of the cgroup of a process, by the second version of cgroups; `None` where that is not to be had.
pub(crate) fn cgroup_limits(pid: u32) -> Option<CgroupLimits> {
    let lines = cgroup::read_lines(pid)?;
    let path = cgroup::unified_path(&lines)?.to_owned();
    let root = Path::new(CGROUPS);
    root.join("cgroup.controllers").exists().then(|| limits_at(root, &path))
}

fn limits_at(root: &Path, path: &str) -> CgroupLimits {
    let own = root.join(path.trim_start_matches('/'));
    let levels: Vec<PathBuf> =
        own.ancestors().take_while(|level| level.starts_with(root)).map(Path::to_path_buf).collect();
    let tightest = |used: &str, most: &str| {
        let limits = levels.iter().filter_map(|level| {
            Some(Use { used: number(&level.join(used))?, most: number(&level.join(most))? })
        });
        limits.min_by_key(|limit| limit.most.saturating_sub(limit.used))
    };
    let is_limited = levels
        .iter()
        .any(|level| text(&level.join("cpu.max")).is_some_and(|limit| !limit.starts_with("max")));
    let throttled = || {
        let stat = text(&own.join("cpu.stat"))?;
        Some(Use { used: named(&stat, "nr_throttled")?, most: named(&stat, "nr_periods")? })
    };
    let events = text(&own.join("memory.events")).unwrap_or_default();
    CgroupLimits {
        memory: tightest("memory.current", "memory.max"),
        oom_kills: named(&events, "oom_kill").unwrap_or(0),
        tasks: tightest("pids.current", "pids.max"),
        throttled: if is_limited { throttled() } else { None },
    }
}

/// The open descriptors of a process, and how many it may have; `None` where the kernel does not tell this user.
pub(crate) fn descriptors(pid: u32) -> Option<Use> {
    let limits = text(Path::new(&format!("/proc/{pid}/limits")))?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let most = match line.split_ascii_whitespace().next()? {
        "unlimited" => u64::MAX,
        number => number.parse().ok()?,
    };
    let used = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    Some(Use { used: u64::try_from(used).ok()?, most })
}

/// The number that a setting of the kernel has, as `net/core/rmem_max`.
pub(crate) fn sysctl(name: &str) -> Option<u64> {
    number(&Path::new("/proc/sys").join(name))
}

/// The configuration file of a server, by its command line or environment; `None` where it has none, or that cannot be
/// read. It is as the server sees it.
pub(crate) fn config_file(pid: u32) -> Option<PathBuf> {
    let words = |name: &str| {
        let mut room = vec![0; 1 << 20];
        let read = read_some(format!("/proc/{pid}/{name}"), &mut room)?;
        let words = read.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        Some(words.collect::<Vec<_>>())
    };
    let arguments = words("cmdline")?;
    let behind = arguments.iter().position(|word| word == "--config").and_then(|at| arguments.get(at + 1));
    let joined = || arguments.iter().find_map(|word| word.strip_prefix("--config=")).map(str::to_owned);
    let file = behind.cloned().or_else(joined).or_else(|| {
        words("environ")?.iter().find_map(|word| word.strip_prefix("VARTA_CONFIG=")).map(str::to_owned)
    })?;
    let directory = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    Some(directory.join(file))
}

fn text(file: &Path) -> Option<String> {
    let mut room = vec![0; ROOM];
    Some(String::from_utf8_lossy(read_some(file, &mut room)?).into_owned())
}

/// `None` for `max`, which is no limit.
fn number(file: &Path) -> Option<u64> {
    text(file)?.trim().parse().ok()
}

fn named(text: &str, wanted: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(wanted)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn of_the_limits_of_nested_cgroups_the_tightest_counts() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("a/b");
        fs::create_dir_all(&own).unwrap();
        let put = |path: &str, text: &str| fs::write(root.path().join(path), text).unwrap();
        put("a/memory.current", "900\n");
        put("a/memory.max", "1000\n");
        put("a/b/memory.current", "300\n");
        put("a/b/memory.max", "max\n");
        put("a/b/memory.events", "low 0\noom 1\noom_kill 2\n");
        put("a/b/pids.current", "7\n");
        put("a/b/pids.max", "8\n");
        put("a/cpu.max", "50000 100000\n");
        put("a/b/cpu.max", "max 100000\n");
        put("a/b/cpu.stat", "usage_usec 1\nnr_periods 100\nnr_throttled 40\n");
        assert_eq!(
            limits_at(root.path(), "/a/b"),
            CgroupLimits {
                memory: Some(Use { used: 900, most: 1_000 }),
                oom_kills: 2,
                tasks: Some(Use { used: 7, most: 8 }),
                throttled: Some(Use { used: 40, most: 100 }),
            }
        );
        put("a/cpu.max", "max 100000\n");
        assert_eq!(limits_at(root.path(), "/a/b").throttled, None, "nothing limits it");
        assert_eq!(limits_at(root.path(), "/nowhere"), CgroupLimits::default());
    }

    #[test]
    fn this_process_has_descriptors_and_the_host_has_settings() {
        let descriptors = descriptors(std::process::id()).unwrap();
        assert!(descriptors.used > 2 && descriptors.used < descriptors.most, "{descriptors:?}");
        assert!(sysctl("net/core/rmem_default").unwrap() > 0);
        assert_eq!(sysctl("net/core/nothing"), None);
    }
}

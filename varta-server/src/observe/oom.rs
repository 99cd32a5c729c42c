//! Kills for want of memory: whether the kernel killed a process because a cgroup, or the host, was out of
//! memory.
//!
//! The exit status is that of any SIGKILL. The kernel counts such kills for each cgroup, so the count at the
//! first watch of a cgroup is kept, and compared when a process of it dies by SIGKILL. A beat costs nothing
//! here, a watched process one file and one more for each cgroup that is new, and an end by SIGKILL one read.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::domain::process::ExitStatus;
use crate::observe::cgroup::{controller_path, levels, read_lines, read_number_again, unified_path};
use crate::observe::hierarchy::Hierarchies;

/// The most cgroups whose counts are kept. An end in a further one is told as that by any SIGKILL.
pub(crate) const MAX_CGROUPS: usize = 8_192;
/// The most cgroups that are asked for one process: its own, and those above it.
const MAX_LEVELS: usize = 8;
/// The longest path of a cgroup in bytes; the processes of a longer one are not noted.
const MAX_PATH_LEN: usize = 1_024;

/// The counts of the cgroups of the watched processes.
#[derive(Debug)]
pub(crate) struct OomWatch {
    hierarchies: Hierarchies,
    /// By path: the cgroups of the watched processes, and those above them.
    counts: HashMap<Arc<str>, KillCount>,
    /// The cgroup of each watched process.
    of_process: HashMap<u32, Arc<str>>,
    /// The most files that are kept open, so that an end is told sooner, and the number that are.
    max_open: usize,
    open: usize,
}

/// A count of kills in a cgroup.
#[derive(Debug)]
struct KillCount {
    file: PathBuf,
    /// The same, kept open.
    open: Option<File>,
    /// The inode number of the file, which another cgroup under the same path does not have.
    inode: u64,
    /// The kills that were there at first, and those that have explained the end of a process since.
    seen: u64,
    /// The watched processes in the cgroup and below.
    processes: u32,
}

impl OomWatch {
    /// Watches no process yet, and never keeps more than `max_open` files open.
    pub(crate) fn new(hierarchies: Hierarchies, max_open: usize) -> Self {
        OomWatch { hierarchies, counts: HashMap::new(), of_process: HashMap::new(), max_open, open: 0 }
    }

    /// Notes the cgroup of a process, and the counts of those cgroups that are new. Nothing is noted where no
    /// count can be read.
    pub(crate) fn watch(&mut self, pid: u32) {
        if let Some(lines) = read_lines(pid) {
            self.watch_in(pid, &lines);
        }
    }

    fn watch_in(&mut self, pid: u32, lines: &str) {
        self.unwatch(pid);
        let Some((path, version)) = memory_path(lines, &self.hierarchies) else { return };
        if path.len() > MAX_PATH_LEN {
            return;
        }
        let mut is_counted = false;
        // A cgroup is removed before those above it: above one that is the same, all are.
        let mut may_be_others = true;
        for level in levels(path).take(version.levels()) {
            if let Some(count) = self.counts.get_mut(level) {
                count.processes += 1;
                is_counted = true;
                may_be_others = may_be_others && !count.is_the_same();
                if may_be_others {
                    self.open -= usize::from(count.open.is_some());
                    count.begin_anew(self.open < self.max_open);
                    self.open += usize::from(count.open.is_some());
                }
            } else if self.counts.len() < MAX_CGROUPS
                && let Some(file) = version.file(level, &self.hierarchies)
                && let Some(count) = KillCount::begin(file, self.open < self.max_open)
            {
                self.open += usize::from(count.open.is_some());
                self.counts.insert(level.into(), count);
                is_counted = true;
            }
        }
        if is_counted {
            // Shared with the key, where the cgroup itself has a count.
            let shared = self.counts.get_key_value(path).map(|(path, _)| Arc::clone(path));
            self.of_process.insert(pid, shared.unwrap_or_else(|| path.into()));
        }
    }

    /// Forgets a process, and the cgroups of which it was the last.
    pub(crate) fn unwatch(&mut self, pid: u32) {
        let Some(path) = self.of_process.remove(&pid) else { return };
        for level in levels(&path).take(MAX_LEVELS) {
            if let Some(count) = self.counts.get_mut(level) {
                count.processes = count.processes.saturating_sub(1);
                if count.processes == 0 {
                    self.open -= usize::from(count.open.is_some());
                    self.counts.remove(level);
                }
            }
        }
    }

    /// Forgets a process that has ended, and returns the cgroup in which it was killed for want of memory;
    /// `None` when it ended by something else, as far as known. Each kill that the kernel counts explains one
    /// end.
    pub(crate) fn end(&mut self, pid: u32, death: ExitStatus) -> Option<Arc<str>> {
        let is_kill = matches!(death, ExitStatus::Killed { signal: 9, .. });
        let killed_in = if is_kill { self.killed_in(pid) } else { None };
        self.unwatch(pid);
        killed_in
    }

    fn killed_in(&mut self, pid: u32) -> Option<Arc<str>> {
        let path = Arc::clone(self.of_process.get(&pid)?);
        // The innermost count that can be read is asked: it includes all cgroups below. A service manager may
        // have removed the cgroup of the process by now.
        let is_new = levels(&path).take(MAX_LEVELS).find_map(|level| {
            let (level, count) = self.counts.get_key_value(level)?;
            Some((count.read()? > count.seen).then(|| Arc::clone(level)))
        });
        let killed_in = is_new.flatten()?;
        for level in levels(&path).take(MAX_LEVELS) {
            if let Some(count) = self.counts.get_mut(level) {
                count.seen += 1;
            }
        }
        Some(killed_in)
    }
}

/// The name of the number of kills for want of memory, in either version's file.
const KILLS: &str = "oom_kill";

impl KillCount {
    /// The count of a cgroup for its first process. `None` where it cannot be read.
    fn begin(path: PathBuf, may_keep: bool) -> Option<Self> {
        let file = File::open(&path).ok()?;
        let inode = file.metadata().ok()?.ino();
        let seen = read_number_again(&file, KILLS)?;
        Some(KillCount { file: path, open: may_keep.then_some(file), inode, seen, processes: 1 })
    }

    /// Goes on with the cgroup that has the path by now: kills in the one before explain no end there. Where its
    /// count cannot be read, none explains an end.
    fn begin_anew(&mut self, may_keep: bool) {
        self.open = None;
        self.inode = 0;
        if let Some(count) = Self::begin(self.file.clone(), may_keep) {
            *self = KillCount { processes: self.processes, ..count };
        }
    }

    /// Whether the path is still that of the same cgroup.
    fn is_the_same(&self) -> bool {
        fs::metadata(&self.file).is_ok_and(|file| file.ino() == self.inode)
    }

    /// The kills by now; `None` when the cgroup was removed, although another may have its path.
    fn read(&self) -> Option<u64> {
        if let Some(kept) = &self.open {
            // The kernel does not read the file of a removed cgroup.
            return read_number_again(kept, KILLS);
        }
        let file = File::open(&self.file).ok()?;
        let is_the_same = file.metadata().ok()?.ino() == self.inode;
        is_the_same.then(|| read_number_again(&file, KILLS)).flatten()
    }
}

/// The version of the hierarchy that limits a process's memory.
#[derive(Clone, Copy, Debug)]
enum Version {
    One,
    Two,
}

impl Version {
    /// The number of cgroups, from that of a process outwards, that count its kill. Version 1 counts it in its
    /// own only.
    const fn levels(self) -> usize {
        match self {
            Version::One => 1,
            Version::Two => MAX_LEVELS,
        }
    }

    fn file(self, path: &str, hierarchies: &Hierarchies) -> Option<PathBuf> {
        let (hierarchy, name) = match self {
            Version::One => (hierarchies.with_controller("memory"), "memory.oom_control"),
            Version::Two => (hierarchies.unified.as_ref(), "memory.events"),
        };
        Some(hierarchy?.directory(path)?.join(name))
    }
}

/// The cgroup of a process that limits its memory: that of version 1 where the controller is there.
fn memory_path<'l>(lines: &'l str, hierarchies: &Hierarchies) -> Option<(&'l str, Version)> {
    let old = controller_path(lines, "memory").filter(|_| hierarchies.with_controller("memory").is_some());
    old.map(|path| (path, Version::One)).or_else(|| Some((unified_path(lines)?, Version::Two)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: ExitStatus = ExitStatus::Killed { signal: 9, core_dumped: false };

    /// A tree of directories that looks like a hierarchy.
    struct Host {
        directory: tempfile::TempDir,
        name: &'static str,
    }

    impl Host {
        fn new(version: Version, max_open: usize) -> (Self, OomWatch) {
            let directory = tempfile::tempdir().unwrap();
            let at = directory.path().to_str().unwrap();
            let (mount, name) = match version {
                Version::One => ("cgroup cgroup rw,memory", "memory.oom_control"),
                Version::Two => ("cgroup2 cgroup2 rw", "memory.events"),
            };
            let hierarchies = Hierarchies::parse(format!("1 2 0:1 / {at} rw - {mount}\n").as_bytes());
            (Host { directory, name }, OomWatch::new(hierarchies, max_open))
        }

        fn kills(&self, cgroup: &str, number: u32) {
            let directory = self.directory.path().join(cgroup);
            fs::create_dir_all(&directory).unwrap();
            let text = format!("low 0\nunder_oom 0\noom 7\noom_kill {number}\noom_group_kill 0\n");
            fs::write(directory.join(self.name), text).unwrap();
        }

        /// Has the path of a cgroup be that of another, which has counted so many kills.
        fn make_again(&self, cgroup: &str, number: u32) {
            let directory = self.directory.path().join(cgroup);
            // Its inode numbers are not given again while it is there, as those of a cgroup are not.
            let number_of_it = fs::metadata(&directory).unwrap().ino();
            fs::rename(&directory, directory.with_extension(number_of_it.to_string())).unwrap();
            self.kills(cgroup, number);
        }

        fn remove(&self, cgroup: &str) {
            fs::remove_dir_all(self.directory.path().join(cgroup)).unwrap();
        }
    }

    #[test]
    fn a_kill_that_the_cgroup_has_counted_since_the_watch_explains_one_end_by_that_signal() {
        let kinds = [(Version::Two, "0::/web\n"), (Version::One, "4:memory:/web\n0::/\n")];
        for ((version, lines), max_open) in kinds.into_iter().flat_map(|kind| [(kind, 0), (kind, 1)]) {
            let (host, mut watch) = Host::new(version, max_open);
            host.kills("web", 3);
            for pid in 1..=5 {
                watch.watch_in(pid, lines);
            }
            assert_eq!(watch.end(1, KILLED), None, "{version:?}: not by the kernel");
            host.kills("web", 4);
            assert_eq!(watch.end(2, ExitStatus::Exited { code: 1 }), None);
            assert_eq!(watch.end(3, ExitStatus::Unknown), None);
            assert_eq!(watch.end(4, KILLED).as_deref(), Some("/web"), "{version:?}");
            assert_eq!(watch.end(5, KILLED), None, "{version:?}: that kill is explained");
        }
    }

    #[test]
    fn when_the_cgroup_is_removed_at_once_the_one_above_tells() {
        let (host, mut watch) = Host::new(Version::Two, 0);
        for (cgroup, kills) in [("s", 1), ("s/a", 0), ("s/b", 1)] {
            host.kills(cgroup, kills);
        }
        watch.watch_in(1, "0::/s/a\n");
        watch.watch_in(2, "0::/s/b\n");
        host.kills("s", 2);
        host.kills("s/b", 2);
        host.remove("s/b");
        assert_eq!(watch.end(2, KILLED).as_deref(), Some("/s"));
        // What has explained the end of one explains that of no other.
        host.remove("s/a");
        assert_eq!(watch.end(1, KILLED), None);
    }

    #[test]
    fn a_cgroup_that_was_removed_and_made_again_has_a_count_of_its_own() {
        for max_open in [0, 1, 2] {
            let (host, mut watch) = Host::new(Version::Two, max_open);
            for (cgroup, kills) in [("s", 9), ("s/a", 5)] {
                host.kills(cgroup, kills);
            }
            // It has moved to another cgroup since, and so the count is kept.
            watch.watch_in(1, "0::/s/a\n");
            host.make_again("s/a", 0);
            watch.watch_in(2, "0::/s/a\n");
            watch.watch_in(3, "0::/s/a\n");
            assert_eq!((watch.counts.len(), watch.open), (2, max_open));
            host.kills("s", 10);
            host.kills("s/a", 1);
            assert_eq!(watch.end(2, KILLED).as_deref(), Some("/s/a"), "{max_open}");
            assert_eq!(watch.end(3, KILLED), None, "that kill is explained");
            // What the other one has counted before anybody there was watched explains nothing.
            host.make_again("s", 9);
            host.kills("s/a", 3);
            watch.watch_in(4, "0::/s/a\n");
            assert_eq!(watch.end(4, KILLED), None);
            host.remove("s");
            watch.watch_in(5, "0::/s/a\n");
            for pid in [1, 5] {
                assert_eq!(watch.end(pid, KILLED), None);
            }
            assert_eq!((watch.counts.len(), watch.open), (0, 0));
        }
    }

    #[test]
    fn the_kills_in_a_cgroup_that_was_made_again_say_nothing_of_processes_of_the_one_before() {
        let (host, mut watch) = Host::new(Version::Two, 0);
        for (cgroup, kills) in [("s", 1), ("s/a", 1)] {
            host.kills(cgroup, kills);
        }
        watch.watch_in(1, "0::/s/a\n");
        host.make_again("s/a", 7);
        assert_eq!(watch.end(1, KILLED), None, "the one above has counted none");
        watch.watch_in(2, "0::/s/a\n");
        host.make_again("s/a", 0);
        host.kills("s", 2);
        assert_eq!(watch.end(2, KILLED).as_deref(), Some("/s"));
    }

    #[test]
    fn a_process_in_a_cgroup_without_a_count_is_told_by_the_one_above() {
        let (host, mut watch) = Host::new(Version::Two, 0);
        host.kills("s", 0);
        watch.watch_in(1, "0::/s/without\n");
        host.kills("s", 1);
        assert_eq!(watch.end(1, KILLED).as_deref(), Some("/s"));
    }

    #[test]
    fn nothing_is_kept_of_processes_that_are_forgotten_and_no_more_than_the_bound_of_others() {
        let (host, mut watch) = Host::new(Version::Two, 1);
        host.kills("s", 0);
        host.kills("s/a", 0);
        for pid in 1..=3 {
            watch.watch_in(pid, "0::/s/a\n");
        }
        assert_eq!((watch.counts.len(), watch.of_process.len(), watch.open), (2, 3, 1));
        watch.unwatch(1);
        watch.watch_in(2, "0::/s\n");
        watch.end(3, KILLED);
        assert_eq!((watch.counts.len(), watch.of_process.len()), (1, 1));
        watch.unwatch(2);
        assert_eq!((watch.counts.len(), watch.of_process.len(), watch.open), (0, 0, 0));
        for number in 0..MAX_CGROUPS {
            let unread = KillCount { file: PathBuf::new(), open: None, inode: 0, seen: 0, processes: 1 };
            watch.counts.insert(format!("/other/{number}").into(), unread);
        }
        watch.watch_in(4, "0::/s/a\n");
        watch.watch_in(5, &format!("0::/{}\n", "a/".repeat(MAX_PATH_LEN)));
        assert_eq!((watch.counts.len(), watch.of_process.len()), (MAX_CGROUPS, 0));
        assert_eq!(watch.end(4, KILLED), None);
    }

    #[test]
    fn a_host_without_counts_has_no_such_kills() {
        let mut watch = OomWatch::new(Hierarchies::default(), 1);
        watch.watch(std::process::id());
        watch.watch(u32::MAX);
        assert_eq!(watch.end(std::process::id(), KILLED), None);
    }
}

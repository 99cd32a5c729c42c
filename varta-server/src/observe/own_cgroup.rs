//! The cgroup that a process has, as a place whose processes can be listed: one that is not the root and does
//! not hold this program.

use std::fs;
use std::path::PathBuf;

use crate::observe::cgroup::{controller_path, read_lines, unified_path};
use crate::observe::hierarchy::Hierarchies;
use crate::observe::kernel_file::read_some;

/// The hierarchies of version 1 in which service managers and container runtimes make cgroups, the best first.
const OLD: [&str; 4] = ["name=systemd", "pids", "memory", "freezer"];
/// The most cgroups below one that are searched for processes.
const MAX_CGROUPS: usize = 1_024;
/// The most bytes read of a list of processes, which is enough for thirty thousand.
const LIST_ROOM: usize = 256 * 1024;

/// A cgroup with processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnCgroup {
    /// The path in its hierarchy.
    pub(crate) path: String,
    /// Its directory.
    pub(crate) directory: PathBuf,
    /// The controller of a hierarchy of version 1; `None` for version 2.
    controller: Option<&'static str>,
}

impl OwnCgroup {
    /// The cgroup of a process, in version 2 if it has one there, else in version 1. `None` when in each
    /// hierarchy it is in the root or not visible, or this program is in it or below.
    pub(crate) fn of_process(pid: u32, hierarchies: &Hierarchies) -> Option<Self> {
        OwnCgroup::find(&read_lines(pid)?, &read_lines(std::process::id())?, hierarchies)
    }

    fn find(lines: &str, own_lines: &str, hierarchies: &Hierarchies) -> Option<Self> {
        let versions = [None].into_iter().chain(OLD.map(Some));
        versions.into_iter().find_map(|controller| {
            let hierarchy = match controller {
                None => hierarchies.unified.as_ref(),
                Some(controller) => hierarchies.with_controller(controller),
            };
            let path = path_in(lines, controller).filter(|path| *path != "/")?;
            let directory = hierarchy?.directory(path)?;
            let is_shared = is_within(path_in(own_lines, controller)?, path);
            (!is_shared).then(|| OwnCgroup { path: path.to_owned(), directory, controller })
        })
    }

    /// Whether a process is in this cgroup or below, as far as visible.
    pub(crate) fn contains(&self, pid: u32) -> bool {
        let lines = read_lines(pid);
        let path = lines.as_deref().and_then(|lines| path_in(lines, self.controller));
        path.is_some_and(|path| is_within(path, &self.path))
    }

    /// The processes in it and in the cgroups below, as far as visible, and bounded.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        let mut room = vec![0; LIST_ROOM];
        let mut directories = vec![self.directory.clone()];
        for _ in 0..MAX_CGROUPS {
            let Some(directory) = directories.pop() else { break };
            let list = read_some(directory.join("cgroup.procs"), &mut room).unwrap_or_default();
            // A pid that is cut off at the end has no newline.
            let whole = list.iter().rposition(|byte| *byte == b'\n').map_or(&[][..], |end| &list[..end]);
            let lines = whole.split(|byte| *byte == b'\n');
            pids.extend(lines.filter_map(|line| std::str::from_utf8(line).ok()?.parse::<u32>().ok()));
            let below = fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok);
            let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            directories.extend(below.map(|entry| entry.path()).take(MAX_CGROUPS));
        }
        // 0 is a process of another namespace.
        pids.retain(|pid| *pid != 0);
        pids
    }
}

fn path_in<'l>(lines: &'l str, controller: Option<&str>) -> Option<&'l str> {
    controller.map_or_else(|| unified_path(lines), |controller| controller_path(lines, controller))
}

/// Whether a cgroup is another, or below it.
fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hierarchies(at: &str) -> Hierarchies {
        let mounts = format!(
            "1 2 0:1 / {at}/v2 rw - cgroup2 cgroup2 rw\n1 2 0:2 / {at}/v1 rw - cgroup cgroup rw,pids\n"
        );
        Hierarchies::parse(mounts.as_bytes())
    }

    #[test]
    fn a_cgroup_is_its_own_if_it_is_not_the_root_and_does_not_hold_this_program() {
        let hierarchies = hierarchies("/cg");
        let table = [
            ("0::/a/web\n", "0::/a/varta\n", Some("/cg/v2/a/web")),
            ("0::/a/web\n", "0::/\n", Some("/cg/v2/a/web")),
            ("2:pids:/web\n0::/\n", "2:pids:/varta\n0::/\n", Some("/cg/v1/web")),
            ("2:pids:/web\n", "2:pids:/\n", Some("/cg/v1/web")),
            // The root, in both.
            ("2:pids:/\n0::/\n", "0::/varta\n", None),
            // This program is in it, or below.
            ("0::/a\n", "0::/a\n", None),
            ("0::/a\n", "0::/a/varta\n", None),
            ("0::/a\n", "0::/ab\n", Some("/cg/v2/a")),
            // Not visible, or nothing known of this program.
            ("0::/../a\n", "0::/varta\n", None),
            ("0::/a\n", "", None),
            ("", "0::/varta\n", None),
        ];
        for (lines, own, expected) in table {
            let found = OwnCgroup::find(lines, own, &hierarchies).map(|cgroup| cgroup.directory);
            assert_eq!(found, expected.map(PathBuf::from), "{lines:?} {own:?}");
        }
    }

    #[test]
    fn processes_are_those_of_the_cgroup_and_of_all_below() {
        let directory = tempfile::tempdir().unwrap();
        let hierarchies = hierarchies(directory.path().to_str().unwrap());
        for (cgroup, pids) in
            [("web", "7\n0\n"), ("web/a", "8\n9\n"), ("web/a/b", "10\n1"), ("other", "99\n")]
        {
            let directory = directory.path().join("v2").join(cgroup);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("cgroup.procs"), pids).unwrap();
        }
        let cgroup = OwnCgroup::find("0::/web\n", "0::/\n", &hierarchies).unwrap();
        let mut processes = cgroup.processes();
        processes.sort_unstable();
        assert_eq!(processes, [7, 8, 9, 10]);
    }
}

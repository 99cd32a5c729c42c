//! The cgroup of a process: its path, whether it is frozen or CPU-throttled, and its pressure (PSI).
//!
//! Only cgroup version 2 is read. On a host with version 1, or with both, the missing values are `None`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::process::text::truncated;
use crate::domain::process::{Cgroup, Pressure, Throttled};
use crate::observe::read_bounded::read_some;

/// The most bytes of a cgroup's path that are kept for display.
pub(crate) const MAX_PATH_LEN: usize = 256;
/// The bytes read of `/proc/PID/cgroup`: one line for each hierarchy, of which at least the first is
/// complete.
const LINES_ROOM: usize = 8 * 1024;
/// The bytes read of `mountinfo`: enough for a few hundred mounts before that of cgroups.
const MOUNTS_ROOM: usize = 64 * 1024;
/// The bytes read of `cgroup.events` and `cpu.stat`, more than they have.
const FACTS_ROOM: usize = 1024;

/// The mount point of the cgroup version 2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    mounted_at: PathBuf,
    /// The cgroup that is mounted there: `/`, except in a container that sees a part of the hierarchy.
    root: String,
}

impl Hierarchy {
    /// Finds the hierarchy; `None` on a host without version 2.
    pub(crate) fn find() -> Option<Self> {
        Hierarchy::parse(read_some("/proc/self/mountinfo", &mut vec![0; MOUNTS_ROOM])?)
    }

    /// Parses a `mountinfo` file, see proc_pid_mountinfo(5).
    fn parse(mountinfo: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(mountinfo);
        text.lines().find_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let mut fields = mount.split(' ').skip(3);
            let (root, mounted_at) = (fields.next()?, fields.next()?);
            let is_cgroup2 = file_system.split(' ').next() == Some("cgroup2");
            is_cgroup2.then(|| Hierarchy { mounted_at: unescape(mounted_at).into(), root: unescape(root) })
        })
    }

    /// The directory of the cgroup with this path; `None` outside of the mounted part.
    pub(crate) fn directory(&self, path: &str) -> Option<PathBuf> {
        let below = match self.root.as_str() {
            "/" => path,
            root => path.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with('/'))?,
        };
        // A process outside of this cgroup namespace has a path with `/..` in it.
        if below.split('/').any(|component| component == "..") {
            return None;
        }
        Some(self.mounted_at.join(below.trim_start_matches('/')))
    }
}

impl Cgroup {
    /// Reads the cgroup of a process; `None` when it cannot be determined.
    pub(crate) fn of_process(pid: u32, hierarchy: Option<&Hierarchy>) -> Option<Self> {
        let lines = read_lines(pid)?;
        let path = unified_path(&lines)?;
        let shown = truncated(path.as_bytes(), MAX_PATH_LEN);
        let Some(directory) = hierarchy.and_then(|hierarchy| hierarchy.directory(path)) else {
            return Some(Cgroup { path: shown, ..Cgroup::default() });
        };
        let numbers = |name: &str, wanted: &str| read_number(&directory.join(name), wanted);
        let throttled = numbers("cpu.stat", "nr_throttled").map(|periods| Throttled {
            periods,
            time: Duration::from_micros(numbers("cpu.stat", "throttled_usec").unwrap_or(0)),
        });
        let pressure = Pressure::read(|resource, room| {
            read_some(directory.join(format!("{resource}.pressure")), room).map(<[u8]>::len)
        });
        let frozen = numbers("cgroup.events", "frozen").map(|frozen| frozen == 1);
        Some(Cgroup { path: shown, frozen, throttled, pressure })
    }
}

/// Reads `/proc/PID/cgroup`, which lists the cgroups of a process.
pub(crate) fn read_lines(pid: u32) -> Option<String> {
    let mut room = vec![0; LINES_ROOM];
    let lines = read_some(format!("/proc/{pid}/cgroup"), &mut room)?;
    Some(String::from_utf8_lossy(lines).into_owned())
}

/// The path in the version 2 hierarchy, from the line `0::PATH`.
pub(crate) fn unified_path(lines: &str) -> Option<&str> {
    let path = lines.lines().find_map(|line| line.strip_prefix("0::"))?;
    // The kernel appends this when the cgroup was removed while a zombie was in it.
    Some(path.strip_suffix(" (deleted)").unwrap_or(path)).filter(|path| path.starts_with('/'))
}

fn read_number(file: &Path, wanted: &str) -> Option<u64> {
    flat_number(read_some(file, &mut [0; FACTS_ROOM])?, wanted)
}

/// The number after a name, in a file with one name and one number on each line.
fn flat_number(file: &[u8], wanted: &str) -> Option<u64> {
    let text = std::str::from_utf8(file).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.find(|(name, _)| *name == wanted)?.1.trim().parse().ok()
}

/// Decodes the octal escapes of space, tab, newline and backslash in a list of mounts: `\040`.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let escaped = part.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok());
        match escaped.filter(u8::is_ascii) {
            Some(byte) => {
                plain.push(char::from(byte));
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_among_others() {
        let at = |root: &str, mounted_at: &str| {
            Some(Hierarchy { mounted_at: mounted_at.into(), root: root.to_owned() })
        };
        let table: [(&[u8], _); 6] = [
            (
                b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                  32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                  41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
                at("/", "/sys/fs/cgroup/unified"),
            ),
            (b"30 24 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n", at("/", "/sys/fs/cgroup")),
            (b"1 2 0:26 /docker/a /a\\040b\\134c rw - cgroup2 x rw\n", at("/docker/a", "/a b\\c")),
            (b"30 24 0:26 / /cgroup2 rw - tmpfs cgroup2 rw\n", None),
            (b"30 24 - cgroup2\n\xff\xff - \n", None),
            (b"", None),
        ];
        for (mountinfo, expected) in table {
            assert_eq!(Hierarchy::parse(mountinfo), expected, "{}", String::from_utf8_lossy(mountinfo));
        }
    }

    #[test]
    fn no_path_leads_out_of_the_hierarchy() {
        let whole = Hierarchy { mounted_at: "/cg".into(), root: "/".to_owned() };
        let part = Hierarchy { mounted_at: "/cg".into(), root: "/docker/a".to_owned() };
        let table = [
            (&whole, "/", Some("/cg/")),
            (&whole, "/system.slice/a.service", Some("/cg/system.slice/a.service")),
            (&whole, "//etc", Some("/cg/etc")),
            (&whole, "/../../etc", None),
            (&whole, "/a/..", None),
            (&whole, "/a/..b", Some("/cg/a/..b")),
            (&part, "/docker/a/b", Some("/cg/b")),
            (&part, "/docker/a", Some("/cg/")),
            (&part, "/docker/ab", None),
            (&part, "/", None),
        ];
        for (hierarchy, path, expected) in table {
            assert_eq!(hierarchy.directory(path), expected.map(PathBuf::from), "{path}");
        }
    }

    #[test]
    fn the_path_is_that_of_version_2() {
        let table = [
            ("9:name=systemd:/a\n0::/b\n", Some("/b")),
            ("0::/b (deleted)\n", Some("/b")),
            ("0::/a:b c\n", Some("/a:b c")),
            ("0::\n", None),
            ("0::b\n", None),
            ("9:name=systemd:/a\n", None),
            ("", None),
        ];
        for (lines, expected) in table {
            assert_eq!(unified_path(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn numbers_are_found_by_their_whole_name() {
        let file = b"nr_throttled_x 1\nnr_throttled 22\nbad x\nhuge 99999999999999999999\nfrozen 1\n";
        let table =
            [("nr_throttled", Some(22)), ("frozen", Some(1)), ("bad", None), ("huge", None), ("", None)];
        for (name, expected) in table {
            assert_eq!(flat_number(file, name), expected, "{name}");
        }
        assert_eq!(flat_number(b"\xff 1\n", "frozen"), None);
    }

    #[test]
    fn this_process_is_in_a_cgroup_or_the_host_has_none() {
        let cgroup = Cgroup::of_process(std::process::id(), Hierarchy::find().as_ref());
        if let Some(cgroup) = cgroup {
            assert!(cgroup.path.starts_with('/'), "{cgroup:?}");
            assert_ne!(cgroup.frozen, Some(true));
        }
        assert_eq!(Cgroup::of_process(u32::MAX, None), None);
    }
}

//! The cgroup of a process: its path, whether it or a parent is frozen, whether it is CPU-throttled, and its
//! pressure (PSI).
//!
//! Freezing is read from version 2 and from version 1, which a host may have at once; throttling and pressure
//! from version 2. Missing values are `None`.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use crate::domain::process::text::truncated;
use crate::domain::process::{Cgroup, Pressure, Throttled};
use crate::observe::hierarchy::{Hierarchies, Hierarchy};
use crate::observe::kernel_file::{read_again, read_some};

/// The most bytes of a cgroup's path that are kept for display.
pub(crate) const MAX_PATH_LEN: usize = 256;
/// The most cgroups that are asked, from that of a process outwards.
const MAX_LEVELS: usize = 32;
/// The bytes read of `/proc/PID/cgroup`: one line for each hierarchy, of which at least the first is
/// complete.
const LINES_ROOM: usize = 8 * 1024;
/// The bytes read of `cgroup.events` and `cpu.stat`, more than they have.
const FACTS_ROOM: usize = 1024;

impl Cgroup {
    /// Reads the cgroup of a process whose `cgroup` file has these lines; `None` when it is in none.
    pub(crate) fn read(lines: &str, hierarchies: &Hierarchies) -> Option<Self> {
        let (unified, old) = (unified_path(lines), controller_path(lines, "freezer"));
        // The root says nothing: on a host with both versions, processes are in cgroups of one of them.
        let telling = [unified, old].into_iter().flatten().find(|path| *path != "/");
        let path = truncated(telling.or(unified).or(old)?.as_bytes(), MAX_PATH_LEN);
        let (frozen, frozen_at) = freezing(lines, hierarchies);
        let frozen_at = frozen_at.map(|path| truncated(path.as_bytes(), MAX_PATH_LEN));
        let frozen_at = frozen_at.filter(|frozen_at| *frozen_at != path);
        let cgroup = Cgroup { path, frozen, frozen_at, ..Cgroup::default() };
        let directory = hierarchies.unified.as_ref().zip(unified);
        let Some(directory) = directory.and_then(|(hierarchy, path)| hierarchy.directory(path)) else {
            return Some(cgroup);
        };
        let numbers = |name: &str, wanted: &str| read_number(&directory.join(name), wanted);
        let throttled = numbers("cpu.stat", "nr_throttled").map(|periods| Throttled {
            periods,
            time: Duration::from_micros(numbers("cpu.stat", "throttled_usec").unwrap_or(0)),
        });
        let pressure = Pressure::read(|resource, room| {
            read_some(directory.join(format!("{resource}.pressure")), room).map(<[u8]>::len)
        });
        Some(Cgroup { throttled, pressure, ..cgroup })
    }
}

/// Whether a process is frozen by one of its cgroups, as far as known; and the outermost of those.
fn freezing<'l>(lines: &'l str, hierarchies: &Hierarchies) -> (Option<bool>, Option<&'l str>) {
    type Ask = fn(&Path) -> Option<bool>;
    let versions: [(Option<&Hierarchy>, Option<&'l str>, Ask); 2] = [
        (hierarchies.unified.as_ref(), unified_path(lines), is_frozen),
        (hierarchies.with_controller("freezer"), controller_path(lines, "freezer"), is_frozen_by_version_1),
    ];
    let (mut known, mut frozen_at) = (None, None);
    for (hierarchy, path, ask) in versions {
        let Some((hierarchy, path)) = hierarchy.zip(path) else { continue };
        for level in levels(path) {
            match hierarchy.directory(level).and_then(|directory| ask(&directory)) {
                Some(true) => (known, frozen_at) = (Some(true), Some(level)),
                Some(false) => {
                    known.get_or_insert(false);
                }
                None => {}
            }
        }
    }
    (known, frozen_at)
}

/// Whether a cgroup of version 2 is to be frozen, or is by one above it that is not visible here.
fn is_frozen(directory: &Path) -> Option<bool> {
    let asked = read_word(&directory.join("cgroup.freeze")).map(|word| word == "1");
    let reached = read_number(&directory.join("cgroup.events"), "frozen").map(|frozen| frozen == 1);
    asked.into_iter().chain(reached).reduce(|one, other| one || other)
}

/// The same of version 1, where the state of a cgroup includes that of those above it.
fn is_frozen_by_version_1(directory: &Path) -> Option<bool> {
    let state = read_word(&directory.join("freezer.state"))?;
    Some(matches!(state.as_str(), "FROZEN" | "FREEZING"))
}

/// The cgroup with this path and those above it, outwards to the root.
pub(crate) fn levels(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |inner| above(inner)).take(MAX_LEVELS)
}

fn above(inner: &str) -> Option<&str> {
    let (above, _) = inner.trim_end_matches('/').rsplit_once('/')?;
    Some(if above.is_empty() { "/" } else { above })
}

/// Reads `/proc/PID/cgroup`, which lists the cgroups of a process.
pub(crate) fn read_lines(pid: u32) -> Option<String> {
    read_lines_of(Path::new(&format!("/proc/{pid}/cgroup")))
}

/// The same from this file.
pub(crate) fn read_lines_of(file: &Path) -> Option<String> {
    let mut room = vec![0; LINES_ROOM];
    Some(String::from_utf8_lossy(read_some(file, &mut room)?).into_owned())
}

/// The path in the version 2 hierarchy, from the line `0::PATH`.
pub(crate) fn unified_path(lines: &str) -> Option<&str> {
    path_of(lines.lines().find_map(|line| line.strip_prefix("0::"))?)
}

/// The path in the version 1 hierarchy with this controller, from the line `ID:CONTROLLERS:PATH`.
pub(crate) fn controller_path<'l>(lines: &'l str, wanted: &str) -> Option<&'l str> {
    path_of(lines.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|controller| controller == wanted).then_some(path)
    })?)
}

/// The path without what the kernel appends when the cgroup was removed while a zombie was in it.
fn path_of(path: &str) -> Option<&str> {
    Some(path.strip_suffix(" (deleted)").unwrap_or(path)).filter(|path| path.starts_with('/'))
}

/// The number after a name, in a file with one name and one number on each line.
fn read_number(file: &Path, wanted: &str) -> Option<u64> {
    flat_number(read_some(file, &mut [0; FACTS_ROOM])?, wanted)
}

/// The same of a file that is kept open.
pub(crate) fn read_number_again(file: &File, wanted: &str) -> Option<u64> {
    flat_number(read_again(file, &mut [0; FACTS_ROOM])?, wanted)
}

fn read_word(file: &Path) -> Option<String> {
    let mut room = [0; FACTS_ROOM];
    Some(String::from_utf8_lossy(read_some(file, &mut room)?.trim_ascii()).into_owned())
}

/// The number after a name, in a file with one name and one number on each line.
fn flat_number(file: &[u8], wanted: &str) -> Option<u64> {
    let text = std::str::from_utf8(file).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.find(|(name, _)| *name == wanted)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_path_of_version_1_is_that_of_its_controller() {
        let lines = "9:name=systemd:/a\n4:cpu,cpuacct:/b\n3:freezer:/c (deleted)\n0::/d\n";
        let table = [
            ("name=systemd", Some("/a")),
            ("cpuacct", Some("/b")),
            ("freezer", Some("/c")),
            ("memory", None),
            ("", Some("/d")),
        ];
        for (controller, expected) in table {
            assert_eq!(controller_path(lines, controller), expected, "{controller}");
        }
    }

    #[test]
    fn the_cgroups_above_a_path_are_all_up_to_the_root() {
        let all = |path| levels(path).collect::<Vec<_>>();
        assert_eq!(all("/a.slice/b/c"), ["/a.slice/b/c", "/a.slice/b", "/a.slice", "/"]);
        assert_eq!(all("/"), ["/"]);
        assert_eq!(all("/a/"), ["/a/", "/"]);
        assert_eq!(levels(&"/a".repeat(1000)).count(), MAX_LEVELS);
    }

    /// A tree of directories that looks like both hierarchies.
    fn mounted(files: &[(&str, &str)]) -> (tempfile::TempDir, Hierarchies) {
        let directory = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let mounts = directory.path().to_str().unwrap();
        let mountinfo = format!(
            "1 2 0:1 / {mounts}/v2 rw - cgroup2 cgroup2 rw\n1 2 0:2 / {mounts}/v1 rw - cgroup cgroup rw,freezer\n"
        );
        (directory, Hierarchies::parse(mountinfo.as_bytes()))
    }

    #[test]
    fn the_outermost_cgroup_that_freezes_a_process_is_named_in_either_version() {
        let inside = "3:freezer:/pod/web\n0::/app.slice/web\n";
        /// Files with their text, whether they freeze, and where.
        type Row<'r> = (&'r [(&'r str, &'r str)], Option<bool>, Option<&'r str>);
        let table: [Row<'_>; 8] = [
            (&[], None, None),
            (&[("v2/app.slice/web/cgroup.freeze", "0\n")], Some(false), None),
            (&[("v2/app.slice/web/cgroup.freeze", "1\n")], Some(true), None),
            (&[("v2/app.slice/web/cgroup.events", "populated 1\nfrozen 1\n")], Some(true), None),
            (
                &[("v2/app.slice/web/cgroup.freeze", "0\n"), ("v2/app.slice/cgroup.freeze", "1\n")],
                Some(true),
                Some("/app.slice"),
            ),
            (&[("v1/pod/web/freezer.state", "THAWED\n")], Some(false), None),
            (
                &[("v1/pod/web/freezer.state", "FROZEN\n"), ("v1/pod/freezer.state", "FREEZING\n")],
                Some(true),
                Some("/pod"),
            ),
            (
                &[("v2/app.slice/web/cgroup.freeze", "0\n"), ("v1/pod/web/freezer.state", "FROZEN\n")],
                Some(true),
                Some("/pod/web"),
            ),
        ];
        for (files, frozen, frozen_at) in table {
            let (_directory, hierarchies) = mounted(files);
            let cgroup = Cgroup::read(inside, &hierarchies).unwrap();
            assert_eq!((cgroup.frozen, cgroup.frozen_at.as_deref()), (frozen, frozen_at), "{files:?}");
            assert_eq!(&*cgroup.path, "/app.slice/web");
        }
    }

    #[test]
    fn where_only_version_1_is_in_use_its_path_is_shown() {
        let cgroup = |lines| Cgroup::read(lines, &Hierarchies::default()).map(|cgroup| cgroup.path);
        assert_eq!(cgroup("3:freezer:/pod\n0::/\n").as_deref(), Some("/pod"));
        assert_eq!(cgroup("3:freezer:/pod\n").as_deref(), Some("/pod"));
        assert_eq!(cgroup("3:freezer:/\n0::/\n").as_deref(), Some("/"));
        assert_eq!(cgroup("3:memory:/pod\n"), None);
    }

    #[test]
    fn this_process_is_in_a_cgroup_or_the_host_has_none() {
        let lines = read_lines(std::process::id()).unwrap_or_default();
        if let Some(cgroup) = Cgroup::read(&lines, &Hierarchies::find()) {
            assert!(cgroup.path.starts_with('/'), "{cgroup:?}");
            assert_ne!(cgroup.frozen, Some(true));
        }
        assert_eq!(read_lines(u32::MAX), None);
    }
}

//! The mounted cgroup hierarchies: the one of version 2, and those of version 1 with their controllers. A host
//! may have either, or both at once.

use std::path::PathBuf;

use crate::observe::kernel_file::read_some;

/// The bytes read of `mountinfo`: enough for a few hundred mounts before those of cgroups.
const MOUNTS_ROOM: usize = 64 * 1024;
/// The most hierarchies of version 1 that are kept; the kernel has fewer controllers.
const MAX_OLD: usize = 32;

/// The hierarchies of this host, as far as they are mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    /// The hierarchy of version 2.
    pub(crate) unified: Option<Hierarchy>,
    /// The hierarchies of version 1, each with its mount options, among which its controllers are.
    old: Vec<(Box<str>, Hierarchy)>,
}

/// A hierarchy at its mount point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    mounted_at: PathBuf,
    /// The cgroup that is mounted there: `/`, except in a container that sees a part of the hierarchy.
    root: String,
}

impl Hierarchies {
    /// Finds the hierarchies; none where the list of mounts cannot be read.
    pub(crate) fn find() -> Self {
        read_some("/proc/self/mountinfo", &mut vec![0; MOUNTS_ROOM])
            .map(Hierarchies::parse)
            .unwrap_or_default()
    }

    /// Parses a `mountinfo` file, see proc_pid_mountinfo(5). Of two mounts of one hierarchy the first counts.
    pub(crate) fn parse(mountinfo: &[u8]) -> Self {
        let mut found = Hierarchies::default();
        for line in String::from_utf8_lossy(mountinfo).lines() {
            let Some((kind, options, hierarchy)) = parse_mount(line) else { continue };
            if kind == "cgroup2" {
                found.unified.get_or_insert(hierarchy);
            } else if found.old.len() < MAX_OLD {
                found.old.push((options.into(), hierarchy));
            }
        }
        found
    }

    /// The hierarchy of version 1 with this controller, or with this name, as in `name=systemd`.
    pub(crate) fn with_controller(&self, wanted: &str) -> Option<&Hierarchy> {
        let has = |options: &str| options.split(',').any(|option| option == wanted);
        self.old.iter().find_map(|(options, hierarchy)| has(options).then_some(hierarchy))
    }
}

/// The kind, the options of the file system, and the place of a mount of cgroups.
fn parse_mount(line: &str) -> Option<(&str, &str, Hierarchy)> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, mounted_at) = (fields.next()?, fields.next()?);
    let mut fields = file_system.split(' ');
    let kind = fields.next().filter(|kind| matches!(*kind, "cgroup" | "cgroup2"))?;
    let options = fields.nth(1).unwrap_or_default();
    Some((kind, options, Hierarchy { mounted_at: unescape(mounted_at).into(), root: unescape(root) }))
}

impl Hierarchy {
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
            assert_eq!(
                Hierarchies::parse(mountinfo).unified,
                expected,
                "{}",
                String::from_utf8_lossy(mountinfo)
            );
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
    fn each_controller_of_version_1_is_found_in_its_own_hierarchy() {
        let mountinfo = b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
            33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            34 31 0:31 /docker/a /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let found = Hierarchies::parse(mountinfo);
        let table = [
            ("cpu", "/docker/a", Some("/sys/fs/cgroup/cpu,cpuacct/docker/a")),
            ("cpuacct", "/", Some("/sys/fs/cgroup/cpu,cpuacct/")),
            ("name=systemd", "/b", Some("/sys/fs/cgroup/systemd/b")),
            ("freezer", "/docker/a/b", Some("/sys/fs/cgroup/freezer/b")),
            ("freezer", "/b", None),
            ("memory", "/", None),
        ];
        for (controller, path, expected) in table {
            let hierarchy = found.with_controller(controller);
            let directory = hierarchy.and_then(|hierarchy| hierarchy.directory(path));
            assert_eq!(directory, expected.map(PathBuf::from), "{controller} {path}");
        }
        let many = b"1 2 0:1 / /a rw - cgroup cgroup rw,cpu\n".repeat(1000);
        assert_eq!(Hierarchies::parse(&many).old.len(), MAX_OLD);
    }
}

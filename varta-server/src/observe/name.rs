//! The name of a process from its operator's point of view: its systemd unit or container, else its command.
//!
//! A restarted service has a new pid and the same unit, so its metric series continue under this name.

use std::fmt;

use crate::domain::process::ProcessPlace;
use crate::domain::process::text::truncated;
use crate::observe::cgroup::{MAX_PATH_LEN, read_lines, unified_path};
use crate::observe::stat::Stat;

/// The name of a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProcessName {
    /// A systemd unit, `.service` or `.scope`.
    Unit(Box<str>),
    /// A container id: 64 hexadecimal digits in Docker, Podman, containerd and CRI-O, or the name in LXC.
    Container(Box<str>),
    /// The command name, which the process may change.
    Command(Box<str>),
}

/// The digits of a container id that are shown, which are also the fewest that are recognised as one.
const SHORT_ID: usize = 12;
const WHOLE_ID: usize = 64;
/// Container runtimes that prefix a cgroup's name, which may end with a shortened id.
const RUNTIMES: [&str; 8] =
    ["docker", "libpod", "libpod-payload", "cri-containerd", "containerd", "crio", "nerdctl", "podman"];

impl ProcessName {
    /// The name of the process with this pid; `None` when there is none.
    #[must_use]
    pub fn of_process(pid: u32) -> Option<Self> {
        ProcessName::of_cgroup(pid)
            .or_else(|| Stat::of_thread(pid, pid).map(|stat| ProcessName::Command(stat.name.into())))
    }

    /// The unit or container of the process with this pid; `None` without either, or without such a process.
    #[must_use]
    pub fn of_cgroup(pid: u32) -> Option<Self> {
        read_lines(pid).and_then(|lines| ProcessName::parse(&lines))
    }

    /// The unit or container, and whether it is a unit of this host's service manager: not one within a
    /// container, or of another user's manager, where names are arbitrary. And the place where the process runs.
    pub(crate) fn of_group(pid: u32) -> (Option<(Self, bool)>, Option<ProcessPlace>) {
        let Some(lines) = read_lines(pid) else { return (None, None) };
        let named = ProcessName::parse(&lines).map(|name| {
            let is_managed = match &name {
                ProcessName::Unit(unit) => {
                    managed_unit(&lines, nix::unistd::geteuid().as_raw()) == Some(&**unit)
                }
                ProcessName::Container(_) | ProcessName::Command(_) => false,
            };
            (name, is_managed)
        });
        (named, place(&lines))
    }

    /// Parses the unit or container from a `cgroup` file, see proc_pid_cgroup(5).
    ///
    /// The version 2 hierarchy has precedence, then systemd's own, then the others.
    fn parse(lines: &str) -> Option<Self> {
        paths(lines).chain(of_hierarchy(lines, "*")).find_map(ProcessName::of_path)
    }

    /// The innermost component of a path that is a unit or a container.
    fn of_path(path: &str) -> Option<Self> {
        components(path).find_map(|(component, parent)| match container(component, parent) {
            Some(id) => Some(ProcessName::Container(id.into())),
            None => is_unit(component).then(|| ProcessName::Unit(component.into())),
        })
    }
}

/// The unit, the first 12 digits of the container id, or the command. May hold any characters: it is foreign
/// input.
impl fmt::Display for ProcessName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProcessName::Unit(name) | ProcessName::Command(name) => f.write_str(name),
            ProcessName::Container(id) if is_id(id) => f.write_str(id.get(..SHORT_ID).unwrap_or(id)),
            ProcessName::Container(name) => f.write_str(name),
        }
    }
}

/// The first cgroup that is not the root, and the innermost container in its path.
fn place(lines: &str) -> Option<ProcessPlace> {
    let is_telling = |path: &&str| path.starts_with('/') && *path != "/";
    let path = paths(lines).chain(of_hierarchy(lines, "*")).find(is_telling)?;
    let container = components(path).find_map(|(component, parent)| container(component, parent));
    let shown = |id: &str| ProcessName::Container(id.into()).to_string().into();
    Some(ProcessPlace { cgroup: truncated(path.as_bytes(), MAX_PATH_LEN), container: container.map(shown) })
}

/// The components of a path, the innermost first, each with the one that it is in.
fn components(path: &str) -> impl Iterator<Item = (&str, &str)> {
    path.rsplit('/').zip(path.rsplit('/').skip(1).chain([""]))
}

/// The container that a component of a path stands for.
fn container<'c>(component: &'c str, parent: &str) -> Option<&'c str> {
    container_id(component).or((parent == "lxc" && !component.is_empty()).then_some(component))
}

/// The paths that systemd made, if any: in the version 2 hierarchy, and in its own version 1 hierarchy.
fn paths(lines: &str) -> impl Iterator<Item = &str> {
    unified_path(lines).into_iter().chain(of_hierarchy(lines, "name=systemd"))
}

/// The paths in the version 1 hierarchies with these controllers; `*` for any.
fn of_hierarchy<'l>(lines: &'l str, wanted: &'static str) -> impl Iterator<Item = &'l str> {
    lines.lines().filter_map(move |line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        (controllers == wanted || wanted == "*").then_some(path)
    })
}

/// The unit that the service manager of this user runs: the first component after its slices.
fn managed_unit(lines: &str, uid: u32) -> Option<&str> {
    let own_manager = format!("/user.slice/user-{uid}.slice/user@{uid}.service");
    paths(lines).find_map(|path| {
        let below = path.strip_prefix(own_manager.as_str()).filter(|_| uid != 0).unwrap_or(path);
        let unit = below.split('/').skip(1).find(|component| !component.ends_with(".slice"))?;
        is_unit(unit).then_some(unit)
    })
}

/// Whether this unit stands for one program. Logins, user managers and transient units, whose names differ
/// each time, do not.
fn is_unit(component: &str) -> bool {
    let Some((name, kind)) = component.rsplit_once('.') else { return false };
    let is_collective = match kind {
        "service" => name.starts_with("user@") || name.starts_with("run-u") || name.starts_with("run-r"),
        "scope" => {
            name == "init"
                || ["session-", "run-u", "run-r"].iter().any(|prefix| name.starts_with(prefix))
                || is_monitor(name)
        }
        _ => return false,
    };
    !name.is_empty() && !is_collective
}

/// Whether this is the cgroup of a container's monitor process (`conmon`), which carries the container's id
/// as well.
fn is_monitor(name: &str) -> bool {
    name.rsplit_once('-').is_some_and(|(prefix, id)| prefix.ends_with("conmon") && is_id(id))
}

/// The container id in the name of a cgroup.
fn container_id(component: &str) -> Option<&str> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    if let Some(name) = name.strip_prefix("lxc.payload.") {
        return Some(name);
    }
    // `kubepods-…:cri-containerd:ID`, where containerd does not use systemd.
    let name = name.rsplit_once(':').map_or(name, |(_, name)| name);
    let (prefix, id) = name.rsplit_once('-').map_or((None, name), |(prefix, id)| (Some(prefix), id));
    match prefix {
        None => (id.len() == WHOLE_ID && is_id(id)).then_some(id),
        Some(prefix) if prefix.ends_with("conmon") => None,
        Some(prefix) if RUNTIMES.contains(&prefix) => is_id(id).then_some(id),
        // A task of Amazon ECS.
        Some(task) if task.len() == 32 && is_id(task) => {
            (!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
        }
        Some(_) => (id.len() == WHOLE_ID && is_id(id)).then_some(id),
    }
}

fn is_id(text: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (SHORT_ID..=WHOLE_ID).contains(&text.len()) && text.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f0c3b1d2e5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

    fn unit(name: &str) -> Option<ProcessName> {
        Some(ProcessName::Unit(name.into()))
    }

    #[test]
    fn units_are_read_from_the_cgroups_that_systemd_makes() {
        let table = [
            ("0::/system.slice/nginx.service\n", unit("nginx.service")),
            ("0::/system.slice/system-getty.slice/getty@tty1.service\n", unit("getty@tty1.service")),
            ("0::/system.slice/foo\\x2dbar.service\n", unit("foo\\x2dbar.service")),
            ("0::/system.slice/worker.service/workers/3\n", unit("worker.service")),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/sync.service\n",
                unit("sync.service"),
            ),
            ("0::/machine.slice/machine-web.scope/payload\n", unit("machine-web.scope")),
            // A host with both versions: only the root of version 2 is in use.
            (
                "5:devices:/system.slice/a.service\n1:name=systemd:/system.slice/b.service\n0::/\n",
                unit("b.service"),
            ),
            ("5:devices:/system.slice/a.service\n", unit("a.service")),
            (
                "3:cpu,cpuacct:/\n2:memory:/system.slice/cron.service\n1:name=systemd:/\n",
                unit("cron.service"),
            ),
        ];
        for (lines, expected) in table {
            assert_eq!(ProcessName::parse(lines), expected, "{lines}");
        }
    }

    #[test]
    fn what_many_programs_share_names_none_of_them() {
        let table = [
            "0::/\n",
            "0::/user.slice/user-1000.slice/session-3.scope\n",
            "0::/user.slice/user-1000.slice/user@1000.service/init.scope\n",
            "0::/init.scope\n",
            "0::/system.slice/run-u123.service\n",
            "0::/system.slice/run-rd2c1a7b0a2f54fd1b0b4.scope\n",
            "0::/.service\n",
            "0::/system.slice\n",
            "0::/my-processes\n",
            "",
            ":::\n::\n0:\n\n",
        ];
        for lines in table {
            assert_eq!(ProcessName::parse(lines), None, "{lines}");
        }
    }

    #[test]
    fn containers_are_read_from_the_cgroups_that_their_runtimes_make() {
        let pod = "pod1a2b3c4d_0000_1111_2222_333344445555";
        let table = [
            format!("0::/system.slice/docker-{ID}.scope\n"),
            format!("0::/docker/{ID}\n"),
            format!("12:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/\n"),
            format!("0::/docker/{ID}/workers\n"),
            format!("0::/machine.slice/libpod-{ID}.scope/container\n"),
            format!("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope\n"),
            format!("0::/libpod_parent/libpod-{ID}\n"),
            format!("0::/machine.slice/libpod-payload-{ID}\n"),
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{pod}.slice/cri-containerd-{ID}.scope\n"
            ),
            format!("0::/kubepods.slice/kubepods-{pod}.slice/crio-{ID}.scope\n"),
            format!("0::/kubepods/burstable/{pod}/{ID}\n"),
            format!(
                "0::/system.slice/containerd.service/kubepods-besteffort-{pod}.slice:cri-containerd:{ID}\n"
            ),
            format!("0::/default/{ID}\n"),
            format!("0::/ecs/0123456789abcdef/{ID}\n"),
            format!("0::/system.slice/nerdctl-{ID}.scope\n"),
        ];
        for lines in table {
            assert_eq!(ProcessName::parse(&lines), Some(ProcessName::Container(ID.into())), "{lines}");
        }
    }

    #[test]
    fn containers_with_other_names_are_known_by_those() {
        let table = [
            ("0::/system.slice/docker-4f0c3b1d2e5a.scope\n", "4f0c3b1d2e5a"),
            ("0::/lxc.payload.web\n", "web"),
            ("0::/lxc/web\n", "web"),
            (
                "0::/ecs/task/0123456789abcdef0123456789abcdef-1234567890\n",
                "0123456789abcdef0123456789abcdef-1234567890",
            ),
        ];
        for (lines, name) in table {
            assert_eq!(ProcessName::parse(lines), Some(ProcessName::Container(name.into())), "{lines}");
        }
    }

    #[test]
    fn the_innermost_name_counts_and_a_monitor_is_not_its_container() {
        let inner = format!("0::/docker/{ID}/system.slice/app.service\n");
        assert_eq!(ProcessName::parse(&inner), unit("app.service"));
        let monitor = format!("0::/machine.slice/libpod-conmon-{ID}.scope\n");
        assert_eq!(ProcessName::parse(&monitor), None);
    }

    #[test]
    fn a_container_is_shown_by_the_beginning_of_its_id() {
        assert_eq!(ProcessName::Container(ID.into()).to_string(), "4f0c3b1d2e5a");
        assert_eq!(ProcessName::Container("web".into()).to_string(), "web");
        assert_eq!(ProcessName::Unit("a.service".into()).to_string(), "a.service");
    }

    #[test]
    fn a_unit_is_taken_for_one_of_this_hosts_manager_only_where_nobody_else_can_have_made_it() {
        let table = [
            ("0::/system.slice/nginx.service\n", 0, Some("nginx.service")),
            ("0::/system.slice/system-getty.slice/getty@tty1.service\n", 1000, Some("getty@tty1.service")),
            ("0::/system.slice/worker.service/workers/3\n", 0, Some("worker.service")),
            ("5:devices:/\n1:name=systemd:/system.slice/b.service\n0::/\n", 0, Some("b.service")),
            // A user's own manager counts for a server of the same user.
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/a.service\n",
                1000,
                Some("a.service"),
            ),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/a.service\n", 0, None),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/a.service\n", 1001, None),
            // Within a container, and in a cgroup made by hand.
            (
                "0::/machine.slice/machine-web.scope/system.slice/nginx.service\n",
                0,
                Some("machine-web.scope"),
            ),
            ("0::/docker/4f0c3b1d2e5a/system.slice/nginx.service\n", 0, None),
            ("0::/system.slice/mine.service/nginx.service\n", 0, Some("mine.service")),
            ("0::/\n", 0, None),
        ];
        for (lines, uid, expected) in table {
            assert_eq!(managed_unit(lines, uid), expected, "{lines} {uid}");
        }
    }

    #[test]
    fn a_process_has_its_cgroup_and_the_innermost_container_also_where_a_unit_names_it() {
        let long = format!("/{}", "x".repeat(300));
        let table = [
            (format!("0::/docker/{ID}/system.slice/app.service\n"), None, Some("4f0c3b1d2e5a")),
            ("0::/lxc/web/workers\n".to_owned(), Some("/lxc/web/workers"), Some("web")),
            ("0::/my-processes\n".to_owned(), Some("/my-processes"), None),
            ("0::/system.slice/cron.service\n".to_owned(), Some("/system.slice/cron.service"), None),
            ("5:devices:/a\n1:name=systemd:/b\n0::/\n".to_owned(), Some("/b"), None),
            ("5:devices:/a\n0::/\n".to_owned(), Some("/a"), None),
            (format!("0::{long}\n"), Some(&long[..MAX_PATH_LEN]), None),
        ];
        for (lines, cgroup, container) in table {
            let place = place(&lines).unwrap();
            assert!(cgroup.is_none_or(|cgroup| cgroup == &*place.cgroup), "{lines}: {place:?}");
            assert_eq!(place.container.as_deref(), container, "{lines}");
        }
        for lines in ["0::/\n", "5:devices:/\n0::/\n", "", "0::\n", ":::\n"] {
            assert_eq!(place(lines), None, "{lines}");
        }
    }

    #[test]
    fn this_process_has_a_name_and_nobody_has_none() {
        assert!(ProcessName::of_process(std::process::id()).is_some());
        assert_eq!(ProcessName::of_process(u32::MAX), None);
    }
}

//! The paths at which a server and its agents look for the socket of a host.
//!
//! A server and its agents both use this module, so that an agent without any configuration finds a server
//! without any. Nothing here accesses the file system.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{format, vec::Vec};

/// The environment variable with the path of the socket, for agents and for servers.
///
/// It takes precedence over everything else in this module, and callers read it first:
/// [`default_socket_path`] is for when it is not set.
///
/// ```
/// use std::path::PathBuf;
/// use varta_proto::address::{SOCKET_ENV, default_socket_path};
///
/// let configured = std::env::var_os(SOCKET_ENV).filter(|path| !path.is_empty());
/// let socket = configured.map_or_else(|| default_socket_path(1000), PathBuf::from);
/// assert!(socket.file_name().is_some());
/// ```
pub const SOCKET_ENV: &str = "VARTA_SOCKET";

/// The most bytes of an answer on the check socket, see [`check_socket_path`].
pub const MAX_CHECK_ANSWER_LEN: usize = 512;

/// The file name of the socket in each directory.
const SOCKET: &str = "varta.sock";

/// Returns the path at which a server of user `uid` opens its socket by default.
///
/// The first of these that exists in the environment:
///
/// 1. `$RUNTIME_DIRECTORY/varta.sock`, where systemd gave the service a directory; the first, if there are
///    several;
/// 2. `$XDG_RUNTIME_DIR/varta/varta.sock`;
/// 3. `/run/varta/varta.sock` for user 0, and `/tmp/varta-<uid>/varta.sock` for every other user.
///
/// A variable that is empty or holds a relative path counts as not set: a relative path means different files
/// to two processes with different working directories.
///
/// ```
/// let socket = varta_proto::address::default_socket_path(1000);
/// assert!(socket.ends_with("varta.sock"));
/// ```
pub fn default_socket_path(uid: u32) -> PathBuf {
    default_socket_path_from(uid, |name| env::var_os(name))
}

/// Returns the path of the check socket of the server whose socket is at `socket`: the same with `.check`
/// appended.
///
/// It is a sequenced-packet socket. A client sends a packet that could be a datagram to the other socket, and
/// the server answers with one packet of at most [`MAX_CHECK_ANSWER_LEN`] bytes and closes the connection:
/// `ok` if it would take that datagram, else `refused`, the reason as in `varta_frames_total`, and what to do,
/// each after a space. Nothing comes of the packet otherwise.
///
/// ```
/// use std::path::Path;
/// use varta_proto::address::check_socket_path;
///
/// let path = check_socket_path(Path::new("/run/varta/varta.sock"));
/// assert_eq!(path, Path::new("/run/varta/varta.sock.check"));
/// ```
pub fn check_socket_path(socket: &Path) -> PathBuf {
    let mut path = OsString::from(socket);
    path.push(".check");
    path.into()
}

/// Returns what [`default_socket_path`] returns, with environment variables from `lookup`.
///
/// ```
/// use varta_proto::address::default_socket_path_from;
///
/// let bare = default_socket_path_from(1000, |_| None);
/// assert_eq!(bare.to_str(), Some("/tmp/varta-1000/varta.sock"));
///
/// let lookup = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| "/run/user/1000".into());
/// let desktop = default_socket_path_from(1000, lookup);
/// assert_eq!(desktop.to_str(), Some("/run/user/1000/varta/varta.sock"));
/// ```
pub fn default_socket_path_from(uid: u32, lookup: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    from_environment(lookup).next().unwrap_or_else(|| if uid == 0 { system_wide() } else { of_user(uid) })
}

/// Returns every path at which a server may have its socket, the most likely first, without duplicates.
///
/// An agent uses the first path at which there is a socket. The agent's environment may differ from the
/// server's (only a service has a `RUNTIME_DIRECTORY`), so the list has more paths than
/// [`default_socket_path`] chooses from: the same paths in the same order, and `/run/varta` for every user.
/// User 0 has no candidate below `/tmp`, where no server of user 0 opens a socket and every user can create
/// files.
///
/// For the same reason an agent that finds a socket below `/tmp` checks that its directory belongs to `uid`.
///
/// ```
/// let candidates = varta_proto::address::candidate_socket_paths(1000);
/// assert!(candidates.contains(&varta_proto::address::default_socket_path(1000)));
/// ```
pub fn candidate_socket_paths(uid: u32) -> Vec<PathBuf> {
    candidate_socket_paths_from(uid, |name| env::var_os(name))
}

/// Returns what [`candidate_socket_paths`] returns, with environment variables from `lookup`.
///
/// ```
/// use varta_proto::address::candidate_socket_paths_from;
///
/// let paths = candidate_socket_paths_from(1000, |_| None);
/// assert_eq!(paths.iter().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(), [
///     "/run/varta/varta.sock",
///     "/tmp/varta-1000/varta.sock",
/// ]);
/// ```
pub fn candidate_socket_paths_from(uid: u32, lookup: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = Vec::new();
    let own = (uid != 0).then(|| of_user(uid));
    for path in from_environment(lookup).chain([system_wide()]).chain(own) {
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths
}

/// Returns the paths from the environment, in order.
fn from_environment(lookup: impl Fn(&str) -> Option<OsString>) -> impl Iterator<Item = PathBuf> {
    let runtime = lookup("RUNTIME_DIRECTORY").and_then(|list| env::split_paths(&list).next());
    let desktop = lookup("XDG_RUNTIME_DIR").map(PathBuf::from);
    // A relative path counts as not set, and the empty path is relative.
    let runtime = runtime.filter(|directory| directory.is_absolute()).map(|directory| directory.join(SOCKET));
    let desktop = desktop
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join("varta").join(SOCKET));
    runtime.into_iter().chain(desktop)
}

fn system_wide() -> PathBuf {
    PathBuf::from("/run/varta").join(SOCKET)
}

fn of_user(uid: u32) -> PathBuf {
    PathBuf::from(format!("/tmp/varta-{uid}")).join(SOCKET)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    const SYSTEM: &str = "/run/varta/varta.sock";
    const USER: &str = "/tmp/varta-7/varta.sock";

    /// `RUNTIME_DIRECTORY` and `XDG_RUNTIME_DIR`, the default of user 7, and all candidates of user 7.
    #[test]
    fn the_first_usable_directory_wins() {
        let table = [
            (None, None, USER, vec![SYSTEM, USER]),
            (Some(""), Some(""), USER, vec![SYSTEM, USER]),
            (Some("run"), Some("../user"), USER, vec![SYSTEM, USER]),
            (
                None,
                Some("/run/user/7"),
                "/run/user/7/varta/varta.sock",
                vec!["/run/user/7/varta/varta.sock", SYSTEM, USER],
            ),
            (Some("/run/a"), None, "/run/a/varta.sock", vec!["/run/a/varta.sock", SYSTEM, USER]),
            (
                Some("/run/a"),
                Some("/run/user/7"),
                "/run/a/varta.sock",
                vec!["/run/a/varta.sock", "/run/user/7/varta/varta.sock", SYSTEM, USER],
            ),
            (Some("/run/a:/run/b"), None, "/run/a/varta.sock", vec!["/run/a/varta.sock", SYSTEM, USER]),
        ];
        for (runtime, desktop, default, candidates) in table {
            let lookup = |name: &str| match name {
                "RUNTIME_DIRECTORY" => runtime.map(OsString::from),
                "XDG_RUNTIME_DIR" => desktop.map(OsString::from),
                _ => panic!("{name} was looked up"),
            };
            assert_eq!(default_socket_path_from(7, lookup), PathBuf::from(default));
            assert_eq!(
                candidate_socket_paths_from(7, lookup),
                candidates.into_iter().map(PathBuf::from).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn root_is_never_sent_below_tmp() {
        assert_eq!(default_socket_path_from(0, |_| None), PathBuf::from(SYSTEM));
        assert_eq!(candidate_socket_paths_from(0, |_| None), [PathBuf::from(SYSTEM)]);
    }

    #[test]
    fn no_candidate_comes_twice() {
        let lookup = |name: &str| (name == "RUNTIME_DIRECTORY").then(|| "/run/varta".into());
        assert_eq!(candidate_socket_paths_from(0, lookup), [PathBuf::from(SYSTEM)]);
    }
}

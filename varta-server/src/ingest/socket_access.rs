//! Who can open a socket file: warnings at the start about users and groups that are allowed and cannot, and
//! about users who can and are not allowed.
//!
//! Owner, group and mode decide, as far as this looks; an access control list may let more users in.

use std::ffi::CString;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};

use crate::ingest::senders::{AllowedSenders, OverflowIds};

/// The permission to pass a directory, and to send to a socket.
const PASS: u32 = 0o1;
const SEND: u32 = 0o2;
/// The most warnings about one socket. All further users are counted.
const MAX_WARNINGS: usize = 16;
/// An id that nobody has.
const NO_ID: u32 = u32::MAX;

/// A user or group, as the kernel compares it with the owner and group of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Accessor {
    uid: u32,
    gids: Vec<u32>,
}

/// What keeps somebody from a socket: a directory on the way or the socket itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Obstacle {
    path: PathBuf,
    owner: (u32, u32),
    mode: u32,
}

/// The files between the root directory and a socket, and the socket.
struct Way(Vec<(PathBuf, Metadata)>);

impl Accessor {
    fn anybody() -> Self {
        Accessor { uid: NO_ID, gids: Vec::new() }
    }

    /// A process of a user, with the groups that a login gives it; without any for a user without a name.
    fn of_user(uid: u32) -> Self {
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        let groups = user.and_then(|user| {
            let name = CString::new(user.name).ok()?;
            getgrouplist(&name, user.gid).ok()
        });
        Accessor { uid, gids: groups.unwrap_or_default().into_iter().map(Gid::as_raw).collect() }
    }

    fn of_group(gid: u32) -> Self {
        Accessor { uid: NO_ID, gids: vec![gid] }
    }

    fn may(&self, (uid, gid): (u32, u32), mode: u32, permission: u32) -> bool {
        let shift = match () {
            () if self.uid == uid => 6,
            () if self.gids.contains(&gid) => 3,
            () => 0,
        };
        mode >> shift & permission == permission
    }
}

impl Way {
    fn to(socket: &Path) -> io::Result<Self> {
        let socket = fs::canonicalize(socket)?;
        let mut files = Vec::new();
        for path in socket.ancestors() {
            files.push((path.to_path_buf(), fs::metadata(path)?));
        }
        files.reverse();
        Ok(Way(files))
    }

    /// The first obstacle for somebody on the way; `None` when the socket can be opened.
    fn obstacle(&self, who: &Accessor) -> Option<Obstacle> {
        self.0.iter().find_map(|(path, found)| {
            let owner = (found.uid(), found.gid());
            let permission = if found.is_dir() { PASS } else { SEND };
            let mode = found.mode() & 0o777;
            (!who.may(owner, mode, permission)).then(|| Obstacle { path: path.clone(), owner, mode })
        })
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Obstacle { path, owner: (uid, gid), mode } = self;
        write!(f, "{} has mode {mode:04o}, uid {uid} and gid {gid}", path.display())
    }
}

/// Looks at the Unix sockets of these paths, and logs the warnings. What cannot be looked at gives none: the socket
/// is there, and the next agent finds out.
pub(crate) fn warn<'p>(paths: impl Iterator<Item = &'p Path>, allowed: &AllowedSenders) {
    let mut allowed = allowed.clone();
    allowed.without(OverflowIds::of_server());
    for warning in paths.flat_map(|path| warnings(path, &allowed)) {
        tracing::warn!(target: "varta::ingest", "{warning}");
    }
}

fn warnings(socket: &Path, allowed: &AllowedSenders) -> Vec<String> {
    let Ok(way) = Way::to(socket) else { return Vec::new() };
    let us = geteuid().as_raw();
    let users = allowed.uids.iter().filter(|uid| **uid != 0 && **uid != us);
    let users = users.map(|uid| (format!("uid {uid}"), Accessor::of_user(*uid)));
    let groups = allowed.gids.iter().map(|gid| (format!("gid {gid}"), Accessor::of_group(*gid)));
    let shut_out = users.chain(groups).filter_map(|(who, accessor)| Some((who, way.obstacle(&accessor)?)));
    let mut warnings: Vec<_> = shut_out
        .map(|(who, obstacle)| {
            format!(
                "{who} is allowed to beat and cannot open {}: {obstacle}; see --socket-mode and --socket-group, or give it \
                 access with chmod, chgrp or setfacl",
                socket.display()
            )
        })
        .collect();
    if warnings.len() > MAX_WARNINGS {
        let more = warnings.len() - MAX_WARNINGS;
        warnings.truncate(MAX_WARNINGS);
        warnings.push(format!("so it is with {more} more users and groups that are allowed to beat"));
    }
    if way.obstacle(&Accessor::anybody()).is_none() {
        warnings.push(format!(
            "every user of this host can open {}: beats of users who are not allowed are refused, but wait in the socket's \
             queue before that, and a user who fills it keeps out the beats of all others; --socket-mode 0660 and \
             --socket-group let in the members of one group only",
            socket.display()
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn owner_group_and_others_are_told_apart_as_the_kernel_does() {
        let member = Accessor { uid: 7, gids: vec![70, 71] };
        for (owner, mode, permission, may) in [
            ((7, 1), 0o200, SEND, true),
            ((7, 70), 0o020, SEND, false),
            ((1, 71), 0o020, SEND, true),
            ((1, 71), 0o002, SEND, false),
            ((1, 1), 0o002, SEND, true),
            ((1, 1), 0o660, SEND, false),
            ((1, 1), 0o711, PASS, true),
            ((1, 1), 0o700, PASS, false),
        ] {
            assert_eq!(member.may(owner, mode, permission), may, "{owner:?} {mode:04o}");
        }
    }

    /// A socket of this mode in a directory of this mode.
    fn socket(directory_mode: u32, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("varta.sock");
        drop(UnixDatagram::bind(&path).unwrap());
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(directory_mode)).unwrap();
        (dir, path)
    }

    /// No user has it.
    const STRANGER: u32 = 3_999_999_999;

    fn warnings_for(directory_mode: u32, mode: u32, uids: &[u32], gids: &[u32]) -> Vec<String> {
        let (_dir, path) = socket(directory_mode, mode);
        warnings(&path, &AllowedSenders { uids: uids.to_vec(), gids: gids.to_vec() })
    }

    #[test]
    fn who_is_allowed_and_cannot_open_the_socket_is_named_with_what_is_in_the_way() {
        let us = geteuid().as_raw();
        assert_eq!(warnings_for(0o700, 0o600, &[us, 0], &[]), [""; 0], "the server and root can");
        let by_mode = warnings_for(0o711, 0o600, &[us, STRANGER], &[STRANGER]);
        assert_eq!(by_mode.len(), 2, "{by_mode:?}");
        assert!(by_mode[0].contains(&format!("uid {STRANGER} is allowed")), "{by_mode:?}");
        assert!(by_mode[0].contains("varta.sock has mode 0600"), "{by_mode:?}");
        assert!(by_mode[1].contains(&format!("gid {STRANGER} is allowed")), "{by_mode:?}");
        let by_directory = warnings_for(0o700, 0o660, &[STRANGER], &[]);
        assert_eq!(by_directory.len(), 1);
        assert!(by_directory[0].contains("has mode 0700"), "{by_directory:?}");
    }

    #[test]
    fn a_socket_that_everybody_can_open_is_warned_about_and_one_behind_a_closed_directory_is_not() {
        let open = warnings_for(0o711, 0o666, &[STRANGER], &[]);
        assert_eq!(open.len(), 1, "{open:?}");
        assert!(open[0].starts_with("every user of this host can open"), "{open:?}");
        assert_eq!(warnings_for(0o700, 0o666, &[0], &[]), [""; 0]);
        assert_eq!(warnings_for(0o711, 0o660, &[0], &[]), [""; 0]);
    }

    #[test]
    fn very_many_users_are_counted() {
        let many: Vec<_> = (0..100).map(|number| STRANGER - number).collect();
        let warnings = warnings_for(0o700, 0o600, &many, &[]);
        assert_eq!(warnings.len(), MAX_WARNINGS + 1);
        assert!(warnings[MAX_WARNINGS].contains("84 more"), "{warnings:?}");
    }
}

//! Whose datagrams are accepted on a Unix socket: users, groups, and the ids that stand for nobody.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use tokio::sync::watch;

use crate::base::time::MonoTime;
use crate::ingest::recvmmsg::Credentials;

/// The most cached processes of each kind. At the limit the cache is cleared.
const MAX_PROCESSES: usize = 16_384;
/// How long the groups of a process that was admitted by them are believed. A process that drops a group is
/// refused after that.
const MEMBER_FOR: Duration = Duration::from_secs(60);
/// The least time between two lookups of a process that was not admitted.
const REFUSED_FOR: Duration = Duration::from_secs(1);
/// The ids that the kernel shows for users and groups without one, where it does not tell.
const DEFAULT_OVERFLOW: u32 = 65_534;
/// The number of ids that a map of a user namespace covers when every id is mapped.
const ALL_IDS: u64 = u32::MAX as u64;

/// The senders that are accepted: those with one of these uids or one of these gids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedSenders {
    /// User ids.
    pub uids: Vec<u32>,
    /// Group ids, primary or supplementary.
    pub gids: Vec<u32>,
}

impl AllowedSenders {
    /// The default: the effective user of this process, and root.
    #[must_use]
    pub fn of_server() -> Self {
        let mut allowed = AllowedSenders { uids: Vec::new(), gids: Vec::new() };
        allowed.add([nix::unistd::geteuid().as_raw(), 0], []);
        allowed
    }

    /// Adds users and groups that are not in it yet.
    pub fn add(&mut self, uids: impl IntoIterator<Item = u32>, gids: impl IntoIterator<Item = u32>) {
        let add = |ids: &mut Vec<u32>, id| {
            if !ids.contains(&id) {
                ids.push(id);
            }
        };
        uids.into_iter().for_each(|id| add(&mut self.uids, id));
        gids.into_iter().for_each(|id| add(&mut self.gids, id));
    }

    /// Takes out what stands for nobody, and returns it.
    pub(super) fn without(&mut self, overflow: OverflowIds) -> Nobody {
        let take = |ids: &mut Vec<u32>, overflow: Option<u32>| {
            let before = ids.len();
            ids.retain(|id| Some(*id) != overflow);
            overflow.filter(|_| ids.len() < before)
        };
        Nobody { uid: take(&mut self.uids, overflow.uid), gid: take(&mut self.gids, overflow.gid) }
    }
}

/// The ids that were to be allowed and stand for nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nobody {
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

impl Nobody {
    /// Logs a warning for each.
    pub(super) fn warn(self) {
        for (what, id) in [("uid", self.uid), ("gid", self.gid)] {
            if let Some(id) = id {
                tracing::warn!(
                    target: "varta::ingest",
                    "{what} {id} stands for everybody who has no {what} in the user namespace of this server, and is not \
                     allowed for that; run the server and its agents under ids that the namespace maps"
                );
            }
        }
    }
}

/// The ids by which the kernel shows users and groups that have none in the user namespace of this server;
/// `None` where every user or group has one, as outside of all namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OverflowIds {
    uid: Option<u32>,
    gid: Option<u32>,
}

impl OverflowIds {
    /// Those of this process. A kernel without user namespaces has no maps.
    pub(super) fn of_server() -> Self {
        let read = |path| fs::read_to_string(path).ok();
        let overflow = |map, id| {
            let is_whole = read(map).is_none_or(|map| maps_all(&map));
            let shown = || read(id).and_then(|text| text.trim().parse().ok()).unwrap_or(DEFAULT_OVERFLOW);
            (!is_whole).then(shown)
        };
        OverflowIds {
            uid: overflow("/proc/self/uid_map", "/proc/sys/kernel/overflowuid"),
            gid: overflow("/proc/self/gid_map", "/proc/sys/kernel/overflowgid"),
        }
    }
}

/// Whether a map of a user namespace, see user_namespaces(7), has every id in it.
fn maps_all(map: &str) -> bool {
    let count = |line: &str| line.split_ascii_whitespace().nth(2)?.parse::<u64>().ok();
    map.lines().filter_map(count).sum::<u64>() >= ALL_IDS
}

/// Decides which senders are admitted, and looks up their supplementary groups, which the kernel does not
/// attest with a datagram.
#[derive(Debug)]
pub(super) struct Senders {
    allowed: AllowedSenders,
    /// Whom a reload allows.
    changes: watch::Receiver<AllowedSenders>,
    overflow: OverflowIds,
    /// The processes that were admitted by a supplementary group.
    members: HashMap<Process, MonoTime>,
    /// The processes that were not.
    others: HashMap<Process, MonoTime>,
    look_up: LookUp,
}

/// Reads the real user and the supplementary groups of a process. Replaced in tests.
type LookUp = fn(u32) -> Option<(u32, Vec<u32>)>;

/// A process of one user: whoever gets its pid next belongs to another, as far as that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Process {
    pid: u32,
    uid: u32,
}

impl Senders {
    /// Also returns the ids that are allowed and stand for nobody, which are not admitted.
    pub(super) fn new(
        mut changes: watch::Receiver<AllowedSenders>,
        overflow: OverflowIds,
        look_up: LookUp,
    ) -> (Self, Nobody) {
        let mut allowed = changes.borrow_and_update().clone();
        let nobody = allowed.without(overflow);
        let (members, others) = (HashMap::new(), HashMap::new());
        (Senders { allowed, changes, overflow, members, others, look_up }, nobody)
    }

    /// Goes by whom a reload has allowed since the last call.
    #[inline]
    pub(super) fn refresh(&mut self) {
        // It fails when nobody can reload any more.
        if self.changes.has_changed().unwrap_or(false) {
            (*self, _) = Senders::new(self.changes.clone(), self.overflow, self.look_up);
        }
    }

    /// Whether a sender is admitted by its user, its primary group, or a supplementary one.
    #[inline]
    pub(super) fn admit(&mut self, sender: &Credentials, now: MonoTime) -> bool {
        let AllowedSenders { uids, gids } = &self.allowed;
        uids.contains(&sender.uid)
            || !gids.is_empty() && (gids.contains(&sender.gid) || self.is_member(sender, now))
    }

    fn is_member(&mut self, sender: &Credentials, now: MonoTime) -> bool {
        let process = Process { pid: sender.pid, uid: sender.uid };
        let holds = |at: Option<&MonoTime>, time| at.is_some_and(|at| now.since(*at) < time);
        if holds(self.members.get(&process), MEMBER_FOR) {
            return true;
        }
        if holds(self.others.get(&process), REFUSED_FOR) {
            return false;
        }
        // Of a process that has ended the pid may be another's by now, and so the groups; the user tells most
        // of them apart.
        let found = (self.look_up)(sender.pid).filter(|(user, _)| *user == sender.uid);
        let is_member =
            found.is_some_and(|(_, groups)| groups.iter().any(|gid| self.allowed.gids.contains(gid)));
        let [into, out_of] = if is_member {
            [&mut self.members, &mut self.others]
        } else {
            [&mut self.others, &mut self.members]
        };
        out_of.remove(&process);
        if into.len() >= MAX_PROCESSES && !into.contains_key(&process) {
            into.clear();
        }
        into.insert(process, now);
        is_member
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const SENDER: Credentials = Credentials { pid: 4242, uid: 1000, gid: 100 };

    fn senders(uids: &[u32], gids: &[u32], look_up: LookUp) -> Senders {
        let allowed = AllowedSenders { uids: uids.to_vec(), gids: gids.to_vec() };
        Senders::new(watch::channel(allowed).1, OverflowIds::default(), look_up).0
    }

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_secs(seconds)
    }

    #[test]
    fn a_user_a_primary_group_and_a_supplementary_group_each_admit() {
        let table: [(&[u32], &[u32], bool); 5] = [
            (&[1000], &[], true),
            (&[0], &[100], true),
            (&[0], &[7, 27], true),
            (&[0], &[7], false),
            (&[0], &[], false),
        ];
        for (uids, gids, admitted) in table {
            let mut senders = senders(uids, gids, |_| Some((1000, vec![4, 27])));
            assert_eq!(senders.admit(&SENDER, at(1)), admitted, "{uids:?} {gids:?}");
        }
    }

    #[test]
    fn whom_a_reload_allows_counts_for_those_too_whose_groups_were_looked_up_before() {
        let allowed = |gids: &[u32]| AllowedSenders { uids: vec![0], gids: gids.to_vec() };
        let (reload, changes) = watch::channel(allowed(&[27]));
        let (mut senders, _) = Senders::new(changes, OverflowIds::default(), |_| Some((1000, vec![27])));
        assert!(senders.admit(&SENDER, at(1)));
        reload.send_replace(allowed(&[28]));
        senders.refresh();
        assert!(!senders.admit(&SENDER, at(1)));
        reload.send_replace(allowed(&[27]));
        drop(reload);
        senders.refresh();
        assert!(!senders.admit(&SENDER, at(1)), "a server that stops goes by what counted");
    }

    #[test]
    fn groups_of_another_users_process_admit_nobody() {
        let mut senders = senders(&[0], &[27], |_| Some((1001, vec![27])));
        assert!(!senders.admit(&SENDER, at(1)));
    }

    #[test]
    fn a_process_that_cannot_be_read_is_in_no_group() {
        assert!(!senders(&[0], &[27], |_| None).admit(&SENDER, at(1)));
    }

    #[test]
    fn without_a_group_that_is_allowed_nobody_is_looked_up() {
        let mut senders = senders(&[0], &[], |_| panic!("looked up"));
        assert!(!senders.admit(&SENDER, at(1)));
    }

    #[test]
    fn a_member_is_looked_up_once_a_minute_and_another_once_a_second() {
        static LOOKED_UP: AtomicU32 = AtomicU32::new(0);
        let mut senders = senders(&[0], &[27], |pid| {
            LOOKED_UP.fetch_add(1, Ordering::Relaxed);
            Some((1000, if pid == SENDER.pid { vec![27] } else { Vec::new() }))
        });
        let other = Credentials { pid: 4243, ..SENDER };
        for second in 0..120 {
            assert!((0..10).all(|_| senders.admit(&SENDER, at(second))));
            assert!(!(0..10).any(|_| senders.admit(&other, at(second))));
        }
        assert_eq!(LOOKED_UP.load(Ordering::Relaxed), 2 + 120);
    }

    #[test]
    fn memory_is_bounded() {
        let mut senders = senders(&[0], &[27], |pid| Some((1000, vec![27 + pid % 2])));
        for pid in 2..100_000 {
            senders.admit(&Credentials { pid, ..SENDER }, at(1));
        }
        assert!(senders.members.len() <= MAX_PROCESSES && senders.others.len() <= MAX_PROCESSES);
    }

    #[test]
    fn the_overflow_ids_of_a_user_namespace_are_nobodys_though_they_seem_to_be_the_servers() {
        let allowed = AllowedSenders { uids: vec![65_534, 0], gids: vec![65_534, 4] };
        let of_namespace = OverflowIds { uid: Some(65_534), gid: Some(65_534) };
        let (mut senders, nobody) =
            Senders::new(watch::channel(allowed.clone()).1, of_namespace, |_| Some((65_534, vec![65_534])));
        assert_eq!(nobody, Nobody { uid: Some(65_534), gid: Some(65_534) });
        let unmapped = Credentials { pid: 4242, uid: 65_534, gid: 65_534 };
        assert!(!senders.admit(&unmapped, at(1)));
        assert!(senders.admit(&Credentials { gid: 4, ..unmapped }, at(1)), "a group that has an id");
        // Outside of all namespaces it is the id of a user like any other.
        let (mut senders, nobody) = Senders::new(watch::channel(allowed).1, OverflowIds::default(), |_| None);
        assert_eq!(nobody, Nobody { uid: None, gid: None });
        assert!(senders.admit(&unmapped, at(1)));
    }

    #[test]
    fn a_namespace_is_known_by_what_its_map_leaves_out() {
        assert!(maps_all("         0          0 4294967295\n"));
        assert!(maps_all("0 0 2147483648\n2147483648 2147483648 2147483647\n"));
        assert!(!maps_all("0 1000 1\n1 100000 65536\n"));
        assert!(!maps_all(""), "before the map is written nobody has an id");
    }

    #[test]
    fn the_default_is_this_user_and_root_and_more_are_added_once() {
        let us = nix::unistd::geteuid().as_raw();
        let mut allowed = AllowedSenders::of_server();
        assert!(allowed.uids.contains(&us) && allowed.uids.contains(&0) && allowed.gids.is_empty());
        let before = allowed.uids.len();
        allowed.add([0, 4711, 4711], [5, 5]);
        assert_eq!((allowed.uids.len(), allowed.gids), (before + 1, vec![5]));
    }
}

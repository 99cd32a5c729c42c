//! Pids of a process in its nested PID namespaces, to check the pid in a frame that comes from a container.
//!
//! Such a frame carries the pid of the container's namespace, while the kernel attests the pid in this
//! server's. The attested pid identifies the process, whatever the frame carries; another pid in it is a
//! mistake of the sender only where the kernel shows that the sender has no such pid.

use std::collections::HashMap;
use std::time::Duration;

use crate::base::time::MonoTime;

/// The most cached processes. At the limit the cache is cleared.
const MAX_PROCESSES: usize = 4_096;
/// The least time between two lookups of one process: a lookup costs ten times as much as a beat.
const LOOKED_UP_EVERY: Duration = Duration::from_secs(1);

/// A cache of `NSpid` for processes whose frames carry another pid than the kernel attests.
#[derive(Debug)]
pub(super) struct PidNamespaces {
    known: HashMap<u32, Known>,
    /// Reads the pids of a process, see `NSpid` in proc_pid_status(5). Replaced in tests.
    look_up: fn(u32) -> Vec<u32>,
}

#[derive(Debug)]
struct Known {
    pids: Vec<u32>,
    looked_up_at: MonoTime,
}

impl PidNamespaces {
    pub(super) fn new(look_up: fn(u32) -> Vec<u32>) -> Self {
        PidNamespaces { known: HashMap::new(), look_up }
    }

    /// Whether the process with the attested pid `outer` has the pid `inner` in one of its PID namespaces.
    pub(super) fn has(&mut self, outer: u32, inner: u32, now: MonoTime) -> bool {
        self.pids(outer, inner, now).contains(&inner)
    }

    /// Whether the process with the attested pid `outer` may have the pid `inner`: it has, or the kernel does
    /// not show its pids, because it has ended or `/proc` hides it.
    pub(super) fn may_have(&mut self, outer: u32, inner: u32, now: MonoTime) -> bool {
        let pids = self.pids(outer, inner, now);
        pids.is_empty() || pids.contains(&inner)
    }

    /// The pids of a process, as they were when it was looked up last; none if it cannot be looked up.
    fn pids(&mut self, outer: u32, inner: u32, now: MonoTime) -> &[u32] {
        // The pid may have been reused since the lookup.
        let holds =
            |known: &Known| known.pids.contains(&inner) || now.since(known.looked_up_at) < LOOKED_UP_EVERY;
        if !self.known.get(&outer).is_some_and(holds) {
            if self.known.len() >= MAX_PROCESSES && !self.known.contains_key(&outer) {
                self.known.clear();
            }
            self.known.insert(outer, Known { pids: (self.look_up)(outer), looked_up_at: now });
        }
        self.known.get(&outer).map_or(&[], |known| &known.pids)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_process_is_known_by_each_of_its_pids_and_by_no_other() {
        let mut namespaces = PidNamespaces::new(|outer| vec![outer, 70, 7]);
        let now = MonoTime::from_secs(1);
        assert!(namespaces.has(4242, 7, now) && namespaces.has(4242, 70, now));
        assert!(!namespaces.has(4242, 8, now));
    }

    #[test]
    fn a_process_that_cannot_be_looked_up_is_believed_and_one_that_can_is_not() {
        let mut namespaces = PidNamespaces::new(|outer| if outer == 4242 { Vec::new() } else { vec![outer] });
        let now = MonoTime::from_secs(1);
        assert!(namespaces.may_have(4242, 7, now) && !namespaces.has(4242, 7, now));
        assert!(!namespaces.may_have(4243, 7, now));
    }

    #[test]
    fn who_keeps_naming_wrong_pids_is_looked_up_once_a_second() {
        static LOOKED_UP: AtomicU32 = AtomicU32::new(0);
        let mut namespaces = PidNamespaces::new(|_| {
            LOOKED_UP.fetch_add(1, Ordering::Relaxed);
            Vec::new()
        });
        for millis in 0..3_000 {
            assert!(!namespaces.has(4242, 7, MonoTime::from_millis(millis)));
        }
        assert_eq!(LOOKED_UP.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn memory_is_bounded() {
        let mut namespaces = PidNamespaces::new(|outer| vec![outer]);
        for outer in 0..100_000 {
            namespaces.has(outer, 1, MonoTime::START);
        }
        assert!(namespaces.known.len() <= MAX_PROCESSES);
    }
}

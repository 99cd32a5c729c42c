//! Pids of a process in its nested PID namespaces, to check the pid in a frame that comes from a container.
//!
//! Such a frame carries the pid of the container's namespace, while the kernel attests the pid in this
//! server's. The attested pid identifies the process; that the frame carries one of the others shows only
//! that it is no mistake.

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
        if let Some(known) = self.known.get(&outer) {
            // The pid may have been reused since the lookup.
            if known.pids.contains(&inner) || now.since(known.looked_up_at) < LOOKED_UP_EVERY {
                return known.pids.contains(&inner);
            }
        } else if self.known.len() >= MAX_PROCESSES {
            self.known.clear();
        }
        let pids = (self.look_up)(outer);
        let has = pids.contains(&inner);
        self.known.insert(outer, Known { pids, looked_up_at: now });
        has
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

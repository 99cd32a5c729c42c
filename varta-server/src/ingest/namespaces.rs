//! Which pids a process has in the namespaces in which it lives: a frame from a container names one of those, and the
//! kernel names the one of this server's namespace.
//!
//! What the kernel names is what the process is known by. That the frame names one of the others only shows that it is no
//! mistake.

use std::collections::HashMap;
use std::time::Duration;

use crate::base::time::MonoTime;

/// Processes that are remembered. Beyond it all are forgotten, and looked up anew.
const MOST_PROCESSES: usize = 4_096;
/// How often one process is looked up at the most: a lookup costs ten times what a beat does.
const LOOKED_UP_EVERY: Duration = Duration::from_secs(1);

/// The pids of processes that name another pid than the kernel does.
#[derive(Debug)]
pub(super) struct Namespaces {
    known: HashMap<u32, Known>,
    /// Gives the pids of a process, see `NSpid` in proc_pid_status(5). Another one in tests.
    look_up: fn(u32) -> Vec<u32>,
}

#[derive(Debug)]
struct Known {
    pids: Vec<u32>,
    looked_up_at: MonoTime,
}

impl Namespaces {
    pub(super) fn new(look_up: fn(u32) -> Vec<u32>) -> Self {
        Namespaces { known: HashMap::new(), look_up }
    }

    /// Whether the process that the kernel names `outer` is `inner` in a namespace of its own.
    pub(super) fn has(&mut self, outer: u32, inner: u32, now: MonoTime) -> bool {
        if let Some(known) = self.known.get(&outer) {
            // Another process may have the pid since.
            if known.pids.contains(&inner) || now.since(known.looked_up_at) < LOOKED_UP_EVERY {
                return known.pids.contains(&inner);
            }
        } else if self.known.len() >= MOST_PROCESSES {
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
        let mut namespaces = Namespaces::new(|outer| vec![outer, 70, 7]);
        let now = MonoTime::from_secs(1);
        assert!(namespaces.has(4242, 7, now) && namespaces.has(4242, 70, now));
        assert!(!namespaces.has(4242, 8, now));
    }

    #[test]
    fn who_keeps_naming_wrong_pids_is_looked_up_once_a_second() {
        static LOOKED_UP: AtomicU32 = AtomicU32::new(0);
        let mut namespaces = Namespaces::new(|_| {
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
        let mut namespaces = Namespaces::new(|outer| vec![outer]);
        for outer in 0..100_000 {
            namespaces.has(outer, 1, MonoTime::START);
        }
        assert!(namespaces.known.len() <= MOST_PROCESSES);
    }
}

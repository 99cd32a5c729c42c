//! The pages that agents write beats to, and the task that looks at them.
//!
//! It looks at all of them several times within the shortest deadline of those who have one, sees the newest beat in each,
//! and hands it on as a listener does. In between the tracker's actor has single pages read: before somebody is called
//! silent, and when a process has died. All of that happens on one thread; the lock is for the compiler.

mod fault;
pub(crate) mod metrics;
pub(in crate::ingest) mod page;
mod poll_interval;
mod table;

use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use self::metrics::PageMetrics;
use self::page::Refused;
use self::table::{Found, Table};
use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::time::MonoTime;
use crate::domain::batch::Batch;
use crate::domain::beat::Transport;
use crate::domain::outcome::Tally;
use crate::ingest::metrics::FrameCounters;
use crate::ingest::queue_probe::Probe;
use crate::metrics::Registry;

/// How often the listeners are given a turn to take what was sent before a look. Each time they take more than a
/// socket's queue holds.
const TURNS: usize = 8;

/// All pages. Every copy is of the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    /// Told when the next look is to come earlier than it was to.
    sooner: Notify,
    clock: Clock,
}

impl Pages {
    /// Takes at most so many.
    pub(crate) fn new(most: usize, clock: Clock) -> Self {
        let shared = Shared { table: Mutex::new(Table::new(most)), sooner: Notify::new(), clock };
        Pages { shared: Arc::new(shared) }
    }

    /// Counts there from now on.
    pub(crate) fn count_in(&self, registry: &Registry) {
        let mut table = self.table();
        let reasons = Refused::ALL.map(Refused::as_str);
        table.metrics = Some(PageMetrics::new(registry, table.most(), reasons));
    }

    /// Takes the page that a process has handed over, whose frames are to have the pid `inner`. Says whether it was
    /// taken; why not is counted.
    pub(super) fn attach(&self, pid: u32, inner: u32, descriptor: Option<&OwnedFd>, at: MonoTime) -> bool {
        let mut table = self.table();
        let result = match descriptor {
            Some(descriptor) => table.attach(pid, inner, descriptor, at, self.shared.clock.host_nanos(at)),
            None => Err(Refused::NoDescriptor),
        };
        table.count(result.err());
        drop(table);
        self.shared.sooner.notify_one();
        result.is_ok()
    }

    /// Passes over what a process has written so far, because it has said something later by datagram.
    pub(super) fn pass_over(&self, pid: u32) {
        self.table().pass_over(pid);
    }

    /// Whether a process has a page.
    pub(crate) fn has(&self, pid: u32) -> bool {
        self.table().has(pid)
    }

    /// Takes what a process has written since it was last looked at. Every datagram that was sent before `settled` has
    /// been handed on.
    pub(crate) fn read(&self, pid: u32, settled: MonoTime) -> (Batch, Tally) {
        let mut found = Found::default();
        self.table().read(pid, self.shared.clock.host_nanos(settled), settled, &mut found);
        found.into_batch()
    }

    /// Gives up the pages of a process that has died.
    pub(crate) fn forget(&self, pid: u32, start_time: NonZeroU64) {
        self.table().forget(pid, start_time);
    }

    /// Looks so often that a process is seen several times within `stall_after`, at least until [`Pages::set_pace`] says
    /// otherwise.
    pub(crate) fn hurry(&self, stall_after: Duration) {
        if self.table().pace.hurry(stall_after) {
            self.shared.sooner.notify_one();
        }
    }

    /// Whether it is time to ask again how long those who have a page may be silent; if so, who they are.
    pub(crate) fn poll_pace(&self, now: MonoTime) -> Option<Vec<u32>> {
        let mut table = self.table();
        let is_due = table.pace.is_due(now);
        is_due.then(|| table.pids())
    }

    /// Takes the shortest time for which anybody may be silent who has a page.
    pub(crate) fn set_pace(&self, shortest: Option<Duration>) {
        self.table().pace.set(shortest);
    }

    /// Looks at the pages until `stop` is cancelled, and once more then.
    pub(crate) async fn run(
        self,
        stop: CancellationToken,
        inbox: mpsc::Sender<Batch>,
        sockets: Arc<[Probe]>,
        counters: FrameCounters,
    ) -> Result<(), Error> {
        let clock = self.shared.clock;
        loop {
            let due = self.table().next_look();
            let is_last = stop.is_cancelled();
            if !is_last {
                tokio::select! {
                    () = stop.cancelled() => continue,
                    () = self.shared.sooner.notified() => continue,
                    () = tokio::time::sleep_until(clock.instant(due)), if due < MonoTime::NEVER => {}
                }
            } else {
                // Whoever beats from now on is to notice that nobody is here.
                self.table().promise(0);
            }
            let settled = clock.now();
            for _ in 0..TURNS {
                if !sockets.iter().any(|socket| socket.transport() == Transport::Unix && socket.has_unread())
                {
                    break;
                }
                tokio::task::yield_now().await;
            }
            // A listener that has taken them may yet have to hand them on.
            let at = clock.now();
            self.table().begin_look(at, (!is_last).then(|| clock.host_nanos(at)));
            let mut from = Some(0);
            while let Some(start) = from {
                let mut found = Found::default();
                from = self.table().look(start, clock.host_nanos(settled), at, &mut found);
                let (batch, refused) = found.into_batch();
                counters.add(&refused);
                if batch.is_empty() {
                    tokio::task::yield_now().await;
                } else if inbox.send(batch).await.is_err() {
                    return Ok(());
                }
            }
            self.table().end_look(clock.now());
            if is_last {
                return Ok(());
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Shared memory pages that agents write beats to, and the task that polls them.
//!
//! The task polls every page several times within the shortest timeout of the agents that have one, and sends
//! the newest beat of each to the engine, as a listener does. In between the engine reads single pages:
//! before an agent is marked stalled, and when a process has exited. All of this runs on one thread; the lock
//! only satisfies the compiler.

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
use self::table::{PageReading, Table};
use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::time::MonoTime;
use crate::domain::beat::Transport;
use crate::domain::outcome::OutcomeCounts;
use crate::ingest::batch::Batch;
use crate::ingest::gate::Gate;
use crate::ingest::metrics::FrameCounters;
use crate::ingest::probes::Probes;
use crate::metrics::Registry;

/// How often the listeners get to run before a poll. In each turn they receive more than a socket's queue
/// holds.
const TURNS: usize = 8;

/// All shared pages. A clone refers to the same pages.
#[derive(Clone, Debug)]
pub(crate) struct ShmPages {
    shared: Arc<PagesInner>,
}

#[derive(Debug)]
struct PagesInner {
    table: Mutex<Table>,
    /// Notified when the next poll is due earlier than scheduled.
    sooner: Notify,
    clock: Clock,
}

impl ShmPages {
    /// Makes a table for at most `most` pages, and registers its metrics: before any listener runs, so that
    /// the first page is counted too.
    pub(crate) fn new(most: usize, clock: Clock, registry: &Registry) -> Self {
        let metrics = PageMetrics::new(registry, most, Refused::ALL.map(Refused::as_str));
        let table = Mutex::new(Table::new(most, Some(metrics)));
        ShmPages { shared: Arc::new(PagesInner { table, sooner: Notify::new(), clock }) }
    }

    /// Maps the page that a process has handed over; its frames must carry the pid `inner`. Returns whether
    /// it was accepted; a refusal is counted by its reason.
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

    /// Has room for so many pages from the next one on. Those that are there stay.
    pub(super) fn resize(&self, most: usize) {
        self.table().resize(most);
    }

    /// Skips what a process has written so far, because a later datagram supersedes it.
    pub(super) fn skip(&self, pid: u32) {
        self.table().skip(pid);
    }

    /// Whether a process has a page.
    pub(crate) fn has(&self, pid: u32) -> bool {
        self.table().has(pid)
    }

    /// Reads what a process has written since the last poll. All datagrams sent before `settled` have been
    /// handed to the engine.
    pub(crate) fn read(&self, pid: u32, settled: MonoTime) -> (Batch, OutcomeCounts) {
        let mut found = PageReading::default();
        self.table().read(pid, self.shared.clock.host_nanos(settled), settled, &mut found);
        found.into_batch()
    }

    /// Unmaps the pages of a process that has exited; `None` where its start time is not known.
    pub(crate) fn forget(&self, pid: u32, start_time: Option<NonZeroU64>) {
        self.table().forget(pid, start_time);
    }

    /// Shortens the poll interval so that a page is polled several times within `stall_after`. Holds at least
    /// until the next [`ShmPages::set_pace`].
    pub(crate) fn shorten_interval(&self, stall_after: Duration) {
        if self.table().pace.shorten_for(stall_after) {
            self.shared.sooner.notify_one();
        }
    }

    /// The pids of all processes with a page, when the shortest timeout among them is due to be determined
    /// again.
    pub(crate) fn poll_pace(&self, now: MonoTime) -> Option<Vec<u32>> {
        let mut table = self.table();
        let is_due = table.pace.is_due(now);
        is_due.then(|| table.pids())
    }

    /// Sets the shortest timeout among the processes with a page; `None` when there are none.
    pub(crate) fn set_pace(&self, shortest: Option<Duration>) {
        self.table().pace.set(shortest);
    }

    /// Polls the pages until `stop` is cancelled, then once more. While the gate is shut nothing is promised, and
    /// agents beat by datagrams.
    pub(crate) async fn run(
        self,
        stop: CancellationToken,
        inbox: mpsc::Sender<Batch>,
        sockets: Probes,
        counters: FrameCounters,
        gate: Gate,
    ) -> Result<(), Error> {
        let clock = self.shared.clock;
        let Some(mut permit) = gate.enter(&stop).await else { return Ok(()) };
        loop {
            let due = self.table().next_poll();
            let is_shut = gate.is_shut();
            let is_last = stop.is_cancelled() || is_shut;
            if !is_last {
                tokio::select! {
                    () = stop.cancelled() => continue,
                    () = gate.shut() => continue,
                    () = self.shared.sooner.notified() => continue,
                    () = tokio::time::sleep_until(clock.instant(due)), if due < MonoTime::NEVER => {}
                }
            } else {
                // Takes back the promise, so that agents switch to datagrams from their next beat on.
                self.table().promise(0);
            }
            let settled = clock.now();
            for _ in 0..TURNS {
                if !sockets.have_unread_of(Transport::Unix) {
                    break;
                }
                tokio::task::yield_now().await;
            }
            // A listener may have received datagrams that it has not sent to the engine yet.
            let at = clock.now();
            self.table().begin_poll(at, (!is_last).then(|| clock.host_nanos(at)));
            let mut from = Some(0);
            while let Some(start) = from {
                let mut found = PageReading::default();
                from = self.table().poll(start, clock.host_nanos(settled), at, &mut found);
                let (batch, refused) = found.into_batch();
                counters.add(&refused);
                if batch.is_empty() {
                    tokio::task::yield_now().await;
                } else if inbox.send(batch).await.is_err() {
                    return Ok(());
                }
            }
            self.table().end_poll(clock.now());
            if is_shut {
                drop(permit);
                let Some(next) = gate.enter(&stop).await else { return Ok(()) };
                permit = next;
            } else if is_last {
                return Ok(());
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The table of mapped pages: which process has which, what was last read from each, and when a page is
//! removed.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::time::Duration;

use varta_proto::Frame;
use varta_proto::page::Glance;

use crate::base::rate_limit::FixedWindow;
use crate::base::time::{MonoTime, nanos};
use crate::domain::beat::{ReceivedBeat, Sender, Transport};
use crate::domain::outcome::{FrameOutcome, OutcomeCounts};
use crate::ingest::batch::Batch;
use crate::ingest::recvmmsg::BATCH;
use crate::ingest::shm::metrics::PageMetrics;
use crate::ingest::shm::page::{Page, Refused};
use crate::ingest::shm::poll_interval::PollInterval;
use crate::observe::{boot, identify};

/// The most pages of one process: several handles, and the pages of handles that were dropped without a
/// detach.
const MAX_PAGES_PER_PROCESS: usize = 4;
/// The least age of a process's newest page before a further one replaces its oldest.
const REPLACED_EVERY: Duration = Duration::from_secs(1);
/// The most pages attached in one second. Mapping one costs as much as thirty beats.
const TAKEN_IN_A_SECOND: u32 = 1_000;
/// The most pages polled in one turn while they hold nothing new.
const SLOTS_PER_TURN: usize = 1_024;

/// The least time for which a poll is promised, and the promise in poll intervals. The server may be delayed
/// for a while.
const PROMISED: Duration = Duration::from_secs(1);
const POLLS_PROMISED: u32 = 4;
/// How often promises are renewed. Not at each poll: a store to a page slows the agent's next beat a little.
const PROMISED_EVERY: Duration = Duration::from_millis(250);

/// The time without a write after which a page's process is checked for existence, and checked again.
const IDLE: Duration = Duration::from_secs(10);
/// The interval of checks, the most slots that one check examines, and the most processes that it looks up.
const CHECKED_EVERY: Duration = Duration::from_millis(100);
const SLOTS_PER_CHECK: usize = 256;
const MAX_CHECKS: usize = 16;

/// One mapped page.
#[derive(Debug)]
struct PageSlot {
    page: Page,
    /// The sequence number at the last read.
    seen: u64,
    /// The pid that the kernel attests.
    pid: u32,
    /// The pid in its frames, which differs in a PID namespace.
    inner: u32,
    /// `None` where it could not be read.
    start_time: Option<NonZeroU64>,
    taken_at: MonoTime,
    /// The time of its last write, or of the last check that found its process.
    alive_at: MonoTime,
}

/// What one poll has read.
#[derive(Debug, Default)]
pub(super) struct PageReading {
    beats: Vec<ReceivedBeat>,
    refused: OutcomeCounts,
}

impl PageReading {
    pub(super) fn into_batch(self) -> (Batch, OutcomeCounts) {
        let PageReading { beats, refused } = self;
        let batch = Batch {
            transport: Transport::Shm,
            beats,
            controls: Vec::new(),
            queue_full_at: None,
            pidfds: Vec::new(),
        };
        (batch, refused)
    }
}

/// All mapped pages.
#[derive(Debug)]
pub(super) struct Table {
    most: usize,
    slots: Vec<Option<PageSlot>>,
    free: Vec<usize>,
    /// The slots of each process, oldest page first.
    by_pid: HashMap<u32, Vec<usize>>,
    pub(super) pace: PollInterval,
    /// `None` in unit tests.
    metrics: Option<PageMetrics>,
    polled_at: MonoTime,
    /// The duration of the last poll, with what other tasks did meanwhile.
    poll_took: Duration,
    /// The promise that this poll writes, on the host's clock in nanoseconds; `None` if the last one stands.
    promise: Option<u64>,
    promised_at: MonoTime,
    /// Pages that were taken in the present second.
    taken: FixedWindow,
    checked_at: MonoTime,
    /// The slot at which the next check begins.
    check_from: usize,
}

impl Table {
    pub(super) fn new(most: usize, metrics: Option<PageMetrics>) -> Self {
        Table {
            most,
            slots: Vec::new(),
            free: Vec::new(),
            by_pid: HashMap::new(),
            pace: PollInterval::new(),
            metrics,
            polled_at: MonoTime::START,
            poll_took: Duration::ZERO,
            promise: None,
            promised_at: MonoTime::START,
            taken: FixedWindow::new(TAKEN_IN_A_SECOND),
            checked_at: MonoTime::START,
            check_from: 0,
        }
    }

    /// Has room for so many pages from the next one on. Those that are there stay.
    pub(super) fn resize(&mut self, most: usize) {
        self.most = most;
        if let Some(metrics) = &self.metrics {
            metrics.capacity(most);
        }
    }

    fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Maps a page and gives it a slot. `host_now` is `at` on the host's clock, in nanoseconds.
    pub(super) fn attach(
        &mut self,
        pid: u32,
        inner: u32,
        descriptor: &OwnedFd,
        at: MonoTime,
        host_now: u64,
    ) -> Result<(), Refused> {
        self.taken.advance(at);
        if !self.taken.has_room() {
            return Err(Refused::TooFast);
        }
        let of_process = self.by_pid.get(&pid).map_or(&[][..], Vec::as_slice);
        let oldest = of_process.first().copied().filter(|_| of_process.len() >= MAX_PAGES_PER_PROCESS);
        let newest = of_process.last().and_then(|slot| self.slots[*slot].as_ref());
        let was_replaced = newest.is_some_and(|newest| at.since(newest.taken_at) < REPLACED_EVERY);
        if oldest.is_some() && was_replaced || oldest.is_none() && self.len() >= self.most {
            return Err(Refused::NoRoom);
        }
        self.taken.take();
        let page = Page::map(descriptor)?;
        if let Some(oldest) = oldest {
            self.remove(oldest);
        }
        let until = host_now.saturating_add(nanos(self.promised_for()));
        page.words().promise(until);
        let start_time = identify::start_time(pid);
        let entry = PageSlot { page, seen: 0, pid, inner, start_time, taken_at: at, alive_at: at };
        let slot = if let Some(slot) = self.free.pop() {
            slot
        } else {
            self.slots.push(None);
            self.slots.len() - 1
        };
        self.slots[slot] = Some(entry);
        self.by_pid.entry(pid).or_default().push(slot);
        Ok(())
    }

    /// Updates the gauge of pages, and counts a refusal by its reason.
    pub(super) fn count(&self, refused: Option<Refused>) {
        if let Some(metrics) = &self.metrics {
            if let Some(refused) = refused {
                metrics.refused(refused.as_str());
            }
            metrics.pages(self.len());
        }
    }

    fn remove(&mut self, slot: usize) {
        let Some(entry) = self.slots[slot].take() else { return };
        self.free.push(slot);
        if let Some(slots) = self.by_pid.get_mut(&entry.pid) {
            slots.retain(|other| *other != slot);
            if slots.is_empty() {
                self.by_pid.remove(&entry.pid);
            }
        }
        self.count(None);
    }

    pub(super) fn has(&self, pid: u32) -> bool {
        self.by_pid.contains_key(&pid)
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.by_pid.keys().copied().collect()
    }

    /// Unmaps the pages of a process that has exited.
    pub(super) fn forget(&mut self, pid: u32, start_time: Option<NonZeroU64>) {
        for slot in self.by_pid.get(&pid).cloned().unwrap_or_default() {
            let is_its = |entry: &PageSlot| {
                start_time.is_none() || entry.start_time.is_none() || entry.start_time == start_time
            };
            if self.slots[slot].as_ref().is_some_and(is_its) {
                self.remove(slot);
            }
        }
    }

    /// Skips what a process has written so far.
    pub(super) fn skip(&mut self, pid: u32) {
        for slot in self.by_pid.get(&pid).map_or(&[][..], Vec::as_slice) {
            if let Some(entry) = &mut self.slots[*slot]
                && let Glance::Beat { sequence, .. } = entry.page.words().glance(entry.seen, u64::MAX)
            {
                entry.seen = sequence;
            }
        }
    }

    /// When the next poll is due; `NEVER` without pages. Polls take at most half of the time.
    pub(super) fn next_poll(&self) -> MonoTime {
        if self.len() == 0 {
            MonoTime::NEVER
        } else {
            self.polled_at + self.pace.interval().max(self.poll_took * 2)
        }
    }

    /// Ends a poll.
    pub(super) fn end_poll(&mut self, now: MonoTime) {
        self.poll_took = now.since(self.polled_at);
        self.check_processes(now);
    }

    fn promised_for(&self) -> Duration {
        (self.pace.interval() * POLLS_PROMISED).max(PROMISED)
    }

    /// Begins a poll. `host_now` is `at` on the host's clock in nanoseconds; `None` for the last poll.
    pub(super) fn begin_poll(&mut self, at: MonoTime, host_now: Option<u64>) {
        self.polled_at = at;
        let is_due = at.since(self.promised_at) >= PROMISED_EVERY;
        self.promise = host_now.filter(|_| is_due).map(|now| now.saturating_add(nanos(self.promised_for())));
        if self.promise.is_some() {
            self.promised_at = at;
        }
    }

    /// Promises polls of every page until `until`; 0 withdraws the promise.
    pub(super) fn promise(&self, until: u64) {
        for entry in self.slots.iter().flatten() {
            entry.page.words().promise(until);
        }
    }

    /// Polls some pages from slot `from` on. Returns the slot to continue from; `None` at the end.
    pub(super) fn poll(
        &mut self,
        from: usize,
        settled: u64,
        at: MonoTime,
        found: &mut PageReading,
    ) -> Option<usize> {
        let end = self.slots.len().min(from.saturating_add(SLOTS_PER_TURN));
        let mut next = from;
        while next < end && found.beats.is_empty() {
            let some = next..end.min(next + BATCH);
            next = some.end;
            // The sequence numbers of a group are read first, and changed pages after that: their cache lines
            // are fetched in parallel instead of one after the other.
            let mut calls = [false; BATCH];
            for (calls, slot) in calls.iter_mut().zip(&self.slots[some.clone()]) {
                *calls = slot.as_ref().is_some_and(PageSlot::calls);
            }
            for (slot, calls) in some.zip(calls) {
                let Some(entry) = &mut self.slots[slot] else { continue };
                if calls {
                    entry.read(settled, at, found);
                }
                if let Some(until) = self.promise {
                    entry.page.words().promise(until);
                }
                if calls && entry.page.words().was_left() {
                    self.remove(slot);
                }
            }
        }
        (next < self.slots.len()).then_some(next)
    }

    /// Reads the pages of one process.
    pub(super) fn read(&mut self, pid: u32, settled: u64, at: MonoTime, found: &mut PageReading) {
        for slot in self.by_pid.get(&pid).map_or(&[][..], Vec::as_slice) {
            if let Some(entry) = &mut self.slots[*slot] {
                entry.read(settled, at, found);
            }
        }
    }

    /// Unmaps pages of processes whose exit was not observed, a few at a time.
    fn check_processes(&mut self, at: MonoTime) {
        if at.since(self.checked_at) < CHECKED_EVERY {
            return;
        }
        self.checked_at = at;
        let mut checks = 0;
        for _ in 0..SLOTS_PER_CHECK.min(self.slots.len()) {
            let slot = self.check_from % self.slots.len();
            self.check_from = slot + 1;
            let Some(entry) = &mut self.slots[slot] else { continue };
            if at.since(entry.alive_at) < IDLE {
                continue;
            }
            entry.alive_at = at;
            if !entry.has_process() {
                self.remove(slot);
            }
            checks += 1;
            if checks == MAX_CHECKS {
                return;
            }
        }
    }
}

impl PageSlot {
    /// Whether there is something new to read.
    #[inline]
    fn calls(&self) -> bool {
        let words = self.page.words();
        !words.is_at(self.seen) || words.was_left()
    }

    /// Reads a new frame, and counts it once, whatever it holds.
    fn read(&mut self, settled: u64, at: MonoTime, found: &mut PageReading) {
        let (sequence, frame) = match self.page.words().glance(self.seen, settled) {
            Glance::Same | Glance::Held | Glance::Torn => return,
            Glance::Empty { sequence } => (sequence, None),
            Glance::Beat { sequence, frame } => (sequence, Some(frame)),
        };
        self.seen = sequence;
        self.alive_at = at;
        match frame.as_ref().map(|frame| Frame::decode(frame)) {
            None => {}
            Some(Ok(frame)) if frame.pid == self.inner => {
                found.beats.push(ReceivedBeat { received_at: at, sender: Sender::local(self.pid), frame });
            }
            Some(Ok(_)) => found.refused.count(FrameOutcome::PidMismatch),
            Some(Err(error)) => found.refused.count(FrameOutcome::Malformed(error)),
        }
    }

    fn has_process(&self) -> bool {
        match self.start_time {
            Some(start_time) => boot::is_there(self.pid, start_time),
            None => identify::exists(self.pid),
        }
    }
}

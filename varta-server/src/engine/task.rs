//! The engine: the one task that owns the tracker. It feeds batches, time and process events to the tracker,
//! answers queries and dispatches transitions to the subscribers.
//!
//! Two rules keep verdicts correct. Before a deadline expires for an agent, everything that has arrived is
//! processed. And when this task itself did not run for a while, for whatever reason, it reports an observer
//! gap to the tracker instead of blaming agents whose beats could not be observed.

use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::base::clock::{Clock, wall_now};
use crate::base::error::Error;
use crate::base::time::{MonoTime, millis};
use crate::domain::beat::Transport;
use crate::domain::outcome::OutcomeCounts;
use crate::domain::tracker::{RegistryChange, Tracker};
use crate::engine::debugging::{debug_refusals, debug_verdict, warn_of_refused};
use crate::engine::metrics::TrackerMetrics;
use crate::engine::process_monitor::ProcessMonitor;
use crate::engine::query::{Alarms, MatchingSlice, NamedSlice, Query, Slice};
use crate::engine::record::InputRecord;
use crate::engine::standstill::Standstill;
use crate::engine::state_queue::{Event, Slice as StateSlice};
use crate::engine::subscribers::Subscribers;
use crate::ingest::batch::Batch;
use crate::ingest::gate::Gate;
use crate::ingest::listener::INBOX_BATCHES;
use crate::ingest::metrics::FrameCounters;
use crate::ingest::{Probes, ShmPages};
use crate::metrics::agent_rows::{AgentRows, AutoRows};
use crate::metrics::job_rows::job_rows;
use crate::observe::exit_watcher::{ProcessExit, WatchedProcess};

/// The capacity of the query queue; senders wait while it is full.
pub(crate) const QUERIES: usize = 16;
/// How often the listeners get to run before a deadline is checked. In each turn they receive more than a
/// socket's queue holds; whatever arrives after that arrived later.
const CATCH_UP_TURNS: usize = 8;
/// The most agents written into a scrape before beats are processed again.
const ROWS_PER_TURN: usize = 1_000;
/// The most agents whose names are compared before beats are processed again.
const NAMES_PER_TURN: usize = 20_000;
/// The most agents whose names are compared with a pattern before beats are processed again.
const PATTERNS_PER_TURN: usize = 4_096;
/// The most time that the last snapshots of all agents may take to be queued when the server stops.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(2);
/// The delay of a wake-up from which on it counts as an observer gap: a fraction of stall-after, within
/// bounds.
const BLIND_SHARE: u32 = 8;
const MIN_GAP: Duration = Duration::from_millis(50);
const MAX_GAP: Duration = Duration::from_secs(1);
/// The interval, as a fraction of stall-after, of wake-ups that detect observer gaps while agents are tracked
/// and none beats.
const SELF_CHECK_SHARE: u32 = 4;

/// The most exits processed in one turn after the first.
const DEATHS_PER_TURN: usize = 64;

/// The engine task and all that it owns.
pub(crate) struct TrackerActor {
    pub(crate) tracker: Tracker,
    pub(crate) process_monitor: ProcessMonitor,
    pub(crate) clock: Clock,
    pub(crate) inbox: mpsc::Receiver<Batch>,
    /// The sockets of the listeners, to see whether datagrams wait.
    pub(crate) sockets: Probes,
    /// The shared memory pages.
    pub(crate) pages: ShmPages,
    pub(crate) queries: mpsc::Receiver<Query>,
    pub(crate) sinks: Subscribers,
    /// Indexed by [`Transport::index`](crate::beat::Transport::index).
    pub(crate) frames: [FrameCounters; Transport::ALL.len()],
    pub(crate) metrics: TrackerMetrics,
    /// The host name, for the label `host`.
    pub(crate) host: String,
    /// For which agents a scrape has rows, as of the last.
    pub(crate) auto_rows: AutoRows,
    /// The tracker's default timeout, from which the self-check follows.
    pub(crate) stall_after: Duration,
    /// While it is shut nobody reads, and nothing is judged.
    pub(crate) gate: Gate,
    /// When the server before this one stopped reading, until this one reads.
    pub(crate) unread_since: Option<MonoTime>,
}

fn no_deaths(source: std::io::Error) -> Error {
    Error::Runtime { action: "learn of processes that ended", source }
}

impl TrackerActor {
    /// Runs until every listener has ended and the inbox is empty.
    ///
    /// # Errors
    ///
    /// The kernel does not report exits any more.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let mut last_turn = self.clock.now();
        // A run of a job may begin in the first turn, before there was a look at the time.
        self.tracker.handle_wall_clock(wall_now().into(), last_turn);
        // The hand-over that is to begin.
        let mut asked = None;
        // A single timer, reset only to an earlier time: each beat moves the deadline a little further, and a
        // timer that fires early just finds nothing due.
        let mut timer = pin!(tokio::time::sleep_until(self.clock.instant(MonoTime::NEVER)));
        let mut rings_at = None;
        loop {
            if asked.is_some() || self.gate.is_shut() {
                match self.stand_still(asked.take()).await {
                    Standstill::Over => {}
                    Standstill::HandedOver => {
                        tokio::spawn(self.give_last_answers());
                        return Ok(());
                    }
                    Standstill::Stopped => return self.end().await,
                }
                last_turn = self.clock.now();
            }
            let wake_at = self.wake_at(last_turn);
            if let Some(wake_at) = wake_at
                && rings_at.is_none_or(|rings_at| wake_at < rings_at)
            {
                timer.as_mut().reset(self.clock.instant(wake_at));
                rings_at = Some(wake_at);
                tracing::trace!(
                    target: "varta::engine",
                    in_ms = millis(wake_at.since(self.clock.now())),
                    "the next deadline, or look at the server's own turns, is in {:.3?}",
                    wake_at.since(self.clock.now())
                );
            }
            let mut listeners_gone = false;
            let mut died = None;
            let has_requests = self.process_monitor.has_requests();
            tokio::select! {
                biased;
                batch = self.inbox.recv() => match batch {
                    Some(batch) => self.take(batch),
                    None => listeners_gone = true,
                },
                death = self.process_monitor.watcher.next() => died = Some(death.map_err(no_deaths)?),
                Some(answer) = self.process_monitor.answers.recv() => {
                    self.read_page_behind_datagrams(answer.process.pid).await;
                    let now = self.clock.now();
                    self.process_monitor.apply_sample(answer, &mut self.tracker, now);
                }
                Some(query) = self.queries.recv() => match query {
                    Query::GiveAway(give) => asked = Some(give),
                    query => self.answer(query).await,
                },
                () = &mut timer, if rings_at.is_some() => rings_at = None,
                () = std::future::ready(()), if has_requests => {}
            }
            self.drain_inbox();
            if let Some(death) = died {
                self.apply_exits(death).await?;
            }
            // Read before the catch-up: a beat that arrived in time is processed before any deadline is
            // checked against it.
            let now = self.clock.now();
            if self.tracker.poll_timeout().is_some_and(|due| due <= now) {
                tracing::trace!(target: "varta::engine", "deadlines are due; what has arrived is read first");
                self.read_ahead().await;
                self.notice_drops(now);
            }
            if self.gate.is_shut() {
                continue;
            }
            self.notice_blindness(wake_at.map(|at| at.max(last_turn)), now);
            if self.tracker.has_jobs() {
                self.tracker.handle_wall_clock(wall_now().into(), now);
            }
            self.tracker.handle_timeout(now);
            self.read_pages(now);
            self.process_monitor.do_requests(&mut self.tracker, now);
            self.hand_on_transitions();
            last_turn = now;
            if listeners_gone {
                return self.end().await;
            }
        }
    }

    /// Ends in order, when all that was received is handled.
    async fn end(mut self) -> Result<(), Error> {
        self.process_monitor.recorder.record(InputRecord::End { at: self.clock.now() });
        self.hand_over().await;
        Ok(())
    }

    /// Processes exits, after the last beats of the processes: all exits are known before the sockets are read, so
    /// that what each of the processes has sent is in them. Where those are not read to the end, because the gate was
    /// shut meanwhile, the exits wait.
    async fn apply_exits(&mut self, first: ProcessExit) -> Result<(), Error> {
        let noticed_at = self.clock.now();
        let mut exits = vec![first];
        while exits.len() <= DEATHS_PER_TURN
            && let Some(exit) = self.process_monitor.watcher.try_next().map_err(no_deaths)?
        {
            exits.push(exit);
        }
        self.read_ahead().await;
        if self.gate.is_shut() {
            self.process_monitor.watcher.put_back(exits);
            return Ok(());
        }
        let now = self.clock.now();
        for exit in exits {
            let WatchedProcess { pid, start_time, .. } = exit.process;
            self.read_last_of(pid, start_time, noticed_at);
            self.process_monitor.record_exit(exit, noticed_at, &mut self.tracker, now);
        }
        Ok(())
    }

    /// Processes what has arrived in the sockets so far, through the listeners, which run on this thread too.
    pub(super) async fn read_ahead(&mut self) {
        for _ in 0..CATCH_UP_TURNS {
            tokio::task::yield_now().await;
            let was_full = self.drain_inbox();
            // A listener that found the inbox full may hold one more batch.
            if !was_full && !self.sockets.have_unread() {
                return;
            }
        }
    }

    /// Reports to the tracker what the kernel has dropped since the last check.
    fn notice_drops(&mut self, now: MonoTime) {
        let TrackerActor { sockets, tracker, process_monitor, .. } = self;
        sockets.each(|probe| {
            if probe.has_new_drops() {
                tracker.handle_loss(probe.transport(), now);
                process_monitor.recorder.record(InputRecord::Loss { transport: probe.transport(), at: now });
            }
        });
    }

    /// Processes every batch in the inbox. Returns whether there were as many as the inbox holds.
    pub(super) fn drain_inbox(&mut self) -> bool {
        let mut taken = 0;
        while let Ok(batch) = self.inbox.try_recv() {
            self.take(batch);
            taken += 1;
        }
        taken >= INBOX_BATCHES
    }

    /// When the task wakes up without input; `None` when nothing is pending.
    ///
    /// While agents are tracked, that is soon enough to detect an observer gap.
    fn wake_at(&self, last_turn: MonoTime) -> Option<MonoTime> {
        let due = self.tracker.poll_timeout()?;
        Some(if self.tracker.is_watching() {
            due.min(last_turn + self.stall_after / SELF_CHECK_SHARE)
        } else {
            due
        })
    }

    /// Reports an observer gap if this turn is late. `expected` is the latest time at which it was due;
    /// `None` if nothing was pending.
    pub(super) fn notice_blindness(&mut self, expected: Option<MonoTime>, now: MonoTime) {
        let Some(expected) = expected else { return };
        let late = now.since(expected);
        if late >= (self.stall_after / BLIND_SHARE).clamp(MIN_GAP, MAX_GAP) {
            self.tracker.handle_observer_gap(expected, now);
            self.process_monitor.recorder.record(InputRecord::Blind { from: expected, to: now });
            self.metrics.blind();
            tracing::warn!(
                target: "varta::engine",
                late_ms = millis(late),
                "this server did not run for {late:?} (stopped, or starved of CPU): every agent is given \
                 {:?} anew before its silence counts",
                self.stall_after
            );
        }
    }

    pub(super) fn take(&mut self, mut batch: Batch) {
        self.process_monitor.keep(mem::take(&mut batch.pidfds));
        let frames = &self.frames[batch.transport.index()];
        let mut taken = 0;
        for (before, control) in &batch.controls {
            let counts =
                self.tracker.handle_batch(&batch.beats[taken..*before], &mut self.process_monitor.lookup());
            debug_refusals(batch.transport, &counts);
            frames.add(&counts);
            taken = *before;
            let outcome = self.tracker.handle_control(control, &mut self.process_monitor.lookup());
            warn_of_refused(control, outcome);
            if control.is_counted() {
                let mut tally = OutcomeCounts::default();
                tally.count(outcome);
                frames.add(&tally);
            }
            self.keep_pace(control.sender);
        }
        let counts = self.tracker.handle_batch(&batch.beats[taken..], &mut self.process_monitor.lookup());
        debug_refusals(batch.transport, &counts);
        frames.add(&counts);
        if let Some(at) = batch.queue_full_at {
            self.tracker.handle_loss(batch.transport, at);
        }
        self.process_monitor.record(&batch);
        self.hand_on_transitions();
    }

    pub(super) fn hand_on_transitions(&mut self) {
        while let Some(transition) = self.tracker.poll_transition() {
            debug_verdict(&transition);
            self.metrics.transition(&transition);
            self.sinks.dispatch(&transition);
        }
        while let Some(note) = self.tracker.poll_registry_change() {
            if let RegistryChange::Forgotten(forgotten) = &note {
                self.sinks.dispatch_forgotten(forgotten);
            }
            if let Some(state) = &self.sinks.state {
                state.note(note);
            }
        }
    }

    /// Snapshots of some agents, from slot `from` on.
    fn slice(&self, from: usize) -> StateSlice {
        let end = from.saturating_add(ROWS_PER_TURN);
        let agents = self.tracker.snapshot(from..end).collect();
        let jobs = if from == 0 { self.tracker.job_snapshots() } else { Vec::new() };
        StateSlice { from, jobs, agents, next: (end < self.tracker.slots()).then_some(end) }
    }

    /// Some of the agents in alarm, from slot `from` on.
    fn alarms(&self, from: usize) -> Alarms {
        let (now, end) = (self.clock.now(), from.saturating_add(ROWS_PER_TURN));
        let mut found: Vec<_> = self.tracker.alarms(from..end, now).collect();
        let mut awaited = Vec::new();
        if from == 0 {
            found.extend(self.tracker.missing_alarms(now));
            awaited.extend(self.tracker.awaited().map(Arc::clone));
        }
        Alarms { found, awaited, next: (end < self.tracker.slots()).then_some(end) }
    }

    /// Queues the last snapshots of all agents.
    async fn hand_over(&self) {
        let Some(state) = &self.sinks.state else { return };
        let all = async {
            let mut from = Some(0);
            while let Some(start) = from {
                let slice = self.slice(start);
                from = slice.next;
                if state.queue.sender().send(Event::Slice(slice)).await.is_err() {
                    return;
                }
            }
            // A writer that has ended has logged why.
            let _ = state.queue.sender().send(Event::Complete).await;
        };
        if tokio::time::timeout(HAND_OVER_WITHIN, all).await.is_err() {
            tracing::warn!(
                target: "varta::engine",
                "not all agents' last state could be written within {HAND_OVER_WITHIN:?}"
            );
        }
    }

    pub(super) async fn answer(&mut self, query: Query) {
        match query {
            Query::Ping(answer) => {
                let _ = answer.send(());
            }
            Query::Population(answer) => _ = answer.send(self.tracker.population()),
            Query::StartRows { which, answer } => {
                let wall_start = self.clock.wall_start_seconds();
                let which = self.auto_rows.choose(which, self.tracker.len());
                let mut rows = AgentRows::new(which, &self.host, wall_start);
                rows.add_restarts(self.tracker.restarts());
                rows.add_missing(self.tracker.missing());
                rows.add_jobs(job_rows(&self.tracker.jobs()));
                let _ = answer.send(Box::new(rows));
            }
            Query::AddRows { mut rows, from, answer } => {
                let end = from.saturating_add(ROWS_PER_TURN);
                for agent in self.tracker.agents(from..end) {
                    rows.add(&agent);
                }
                let next = (end < self.tracker.slots()).then_some(end);
                if next.is_none() {
                    // The rest of the scrape follows, and these figures are rendered only after it.
                    let (watches, looks) =
                        (self.process_monitor.watcher.refusals(), self.process_monitor.sampler.refused());
                    self.metrics.publish(&self.tracker, watches, looks);
                }
                let _ = answer.send(Slice { rows, next });
            }
            Query::Policy { policy, answer } => {
                self.stall_after = policy.stall_after;
                self.tracker.handle_policy(*policy, self.clock.now());
                let _ = answer.send(self.tracker.expected_forgotten());
            }
            Query::Status { agent, answer } => {
                self.read_ahead().await;
                if agent.origin.is_local() {
                    self.read_page_behind_datagrams(agent.pid).await;
                }
                let _ = answer.send(self.tracker.status(&agent, self.clock.now()));
            }
            Query::CountByName { name, from, answer } => {
                let end = from.saturating_add(NAMES_PER_TURN);
                let named = self.tracker.named(&name, from..end);
                let next = (end < self.tracker.slots()).then_some(end);
                let _ = answer.send(NamedSlice { named, next });
            }
            Query::Matching { pattern, from, answer } => {
                let end = from.saturating_add(PATTERNS_PER_TURN);
                let mut matches = self.tracker.matching(&pattern, from..end);
                if from == 0 {
                    matches += self.tracker.expected_matching(&pattern);
                }
                let next = (end < self.tracker.slots()).then_some(end);
                let _ = answer.send(MatchingSlice { matches, next });
            }
            Query::Forget { who, from, answer } => {
                // One that has just come back lives.
                self.read_ahead().await;
                let _ = answer.send(self.forget(&who, from));
            }
            Query::Selected { who, from, answer } => _ = answer.send(self.select(&who, from)),
            Query::GiveAway(_) => {}
            Query::Attach(subscribers) => {
                if subscribers.state.is_some() {
                    self.tracker.track_registry_changes();
                }
                self.sinks.attach(*subscribers);
            }
            Query::Jobs(answer) => _ = answer.send(self.tracker.job_statuses()),
            Query::Review { review, from, answer } => _ = answer.send(self.review(review, from)),
            Query::Records { list, from, answer } => _ = answer.send(self.records(list, from)),
            Query::Alarms { from, answer } => _ = answer.send(self.alarms(from)),
            Query::Slice { from, place } => _ = place.send(Event::Slice(self.slice(from))),
        }
    }
}

//! The tracker's actor: the one task that owns the tracker. It takes batches from the listeners, tells the tracker what
//! time it is, answers questions and hands changes of verdict to the sinks.
//!
//! Two rules of it keep verdicts true. Before a deadline is held against anybody, what has arrived is taken first. And
//! when this task itself did not run for a while, for whatever reason, it says so to the tracker instead of accusing
//! those whose beats could not be seen.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::beat::Transport;
use crate::clock::Clock;
use crate::listener::{Batch, Probe};
use crate::metrics::agents::{AgentMetrics, AgentRows};
use crate::metrics::{FrameCounters, TrackerMetrics};
use crate::process::ProcFs;
use crate::time::{MonoTime, millis};
use crate::tracker::{Cause, Tracker, Transition, Verdict};

/// Questions that may wait; who asks one more waits.
pub(crate) const QUERIES: usize = 16;
/// How often, before a deadline is held against anybody, the listeners are given a turn to take what has arrived. Each
/// time they take more than a socket's queue holds; what still comes then came later.
const CATCH_UP_TURNS: usize = 8;
/// Agents written into a scrape before beats get their turn again.
const ROWS_PER_TURN: usize = 1_000;
/// How late this task may wake up before it counts as having been blind: a share of stall-after, within bounds.
const BLIND_SHARE: u32 = 8;
const BLIND_AT_LEAST: Duration = Duration::from_millis(50);
const BLIND_AT_MOST: Duration = Duration::from_secs(1);
/// While agents are tracked and none beats, how often this task wakes up to see that it still can: a share of
/// stall-after.
const SELF_CHECK_SHARE: u32 = 4;

/// A question to the actor. The answer is lost when the asker has gone, which is no fault.
#[derive(Debug)]
pub(crate) enum Query {
    /// Whether it still takes turns.
    Ping(oneshot::Sender<()>),
    /// Starts the rows of a scrape.
    StartRows(oneshot::Sender<Box<AgentRows>>),
    /// Adds agents to the rows of a scrape, from a slot number on.
    AddRows { rows: Box<AgentRows>, from: usize, answer: oneshot::Sender<Slice> },
}

/// An answer to [`Query::AddRows`].
#[derive(Debug)]
pub(crate) struct Slice {
    pub(crate) rows: Box<AgentRows>,
    /// Where to go on; `None` at the end.
    pub(crate) next: Option<usize>,
}

/// The task and all that it owns.
pub(crate) struct Actor {
    pub(crate) tracker: Tracker,
    pub(crate) processes: ProcFs,
    pub(crate) clock: Clock,
    pub(crate) inbox: mpsc::Receiver<Batch>,
    /// For each listener, whether something waits to be read.
    pub(crate) sockets: Arc<[Probe]>,
    pub(crate) queries: mpsc::Receiver<Query>,
    pub(crate) sinks: Sinks,
    /// By [`Transport::index`](crate::beat::Transport::index).
    pub(crate) frames: [FrameCounters; Transport::ALL.len()],
    pub(crate) metrics: TrackerMetrics,
    pub(crate) agent_metrics: AgentMetrics,
    /// The name of this host, for the label `host`.
    pub(crate) host: String,
    /// The tracker's own, for how often this task checks itself.
    pub(crate) stall_after: Duration,
}

/// Where changes of verdict go.
#[derive(Debug)]
pub(crate) struct Sinks {
    pub(crate) log: mpsc::Sender<Transition>,
    pub(crate) log_dropped: metrics::Counter,
}

impl Sinks {
    /// A sink that is too slow misses changes, and that is counted: the tracker waits for nobody. Agents that keep
    /// changing what they report cannot take the places of those that fell silent.
    fn hand_on(&self, transition: Transition) {
        let has_place =
            transition.cause != Cause::Reported || self.log.capacity() > self.log.max_capacity() / 2;
        if !has_place || self.log.try_send(transition).is_err() {
            self.log_dropped.increment(1);
        }
    }
}

impl Actor {
    /// Runs until every listener has gone and what they left is taken.
    pub(crate) async fn run(mut self) {
        let mut last_turn = self.clock.now();
        // One timer for good, set anew only when it has to ring earlier: a beat moves what there is to wait for a little
        // further away, and a timer that rings too early just finds nothing to do.
        let mut timer = pin!(tokio::time::sleep_until(self.clock.instant(MonoTime::NEVER)));
        let mut rings_at = None;
        loop {
            let wake_at = self.wake_at(last_turn);
            if let Some(wake_at) = wake_at
                && rings_at.is_none_or(|rings_at| wake_at < rings_at)
            {
                timer.as_mut().reset(self.clock.instant(wake_at));
                rings_at = Some(wake_at);
            }
            let mut listeners_gone = false;
            tokio::select! {
                biased;
                batch = self.inbox.recv() => match batch {
                    Some(batch) => self.take(&batch),
                    None => listeners_gone = true,
                },
                Some(query) = self.queries.recv() => self.answer(query),
                () = &mut timer, if rings_at.is_some() => rings_at = None,
            }
            self.drain_inbox();
            // Read before what has arrived is taken: a beat that was in time is taken before anybody is judged by it.
            let now = self.clock.now();
            if self.tracker.poll_timeout().is_some_and(|due| due <= now) {
                self.catch_up().await;
            }
            self.notice_blindness(wake_at.map(|at| at.max(last_turn)), now);
            self.tracker.handle_timeout(now);
            self.hand_on_transitions();
            self.metrics.publish(&self.tracker);
            last_turn = now;
            if listeners_gone {
                return;
            }
        }
    }

    /// Takes what has arrived in the sockets by now, through their listeners, which run on this thread too.
    async fn catch_up(&mut self) {
        for _ in 0..CATCH_UP_TURNS {
            tokio::task::yield_now().await;
            self.drain_inbox();
            if !self.sockets.iter().any(Probe::has_unread) {
                return;
            }
        }
    }

    /// Takes every batch that has been handed on: at most as many as the inbox holds, for no listener runs meanwhile.
    fn drain_inbox(&mut self) {
        while let Ok(batch) = self.inbox.try_recv() {
            self.take(&batch);
        }
    }

    /// When this task is to wake up if nothing comes; `None` when there is nothing to wait for.
    ///
    /// While somebody is tracked that is soon enough for a pause of this very process to be noticed.
    fn wake_at(&self, last_turn: MonoTime) -> Option<MonoTime> {
        let due = self.tracker.poll_timeout()?;
        let watching = self.tracker.population()[Verdict::UP] > 0;
        Some(if watching { due.min(last_turn + self.stall_after / SELF_CHECK_SHARE) } else { due })
    }

    /// `expected` is when this turn was to come at the latest; `None` when nothing depended on it.
    fn notice_blindness(&mut self, expected: Option<MonoTime>, now: MonoTime) {
        let Some(expected) = expected else { return };
        let late = now.since(expected);
        if late >= (self.stall_after / BLIND_SHARE).clamp(BLIND_AT_LEAST, BLIND_AT_MOST) {
            self.tracker.handle_blind(expected, now);
            self.metrics.blind();
            tracing::warn!(
                late_ms = millis(late),
                "this server did not run for {late:?} (stopped, or starved of CPU): every agent is given \
                 {:?} anew before its silence counts",
                self.stall_after
            );
        }
    }

    fn take(&mut self, batch: &Batch) {
        let tally = self.tracker.handle_batch(&batch.beats, &mut self.processes);
        self.frames[batch.transport.index()].add(&tally);
        self.hand_on_transitions();
    }

    fn hand_on_transitions(&mut self) {
        while let Some(transition) = self.tracker.poll_transition() {
            self.metrics.transition(&transition);
            self.sinks.hand_on(transition);
        }
    }

    fn answer(&mut self, query: Query) {
        match query {
            Query::Ping(answer) => {
                let _ = answer.send(());
            }
            Query::StartRows(answer) => {
                let wall_start = self.clock.wall_start_seconds();
                let rows = AgentRows::new(self.agent_metrics, self.tracker.len(), &self.host, wall_start);
                let _ = answer.send(Box::new(rows));
            }
            Query::AddRows { mut rows, from, answer } => {
                let end = from.saturating_add(ROWS_PER_TURN);
                for agent in self.tracker.agents(from..end) {
                    rows.add(&agent);
                }
                let next = (end < self.tracker.slots()).then_some(end);
                let _ = answer.send(Slice { rows, next });
            }
        }
    }
}

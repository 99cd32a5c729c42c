//! The liveness tracker: beats and times go in, transitions come out.
//!
//! The tracker is pure. Each call hands in the time, and [`Tracker::poll_timeout`] says when the next one is
//! due; the tracker names no socket, task, clock or file, so that a test of any of its rules is a list of
//! what happened when. Its only question, which process has a pid, goes to the [`Processes`] that the caller
//! brings.
//!
//! An ordinary beat writes one cache line and nothing else. The timer wheel decides when a deadline is
//! checked; a beat that moves a deadline does not touch the wheel.

mod agents;
mod detection;
mod policy;
mod queries;
mod rules;
mod state;
#[cfg(test)]
pub(crate) mod tests;
mod verdicts;

use self::agents::index::NONE;
pub use self::agents::jobs::JobSnapshot;
pub use self::agents::names::NameSource;
pub use self::agents::request::TrackerRequest;
pub use self::agents::snapshot::{AgentSnapshot, Fate, ForgetReason, Forgotten, RegistryChange};
pub use self::agents::status::{AgentStatus, NameCount, NameMatches};
use self::agents::table::TOGETHER;
pub(crate) use self::agents::view::AgentRecord;
pub use self::agents::view::{AgentView, Statistics};
pub use self::detection::arrival;
pub use self::policy::Policy;
pub(crate) use self::queries::jobs::JobStatus;
pub(crate) use self::queries::review::{Loss, Pace, Review};
pub(crate) use self::rules::forgetting::Life;
pub(crate) use self::rules::handover::{TRACKER_STATE_VERSION, TrackerState, TrackerStateRef};
pub(crate) use self::rules::jobs::JobView;
pub use self::state::Tracker;
use self::state::{LOOKS_PER_TURN, WORTH_A_GUESS};
pub use self::verdicts::cause::Cause;
pub use self::verdicts::incident::Incident;
pub(crate) use self::verdicts::problem::Problem;
pub use self::verdicts::transition::{AgentId, LastReport, Transition, Twin};
pub use self::verdicts::verdict::Verdict;
use crate::base::time::MonoTime;
use crate::domain::beat::{ReceivedBeat, Transport};
use crate::domain::outcome::OutcomeCounts;
pub use crate::domain::process::identity::{EndedProcess, Lineage, PidfdTag, ProcessIdentity, Processes};

impl Tracker {
    /// Handles beats in the order in which they arrived, and counts their outcomes.
    ///
    /// A refused beat changes no verdict, and moves no deadline unless it was refused only for its rate.
    pub fn handle_batch(&mut self, beats: &[ReceivedBeat], processes: &mut impl Processes) -> OutcomeCounts {
        let mut tally = OutcomeCounts::default();
        for some in beats.chunks(TOGETHER) {
            let numbers = if some.len() >= WORTH_A_GUESS {
                self.agents.guess(some.iter().map(|beat| self.key_of(beat.sender)))
            } else {
                [NONE; TOGETHER]
            };
            for (beat, number) in some.iter().zip(numbers) {
                tally.count(self.handle_beat(beat, number, processes));
            }
        }
        tally
    }

    /// Records an observer gap: the beats of the time between `from` and `to` may be lost.
    ///
    /// An agent that has not beaten since has a whole stall timeout from `to` on. Repeated gaps do not extend
    /// a deadline without end: it moves by the gaps' total length, and by at most one stall timeout more.
    pub fn handle_observer_gap(&mut self, from: MonoTime, to: MonoTime) {
        self.observer_gaps.add(from, to);
        self.jobs.excuse(from, to);
    }

    /// Records that datagrams may have been lost on the way by `at`: the kernel dropped some of a network
    /// socket, or the queue of the Unix socket was full and its senders were refused.
    ///
    /// An agent of the network that is silent by then gets one more stall timeout, and no more than one. An
    /// agent of this host is not called stalled before the queue has had room for a stall timeout, unless its
    /// process is seen to be unable to beat.
    pub fn handle_loss(&mut self, transport: Transport, at: MonoTime) {
        let lost_at = &mut self.lost_at[transport.index()];
        *lost_at = (*lost_at).max(Some(at));
    }

    /// Advances the tracker to `now`: applies the deadlines that have passed. Early and repeated calls change
    /// nothing.
    ///
    /// One call does a bounded amount of work; if more is left, [`Tracker::poll_timeout`] gives a time that
    /// has passed.
    pub fn handle_timeout(&mut self, now: MonoTime) {
        if !self.apply_new_rules() {
            return;
        }
        self.check_jobs(now);
        for _ in 0..LOOKS_PER_TURN {
            let Some(name) = self.expected.pop_missing(now) else { break };
            self.transitions.push_back(Transition::of_missing(&name, now));
        }
        for _ in 0..LOOKS_PER_TURN {
            let Some(number) = self.wheel.pop(now) else { return };
            self.check_deadline(number, now);
        }
    }

    /// The time at which [`Tracker::handle_timeout`] is due next; `None` when no deadline is pending.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoTime> {
        if !self.rules_pending.is_empty() {
            return Some(MonoTime::START);
        }
        [self.wheel.next_due(), self.expected.next_due(), self.jobs.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next transition, oldest first. Callers poll until `None` after each `handle_*`.
    pub fn poll_transition(&mut self) -> Option<Transition> {
        self.transitions.pop_front()
    }

    /// The next request to the outside, oldest first. Callers poll until `None` after each `handle_*`.
    pub fn poll_request(&mut self) -> Option<TrackerRequest> {
        self.requests.pop_front()
    }

    /// The process whose shared memory page must be read before its silence counts; the reply is
    /// [`Tracker::handle_read`]. Callers poll until `None` after each [`Tracker::handle_timeout`].
    pub fn poll_unread(&mut self) -> Option<u32> {
        self.unread.pop_front()
    }

    /// The next registry change, oldest first. Callers poll until `None` after each `handle_*`.
    pub fn poll_registry_change(&mut self) -> Option<RegistryChange> {
        self.registry_changes.pop_front()
    }

    /// The number of agents, silent ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.agents.len()
    }

    /// Whether there are no agents.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.agents.len() == 0
    }

    /// Whether any agent is up or expected, so that a beat is awaited.
    #[must_use]
    pub fn is_watching(&self) -> bool {
        [Verdict::UP, Verdict::EXPECTED].iter().any(|state| self.population[*state] > 0)
    }
}

//! The liveness tracker: beats and time go in, changes of verdict come out.
//!
//! It is pure. It is handed the time and asks to be woken; it names no socket, no task, no clock and no file, so that
//! every rule that keeps a verdict true can be tested by writing down what happened when. The one question it asks,
//! who a local process is, it puts to a [`Processes`] that its caller brings.
//!
//! A beat writes one cache line and nothing else. Deadlines are looked at when the wheel brings an agent up, not when
//! a beat moves them.

mod agents;
pub(crate) mod detection;
mod policy;
mod queries;
mod rules;
pub(crate) mod state;
#[cfg(test)]
mod tests;
mod verdicts;

use self::agents::index::NONE;
pub use self::agents::names::NameSource;
pub use self::agents::request::{Depth, Request};
pub use self::agents::snapshot::{Fate, Note, Remembered};
pub use self::agents::status::{Named, Standing};
use self::agents::table::TOGETHER;
pub use self::agents::view::{AgentView, Statistics};
pub use self::policy::Policy;
pub use self::state::Tracker;
use self::state::{LOOKS_PER_TURN, WORTH_A_GUESS};
pub use self::verdicts::cause::Cause;
pub use self::verdicts::incident::Incident;
pub use self::verdicts::transition::{AgentId, LastWord, Transition, Twin};
pub use self::verdicts::verdict::Verdict;
use crate::base::time::MonoTime;
use crate::domain::beat::{ReceivedBeat, Transport};
use crate::domain::outcome::Tally;
pub use crate::domain::process::identity::{ProcessIdentity, Processes};

impl Tracker {
    /// Takes beats in the order in which they arrived, and says what became of them.
    ///
    /// A refused beat changes no verdict, and moves no deadline unless it was refused only for its rate.
    pub fn handle_batch(&mut self, beats: &[ReceivedBeat], processes: &mut impl Processes) -> Tally {
        let mut tally = Tally::default();
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

    /// Takes note that nothing could be seen between `from` and `to`, because the beats of that time may be lost.
    ///
    /// Whoever has not beaten since is given a whole stall-after from `to` on. When blindness comes again and again that
    /// is not repeated without end: a deadline moves by the blind time altogether, and by one stall-after more at the most.
    pub fn handle_blind(&mut self, from: MonoTime, to: MonoTime) {
        self.blindness.add(from, to);
    }

    /// Takes note that datagrams may have been lost on the way by `at`: the kernel threw some away, or a queue was full.
    ///
    /// Whoever is silent by then is given one stall-after more, and no more than one.
    pub fn handle_loss(&mut self, transport: Transport, at: MonoTime) {
        let lost_at = &mut self.lost_at[transport.index()];
        *lost_at = (*lost_at).max(Some(at));
    }

    /// Concludes what follows from the time being `now`. Early and repeated calls change nothing.
    ///
    /// One call does a bounded amount of work; if there is more, [`Tracker::poll_timeout`] names a moment that has
    /// passed.
    pub fn handle_timeout(&mut self, now: MonoTime) {
        if !self.apply_new_rules() {
            return;
        }
        for _ in 0..LOOKS_PER_TURN {
            let Some(name) = self.awaited.pop_missing(now) else { break };
            self.transitions.push_back(Transition::of_missing(name, now));
        }
        for _ in 0..LOOKS_PER_TURN {
            let Some(number) = self.wheel.pop(now) else { return };
            self.look_at(number, now);
        }
    }

    /// The moment at which [`Tracker::handle_timeout`] is to be called next; `None` when there is nothing to wait for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoTime> {
        if !self.unruled.is_empty() {
            return Some(MonoTime::START);
        }
        [self.wheel.next_due(), self.awaited.next_due()].into_iter().flatten().min()
    }

    /// The next change of verdict, oldest first. To be called until it gives `None` after each `handle_*`.
    pub fn poll_transition(&mut self) -> Option<Transition> {
        self.transitions.pop_front()
    }

    /// What is wanted from outside next, oldest first. To be called until it gives `None` after each `handle_*`.
    pub fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// The process whose page of memory is to be read next, before its silence is held against it; see
    /// [`Tracker::handle_read`]. To be called until it gives `None` after each [`Tracker::handle_timeout`].
    pub fn poll_unread(&mut self) -> Option<u32> {
        self.unread.pop_front()
    }

    /// How many agents there are, silent ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.agents.len()
    }

    /// Whether there are no agents.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.agents.len() == 0
    }

    /// Whether there is anybody who is to beat.
    #[must_use]
    pub fn is_watching(&self) -> bool {
        [Verdict::UP, Verdict::EXPECTED].iter().any(|state| self.population[*state] > 0)
    }
}

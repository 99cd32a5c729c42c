//! Succession: an agent of this host takes the place of one whose process has ended.
//!
//! A newcomer takes the place of an agent that is down or gone and has its name, whenever that ended. A name
//! that is only the command is common to strangers: then both must have been started by the same command line
//! in the same directory. An end that the kernel has reported by the first beat of the newcomer is handled
//! before it: what a process sends comes before its end, and its end before the first beat of its successor,
//! but not in the order in which the server reads them.
//!
//! An agent whose place is taken is forgotten, and its series of stalls continues in its successor. Until
//! `replaced-within` after its end no alarm is raised for it: [`Transition::settles_at`].
//!
//! [`Transition::settles_at`]: crate::domain::tracker::Transition::settles_at

use std::time::Duration;

use crate::base::time::MonoTime;
use crate::domain::process::identity::Processes;
use crate::domain::process::{EndedProcess, Lineage};
use crate::domain::tracker::agents::agent::AgentCold;
use crate::domain::tracker::agents::names::NameId;
use crate::domain::tracker::agents::origins::SourceId;
use crate::domain::tracker::agents::snapshot::ForgetReason;
use crate::domain::tracker::rules::exits::Ending;
use crate::domain::tracker::state::{Tracker, TransitionDetails};
use crate::domain::tracker::verdicts::cause::Cause;

/// The maximum number of departed agents of one name that are compared with a newcomer.
const MAX_COMPARED: usize = 1_024;
impl Tracker {
    /// Takes the place of an agent with the same name and origin that has ended, if there is one: the series
    /// continues, and a transition says so to all that get its end.
    pub(super) fn replace_predecessor(&mut self, number: u32, at: MonoTime, processes: &mut impl Processes) {
        let was_missing = self.mark_seen(number);
        let present = self.agents.slot(number).verdict;
        if let Some(change) = self.take_over_identity(number, Lineage::default(), at, processes) {
            self.announce(number, TransitionDetails { from: present, ..change });
        } else if was_missing.is_some() {
            self.announce(
                number,
                TransitionDetails { from: was_missing, ..TransitionDetails::of_first_beat(at) },
            );
        }
    }

    /// Like [`Tracker::replace_predecessor`], but leaves the transition to the caller; `None` also if the end of
    /// the predecessor was handled only now, and says by whom it was replaced.
    pub(super) fn take_over_identity(
        &mut self,
        number: u32,
        lineage: Lineage,
        at: MonoTime,
        processes: &mut impl Processes,
    ) -> Option<TransitionDetails> {
        if self.agents.slot(number).key.source == SourceId::LOCAL
            && self.replace_ended(number, lineage, at, processes)
        {
            return None;
        }
        let predecessor = self.take_departed(number, lineage)?;
        let change = TransitionDetails {
            predecessor: Some(self.id(predecessor)),
            ..TransitionDetails::new(
                self.agents.slot(predecessor).verdict,
                Cause::Restarted,
                at,
                self.silence(predecessor, at),
            )
        };
        self.continue_series(predecessor, number);
        Some(change)
    }

    /// Takes the place of an agent whose end is known and was not handled yet. Returns whether there is one.
    fn replace_ended(
        &mut self,
        number: u32,
        newcomer: Lineage,
        at: MonoTime,
        processes: &mut impl Processes,
    ) -> bool {
        let AgentCold { name, name_source, .. } = *self.agents.rest(number);
        for EndedProcess { pid, process, death, lineage } in processes.ended() {
            let other = process.map_or_else(|| self.find_hidden(pid), |process| self.find_process(process));
            let Some(other) = other.filter(|other| *other != number) else { continue };
            let rest = self.agents.rest(other);
            let is_of_series = name_source.is_series() && rest.name_source.is_series();
            let is_predecessor = rest.name == name && (is_of_series || lineage.has_same_command(newcomer));
            // The alarm for one that panicked stands.
            if is_predecessor && !self.agents.slot(other).terminal {
                let ending = Ending { lineage, noticed_at: at, ..Ending::of(death) };
                self.note_death(other, ending, Some(number), at);
                return true;
            }
        }
        false
    }

    /// Removes an agent from those that are down or gone under a name, whose place this one takes.
    fn take_departed(&mut self, number: u32, lineage: Lineage) -> Option<u32> {
        let source = self.agents.slot(number).key.source;
        let AgentCold { name, name_source, .. } = *self.agents.rest(number);
        loop {
            let first = self.names.departed(name).next().map(|departed| departed.number);
            if first.is_none_or(|first| self.is_departed(first, name)) {
                break;
            }
            self.names.take_departed(name, 0);
        }
        let index = self.names.departed(name).take(MAX_COMPARED).position(|departed| {
            let (slot, rest) = (self.agents.slot(departed.number), self.agents.rest(departed.number));
            let is_of_series = name_source.is_series() && rest.name_source.is_series();
            departed.number != number
                && self.is_departed(departed.number, name)
                && slot.key.source == source
                && (is_of_series || departed.lineage.has_same_command(lineage))
        })?;
        self.names.take_departed(name, index)
    }

    /// Whether an agent still has this name and is one whose place another may take.
    fn is_departed(&self, number: u32, name: NameId) -> bool {
        self.agents.rest(number).name == name
            && (self.agents.slot(number).has_departed() || self.awaits_successor(number))
    }

    /// Lets an agent continue the series of another, which is forgotten.
    pub(super) fn continue_series(&mut self, predecessor: u32, number: u32) {
        let AgentCold { stalls, name, .. } = *self.agents.rest(predecessor);
        let mistakes = self.agents.rest(predecessor).false_positives();
        let at_least = self.agents.rest(predecessor).silent_at_least();
        let rest = self.agents.rest_mut(number);
        rest.stalls = rest.stalls.saturating_add(stalls);
        rest.add_mistakes(mistakes);
        if at_least {
            rest.extra.get_or_insert_default().silent_at_least = true;
        }
        self.names.count_restart(name);
        self.forget(predecessor, ForgetReason::Succeeded);
    }

    /// How long another may take the place of this agent, after its end, without an alarm.
    pub(super) fn replaced_within(&self, number: u32) -> Duration {
        if self.agents.slot(number).key.source != SourceId::LOCAL {
            return Duration::ZERO;
        }
        let name = self.names.get(self.agents.rest(number).name);
        self.policy.rules.replaced_within_for(name).unwrap_or(self.policy.replaced_within)
    }

    /// When no successor can keep the alarm for this agent away any more, which is down.
    pub(in crate::domain::tracker) fn settles_at(&self, number: u32) -> MonoTime {
        let slot = self.agents.slot(number);
        slot.last_beat + Duration::from_millis(u64::from(slot.fell_after)) + self.replaced_within(number)
    }
}

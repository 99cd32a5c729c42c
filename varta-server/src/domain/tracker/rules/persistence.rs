//! Agents from before this server started: what is persisted of each so that the next server knows it, and
//! what that server makes of it.
//!
//! Where the state is persisted is not the tracker's concern. The tracker emits a
//! [`RegistryChange`](crate::domain::tracker::RegistryChange) for what has changed, and takes
//! [`AgentSnapshot`] agents with what the kernel knows of them meanwhile.

use std::mem;
use std::ops::Range;
use std::time::Duration;

use crate::base::rate_limit::Usage;
use crate::base::time::MonoTime;
use crate::domain::beat::Origin;
use crate::domain::expected::Expected;
use crate::domain::process::{ExitStatus, Lineage, PidfdTag, ProcessStart};
use crate::domain::tracker::agents::agent::{AgentCold, AgentHot, AgentRare, AskedTimeout, IndexKey};
use crate::domain::tracker::agents::names::Departed;
use crate::domain::tracker::agents::origins::SourceId;
use crate::domain::tracker::agents::progress::ProgressWatch;
use crate::domain::tracker::agents::session::Session;
use crate::domain::tracker::agents::slot_flags::SlotFlags;
use crate::domain::tracker::agents::snapshot::{AgentSnapshot, Fate};
use crate::domain::tracker::rules::exits::Ending;
use crate::domain::tracker::state::Tracker;
use crate::domain::tracker::verdicts::transition::AgentId;
use crate::domain::tracker::verdicts::verdict::Verdict;

/// The shortest grace of an agent of this host whose process ended with the boot: services take their time to
/// start, and those that the configuration expects have as much.
const GRACE_AFTER_BOOT: Duration = Expected::DEFAULT_GRACE;

impl Tracker {
    /// From now on emits the states of agents through [`Tracker::poll_registry_change`]. Agents that are
    /// forgotten are emitted in any case.
    pub fn track_registry_changes(&mut self) {
        self.is_persisted = true;
    }

    /// The state to persist of the agents in a range of slot numbers, which is cut at [`Tracker::slots`].
    pub fn snapshot(&self, range: Range<usize>) -> impl Iterator<Item = AgentSnapshot> {
        let range = range.start..range.end.min(self.agents.slots());
        range.filter_map(|number| self.to_be_remembered(u32::try_from(number).ok()?))
    }

    /// Adds an agent that a previous server knew. It has one deadline from `now` on and is `expected`
    /// meanwhile. An agent that was silent or gone before stays that, without another transition. Returns
    /// whether it was added: not when it had said goodbye, is known already, is due to be forgotten, or when
    /// there is no room.
    ///
    /// The end of a process while there was no server counts from the deadline on: until then a process of
    /// the same name, which a service manager may have started meanwhile, takes the agent's place.
    pub fn restore(&mut self, agent: &AgentSnapshot, fate: Fate, now: MonoTime) -> bool {
        let AgentSnapshot { agent: AgentId { ref name, origin, pid, twin }, lane, verdict, last, .. } =
            *agent;
        let was_awaited = verdict.is_awaited();
        let is_outdated = !was_awaited && agent.silent_before >= self.kept(name, verdict);
        if verdict == Verdict::Gone || is_outdated || self.knows(agent) || self.make_room(origin).is_err() {
            return false;
        }
        // Of one that is watched by its process alone no beat is awaited, and it is known to live.
        let is_known_to_live =
            agent.is_unawaited && fate == Fate::Lives && verdict == Verdict::Up(last.status);
        let verdict = if was_awaited && !is_known_to_live { Verdict::Expected } else { verdict };
        let has_ended = matches!(fate, Fate::Gone | Fate::Rebooted);
        let mut slot = AgentHot {
            // Whatever it sends next follows: beats that no server received do not count as lost.
            session: Session::UNHEARD,
            last_beat: now,
            beats: last.beats,
            usage: Usage::default(),
            key: IndexKey { source: SourceId::LOCAL, pid, lane },
            payload: last.payload,
            fell_after: 0,
            verdict: Some(verdict),
            status: last.status,
            terminal: last.terminal,
            flags: SlotFlags::default(),
        }
        .from(origin);
        // What no kernel says anything of would otherwise be there for ever.
        slot.set_unawaited(agent.is_unawaited && fate != Fate::Unknown);
        // Nobody beats that has ended.
        slot.set_counter_due(verdict == Verdict::Stalled && agent.stood.is_some() && !has_ended);
        let longest = now + self.longest_silence();
        let extra = AgentRare {
            // The agent's next Hello says whether that is its request or three of its intervals.
            asked: agent.asked.map(|asked| AskedTimeout::Requested(self.granted_to(origin, asked))),
            busy_until: if agent.busy_until > now { agent.busy_until.min(longest) } else { MonoTime::START },
            silent_before: agent.silent_before,
            silent_at_least: agent.silent_at_least,
            labels: agent.labels.clone(),
            unit: agent.unit.clone(),
            said: agent.said.clone(),
            progress: agent.stood.map_or_else(ProgressWatch::default, |stood| ProgressWatch {
                stands_since: now,
                stood_before: stood + agent.silent_before,
                ..ProgressWatch::default()
            }),
            ..AgentRare::default()
        };
        // A process that cannot be identified by its start time has none.
        let start_time = agent.start_time.filter(|_| fate != Fate::Unknown);
        let started = start_time.map(|start_time| ProcessStart::new(start_time, PidfdTag::UNKNOWN));
        let rest = AgentCold {
            extra: Some(Box::new(extra)),
            lost: agent.lost,
            stalls: agent.stalls,
            is_dead: verdict == Verdict::Down || has_ended,
            name_source: agent.name_source,
            ..AgentCold::new(self.names.take(name), started, twin)
        };
        let number = self.add(origin, slot, rest);
        if let Origin::Named { .. } = origin {
            self.named.add(name, number);
        }
        self.apply_rules(number);
        // The agent counts as seen if it is also expected, and is not missed twice.
        self.expected.hear(name);
        match verdict {
            Verdict::Up(_) | Verdict::Unknown | Verdict::Expected => {
                // With the timeout of the rules and of its own request.
                self.wheel.arm(number, self.first_check(number));
            }
            Verdict::Stalled if !has_ended => {
                self.wheel.arm(number, self.forget_at(number, verdict));
            }
            Verdict::Stalled => {}
            Verdict::Down | Verdict::Gone => {
                self.wheel.arm(number, self.forget_at(number, verdict));
                self.evict_one(number, Lineage::default());
            }
        }
        if fate == Fate::Lives {
            self.watch(number);
        }
        if self.awaits_successor(number) {
            let AgentCold { name, name_source, .. } = *self.agents.rest(number);
            if name_source.is_series() {
                self.names.note_departed(name, Departed { number, lineage: Lineage::default() });
            }
        }
        if has_ended && verdict != Verdict::Down {
            let grace = self.stall_after(number);
            let grace = if fate == Fate::Rebooted { grace.max(GRACE_AFTER_BOOT) } else { grace };
            // The verdict on it waits for that, and not for what it asked for when it lived.
            self.agents.rest_mut(number).extra.get_or_insert_default().busy_until = now + grace;
            self.wheel.arm(number, now + grace);
        }
        true
    }

    /// Whether an agent was restored, has not beaten since, and has no process that is known to live: another
    /// process of its name may take its place although nothing was said of its end.
    pub(super) fn awaits_successor(&self, number: u32) -> bool {
        let slot = self.agents.slot(number);
        match slot.verdict {
            Some(Verdict::Expected) => slot.key.source == SourceId::LOCAL && self.process(number).is_none(),
            Some(Verdict::Stalled) => self.agents.rest(number).is_dead,
            Some(Verdict::Up(_) | Verdict::Unknown | Verdict::Down | Verdict::Gone) | None => false,
        }
    }

    /// Whether the process of a restored agent ended while there was no server, and nothing was said of that.
    fn has_ended_unsaid(&self, number: u32) -> bool {
        self.agents.rest(number).is_dead && self.awaits_successor(number)
    }

    /// Says that a restored agent has ended, once its grace is over. Returns whether it is such an agent.
    pub(super) fn end_grace(&mut self, number: u32, now: MonoTime) -> bool {
        if !self.has_ended_unsaid(number) {
            return false;
        }
        let until = self.agents.rest(number).extra.as_ref().map_or(now, |extra| extra.busy_until);
        if now < until {
            self.wheel.arm(number, until);
        } else {
            let ending = Ending { noticed_at: until, ..Ending::of(ExitStatus::Unknown) };
            self.note_death(number, ending, None, now);
        }
        true
    }

    /// Whether an agent exists that would be taken for this one.
    fn knows(&self, agent: &AgentSnapshot) -> bool {
        let AgentId { origin, pid, twin, ref name } = agent.agent;
        if matches!(origin, Origin::Named { .. }) && self.named.find(name).is_some() {
            return true;
        }
        let Some(source) = self.sources.find(origin) else { return false };
        let key = IndexKey { source, pid, lane: agent.lane };
        let is_there = |number| self.agents.rest(number).twin == twin || self.agents.slot(number).key == key;
        self.agents.twins(key).any(is_there)
    }

    /// Ends the silence from before this server's start, and returns its length.
    pub(super) fn end_absence(&mut self, number: u32) -> Duration {
        let rest = self.agents.rest_mut(number);
        let Some(extra) = &mut rest.extra else { return Duration::ZERO };
        let absence = mem::take(&mut extra.silent_before);
        if extra.is_empty() {
            rest.extra = None;
        }
        absence
    }

    /// Ends what was not known of its silence, when the transition that ended it was made.
    pub(in crate::domain::tracker) fn end_doubt(&mut self, number: u32) {
        let rest = self.agents.rest_mut(number);
        if let Some(extra) = rest.extra.as_mut().filter(|extra| extra.silent_at_least) {
            extra.silent_at_least = false;
            if extra.is_empty() {
                rest.extra = None;
            }
        }
    }
}

//! A transition: a change of verdict, with all that a subscriber needs to know of it.

use std::fmt::{self, Write as _};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use varta_proto::Status;

use crate::base::time::MonoTime;
use crate::base::visible::visible_text;
use crate::domain::beat::Origin;
use crate::domain::labels::Labels;
use crate::domain::process::{Dossier, ProcessId};
use crate::domain::tracker::verdicts::cause::Cause;
use crate::domain::tracker::verdicts::incident::Incident;
use crate::domain::tracker::verdicts::verdict::Verdict;

/// A change of the verdict on one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The agent.
    pub agent: AgentId,
    /// The agent's labels, as far as it sent any.
    pub labels: Labels,
    /// The unit of this host's service manager that the agent runs in.
    pub unit: Option<Arc<str>>,
    /// The agent's status in its own words, as it last said it by sd_notify(3).
    pub said: Option<Arc<str>>,
    /// The agent of the same name whose place this one has just taken. The tracker has forgotten it.
    pub predecessor: Option<AgentId>,
    /// The agent of the same name that has taken the place of this one, whose process has ended. The tracker
    /// has forgotten this one.
    pub successor: Option<AgentId>,
    /// Until when another may take the place of this agent, which is down: before that an alarm would be
    /// premature. The time of the transition in any other case.
    pub settles_at: MonoTime,
    /// The agent's process with its start time; `None` for other hosts, and where the start time could not be
    /// read. The process may have ended.
    pub process: Option<ProcessId>,
    /// The verdict before; `None` when the agent was not known.
    pub from: Option<Verdict>,
    /// The verdict now.
    pub to: Verdict,
    /// The cause.
    pub cause: Cause,
    /// When the tracker decided it.
    pub at: MonoTime,
    /// How long the agent had been silent: from its last beat to the beat that ended the silence, or to the
    /// decision. Zero for a first beat.
    pub silence: Duration,
    /// Whether it may have been silent for longer: an earlier server was killed and did not say when the last
    /// beat was.
    pub silence_is_at_least: bool,
    /// The agent's last report, the beat that caused the transition included.
    pub last: LastReport,
    /// The agent's stall timeout.
    pub stall_after: Duration,
    /// The time from the moment at which this could first have been known to the decision; `None` for a
    /// transition that a beat caused, which has no such moment.
    pub detection_latency: Option<Duration>,
    /// How long the verdict that this takes back stood although the agent was beating all along; `None` if it
    /// was no false positive.
    pub mistake: Option<Duration>,
    /// The findings of an inspection of its process.
    pub dossier: Option<Arc<Dossier>>,
    /// The cgroup that was out of memory, if the kernel killed its process for that.
    pub oom_cgroup: Option<Arc<str>>,
    /// The incident that this is part of, when many agents of one origin came to this verdict at once. The
    /// first few have none: there was no incident yet.
    pub incident: Option<Incident>,
}

impl Transition {
    /// The transition of a job of which no run has begun, though one was due so long ago and had this grace.
    pub(crate) fn of_late(name: &Arc<str>, since: Duration, grace: Duration, at: MonoTime) -> Self {
        let missing = Transition::of_missing(name, at);
        Transition { cause: Cause::Late, silence: since, stall_after: grace, ..missing }
    }

    /// The transition of an expected agent, of this host or another, that has not come in time.
    pub(crate) fn of_missing(name: &Arc<str>, at: MonoTime) -> Self {
        Transition {
            agent: AgentId::expected(name),
            labels: Labels::default(),
            unit: None,
            said: None,
            predecessor: None,
            successor: None,
            settles_at: at,
            process: None,
            from: None,
            to: Verdict::Expected,
            cause: Cause::NeverSeen,
            at,
            silence: at.since(MonoTime::START),
            silence_is_at_least: false,
            last: LastReport::NONE,
            stall_after: Duration::ZERO,
            detection_latency: None,
            mistake: None,
            dossier: None,
            oom_cgroup: None,
            incident: None,
        }
    }
}

/// The identity of an agent, as people and metrics know it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AgentId {
    /// The name that groups an agent's incarnations. Shared: thousands of workers have the same one.
    pub name: Arc<str>,
    /// The transport and address that it beats from.
    pub origin: Origin,
    /// The process id on its host; 0 for an expected agent that has not come. One that is known by its name alone has a
    /// number that no process can have, see [`AgentId::shown_pid`].
    pub pid: u32,
    /// Distinguishes agents that share origin and pid.
    pub twin: Twin,
}

impl AgentId {
    /// The process id on its host; `None` for an agent that has none, because it has not come or is known by its name
    /// alone.
    #[must_use]
    pub const fn shown_pid(&self) -> Option<u32> {
        match (self.origin, self.pid) {
            (Origin::Named { .. }, _) | (_, 0) => None,
            (_, pid) => Some(pid),
        }
    }

    /// The text that names it and no other at the same time: name, pid and origin, as in `billing[4242]@web-1`,
    /// where `own` is the name of this host. One that has not been seen has no pid: `billing@web-1`. Control characters
    /// are `?`.
    pub(crate) fn instance(&self, own: &str) -> String {
        let mut text = visible_text(&self.name);
        if let Some(pid) = self.shown_pid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "[{pid}]");
        }
        if self.twin != Twin::FIRST {
            let _ = write!(text, "#{}", self.twin.number());
        }
        let _ = write!(text, "@{}", self.origin.place(&self.origin.host(own)));
        text
    }

    /// The identity of an expected agent that has not come.
    pub(crate) fn expected(name: &Arc<str>) -> Self {
        AgentId { name: Arc::clone(name), origin: Origin::Local, pid: 0, twin: Twin::FIRST }
    }
}

/// `name[pid]`, as in system logs; `name[pid]#2` for the second of two twins.
impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(pid) = self.shown_pid() else { return write!(f, "{}", self.name.escape_debug()) };
        write!(f, "{}[{pid}]", self.name.escape_debug())?;
        if self.twin == Twin::FIRST { Ok(()) } else { write!(f, "#{}", self.twin.number()) }
    }
}

/// Distinguishes agents that share origin and pid, by a number from 1 to 64. Nearly all agents are the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub struct Twin(NonZeroU8);

impl Twin {
    /// The only one, or the first of several.
    pub const FIRST: Twin = Twin(NonZeroU8::MIN);
    const MAX_TWINS: u8 = 64;

    /// Every number, in order.
    pub(in crate::domain::tracker) fn all() -> impl Iterator<Item = Twin> {
        (1..=Self::MAX_TWINS).filter_map(NonZeroU8::new).map(Twin)
    }

    /// The twin with this number; `None` if that is not from 1 to 64.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Twin> {
        NonZeroU8::new(number).filter(|number| number.get() <= Self::MAX_TWINS).map(Twin)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0.get()
    }

    /// The bit of this twin in a set of twins.
    pub(in crate::domain::tracker) const fn bit(self) -> u64 {
        1 << (self.0.get() - 1)
    }
}

impl From<Twin> for u8 {
    fn from(twin: Twin) -> Self {
        twin.number()
    }
}

impl TryFrom<u8> for Twin {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        Twin::from_number(number)
            .ok_or_else(|| format!("{number} is no number of a twin: they go from 1 to {}", Twin::MAX_TWINS))
    }
}

/// The last report of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastReport {
    /// The reported status.
    pub status: Status,
    /// The payload: a number of the application's own.
    pub payload: u32,
    /// Whether it was the terminal frame of a panic hook, with no beat after it.
    pub terminal: bool,
    /// The number of beats accepted from this incarnation.
    pub beats: u64,
}

impl LastReport {
    /// That of an agent that has not come.
    pub(crate) const NONE: Self = LastReport { status: Status::Ok, payload: 0, terminal: false, beats: 0 };
}

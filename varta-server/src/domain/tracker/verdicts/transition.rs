//! A change of verdict: all that a sink gets to know, and all that it needs.

use std::fmt;
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use varta_proto::Status;

use crate::base::time::MonoTime;
use crate::domain::beat::Origin;
use crate::domain::labels::Labels;
use crate::domain::process::{Dossier, ProcessId};
use crate::domain::tracker::verdicts::cause::Cause;
use crate::domain::tracker::verdicts::incident::Incident;
use crate::domain::tracker::verdicts::verdict::Verdict;

/// One change of verdict about one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Whom it is about.
    pub agent: AgentId,
    /// By what operators sort it, as far as it said so.
    pub labels: Labels,
    /// The unit of this host's service manager in which it runs.
    pub unit: Option<Arc<str>>,
    /// The agent of the same name whose place it has taken just now. That one is not known any more.
    pub predecessor: Option<AgentId>,
    /// Its process, of this host and with the time at which it started; `None` for other hosts, and where that could not
    /// be read. It may have ended.
    pub process: Option<ProcessId>,
    /// The verdict before; `None` when the agent was not known.
    pub from: Option<Verdict>,
    /// The verdict now.
    pub to: Verdict,
    /// Why.
    pub cause: Cause,
    /// When it was concluded.
    pub at: MonoTime,
    /// How long the agent had been silent: from its last beat to the beat that ended the silence, or to the
    /// conclusion. Zero for a first beat.
    pub silence: Duration,
    /// The last thing that the agent said, the beat that caused the change included.
    pub last: LastWord,
    /// How long the agent may be silent.
    pub stall_after: Duration,
    /// From the moment at which this could first have been known to the moment at which it was; `None` where a beat
    /// brought it, which tells no such moment.
    pub detection_latency: Option<Duration>,
    /// How long the verdict that this takes back had stood though the agent was beating all along; `None` where there was
    /// no such mistake.
    pub mistake: Option<Duration>,
    /// What was seen of its process when that was looked at.
    pub dossier: Option<Arc<Dossier>>,
    /// The incident of which this is a part, when many agents of one origin came to this verdict in one moment. The first
    /// few have none: they were told when it was not one yet.
    pub incident: Option<Incident>,
}

impl Transition {
    /// That an agent of this host or another, which was expected since the start, has not come.
    pub(crate) fn of_missing(name: Arc<str>, at: MonoTime) -> Self {
        Transition {
            agent: AgentId { name, origin: Origin::Local, pid: 0, twin: Twin::FIRST },
            labels: Labels::default(),
            unit: None,
            predecessor: None,
            process: None,
            from: None,
            to: Verdict::Expected,
            cause: Cause::NeverSeen,
            at,
            silence: at.since(MonoTime::START),
            last: LastWord { status: Status::Ok, payload: 0, terminal: false, beats: 0 },
            stall_after: Duration::ZERO,
            detection_latency: None,
            mistake: None,
            dossier: None,
            incident: None,
        }
    }
}

/// An agent as people and metrics know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentId {
    /// The name that groups an agent's incarnations. Shared: thousands of workers have the same one.
    pub name: Arc<str>,
    /// Where it beats from.
    pub origin: Origin,
    /// The process id that it goes by there; 0 for one that was expected and has not come.
    pub pid: u32,
    /// Which of the agents with this origin and pid it is.
    pub twin: Twin,
}

/// `name[pid]`, as in system logs; `name[pid]#2` for the second of two twins.
impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pid == 0 {
            return write!(f, "{}", self.name.escape_debug());
        }
        write!(f, "{}[{}]", self.name.escape_debug(), self.pid)?;
        if self.twin == Twin::FIRST { Ok(()) } else { write!(f, "#{}", self.twin.number()) }
    }
}

/// Which of several agents that share origin and pid one is: a number from 1 to 64. Nearly all agents are the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Twin(NonZeroU8);

impl Twin {
    /// The only one, or the first of several.
    pub const FIRST: Twin = Twin(NonZeroU8::MIN);
    const MOST: u8 = 64;

    /// Every number, in order.
    pub(in crate::domain::tracker) fn all() -> impl Iterator<Item = Twin> {
        (1..=Self::MOST).filter_map(NonZeroU8::new).map(Twin)
    }

    /// The twin with this number, if there may be one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Twin> {
        NonZeroU8::new(number).filter(|number| number.get() <= Self::MOST).map(Twin)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0.get()
    }

    /// A bit that stands for it.
    pub(in crate::domain::tracker) const fn bit(self) -> u64 {
        1 << (self.0.get() - 1)
    }
}

/// The last thing that an agent said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastWord {
    /// The status it reported.
    pub status: Status,
    /// The application's own number.
    pub payload: u32,
    /// Whether it was the terminal frame of a panic hook, with no beat after it.
    pub terminal: bool,
    /// How many beats were accepted from this incarnation.
    pub beats: u64,
}

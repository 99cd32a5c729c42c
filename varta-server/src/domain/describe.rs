//! The description of a transition: the sentence that logs and alerts show to a person, and the fields that
//! records have.

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;

use crate::base::time::millis;
use crate::domain::beat::Origin;
use crate::domain::labels::Labels;
use crate::domain::process::{Dossier, signal_name};
use crate::domain::tracker::{Cause, Transition, Twin, Verdict};

/// The signal by which the kernel kills for want of memory.
const SIGKILL: u8 = 9;

impl Transition {
    /// Whether an agent can cause such a transition as often as it likes.
    pub(crate) fn is_report(&self) -> bool {
        self.cause == Cause::Reported || self.cause == Cause::Panicked && matches!(self.to, Verdict::Up(_))
    }

    /// The transition in plain values, for records.
    pub(crate) fn fields(&self) -> TransitionFields<'_> {
        let Transition { agent, last, .. } = self;
        let (exit_code, signal, reason) = match self.cause {
            Cause::Exited { code } | Cause::Failed { status: code } => (code, None, None),
            Cause::Killed { signal } => (None, Some(signal), None),
            Cause::OomKilled => (None, Some(SIGKILL), None),
            Cause::Goodbye { reason } => (None, None, reason.map(|reason| reason.as_str())),
            _ => (None, None, None),
        };
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        TransitionFields {
            agent: &agent.name,
            pid: agent.shown_pid().unwrap_or(0),
            twin: (agent.twin != Twin::FIRST).then_some(agent.twin.number()),
            host: agent.origin.address().map(|address| Cow::Owned(address.to_string())),
            transport: agent.origin.transport().as_str(),
            from: self.from.map(Verdict::as_str),
            to: self.to.as_str(),
            status: last.status.as_str(),
            cause: self.cause.as_str(),
            exit_code,
            signal,
            reason,
            silence_ms: millis(self.silence),
            silence_is_at_least: self.silence_is_at_least,
            stall_after_ms: millis(self.stall_after),
            latency_us: self.detection_latency.map(micros),
            mistake_ms: self.mistake.map(millis),
            payload: last.payload,
            beats: last.beats,
            labels: &self.labels,
            unit: self.unit.as_deref(),
            said: self.said.as_deref(),
            incident: self.incident.map(|incident| incident.number.get()),
            oom_cgroup: self.oom_cgroup.as_deref(),
            dossier: self.dossier.as_deref(),
        }
    }
}

/// A transition in plain values, in the order and under the names that a record of all of them has. `None` is
/// what the transition does not have; JSON leaves it out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TransitionFields<'t> {
    pub(crate) agent: &'t str,
    pub(crate) pid: u32,
    /// Except for the first twin, which nearly all agents are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) twin: Option<u8>,
    /// The address of another host. This host has no name here until [`TransitionFields::on_host`] gives it
    /// one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<Cow<'t, str>>,
    pub(crate) transport: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<&'static str>,
    pub(crate) to: &'static str,
    pub(crate) status: &'static str,
    pub(crate) cause: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signal: Option<u8>,
    /// The reason of a goodbye.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
    pub(crate) silence_ms: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) silence_is_at_least: bool,
    pub(crate) stall_after_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mistake_ms: Option<u64>,
    pub(crate) payload: u32,
    pub(crate) beats: u64,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub(crate) labels: &'t Labels,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<&'t str>,
    /// What the agent last said of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) said: Option<&'t str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) incident: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) oom_cgroup: Option<&'t str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dossier: Option<&'t Dossier>,
}

impl<'t> TransitionFields<'t> {
    /// The same with `name` for this host, where the agent is one of this host.
    pub(crate) fn on_host(mut self, name: &'t str) -> Self {
        self.host.get_or_insert(Cow::Borrowed(name));
        self
    }
}

/// Describes a transition so that a person can act on it: the agent, both verdicts, how long it was silent
/// and its last report.
pub(crate) fn describe(transition: &Transition) -> String {
    let Transition { agent, from, to, cause, silence, last, dossier, .. } = transition;
    let silence = match transition.silence_is_at_least {
        false => format!("{silence:.3?}"),
        true if silence.is_zero() => "an unknown time".to_owned(),
        true => format!("at least {silence:.3?}"),
    };
    let went = match from {
        Some(from) => format!("{agent} went from {from} to {to}"),
        None => format!("{agent} is {to}"),
    };
    let mut said = format!("{}, payload {}, after {} beats", last.status, last.payload, last.beats);
    if let Some(own_words) = &transition.said {
        said += &format!(" ({own_words:?})");
    }
    let silent = format!("no beat for {silence}");
    let because = match cause {
        Cause::FirstBeat if matches!(agent.origin, Origin::Named { .. }) => "first report of it".to_owned(),
        Cause::Recovered if matches!(agent.origin, Origin::Named { .. }) => {
            format!("a report came, {silence} after the last one")
        }
        Cause::FirstBeat => format!("first beat ({}, payload {})", last.status, last.payload),
        Cause::Reported => format!("it reports {said}"),
        Cause::Recovered if *from == Some(Verdict::Gone) => {
            format!("it beats again, {silence} after its last beat")
        }
        Cause::Recovered if *from == Some(Verdict::Expected) => {
            format!("it beats; this server knows it from before, and its last beat was {silence} ago")
        }
        Cause::Recovered => match transition.mistake {
            Some(lasted) => format!(
                "it beats again after {silence}; the silence was this server's mistake: the agent was beating all along, \
                 its beats were late or lost, and it was called stalled for {lasted:.3?}"
            ),
            None => format!("it beats again after {silence} of silence"),
        },
        Cause::Restarted => match &transition.predecessor {
            Some(predecessor) => format!("it takes the place of {predecessor}"),
            None => "a new process has this pid".to_owned(),
        },
        Cause::Panicked => match to {
            Verdict::Up(_) => "it says that it panicked".to_owned(),
            Verdict::Stalled => {
                format!("it panicked and no beat came for {silence}; {} beats in all", last.beats)
            }
            Verdict::Down | Verdict::Gone | Verdict::Unknown | Verdict::Expected => {
                format!("it panicked, and its process ended; {} beats in all", last.beats)
            }
        },
        Cause::Exited { code: Some(code) } => {
            format!("its process exited with status {code}; it last said {said}")
        }
        Cause::Exited { code: None } => {
            format!("its process ended, the kernel does not tell how; it last said {said}")
        }
        Cause::Killed { signal } => {
            let how = if *to == Verdict::Gone { "ended by" } else { "killed by" };
            format!("its process was {how} {}; it last said {said}", signal_name(*signal))
        }
        Cause::OomKilled => format!(
            "the kernel killed its process because memory ran out{}; it last said {said}",
            transition
                .oom_cgroup
                .as_deref()
                .map_or_else(String::new, |cgroup| format!(" in cgroup {}", cgroup.escape_debug()))
        ),
        Cause::Goodbye { .. } if matches!(agent.origin, Origin::Named { .. }) => {
            "it is reported to have ended well".to_owned()
        }
        Cause::Late => format!(
            "a run of it was due {} ago and has not begun, though it had {:?} to do so",
            whole(transition.silence),
            transition.stall_after
        ),
        Cause::Overran => {
            format!("its run has taken {} so far, longer than it may", whole(transition.silence))
        }
        Cause::NoProgress => format!(
            "it beats and makes no progress: its counter has stood for {}; it last said {said}",
            whole(transition.silence)
        ),
        Cause::Progressed => {
            format!("it makes progress again: its counter had stood for {}", whole(transition.silence))
        }
        Cause::Overlapped => "a run of it has begun while another was under way".to_owned(),
        Cause::Failed { status: Some(status) } => {
            format!("it is reported to have failed with status {status}")
        }
        Cause::Failed { status: None } => "it is reported to have failed".to_owned(),
        Cause::Goodbye { reason } => match reason {
            Some(reason) => format!("it said goodbye ({reason}); {} beats in all", last.beats),
            None => format!("it said goodbye; {} beats in all", last.beats),
        },
        Cause::Stopped => format!("its process is stopped; {silent}; it last said {said}"),
        Cause::Traced => {
            format!("a debugger or another tracer holds its process; {silent}; it last said {said}")
        }
        Cause::DumpingCore => {
            format!("the kernel writes its core dump, after which it ends; {silent}; it last said {said}")
        }
        Cause::Frozen => format!("its cgroup is frozen; {silent}; it last said {said}"),
        Cause::Blocked => format!("its process waits in the kernel; {silent}; it last said {said}"),
        Cause::Busy => format!("its process runs and does not beat; {silent}; it last said {said}"),
        Cause::Idle => format!("its process sleeps and does not beat; {silent}; it last said {said}"),
        Cause::Lossy if *to == Verdict::Unknown => {
            format!("{silent}, and beats were lost on the way meanwhile; it is given another chance")
        }
        Cause::Lossy => format!("{silent}, and beats were lost on the way meanwhile; it last said {said}"),
        Cause::Silent => format!("{silent}; it last said {said}"),
        Cause::Unreachable => format!(
            "no beat came over the network for {silence}, which may be its, its host's or the network's fault; it last \
             said {said}"
        ),
        Cause::NeverSeen => format!("it has not beaten in the {silence} since this server started"),
        Cause::QueueFull => format!(
            "{silent}, and meanwhile the queue of the socket was full, so that the kernel refused beats and nobody knows \
             whose; the verdict waits until there has been room for {:?}",
            transition.stall_after
        ),
        Cause::ObserverBlind => {
            format!(
                "{silent}, and this server could not see meanwhile, or so many are silent at once that it doubts itself; \
                 it is given another chance"
            )
        }
    };
    let replaced = match &transition.successor {
        Some(successor) => format!("; {successor} has taken its place"),
        None => String::new(),
    };
    match dossier {
        Some(dossier) => format!("{went}: {because}{replaced}. {dossier}"),
        None => format!("{went}: {because}{replaced}"),
    }
}

/// A time to the second, unless it is shorter than that.
fn whole(time: Duration) -> humantime::FormattedDuration {
    let rounded = if time < Duration::from_secs(10) {
        Duration::from_millis(millis(time))
    } else {
        Duration::from_secs(time.as_secs())
    };
    humantime::format_duration(rounded)
}

/// The causes that occur in `counts`, which is indexed by [`Cause::index`], with their counts, the most
/// frequent first.
pub(crate) fn causes_by_count(counts: &[u32; Cause::NAMES.len()]) -> Vec<(&'static str, u32)> {
    let mut causes: Vec<_> = Cause::NAMES.into_iter().zip(*counts).filter(|(_, count)| *count > 0).collect();
    causes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    causes
}

/// Names with their counts, as in `stopped 31, silent 10`.
pub(crate) fn counted<'n>(counts: impl IntoIterator<Item = (&'n str, u32)>) -> String {
    let texts: Vec<_> = counts.into_iter().map(|(name, count)| format!("{name} {count}")).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_listed_with_the_most_frequent_first() {
        let mut counts = [0; Cause::NAMES.len()];
        assert_eq!(counted(causes_by_count(&counts)), "");
        counts[Cause::Silent.index()] = 10;
        counts[Cause::Stopped.index()] = 31;
        assert_eq!(counted(causes_by_count(&counts)), "stopped 31, silent 10");
    }
}

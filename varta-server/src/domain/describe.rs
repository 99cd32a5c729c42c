//! The description of a transition: the sentence that logs and alerts show to a person.

use crate::domain::process::signal_name;
use crate::domain::tracker::{Cause, Transition, Verdict};

/// Whether an agent can cause such a transition as often as it likes.
pub(crate) fn is_report(transition: &Transition) -> bool {
    let Transition { to, cause, .. } = transition;
    *cause == Cause::Reported || *cause == Cause::Panicked && matches!(to, Verdict::Up(_))
}

/// Describes a transition so that a person can act on it: the agent, both verdicts, how long it was silent
/// and its last report.
pub(crate) fn sentence(transition: &Transition) -> String {
    let Transition { agent, from, to, cause, silence, last, dossier, .. } = transition;
    let went = match from {
        Some(from) => format!("{agent} went from {from} to {to}"),
        None => format!("{agent} is {to}"),
    };
    let said = format!("{}, payload {}, after {} beats", last.status, last.payload, last.beats);
    let silent = format!("no beat for {silence:.3?}");
    let because = match cause {
        Cause::FirstBeat => format!("first beat ({}, payload {})", last.status, last.payload),
        Cause::Reported => format!("it reports {said}"),
        Cause::Recovered if *from == Some(Verdict::Gone) => {
            format!("it beats again, {silence:.3?} after its last beat")
        }
        Cause::Recovered if *from == Some(Verdict::Expected) => {
            format!("it beats; this server knows it from before, and its last beat was {silence:.3?} ago")
        }
        Cause::Recovered => match transition.mistake {
            Some(lasted) => format!(
                "it beats again after {silence:.3?}; the silence was this server's mistake: the agent was beating all along, \
                 its beats were late or lost, and it was called stalled for {lasted:.3?}"
            ),
            None => format!("it beats again after {silence:.3?} of silence"),
        },
        Cause::Restarted => "a new process has this pid".to_owned(),
        Cause::Panicked => match to {
            Verdict::Up(_) => "it says that it panicked".to_owned(),
            Verdict::Stalled => {
                format!("it panicked and no beat came for {silence:.3?}; {} beats in all", last.beats)
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
            format!("its process was killed by {}; it last said {said}", signal_name(*signal))
        }
        Cause::Goodbye { reason } => match reason {
            Some(reason) => format!("it said goodbye ({reason}); {} beats in all", last.beats),
            None => format!("it said goodbye; {} beats in all", last.beats),
        },
        Cause::Stopped => format!("its process is stopped; {silent}; it last said {said}"),
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
            "no beat came over the network for {silence:.3?}, which may be its, its host's or the network's fault; it last \
             said {said}"
        ),
        Cause::NeverSeen => format!("it has not beaten in the {silence:.3?} since this server started"),
        Cause::ObserverBlind => {
            format!(
                "{silent}, and this server could not see meanwhile, or so many are silent at once that it doubts itself; \
                 it is given another chance"
            )
        }
    };
    match dossier {
        Some(dossier) => format!("{went}: {because}. {dossier}"),
        None => format!("{went}: {because}"),
    }
}

/// The causes that occur in `counts`, which is indexed by [`Cause::index`], with their counts, the most frequent first.
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

//! How an agent was in the past: the parts of a time in which it had one verdict, and the share of it in which it was
//! well.

use serde::Serialize;

use crate::domain::tracker::{Problem, Verdict};
use crate::services::state::HistoryStep;

/// The state of an agent of which nothing is known.
pub(super) const UNSEEN: &str = "unseen";
const WELL: &str = "up";

/// A time with one state, up to the next part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// In milliseconds of Unix time.
    pub(super) from: u64,
    pub(super) state: &'static str,
}

/// How much of a time an agent was well.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Uptime {
    /// The share of the known time in which it was up and not critical, from 0 to 1.
    pub(super) up: f64,
    /// The share of the time of which something is known.
    pub(super) known: f64,
}

/// The parts of the time between `from` and `until`, in milliseconds of Unix time. `steps` are the changes in it, in
/// order; `present` is the state now, if there is one; `kept_since` is when the history begins.
pub(super) fn parts(
    steps: &[HistoryStep],
    present: Option<Verdict>,
    kept_since: Option<u64>,
    (from, until): (u64, u64),
) -> Vec<Part> {
    let before = match steps.first() {
        Some(first) => first.was,
        None => present,
    };
    // What was before the history began is not known, also where it was the same.
    let known_from = kept_since.unwrap_or(until).clamp(from, until);
    let mut parts = Vec::with_capacity(steps.len() + 2);
    let mut add = |at: u64, state: &'static str| {
        let at = at.clamp(from, until);
        if parts.last().is_some_and(|last: &Part| last.from == at) {
            parts.pop();
        }
        if parts.last().is_none_or(|last: &Part| last.state != state) {
            parts.push(Part { from: at, state });
        }
    };
    add(from, UNSEEN);
    add(known_from, before.map_or(UNSEEN, state_of));
    for step in steps {
        add(step.at.max(known_from), state_of(step.became));
    }
    parts
}

/// What a verdict is called here: one that is up and critical is not well.
fn state_of(verdict: Verdict) -> &'static str {
    match Problem::of(verdict) {
        Some(Problem::Critical) => Problem::Critical.as_str(),
        _ => verdict.as_str(),
    }
}

/// The uptime between `from` and `until` of somebody who is up while one of these is, each with its parts.
pub(super) fn uptime(of_agents: &[Vec<Part>], (from, until): (u64, u64)) -> Option<Uptime> {
    // By time: how many more are up, and of how many more something is known.
    let mut changes: Vec<(u64, i64, i64)> = Vec::new();
    for parts in of_agents {
        let ends = parts.iter().skip(1).map(|part| part.from).chain([until]);
        for (part, end) in parts.iter().zip(ends) {
            let is_known = !matches!(part.state, UNSEEN | "gone" | "unknown");
            let (begin, end) = (part.from.max(from), end.min(until));
            if is_known && begin < end {
                let is_up = i64::from(part.state == WELL);
                changes.extend([(begin, is_up, 1), (end, -is_up, -1)]);
            }
        }
    }
    changes.sort_unstable();
    let (mut up_ms, mut known_ms, mut up, mut known, mut last) = (0, 0, 0, 0, from);
    for (at, more_up, more_known) in changes {
        let length = at - last;
        up_ms += if up > 0 { length } else { 0 };
        known_ms += if known > 0 { length } else { 0 };
        (up, known, last) = (up + more_up, known + more_known, at);
    }
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a month")]
    let share = |part: u64, of: u64| part as f64 / of as f64;
    (known_ms > 0).then(|| Uptime { up: share(up_ms, known_ms), known: share(known_ms, until - from) })
}

#[cfg(test)]
mod tests {
    use varta_proto::Status;

    use super::*;

    const UP: Verdict = Verdict::Up(Status::Ok);

    fn step(at: u64, was: Option<Verdict>, became: Verdict) -> HistoryStep {
        HistoryStep { at, was, became }
    }

    fn shown(parts: &[Part]) -> Vec<(u64, &str)> {
        parts.iter().map(|part| (part.from, part.state)).collect()
    }

    #[test]
    fn what_was_before_the_first_change_is_its_verdict_before_as_far_as_the_history_goes() {
        let steps = [step(300, Some(UP), Verdict::Stalled), step(500, Some(Verdict::Stalled), UP)];
        let all = parts(&steps, Some(UP), Some(150), (100, 1_000));
        assert_eq!(shown(&all), [(100, UNSEEN), (150, "up"), (300, "stalled"), (500, "up")]);
        let known = uptime(&[all], (100, 1_000)).unwrap();
        assert_eq!(known, Uptime { up: 650.0 / 850.0, known: 850.0 / 900.0 });
    }

    #[test]
    fn without_a_change_the_state_is_the_present_one_since_the_history_began() {
        assert_eq!(shown(&parts(&[], Some(UP), Some(50), (100, 200))), [(100, "up")]);
        assert_eq!(shown(&parts(&[], Some(UP), Some(150), (100, 200))), [(100, UNSEEN), (150, "up")]);
        assert_eq!(shown(&parts(&[], None, Some(50), (100, 200))), [(100, UNSEEN)]);
        let nothing = parts(&[], Some(UP), None, (100, 200));
        assert_eq!(uptime(&[nothing], (100, 200)), None, "there is no history");
    }

    #[test]
    fn who_was_not_there_or_said_goodbye_was_not_down() {
        let steps = [step(100, None, UP), step(150, Some(UP), Verdict::Gone)];
        let all = parts(&steps, Some(Verdict::Gone), Some(0), (0, 200));
        assert_eq!(shown(&all), [(0, UNSEEN), (100, "up"), (150, "gone")]);
        assert_eq!(uptime(&[all], (0, 200)), Some(Uptime { up: 1.0, known: 0.25 }));
    }

    #[test]
    fn a_name_is_up_while_one_of_its_agents_is() {
        let agent = |up: u64, down: u64| {
            parts(
                &[step(up, None, UP), step(down, Some(UP), Verdict::Down)],
                Some(Verdict::Down),
                Some(0),
                (0, 100),
            )
        };
        let both = uptime(&[agent(0, 60), agent(50, 80)], (0, 100)).unwrap();
        assert_eq!(both, Uptime { up: 0.8, known: 1.0 });
        let last = uptime(&[agent(0, 60), agent(50, 80)], (70, 100)).unwrap();
        assert!((last.up - 1.0 / 3.0).abs() < 1e-9, "{last:?}");
    }

    #[test]
    fn an_agent_that_says_that_it_is_critical_is_not_well() {
        let critical = step(50, Some(UP), Verdict::Up(Status::Critical));
        let all = parts(&[critical], Some(UP), Some(0), (0, 100));
        assert_eq!(shown(&all), [(0, "up"), (50, "critical")]);
        assert_eq!(uptime(&[all], (0, 100)), Some(Uptime { up: 0.5, known: 1.0 }));
    }
}

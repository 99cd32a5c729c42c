//! Claims about mass silence: many agents that are silent at once.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use varta_proto::Status;

use crate::domain::process::Dossier;
use crate::domain::process::ProcessId;
use crate::domain::process::{Explanation, ProcessActivity, ProcessSnapshot, State};
use crate::domain::tracker::tests::*;

/// Agents that beat once a second, each at its own time within the second.
struct Crowd {
    world: World,
    handles: Vec<Handle>,
}

/// The time between the beats of two of them.
const APART: Duration = Duration::from_millis(20);

impl Crowd {
    /// A world of `count` agents that beat until second 10.
    fn of(count: u32) -> Self {
        let mut crowd = Crowd { world: World::new(), handles: Vec::new() };
        for number in 0..count {
            let pid = 5_000 + number;
            crowd.world.spawn(pid, "worker", 100);
            crowd.handles.push(Handle::connect(pid, at(0)));
        }
        for second in 0..10 {
            crowd.beat(at(second), |_| true);
        }
        crowd.world.transitions();
        crowd
    }

    /// Lets some of them beat in the second that starts at `start`.
    fn beat(&mut self, start: MonoTime, who: impl Fn(usize) -> bool) {
        for (number, handle) in self.handles.iter_mut().enumerate().filter(|(number, _)| who(*number)) {
            let at = start + APART * u32::try_from(number).unwrap();
            self.world.pass(at);
            self.world.hear_quietly(handle.next(at, Status::Ok));
        }
    }

    fn told(&mut self) -> Vec<Transition> {
        std::iter::from_fn(|| self.world.tracker.poll_transition()).collect()
    }
}

#[test]
fn when_very_many_are_silent_at_once_each_has_one_more_chance_and_no_more_than_one() {
    let mut crowd = Crowd::of(40);
    // All deadlines lie between second 14 and 15.
    crowd.world.pass(at(16));
    let doubted = crowd.told();
    assert_eq!(doubted.len(), 40);
    assert!(doubted.iter().all(|told| (told.to, told.cause) == (Verdict::Unknown, Cause::ObserverBlind)));
    crowd.world.pass(at(18));
    assert_eq!(crowd.told().len(), 0);
    // One stall timeout later than without mass silence.
    crowd.world.pass(at(20));
    let stalled = crowd.told();
    assert_eq!(stalled.len(), 40);
    assert!(stalled.iter().all(|told| (told.to, told.cause) == (Verdict::Stalled, Cause::Silent)));
}

#[test]
fn who_beats_when_sight_is_back_was_never_called_stalled() {
    let mut crowd = Crowd::of(40);
    crowd.beat(at(17), |_| true);
    crowd.world.pass(at(18));
    let told = crowd.told();
    assert!(told.iter().all(|told| told.to != Verdict::Stalled), "{told:?}");
    assert_eq!(told.iter().filter(|told| told.cause == Cause::Recovered).count(), 40);
}

#[test]
fn a_few_among_many_are_silent_by_themselves() {
    let mut crowd = Crowd::of(40);
    for second in 10..16 {
        crowd.beat(at(second), |number| number >= 12);
    }
    let told = crowd.told();
    assert_eq!(told.len(), 12);
    assert!(told.iter().all(|told| told.to == Verdict::Stalled));
}

#[test]
fn few_agents_are_no_crowd() {
    let mut crowd = Crowd::of(15);
    crowd.world.pass(at(16));
    let told = crowd.told();
    assert!(told.len() == 15 && told.iter().all(|told| told.to == Verdict::Stalled), "{told:?}");
}

#[test]
fn what_a_process_shows_ends_all_doubt() {
    let mut crowd = Crowd::of(40);
    crowd.world.tracker.handle_timeout(at(14) + Duration::from_millis(1));
    let close = std::iter::from_fn(|| crowd.world.tracker.poll_request()).find_map(|request| match request {
        TrackerRequest::Look { process, depth: InspectionDepth::Full, .. } => Some(process),
        _ => None,
    });
    let process = close.expect("the first deadline has passed");
    let look = ProcessSnapshot {
        at: at(14),
        pid: process.pid,
        start_time: process.start_time,
        command: "worker".into(),
        state: State::Stopped,
        death: None,
        threads: 1,
        cpu: Duration::ZERO,
        details: None,
    };
    let explanation = Explanation { activity: ProcessActivity::Stopped, sentence: "a signal stopped it" };
    let dossier = Arc::new(Dossier { explanation, ..Dossier::new(look, None) });
    crowd.world.tracker.handle_evidence(process, Some(dossier), at(14) + Duration::from_millis(2));
    let told = crowd.told();
    assert_eq!((told.len(), told[0].to, told[0].cause), (1, Verdict::Stalled, Cause::Stopped));
    let other = ProcessId::new(5_001, NonZeroU64::new(100).unwrap());
    crowd.world.pass(at(15));
    crowd.told();
    let killed = ExitStatus::Killed { signal: 9, core_dumped: false };
    crowd.world.tracker.handle_exit(other, killed, Lineage::default(), at(16), at(16));
    let told = crowd.told();
    assert_eq!((told[0].from, told[0].to), (Some(Verdict::Unknown), Verdict::Down));
}

#[test]
fn those_who_fall_in_one_moment_are_one_incident() {
    let mut crowd = Crowd::of(40);
    for pid in 5_000..5_040 {
        let process = ProcessId::new(pid, NonZeroU64::new(100).unwrap());
        crowd.world.tracker.handle_exit(process, ExitStatus::Unknown, Lineage::default(), at(10), at(10));
    }
    let incidents: Vec<_> = crowd.told().into_iter().map(|told| told.incident).collect();
    assert!(incidents[..9].iter().all(Option::is_none));
    let told = incidents[9..].iter().map(|incident| incident.map(|told| (told.number.get(), told.agents)));
    assert!(told.eq((10..=40).map(|agents| Some((1, agents)))));
    assert_eq!(crowd.world.tracker.statistics().incidents, 1);
}

//! The tracker compared with a model that checks all agents all the time.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use crate::domain::tracker::tests::*;

/// A step of the model's world.
#[derive(Clone, Debug)]
enum Happening {
    Beat(u32),
    Pass(Duration),
    Blind(Duration),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (2_u32..8).prop_map(Happening::Beat),
        4 => (0_u64..3_000_000_000).prop_map(|nanos| Happening::Pass(Duration::from_nanos(nanos))),
        1 => (1_u64..10_000_000_000).prop_map(|nanos| Happening::Blind(Duration::from_nanos(nanos))),
    ]
}

proptest! {
    /// Compared with a model that checks all agents all the time: the same agents are stalled, each is called
    /// so once for each silence, none before its deadline and none later than a tick after it.
    #[test]
    fn it_agrees_with_a_model_that_looks_at_everybody_all_the_time(
        happenings in prop::collection::vec(happening(), 1..300)
    ) {
        let tick = Duration::from_millis(1);
        let mut world = World::new();
        let mut now = at(1);
        let mut sight_since = MonoTime::START;
        let mut handles: HashMap<u32, (Handle, MonoTime)> = HashMap::new();
        for happening in happenings {
            match happening {
                Happening::Beat(pid) => {
                    let (handle, last) = handles.entry(pid).or_insert((Handle::connect(pid, now), now));
                    *last = now;
                    prop_assert_eq!(world.hear(handle.next(now, Status::Ok)), FrameOutcome::Accepted);
                }
                Happening::Pass(time) => {
                    now = now + time;
                    world.pass(now);
                }
                Happening::Blind(time) => {
                    let from = now;
                    now = now + time;
                    sight_since = now;
                    world.tracker.handle_observer_gap(from, now);
                    world.pass(now);
                }
            }
            while let Some(transition) = world.tracker.poll_transition() {
                let is_alarm = transition.to == Verdict::Stalled;
                prop_assert_ne!(transition.from, Some(transition.to));
                if is_alarm {
                    let latency = transition.detection_latency.unwrap();
                    prop_assert!(latency <= tick || sight_since + STALL_AFTER >= transition.at, "{:?}", latency);
                }
            }
            for (pid, (_, last)) in &handles {
                let deadline = (*last).max(sight_since) + STALL_AFTER;
                match world.verdict(*pid) {
                    Some(Verdict::Up(_) | Verdict::Unknown) => prop_assert!(now < deadline + tick, "{pid} is silent and still up"),
                    // An observer gap after the verdict does not take it back.
                    Some(Verdict::Stalled) => prop_assert!(now >= *last + STALL_AFTER, "{pid} was accused too early"),
                    Some(Verdict::Down | Verdict::Gone | Verdict::Expected) => prop_assert!(false, "{pid} was buried alive"),
                    None => prop_assert!(false, "{pid} is forgotten"),
                }
            }
        }
    }
}

//! Cases that are too rare for random worlds, in which the rules leave the tracker a choice: the reference
//! must allow it.

use std::num::NonZeroU64;
use std::time::Duration;

use varta_proto::Status;

use crate::domain::beat::{ControlMessage, ReceivedControl};
use crate::domain::process::identity::ProcessIdentity;
use crate::domain::tracker::tests::simulation::Scenario;
use crate::domain::tracker::tests::simulation::world::{Event, Log, Simulation};
use crate::domain::tracker::tests::*;

/// A world in which nothing happens by itself.
fn empty_world() -> Simulation {
    let mut simulation = Simulation::new(Scenario { seed: 1, agents: 0, seconds: 60 }, Log::Shown);
    simulation.events.clear();
    simulation
}

fn beat(sender: Sender, (handle, nonce): (u32, u64), sent_after: Duration) -> Event {
    let timestamp = 1_000 + u64::try_from(sent_after.as_nanos()).unwrap();
    let frame = Frame::new(Status::Ok, sender.pid, timestamp, nonce, 0);
    Event::Beat { beat: ReceivedBeat { received_at: MonoTime::START, sender, frame }, handle }
}

#[test]
fn a_process_that_is_identified_after_its_first_beat_is_known_to_be_dead_when_it_ends() {
    let mut simulation = empty_world();
    let sender = Sender::local(PID);
    let arrives = |simulation: &mut Simulation, millis: u64, event: Event| {
        simulation.now = MonoTime::from_millis(millis);
        simulation.arrive(event);
    };
    let goodbye = |handle: u32| {
        let said = ControlMessage::Goodbye { nonce: 1, timestamp: 2_000, reason: None };
        Event::Control { control: ReceivedControl { received_at: MonoTime::START, sender, said }, handle }
    };
    arrives(&mut simulation, 1_000, beat(sender, (1, 1), Duration::ZERO));
    arrives(&mut simulation, 1_100, goodbye(1));
    let start_time = 1_001;
    let identity = ProcessIdentity::of_command(NonZeroU64::new(start_time).unwrap(), "worker".to_owned());
    simulation.processes.processes.insert(PID, identity);
    arrives(&mut simulation, 1_200, beat(sender, (2, 1), Duration::ZERO));
    arrives(&mut simulation, 1_300, goodbye(2));
    simulation.processes.processes.clear();
    let death = Event::Death { pid: PID, start_time, death: ExitStatus::Exited { code: 1 } };
    arrives(&mut simulation, 1_400, death);
    arrives(&mut simulation, 1_500, beat(sender, (3, 1), Duration::ZERO));
}

#[test]
fn a_handle_that_is_made_while_the_server_stands_still_may_be_heard_only_when_it_has_caught_up() {
    let mut simulation = empty_world();
    let sender = Sender::udp(([10, 0, 0, 1], 4_000).into(), PID);
    for second in 1..=8 {
        let event = beat(sender, (1, second), Duration::from_secs(second));
        simulation.plan(MonoTime::from_secs(second), event);
    }
    simulation.plan(MonoTime::from_millis(7_900), Event::ServerPause(Duration::from_millis(7_100)));
    // Connected at 8.2 seconds, when the handle before has beaten for as long.
    for (nonce, arrives_at) in [(1, 8_300), (2, 15_200), (3, 16_300)] {
        let sent_after = Duration::from_millis(arrives_at - 8_200);
        simulation.plan(MonoTime::from_millis(arrives_at), beat(sender, (2, nonce), sent_after));
    }
    let simulation = simulation.run();
    let heard: Vec<_> = simulation.tracker.agents(0..usize::MAX).map(|view| view.last_beat).collect();
    assert_eq!(heard, [MonoTime::from_millis(16_300)]);
}

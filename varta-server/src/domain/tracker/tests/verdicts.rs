//! Claims about the cause of a silence: what the process shows, and what the agent itself says.

use std::num::NonZeroU64;
use std::time::Duration;

use varta_proto::Status;

use crate::domain::process::ProcessId;
use crate::domain::tracker::tests::*;

const PROCESS: ProcessId = ProcessId::new(PID, NonZeroU64::new(100).unwrap());
const KILLED: ExitStatus = ExitStatus::Killed { signal: 9, core_dumped: false };

impl World {
    fn dies(&mut self, death: ExitStatus, at: MonoTime) {
        self.tracker.handle_exit(PROCESS, death, Lineage::default(), at, at);
        self.check();
    }

    /// The only transition since the last call.
    fn change(&mut self) -> Transition {
        let mut changes: Vec<_> = std::iter::from_fn(|| self.tracker.poll_transition()).collect();
        assert_eq!(changes.len(), 1, "{changes:?}");
        changes.remove(0)
    }

    /// A world with one agent that has beaten at second 0 and 1.
    pub(super) fn with_agent() -> (Self, Handle) {
        let mut world = World::new();
        let mut handle = Handle::connect(PID, at(0));
        for second in 0..2 {
            world.hear(handle.next(at(second), Status::Ok));
        }
        world.transitions();
        (world, handle)
    }
}

#[test]
fn how_a_process_ended_decides_whether_that_is_an_alarm() {
    let table = [
        (ExitStatus::Exited { code: 0 }, Verdict::Gone, Cause::Exited { code: Some(0) }),
        (ExitStatus::Exited { code: 3 }, Verdict::Down, Cause::Exited { code: Some(3) }),
        (KILLED, Verdict::Down, Cause::Killed { signal: 9 }),
        (ExitStatus::Unknown, Verdict::Down, Cause::Exited { code: None }),
    ];
    for (death, verdict, cause) in table {
        let (mut world, _) = World::with_agent();
        world.tracker.handle_exit(
            PROCESS,
            death,
            Lineage::default(),
            at(2),
            at(2) + Duration::from_micros(70),
        );
        let change = world.change();
        assert_eq!((change.to, change.cause), (verdict, cause));
        assert_eq!(change.detection_latency, Some(Duration::from_micros(70)));
        world.pass(at(30));
        assert_eq!(world.transitions(), [], "and that is all there is to say");
    }
}

#[test]
fn who_was_gone_when_its_first_beat_was_read_is_gone_and_the_next_owner_of_its_pid_is_another() {
    let mut world = World::new();
    world.processes.processes.clear();
    world.hear(Handle::connect(PID, at(0)).next(at(0), Status::Ok));
    world.transitions();
    world.refuse_looks(at(0));
    assert_eq!(world.requests, [TrackerRequest::Find(PID)]);
    world.tracker.handle_absence(PID, None, ExitStatus::Unknown, at(1));
    let change = world.change();
    assert_eq!((change.to, change.cause), (Verdict::Gone, Cause::Exited { code: None }));
    world.tracker.handle_absence(PID, None, ExitStatus::Unknown, at(2));
    world.tracker.handle_absence(PID + 1, None, ExitStatus::Unknown, at(2));
    assert_eq!(world.transitions(), []);

    world.spawn(PID, "worker", 300);
    world.hear(Handle::connect(PID, at(3)).next(at(3), Status::Ok));
    let change = world.change();
    assert_eq!((change.from, change.to, change.cause), (Some(Verdict::Gone), UP, Cause::Restarted));
    world.tracker.handle_absence(PID, None, ExitStatus::Unknown, at(4));
    assert_eq!(world.verdict(PID), Some(UP), "a process that is known is watched");
}

#[test]
fn the_end_of_a_process_that_is_hidden_and_was_watched_is_judged_as_any() {
    let killed = ExitStatus::Killed { signal: 9, core_dumped: false };
    let well = ExitStatus::Exited { code: 0 };
    let unknown = Cause::Exited { code: None };
    for (deaths, expected) in [
        (vec![ExitStatus::Unknown], vec![(Verdict::Down, unknown)]),
        (vec![killed], vec![(Verdict::Down, Cause::Killed { signal: 9 })]),
        (vec![well], vec![(Verdict::Gone, Cause::Exited { code: Some(0) })]),
        (
            // How it ended is known when its parent asks.
            vec![ExitStatus::Unknown, well],
            vec![(Verdict::Down, unknown), (Verdict::Gone, Cause::Exited { code: Some(0) })],
        ),
        (vec![ExitStatus::Unknown, killed], vec![(Verdict::Down, unknown)]),
    ] {
        let mut world = World::new();
        world.processes.processes.clear();
        world.hear(Handle::connect(PID, at(0)).next(at(0), Status::Ok));
        world.transitions();
        for death in deaths {
            world.tracker.handle_hidden_exit(PID, death, at(1), at(1));
            world.tracker.handle_hidden_exit(PID + 1, death, at(1), at(1));
        }
        let changes = std::iter::from_fn(|| world.tracker.poll_transition());
        assert_eq!(changes.map(|change| (change.to, change.cause)).collect::<Vec<_>>(), expected);
    }
    let (mut world, _) = World::with_agent();
    world.tracker.handle_hidden_exit(PID, killed, at(1), at(1));
    assert_eq!(world.verdict(PID), Some(UP), "a process that could be identified is another");
}

#[test]
fn who_panicked_and_ended_is_down_however_it_exited() {
    let (mut world, handle) = World::with_agent();
    let frame = Frame::new(Status::Critical, PID, 1, NONCE_TERMINAL, 0);
    world.hear(ReceivedBeat { received_at: at(2), frame, ..handle.frame(at(2), Status::Ok) });
    assert_eq!(world.change().cause, Cause::Panicked);
    world.dies(ExitStatus::Exited { code: 0 }, at(2));
    let change = world.change();
    assert_eq!((change.to, change.cause), (Verdict::Down, Cause::Panicked));
}

#[test]
fn a_stalled_agent_whose_process_ends_is_down() {
    let (mut world, _) = World::with_agent();
    world.pass(at(10));
    world.transitions();
    world.dies(KILLED, at(11));
    let change = world.change();
    assert_eq!((change.from, change.to), (Some(Verdict::Stalled), Verdict::Down));
}

#[test]
fn the_end_of_an_earlier_owner_of_the_pid_is_nobodys() {
    let (mut world, mut handle) = World::with_agent();
    let earlier = ProcessId { start_time: NonZeroU64::new(99).unwrap(), ..PROCESS };
    world.tracker.handle_exit(earlier, KILLED, Lineage::default(), at(2), at(2));
    assert_eq!(world.transitions(), []);
    world.hear(handle.next(at(2), Status::Ok));
    assert_eq!(world.verdict(PID), Some(UP));
}

#[test]
fn a_beat_that_is_read_after_its_sender_died_revives_nobody() {
    let (mut world, mut handle) = World::with_agent();
    world.dies(KILLED, at(2));
    world.transitions();
    // Its parent has not asked for its status yet.
    world.processes.processes.entry(PID).and_modify(|process| process.has_ended = true);
    assert_eq!(world.hear(handle.next(at(3), Status::Ok)), FrameOutcome::Accepted);
    assert_eq!(world.verdict(PID), Some(Verdict::Down));
    assert_eq!(world.transitions(), []);
}

#[test]
fn a_new_process_under_the_pid_of_a_dead_one_is_a_new_incarnation_and_is_watched() {
    let (mut world, _) = World::with_agent();
    world.dies(KILLED, at(2));
    world.transitions();
    world.refuse_looks(at(2));
    world.requests.clear();
    world.spawn(PID, "worker", 200);
    world.hear(Handle::connect(PID, at(3)).next(at(3), Status::Ok));
    let change = world.change();
    assert_eq!((change.from, change.to, change.cause), (Some(Verdict::Down), UP, Cause::Restarted));
    world.refuse_looks(at(3));
    let newcomer = ProcessId { start_time: NonZeroU64::new(200).unwrap(), ..PROCESS };
    assert_eq!(world.requests, [TrackerRequest::Watch(newcomer)]);
}

#[test]
fn a_process_is_watched_from_its_first_beat_until_it_is_forgotten() {
    let mut world = World::with(Policy { forget_after: STALL_AFTER, ..Policy::default() });
    world.hear(Handle::connect(PID, at(0)).next(at(0), Status::Ok));
    world.pass(at(60));
    assert_eq!(world.requests, [TrackerRequest::Watch(PROCESS), TrackerRequest::Unwatch(PID)]);
}

#[test]
fn a_silent_process_is_glanced_at_and_then_looked_at_before_anything_is_said() {
    let (mut world, _) = World::with_agent();
    let mut asked = Vec::new();
    for millis in 1_000..7_000 {
        let now = MonoTime::from_millis(millis);
        world.tracker.handle_timeout(now);
        while let Some(request) = world.tracker.poll_request() {
            if let TrackerRequest::Look { process, depth, .. } = request {
                assert_eq!(process, PROCESS);
                asked.push((millis, depth));
            }
        }
        if asked.len() == 2 {
            assert_eq!(world.transitions(), [], "the verdict waits for the look");
            world.tracker.handle_evidence(PROCESS, None, now);
            break;
        }
    }
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!((asked[0].1, asked[1].1), (InspectionDepth::Quick, InspectionDepth::Full));
    // At half of the silence, or a sixteenth of the stall timeout later.
    assert!((3_500..=3_814).contains(&asked[0].0), "{asked:?}");
    assert!((6_000..=6_002).contains(&asked[1].0), "{asked:?}");
    assert_eq!(world.change().cause, Cause::Silent);
}

#[test]
fn a_look_that_does_not_come_back_holds_the_verdict_up_for_a_moment_only() {
    let (mut world, _) = World::with_agent();
    for millis in 1_000..6_100 {
        world.tracker.handle_timeout(MonoTime::from_millis(millis));
    }
    let change = world.change();
    assert_eq!((change.to, change.cause), (Verdict::Stalled, Cause::Silent));
    assert!(change.detection_latency.unwrap() < Duration::from_millis(25), "{change:?}");
}

#[test]
fn a_beat_that_comes_while_its_process_is_looked_at_is_in_time() {
    let (mut world, mut handle) = World::with_agent();
    for millis in 1_000..6_003 {
        world.tracker.handle_timeout(MonoTime::from_millis(millis));
    }
    let now = MonoTime::from_millis(6_003);
    world.hear(handle.next(now, Status::Ok));
    world.tracker.handle_evidence(PROCESS, None, now);
    world.tracker.handle_timeout(MonoTime::from_millis(6_500));
    assert_eq!(world.transitions(), []);
}

#[test]
fn more_silences_than_there_are_looks_are_told_without() {
    let mut world = World::with(Policy { looks_per_second: 10, ..Policy::default() });
    for pid in 100..200 {
        world.spawn(pid, "worker", 1);
        world.hear_quietly(Handle::connect(pid, at(0)).next(at(0), Status::Ok));
    }
    world.transitions();
    world.tracker.handle_timeout(at(5) + Duration::from_millis(1));
    let told = world.transitions().len();
    assert!((90..=100).contains(&told), "{told}");
    assert!(world.tracker.statistics().looks_refused >= 90);
}

#[test]
fn a_deadline_that_passed_while_nothing_could_be_seen_is_unknown_and_no_alarm() {
    let (mut world, mut handle) = World::with_agent();
    world.tracker.handle_observer_gap(at(2), at(20));
    world.tracker.handle_timeout(at(20));
    world.pass(at(21));
    let change = world.change();
    assert_eq!((change.to, change.cause), (Verdict::Unknown, Cause::ObserverBlind));
    assert!(!change.to.is_alarm());
    world.hear(handle.next(at(22), Status::Ok));
    let change = world.change();
    assert_eq!((change.from, change.to, change.cause), (Some(Verdict::Unknown), UP, Cause::Recovered));
    world.pass(at(26));
    assert_eq!(world.transitions(), []);
    world.pass(at(28));
    assert_eq!(world.change().to, Verdict::Stalled, "and from then on it is judged as ever");
}

#[test]
fn who_stays_silent_after_a_blind_time_is_stalled_when_it_has_had_its_chance() {
    let (mut world, _) = World::with_agent();
    world.tracker.handle_observer_gap(at(2), at(20));
    world.tracker.handle_timeout(at(20));
    world.pass(at(26));
    let told = world.transitions();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!((told[0].1, told[1].1), (Verdict::Unknown, Verdict::Stalled));
}

#[test]
fn evidence_of_death_ends_every_doubt_at_once() {
    let (mut world, _) = World::with_agent();
    world.tracker.handle_observer_gap(at(2), at(20));
    world.tracker.handle_timeout(at(20));
    world.pass(at(21));
    world.transitions();
    world.dies(KILLED, at(21));
    assert_eq!(world.change().to, Verdict::Down);
}

#[test]
fn the_dead_make_room_for_the_living_and_the_first_that_left_goes_first() {
    let mut world = World::with(Policy { max_agents: 2, ..Policy::default() });
    world.spawn(10, "other", 1);
    world.hear(Handle::connect(PID, at(0)).next(at(0), Status::Ok));
    world.hear(Handle::connect(10, at(0)).next(at(0), Status::Ok));
    assert_eq!(world.hear(Handle::connect(11, at(1)).next(at(1), Status::Ok)), FrameOutcome::Capacity);
    world.dies(KILLED, at(1));
    assert_eq!(world.hear(Handle::connect(11, at(1)).next(at(1), Status::Ok)), FrameOutcome::Accepted);
    assert_eq!((world.verdict(PID), world.tracker.len()), (None, 2));
    assert_eq!(world.hear(Handle::connect(12, at(1)).next(at(1), Status::Ok)), FrameOutcome::Capacity);
}

#[test]
fn who_is_gone_is_forgotten_after_a_minute() {
    let (mut world, _) = World::with_agent();
    world.dies(ExitStatus::Exited { code: 0 }, at(2));
    world.pass(at(59));
    assert_eq!(world.tracker.len(), 1);
    world.pass(at(63));
    assert_eq!(world.tracker.len(), 0);
}

/// Two workers of a unit and one of another, all up.
fn world_of_units() -> World {
    let mut world = World::new();
    for (unit, pid) in [("web.service", 10), ("web.service", 11), ("mail.service", 12)] {
        world.spawn_in(unit, pid, 1);
        world.hear(Handle::connect(pid, at(0)).next(at(0), Status::Ok));
    }
    world.transitions();
    world
}

fn dies(world: &mut World, pid: u32, start_time: u64, at: MonoTime) {
    let process = ProcessId::new(pid, NonZeroU64::new(start_time).unwrap());
    world.tracker.handle_exit(process, KILLED, Lineage::default(), at, at);
}

#[test]
fn a_worker_of_the_same_unit_takes_the_place_of_one_that_died() {
    let mut world = world_of_units();
    dies(&mut world, 10, 1, at(1));
    world.transitions();
    world.spawn_in("web.service", 20, 2);
    world.hear(Handle::connect(20, at(2)).next(at(2), Status::Ok));
    let change = world.change();
    assert_eq!((change.agent.pid, change.from, change.to), (20, Some(Verdict::Down), UP));
    assert_eq!((change.cause, change.silence), (Cause::Restarted, Duration::from_secs(2)));
    assert_eq!((world.verdict(10), world.tracker.len()), (None, 3));
    let restarts: Vec<_> = world.tracker.restarts().map(|(name, count)| (&**name, count)).collect();
    let restarts: Vec<_> = restarts.into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(restarts, [("web.service", 1)]);

    world.spawn_in("web.service", 21, 3);
    world.hear(Handle::connect(21, at(2)).next(at(3), Status::Ok));
    assert_eq!(world.change().cause, Cause::FirstBeat, "nobody else has left a place");
}

#[test]
fn a_worker_of_another_unit_takes_nobodys_place() {
    let mut world = world_of_units();
    dies(&mut world, 12, 1, at(1));
    world.transitions();
    world.spawn_in("web.service", 20, 2);
    world.hear(Handle::connect(20, at(2)).next(at(2), Status::Ok));
    assert_eq!(world.change().cause, Cause::FirstBeat);
    assert_eq!(world.verdict(12), Some(Verdict::Down));
}

#[test]
fn two_strangers_with_the_same_command_are_two() {
    let mut world = World::new();
    world.spawn(10, "python3", 1);
    world.hear(Handle::connect(10, at(0)).next(at(0), Status::Ok));
    dies(&mut world, 10, 1, at(1));
    world.transitions();
    world.spawn(20, "python3", 2);
    world.hear(Handle::connect(20, at(2)).next(at(2), Status::Ok));
    assert_eq!(world.change().cause, Cause::FirstBeat);
    assert_eq!(world.verdict(10), Some(Verdict::Down));
}

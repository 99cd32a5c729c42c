//! Services that speak sd_notify(3).

use std::sync::Arc;

use super::*;
use crate::domain::beat::{ControlMessage, KeepAlives, Notification};
use crate::domain::process::ProcessId;

/// A service's session, as the bridge keeps it.
struct Service {
    handle: Handle,
}

impl Service {
    fn new(pid: u32, at: MonoTime) -> Self {
        Service { handle: Handle::connect(pid, at) }
    }

    fn says(&mut self, at: MonoTime, change: impl FnOnce(&mut Notification)) -> ReceivedControl {
        let frame = self.handle.frame(at, Status::Ok).frame;
        let mut notification = Notification {
            frame,
            is_beat: false,
            keep_alives: None,
            busy_for: None,
            status: None,
            is_goodbye: false,
            is_derived: false,
        };
        change(&mut notification);
        if notification.is_beat {
            let status = notification.frame.status;
            notification.frame = self.handle.next(at, status).frame;
        }
        let sender = Sender::notify(self.handle.pid);
        ReceivedControl { received_at: at, sender, said: ControlMessage::Notification(notification) }
    }

    fn is_ready(&mut self, at: MonoTime) -> ReceivedControl {
        self.says(at, |said| {
            said.is_beat = true;
            said.keep_alives = Some(KeepAlives::Unawaited);
        })
    }

    fn keeps_alive(&mut self, at: MonoTime, within: Duration) -> ReceivedControl {
        self.says(at, |said| {
            said.is_beat = true;
            said.keep_alives = Some(KeepAlives::Within(within));
        })
    }
}

fn process() -> ProcessId {
    ProcessId { pid: PID, start_time: NonZeroU64::new(100).unwrap(), tag: PidfdTag::UNKNOWN }
}

const DAY: u64 = 86_400;

#[test]
fn a_service_that_never_sends_a_keep_alive_is_watched_by_its_process_alone() {
    let mut world = World::new();
    let mut service = Service::new(PID, at(1));
    assert_eq!(world.handle_control(&service.is_ready(at(1))), FrameOutcome::Accepted);
    assert_eq!(world.transitions(), [(PID, UP, Cause::FirstBeat)]);
    world.pass(at(30 * DAY));
    world.tracker.handle_observer_gap(at(30 * DAY), at(30 * DAY + 60));
    world.tracker.handle_loss(Transport::Notify, at(30 * DAY + 60));
    world.pass(at(60 * DAY));
    assert_eq!((world.transitions(), world.verdict(PID)), (vec![], Some(UP)));

    let death = ExitStatus::Killed { signal: 9, core_dumped: false };
    world.tracker.handle_exit(process(), death, Lineage::default(), at(60 * DAY), at(60 * DAY));
    let down = world.tracker.poll_transition().unwrap();
    assert_eq!((down.to, down.silence), (Verdict::Down, Duration::ZERO), "it was there until then");
    assert_eq!(down.agent.origin, Origin::Notify);
    assert_eq!(down.settles_at, at(60 * DAY) + Policy::default().replaced_within);
    world.pass(at(60 * DAY + 3_600));
    assert_eq!(world.verdict(PID), Some(Verdict::Down), "it is kept as long as any agent that is down");
}

#[test]
fn from_its_first_keep_alive_on_they_are_awaited_within_the_time_that_it_named() {
    let mut world = World::new();
    let mut service = Service::new(PID, at(1));
    world.handle_control(&service.is_ready(at(1)));
    world.pass(at(500));
    world.handle_control(&service.keeps_alive(at(500), Duration::from_secs(30)));
    world.pass(at(529));
    world.handle_control(&service.keeps_alive(at(529), Duration::from_secs(30)));
    world.pass(at(558));
    assert_eq!(world.transitions(), [(PID, UP, Cause::FirstBeat)]);
    world.pass(at(560));
    assert_eq!(world.transitions(), [(PID, Verdict::Stalled, Cause::Silent)]);
    // A status is no sign that it works.
    world.handle_control(&service.says(at(561), |said| said.status = Some("still here".into())));
    assert_eq!(world.transitions(), []);
    world.handle_control(&service.keeps_alive(at(562), Duration::from_secs(30)));
    assert_eq!(world.transitions(), [(PID, UP, Cause::Recovered)]);
}

#[test]
fn who_asks_for_more_time_has_it_within_the_longest_silence() {
    let longest_silence = Duration::from_secs(60);
    let mut world = World::with(Policy { stall_after: STALL_AFTER, longest_silence, ..Policy::default() });
    let mut service = Service::new(PID, at(1));
    world.handle_control(&service.keeps_alive(at(1), Duration::from_secs(2)));
    let for_ever = |said: &mut Notification| said.busy_for = Some(Duration::from_micros(u64::MAX));
    world.handle_control(&service.says(at(2), for_ever));
    world.pass(at(61));
    assert_eq!(world.transitions(), [(PID, UP, Cause::FirstBeat)]);
    world.pass(at(63));
    assert_eq!(world.transitions(), [(PID, Verdict::Stalled, Cause::Silent)]);
}

#[test]
fn a_trigger_is_critical_at_once_and_a_goodbye_is_the_end() {
    let mut world = World::new();
    let mut service = Service::new(PID, at(1));
    world.handle_control(&service.is_ready(at(1)));
    let trigger = |said: &mut Notification| {
        said.is_beat = true;
        said.frame.status = Status::Critical;
    };
    world.handle_control(&service.says(at(2), trigger));
    world.handle_control(&service.says(at(3), |said| said.is_goodbye = true));
    let death = ExitStatus::Killed { signal: 9, core_dumped: false };
    world.tracker.handle_exit(process(), death, Lineage::default(), at(4), at(4));
    assert_eq!(
        world.transitions(),
        [
            (PID, UP, Cause::FirstBeat),
            (PID, Verdict::Up(Status::Critical), Cause::Reported),
            (PID, Verdict::Gone, Cause::Goodbye { reason: None }),
        ]
    );
}

#[test]
fn what_it_says_of_itself_is_in_its_transitions_and_an_empty_status_takes_it_back() {
    let mut world = World::new();
    let mut service = Service::new(PID, at(1));
    world.handle_control(&service.is_ready(at(1)));
    let mut said = Vec::new();
    for status in ["Recovering", "Serving 9 clients", ""] {
        let status: Arc<str> = status.into();
        world.handle_control(&service.says(at(2), |said| said.status = Some(status)));
        world.handle_control(&service.says(at(2), |said| {
            said.is_beat = true;
            said.frame.status = Status::Degraded;
        }));
        world.handle_control(&service.says(at(2), |said| said.is_beat = true));
        said.extend(std::iter::from_fn(|| world.tracker.poll_transition()).last().unwrap().said);
    }
    assert_eq!(said, ["Recovering".into(), "Serving 9 clients".into()] as [Arc<str>; 2]);
}

#[test]
fn an_agent_that_beats_by_itself_is_judged_by_its_beats() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(1));
    world.hear(handle.next(at(1), Status::Ok));
    let mut service = Service::new(PID, at(1));
    world.handle_control(&service.is_ready(at(2)));
    world.pass(at(5));
    world.handle_control(&service.keeps_alive(at(5), Duration::from_secs(3_600)));
    world.pass(at(7));
    assert_eq!(
        world.transitions(),
        [(PID, UP, Cause::FirstBeat), (PID, Verdict::Stalled, Cause::Silent)],
        "the keep-alives of another thread hide nothing"
    );
    // Neither does one that is handed on as a beat.
    let plain = ReceivedBeat { sender: Sender::notify(PID), ..handle.frame(at(8), Status::Ok) };
    assert_eq!(world.hear(plain), FrameOutcome::Accepted);
    assert_eq!(world.transitions(), []);
    assert_eq!(world.tracker.len(), 1);
    // The other way round: once it beats, its beats are awaited.
    let mut world = World::new();
    world.handle_control(&service.is_ready(at(1)));
    let mut handle = Handle::connect(PID, at(100));
    world.hear(handle.next(at(100), Status::Ok));
    world.pass(at(106));
    assert_eq!(world.verdict(PID), Some(Verdict::Stalled));
    assert_eq!(world.tracker.len(), 1);
}

#[test]
fn a_stranger_that_says_nothing_of_a_service_makes_no_agent() {
    let mut world = World::new();
    let mut service = Service::new(PID, at(1));
    let status = service.says(at(1), |said| said.status = Some("hello".into()));
    assert_eq!(world.handle_control(&status), FrameOutcome::OutOfOrder);
    assert!(world.tracker.is_empty());
}

#[test]
fn keep_alives_of_an_interval_that_was_seen_are_awaited_for_three_of_it() {
    let mut world = World::new();
    let mut service = Service::new(PID, at(1));
    let every = |said: &mut Notification| {
        said.is_beat = true;
        said.keep_alives = Some(KeepAlives::Every(Duration::from_secs(10)));
    };
    world.handle_control(&service.says(at(10), every));
    world.pass(at(39));
    assert_eq!(world.verdict(PID), Some(UP));
    world.pass(at(41));
    assert_eq!(world.verdict(PID), Some(Verdict::Stalled));
}

#[test]
fn after_a_restart_of_the_server_a_service_that_lives_is_up_and_nothing_is_awaited_of_it() {
    let mut before = World::new();
    before.tracker.track_registry_changes();
    before.handle_control(&Service::new(PID, at(1)).is_ready(at(1)));
    let snapshot = before.tracker.snapshot(0..10).next().unwrap();
    assert!(snapshot.is_unawaited);

    let mut world = World::new();
    assert!(world.tracker.restore(&snapshot, Fate::Lives, at(0)));
    assert_eq!(world.verdict(PID), Some(UP));
    world.pass(at(30 * DAY));
    assert_eq!((world.verdict(PID), world.transitions()), (Some(UP), vec![]));
    let death = ExitStatus::Exited { code: 3 };
    world.tracker.handle_exit(process(), death, Lineage::default(), at(30 * DAY), at(30 * DAY));
    assert_eq!(world.transitions(), [(PID, Verdict::Down, Cause::Exited { code: Some(3) })]);

    let mut world = World::new();
    assert!(world.tracker.restore(&snapshot, Fate::Gone, at(0)));
    world.pass(at(60));
    assert_eq!(world.verdict(PID), Some(Verdict::Down), "its end without a server is told");
}

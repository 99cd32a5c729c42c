//! Agents that are known by their names alone.

use std::num::NonZeroU32;

use varta_proto::control::{AgentName, ReportEvent};

use super::*;
use crate::domain::beat::ControlMessage;
use crate::domain::report::Report;

const UID: u32 = 1_000;
const HOUR: u64 = 3_600;

impl World {
    /// A report of the user [`UID`].
    fn report(&mut self, name: &str, event: ReportEvent, at: MonoTime) -> FrameOutcome {
        self.report_of(UID, Report::new(AgentName::parse(name).unwrap(), event), at)
    }

    fn report_within(&mut self, name: &str, event: ReportEvent, seconds: u64, at: MonoTime) {
        let name = AgentName::parse(name).unwrap();
        let report = Report { stall_after: Some(Duration::from_secs(seconds)), ..Report::new(name, event) };
        assert_eq!(self.report_of(UID, report, at), FrameOutcome::Accepted);
    }

    fn report_of(&mut self, uid: u32, report: Report, at: MonoTime) -> FrameOutcome {
        let sender = Sender::named(uid);
        let said = ControlMessage::Report(report);
        let outcome = self.handle_control(&ReceivedControl { received_at: at, sender, said });
        self.check();
        outcome
    }

    /// The transitions of named agents.
    fn reported(&mut self) -> Vec<(String, Verdict, Cause)> {
        std::iter::from_fn(|| self.tracker.poll_transition())
            .map(|transition| (transition.agent.to_string(), transition.to, transition.cause))
            .collect()
    }
}

#[test]
fn words_of_a_process_are_in_its_verdicts_until_it_takes_them_back() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(1));
    let say = |world: &mut World, pid, words: &str, second| {
        let (received_at, said) = (at(second), ControlMessage::Said { words: words.into(), child: None });
        world.handle_control(&ReceivedControl { received_at, sender: Sender::local(pid), said })
    };
    assert_eq!(say(&mut world, PID, "too soon", 1), FrameOutcome::OutOfOrder, "there is no such agent");
    world.hear(handle.next(at(1), Status::Ok));
    assert_eq!(world.tracker.poll_transition().unwrap().said, None);
    assert_eq!(say(&mut world, PID, "no space left", 2), FrameOutcome::Accepted);
    world.hear(handle.next(at(2), Status::Critical));
    let critical = world.tracker.poll_transition().unwrap();
    assert_eq!((critical.cause, critical.said.as_deref()), (Cause::Reported, Some("no space left")));
    let words = "no space left".into();
    let said = ControlMessage::Said { words, child: NonZeroU32::new(77) };
    world.handle_control(&ReceivedControl { received_at: at(2), sender: Sender::local(PID), said });
    // Other words leave the child that was named.
    say(&mut world, PID, "", 3);
    world.hear(handle.next(at(3), Status::Ok));
    let back = world.tracker.poll_transition().unwrap();
    assert_eq!((back.to, back.said), (UP, None));
    let mut children = Vec::new();
    while let Some(due) = world.tracker.poll_timeout().filter(|due| *due <= at(60)) {
        world.tracker.handle_timeout(due);
        while let Some(request) = world.tracker.poll_request() {
            children.extend(looked_at(&request));
        }
    }
    assert!(!children.is_empty() && children.iter().all(|child| child.map(NonZeroU32::get) == Some(77)));
}

/// The child that a request inspects in place of its parent.
fn looked_at(request: &TrackerRequest) -> Option<Option<NonZeroU32>> {
    match request {
        TrackerRequest::Look { child, .. } => Some(*child),
        _ => None,
    }
}

fn told(name: &str, to: Verdict, cause: Cause) -> (String, Verdict, Cause) {
    (name.to_owned(), to, cause)
}

const GOODBYE: Cause = Cause::Goodbye { reason: None };
const FAILED: Cause = Cause::Failed { status: Some(3) };

#[test]
fn what_has_begun_is_up_until_its_end_is_reported_however_long_that_takes() {
    let mut world = World::new();
    world.report("backup", ReportEvent::Started, at(1));
    world.pass(at(300 * HOUR));
    assert_eq!(world.reported(), [told("backup", UP, Cause::FirstBeat)]);
    world.report("backup", ReportEvent::Ended, at(300 * HOUR));
    assert_eq!(world.reported(), [told("backup", Verdict::Gone, GOODBYE)]);
    world.report("backup", ReportEvent::Started, at(300 * HOUR + 1));
    assert_eq!(world.reported(), [told("backup", UP, Cause::Recovered)]);
}

#[test]
fn what_has_failed_is_down_with_its_status_at_once_and_stays_so_until_something_else_is_reported() {
    let mut world = World::new();
    world.report("backup", ReportEvent::Started, at(1));
    world.reported();
    world.report("backup", ReportEvent::Failed { status: Some(3) }, at(2));
    let down = world.tracker.poll_transition().unwrap();
    assert_eq!((down.to, down.cause, down.last.payload), (Verdict::Down, FAILED, 3));
    assert_eq!(down.settles_at, at(2), "nobody takes its place");
    world.report("backup", ReportEvent::Failed { status: None }, at(10));
    assert_eq!(world.reported(), [told("backup", Verdict::Down, Cause::Failed { status: None })]);
    world.pass(at(20 * HOUR));
    assert_eq!(world.reported(), []);
    world.report("backup", ReportEvent::Ended, at(20 * HOUR));
    let both = [told("backup", UP, Cause::Recovered), told("backup", Verdict::Gone, GOODBYE)];
    assert_eq!(world.reported(), both);
}

#[test]
fn an_end_or_a_failure_without_a_beginning_is_both() {
    let mut world = World::new();
    world.report("well", ReportEvent::Ended, at(1));
    world.report("ill", ReportEvent::Failed { status: Some(3) }, at(1));
    assert_eq!(
        world.reported(),
        [
            told("well", UP, Cause::FirstBeat),
            told("well", Verdict::Gone, GOODBYE),
            told("ill", UP, Cause::FirstBeat),
            told("ill", Verdict::Down, FAILED),
        ]
    );
}

#[test]
fn a_beat_is_to_be_followed_by_another_within_its_time_and_by_default_within_that_of_the_server() {
    let mut world = World::new();
    world.report_within("daily", ReportEvent::Beat, 25 * HOUR, at(0));
    world.report("often", ReportEvent::Beat, at(0));
    world.pass(at(6));
    let first = [told("daily", UP, Cause::FirstBeat), told("often", UP, Cause::FirstBeat)];
    let transitions = world.reported();
    assert_eq!(transitions[..2], first);
    assert_eq!(transitions[2..], [told("often", Verdict::Stalled, Cause::Silent)]);
    world.pass(at(24 * HOUR));
    assert_eq!(world.reported(), [], "as long as its user has said, beyond the longest silence of processes");
    world.pass(at(25 * HOUR + 1));
    assert_eq!(world.reported(), [told("daily", Verdict::Stalled, Cause::Silent)]);
    world.pass(at(40 * HOUR));
    let stalled = world.tracker.agents(0..9).find(|agent| **agent.name == *"daily");
    assert_eq!(stalled.unwrap().verdict, Verdict::Stalled, "it is kept as long as others from then on");
    world.report_within("daily", ReportEvent::Beat, 25 * HOUR, at(41 * HOUR));
    assert_eq!(world.reported(), [told("daily", UP, Cause::Recovered)]);
}

#[test]
fn a_beat_of_what_has_begun_leaves_its_deadline_as_it_is() {
    let mut world = World::new();
    world.report("quiet", ReportEvent::Started, at(0));
    world.report("quiet", ReportEvent::Beat, at(1));
    world.report_within("bounded", ReportEvent::Started, 100, at(0));
    world.report("bounded", ReportEvent::Beat, at(50));
    world.reported();
    world.pass(at(149));
    assert_eq!(world.reported(), []);
    world.pass(at(151));
    assert_eq!(world.reported(), [told("bounded", Verdict::Stalled, Cause::Silent)]);
}

#[test]
fn a_name_belongs_to_the_user_who_made_it_as_long_as_it_is_known() {
    let mut world = World::new();
    world.report("backup", ReportEvent::Started, at(0));
    world.reported();
    let name = AgentName::parse("backup").unwrap();
    for event in [ReportEvent::Beat, ReportEvent::Ended, ReportEvent::Failed { status: None }] {
        assert_eq!(world.report_of(UID + 1, Report::new(name, event), at(1)), FrameOutcome::NameTaken);
    }
    assert_eq!(world.reported(), []);
    world.report("backup", ReportEvent::Ended, at(2));
    world.pass(at(2 * HOUR));
    assert!(world.tracker.is_empty(), "it is forgotten as any that is gone");
    world.reported();
    assert_eq!(
        world.report_of(UID + 1, Report::new(name, ReportEvent::Beat), at(2 * HOUR)),
        FrameOutcome::Accepted
    );
    assert_eq!(world.reported(), [told("backup", UP, Cause::FirstBeat)]);
}

#[test]
fn a_process_of_the_same_name_is_another_agent_and_takes_no_place_of_it() {
    let mut world = World::new();
    world.report("worker", ReportEvent::Failed { status: Some(3) }, at(0));
    world.spawn_in("worker", PID, 100);
    world.hear(Handle::connect(PID, at(1)).next(at(1), Status::Ok));
    assert_eq!(world.tracker.len(), 2);
    let last = world.reported().pop().unwrap();
    assert_eq!(last, told(&format!("worker[{PID}]"), UP, Cause::FirstBeat));
}

#[test]
fn a_flood_of_names_is_refused_at_the_same_cap_for_all_and_at_one_for_each_user() {
    let mut world = World::with(Policy { max_agents: 10, ..Policy::default() });
    let name = |number: usize| AgentName::parse(&format!("n{number}")).unwrap();
    for number in 0..30 {
        let expected = if number < 10 { FrameOutcome::Accepted } else { FrameOutcome::Capacity };
        let report = Report::new(name(number), ReportEvent::Started);
        assert_eq!(world.report_of(UID, report, at(1)), expected, "{number}");
    }
    let mut world = World::with(Policy { max_agents: 100_000, ..Policy::default() });
    let most = crate::domain::tracker::rules::named::MAX_NAMED_PER_USER;
    let mut send = |uid, number| {
        let report = Report::new(name(number), ReportEvent::Started);
        let said = ControlMessage::Report(report);
        world.handle_control(&ReceivedControl { received_at: at(1), sender: Sender::named(uid), said })
    };
    let refused = (0..most + 5).filter(|number| send(UID, *number) == FrameOutcome::SourceLimit).count();
    assert_eq!(refused, 5);
    assert_eq!(send(UID + 1, most + 5), FrameOutcome::Accepted, "another user has room");
}

#[test]
fn reports_are_limited_to_the_rate_of_beats() {
    let mut world = World::with(Policy { max_beat_rate: 5, ..Policy::default() });
    let outcomes = (0..20).map(|_| world.report("n", ReportEvent::Beat, at(1))).collect::<Vec<_>>();
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == FrameOutcome::RateLimitedAgent).count(), 14);
}

#[test]
fn who_does_not_come_by_the_socket_of_this_host_reports_nothing() {
    let mut world = World::new();
    let report = Report::new(AgentName::parse("backup").unwrap(), ReportEvent::Started);
    for sender in [Sender::local(PID), Sender::udp(([10, 0, 0, 1], 1).into(), 7)] {
        let control =
            ReceivedControl { received_at: at(1), sender, said: ControlMessage::Report(report.clone()) };
        assert_eq!(world.handle_control(&control), FrameOutcome::Unattested);
    }
    assert!(world.tracker.is_empty());
}

#[test]
fn one_that_is_expected_and_is_reported_is_seen() {
    let mut policy = Policy::default();
    policy.expected.add(crate::domain::Expected::named("backup").unwrap()).unwrap();
    let mut world = World::with(policy);
    world.pass(at(61));
    assert_eq!(world.reported(), [told("backup", Verdict::Expected, Cause::NeverSeen)]);
    world.report("backup", ReportEvent::Ended, at(62));
    let came = world.tracker.poll_transition().unwrap();
    assert_eq!((came.from, came.to), (Some(Verdict::Expected), UP));
    assert_eq!(world.tracker.missing().count(), 0);
}

#[test]
fn another_tracker_goes_on_with_them() {
    let policy = || Policy { stall_after: STALL_AFTER, max_beat_rate: 0, ..Policy::default() };
    let mut world = World::with(policy());
    world.report("backup", ReportEvent::Started, at(0));
    world.report_within("beats", ReportEvent::Beat, 60, at(0));
    world.reported();
    let bytes = postcard::to_allocvec(&world.tracker.state()).unwrap();
    world.tracker = Tracker::resume(policy(), postcard::from_bytes(&bytes).unwrap(), at(1)).unwrap();
    world.pass(at(59));
    assert_eq!(world.reported(), []);
    world.pass(at(61));
    assert_eq!(world.reported(), [told("beats", Verdict::Stalled, Cause::Silent)]);
    world.report("backup", ReportEvent::Failed { status: Some(3) }, at(70));
    world.report("more", ReportEvent::Started, at(70));
    let both = [told("backup", Verdict::Down, FAILED), told("more", UP, Cause::FirstBeat)];
    assert_eq!(world.reported(), both);
    assert_eq!(world.tracker.len(), 3);
}

#[test]
fn after_a_restart_what_has_begun_is_still_up_and_what_is_to_beat_has_its_time_anew() {
    let mut world = World::new();
    world.report("begun", ReportEvent::Started, at(0));
    world.report_within("beats", ReportEvent::Beat, 60, at(0));
    world.report("failed", ReportEvent::Failed { status: Some(3) }, at(0));
    world.report("gone", ReportEvent::Ended, at(0));
    let snapshots: Vec<_> = world.tracker.snapshot(0..usize::MAX).collect();
    let restored = |fate| {
        let mut next = World::new();
        for snapshot in &snapshots {
            next.tracker.restore(snapshot, fate, at(10));
        }
        next.check();
        next
    };
    let mut next = restored(Fate::Lives);
    assert_eq!(next.tracker.len(), 3);
    next.pass(at(69));
    assert_eq!(next.reported(), []);
    next.pass(at(71));
    assert_eq!(next.reported(), [told("beats", Verdict::Stalled, Cause::Silent)]);
    assert_eq!(
        next.report_of(UID + 1, Report::new(AgentName::parse("begun").unwrap(), ReportEvent::Ended), at(72)),
        FrameOutcome::NameTaken
    );
    next.report("begun", ReportEvent::Ended, at(72));
    assert_eq!(next.reported(), [told("begun", Verdict::Gone, GOODBYE)]);
    // Where the host was booted meanwhile, what had begun has ended without a word.
    let mut booted = restored(Fate::Unknown);
    booted.pass(at(16));
    assert_eq!(booted.reported(), [told("begun", Verdict::Stalled, Cause::Silent)]);
}

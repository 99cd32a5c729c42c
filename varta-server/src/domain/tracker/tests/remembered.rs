//! Claims about agents that a previous server knew.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::time::Duration;

use varta_proto::Status;
use varta_proto::control::AgentName;

use crate::domain::beat::{ControlMessage, Hello, KeyId, ReceivedControl, RemoteEndpoint};
use crate::domain::expected::{Expected, ExpectedAgents};
use crate::domain::labels::Labels;
use crate::domain::process::ProcessId;
use crate::domain::tracker::agents::snapshot::Fate::{Gone, Lives, Rebooted, Unknown};
use crate::domain::tracker::agents::snapshot::{AgentSnapshot, ForgetReason, Forgotten, RegistryChange};
use crate::domain::tracker::tests::*;

const AWAY: Duration = Duration::from_secs(100);
const START_TIME: NonZeroU64 = NonZeroU64::new(100).unwrap();

/// The agent of [`World`], as a server that stopped 100 seconds ago left it.
fn kept(verdict: Verdict) -> AgentSnapshot {
    AgentSnapshot {
        agent: AgentId { name: "worker".into(), origin: Origin::Local, pid: PID, twin: Twin::FIRST },
        name_source: NameSource::Agent,
        lane: RemoteEndpoint::default(),
        start_time: Some(START_TIME),
        verdict,
        last: LastReport { status: Status::Degraded, payload: 3, terminal: false, beats: 812 },
        labels: Labels::default(),
        unit: None,
        asked: None,
        busy_until: MonoTime::START,
        stalls: 2,
        lost: 5,
        last_beat: MonoTime::START,
        silent_before: AWAY,
        is_unawaited: false,
        said: None,
        silent_at_least: false,
        stood: None,
    }
}

fn up() -> AgentSnapshot {
    kept(Verdict::Up(Status::Degraded))
}

impl World {
    #[track_caller]
    fn remembers(&mut self, agent: &AgentSnapshot, fate: Fate) {
        assert!(self.tracker.restore(agent, fate, MonoTime::START));
        self.refuse_looks(MonoTime::START);
        self.check();
    }

    /// The only transition since the last call.
    #[track_caller]
    fn only_told(&mut self) -> Transition {
        let told = self.tracker.poll_transition().expect("something was said");
        assert_eq!(self.tracker.poll_transition(), None);
        told
    }

    fn view(&self) -> AgentView<'_> {
        let mut agents = self.tracker.agents(0..usize::MAX);
        let only = agents.next().expect("there is an agent");
        assert!(agents.next().is_none());
        only
    }

    fn notes(&mut self) -> Vec<RegistryChange> {
        std::iter::from_fn(|| self.tracker.poll_registry_change()).collect()
    }
}

#[test]
fn who_has_beaten_again_takes_no_more_memory_than_any_other() {
    let mut world = World::new();
    world.remembers(&up(), Fate::Lives);
    world.hear(Handle::connect(PID, at(0)).next(at(1), Status::Ok));
    assert!(world.tracker.agents.rest(0).extra.is_none());
}

#[test]
fn who_was_up_and_lives_is_expected_and_with_a_beat_goes_on_as_before() {
    let mut world = World::new();
    world.remembers(&up(), Lives);
    assert_eq!(world.requests, [TrackerRequest::Watch(ProcessId::new(PID, START_TIME))]);
    assert_eq!(world.transitions(), [], "nothing has changed");
    assert_eq!(world.tracker.population()[Verdict::EXPECTED], 1);

    let mut handle = Handle { pid: PID, connected_at: MonoTime::START, nonce: 900 };
    assert_eq!(world.hear(handle.next(at(2), Status::Ok)), FrameOutcome::Accepted);
    let told = world.only_told();
    assert_eq!((told.from, told.to), (Some(Verdict::Expected), Verdict::Up(Status::Ok)));
    assert_eq!((told.cause, told.silence), (Cause::Recovered, AWAY + Duration::from_secs(2)));
    let agent = world.view();
    assert_eq!((agent.stalls, agent.lost, agent.last.beats), (2, 5, 813));
    assert_eq!((agent.last_beat, agent.silent_before), (at(2), Duration::ZERO));
    world.pass(at(6));
    assert_eq!(world.transitions(), []);
}

#[test]
fn who_lives_and_does_not_beat_is_stalled_after_its_grace_and_not_before() {
    let mut world = World::new();
    world.remembers(&up(), Lives);
    world.pass(MonoTime::from_millis(4_990));
    assert_eq!(world.transitions(), []);
    world.pass(MonoTime::from_millis(5_010));
    let told = world.only_told();
    assert_eq!((told.from, told.to, told.cause), (Some(Verdict::Expected), Verdict::Stalled, Cause::Silent));
    assert!(told.silence >= AWAY + STALL_AFTER, "{:?}", told.silence);
    assert_eq!(told.process, Some(ProcessId::new(PID, START_TIME)));
    assert_eq!(world.view().stalls, 3);
}

#[test]
fn who_asked_for_more_has_more() {
    let mut world = World::new();
    let asked = Some(Duration::from_secs(20));
    world.remembers(&AgentSnapshot { asked, ..up() }, Lives);
    assert_eq!(world.view().stall_after, Duration::from_secs(20));
    world.pass(at(19));
    assert_eq!(world.transitions(), []);
    world.pass(at(21));
    assert_eq!(world.only_told().to, Verdict::Stalled);

    let mut world = World::new();
    world.remembers(&AgentSnapshot { busy_until: at(60), ..up() }, Lives);
    world.pass(at(59));
    assert_eq!(world.transitions(), []);
    world.pass(at(61));
    assert_eq!(world.only_told().to, Verdict::Stalled);
}

#[test]
fn who_died_meanwhile_is_down_after_its_grace_and_not_before_whatever_it_was() {
    let stalled = Verdict::Stalled;
    for before in [Verdict::Up(Status::Degraded), Verdict::Unknown, stalled, Verdict::Expected] {
        for (fate, grace) in [(Gone, STALL_AFTER), (Rebooted, Duration::from_secs(60))] {
            let mut world = World::new();
            world.remembers(&kept(before), fate);
            assert_eq!(world.requests, [], "there is nothing to watch");
            world.pass(MonoTime::START + (grace - Duration::from_millis(10)));
            assert_eq!(world.transitions(), []);
            world.pass(MonoTime::START + grace + Duration::from_millis(10));
            let told = world.only_told();
            let from = if before == stalled { stalled } else { Verdict::Expected };
            assert_eq!((told.from, told.to), (Some(from), Verdict::Down));
            assert_eq!(told.cause, Cause::Exited { code: None });
            assert!((AWAY + grace..AWAY + grace * 2).contains(&told.silence), "{:?}", told.silence);
            assert_eq!(world.view().stalls, 2);
        }
    }
}

#[test]
fn who_asked_for_a_longer_silence_and_died_meanwhile_has_that_long_to_be_replaced() {
    let mut world = World::new();
    let asked = Some(Duration::from_secs(20));
    world.remembers(&AgentSnapshot { asked, busy_until: at(500), ..up() }, Gone);
    world.pass(at(19));
    assert_eq!(world.transitions(), []);
    world.pass(at(21));
    assert_eq!(world.only_told().to, Verdict::Down);
}

#[test]
fn who_panicked_and_is_gone_has_panicked() {
    let mut world = World::new();
    let mut agent = up();
    agent.last.terminal = true;
    world.remembers(&agent, Gone);
    world.pass(at(6));
    assert_eq!(world.only_told().cause, Cause::Panicked);
}

#[test]
fn who_dies_in_its_grace_is_down_at_once() {
    let mut world = World::new();
    world.remembers(&up(), Lives);
    let process = ProcessId::new(PID, START_TIME);
    world.tracker.handle_exit(
        process,
        ExitStatus::Killed { signal: 9, core_dumped: false },
        Lineage::default(),
        at(1),
        at(1),
    );
    let told = world.only_told();
    assert_eq!((told.to, told.cause), (Verdict::Down, Cause::Killed { signal: 9 }));
}

#[test]
fn what_was_told_before_is_not_told_again() {
    for (before, fate) in [(Verdict::Stalled, Lives), (Verdict::Down, Gone)] {
        let mut world = World::new();
        world.remembers(&kept(before), fate);
        assert_eq!(world.verdict(PID), Some(before));
        world.pass(at(1_000));
        assert_eq!(world.transitions(), []);
        assert_eq!(world.view().stalls, 2);
    }
}

#[test]
fn a_stalled_one_that_beats_recovers() {
    let mut world = World::new();
    world.remembers(&kept(Verdict::Stalled), Lives);
    world.hear(Handle { pid: PID, connected_at: MonoTime::START, nonce: 900 }.next(at(2), Status::Ok));
    let told = world.only_told();
    assert_eq!((told.from, told.cause), (Some(Verdict::Stalled), Cause::Recovered));
    assert_eq!(told.silence, AWAY + Duration::from_secs(2));
}

#[test]
fn who_had_left_or_is_to_be_forgotten_or_is_there_already_is_not_taken() {
    let mut world = World::new();
    assert!(!world.tracker.restore(&kept(Verdict::Gone), Lives, MonoTime::START));
    let long_ago = AgentSnapshot { silent_before: Duration::from_secs(86_400), ..kept(Verdict::Down) };
    assert!(!world.tracker.restore(&long_ago, Gone, MonoTime::START));
    assert!(world.tracker.is_empty());
    world.remembers(&up(), Lives);
    assert!(!world.tracker.restore(&up(), Lives, MonoTime::START));
    assert_eq!(world.tracker.len(), 1);
}

#[test]
fn it_is_forgotten_when_it_would_have_been_by_the_server_before() {
    let mut world = World::new();
    world.remembers(&kept(Verdict::Down), Gone);
    world.pass(at(86_400 - 101));
    assert_eq!(world.tracker.len(), 1);
    world.pass(at(86_400 - 99));
    assert!(world.tracker.is_empty());
}

#[test]
fn who_was_known_when_the_server_was_away_for_days_is_expected_all_the_same() {
    let mut world = World::new();
    world.remembers(&AgentSnapshot { silent_before: Duration::from_secs(300_000), ..up() }, Lives);
    world.pass(at(10));
    assert_eq!(world.transitions(), [(PID, Verdict::Stalled, Cause::Silent)]);
}

#[test]
fn another_process_with_its_pid_is_a_restart() {
    let up = Verdict::Up(Status::Ok);
    for (verdict, fate) in [(up, Lives), (up, Gone), (Verdict::Stalled, Gone), (Verdict::Down, Gone)] {
        let mut world = World::new();
        world.remembers(&kept(verdict), fate);
        world.spawn(PID, "worker", 200);
        world.hear(Handle::connect(PID, at(1)).next(at(2), Status::Ok));
        assert_eq!(world.only_told().cause, Cause::Restarted);
        assert_eq!(world.view().stalls, 2, "the series goes on");
    }
}

#[test]
fn of_one_that_died_with_the_boot_the_pid_is_free() {
    let mut world = World::new();
    world.remembers(&AgentSnapshot { start_time: None, ..up() }, Rebooted);
    world.hear(Handle::connect(PID, at(1)).next(at(2), Status::Ok));
    assert_eq!(world.only_told().cause, Cause::Restarted);
}

#[test]
fn whose_process_cannot_be_recognised_is_watched_when_it_beats() {
    let mut world = World::new();
    world.remembers(&up(), Unknown);
    assert_eq!(world.requests, []);
    world.hear(Handle { pid: PID, connected_at: MonoTime::START, nonce: 900 }.next(at(2), Status::Ok));
    world.refuse_looks(at(2));
    assert_eq!(world.only_told().cause, Cause::Recovered);
    assert_eq!(world.requests, [TrackerRequest::Watch(ProcessId::new(PID, START_TIME))]);
}

#[test]
fn a_new_process_of_the_name_takes_the_place_of_one_that_ended_or_cannot_be_recognised() {
    let (up, expected) = (Verdict::Up(Status::Ok), Verdict::Expected);
    for (verdict, fate, from) in [
        (Verdict::Down, Gone, Verdict::Down),
        (up, Gone, expected),
        (up, Rebooted, expected),
        (up, Unknown, expected),
        (Verdict::Stalled, Gone, Verdict::Stalled),
    ] {
        let mut world = World::new();
        let agent = AgentSnapshot { name_source: NameSource::Group, ..kept(verdict) };
        world.remembers(&agent, fate);
        world.transitions();
        world.spawn_in("worker", PID + 1, 300);
        world.hear(Handle::connect(PID + 1, at(1)).next(at(2), Status::Ok));
        let told = world.only_told();
        assert_eq!((told.from, told.cause), (Some(from), Cause::Restarted));
        assert_eq!(told.silence, AWAY + Duration::from_secs(2));
        assert_eq!(told.predecessor.map(|predecessor| predecessor.pid), Some(PID));
        assert_eq!(world.view().pid, PID + 1);
        assert_eq!(world.tracker.restarts().map(|(_, times)| times).sum::<u64>(), 1);
    }
}

#[test]
fn one_that_lives_and_one_with_a_name_of_strangers_are_not_taken_for_a_predecessor() {
    for (name_source, fate) in [(NameSource::Group, Lives), (NameSource::Common, Gone)] {
        let mut world = World::new();
        world.remembers(&AgentSnapshot { name_source, ..up() }, fate);
        if name_source == NameSource::Group {
            world.spawn_in("worker", PID + 1, 300);
        } else {
            world.spawn(PID + 1, "worker", 300);
        }
        world.hear(Handle::connect(PID + 1, at(1)).next(at(2), Status::Ok));
        assert_eq!(world.only_told().cause, Cause::FirstBeat);
        assert_eq!(world.tracker.len(), 2);
    }
}

#[test]
fn of_several_that_ended_as_many_are_replaced_as_come_and_the_others_are_down() {
    let mut world = World::new();
    for pid in 1..=3 {
        let agent = AgentId { pid, ..up().agent };
        world.remembers(&AgentSnapshot { agent, name_source: NameSource::Group, ..up() }, Gone);
    }
    for pid in [11, 12] {
        world.spawn_in("worker", pid, 300);
        world.hear(Handle::connect(pid, at(1)).next(at(2), Status::Ok));
        assert_eq!(world.only_told().cause, Cause::Restarted);
    }
    world.pass(at(6));
    assert_eq!(world.transitions(), [(3, Verdict::Down, Cause::Exited { code: None })]);
}

#[test]
fn one_that_is_expected_by_name_too_is_expected_once() {
    let mut expected = ExpectedAgents::default();
    expected.add(Expected { grace: Duration::from_secs(1), ..Expected::named("worker").unwrap() }).unwrap();
    let mut world = World::with(Policy { stall_after: STALL_AFTER, expected, ..Policy::default() });
    world.remembers(&up(), Lives);
    assert_eq!(world.tracker.population()[Verdict::EXPECTED], 1);
    world.pass(at(3));
    assert_eq!(world.transitions(), []);
    world.pass(at(6));
    assert_eq!(world.transitions(), [(PID, Verdict::Stalled, Cause::Silent)]);
    assert_eq!(world.tracker.missing().count(), 0);
}

/// An agent of another host.
fn remote(port: u16, twin: u8) -> (AgentSnapshot, ReceivedBeat) {
    let host: IpAddr = [10, 0, 0, 1].into();
    let sender = Sender::secure_udp(SocketAddr::new(host, port), PID, KeyId(1));
    let agent = AgentId { origin: sender.origin, twin: Twin::from_number(twin).unwrap(), ..up().agent };
    let frame = Frame::new(Status::Ok, PID, 7_000_000, 40, u32::from(twin));
    let beat = ReceivedBeat { received_at: at(2), sender, frame };
    (AgentSnapshot { agent, lane: sender.lane, start_time: None, ..up() }, beat)
}

#[test]
fn an_agent_of_another_host_is_known_again_from_its_port_and_from_another() {
    for port in [4000, 4001] {
        let mut world = World::new();
        world.remembers(&remote(4000, 1).0, Unknown);
        assert_eq!(world.hear(remote(port, 1).1), FrameOutcome::Accepted);
        let told = world.only_told();
        assert_eq!((told.from, told.cause), (Some(Verdict::Expected), Cause::Recovered));
        assert_eq!(world.tracker.len(), 1);
    }
    let mut world = World::new();
    world.remembers(&remote(4000, 1).0, Unknown);
    world.pass(at(6));
    assert_eq!(world.transitions(), [(PID, Verdict::Stalled, Cause::Unreachable)]);
}

#[test]
fn twins_stay_apart() {
    let mut world = World::new();
    for (port, twin) in [(4000, 1), (4001, 2)] {
        world.remembers(&remote(port, twin).0, Unknown);
    }
    for (port, twin) in [(4001, 2), (4000, 1)] {
        world.hear(remote(port, twin).1);
        assert_eq!(world.only_told().agent.twin.number(), twin);
    }
    let (again, _) = remote(4002, 2);
    assert!(!world.tracker.restore(&again, Unknown, at(3)), "that number is taken");
}

#[test]
fn there_is_no_more_room_than_there_is() {
    let mut world = World::with(Policy { max_agents: 1, ..Policy::default() });
    world.remembers(&up(), Lives);
    assert!(!world.tracker.restore(&remote(4000, 1).0, Unknown, MonoTime::START));
}

#[test]
fn what_is_to_be_remembered_is_told_when_it_changes_and_then_only() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(1));
    world.hear(handle.next(at(1), Status::Ok));
    assert_eq!(world.tracker.poll_registry_change(), None, "nobody wants to know");
    world.tracker.track_registry_changes();
    world.hear(handle.next(at(2), Status::Ok));
    assert_eq!(world.notes(), []);
    let introduction = Hello {
        name: Some(AgentName::parse("billing").unwrap()),
        stall_after: Some(Duration::from_secs(9)),
        ..Hello::default()
    };
    let said = ControlMessage::Hello(introduction);
    let hello = ReceivedControl { received_at: at(2), sender: Sender::local(PID), said };
    world.handle_control(&hello);
    let notes = world.notes();
    let Some(RegistryChange::Known(known)) = notes.last() else { panic!("{notes:?}") };
    assert_eq!((&*known.agent.name, known.name_source), ("billing", NameSource::Agent));
    assert_eq!((known.asked, known.last_beat), (Some(Duration::from_secs(9)), at(2)));
    world.handle_control(&hello);
    assert_eq!(world.notes(), [], "it says the same again");
    world.hear(handle.next(at(3), Status::Critical));
    assert!(
        matches!(&*world.notes(), [RegistryChange::Known(known)] if known.verdict == Verdict::Up(Status::Critical))
    );
    world.pass(at(100_000));
    let notes = world.notes();
    let [RegistryChange::Known(_), RegistryChange::Forgotten(Forgotten { agent, reason })] = &*notes else {
        panic!("{notes:?}")
    };
    assert_eq!((agent.pid, *reason), (PID, ForgetReason::Expired));
}

#[test]
fn what_is_told_is_what_a_server_after_this_one_needs() {
    let mut world = World::new();
    world.tracker.track_registry_changes();
    world.remembers(&up(), Lives);
    let told: Vec<_> = world.tracker.snapshot(0..10).collect();
    assert_eq!(told, [kept(Verdict::Expected)]);
    assert_eq!(world.notes(), [], "it is written down already");
}

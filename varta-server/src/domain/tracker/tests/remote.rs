//! Claims about agents of other hosts: which senders are the same agent and which are another.

use std::net::SocketAddr;
use std::time::Duration;
use varta_proto::Status;
use varta_proto::control::AgentName;

use crate::domain::beat::{ControlMessage, Hello, KeyId};
use crate::domain::tracker::tests::*;

const HOST: &str = "10.0.0.7";
const OTHER_HOST: &str = "10.0.0.8";

/// A socket on another host, and the session that it sends.
#[derive(Clone, Copy)]
struct Remote {
    sender: Sender,
    handle: Handle,
}

impl Remote {
    fn plain(host: &str, port: u16, at: MonoTime) -> Self {
        let source = SocketAddr::new(host.parse().unwrap(), port);
        Remote { sender: Sender::udp(source, PID), handle: Handle::connect(PID, at) }
    }

    fn sealed(port: u16, key: u16, at: MonoTime) -> Self {
        let source = SocketAddr::new(HOST.parse().unwrap(), port);
        Remote { sender: Sender::secure_udp(source, PID, KeyId(key)), handle: Handle::connect(PID, at) }
    }

    fn beat(&mut self, at: MonoTime) -> ReceivedBeat {
        ReceivedBeat { sender: self.sender, ..self.handle.next(at, Status::Ok) }
    }

    fn panic(&self, at: MonoTime) -> ReceivedBeat {
        let frame = Frame::new(Status::Critical, PID, 1, NONCE_TERMINAL, 0);
        ReceivedBeat { received_at: at, sender: self.sender, frame }
    }

    /// The same session from another port.
    fn moved_to(self, port: u16) -> Self {
        let mut moved = self;
        moved.sender.lane.port = port;
        moved
    }
}

impl World {
    /// Origin, twin and verdict of each agent.
    fn agents(&self) -> Vec<(Origin, u8, Verdict)> {
        let agents = self.tracker.agents(0..usize::MAX);
        agents.map(|agent| (agent.origin, agent.twin.number(), agent.verdict)).collect()
    }

    fn accept(&mut self, beat: ReceivedBeat) {
        assert_eq!(self.hear(beat), FrameOutcome::Accepted);
    }

    /// Lets each remote beat once a second between `from` and `to`, each a little after the one before.
    fn beat_on(&mut self, remotes: &mut [Remote], from: u64, to: u64) {
        for second in from..to {
            for (index, remote) in remotes.iter_mut().enumerate() {
                let now = at(second) + Duration::from_millis(10 * index as u64);
                self.pass(now);
                self.accept(remote.beat(now));
            }
        }
    }
}

#[test]
fn one_pid_on_two_hosts_is_two_agents() {
    let mut world = World::new();
    let mut here = Remote::plain(HOST, 4000, at(0));
    let mut there = Remote::plain(OTHER_HOST, 4000, at(0));
    world.beat_on(&mut [here, there], 1, 4);
    assert_eq!(world.tracker.len(), 2);
    world.transitions();

    (here.handle.nonce, there.handle.nonce) = (3, 3);
    world.beat_on(&mut [here], 4, 20);
    let stalled: Vec<_> = std::iter::from_fn(|| world.tracker.poll_transition()).collect();
    assert_eq!(stalled.len(), 1, "{stalled:?}");
    assert_eq!(stalled[0].agent.origin, there.sender.origin);
    assert_eq!((&*stalled[0].agent.name, stalled[0].cause), (OTHER_HOST, Cause::Unreachable));
}

#[test]
fn plaintext_from_this_host_is_no_local_agent_and_disturbs_none() {
    let mut world = World::new();
    let mut local = Handle::connect(PID, at(0));
    world.accept(local.next(at(1), Status::Ok));
    let mut impostor = Remote::plain("127.0.0.1", 4000, at(0));
    impostor.handle.nonce = 77;
    world.accept(impostor.beat(at(2)));
    world.accept(impostor.panic(at(2)));
    assert_eq!(world.agents()[0], (Origin::Local, 1, UP));
    assert_eq!(world.agents()[1].0, Origin::Udp("127.0.0.1".parse().unwrap()));
    world.transitions();

    impostor.handle.nonce = 100;
    for second in 3..7 {
        world.accept(impostor.beat(at(second)));
    }
    world.pass(at(8));
    let told = world.tracker.poll_transition();
    assert_eq!(world.agents()[0].2, Verdict::Stalled, "what it says keeps no local agent alive");
    assert!(told.is_some());
}

#[test]
fn who_connects_anew_from_another_port_is_the_same_agent() {
    let mut world = World::new();
    world.beat_on(&mut [Remote::plain(HOST, 4000, at(0))], 1, 4);
    world.beat_on(&mut [Remote::plain(HOST, 4001, at(4))], 4, 30);
    assert_eq!(world.agents(), [(Origin::Udp(HOST.parse().unwrap()), 1, UP)]);
    assert_eq!(world.transitions().len(), 1, "its first beat and nothing more");
}

#[test]
fn a_session_that_goes_on_from_another_port_misses_nothing() {
    let mut world = World::new();
    let mut agent = Remote::plain(HOST, 4000, at(0));
    for second in 1..10 {
        agent = agent.moved_to(4000 + u16::try_from(second).unwrap());
        world.accept(agent.beat(at(second)));
    }
    agent.handle.nonce += 2;
    world.accept(agent.moved_to(5000).beat(at(12)));
    assert_eq!(world.tracker.len(), 1);
    assert_eq!(world.tracker.agents(0..usize::MAX).next().unwrap().lost, 2);
}

#[test]
fn two_containers_behind_one_address_with_one_pid_are_two_agents() {
    let mut world = World::new();
    let mut containers = [Remote::plain(HOST, 4000, at(0)), Remote::plain(HOST, 4001, at(3))];
    world.beat_on(&mut containers[..1], 1, 3);
    world.beat_on(&mut containers, 3, 10);
    let origin = Origin::Udp(HOST.parse().unwrap());
    assert_eq!(world.agents(), [(origin, 1, UP), (origin, 2, UP)]);
    world.transitions();

    world.beat_on(&mut containers[..1], 10, 20);
    assert_eq!(world.agents(), [(origin, 1, UP), (origin, 2, Verdict::Stalled)]);
    assert_eq!(world.transitions().len(), 1);
    world.beat_on(&mut containers[1..], 20, 30);
    assert_eq!(world.agents(), [(origin, 1, Verdict::Stalled), (origin, 2, UP)]);
}

#[test]
fn beats_of_twins_are_counted_to_each_once() {
    let mut world = World::new();
    let mut containers = [Remote::plain(HOST, 4000, at(0)), Remote::plain(HOST, 4001, at(3))];
    world.beat_on(&mut containers[..1], 1, 3);
    world.beat_on(&mut containers, 3, 10);
    let beats: Vec<_> =
        world.tracker.agents(0..usize::MAX).map(|agent| (agent.last.beats, agent.lost)).collect();
    assert_eq!(beats, [(9, 0), (7, 0)]);
}

#[test]
fn containers_that_were_there_before_the_server_are_told_apart() {
    let mut world = World::new();
    let mut containers = [0, 1, 2].map(|number| Remote::plain(HOST, 4000 + number, at(0)));
    for (container, nonce) in containers.iter_mut().zip([500, 501, 700]) {
        container.handle.nonce = nonce;
    }
    world.beat_on(&mut containers, 1000, 1010);
    assert_eq!(world.agents().iter().map(|agent| agent.1).collect::<Vec<_>>(), [1, 2, 3]);
    world.transitions();
    world.beat_on(&mut containers[1..2], 1010, 1020);
    let verdicts: Vec<_> = world.agents().iter().map(|agent| agent.2).collect();
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Stalled).count(), 2);
}

#[test]
fn a_client_that_makes_a_socket_for_each_beat_is_one_agent() {
    let mut world = World::new();
    for tenth in 0..2_000 {
        let now = MonoTime::from_millis(1_000 + tenth * 100);
        let port = 30_000 + u16::try_from(tenth * 7 % 20_000).unwrap();
        world.pass(now);
        world.accept(Remote::plain(HOST, port, now).beat(now));
    }
    assert_eq!(world.tracker.len(), 1);
    assert_eq!(world.transitions().len(), 1);
}

#[test]
fn what_was_overtaken_on_the_way_makes_no_second_agent() {
    let mut world = World::new();
    let mut agent = Remote::plain(HOST, 4000, at(0));
    world.accept(agent.beat(at(1)));
    let overtaken = agent.beat(at(2));
    let mut moved = agent.moved_to(4001);
    world.accept(moved.beat(at(2)));
    let late = ReceivedBeat { received_at: at(2) + Duration::from_millis(30), ..overtaken };
    assert_eq!(world.hear(late), FrameOutcome::OutOfOrder);
    world.accept(moved.beat(at(3)));
    assert_eq!(world.tracker.len(), 1);
}

#[test]
fn an_old_frame_from_a_left_port_is_refused() {
    let mut world = World::new();
    let mut agent = Remote::plain(HOST, 4000, at(0));
    let first = agent.beat(at(1));
    world.accept(first);
    world.accept(agent.beat(at(2)));
    world.accept(agent.moved_to(4001).beat(at(3)));
    // Its nonce is 1, so it might open a session; but a frame of a session that has gone on is known to be
    // old.
    agent.handle.nonce = 1;
    let old = ReceivedBeat { received_at: at(4), ..agent.beat(at(2)) };
    assert_eq!(world.hear(old), FrameOutcome::OutOfOrder);
    assert_eq!(world.tracker.len(), 1);
}

#[test]
fn a_panic_hook_speaks_for_the_only_agent_that_it_can_be() {
    let mut world = World::new();
    let mut agent = Remote::plain(HOST, 4000, at(0));
    world.accept(agent.beat(at(1)));
    world.accept(agent.moved_to(4999).panic(at(2)));
    assert_eq!(world.tracker.len(), 1);
    assert_eq!(world.transitions()[1], (PID, Verdict::Up(Status::Critical), Cause::Panicked));
    world.accept(agent.beat(at(3)));
    assert_eq!(world.agents()[0].2, UP, "it survived, and is where it was");
}

#[test]
fn of_several_that_could_have_panicked_none_is_accused() {
    let mut world = World::new();
    let mut containers = [Remote::plain(HOST, 4000, at(0)), Remote::plain(HOST, 4001, at(0))];
    world.beat_on(&mut containers, 1, 5);
    world.accept(containers[0].moved_to(4999).panic(at(5)));
    let verdicts: Vec<_> = world.agents().iter().map(|agent| agent.2).collect();
    assert_eq!(verdicts, [UP, UP, Verdict::Up(Status::Critical)]);
}

#[test]
fn one_address_introduces_so_many_agents_and_no_more() {
    let policy = Policy { max_agents_per_source: 3, forget_after: STALL_AFTER, ..Policy::default() };
    let mut world = World::with(policy);
    let invented = |pid, host: &str| {
        let mut remote = Remote::plain(host, 4000, at(0));
        (remote.sender.pid, remote.handle.pid) = (pid, pid);
        remote
    };
    for pid in 100..103 {
        world.accept(invented(pid, HOST).beat(at(1)));
    }
    assert_eq!(world.hear(invented(103, HOST).beat(at(1))), FrameOutcome::SourceLimit);
    world.accept(invented(103, OTHER_HOST).beat(at(1)));
    world.accept(Remote::sealed(4000, 0, at(0)).beat(at(1)));
    world.accept(Handle::connect(PID, at(0)).next(at(1), Status::Ok));

    let mut first = invented(100, HOST);
    first.handle.nonce = 1;
    world.accept(first.beat(at(2)));
    world.pass(at(100));
    assert_eq!(world.tracker.len(), 0, "all were forgotten");
    world.accept(invented(103, HOST).beat(at(101)));
}

#[test]
fn another_key_is_another_agent() {
    let mut world = World::new();
    let mut agents = [Remote::sealed(4000, 0, at(0)), Remote::sealed(4001, 1, at(0))];
    world.beat_on(&mut agents, 1, 3);
    let origin = Origin::SecureUdp(HOST.parse().unwrap());
    assert_eq!(world.agents(), [(origin, 1, UP), (origin, 2, UP)]);
}

#[test]
fn a_flood_of_ports_neither_silences_the_agent_nor_fills_the_memory() {
    let mut world = World::new();
    let mut agent = Remote::plain(HOST, 4000, at(0));
    world.accept(agent.beat(at(1)));
    for second in 2..40 {
        for port in 10_000..11_000 {
            let now = at(second) + Duration::from_micros(u64::from(port));
            world
                .hear_quietly(Remote::plain(HOST, port + 50 * u16::try_from(second).unwrap(), now).beat(now));
        }
        let now = at(second) + Duration::from_millis(500);
        world.pass(now);
        world.hear_quietly(agent.beat(now));
        world.check();
    }
    assert!(world.tracker.len() <= 64, "{}", world.tracker.len());
    let first = world.tracker.agents(0..1).next().unwrap();
    assert_eq!((first.verdict, first.stalls), (UP, 0));
}

#[test]
fn beyond_sixty_four_twins_nobody_is_refused_and_nobody_is_told_apart() {
    let mut world = World::new();
    let mut containers: Vec<_> = (0..70).map(|number| Remote::plain(HOST, 4000 + number, at(0))).collect();
    world.beat_on(&mut containers, 1, 60);
    assert_eq!(world.tracker.len(), 64);
    let stalls: u32 = world.tracker.agents(0..usize::MAX).map(|agent| agent.stalls).sum();
    assert_eq!(stalls, 0);
}

#[test]
fn a_forgotten_agent_leaves_nothing_behind() {
    let policy = Policy { forget_after: STALL_AFTER, ..Policy::default() };
    let mut world = World::with(policy);
    let mut containers = [Remote::plain(HOST, 4000, at(0)), Remote::plain(HOST, 4001, at(0))];
    world.beat_on(&mut containers, 1, 5);
    world.pass(at(60));
    assert_eq!(world.tracker.len(), 0);
    assert_eq!(world.tracker.sources.find(containers[0].sender.origin), None);
    assert_eq!(world.tracker.sources.plain_agents(), 0);
    world.accept(Remote::plain(HOST, 4002, at(60)).beat(at(61)));
    assert_eq!(world.agents()[0].1, 1, "and the first twin is the first again");
}

#[test]
fn a_healthy_twin_that_connects_anew_does_not_go_on_as_a_dead_one() {
    let mut world = World::new();
    let mut containers = [Remote::plain(HOST, 4000, at(0)), Remote::plain(HOST, 4001, at(0))];
    world.beat_on(&mut containers, 1, 5);
    world.beat_on(&mut containers[..1], 5, 15);
    world.transitions();
    world.beat_on(&mut [Remote::plain(HOST, 4002, at(15))], 15, 30);
    assert_eq!(world.transitions(), [], "one is up as before, one is stalled as before");
}

#[test]
fn whoever_is_taken_for_the_wrong_twin_is_put_right_when_that_one_speaks() {
    let mut world = World::new();
    let (mut slow, mut fast) = (Remote::plain(HOST, 4000, at(0)), Remote::plain(HOST, 4001, at(0)));
    for second in 1..7 {
        world.accept(fast.beat(at(second)));
        if second % 3 == 1 {
            world.accept(slow.beat(at(second)));
        }
    }
    assert_eq!(world.tracker.len(), 2);
    world.transitions();
    // The fast one reconnects while the slow one has been silent for longer.
    let mut anew = Remote::plain(HOST, 4002, at(7));
    for second in 7..40 {
        world.pass(at(second));
        world.accept(anew.beat(at(second)));
        if second % 3 == 1 && second > 7 {
            world.accept(slow.beat(at(second)));
        }
    }
    assert_eq!((world.tracker.len(), world.transitions()), (2, vec![]));
}

#[test]
fn somebody_that_only_a_panic_made_up_does_not_swallow_a_healthy_one() {
    let mut world = World::new();
    let mut containers = [Remote::plain(HOST, 4000, at(0)), Remote::plain(HOST, 4001, at(0))];
    world.beat_on(&mut containers, 1, 5);
    world.accept(containers[0].moved_to(4999).panic(at(5)));
    world.beat_on(&mut containers, 5, 15);
    world.transitions();
    containers[1] = Remote::plain(HOST, 4002, at(15));
    world.beat_on(&mut containers, 15, 30);
    assert_eq!(world.transitions(), []);
}

#[test]
fn what_was_overtaken_by_far_makes_no_second_agent_either() {
    let mut world = World::new();
    let mut agent = Remote::plain(HOST, 4000, at(0));
    world.accept(agent.beat(at(1)));
    let overtaken = agent.beat(at(2));
    let mut moved = agent.moved_to(4001);
    world.accept(moved.beat(at(2) + Duration::from_millis(100)));
    assert_eq!(world.hear(ReceivedBeat { received_at: at(4), ..overtaken }), FrameOutcome::OutOfOrder);
    world.accept(moved.beat(at(5)));
    assert_eq!(world.tracker.len(), 1);
}

#[test]
fn plaintext_from_everywhere_leaves_room_for_those_who_prove_who_they_are() {
    let policy = Policy { max_agents: 100, max_plain_agents: 75, ..Policy::default() };
    let mut world = World::with(policy.clone());
    for host in 0..100 {
        world.hear_quietly(Remote::plain(&format!("10.0.1.{host}"), 4000, at(0)).beat(at(1)));
    }
    assert_eq!(world.tracker.len(), 75);
    world.accept(Remote::sealed(4000, 0, at(0)).beat(at(1)));
    world.accept(Handle::connect(PID, at(0)).next(at(1), Status::Ok));
    // Another policy may say that nobody can prove that.
    world.tracker.handle_policy(Policy { max_plain_agents: 100, ..policy }, at(1));
    world.accept(Remote::plain("10.0.2.1", 4000, at(0)).beat(at(1)));
}

#[test]
fn what_plaintext_does_with_ports_hides_no_death_under_a_seal() {
    let mut world = World::with(Policy { max_agents_per_source: 0, max_beat_rate: 0, ..Policy::default() });
    let flood = |world: &mut World, port: u16, now: MonoTime| {
        for number in 0..20_000_u32 {
            let mut remote = Remote::plain(HOST, port, now);
            (remote.sender.pid, remote.handle.pid) = (100_000 + number, 100_000 + number);
            world.hear_quietly(remote.beat(now));
        }
    };
    flood(&mut world, 5000, at(1));
    flood(&mut world, 5001, at(2));
    let mut containers = [Remote::sealed(4000, 0, at(2)), Remote::sealed(4001, 0, at(2))];
    world.beat_on(&mut containers, 3, 6);
    let sealed = world.agents().iter().filter(|agent| matches!(agent.0, Origin::SecureUdp(_))).count();
    assert_eq!(sealed, 2);
}

#[test]
fn beats_of_many_twins_that_start_together_are_counted_to_one_of_them() {
    let mut world = World::new();
    let mut containers: Vec<_> = (0..12).map(|number| Remote::plain(HOST, 4000 + number, at(0))).collect();
    world.beat_on(&mut containers, 1, 20);
    let beats: u64 = world.tracker.agents(0..usize::MAX).map(|agent| agent.last.beats).sum();
    assert_eq!((world.tracker.len(), beats), (12, 12 * 19));
}

#[test]
fn a_newcomer_with_the_pid_of_another_and_a_name_of_its_own_is_another_agent() {
    for came_at in [4, 10] {
        let mut world = World::new();
        let mut remotes = [Remote::sealed(4000, 1, at(0)), Remote::sealed(4001, 1, at(came_at))];
        for (index, (name, second)) in [("first", 1), ("second", came_at)].into_iter().enumerate() {
            world.pass(at(second));
            world.transitions();
            let hello = Hello { name: Some(AgentName::parse(name).unwrap()), ..Hello::default() };
            let (sender, said) = (remotes[index].sender, ControlMessage::Hello(hello));
            world.handle_control(&ReceivedControl { received_at: at(second), sender, said });
            world.beat_on(&mut remotes[index..=index], second, second + 3);
        }
        // The first is up or stalled, and stays what it is.
        let told: Vec<_> = std::iter::from_fn(|| world.tracker.poll_transition()).collect();
        assert_eq!((&*told[0].agent.name, told[0].cause, told.len()), ("second", Cause::FirstBeat, 1));
        world.beat_on(&mut remotes, came_at + 3, came_at + 5);
        let agents = world.tracker.agents(0..usize::MAX).map(|agent| (agent.name.to_string(), agent.verdict));
        assert_eq!(agents.collect::<Vec<_>>(), [("first".to_owned(), UP), ("second".to_owned(), UP)]);
    }
}

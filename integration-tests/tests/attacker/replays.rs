//! Datagrams that were recorded or held back, and are sent again or late.

use std::time::Duration;

use varta_integration_tests::{
    Network, Options, RemoteAgent, Server, agent, loopback_socket, socket_on, wait_until,
};

use crate::world::{SEALED, SECURE, VICTIM, World, of_first, on_each_sealed_network};

#[test]
fn a_recorded_beat_is_refused_from_wherever_it_is_sent_again() {
    on_each_sealed_network(1, |world, victim| {
        let recorded: Vec<_> = (0..8).map(|_| world.hear(victim)).collect();
        // Two sockets are not read in the order in which they are sent to.
        world.check();
        let elsewhere = socket_on("127.0.0.2".parse().unwrap());
        let [own, other] = world.secure;
        for datagram in &recorded {
            world.attack(victim.socket(), own, datagram, "replayed");
            world.attack(&loopback_socket(), own, datagram, "replayed");
            world.attack(&elsewhere, own, datagram, "replayed");
            world.attack(victim.socket(), other, datagram, "replayed");
            world.attack(&loopback_socket(), other, datagram, "replayed");
        }
        world.hear(victim);
    });
}

#[test]
fn what_was_recorded_before_its_sender_was_started_again_is_refused() {
    on_each_sealed_network(1, |world, victim| {
        let recorded: Vec<_> = (0..8).map(|_| world.hear(victim)).collect();
        let former = victim.socket().try_clone().unwrap();
        victim.restart();
        world.check();
        for datagram in recorded.iter().chain(&recorded) {
            world.attack(&former, world.secure[0], datagram, "replayed");
            world.attack(&loopback_socket(), world.secure[1], datagram, "replayed");
            world.hear(victim);
        }
    });
}

#[test]
fn a_recording_keeps_no_dead_agent_alive_and_brings_none_back() {
    let options = Options::from(["--stall-after", "1s"]).key_of(Network::SharedKey);
    let server = Server::start(options.secure_udp("127.0.0.1:0"));
    let address = server.secure_udp_address(0);
    let mut dead = RemoteAgent::new(Network::SharedKey, address, VICTIM);
    let recorded: Vec<_> = (0..10).map(|_| dead.beat()).collect();
    server.await_datagrams(10.0);
    let mut replayed = 0.0;
    // Sent all the time, until the verdict is there, and then some more.
    let mut replay = || {
        recorded.iter().for_each(|datagram| dead.send(datagram));
        replayed += 10.0;
    };
    wait_until("the sender of nothing but old beats is stalled", || {
        replay();
        server.log().transitions().iter().any(|change| change.to == "stalled")
    });
    server.expect(agent(VICTIM).stalled().because("unreachable").after_silence(Duration::from_secs(1)));
    replay();
    let scrape = server.await_datagrams(10.0 + replayed);
    assert_eq!((scrape.outcome("accepted"), scrape.outcome("replayed")), (10.0, replayed));
    assert_eq!(server.history(agent(VICTIM).over(SECURE)), ["up: first_beat", "stalled: unreachable"]);
}

/// Without a file in which it keeps what it has seen a server cannot do better.
#[test]
fn a_server_that_was_started_again_believes_a_recording_once_unless_its_sender_was_heard_before() {
    for network in SEALED {
        let before = World::new();
        let mut agents = [0, 1, 2].map(|number| before.agent(network, VICTIM + number));
        let [of_heard, newest_first, in_order] =
            agents.each_mut().map(|agent| [(); 5].map(|()| agent.beat()));
        drop(before);

        let mut world = World::new();
        let [mut heard, ..] = agents;
        heard.send_to(world.secure[0]);
        world.hear(&mut heard);
        let attacker = loopback_socket();
        for datagram in &of_heard {
            world.attack(&attacker, world.secure[0], datagram, "replayed");
        }
        // With the newest all the others are over.
        world.attack(&attacker, world.secure[0], &newest_first[4], "accepted");
        for datagram in &in_order {
            world.attack(&attacker, world.secure[0], datagram, "accepted");
        }
        world.check();
        for datagram in newest_first.iter().chain(&in_order) {
            world.attack(&attacker, world.secure[0], datagram, "replayed");
            world.attack(&loopback_socket(), world.secure[1], datagram, "replayed");
        }
        world.hear(&mut heard);
        world.assert_the_others_are_unaffected(3);
    }
}

#[test]
fn a_prefix_that_its_sender_has_left_is_over_also_for_what_was_held_back() {
    on_each_sealed_network(1, |world, victim| {
        let mut old: Vec<_> = (0..5).map(|_| world.hear(victim)).collect();
        // Their counters are higher than any that came.
        old.extend((0..5).map(|_| victim.hold_back()));
        victim.renew();
        world.hear(victim);
        world.check();
        for datagram in &old {
            world.attack(victim.socket(), world.secure[0], datagram, "replayed");
            world.attack(victim.socket(), world.secure[1], datagram, "replayed");
            world.attack(&loopback_socket(), world.secure[0], datagram, "replayed");
            world.hear(victim);
        }
    });
}

/// It is genuine, its session was never seen to end, and it may as well be one of a second process with this
/// pid: so it makes one up.
#[test]
fn what_was_held_back_from_before_a_restart_is_believed_once_and_never_accuses_its_sender() {
    let long = Duration::from_secs(1);
    on_each_sealed_network(2, |world, victim| {
        world.hear(victim);
        victim.put_clock_forward(long);
        let held_back: Vec<_> = (0..5).map(|_| victim.hold_back()).collect();
        victim.restart();
        for datagram in &held_back {
            world.hear(victim);
            victim.put_clock_forward(long);
            let attacker = loopback_socket();
            world.attack(&attacker, world.secure[0], datagram, "accepted");
            world.attack(&attacker, world.secure[0], datagram, "replayed");
            world.hear(victim);
        }
        let scrape = world.check();
        for datagram in &held_back {
            world.attack(victim.socket(), world.secure[1], datagram, "replayed");
        }
        let own = |name| of_first(&scrape, name, VICTIM);
        assert_eq!(own("varta_beats_total"), 1.0 + victim.beats() as f64);
        assert_eq!((own("varta_agent_up"), own("varta_agent_beats_lost_total")), (1.0, 0.0));
    });
}

#[test]
fn replays_from_a_flood_of_ports_change_nothing() {
    let mut world = World::new();
    let mut victims = SEALED.map(|network| world.agent(network, VICTIM + network as u32));
    let recorded: Vec<_> =
        victims.iter_mut().flat_map(|victim| [world.hear(victim), world.hear(victim)]).collect();
    for _ in 0..400 {
        let attacker = loopback_socket();
        for datagram in &recorded {
            world.attack(&attacker, world.secure[0], datagram, "replayed");
        }
        if world.hostile.is_multiple_of(100) {
            for victim in &mut victims {
                world.hear(victim);
            }
        }
    }
    world.assert_the_others_are_unaffected(victims.len());
}

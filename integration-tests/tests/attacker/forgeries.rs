//! Datagrams that are changed, sealed with a wrong key, or sent in another agent's name.

use std::time::Duration;

use varta_integration_tests::{
    ANOTHER_KEY, AgentProcess, MASTER_KEY, Network, Options, RemoteAgent, SHARED_KEY, Scrape, Server, Signal,
    agent, loopback_socket, wait_until,
};
use varta_proto::secure::{Key, Session, seal_master, seal_shared};
use varta_proto::{Frame, Status};

use crate::world::{PLAIN, VICTIM, World, on_each_sealed_network};

#[test]
fn a_datagram_with_any_bit_changed_is_refused_and_uses_up_nothing() {
    on_each_sealed_network(1, |world, victim| {
        world.hear(victim);
        let genuine = victim.hold_back();
        let attacker = loopback_socket();
        for bit in 0..8 * genuine.len() {
            let mut changed = genuine.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            world.attack(&attacker, world.secure[0], &changed, "decrypt_failed");
        }
        // Neither its counter nor a lower one was taken from it.
        world.attack(victim.socket(), world.secure[0], &genuine, "accepted");
        world.hear(victim);
    });
}

#[test]
fn a_datagram_that_was_cut_or_made_longer_is_refused_and_uses_up_nothing() {
    on_each_sealed_network(1, |world, victim| {
        world.hear(victim);
        let genuine = victim.hold_back();
        let attacker = loopback_socket();
        let shorter = 0..genuine.len();
        let longer = [1, 2, 3, 4, 5, 28, 32, 512, 516, 517, 1_400, 9_000].map(|more| genuine.len() + more);
        for length in shorter.chain(longer) {
            let mut changed = genuine.clone();
            changed.resize(length, 0);
            // It is as long as the other form or as a control datagram, and nothing else of it.
            let may_be_one = (60..=544).contains(&length);
            let outcome = if may_be_one { "decrypt_failed" } else { "bad_length" };
            world.attack(&attacker, world.secure[0], &changed, outcome);
        }
        world.attack(victim.socket(), world.secure[0], &genuine, "accepted");
        world.hear(victim);
    });
}

#[test]
fn whoever_has_not_the_agents_key_cannot_speak_for_it() {
    let [shared, master, another] =
        [SHARED_KEY, MASTER_KEY, ANOTHER_KEY].map(|key| Key::from_hex(key).unwrap());
    let accomplice = VICTIM + 1;
    let frame = |pid| Frame::new(Status::Critical, pid, 1_000_000_000, 100, 0).to_bytes();
    let session = |salt| Session::new([salt; 16]);
    let in_shared_form =
        |key: &Key, salt| seal_shared(key, &mut session(salt), &frame(VICTIM)).unwrap().to_vec();
    let in_master_form = |key: &Key, outside, inside, salt| {
        seal_master(key, outside, &mut session(salt), &frame(inside)).unwrap().to_vec()
    };
    let table = [
        // The right form, and a key that the server does not have.
        (in_shared_form(&another, 1), "decrypt_failed"),
        (in_master_form(&another.agent_key(VICTIM), VICTIM, VICTIM, 2), "decrypt_failed"),
        // A key that the server has, in the form that is not for it.
        (in_shared_form(&master, 3), "decrypt_failed"),
        (in_shared_form(&master.agent_key(VICTIM), 4), "decrypt_failed"),
        (in_master_form(&shared, VICTIM, VICTIM, 5), "decrypt_failed"),
        (in_master_form(&shared.agent_key(VICTIM), VICTIM, VICTIM, 6), "decrypt_failed"),
        (in_master_form(&master, VICTIM, VICTIM, 7), "decrypt_failed"),
        // An agent that was broken into speaks for another.
        (in_master_form(&master.agent_key(accomplice), VICTIM, VICTIM, 8), "decrypt_failed"),
        (in_master_form(&master.agent_key(accomplice), VICTIM, accomplice, 9), "decrypt_failed"),
        (in_master_form(&master.agent_key(accomplice), accomplice, VICTIM, 10), "pid_mismatch"),
        (in_master_form(&master.agent_key(accomplice), accomplice, 1, 11), "pid_mismatch"),
        // It has the key, and what it seals is no frame.
        (in_master_form(&master.agent_key(1), 1, 1, 12), "bad_pid"),
        (seal_shared(&shared, &mut session(13), &[0; 32]).unwrap().to_vec(), "bad_magic"),
    ];
    on_each_sealed_network(1, |world, victim| {
        let attacker = loopback_socket();
        for (datagram, outcome) in &table {
            world.hear(victim);
            world.attack(&attacker, world.secure[0], datagram, outcome);
            world.attack(victim.socket(), world.secure[1], datagram, outcome);
        }
        world.hear(victim);
    });
}

#[test]
fn plaintext_is_refused_on_a_socket_for_sealed_beats_and_they_on_one_for_plaintext() {
    let mut world = World::new();
    let mut victims = Network::ALL.map(|network| world.agent(network, VICTIM + network as u32));
    for _ in 0..20 {
        for victim in &mut victims {
            world.hear(victim);
        }
        let [plain, shared, master] = &mut victims;
        for status in [Status::Ok, Status::Critical] {
            let frame = plain.next_frame(status).to_bytes();
            world.attack(shared.socket(), world.secure[0], &frame, "bad_length");
        }
        let terminal = shared.terminal_frame().to_bytes();
        world.attack(shared.socket(), world.secure[0], &terminal, "bad_length");
        for sealed in [shared.hold_back(), master.hold_back()] {
            world.attack(plain.socket(), world.plain, &sealed, "bad_length");
        }
    }
    world.assert_the_others_are_unaffected(victims.len());
}

#[test]
fn plaintext_from_this_host_speaks_for_no_process_of_it() {
    let options = Options::from(["--stall-after", "1s"]).udp("127.0.0.1:0");
    let server = Server::start(options);
    let worker = AgentProcess::start(server.socket(), &[]);
    let pid = worker.pid();
    server.await_beats(&[pid], 3);
    let mut impostor = RemoteAgent::new(Network::Plain, server.udp_address(0), pid);
    // Whatever it reports, and that it falls silent.
    impostor.beat();
    for status in [Status::Degraded, Status::Critical] {
        let frame = impostor.next_frame(status);
        impostor.send(&frame.to_bytes());
    }
    impostor.send(&impostor.terminal_frame().to_bytes());
    server.expect(agent(pid).over(PLAIN).up().because("panicked"));
    server.expect(agent(pid).over(PLAIN).stalled().because("panicked").within(Duration::from_secs(1)));
    let own = |scrape: &Scrape, name| scrape.value(name, &[("pid", &pid.to_string()), ("transport", "unix")]);
    let now = own(&server.scrape(), "varta_beats_total");
    let scrape =
        server.await_scrape("the process beats on", |scrape| own(scrape, "varta_beats_total") >= now + 5.0);
    assert_eq!(own(&scrape, "varta_status"), 0.0);
    assert_eq!(own(&scrape, "varta_agent_beats_lost_total"), 0.0);
    assert_eq!(server.history(agent(pid).over("unix")), ["up: first_beat"]);

    // That it beats on when the process does not.
    worker.signal(Signal::Kill);
    wait_until("the process is down", || {
        impostor.beat();
        server.log().transitions().iter().any(|change| change.transport == "unix" && change.to == "down")
    });
    server.expect(agent(pid).over("unix").down().because("killed"));
    let history = [
        "up: first_beat",
        "up: reported",
        "up: reported",
        "up: panicked",
        "stalled: panicked",
        "up: recovered",
    ];
    assert_eq!(server.history(agent(pid).over(PLAIN)), history);
}

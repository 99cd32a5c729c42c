//! An attacker on the network that reads every datagram and sends any: each hostile datagram is refused for
//! the right reason and counted under it, and no other agent is affected.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{self, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, thread};

use varta_integration_tests::{
    ANOTHER_KEY, AgentProcess, Datagrams, ExpectedCounts, Flood, MASTER_KEY, Network, Options, RemoteAgent,
    SHARED_KEY, Scrape, Server, Signal, agent, line, loopback_socket, send_from, socket_on, wait_until,
    write_secret,
};
use varta_proto::secure::{Key, Session, seal_master, seal_shared};
use varta_proto::{Frame, Status};

const SECURE: &str = "secure_udp";
const PLAIN: &str = "udp";
const SEALED: [Network; 2] = [Network::SharedKey, Network::MasterKey];
/// The agent that is attacked.
const VICTIM: u32 = 4242;
/// The first pid of those that are not attacked.
const OTHERS: u32 = 200;
/// So many hostile datagrams come between two beats of all others.
const BETWEEN_BEATS: u64 = 16;
/// So many datagrams may be on the way at once, so that the shortest queue there is holds them.
const ON_THE_WAY: u64 = 48;

/// A server with a socket for plaintext and two for sealed beats, and an agent on each way to it that beats
/// while others are attacked.
struct World {
    server: Server,
    counts: ExpectedCounts,
    plain: SocketAddr,
    secure: [SocketAddr; 2],
    others: Vec<RemoteAgent>,
    /// An agent of this host, by what it sends and the way there.
    local: (RemoteAgent, Datagrams),
    hostile: u64,
    checked: u64,
}

impl World {
    #[track_caller]
    fn new() -> Self {
        Self::with(Options::new())
    }

    #[track_caller]
    fn with(options: Options) -> Self {
        let any = "127.0.0.1:0";
        let options = options.udp(any).secure_udp(any).secure_udp(any);
        let options = options.key_of(Network::SharedKey).key_of(Network::MasterKey);
        // Generous: what is refused shows in the counts, long before a deadline.
        let server = Server::start(options.args(["--stall-after", "20s", "--max-beat-rate", "0"]));
        let plain = server.udp_address(0);
        let secure = [0, 1].map(|number| server.secure_udp_address(number));
        let start = |(network, pid)| {
            let address = if network == Network::Plain { plain } else { secure[0] };
            RemoteAgent::new(network, address, pid)
        };
        let others = Network::ALL.into_iter().zip(OTHERS..).map(start).collect();
        let local = (RemoteAgent::new(Network::Plain, plain, process::id()), Datagrams::to(server.socket()));
        let mut world = World {
            server,
            counts: ExpectedCounts::default(),
            plain,
            secure,
            others,
            local,
            hostile: 0,
            checked: 0,
        };
        world.others_beat();
        world
    }

    /// An agent that is not one of the others.
    fn agent(&self, network: Network, pid: u32) -> RemoteAgent {
        let address = if network == Network::Plain { self.plain } else { self.secure[0] };
        RemoteAgent::new(network, address, pid)
    }

    /// An agent beats, and its beat is accepted. Gives the datagram.
    #[track_caller]
    fn hear(&mut self, agent: &mut RemoteAgent) -> Vec<u8> {
        let datagram = agent.beat();
        self.counts.expect(agent.transport(), "accepted", 1);
        datagram
    }

    /// The attacker sends a datagram, which must end as `outcome`.
    #[track_caller]
    fn attack(&mut self, socket: &UdpSocket, to: SocketAddr, datagram: &[u8], outcome: &str) {
        send_from(socket, to, datagram);
        let transport = if to == self.plain { PLAIN } else { SECURE };
        self.counts.expect(transport, outcome, 1);
        self.hostile += 1;
        if self.hostile.is_multiple_of(BETWEEN_BEATS) {
            self.others_beat();
        }
        if self.counts.total() >= self.checked + ON_THE_WAY {
            self.check();
        }
    }

    #[track_caller]
    fn others_beat(&mut self) {
        for other in &mut self.others {
            other.beat();
            self.counts.expect(other.transport(), "accepted", 1);
        }
        let (local, socket) = &mut self.local;
        socket.send(&local.hold_back());
        self.counts.expect("unix", "accepted", 1);
    }

    #[track_caller]
    fn check(&mut self) -> Scrape {
        self.checked = self.counts.total();
        self.counts.check(&self.server)
    }

    /// All others beat once more. So many agents are known then that are none of them. There was no verdict
    /// on any agent but that it is up, and the others have every beat counted.
    #[track_caller]
    fn assert_the_others_are_unaffected(mut self, besides: usize) {
        let known = self.bystanders() + besides;
        self.others_beat();
        let scrape = self.check();
        let up = scrape.value("varta_agents", &[("state", "up")]);
        assert_eq!((up, scrape.value("varta_watch_pids_tracked", &[])), (known as f64, known as f64));
        for agent in self.others.iter().chain([&self.local.0]) {
            assert_eq!(scrape.of_agent("varta_beats_total", agent.pid()), agent.beats() as f64);
            assert_eq!(scrape.of_agent("varta_agent_beats_lost_total", agent.pid()), 0.0);
        }
        let transitions = self.server.transitions();
        assert!(transitions.iter().all(|change| change.cause == "first_beat"), "{transitions:?}");
        assert_eq!(transitions.len(), known, "{transitions:?}");
    }

    /// How many agents there are that are not attacked.
    fn bystanders(&self) -> usize {
        self.others.len() + 1
    }
}

/// Runs an attack on an agent of each sealed network. So many agents are known in the end that are no
/// bystanders.
#[track_caller]
fn on_each_sealed_network(besides: usize, attack: impl Fn(&mut World, &mut RemoteAgent)) {
    for network in SEALED {
        let mut world = World::new();
        let mut victim = world.agent(network, VICTIM);
        attack(&mut world, &mut victim);
        world.assert_the_others_are_unaffected(besides);
    }
}

/// The value of the row of the first of all agents that have this pid.
#[track_caller]
fn of_first(scrape: &Scrape, name: &str, pid: u32) -> f64 {
    let mut rows = scrape.samples.iter().filter(|row| row.name == name && !row.labels.contains_key("twin"));
    let row = rows.find(|row| row.labels.get("pid") == Some(&pid.to_string()));
    row.unwrap_or_else(|| panic!("there is no {name} of {pid} in\n{}", scrape.text)).value
}

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

/// Puts other keys into a file, as an editor does.
fn write_keys(path: &Path, keys: &str) {
    fs::write(path, format!("{keys}\n")).unwrap();
}

/// Has the server read its keys again, and waits until the log has the result for the `count`th time.
#[track_caller]
fn read_again(server: &Server, start: &str, count: usize) -> String {
    server.signal(Signal::HangUp);
    server.expect(line(start).nth(count))["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_key_that_was_taken_away_opens_nothing_and_when_it_comes_back_nothing_old() {
    const READ: &str = "the key files were read again";
    let mut world = World::with(Options::new().accepted_keys(SHARED_KEY));
    let address = world.secure[0];
    let [key, accepted] = ["shared.key", "accepted.keys"].map(|name| world.server.directory().join(name));
    let with_key =
        |key, pid| RemoteAgent::with_key(Arc::new(loopback_socket()), Network::SharedKey, key, address, pid);
    let (mut old, mut new) = (with_key(SHARED_KEY, VICTIM), with_key(ANOTHER_KEY, VICTIM + 1));
    let recorded: Vec<_> = (0..5).map(|_| world.hear(&mut old)).collect();
    let early = new.hold_back();
    world.attack(new.socket(), address, &early, "decrypt_failed");

    // The new one is there, and the old one still is; a key is read from its file, whichever it was.
    write_keys(&key, ANOTHER_KEY);
    world.check();
    read_again(&world.server, READ, 1);
    world.hear(&mut old);
    let recorded_of_new = world.hear(&mut new);
    world.attack(old.socket(), address, &recorded[4], "replayed");

    // The old one goes. One of the others has it too, and is out with it.
    write_keys(&accepted, ANOTHER_KEY);
    world.check();
    read_again(&world.server, READ, 2);
    let mut left_behind = world.others.remove(1);
    assert_eq!(left_behind.transport(), SECURE);
    for _ in 0..10 {
        let refused = old.hold_back();
        world.attack(old.socket(), address, &refused, "decrypt_failed");
        let refused = left_behind.hold_back();
        world.attack(left_behind.socket(), address, &refused, "decrypt_failed");
        world.hear(&mut new);
    }
    world.attack(old.socket(), address, &recorded[4], "decrypt_failed");

    // It comes back, and what was recorded while it was there is as old as ever.
    write_keys(&accepted, SHARED_KEY);
    world.check();
    read_again(&world.server, READ, 3);
    for datagram in recorded.iter().chain([&recorded_of_new]) {
        world.attack(&loopback_socket(), address, datagram, "replayed");
    }
    world.hear(&mut old);
    world.hear(&mut new);
    world.others.push(left_behind);
    world.others_beat();
    let scrape = world.check();
    // What was refused had been numbered, and is missing.
    let missing = scrape.sum("varta_agent_beats_lost_total", &[]);
    assert_eq!(missing, 20.0, "{}", scrape.text);
    assert_eq!(scrape.value("varta_agents", &[("state", "up")]), world.bystanders() as f64 + 2.0);
    assert!(world.server.transitions().iter().all(|change| change.cause == "first_beat"));
}

#[test]
fn a_new_key_file_that_cannot_be_used_leaves_all_keys_as_they_were_and_is_named() {
    const KEPT: &str = "the keys stay as they were";
    let mut world = World::new();
    let address = world.secure[0];
    let directory = world.server.directory().to_path_buf();
    let path = directory.join("shared.key");
    let elsewhere = write_secret(&directory, "elsewhere.key", ANOTHER_KEY);
    let put = |mode, content: &str| {
        write_keys(&path, content);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    type Fault<'a> = (&'a str, &'a dyn Fn());
    let faults: [Fault<'_>; 9] = [
        ("open to its group", &|| put(0o640, ANOTHER_KEY)),
        ("open to all", &|| put(0o604, ANOTHER_KEY)),
        ("not hexadecimal", &|| put(0o600, &ANOTHER_KEY.replace('a', "g"))),
        ("too short", &|| put(0o600, &ANOTHER_KEY[1..])),
        ("two keys", &|| put(0o600, &format!("{ANOTHER_KEY}\n{SHARED_KEY}"))),
        ("empty", &|| fs::write(&path, "").unwrap()),
        ("not there", &|| fs::remove_file(&path).unwrap()),
        ("a symlink", &|| symlink(&elsewhere, &path).unwrap()),
        ("a pipe", &|| {
            fs::remove_file(&path).unwrap();
            assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&path).status().unwrap().success());
        }),
    ];
    let mut old = world.agent(Network::SharedKey, VICTIM);
    let socket = Arc::new(loopback_socket());
    let mut new = RemoteAgent::with_key(socket, Network::SharedKey, ANOTHER_KEY, address, VICTIM + 1);
    for (count, (fault, make)) in (1..).zip(faults) {
        make();
        let said = read_again(&world.server, KEPT, count);
        assert!(said.contains(path.to_str().unwrap()), "{fault}: {said}");
        assert!(!said.contains(&ANOTHER_KEY[..16]), "{fault}: {said}");
        world.hear(&mut old);
        let refused = new.hold_back();
        world.attack(new.socket(), address, &refused, "decrypt_failed");
        world.check();
    }
    // It still reads one that can be used.
    fs::remove_file(&path).unwrap();
    put(0o600, ANOTHER_KEY);
    read_again(&world.server, "the key files were read again", 1);
    world.hear(&mut new);
    let refused = old.hold_back();
    world.attack(old.socket(), address, &refused, "decrypt_failed");
    // The one that has the old key is refused, too, and still known.
    world.others.retain(|other| other.pid() != OTHERS + 1);
    world.assert_the_others_are_unaffected(3);
}

#[test]
fn pids_that_somebody_makes_up_take_no_room_from_anybody_else() {
    const MOST: u64 = 50;
    const INVENTED: u32 = 10_000;
    let most = MOST.to_string();
    let mut world = World::with(Options::from(["--max-agents-per-source", &most]));
    // Two are at the address of which they are made up, and were there before: one of the others, and this
    // one.
    let mut victim = world.agent(Network::Plain, VICTIM);
    world.hear(&mut victim);
    let room = usize::try_from(MOST).unwrap() - 2;
    let attacker = Arc::new(loopback_socket());
    let mut invented: Vec<_> = (INVENTED..INVENTED + 1_000)
        .map(|pid| RemoteAgent::on(Arc::clone(&attacker), Network::Plain, world.plain, pid))
        .collect();
    for _ in 0..2 {
        for (number, agent) in invented.iter_mut().enumerate() {
            let outcome = if number < room { "accepted" } else { "source_limit" };
            world.attack(&attacker, world.plain, &agent.hold_back(), outcome);
        }
        world.hear(&mut victim);
    }
    // It may also start again, from another port.
    victim.restart();
    world.hear(&mut victim);
    let scrape = world.check();
    assert_eq!(scrape.value("varta_source_limited_total", &[]), 2.0 * (1_000 - room) as f64);

    // All of loopback is one address: an agent on one of them counts for all.
    let address = Arc::new(socket_on("127.0.0.2".parse().unwrap()));
    let mut neighbour = RemoteAgent::on(Arc::clone(&address), Network::Plain, world.plain, INVENTED);
    world.attack(&address, world.plain, &neighbour.hold_back(), "source_limit");

    // There is room for agents of this host and for holders of a key.
    let mut newcomers: Vec<_> =
        SEALED.into_iter().zip(VICTIM + 1..).map(|(network, pid)| world.agent(network, pid)).collect();
    for _ in 0..5 {
        for newcomer in &mut newcomers {
            world.hear(newcomer);
        }
    }
    let _local = AgentProcess::start(world.server.socket(), &["--interval-ms", "3600000"]);
    world.counts.expect("unix", "accepted", 1);
    // One of the bystanders is among the most that the address may have; the worker is one more.
    let besides = usize::try_from(MOST).unwrap() - 1 + newcomers.len() + 1;
    world.assert_the_others_are_unaffected(besides);
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

#[test]
fn a_flood_of_ports_in_plain_sight_makes_up_no_more_than_it_may_and_silences_nobody() {
    const MOST_TWINS: f64 = 64.0;
    let server = Server::start(Options::from(["--stall-after", "1s"]).udp("127.0.0.1:0"));
    let agent = AgentProcess::start_on(&server.route(Network::Plain, 0), &[]);
    let address = server.udp_address(0);
    server.await_beats(&[agent.pid()], 3);
    let memory_before = Memory::of(&server);
    let sockets: Vec<_> = (0..300).map(|_| Arc::new(loopback_socket())).collect();
    let on =
        |socket: &Arc<UdpSocket>| RemoteAgent::on(Arc::clone(socket), Network::Plain, address, agent.pid());
    let mut flooders: Vec<_> = sockets.iter().map(on).collect();

    let uptime = |scrape: &Scrape| scrape.value("varta_watch_uptime_seconds", &[]);
    let mut scrape = server.scrape();
    let (begin, mut sent) = (uptime(&scrape), 0.0);
    let before = scrape.datagrams();
    // First from everywhere a session that begins, again and again; then they all go on.
    while uptime(&scrape) < begin + 3.0 {
        for (number, flooder) in (1..).zip(&mut flooders) {
            flooder.beat();
            sent += 1.0;
            if number % 50 == 0 {
                scrape = server.await_datagrams(before + sent);
                assert!(scrape.value("varta_watch_pids_tracked", &[]) <= MOST_TWINS, "{}", scrape.text);
            }
        }
        if uptime(&scrape) < begin + 1.5 {
            flooders = sockets.iter().map(on).collect();
        }
    }
    assert!(sent >= 600.0, "{sent}");
    assert_eq!(scrape.value("varta_kernel_drops_total", &[("transport", PLAIN)]), 0.0);
    Memory::of(&server).assert_at_most(32, &memory_before);

    // They fall silent, and the agent that was there before them is up and always was.
    let scrape = server.await_scrape("one is up, the others had a second chance and are stalled", |scrape| {
        let agents = |state| scrape.value("varta_agents", &[("state", state)]);
        agents("up") == 1.0 && agents("unknown") == 0.0 && agents("stalled") >= 1.0
    });
    let own = |name| of_first(&scrape, name, agent.pid());
    assert_eq!((own("varta_agent_up"), own("varta_stalls_total")), (1.0, 0.0), "{}", scrape.text);
    server.await_scrape("every beat is counted to one agent", |scrape| {
        scrape.sum("varta_beats_total", &[]) == scrape.outcome("accepted")
    });
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

/// Numbers that look like chance, and are the same in each run.
struct Noise(u64);

impl Noise {
    /// Xorshift, see Marsaglia 2003.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte = self.next().to_le_bytes()[3]);
    }
}

/// Datagrams that the server must refuse: noise of many lengths, and forgeries of the right one, made of
/// genuine datagrams, as many of those that are sealed as of those that are not.
fn garbage(sealed: &[Vec<u8>], plain: &[Vec<u8>]) -> Vec<Vec<u8>> {
    const LENGTHS: [usize; 13] = [0, 1, 31, 32, 33, 59, 60, 61, 64, 65, 500, 1_400, 9_000];
    let mut noise = Noise(0x5eed_0f1e_55ed_5eed);
    // An odd number, so that each of two addresses comes to be sent all of it.
    (0..2_001)
        .map(|number| {
            if number % 2 == 0 {
                let mut bytes = vec![0; LENGTHS[noise.below(LENGTHS.len())]];
                noise.fill(&mut bytes);
                return bytes;
            }
            let genuine = if number % 8 < 4 { sealed } else { plain };
            let mut forged = genuine[noise.below(genuine.len())].clone();
            // In one byte, or all behind the outside of it.
            let place = noise.below(forged.len());
            if number % 4 == 1 {
                forged[place] ^= 1 << noise.below(8);
            } else {
                noise.fill(&mut forged[16..]);
            }
            forged
        })
        .collect()
}

/// Sends datagrams round and round to several addresses in turn, about a hundred thousand a second: `count`
/// of them, or as many as it comes to within `limit`. Gives how many each of the addresses was sent.
fn pour<const N: usize>(datagrams: &[Vec<u8>], to: [SocketAddr; N], count: u64, limit: Duration) -> [u64; N] {
    const AT_ONCE: usize = 500;
    const EVERY: Duration = Duration::from_millis(5);
    let socket = loopback_socket();
    let begin = Instant::now();
    let mut sent = [0; N];
    let mut round = datagrams.iter().cycle();
    while sent.iter().sum::<u64>() < count && begin.elapsed() < limit {
        let next = Instant::now() + EVERY;
        for place in (0..N).cycle().take(AT_ONCE) {
            send_from(&socket, to[place], round.next().unwrap());
            sent[place] += 1;
        }
        // Its pace, if it is ahead of it. It does not make up for what it is behind.
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    sent
}

#[test]
fn a_flood_of_garbage_silences_nobody_hides_no_silence_and_takes_no_memory() {
    const FLOOD: u64 = 250_000;
    // Shorter than a stall-after by so much that an agent that beats every second is not stalled even if the
    // kernel drops all of its beats meanwhile.
    const FLOOD_ENDS: Duration = Duration::from_secs(3);
    let any = "127.0.0.1:0";
    let options = Options::from(["--stall-after", "8s", "--agent-metrics", "off"]).udp(any).secure_udp(any);
    let server = Server::start(options.key_of(Network::SharedKey).key_of(Network::MasterKey));
    let (plain, secure) = (server.udp_address(0), server.secure_udp_address(0));

    // A thousand that are remote and sealed, ten that are remote and not, and one of this host.
    let sockets = [(); 10].map(|()| Arc::new(loopback_socket()));
    let sealed = (1_000..2_000).zip(SEALED.into_iter().cycle()).zip(sockets.iter().cycle());
    let sealed =
        sealed.map(|((pid, network), socket)| RemoteAgent::on(Arc::clone(socket), network, secure, pid));
    let unsealed = (2_000..2_010).map(|pid| RemoteAgent::new(Network::Plain, plain, pid));
    let mut good: Vec<_> = sealed.chain(unsealed).collect();
    let local = AgentProcess::start(server.socket(), &[]);
    let all = good.len() + 1;
    let mut genuine = Vec::new();
    for agents in good.chunks_mut(100) {
        genuine.extend(agents.iter_mut().map(RemoteAgent::beat));
        server.await_agents("up", 1 + genuine.len());
    }
    let before = Memory::of(&server);

    // One of each kind falls silent as the flood begins.
    let silent = [good.remove(1_009), good.remove(999), good.remove(998)].map(|agent| agent.pid());
    let (sealed, plain_ones) = genuine.split_at(1_000);
    let garbage = garbage(sealed, plain_ones);
    let mut flood = Flood::begin();
    let pouring = thread::spawn(move || pour(&garbage, [plain, secure], FLOOD, FLOOD_ENDS));
    // All others beat until the silence of these is seen, and longer than the flood.
    wait_until("the silent ones are stalled", || {
        for agents in good.chunks_mut(20) {
            for agent in agents {
                agent.beat();
            }
            // The pace of agents that beat once a second, and not all at once.
            thread::sleep(Duration::from_millis(15));
        }
        let stalled = server.scrape().value("varta_agents", &[("state", "stalled")]);
        pouring.is_finished() && stalled >= silent.len() as f64
    });
    // The beats of some were dropped with the garbage: they may be unknown for a while, and that is no alarm.
    let transitions = server.transitions();
    let stalled = transitions.iter().filter(|change| change.to == "stalled");
    assert_eq!(stalled.clone().count(), silent.len());
    for change in stalled {
        let causes = ["unreachable", "lossy"];
        assert!(silent.contains(&change.pid) && causes.contains(&&*change.cause), "{change}");
    }
    let poured = pouring.join().unwrap();

    let own = |transport| {
        let first = if transport == PLAIN { 10 } else { 1_000 };
        let later = good.iter().filter(|agent| agent.transport() == transport);
        later.map(|agent| agent.beats() - 1).sum::<u64>() + first
    };
    for (transport, poured) in [PLAIN, SECURE].into_iter().zip(poured) {
        flood.sent(transport, own(transport) + poured);
    }
    let scrape = flood.await_balance(&server);
    for transport in [PLAIN, SECURE] {
        let row =
            |outcome| scrape.value("varta_frames_total", &[("transport", transport), ("outcome", outcome)]);
        assert!(row("accepted") <= own(transport) as f64, "{}", scrape.text);
        assert_eq!(row("replayed") + row("out_of_order") + row("duplicate"), 0.0, "{}", scrape.text);
    }
    assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), all as f64);
    Memory::of(&server).assert_at_most(64, &before);

    drop(local);
}

/// What a server takes of the host's memory, in KiB.
#[derive(Clone, Copy, Debug)]
struct Memory {
    now: u64,
    at_most: u64,
}

impl Memory {
    #[track_caller]
    fn of(server: &Server) -> Self {
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let value = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        Memory { now: value("VmRSS:"), at_most: value("VmHWM:") }
    }

    /// It never was more than so many MiB above what it was.
    #[track_caller]
    fn assert_at_most(&self, mebibytes: u64, before: &Memory) {
        assert!(self.at_most <= before.now + 1024 * mebibytes, "{self:?}, before it was {before:?}");
    }
}

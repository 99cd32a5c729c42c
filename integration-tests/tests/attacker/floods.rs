//! More datagrams, ports and pids than any honest network has.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, thread};

use varta_integration_tests::{
    AgentProcess, Flood, Network, Options, RemoteAgent, Scrape, Server, loopback_socket, send_from,
    socket_on, wait_until,
};

use crate::world::{PLAIN, SEALED, SECURE, VICTIM, World, of_first};

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

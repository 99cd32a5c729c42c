//! A server that is attacked, and agents on each way to it that must not notice.

use std::net::{SocketAddr, UdpSocket};
use std::process;

use varta_integration_tests::{
    Datagrams, ExpectedCounts, Network, Options, RemoteAgent, Scrape, Server, send_from,
};

pub(super) const SECURE: &str = "secure_udp";
pub(super) const PLAIN: &str = "udp";
pub(super) const SEALED: [Network; 2] = [Network::SharedKey, Network::MasterKey];
/// The agent that is attacked.
pub(super) const VICTIM: u32 = 4242;
/// The first pid of those that are not attacked.
pub(super) const OTHERS: u32 = 200;
/// So many hostile datagrams come between two beats of all others.
const BETWEEN_BEATS: u64 = 16;
/// So many datagrams may be on the way at once, so that the shortest queue there is holds them.
const ON_THE_WAY: u64 = 48;

/// A server with a socket for plaintext and two for sealed beats, and an agent on each way to it that beats
/// while others are attacked.
pub(super) struct World {
    pub(super) server: Server,
    pub(super) counts: ExpectedCounts,
    pub(super) plain: SocketAddr,
    pub(super) secure: [SocketAddr; 2],
    pub(super) others: Vec<RemoteAgent>,
    /// An agent of this host, by what it sends and the way there.
    pub(super) local: (RemoteAgent, Datagrams),
    pub(super) hostile: u64,
    pub(super) checked: u64,
}

impl World {
    #[track_caller]
    pub(super) fn new() -> Self {
        Self::with(Options::new())
    }

    #[track_caller]
    pub(super) fn with(options: Options) -> Self {
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
    pub(super) fn agent(&self, network: Network, pid: u32) -> RemoteAgent {
        let address = if network == Network::Plain { self.plain } else { self.secure[0] };
        RemoteAgent::new(network, address, pid)
    }

    /// An agent beats, and its beat is accepted. Gives the datagram.
    #[track_caller]
    pub(super) fn hear(&mut self, agent: &mut RemoteAgent) -> Vec<u8> {
        let datagram = agent.beat();
        self.counts.expect(agent.transport(), "accepted", 1);
        datagram
    }

    /// The attacker sends a datagram, which must end as `outcome`.
    #[track_caller]
    pub(super) fn attack(&mut self, socket: &UdpSocket, to: SocketAddr, datagram: &[u8], outcome: &str) {
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
    pub(super) fn others_beat(&mut self) {
        for other in &mut self.others {
            other.beat();
            self.counts.expect(other.transport(), "accepted", 1);
        }
        let (local, socket) = &mut self.local;
        socket.send(&local.hold_back());
        self.counts.expect("unix", "accepted", 1);
    }

    #[track_caller]
    pub(super) fn check(&mut self) -> Scrape {
        self.checked = self.counts.total();
        self.counts.check(&self.server)
    }

    /// All others beat once more. So many agents are known then that are none of them. There was no verdict
    /// on any agent but that it is up, and the others have every beat counted.
    #[track_caller]
    pub(super) fn assert_the_others_are_unaffected(mut self, besides: usize) {
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
    pub(super) fn bystanders(&self) -> usize {
        self.others.len() + 1
    }
}

/// Runs an attack on an agent of each sealed network. So many agents are known in the end that are no
/// bystanders.
#[track_caller]
pub(super) fn on_each_sealed_network(besides: usize, attack: impl Fn(&mut World, &mut RemoteAgent)) {
    for network in SEALED {
        let mut world = World::new();
        let mut victim = world.agent(network, VICTIM);
        attack(&mut world, &mut victim);
        world.assert_the_others_are_unaffected(besides);
    }
}

/// The value of the row of the first of all agents that have this pid.
#[track_caller]
pub(super) fn of_first(scrape: &Scrape, name: &str, pid: u32) -> f64 {
    let mut rows = scrape.samples.iter().filter(|row| row.name == name && !row.labels.contains_key("twin"));
    let row = rows.find(|row| row.labels.get("pid") == Some(&pid.to_string()));
    row.unwrap_or_else(|| panic!("there is no {name} of {pid} in\n{}", scrape.text)).value
}

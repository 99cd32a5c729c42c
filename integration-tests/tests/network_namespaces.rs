//! Agents on other hosts, of which one drops out of the network. A host is a network namespace with a cable
//! to the server, and the cable can be pulled out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::net::IpAddr;

use varta_integration_tests::{
    AgentProcess, Network, NetworkHost, Options, Scrape, Server, in_a_network_of_its_own,
    pid_namespaces_work, worker_command,
};

/// The pid of all agents: each host has its own.
const PID: u32 = 2;

/// A server, two hosts, and on each of them an agent for each network and each kind of address.
struct World {
    workers: Vec<AgentProcess>,
    server: Server,
    hosts: [NetworkHost; 2],
}

impl World {
    fn new() -> Self {
        let hosts = [1, 2].map(NetworkHost::new);
        let cables: Vec<_> = hosts.iter().flat_map(NetworkHost::cables).collect();
        let here: Vec<_> = cables.iter().map(|cable| cable.here).collect();
        let options =
            Options::from(["--stall-after", "1s", "--allow-plaintext-remote"]).without_unix_socket();
        let options = options.on(Network::Plain, &here).on(Network::SharedKey, &here);
        let server = Server::start(options.key_of(Network::MasterKey));
        let mut workers = Vec::new();
        for host in &hosts {
            for cable in host.cables() {
                let n = here.iter().position(|address| *address == cable.here).unwrap();
                for network in Network::ALL {
                    let mut command = worker_command();
                    command.args(server.route(network, n).arguments());
                    workers.push(AgentProcess::run(host.as_process_2(&command)));
                }
            }
        }
        server.await_agents("up", workers.len());
        World { workers, server, hosts }
    }

    /// Pulls a host out, as `pull` does it, and plugs it in again: only its own agents are accused, and none
    /// is in the end.
    fn pull_out_and_plug_in(&mut self, number: usize, pull: fn(&NetworkHost)) {
        let before = self.server.transitions().len();
        let per_host = self.workers.len() / 2;
        let addresses = addresses(&self.hosts[number]);
        let [own, other]: [BTreeSet<_>; 2] = [number, 1 - number].map(|number| self.rows(number));
        assert_eq!((own.len(), other.len()), (per_host, per_host));

        pull(&self.hosts[number]);
        self.server.await_agents("stalled", per_host);
        // The others go on for more than a stall-after.
        let scrape = self.await_beats(&other, 5.0, 1.5);
        assert_eq!(scrape.value("varta_agents", &[("state", "stalled")]), per_host as f64);
        let stalled = self.server.transitions().split_off(before);
        assert_eq!(stalled.len(), per_host, "{stalled:?}");
        for line in &stalled {
            assert_eq!((line.pid, &*line.to, &*line.cause), (PID, "stalled", "unreachable"), "{line:?}");
            assert!(addresses.contains(&line.host) && line.silence_ms >= 1_000, "{line:?}");
        }

        self.hosts[number].plug_in();
        self.server.await_agents("up", self.workers.len());
        let recovered = self.server.transitions().split_off(before + per_host);
        assert_eq!(recovered.len(), per_host, "{recovered:?}");
        assert!(recovered.iter().all(|line| line.cause == "recovered" && addresses.contains(&line.host)));
        let everybody = own.union(&other).cloned().collect();
        let scrape = self.await_beats(&everybody, 5.0, 1.5);
        assert_eq!(scrape.value("varta_agents", &[("state", "up")]), self.workers.len() as f64);
        assert_eq!(self.server.transitions().len(), before + 2 * per_host);
    }

    /// The series in which the beats of a host's agents are counted.
    fn rows(&self, number: usize) -> BTreeSet<String> {
        let addresses = addresses(&self.hosts[number]);
        let scrape = self.server.scrape();
        let pid = PID.to_string();
        let labels = [("pid", &*pid)];
        let rows = scrape.matching("varta_beats_total", &labels);
        rows.filter(|row| addresses.contains(&row.labels["host"])).map(ToString::to_string).collect()
    }

    /// Waits until each of these series has grown by so much, and so many seconds have passed by the server's
    /// clock.
    fn await_beats(&self, rows: &BTreeSet<String>, more: f64, seconds: f64) -> Scrape {
        let uptime = |scrape: &Scrape| scrape.value("varta_watch_uptime_seconds", &[]);
        let now = self.server.scrape();
        self.server.await_scrape(&format!("{rows:?} have grown by {more}"), |scrape| {
            let changes = scrape.changes_since(&now);
            uptime(scrape) >= uptime(&now) + seconds
                && rows.iter().all(|row| changes.get(row).is_some_and(|change| *change >= more))
        })
    }
}

/// A host's own addresses, as the labels have them.
fn addresses(host: &NetworkHost) -> Vec<String> {
    host.cables().iter().map(|cable| IpAddr::to_string(&cable.there)).collect()
}

#[test]
fn of_two_hosts_the_agents_of_the_one_that_is_cut_off_are_accused_until_it_is_back() {
    if !pid_namespaces_work() {
        return;
    }
    in_a_network_of_its_own(|| {
        let mut world = World::new();
        world.pull_out_and_plug_in(0, NetworkHost::turn_off);
        world.pull_out_and_plug_in(1, NetworkHost::unplug);
        let scrape = world.server.scrape();
        assert_eq!(scrape.outcome("accepted"), scrape.datagrams(), "{}", scrape.text);
        assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), world.workers.len() as f64);
    });
}

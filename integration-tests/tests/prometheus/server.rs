//! Alerts about the server.

use std::net::SocketAddr;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use varta_integration_tests::{
    Datagrams, Network, Options, Receiver, RemoteAgent, Reply, Scratch, Server, Signal, SmallDisk, metric,
    wait_until,
};
use varta_proto::{Frame, Status};

use crate::prometheus;

/// More datagrams than fit the queue of a UDP socket, as short as it may be.
const FLOOD: usize = 5_000;
const THIS: (&str, &str) = ("job", "varta");

/// Ends the threads of a flood when it is dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_server_that_is_blind_or_drowns_or_refuses_says_so() {
    let options =
        Options::from(["--udp-receive-buffer", "50000", "--max-agents", "2", "--socket-queue", "1"]);
    let server = Server::start(options.udp("127.0.0.1:0"));
    let mut workers = server.start_agents(2, &[]);
    let Some(prometheus) = prometheus(server.address(), "1s") else { return };
    wait_until("it is scraped", || prometheus.count("varta_kernel_drops_total == 0") > 1);

    server.pause();
    let mut remote = RemoteAgent::new(Network::Plain, server.udp_address(0), 4242);
    for _ in 0..FLOOD {
        remote.beat();
    }
    server.pause_for(Duration::from_secs(3));
    prometheus.await_alert("VartaServerBlind", &[THIS]);
    prometheus.await_alert("VartaDatagramsDropped", &[("transport", "udp")]);
    // There is no room for another one.
    prometheus.await_alert("VartaAgentsRefused", &[THIS]);
    let is_over = &AtomicBool::new(false);
    thread::scope(|scope| {
        // A panic must not leave the threads sending for ever.
        let _ends = Ends(is_over);
        for _ in 0..8 {
            let mut garbage = Datagrams::to(server.socket());
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    garbage.send(b"not a frame");
                }
            });
        }
        prometheus.await_alert("VartaQueueFull", &[THIS]);
        prometheus.await_alert("VartaBeatsRefused", &[("outcome", "bad_length")]);
    });

    let mut leaving = workers.remove(0);
    leaving.ask("goodbye");
    drop(leaving);
    for name in ["VartaServerBlind", "VartaQueueFull", "VartaDatagramsDropped", "VartaBeatsRefused"] {
        prometheus.await_end(name, THIS);
    }
}

#[test]
fn what_cannot_be_written_or_told_or_loaded_is_an_alert_until_it_can() {
    let scratch = Scratch::make();
    let Some(disk) = SmallDisk::mount(&scratch) else { return };
    let config = scratch.write("varta.toml", "stall-after = \"1h\"\n");
    let refusing = Receiver::start((0..100).map(|_| Reply::status(400, "", "")));
    let options = Options::from(["--recovery-exec", "/bin/false", "--heartbeat-every", "1s"])
        .args(["--webhook", &refusing.url("/hook")])
        .args(["--heartbeat-url", &format!("http://{}/", Receiver::nowhere())])
        .path("--config", &config)
        .path("--state-dir", &disk.path("state"))
        .path("--events-file", &disk.path("events"))
        .path("--audit-log", &disk.path("audit.log"));
    let server = Server::start(options);
    let Some(prometheus) = prometheus(server.address(), "1s") else { return };
    let mut workers = server.start_agents(30, &[]);
    wait_until("they are scraped", || prometheus.count("varta_agent_up == 1") == 30);
    prometheus.await_alert("VartaHeartbeatFailing", &[("destination", "url")]);

    disk.fill();
    for worker in &mut workers {
        worker.signal(Signal::Kill);
        worker.wait();
    }
    for name in
        ["VartaStateNotWritten", "VartaAuditNotWritten", "VartaEventsNotWritten", "VartaRecoveryRefused"]
    {
        prometheus.await_alert(name, &[THIS]);
    }
    prometheus.await_alert("VartaNotificationsLost", &[("destination", "webhook")]);
    disk.make_room();
    for name in ["VartaStateNotWritten", "VartaAuditNotWritten", "VartaEventsNotWritten"] {
        prometheus.await_end(name, THIS);
    }

    scratch.write("varta.toml", "stall-after = \"soon\"\n");
    assert!(!server.reload().status.success());
    prometheus.await_alert("VartaConfigReloadFailed", &[THIS]);
    scratch.write("varta.toml", "stall-after = \"1h\"\n");
    assert!(server.reload().status.success());
    prometheus.await_end("VartaConfigReloadFailed", THIS);
}

#[test]
fn recovery_that_fails_and_gives_up_and_a_detector_that_is_wrong_are_alerts() {
    let scratch = Scratch::make();
    let rule = "recovery-exec = '/bin/false'\nrecovery-attempts = 1\nrecovery-debounce = '0s'\n";
    let server = Server::start(Options::from(["--stall-after", "300ms"]).config(&scratch, rule));
    let Some(prometheus) = prometheus(server.address(), "1s") else { return };
    wait_until("it is scraped", || prometheus.count("varta_mistakes_total == 0") == 1);

    let mut datagrams = Datagrams::to(server.socket());
    let pid = process::id();
    for round in 1..=4_u32 {
        let nonce = u64::from(round) * 10;
        datagrams.send(&Frame::new(Status::Ok, pid, nonce * 30_000_000, nonce, 0).to_bytes());
        server.expect(metric("varta_stalls_total").with("pid", pid.to_string()).is(f64::from(round)));
    }
    prometheus.await_alert("VartaDetectorMistakes", &[THIS]);
    prometheus.await_alert("VartaRecoveryFailed", &[("action", "command")]);
    prometheus.await_alert("VartaRecoveryGivenUp", &[THIS]);
    for name in ["VartaDetectorMistakes", "VartaRecoveryFailed", "VartaRecoveryGivenUp"] {
        prometheus.await_end(name, THIS);
    }
}

/// A server at this address.
fn server_at(address: SocketAddr, scratch: &Scratch) -> Server {
    let server = Server::start(Options::from(["--metrics-addr", &address.to_string()]).in_scratch(scratch));
    assert_eq!(server.address(), address);
    server
}

#[test]
fn a_server_that_is_gone_is_missed_and_one_that_comes_and_goes_is_too() {
    let scratch = Scratch::make();
    let address = Receiver::nowhere();
    let mut server = server_at(address, &scratch);
    let Some(prometheus) = prometheus(address, "1s") else { return };
    let wait_for_it = || wait_until("it is scraped", || prometheus.count("up == 1") == 1);
    wait_for_it();

    server.kill();
    prometheus.await_alert("VartaServerDown", &[("instance", &address.to_string())]);
    prometheus.await_alert("VartaServerAbsent", &[("severity", "critical")]);
    for _ in 0..5 {
        wait_until("its end is scraped", || prometheus.count("up == 0") == 1);
        server = server_at(address, &scratch);
        wait_for_it();
        server.kill();
    }
    server = server_at(address, &scratch);
    prometheus.await_alert("VartaServerRestarting", &[THIS]);
    for name in ["VartaServerDown", "VartaServerRestarting"] {
        prometheus.await_end(name, THIS);
    }
    prometheus.await_end("VartaServerAbsent", ("severity", "critical"));
    drop(server);
}

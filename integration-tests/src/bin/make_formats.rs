//! Writes one file of each format that outlives a server, by real runs of the program: what
//! `tests/formats.rs` reads.
//!
//! `integration-tests/data/formats/README.md` has the command, and says what each file holds. The files of a
//! release are made once, with the program of that release, and never again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a run that cannot go on has failed")]

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use varta_integration_tests::sys::send_signal;
use varta_integration_tests::{
    AgentProcess, Network, Options, Receiver, RemoteAgent, Server, Signal, agent, as_pid, run_to_its_end,
    server_command, wait_for, worker_command, write_secret,
};
use varta_proto::control::{AgentName, Goodbye, GoodbyeReason, Hello, Label, LabelSet, MAX_CONTROL_LEN};
use varta_proto::{Frame, Status};

/// What the host must be called, so that no file has the name of a real one.
const HOST: &str = "db1";
/// The pids of local agents. No two have the same: one that was killed may have its pid for a while.
const BILLING: u32 = 4_242;
const RECORDED: u32 = 4_270;
/// The pids of agents that beat over UDP, which the kernel does not see.
const MAIL: u32 = 4_243;
const SEALED: u32 = 4_244;
const LEDGER: u32 = 4_245;
/// The key that seals the second audit log.
const AUDIT_KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
/// How a replay is asked for, and what it says is kept.
const REPLAYS: [&[&str]; 4] = [
    &[],
    &["--stall-after", "1h"],
    &["--detector", "phi"],
    &["--detector", "chen", "--chen-detect-within", "1500ms"],
];

fn main() {
    let out = PathBuf::from(env::args_os().nth(1).expect("the directory to write to is the only argument"));
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(host.trim(), HOST, "run it as data/formats/README.md says");
    state(&out.join("state"), &out);
    events_and_audit(&out.join("audit/plain"), 4_250, Some(&out.join("events.json")), None);
    events_and_audit(&out.join("audit/keyed"), 4_260, None, Some(AUDIT_KEY));
    recording(&out);
}

fn place() -> TempDir {
    tempfile::Builder::new().prefix("varta-formats-").tempdir().unwrap()
}

fn stop(mut server: Server) {
    server.signal(Signal::Terminate);
    assert!(server.wait().success());
}

/// A local agent with a pid that the host has nothing to do with.
fn start_agent(server: &Server, pid: u32, arguments: &[&str]) -> AgentProcess {
    let mut command = worker_command();
    command.arg("--socket").arg(server.socket()).args(arguments);
    let process = AgentProcess::run(as_pid(pid, &command));
    server.expect(agent(pid).up());
    process
}

fn kill(server: &Server, pid: u32) {
    send_signal(pid, Signal::Kill).unwrap();
    server.expect(agent(pid).down());
}

/// A Hello from a pid that beats over UDP, with a label.
fn hello(agent: &RemoteAgent, name: &str, stall_after_ms: Option<u32>) {
    let mut labels = LabelSet::new();
    labels.push(Label::new("team", "payments").unwrap()).unwrap();
    let name = AgentName::parse(name).unwrap();
    let hello = Hello {
        name: Some(&name),
        labels: &labels,
        stall_after_ms,
        ..Hello::new(agent.pid(), 0, 0, [0xd1; 16])
    };
    agent.send(hello.encode(&mut [0; MAX_CONTROL_LEN]).as_bytes());
}

/// `varta.db`, `alerts.json` and `pauses.json` of one server, and sealed datagrams that it accepted.
fn state(out: &Path, sealed_to: &Path) {
    let place = place();
    let state = place.path().join("state");
    let webhook = Receiver::start([]);
    // It never gets the end of an alert.
    let alertmanager = Receiver::nowhere();
    let options = Options::new()
        .args([Path::new("--state-dir"), &state])
        .args(["--stall-after", "1h", "--webhook", &webhook.url("/hook")])
        .args(["--alertmanager".to_owned(), format!("http://{alertmanager}")])
        .udp("127.0.0.1:0")
        .secure_udp("127.0.0.1:0")
        .key_of(Network::SharedKey);
    let server = Server::start(options);
    let _billing = start_agent(&server, BILLING, &["--name", "billing"]);

    let plain = server.udp_address(0);
    let [mut mail, mut ledger] = [MAIL, LEDGER].map(|pid| RemoteAgent::new(Network::Plain, plain, pid));
    for (agent, name) in [(&mut mail, "mail"), (&mut ledger, "ledger")] {
        hello(agent, name, Some(1_800_000));
        let critical = agent.next_frame(Status::Critical);
        agent.send(&critical.to_bytes());
    }
    webhook.await_requests(2);
    ledger.beat();
    webhook.await_requests(3);

    let mut sealed = RemoteAgent::new(Network::SharedKey, server.secure_udp_address(0), SEALED);
    let datagrams: Vec<_> = (0..3).map(|_| sealed.beat()).collect();
    server.await_datagrams(8.0);
    server.await_agents("up", 4);

    for (name, length) in [("batch-*", "365days"), ("over", "1s")] {
        let mut command = server_command();
        command.env("VARTA_SOCKET", server.socket());
        command.args(["pause", name, "--for", length, "--reason", "kernel update"]);
        let ended = run_to_its_end(command);
        assert!(ended.status.success(), "{}", ended.stderr);
    }
    let is_said = || {
        let kept = fs::read_to_string(state.join("alerts.json")).unwrap_or_default();
        let alerts: Value = serde_json::from_str(&kept).unwrap_or_default();
        let alerts = alerts["alerts"].as_array()?;
        let are_said = alerts.iter().all(|kept| kept["alert"]["is_said"] == true && kept["is_owed"] == false);
        (alerts.len() == 2 && are_said).then_some(())
    };
    assert!(wait_for(is_said).is_some());
    stop(server);

    fs::create_dir_all(out).unwrap();
    for name in ["varta.db", "alerts.json", "pauses.json"] {
        fs::copy(state.join(name), out.join(name)).unwrap();
    }
    assert!(!state.join("varta.db-wal").exists(), "the database is whole without its journal");
    // A pause ends within 366 days. That of `batch-*` is put off by a century, so that it is in force
    // whenever it is read.
    let text = fs::read_to_string(out.join("pauses.json")).unwrap();
    let later = |line: &str| {
        if line.contains("batch-*") { line.replace(":\"20", ":\"21") } else { line.to_owned() }
    };
    let text: String = text.lines().map(|line| later(line) + "\n").collect();
    fs::write(out.join("pauses.json"), text).unwrap();
    let mut hex = String::new();
    for datagram in datagrams {
        for byte in datagram {
            write!(hex, "{byte:02x}").unwrap();
        }
        hex.push('\n');
    }
    fs::write(sealed_to.join("sealed.hex"), hex).unwrap();
}

/// Waits until an audit log of up to three files has so many records of an event.
fn await_records(log: &Path, event: &str, count: u32) {
    let text = |number: u32| {
        let file =
            if number == 0 { log.into() } else { PathBuf::from(format!("{}.{number}", log.display())) };
        fs::read_to_string(file).unwrap_or_default()
    };
    let word = format!("\"event\":\"{event}\"");
    let counted = || (0..3).map(|number| text(number).matches(&word).count()).sum::<usize>();
    let found = wait_for(|| (counted() >= usize::try_from(count).unwrap()).then_some(()));
    assert!(found.is_some(), "{count} records of {event} in {}", text(0));
}

/// An audit log, and the file of events of the same server, whose agents have pids from `pid` on.
fn events_and_audit(out: &Path, pid: u32, events_to: Option<&Path>, key: Option<&str>) {
    let place = place();
    let [log, events] = ["audit.log", "events.json"].map(|name| place.path().join(name));
    let mut options = Options::new()
        .args([Path::new("--audit-log"), &log])
        .args([Path::new("--events-file"), &events])
        .args(["--stall-after", "300ms", "--recovery-exec", "/bin/echo restart {name}"])
        .args(["--recovery-attempts", "1", "--recovery-debounce", "0s", "--recovery-backoff", "1ms"])
        .args(["--audit-limit", "4096"]);
    if let Some(key) = key {
        let key = write_secret(place.path(), "audit.key", key);
        options = options.args([Path::new("--audit-key-file"), &key]);
    }
    let server = Server::start(options);
    let names: &[&str] = if key.is_some() { &["billing", "mail", "ledger"] } else { &["billing"] };
    for (number, name) in (0..).zip(names) {
        let pid = pid + number;
        let _agent = start_agent(&server, pid, &["--name", name, "--interval-ms", "20"]);
        if events_to.is_some() {
            send_signal(pid, Signal::Stop).unwrap();
            server.expect(agent(pid).stalled());
            send_signal(pid, Signal::Continue).unwrap();
            server.expect(agent(pid).up().because("recovered"));
        }
        kill(&server, pid);
        await_records(&log, "given_up", number + 1);
    }
    if events_to.is_some() {
        let mut left = start_agent(&server, pid + 1, &["--name", "mail", "--interval-ms", "20"]);
        left.ask("status degraded");
        left.ask("goodbye");
        server.expect(agent(pid + 1).gone());
        let mut failed = start_agent(&server, pid + 2, &["--name", "ledger", "--interval-ms", "20"]);
        failed.ask("exit 3");
        server.expect(agent(pid + 2).down());
        await_records(&log, "given_up", 2);
    }
    stop(server);

    fs::create_dir_all(out).unwrap();
    for name in ["audit.log.1", "audit.log", "audit.log.head"] {
        if place.path().join(name).exists() {
            fs::copy(place.path().join(name), out.join(name)).unwrap();
        }
    }
    let mut command = server_command();
    command.args(["audit", "verify", "--json"]).arg(&log);
    if key.is_some() {
        command.arg("--key-file").arg(place.path().join("audit.key"));
    }
    let verified: Value = serde_json::from_str(&run_to_its_end(command).stdout).unwrap();
    assert_eq!(verified["ok"], true, "{verified}");
    let last = &verified["last"];
    fs::write(out.join("last"), format!("{}:{}\n", last["seq"], last["hash"].as_str().unwrap())).unwrap();
    if let Some(events_to) = events_to {
        fs::copy(&events, events_to).unwrap();
    }
}

/// A recording, and what replays of it say.
fn recording(out: &Path) {
    let place = place();
    let path = place.path().join("recording.varta");
    let options = Options::new().args([Path::new("--record"), &path]).args(["--stall-after", "500ms"]);
    let server = Server::start(options.udp("127.0.0.1:0"));
    let _billing = start_agent(&server, RECORDED, &["--name", "billing", "--interval-ms", "100"]);

    // An agent that is called stalled though it was beating: the beats between are missing.
    let mail = RemoteAgent::new(Network::Plain, server.udp_address(0), MAIL);
    hello(&mail, "mail", None);
    mail.send(&Frame::new(Status::Ok, MAIL, 100_000_000, 1, 0).to_bytes());
    server.expect(agent(MAIL).stalled());
    mail.send(&Frame::new(Status::Ok, MAIL, 900_000_000, 9, 0).to_bytes());
    server.expect(agent(MAIL).up().because("recovered"));
    let goodbye = Goodbye::new(MAIL, 900_000_000, 9, [0xd1; 16], GoodbyeReason::Restart);
    mail.send(goodbye.encode(&mut [0; MAX_CONTROL_LEN]).as_bytes());
    server.expect(agent(MAIL).gone());
    server.await_beats_and_seconds(&[RECORDED], 20, 0.0);
    kill(&server, RECORDED);
    stop(server);

    let kept = out.join("recording.varta");
    fs::copy(&path, &kept).unwrap();
    let replays: Vec<Value> = REPLAYS
        .iter()
        .map(|arguments| {
            let mut command: Command = server_command();
            command.current_dir(out).args(["replay", "recording.varta", "--json"]).args(*arguments);
            let ended = run_to_its_end(command);
            let report: Value = serde_json::from_str(&ended.stdout)
                .unwrap_or_else(|error| panic!("{error}: {}", ended.stderr));
            json!({ "arguments": arguments, "report": report })
        })
        .collect();
    let text = serde_json::to_string_pretty(&replays).unwrap();
    fs::write(out.join("replays.json"), text + "\n").unwrap();
}

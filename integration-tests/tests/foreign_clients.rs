//! Programs of other people's making that speak the protocol: their clients with our server, our agent with their server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use varta_integration_tests::{AgentProcess, LIMIT, Scrape, Server, Signal, foreign, http, wait_for};

/// Does what the program `it-foreign` does, with the Python package.
const PYTHON_AGENT: &str = r#"
import select, sys, time, varta

path = sys.argv[1]
varta.panic.install_excepthook_uds(path)
handles = [varta.Varta.connect(path)]
status = varta.Status.OK
due = time.monotonic()
print("ready", flush=True)
while True:
    if select.select([sys.stdin], [], [], max(0, due - time.monotonic()))[0]:
        command = sys.stdin.readline().split()
        if not command:
            break
        if command[0] == "second":
            handles.append(varta.Varta.connect(path))
        elif command[0] == "status":
            status = varta.Status[command[1].upper()]
        elif command[0] == "panic":
            print("ok", flush=True)
            raise RuntimeError("as the test wished")
        print("ok", flush=True)
    else:
        for handle in handles:
            handle.beat(status, 7)
        due = time.monotonic() + 0.1
"#;

/// The stall-after for these tests.
const STALL_AFTER: [&str; 2] = ["--stall-after", "1s"];

/// What must hold of a client of the published protocol that knows nothing of us.
#[track_caller]
fn assert_it_is_served_like_our_own(server: &Server, mut agent: AgentProcess) {
    let pid = agent.pid();
    server.await_agents("up", 1);
    let scrape = server.await_beats_and_seconds(&[pid], 5, 0.0);
    assert_eq!(scrape.of_agent("varta_agent_payload", pid), 7.0);

    agent.ask("second");
    server.await_beats_and_seconds(&[pid], 20, 1.5);
    agent.ask("status degraded");
    server.await_scrape("its status is seen", |scrape| scrape.of_agent("varta_status", pid) == 1.0);

    agent.signal(Signal::Stop);
    let stalled = server.await_transition(pid, "stalled", "silent");
    assert!(stalled.silence_ms >= 1_000, "{stalled:?}");
    agent.signal(Signal::Continue);
    server.await_transition(pid, "up", "recovered");
    let scrape = server.await_beats_and_seconds(&[pid], 5, 1.5);
    assert_eq!(scrape.of_agent("varta_stalls_total", pid), 1.0);

    agent.ask("panic");
    assert!(!agent.wait().success());
    server.await_transition(pid, "up", "panicked");
    server.await_transition(pid, "stalled", "panicked");

    let scrape = server.scrape();
    assert_eq!(scrape.outcome("accepted"), scrape.datagrams(), "{}", scrape.text);
    assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), 1.0);
    let told: Vec<_> = server.transitions().into_iter().map(|line| line.cause).collect();
    assert_eq!(told, ["first_beat", "reported", "silent", "recovered", "panicked", "panicked"]);
}

#[test]
fn the_published_rust_client_is_served_like_our_own() {
    let server = Server::start(STALL_AFTER);
    let agent = AgentProcess::start_foreign(server.socket(), &[]);
    assert_it_is_served_like_our_own(&server, agent);
}

#[test]
fn the_published_python_client_is_served_like_our_own() {
    let Some(mut command) = foreign::command("venv/bin/python") else { return };
    let server = Server::start(STALL_AFTER);
    command.args(["-c", PYTHON_AGENT]).arg(server.socket());
    assert_it_is_served_like_our_own(&server, AgentProcess::run(command));
}

/// The published observer, running.
struct Watch {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Watch {
    const TOKEN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn start(mut command: Command, threshold_ms: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let token = directory.path().join("token");
        fs::write(&token, Self::TOKEN).unwrap();
        fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
        command.args(["--threshold-ms", threshold_ms, "--prom-addr", "127.0.0.1:0"]);
        // By default it turns away who asks too often, and drops a beat that comes within 10 ms of another.
        command.args(["--max-beat-rate", "0"]);
        command.args(["--prom-rate-limit-per-sec", "10000", "--prom-rate-limit-burst", "10000"]);
        command.arg("--prom-token-file").arg(token).arg("--socket").arg(directory.path().join("varta.sock"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let address = address.trim().parse().unwrap();
        Watch { child, address, directory }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("varta.sock")
    }

    #[track_caller]
    fn await_scrape(&self, what: &str, expected: impl Fn(&Scrape) -> bool) -> Scrape {
        let mut last = String::new();
        let scrape = wait_for(|| {
            let bearer = format!("Bearer {}", Self::TOKEN);
            last = http::get(self.address, "/metrics", &[("Authorization", &bearer)]).ok()?.body;
            Scrape::parse(&last).ok().filter(&expected)
        });
        scrape.unwrap_or_else(|| panic!("not so within {LIMIT:?}: {what}. The last scrape is\n{last}"))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn our_agent_is_served_by_the_published_observer() {
    let Some(command) = foreign::command("bin/varta-watch") else { return };
    let watch = Watch::start(command, "1000");
    let mut agent = AgentProcess::start(&watch.socket(), &[]);
    let pid = agent.pid().to_string();
    let value = |scrape: &Scrape, name| scrape.get(name, &[("pid", &pid)]);
    let beats = |scrape: &Scrape| value(scrape, "varta_beats_total").unwrap_or_default();
    let status = |scrape: &Scrape| value(scrape, "varta_status");

    watch.await_scrape("beats are counted", |scrape| beats(scrape) >= 5.0 && status(scrape) == Some(0.0));
    agent.ask("status degraded");
    watch.await_scrape("the status is seen", |scrape| status(scrape) == Some(1.0));
    let scrape = watch.await_scrape("beats go on", |scrape| beats(scrape) >= 20.0);
    assert_eq!(value(&scrape, "varta_stalls_total"), Some(0.0));

    agent.signal(Signal::Stop);
    watch.await_scrape("the silence is noticed", |scrape| status(scrape) == Some(3.0));
    agent.signal(Signal::Continue);
    let scrape = watch.await_scrape("it is back", |scrape| status(scrape) == Some(1.0));
    assert_eq!(value(&scrape, "varta_stalls_total"), Some(1.0));
    assert_eq!(scrape.sum("varta_decode_errors_total", &[]), 0.0);
    assert_eq!(scrape.sum("varta_frame_auth_failures_total", &[]), 0.0);
}

#[test]
fn our_panic_hook_is_understood_by_the_published_observer() {
    let Some(command) = foreign::command("bin/varta-watch") else { return };
    // The process survives, and neither its next beat nor a deadline comes in the lifetime of this test.
    let watch = Watch::start(command, "3600000");
    let mut agent = AgentProcess::start(&watch.socket(), &["--panic-hook", "--interval-ms", "3600000"]);
    let pid = agent.pid().to_string();
    let status = |scrape: &Scrape| scrape.get("varta_status", &[("pid", &pid)]);
    watch.await_scrape("it is known", |scrape| status(scrape) == Some(0.0));
    agent.ask("panic-in-thread");
    let scrape = watch.await_scrape("the panic is critical", |scrape| status(scrape) == Some(2.0));
    assert_eq!(scrape.sum("varta_decode_errors_total", &[]), 0.0);
}

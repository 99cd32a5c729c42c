//! The trail of recovery: nothing is done that is not on the disk before, whatever happens to disk and server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::HashSet;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use varta_integration_tests::foreign::skip;
use varta_integration_tests::{
    AgentProcess, Ended, LIMIT, Options, Server, Signal, SmallDisk, loopback_socket, run_to_its_end,
    server_command, wait_for,
};
use varta_proto::{Frame, Status};

/// A directory that outlives servers.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Place(tempfile::Builder::new().prefix("varta-it-").tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The words that commands have left.
    fn notes(&self) -> Vec<String> {
        let notes = fs::read_to_string(self.path("notes")).unwrap_or_default();
        notes.lines().map(str::to_owned).collect()
    }

    /// A command that leaves a word.
    fn note(&self, word: &str) -> String {
        format!("/bin/sh -c 'echo $0 >> {}' {word}", self.path("notes").display())
    }
}

fn verify(log: &Path) -> Ended {
    let mut command = server_command();
    command.args(["audit", "verify"]).arg(log);
    run_to_its_end(command)
}

/// The records of an event, in all files of a log.
fn records(log: &Path, event: &str) -> Vec<Value> {
    let older = (1..100).rev().map(|number| PathBuf::from(format!("{}.{number}", log.display())));
    let texts = older.chain([log.to_path_buf()]).filter_map(|file| fs::read_to_string(file).ok());
    let records: Vec<Value> = texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| serde_json::from_str(&line).ok())
        .collect();
    records.into_iter().filter(|record| record["event"] == event).collect()
}

#[test]
fn a_deed_is_written_down_with_all_that_came_of_it() {
    let place = Place::new();
    let log = place.path("audit.log");
    let exec = "/bin/sh -c 'echo so it goes; exit 3' {pid}";
    let options = Options::new().args(["--stall-after", "1h", "--recovery-exec", exec]);
    let options = options.args([Path::new("--audit-log"), &log]);
    let mut server = Server::start(options.args([
        "--recovery-attempts",
        "1",
        "--recovery-debounce",
        "0s",
        "--recovery-backoff",
        "1ms",
    ]));
    let agent = AgentProcess::start(server.socket(), &["--name", "billing"]);
    server.await_agents("up", 1);
    agent.signal(Signal::Kill);
    let done = wait_for(|| (records(&log, "given_up").len() == 1).then_some(()));
    assert!(done.is_some(), "{:?}", fs::read_to_string(&log));
    server.signal(Signal::Terminate);
    assert!(server.wait().success());
    let [fired, outcome] = ["fired", "outcome"].map(|event| records(&log, event).remove(0));
    for record in [&fired, &outcome] {
        assert_eq!(
            (&record["agent"], &record["state"], &record["cause"]),
            (&"billing".into(), &"down".into(), &"killed".into())
        );
        assert_eq!(record["pid"], agent.pid());
        assert!(record["start_time"].is_u64() && record["attempt"] == 1 && record["step"] == 1);
    }
    assert_eq!(fired["command"][0], "/bin/sh");
    assert_eq!(fired["command"][3], agent.pid().to_string());
    assert_eq!((&outcome["result"], &outcome["exit_code"]), (&"failed".into(), &3.into()));
    assert_eq!(outcome["output"], "so it goes\n");
    assert!(outcome["duration_ms"].is_u64());
    assert!(verify(&log).status.success(), "{}", verify(&log).stderr);
}

/// Has agents of another host beat once, which then fall silent.
fn fall(server: &Server, socket: &UdpSocket, pids: std::ops::Range<u32>) {
    for pid in pids {
        let frame = Frame::new(Status::Ok, pid, 1, 1, 0);
        socket.send_to(&frame.to_bytes(), server.udp_address(0)).unwrap();
    }
}

#[test]
fn a_server_that_is_killed_at_any_moment_has_written_down_all_that_it_did() {
    const LIVES: u32 = 8;
    const FALL: u32 = 150;
    let place = Place::new();
    let log = place.path("audit.log");
    let rules = place.path("varta.toml");
    let words = "stall-after = '100ms'\nrecovery-attempts = 1\nallow-recovery-for-remote = true\n\
                 recovery-budget = '1000000/1s'\nrecovery-group-budget = '1000000/1s'\n";
    fs::write(
        &rules,
        format!(
            "{words}audit-limit = 200_000\naudit-keep = 0\nrecovery-exec = \"{}\"\n",
            place.note("{pid}")
        ),
    )
    .unwrap();
    let start = || {
        let options = Options::new().udp("127.0.0.1:0").args([Path::new("--config"), &rules]);
        Server::start(options.args([Path::new("--audit-log"), &log]))
    };
    for life in 0..LIVES {
        let server = start();
        let before = place.notes().len();
        fall(&server, &loopback_socket(), life * 10_000 + 1..life * 10_000 + 1 + FALL);
        // Another moment each time: in the first rush, in the middle, near the end.
        let enough = before + [1, 37, 120, 5, 149, 80, 12, 60][life as usize % 8];
        assert!(wait_for(|| (place.notes().len() >= enough).then_some(())).is_some(), "within {LIMIT:?}");
        server.signal(Signal::Kill);
        drop(server);
    }
    let mut server = start();
    let mut more = 0;
    while place.notes().len() < 1_000 {
        let from = 1_000_000 + more * FALL;
        let enough = place.notes().len() + FALL as usize / 2;
        fall(&server, &loopback_socket(), from..from + FALL);
        more += 1;
        assert!(wait_for(|| (place.notes().len() >= enough).then_some(())).is_some(), "within {LIMIT:?}");
    }
    server.signal(Signal::Terminate);
    assert!(server.wait().success());
    let fired: HashSet<String> =
        records(&log, "fired").iter().map(|record| record["pid"].to_string()).collect();
    let done = place.notes();
    assert!(done.len() >= 1_000);
    let missing: Vec<_> = done.iter().filter(|pid| !fired.contains(*pid)).collect();
    assert!(missing.is_empty(), "done and not written down: {missing:?}");
    assert_eq!(done.iter().collect::<HashSet<_>>().len(), done.len(), "each once");
    let verified = verify(&log);
    assert!(verified.status.success(), "{}{}", verified.stdout, verified.stderr);
}

#[test]
fn a_disk_that_is_full_means_that_nothing_is_done_unless_the_operator_says_otherwise() {
    for goes_on in [false, true] {
        let place = Place::new();
        let mounted = place.path("disk");
        fs::create_dir(&mounted).unwrap();
        let Some(_disk) = SmallDisk::mount(&mounted) else { return skip("nothing can be mounted here") };
        let log = mounted.join("audit.log");
        let exec = place.note("{pid}");
        let options = Options::new().args(["--stall-after", "1h", "--recovery-exec", &exec]);
        let options = options.args(["--recovery-budget", "1000/1s", "--recovery-group-budget", "1000/1s"]);
        let mut options = options.args([Path::new("--audit-log"), &log]);
        if goes_on {
            options = options.args(["--recovery-without-audit"]);
        }
        let server = Server::start(options);
        // More than fit the page that the log has on the disk already.
        let agents: Vec<_> = (0..20).map(|_| AgentProcess::start(server.socket(), &[])).collect();
        server.await_agents("up", agents.len());
        let ballast = mounted.join("ballast");
        // What finds no room any more is no fault here.
        let _ = fs::write(&ballast, vec![0; 1 << 20]);
        for agent in &agents {
            agent.signal(Signal::Kill);
        }
        server.await_sample("varta_audit_missing_total", &[], |missing| missing >= 1.0);
        let all_done = || (place.notes().len() == agents.len()).then_some(());
        if goes_on {
            assert!(wait_for(all_done).is_some(), "{:?}", place.notes());
            continue;
        }
        let reason = [("reason", "no_trail")];
        server.await_sample("varta_recovery_refused_total", &reason, |refused| refused >= 1.0);
        let fired: Vec<_> = records(&log, "fired").iter().map(|record| record["pid"].to_string()).collect();
        assert!(place.notes().iter().all(|pid| fired.contains(pid)), "{fired:?}");
        fs::remove_file(&ballast).unwrap();
        assert!(wait_for(all_done).is_some(), "when there is room again: {:?}", place.notes());
        assert!(verify(&log).status.success());
    }
}

//! The audit log of recovery: every action is on the disk before it is done, whatever happens to the disk and
//! the server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::HashSet;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use serde_json::Value;
use varta_integration_tests::{
    Ended, Options, Scratch, Server, Signal, SmallDisk, agent, loopback_socket, metric, run_server,
    wait_until,
};
use varta_proto::{Frame, Status};

/// A command that appends a word to the notes.
fn note(scratch: &Scratch, word: &str) -> String {
    format!("/bin/sh -c 'echo $0 >> {}' {word}", scratch.path("notes").display())
}

/// The words that commands have written.
fn notes(scratch: &Scratch) -> Vec<String> {
    scratch.lines("notes")
}

#[track_caller]
fn await_notes(scratch: &Scratch, count: usize) {
    wait_until(&format!("there are {count} notes"), || notes(scratch).len() >= count);
}

fn verify(log: &Path) -> Ended {
    run_server([Path::new("audit"), Path::new("verify"), log])
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
fn an_action_is_recorded_with_its_outcome() {
    let scratch = Scratch::make();
    let log = scratch.path("audit.log");
    let exec = "/bin/sh -c 'echo so it goes; exit 3' {pid}";
    let options = Options::from(["--stall-after", "1h", "--recovery-exec", exec]).path("--audit-log", &log);
    let once = ["--recovery-attempts", "1", "--recovery-debounce", "0s", "--recovery-backoff", "1ms"];
    let mut server = Server::start(options.args(once));
    let worker = server.start_agent(&["--name", "billing"]);
    worker.signal(Signal::Kill);
    wait_until("the end is in the log", || records(&log, "given_up").len() == 1);
    server.stop();
    let [fired, outcome] = ["fired", "outcome"].map(|event| records(&log, event).remove(0));
    for record in [&fired, &outcome] {
        assert_eq!(
            (&record["agent"], &record["state"], &record["cause"]),
            (&"billing".into(), &"down".into(), &"killed".into())
        );
        assert_eq!(record["pid"], worker.pid());
        assert!(record["start_time"].is_u64() && record["attempt"] == 1 && record["step"] == 1);
    }
    assert_eq!(fired["command"][0], "/bin/sh");
    assert_eq!(fired["command"][3], worker.pid().to_string());
    assert_eq!((&outcome["result"], &outcome["exit_code"]), (&"failed".into(), &3.into()));
    assert_eq!(outcome["output"], "so it goes\n");
    assert!(outcome["duration_ms"].is_u64());
    assert!(verify(&log).status.success(), "{}", verify(&log).stderr);
}

/// Sends one beat of each of these agents, which are of another host and silent after it.
fn beat_once(server: &Server, socket: &UdpSocket, pids: std::ops::Range<u32>) {
    for pid in pids {
        let frame = Frame::new(Status::Ok, pid, 1, 1, 0);
        socket.send_to(&frame.to_bytes(), server.udp_address(0)).unwrap();
    }
}

#[test]
fn a_server_that_is_killed_at_any_moment_has_written_down_all_that_it_did() {
    const LIVES: u32 = 8;
    /// So many agents fall silent at a time.
    const AGENTS: u32 = 150;
    let scratch = Scratch::make();
    let log = scratch.path("audit.log");
    let rules = format!(
        "stall-after = '100ms'\nrecovery-attempts = 1\nallow-recovery-for-remote = true\n\
         recovery-budget = '1000000/1s'\nrecovery-group-budget = '1000000/1s'\n\
         audit-limit = 200_000\naudit-keep = 0\nrecovery-exec = \"{}\"\n",
        note(&scratch, "{pid}")
    );
    let start = || {
        let options = Options::new().udp("127.0.0.1:0").config(&scratch, &rules);
        Server::start(options.path("--audit-log", &log))
    };
    for life in 0..LIVES {
        let mut server = start();
        let before = notes(&scratch).len();
        beat_once(&server, &loopback_socket(), life * 10_000 + 1..life * 10_000 + 1 + AGENTS);
        // Another moment each time: in the first rush, in the middle, near the end.
        let enough = before + [1, 37, 120, 5, 149, 80, 12, 60][life as usize % 8];
        await_notes(&scratch, enough);
        server.kill();
    }
    let mut server = start();
    let mut more = 0;
    while notes(&scratch).len() < 1_000 {
        let from = 1_000_000 + more * AGENTS;
        let enough = notes(&scratch).len() + AGENTS as usize / 2;
        beat_once(&server, &loopback_socket(), from..from + AGENTS);
        more += 1;
        await_notes(&scratch, enough);
    }
    server.stop();
    let fired: HashSet<String> =
        records(&log, "fired").iter().map(|record| record["pid"].to_string()).collect();
    let done = notes(&scratch);
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
        let scratch = Scratch::make();
        let Some(disk) = SmallDisk::mount(&scratch) else { return };
        let log = disk.path("audit.log");
        let exec = note(&scratch, "{pid}");
        let options = Options::from(["--stall-after", "1h", "--recovery-exec", &exec]);
        let options = options.args(["--recovery-budget", "1000/1s", "--recovery-group-budget", "1000/1s"]);
        let mut options = options.path("--audit-log", &log);
        if goes_on {
            options = options.args(["--recovery-without-audit"]);
        }
        let server = Server::start(options);
        // More than fit the page that the log has on the disk already.
        let workers = server.start_agents(20, &[]);
        disk.fill();
        for worker in &workers {
            worker.signal(Signal::Kill);
        }
        server.expect(metric("varta_audit_missing_total").at_least(1.0));
        let all_done = || notes(&scratch).len() == workers.len();
        if goes_on {
            wait_until("all is done", all_done);
            continue;
        }
        server.expect(metric("varta_recovery_refused_total").with("reason", "no_trail").at_least(1.0));
        let fired: Vec<_> = records(&log, "fired").iter().map(|record| record["pid"].to_string()).collect();
        assert!(notes(&scratch).iter().all(|pid| fired.contains(pid)), "{fired:?}");
        disk.make_room();
        wait_until("all is done when there is room again", all_done);
        assert!(verify(&log).status.success());
    }
}

#[test]
fn after_a_restart_attempts_are_remembered_and_others_that_are_still_in_a_bad_state_are_acted_on() {
    let scratch = Scratch::make();
    let config = |names: &[&str]| {
        let rule = |name: &&str| {
            let command = note(&scratch, name);
            format!(
                "[[recovery]]\nname = \"{name}\"\nattempts = 1\ndebounce = \"0s\"\nbackoff = \"1ms\"\nexec = {command:?}\n"
            )
        };
        scratch.write("config.toml", &names.iter().map(rule).collect::<String>());
    };
    let options = || {
        let options = Options::from(["--stall-after", "1s", "--replaced-within", "0s"]).in_scratch(&scratch);
        options.path("--config", &scratch.path("config.toml"))
    };
    config(&["tried"]);
    let mut server = Server::start(options());
    let [tried, other] = ["tried", "other"].map(|name| server.start_agent(&["--name", name]));
    for worker in [&tried, &other] {
        worker.signal(Signal::Stop);
        server.expect(agent(worker).stalled());
    }
    let given_up = |count| metric("varta_recovery_refused_total").with("reason", "given_up").is(count);
    server.expect(given_up(1.0));
    server.stop();

    config(&["tried", "other"]);
    let server = Server::start(options());
    server.expect(given_up(1.0));
    assert_eq!(notes(&scratch), ["tried", "other"]);
    let told =
        server.log().lines().iter().filter(|line| line.contains("given up: ")).cloned().collect::<Vec<_>>();
    assert!(told.len() == 1 && told[0].contains("other"), "{told:?}");
}

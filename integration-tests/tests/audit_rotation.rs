//! The audit log and the program that rotates files: as docs/AUDIT.md recommends it, and as others do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use varta_integration_tests::{
    AgentProcess, Ended, Options, Scratch, Server, Signal, foreign, line_with, metric, run_server, wait_until,
};

/// Has recovery act on everybody at once.
const AT_ONCE: [&str; 4] = ["--stall-after", "1h", "--recovery-debounce", "0s"];
const EXEC: [&str; 2] = ["--recovery-exec", "/bin/true {pid}"];

struct World {
    scratch: Scratch,
    log: PathBuf,
}

impl World {
    fn new() -> Self {
        let scratch = Scratch::make();
        let log = scratch.path("audit.log");
        World { scratch, log }
    }

    fn start(&self, more: &[&str]) -> Server {
        Server::start(
            Options::from(AT_ONCE).args(EXEC).args(more.iter().copied()).path("--audit-log", &self.log),
        )
    }

    /// Runs logrotate with this configuration, in which the path is that of the log.
    #[track_caller]
    fn rotate(&self, mut logrotate: Command, configuration: &str) {
        let text = configuration.replace("/var/lib/varta/audit.log", self.log.to_str().unwrap());
        assert!(text.contains(self.log.to_str().unwrap()), "{configuration}");
        let path = self.scratch.write("logrotate.conf", &text);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let status =
            logrotate.arg("--force").arg("--state").arg(self.scratch.path("status")).arg(path).status();
        assert!(status.unwrap().success());
    }

    /// All records, in all files of the log.
    fn records(&self) -> Vec<Value> {
        let older = (1..10).rev().map(|number| PathBuf::from(format!("{}.{number}", self.log.display())));
        let texts = older.chain([self.log.clone()]).filter_map(|file| fs::read_to_string(file).ok());
        let lines: Vec<String> =
            texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn count(&self, event: &str) -> usize {
        self.records().iter().filter(|record| record["event"] == event).count()
    }

    /// Has a worker killed, and waits until the `n`th action about one is recorded with its outcome.
    #[track_caller]
    fn act(&self, server: &Server, n: usize) {
        let worker = server.start_agent(&["--name", &format!("billing-{n}")]);
        worker.signal(Signal::Kill);
        wait_until(&format!("action {n} is recorded"), || self.count("outcome") >= n);
    }

    fn verify(&self) -> Ended {
        run_server([Path::new("audit"), Path::new("verify"), Path::new("--from-start"), &self.log])
    }

    #[track_caller]
    fn assert_whole(&self) {
        let ended = self.verify();
        assert!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
    }
}

/// The configuration that the documentation recommends.
fn recommended() -> String {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/AUDIT.md")).unwrap();
    let (_, text) = page.split_once("```logrotate\n").expect("the page has a configuration");
    text.split("```").next().unwrap().to_owned()
}

#[test]
fn the_recommended_rotation_keeps_the_log_whole_also_over_a_restart() {
    let Some(logrotate) = foreign::installed("logrotate") else { return };
    let world = World::new();
    let mut server = world.start(&[]);
    world.act(&server, 1);
    world.rotate(logrotate, &recommended());
    world.act(&server, 2);
    world.assert_whole();
    world.rotate(foreign::installed("logrotate").unwrap(), &recommended());
    server.kill();
    let server = world.start(&[]);
    world.act(&server, 3);
    world.assert_whole();
    assert_eq!(server.get("/readyz").body, "ready\n");
}

#[test]
fn a_log_that_copytruncate_empties_is_gone_on_with_and_that_is_told() {
    let Some(logrotate) = foreign::installed("logrotate") else { return };
    let world = World::new();
    let mut server = world.start(&[]);
    world.act(&server, 1);
    world.rotate(logrotate, "/var/lib/varta/audit.log {\n  rotate 9\n  copytruncate\n  nodateext\n}\n");
    assert_eq!(fs::metadata(&world.log).unwrap().len(), 0);
    world.act(&server, 2);
    server.expect(line_with("another program has cut it off"));
    server.expect(metric("varta_files_replaced_total").with("part", "audit").at_least(1.0));
    assert_eq!(world.count("cut_off"), 1);
    world.assert_whole();
    server.stop();
    let server = world.start(&[]);
    world.act(&server, 3);
    world.assert_whole();
}

#[test]
fn a_server_with_an_emptied_log_watches_acts_on_nothing_and_goes_on_when_that_was_decided() {
    let world = World::new();
    let mut server = world.start(&[]);
    world.act(&server, 1);
    server.stop();
    fs::write(&world.log, "").unwrap();
    let server = world.start(&[]);
    server.expect(line_with("the audit log cannot be continued"));
    server.expect(metric("varta_faults").with("part", "audit").is(1.0));
    let ready = server.get("/readyz");
    assert_eq!(ready.status, 200);
    assert!(
        ready.body.starts_with("ready\naudit: ") && ready.body.contains("audit restart"),
        "{}",
        ready.body
    );
    let worker = server.start_agent(&["--name", "billing-2"]);
    worker.signal(Signal::Kill);
    server.expect(metric("varta_recovery_refused_total").with("reason", "no_trail").at_least(1.0));
    assert_eq!(fs::read_to_string(&world.log).unwrap(), "");

    let log = world.log.to_str().unwrap();
    let ended = run_server(["audit", "restart", log, "--why", "somebody emptied it"]);
    assert!(ended.status.success(), "{}", ended.stderr);
    server.expect(metric("varta_faults").with("part", "audit").is(0.0));
    assert_eq!(server.get("/readyz").body, "ready\n");
    world.act(&server, 1);
    let restarted = world.records().into_iter().find(|record| record["event"] == "restarted").unwrap();
    assert_eq!(restarted["why"], "somebody emptied it");
    world.assert_whole();
}

#[test]
fn who_said_that_actions_need_no_record_gets_them_also_with_a_broken_log() {
    let world = World::new();
    world.start(&[]).stop();
    fs::write(&world.log, "").unwrap();
    let server = world.start(&["--recovery-without-audit"]);
    let worker: AgentProcess = server.start_agent(&["--name", "billing"]);
    worker.signal(Signal::Kill);
    server.expect(
        metric("varta_recovery_actions_total").with("action", "command").with("result", "done").at_least(1.0),
    );
    server.expect(metric("varta_audit_missing_total").at_least(1.0));
}

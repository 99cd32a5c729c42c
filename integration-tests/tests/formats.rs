//! Files that outlive a server: this program reads those of each release, and refuses those of a newer one and leaves
//! them as they are. docs/FORMATS.md has the rule, data/formats/README.md says where the files come from.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ring::digest;
use serde_json::Value;
use tempfile::TempDir;
use varta_integration_tests::{
    AgentProcess, Ended, LIMIT, Network, Options, Receiver, RemoteAgent, Server, Signal, agent,
    loopback_socket, metric, run_to_its_end, send_from, server_command, wait_for, write_secret,
};
use varta_proto::Status;

/// The releases whose files are kept.
const RELEASES: [&str; 1] = ["0.1"];
/// No deadline comes in the lifetime of a test.
const NO_DEADLINE: [&str; 2] = ["--stall-after", "1h"];
/// A version that no format has yet.
const NEWER: u8 = 99;

// What `it-make-formats` has put into the files.
const BILLING: u32 = 4_242;
const MAIL: u32 = 4_243;
const LEDGER: u32 = 4_245;
const AUDIT_KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A copy of a release's files, with what no checkout keeps: they are closed to others.
struct Files {
    directory: TempDir,
}

impl Files {
    fn of(release: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("varta-it-").tempdir().unwrap();
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/formats").join(release);
        copy(&kept, directory.path());
        Files { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    #[track_caller]
    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.read(name)).unwrap()
    }

    /// A server on the state directory, and on nothing else of the release.
    fn on_state(&self) -> Options {
        Options::from(NO_DEADLINE).args([Path::new("--state-dir"), &self.path("state")])
    }

    /// The content of every file.
    fn content(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut content = BTreeMap::new();
        read_all(self.directory.path(), &mut content);
        content
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            fs::set_permissions(&target, fs::Permissions::from_mode(0o700)).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

fn read_all(directory: &Path, content: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, content);
        } else {
            content.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
}

#[track_caller]
fn stop(mut server: Server) {
    server.signal(Signal::Terminate);
    assert!(server.wait().success());
}

#[track_caller]
fn await_line(server: &Server, start: &str) {
    let found = wait_for(|| server.log().find(start));
    assert!(found.is_some(), "not in the log within {LIMIT:?}: {start}");
}

/// Has an agent that a test plays beat with this status.
fn report(agent: &mut RemoteAgent, status: Status) {
    let frame = agent.next_frame(status).to_bytes();
    let datagram = agent.wrap(&frame);
    agent.send(&datagram);
}

/// Has a new agent report that it is critical.
fn fall(server: &Server, name: &str) -> AgentProcess {
    let mut agent = AgentProcess::start(server.socket(), &["--name", name]);
    agent.ask("status critical");
    agent
}

/// Kinds and agents of the webhook's notices, in order.
#[track_caller]
fn notices(receiver: &Receiver, count: usize) -> Vec<String> {
    let requests = receiver.await_requests(count);
    let notices = requests.iter().map(|request| {
        let notice = request.json();
        format!("{} {}", notice["kind"].as_str().unwrap(), notice["agent"]["name"].as_str().unwrap())
    });
    notices.collect()
}

#[test]
fn agents_of_each_release_are_known_and_what_was_sealed_for_it_is_refused() {
    for release in RELEASES {
        let files = Files::of(release);
        let options = files.on_state().udp("127.0.0.1:0").secure_udp("127.0.0.1:0");
        let server = Server::start(options.key_of(Network::SharedKey));
        await_line(&server, "4 agents are known from before this server's start");
        let scrape = server.await_agents("expected", 4);
        // Its process was one of another boot, and another of its name may come.
        assert_eq!(scrape.of_agent("varta_beats_total", BILLING), 10.0);
        assert_eq!(scrape.of_agent("varta_agent_stall_after_seconds", LEDGER), 1_800.0);
        assert_eq!(scrape.of_agent("varta_beats_total", LEDGER), 2.0);

        let sealed = String::from_utf8(files.read("sealed.hex")).unwrap();
        for line in sealed.lines() {
            let digits = line.as_bytes().chunks(2).map(|digits| str::from_utf8(digits).unwrap());
            let datagram: Vec<u8> = digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect();
            send_from(&loopback_socket(), server.secure_udp_address(0), &datagram);
        }
        assert_eq!(server.await_datagrams(3.0).outcome("replayed"), 3.0);

        RemoteAgent::new(Network::Plain, server.udp_address(0), LEDGER).beat();
        let up = server.expect(agent(LEDGER).up().because("recovered"));
        assert_eq!((up.agent.as_str(), up.from.as_str()), ("ledger", "expected"));
        let scrape = server.scrape();
        assert_eq!(scrape.of_agent("varta_beats_total", LEDGER), 3.0);
        assert_eq!(scrape.value("varta_state_write_errors_total", &[]), 0.0);
        stop(server);
        assert!(!files.path("state/varta.db.corrupt").exists());
    }
}

#[test]
fn alerts_of_each_release_continue_and_are_not_sent_again() {
    for release in RELEASES {
        let files = Files::of(release);
        let kept = files.json("state/alerts.json")["alerts"][0]["alert"].clone();
        let [alertmanager, webhook] = [(); 2].map(|()| Receiver::start([]));
        let options = files.on_state().udp("127.0.0.1:0").args([
            "--alertmanager",
            &alertmanager.url(""),
            "--webhook",
            &webhook.url("/"),
            "--alert-give-up-after",
            "1s",
        ]);
        let server = Server::start(options);
        await_line(&server, "2 alerts are known from before this server's start");
        let posted = |field: &str, is_it: &dyn Fn(&Value) -> bool| {
            alertmanager.await_that(&format!("an alert of mail with another {field}"), |requests| {
                let alerts = requests.iter().flat_map(|request| request.json().as_array().unwrap().clone());
                let mut of_it = alerts.filter(|alert| alert["labels"] == kept["labels"]);
                of_it.any(|alert| alert["startsAt"] == kept["starts_at"] && is_it(&alert))
            })
        };
        posted("beginning", &|_| true);
        // That of an agent that was well again, and whose end the Alertmanager did not get in time.
        let given_up = metric("varta_notifications_total")
            .with("destination", "alertmanager")
            .with("outcome", "given_up");
        server.expect(given_up.is(1.0));

        let mut mail = RemoteAgent::new(Network::Plain, server.udp_address(0), MAIL);
        report(&mut mail, Status::Critical);
        let up = server.expect(agent(MAIL).up().because("recovered"));
        assert_eq!((up.agent.as_str(), up.from.as_str()), ("mail", "expected"));
        let _other = fall(&server, "other");
        assert_eq!(notices(&webhook, 1), ["firing other"]);
        server.expect(metric("varta_alerts_firing").is(2.0));
        report(&mut mail, Status::Ok);
        assert_eq!(notices(&webhook, 2)[1], "resolved mail");
        posted("end", &|alert| alert["annotations"]["resolved"].is_string());
        stop(server);
        assert!(!files.path("state/alerts.json.corrupt").exists());
    }
}

#[test]
fn pauses_of_each_release_are_in_force() {
    for release in RELEASES {
        let files = Files::of(release);
        // The pauses alone.
        for other in ["state/varta.db", "state/alerts.json"] {
            fs::remove_file(files.path(other)).unwrap();
        }
        let kept = files.json("state/pauses.json")["pauses"][0].clone();
        let webhook = Receiver::start([]);
        let server = Server::start(files.on_state().args(["--webhook", &webhook.url("/")]));
        await_line(&server, "batch-* is paused until 2127-");
        let mut command = server_command();
        command.env("VARTA_SOCKET", server.socket()).args(["pauses", "--json"]);
        let ended = run_to_its_end(command);
        let listed: Value = serde_json::from_str(&ended.stdout).unwrap();
        let mut pause = listed["pauses"][0].clone();
        assert_eq!(pause.as_object_mut().unwrap().remove("in_force"), Some(true.into()));
        assert_eq!((&pause, listed["pauses"].as_array().unwrap().len()), (&kept, 1), "{listed}");
        let _paused = fall(&server, "batch-1");
        let _other = fall(&server, "other");
        let sent = notices(&webhook, 1);
        assert_eq!(sent, ["firing other"]);
        stop(server);
        assert!(!files.path("state/pauses.json.corrupt").exists());
    }
}

/// Verifies an audit log of a release.
fn verify(files: &Files, kind: &str, arguments: &[&str]) -> Ended {
    let mut command = server_command();
    command.args(["audit", "verify"]).arg(files.path(&format!("audit/{kind}/audit.log"))).args(arguments);
    if kind == "keyed" {
        command.arg("--key-file").arg(files.path("audit.key"));
    }
    run_to_its_end(command)
}

#[test]
fn audit_logs_of_each_release_are_verified_and_continued() {
    for (release, kind) in RELEASES.iter().flat_map(|release| ["plain", "keyed"].map(|kind| (release, kind)))
    {
        let files = Files::of(release);
        let key = write_secret(files.directory.path(), "audit.key", AUDIT_KEY);
        let last = String::from_utf8(files.read(&format!("audit/{kind}/last"))).unwrap();
        let arguments = ["--from-start", "--json", "--expect-last", last.trim()];
        let verified = || {
            let ended = verify(&files, kind, &arguments);
            assert!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
            serde_json::from_str::<Value>(&ended.stdout).unwrap()["records"].as_u64().unwrap()
        };
        let before = files.content();
        let records = verified();

        let name = format!("audit/{kind}/audit.log");
        let options = Options::from(NO_DEADLINE).args([Path::new("--audit-log"), &files.path(&name)]);
        let mut options = options.args([
            "--recovery-exec",
            "/bin/true",
            "--recovery-debounce",
            "0s",
            "--recovery-attempts",
            "1",
        ]);
        if kind == "keyed" {
            options = options.args([Path::new("--audit-key-file"), &key]);
        }
        let server = Server::start(options);
        let agent = AgentProcess::start(server.socket(), &[]);
        server.await_agents("up", 1);
        agent.signal(Signal::Kill);
        let done = metric("varta_recovery_actions_total").with("action", "command").with("result", "done");
        server.expect(done.is(1.0));
        stop(server);

        assert!(verified() >= records + 2, "{kind}");
        let after = files.content();
        for (path, bytes) in before.iter().filter(|(path, _)| !path.ends_with("audit.log.head")) {
            assert!(after[path].starts_with(bytes), "{} was changed", path.display());
        }
    }
}

/// Runs a replay where the file is, so that it has the name that it had.
fn replay(files: &Files, arguments: &[&str]) -> Ended {
    let mut command = server_command();
    command.current_dir(files.directory.path()).args(["replay", "recording.varta"]).args(arguments);
    run_to_its_end(command)
}

#[test]
fn a_replay_of_a_recording_of_each_release_finds_what_it_found_then() {
    for release in RELEASES {
        let files = Files::of(release);
        let replays = files.json("replays.json");
        let replays = replays.as_array().unwrap();
        for kept in replays {
            let arguments = kept["arguments"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
            let arguments: Vec<_> = ["--json"].into_iter().chain(arguments).collect();
            let ended = replay(&files, &arguments);
            assert!(ended.status.success(), "{}", ended.stderr);
            let report: Value = serde_json::from_str(&ended.stdout).unwrap();
            assert_eq!(report, kept["report"], "{arguments:?}");
        }
        assert_eq!(replays.len(), 4, "{release}");
    }
}

/// Events by what was concluded and why, each with its keys.
fn keys(lines: &str) -> BTreeMap<String, BTreeSet<String>> {
    let event = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let kind = format!("{} {} from {}", event["to"], event["cause"], event["from"]);
        (kind, event.as_object().unwrap().keys().cloned().collect())
    };
    lines.lines().map(event).collect()
}

#[test]
fn events_are_appended_to_the_file_of_each_release_and_have_all_of_its_keys() {
    for release in RELEASES {
        let files = Files::of(release);
        let before = String::from_utf8(files.read("events.json")).unwrap();
        let rules = files.path("varta.toml");
        fs::write(&rules, "[[rule]]\nname = 'stopped'\nstall-after = '2s'\n").unwrap();
        let options = Options::from(NO_DEADLINE).args([Path::new("--config"), &rules]);
        let server = Server::start(options.args([Path::new("--events-file"), &files.path("events.json")]));
        let start = |name| {
            let process = AgentProcess::start(server.socket(), &["--name", name]);
            server.expect(agent(&process).up());
            process
        };
        let stopped = start("stopped");
        stopped.signal(Signal::Stop);
        server.expect(agent(stopped.pid()).stalled().because("stopped"));
        stopped.signal(Signal::Continue);
        server.expect(agent(stopped.pid()).up().because("recovered"));
        let [killed, mut left, mut failed] = ["killed", "left", "failed"].map(start);
        killed.signal(Signal::Kill);
        server.expect(agent(killed.pid()).down().because("killed"));
        left.ask("status degraded");
        left.ask("goodbye");
        server.expect(agent(left.pid()).gone().because("goodbye"));
        failed.ask("exit 3");
        server.expect(agent(failed.pid()).down().because("exited"));
        stop(server);

        let all = String::from_utf8(files.read("events.json")).unwrap();
        let appended = all.strip_prefix(&before).expect("nothing was changed");
        let (old, new) = (keys(&before), keys(appended));
        assert_eq!(old.len(), 7, "{old:?}");
        for (kind, old) in old {
            let new = new.get(&kind).unwrap_or_else(|| panic!("there is no event {kind} in\n{appended}"));
            assert!(old.is_subset(new), "{kind}: {old:?}, and now {new:?}");
        }
    }
}

/// Runs a program that must refuse what it finds, and change nothing. Gives what it says.
#[track_caller]
fn refused(files: &Files, command: Command) -> String {
    let before = files.content();
    let ended = run_to_its_end(command);
    assert_eq!(ended.status.code(), Some(1), "{}{}", ended.stdout, ended.stderr);
    let mut after = files.content();
    // The lock of a state directory is there as long as that is.
    after.remove(&files.path("state/varta.lock"));
    let names = |content: &BTreeMap<PathBuf, Vec<u8>>| content.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before));
    for (path, bytes) in &before {
        assert!(after[path] == *bytes, "{} was changed", path.display());
    }
    ended.stderr
}

/// A server that has a socket of its own and does not start.
fn starting(files: &Files, arguments: &[&str]) -> Command {
    let mut command = server_command();
    command.env("VARTA_METRICS_ADDR", "none").arg("--socket").arg(files.path("varta.sock")).args(arguments);
    command
}

/// What is said of a newer file of the state directory.
fn newer_state(path: &Path, what: &str) -> String {
    format!(
        "{}: was written by a newer varta-server (version {NEWER} of its {what}); start that one, or give this one another \
         directory with --state-dir",
        path.display()
    )
}

#[test]
fn a_newer_database_is_refused_and_left_as_it_is() {
    let files = Files::of("0.1");
    let path = files.path("state/varta.db");
    let mut bytes = files.read("state/varta.db");
    // SQLite's user_version.
    bytes[60..64].copy_from_slice(&u32::from(NEWER).to_be_bytes());
    fs::write(&path, bytes).unwrap();
    let mut command = starting(&files, &[]);
    command.arg("--state-dir").arg(files.path("state"));
    let said = refused(&files, command);
    assert!(said.contains(&newer_state(&path, "tables")), "{said}");
}

#[test]
fn newer_alerts_pauses_and_instances_are_refused_and_left_as_they_are() {
    let files = [
        ("alerts.json", "version"),
        ("recovery.json", "version"),
        ("pauses.json", "v"),
        ("instance.json", "v"),
    ];
    for (name, key) in files {
        let files = Files::of("0.1");
        let name = format!("state/{name}");
        // The release had no such file.
        let is_new = !files.path(&name).exists();
        let mut content = if is_new { serde_json::json!({}) } else { files.json(&name) };
        content[key] = NEWER.into();
        content["more"] = "that nobody knows yet".into();
        fs::write(files.path(&name), content.to_string()).unwrap();
        let options = ["--webhook", "http://127.0.0.1:1/", "--recovery-exec", "/bin/true"];
        let mut command = starting(&files, &options);
        command.arg("--state-dir").arg(files.path("state"));
        let said = refused(&files, command);
        assert!(said.contains(&newer_state(&files.path(&name), "format")), "{said}");
    }
}

fn sha256(body: &str) -> String {
    let hash = digest::digest(&digest::SHA256, body.as_bytes());
    hash.as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[test]
fn a_newer_audit_log_is_refused_and_left_as_it_is() {
    let files = Files::of("0.1");
    let log = files.path("audit/plain/audit.log");
    // As a newer server would begin one: it is whole, and its head fits.
    let text = String::from_utf8(files.read("audit/plain/audit.log")).unwrap();
    let first = text.lines().next().unwrap().replace("\"format\":1", &format!("\"format\":{NEWER}"));
    let body = first.split_once(",\"hash\":").unwrap().0;
    let hash = sha256(body);
    fs::write(&log, format!("{body},\"hash\":\"{hash}\"}}\n")).unwrap();
    let body = format!("{{\"seq\":1,\"last\":\"{hash}\"");
    let head = format!("{body},\"hash\":\"{}\"}}", sha256(&body));
    fs::write(files.path("audit/plain/audit.log.head"), format!("{head:191}\n")).unwrap();

    let fault = format!(
        "{}: line 1, record 1: a newer varta-server wrote this (version {NEWER} of the format; this one knows 1); use that \
         one",
        log.display()
    );
    let mut command = starting(&files, &["--recovery-exec", "/bin/true"]);
    command.arg("--audit-log").arg(&log);
    let said = refused(&files, command);
    assert!(said.contains(&format!("{fault}, or give this one another file with --audit-log")), "{said}");

    let ended = verify(&files, "plain", &["--json"]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains(&fault), "{}", ended.stderr);
    let found: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&found["ok"], &found["broken"]["fault"]), (&false.into(), &"newer".into()), "{found}");
}

#[test]
fn a_newer_recording_is_refused_and_left_as_it_is() {
    let files = Files::of("0.1");
    let mut bytes = files.read("recording.varta");
    bytes[8] = NEWER;
    fs::write(files.path("recording.varta"), bytes).unwrap();
    let mut command = server_command();
    command.arg("replay").arg(files.path("recording.varta"));
    let said = refused(&files, command);
    let expected = format!(
        "recording.varta: was written by another version of varta-server (version {NEWER} of its form; this one reads 1 to 5); \
         replay it with that one"
    );
    assert!(said.contains(&expected), "{said}");
}

/// The version of a format by the table of docs/FORMATS.md.
#[track_caller]
fn documented(file: &str) -> u64 {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/FORMATS.md");
    let page = fs::read_to_string(page).unwrap();
    let row = page.lines().find(|line| line.starts_with(&format!("| `{file}` |")));
    let row = row.unwrap_or_else(|| panic!("docs/FORMATS.md has no row for {file}"));
    let version = row.split('|').nth(2).unwrap().trim();
    version.parse().unwrap_or_else(|error| panic!("{version}: {error}"))
}

#[test]
fn what_the_program_writes_has_the_versions_that_the_page_of_formats_gives() {
    let directory = tempfile::Builder::new().prefix("varta-it-").tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let options = Options::from(NO_DEADLINE)
        .args([Path::new("--state-dir"), &path("state"), Path::new("--record"), &path("recording")])
        .args([Path::new("--audit-log"), &path("audit.log")])
        .args(["--webhook", "http://127.0.0.1:1/", "--recovery-exec", "/bin/true"]);
    let server = Server::start(options);
    let _agent = fall(&server, "billing");
    server.expect(metric("varta_alerts_firing").is(1.0));
    let mut command = server_command();
    command.env("VARTA_SOCKET", server.socket()).args(["pause", "batch-*", "--for", "1h"]);
    assert!(run_to_its_end(command).status.success());
    stop(server);

    let read = |name: &str| fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let json = |name: &str, key: &str| {
        let bytes = read(name);
        let first =
            if name.ends_with(".log") { bytes.split(|byte| *byte == b'\n').next().unwrap() } else { &bytes };
        serde_json::from_slice::<Value>(first).unwrap()[key].as_u64().unwrap()
    };
    let [.., version] = read("state/varta.db")[60..64] else { unreachable!("four bytes have a last one") };
    assert_eq!(u64::from(version), documented("varta.db"));
    assert_eq!(json("state/alerts.json", "version"), documented("alerts.json"));
    assert_eq!(json("state/recovery.json", "version"), documented("recovery.json"));
    assert_eq!(json("state/pauses.json", "v"), documented("pauses.json"));
    assert_eq!(json("state/instance.json", "v"), documented("instance.json"));
    assert_eq!(json("audit.log", "format"), documented("FILE of --audit-log"));
    assert_eq!(u64::from(read("recording")[8]), documented("FILE of --record"));
}

//! Metrics and startup log of a server with its defaults, and of one with every capability.

use std::collections::BTreeMap;
use std::fs;
use std::process;

use tempfile::TempDir;
use varta_integration_tests::{
    ANOTHER_KEY, Datagrams, MASTER_KEY, Options, Receiver, SHARED_KEY, Server, Signal, http, wait_for,
    write_secret,
};
use varta_proto::{Frame, Status};

use super::sandbox::assert_unchanged;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// The configuration file: one table of each kind.
const TABLES: &str = r#"
[[rule]]
name = "slow-*"
stall-after = "1m"

[[expected]]
name = "billing"
grace = "24h"

[[recovery]]
name = "billing"
steps = [{ notify = true }, { wait = "5s", signal = "TERM" }, { wait = "5s", exec = "/bin/sh -c true" }]

[[pause]]
name = "batch-*"
reason = "update"
"#;

/// A server with every capability. `--max-agents` and `--udp-receive-buffer` are so small that no host's
/// sysctls cause a warning.
struct FullServer {
    server: Server,
    alertmanager: Receiver,
    webhook: Receiver,
    directory: TempDir,
}

impl FullServer {
    fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("varta-it-").tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let secret =
            |name: &str, text: &str| write_secret(directory.path(), name, text).display().to_string();
        let (alertmanager, webhook) = (Receiver::start([]), Receiver::start([]));
        fs::write(directory.path().join("varta.toml"), TABLES).unwrap();
        let options = [
            ("--config", path("varta.toml")),
            ("--max-agents", "10".to_owned()),
            ("--state-dir", path("state")),
            ("--record", path("recording")),
            ("--events-file", path("events.jsonl")),
            ("--audit-log", path("audit.log")),
            ("--audit-key-file", secret("audit.key", TOKEN)),
            ("--recovery-exec", "/bin/sh -c true {unit}".to_owned()),
            ("--alertmanager", alertmanager.url("")),
            ("--webhook", webhook.url("/hook/secret")),
            ("--webhook-key-file", secret("webhook.key", TOKEN)),
            ("--control-socket", path("control.sock")),
            ("--udp", "127.0.0.1:0".to_owned()),
            ("--secure-udp", "127.0.0.1:0".to_owned()),
            ("--udp-receive-buffer", "65536".to_owned()),
            ("--key-file", secret("shared.key", SHARED_KEY)),
            ("--accepted-key-file", secret("accepted.keys", ANOTHER_KEY)),
            ("--master-key-file", secret("master.key", MASTER_KEY)),
            ("--metrics-token-file", secret("token", TOKEN)),
            ("--detector", "phi".to_owned()),
        ];
        let options = options.into_iter().flat_map(|(option, value)| [option.to_owned(), value]);
        let server = Server::start(Options::new().args(options).args(["--allow-recovery-for-remote"]));
        FullServer { server, alertmanager, webhook, directory }
    }

    fn metrics(&self) -> String {
        let bearer = format!("Bearer {TOKEN}");
        let answer = http::get(self.server.address(), "/metrics", &[("Authorization", &bearer)]).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }
}

/// A family of metrics: its type, its help, and its rows without their values.
#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    rows: Vec<String>,
}

/// The families by their names.
fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
            last = name.to_owned();
            families.entry(last.clone()).or_default().help = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' '))
        {
            last = name.to_owned();
            families.entry(last.clone()).or_default().kind = kind.to_owned();
        } else if let Some((series, _)) = line.rsplit_once(' ') {
            assert!(series.starts_with(&last), "{series} stands below {last}");
            let row = without_changing_values(series);
            let rows = &mut families.get_mut(&last).unwrap().rows;
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
    }
    families
}

/// A series without the label values that differ from run to run: those of agents and builds, and addresses.
fn without_changing_values(series: &str) -> String {
    let Some((name, labels)) = series.strip_suffix('}').and_then(|series| series.split_once('{')) else {
        return series.to_owned();
    };
    let is_of_agent = labels.contains("pid=\"");
    // Where this process runs depends on the host.
    let is_of_place = |label: &str| label.starts_with("cgroup=") || label.starts_with("container=");
    let labels = labels.split("\",").filter(|label| !(is_of_agent && is_of_place(label))).map(|label| {
        let (name, _) = label.split_once('=').unwrap();
        let changes = is_of_agent || ["agent", "version", "commit", "address"].contains(&name);
        if changes { name.to_owned() } else { format!("{}\"", label.trim_end_matches('"')) }
    });
    format!("{name}{{{}}}", labels.collect::<Vec<_>>().join(","))
}

fn names(text: &str) -> String {
    let line = |(name, Family { kind, help, .. }): (String, Family)| format!("{name} {kind}\n    {help}\n");
    families(text).into_iter().map(line).collect()
}

fn names_and_rows(text: &str) -> String {
    let family = |(name, Family { kind, help, mut rows }): (String, Family)| {
        rows.sort_unstable();
        let rows: String = rows.iter().map(|row| format!("    {row}\n")).collect();
        format!("{name} {kind}\n    {help}\n{rows}")
    };
    families(text).into_iter().map(family).collect()
}

/// Sends one beat of this process.
fn beat(server: &Server) {
    Datagrams::to(server.socket()).send(&Frame::new(Status::Ok, process::id(), 1, 1, 0).to_bytes());
}

#[test]
fn metrics_of_a_plain_start() {
    let server = Server::start(Options::new());
    assert_unchanged("metrics_plain", &names(&server.scrape().text));
}

#[test]
fn metrics_of_a_start_with_every_capability() {
    let full = FullServer::start();
    beat(&full.server);
    let accepted = "varta_agents{state=\"up\"} 1\n";
    let text = wait_for(|| Some(full.metrics()).filter(|text| text.contains(accepted)));
    let text = text.unwrap();
    assert_unchanged("metrics_full", &names_and_rows(&text));
    assert!(full.alertmanager.requests().is_empty() && full.webhook.requests().is_empty());
}

#[test]
fn log_of_a_start_with_every_capability() {
    let mut full = FullServer::start();
    let FullServer { server, alertmanager, webhook, directory } = &mut full;
    server.await_ready();
    let redacted = [
        (directory.path().display().to_string(), "DIR"),
        (server.directory().display().to_string(), "DIR"),
        (server.address().to_string(), "METRICS"),
        (server.udp_address(0).to_string(), "UDP"),
        (server.secure_udp_address(0).to_string(), "SECURE_UDP"),
        (alertmanager.address().to_string(), "ALERTMANAGER"),
        (webhook.address().to_string(), "WEBHOOK"),
    ];
    server.signal(Signal::Terminate);
    assert_eq!(server.wait().code(), Some(0));
    let lines = server.log().lines();
    assert_unchanged("log_full", &super::running::readable(&lines, &redacted));
}

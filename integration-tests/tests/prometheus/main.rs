//! The rules of `deploy/prometheus` in a real Prometheus that scrapes real servers: each alert fires for its cause and
//! ends when that is over. With what their windows are, `promtool test rules` shows the same.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod agents;
mod dashboards;
mod rules;
mod server;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use varta_integration_tests::Prometheus;

/// The files of rules, and what each is replaced with so that nobody waits for minutes: windows and delays are short.
const RULES: [&str; 3] = ["agents.rules.yml", "server.rules.yml", "recording.rules.yml"];
const SHORT: [(&str, &str); 9] = [
    ("[5m]", "[15s]"),
    ("[10m]", "[15s]"),
    ("[15m]", "[15s]"),
    ("[30m]", "[30s]"),
    ("[1h]", "[15s]"),
    ("[1d]", "[60s]"),
    ("keep_firing_for: 2m", "keep_firing_for: 1s"),
    ("for: 1m\n", "for: 1s\n"),
    ("for: 10m\n", "for: 1s\n"),
];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus")
}

fn read(name: &str) -> String {
    fs::read_to_string(directory().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A Prometheus that scrapes a server at such intervals, and evaluates the rules each second; `None` where there is
/// none to be had.
fn prometheus(server: SocketAddr, interval: &str) -> Option<Prometheus> {
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: ['*.rules.yml']\n\
         scrape_configs:\n\
         - job_name: varta\n\
         \x20 honor_labels: true\n\
         \x20 scrape_interval: {interval}\n\
         \x20 static_configs: [{{targets: ['{server}']}}]\n"
    );
    let rules = RULES.map(|name| {
        let text = SHORT.iter().fold(read(name), |text, (long, short)| text.replace(long, short));
        (name, text.replace("for: 5m\n", "for: 1s\n"))
    });
    let rules = rules.each_ref().map(|(name, text)| (*name, text.as_str()));
    let prometheus = Prometheus::start(&config, &rules)?;
    prometheus.await_alert("VartaDeadMansSwitch", &[]);
    Some(prometheus)
}

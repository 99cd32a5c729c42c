//! A real Prometheus that scrapes servers and evaluates rules.

use std::net::SocketAddr;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::foreign;
use crate::http;
use crate::receiver::Receiver;
use crate::retry::wait_until;
use crate::scratch::Scratch;

/// A Prometheus with its data, which is killed when this is dropped.
#[derive(Debug)]
pub struct Prometheus {
    address: SocketAddr,
    child: Child,
    _scratch: Scratch,
}

impl Prometheus {
    /// Starts one with this configuration and these files of rules beside it, each with a name; `None` where there is
    /// none to be had.
    #[must_use]
    #[track_caller]
    pub fn start(config: &str, rules: &[(&str, &str)]) -> Option<Self> {
        let mut command = foreign::installed("prometheus")?;
        let scratch = Scratch::make();
        for (name, text) in rules {
            scratch.write(name, text);
        }
        let config = scratch.write("prometheus.yml", config);
        let address = Receiver::nowhere();
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", scratch.path("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Some(Prometheus { address, child, _scratch: scratch })
    }

    /// Asks its API; `None` while it does not answer.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Value> {
        let answer = http::get(self.address, path, &[]).ok()?;
        let answer: Value = serde_json::from_str(&answer.body).ok()?;
        (answer["status"] == "success").then(|| answer["data"].clone())
    }

    /// The number of series that an expression has at present; 0 while it does not answer.
    #[must_use]
    pub fn count(&self, expression: &str) -> usize {
        let escaped: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let found = self.get(&format!("/api/v1/query?query={escaped}"));
        found.and_then(|data| Some(data["result"].as_array()?.len())).unwrap_or(0)
    }

    /// The alerts of a name that fire.
    #[must_use]
    pub fn firing(&self, name: &str) -> Vec<Value> {
        let Some(data) = self.get("/api/v1/alerts") else { return Vec::new() };
        let alerts = data["alerts"].as_array().cloned().unwrap_or_default();
        let is_wanted = |alert: &Value| alert["labels"]["alertname"] == name && alert["state"] == "firing";
        alerts.into_iter().filter(is_wanted).collect()
    }

    /// Waits until an alert of this name fires, with each of these labels, and gives it.
    #[track_caller]
    pub fn await_alert(&self, name: &str, labels: &[(&str, &str)]) -> Value {
        let find = || {
            let fits = |alert: &Value| labels.iter().all(|(label, value)| alert["labels"][label] == *value);
            self.firing(name).into_iter().find(fits)
        };
        wait_until(&format!("{name} fires for {labels:?}"), || find().is_some());
        let alert = find().unwrap_or_default();
        assert!(!alert.to_string().contains("error expanding template"), "{alert}");
        alert
    }

    /// Waits until no alert of this name with this label fires.
    #[track_caller]
    pub fn await_end(&self, name: &str, (label, value): (&str, &str)) {
        wait_until(&format!("{name} does not fire for {label}={value}"), || {
            // It answers.
            self.count("vector(1)") == 1
                && !self.firing(name).iter().any(|alert| alert["labels"][label] == value)
        });
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

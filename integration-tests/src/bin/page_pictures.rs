//! Draws the pictures of the page in docs/pictures, where what they show has changed:
//! `cargo run -p varta-integration-tests --all-features --bin it-pictures`. It needs what scripts/test installs for the tests
//! of the page.

#![allow(clippy::unwrap_used, reason = "a picture that cannot be drawn is missed")]

use std::path::Path;

use serde_json::{Value, json};
use varta_integration_tests::{AgentProcess, Browser, Look, Server, Signal, agent};

fn main() {
    const NAMES: [&str; 12] = [
        "api-1",
        "api-2",
        "billing",
        "gateway",
        "importer",
        "mailer",
        "report-writer",
        "scheduler",
        "search-indexer",
        "thumbnails-1",
        "thumbnails-2",
        "thumbnails-3",
    ];
    let server = Server::start(["--stall-after", "5s", "--replaced-within", "0s"]);
    let mut agents: Vec<AgentProcess> =
        NAMES.iter().map(|name| server.start_agent(&["--name", name, "--interval-ms", "1000"])).collect();
    for (number, agent) in agents.iter_mut().enumerate() {
        agent.ask(&format!("payload {}", 17 + number * 401 % 1000));
    }
    agents[1].ask("status degraded");
    agents[8].ask("status critical");
    agents[2].signal(Signal::Stop);
    agents[6].signal(Signal::Kill);
    agents[6].wait();
    server.expect(agent(&agents[2]).stalled());
    let Some(mut browser) = Browser::start() else { return };
    let pictures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/pictures"));
    for (look, name) in [
        (Look { height: 720, ..Look::DESK }, "page-light.png"),
        (Look { height: 720, ..Look::DARK }, "page-dark.png"),
        (Look::PHONE, "page-phone.png"),
    ] {
        browser.open(server.address(), "/", look);
        // No server of a test is a day old.
        browser.fake("**/api/v1/days?*", &a_day(&server, &NAMES));
        browser.await_text("#headline", "3 of 12 agents are in alarm.");
        browser.await_js(
            "[...document.querySelectorAll('#rows .strip')].every((strip) => strip.children.length > 0)",
        );
        browser.picture(&pictures.join(name));
    }
    browser.open(server.address(), "/", Look { width: 1000, height: 720, ..Look::DESK });
    browser.fake("**/api/v1/days?*", &a_day(&server, &NAMES));
    browser.await_text("#alarms", "stopped by a signal");
    browser.click("#alarms li:nth-child(3) button");
    browser.await_text("dialog .timeline", "first beat");
    browser.await_js("document.querySelector('dialog .strip').children.length > 0");
    browser.picture(&pictures.join("page-agent.png"));
}

/// A day of each agent, with some bad times.
fn a_day(server: &Server, names: &[&str]) -> Value {
    let list: Value = serde_json::from_str(&server.get("/api/v1/agents").body).unwrap();
    let days: Vec<Value> = list["agents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let hour = 3_600_000;
            let mut parts = vec![json!({ "from_ms": 0, "state": "up" })];
            let number = names.iter().position(|name| row["name"] == **name).unwrap();
            if number % 3 == 1 {
                let from = number * hour + hour / 3;
                parts.push(
                    json!({ "from_ms": from, "state": if number % 2 == 0 { "down" } else { "stalled" } }),
                );
                parts.push(json!({ "from_ms": from + hour / (1 + number % 4), "state": "up" }));
            }
            if row["state"] != "up" {
                parts.push(json!({ "from_ms": 24 * hour - 600_000, "state": row["state"] }));
            }
            json!({ "id": row["id"], "parts": parts })
        })
        .collect();
    json!({ "revision": list["revision"], "now": list["now"], "from": list["now"], "days": days })
}

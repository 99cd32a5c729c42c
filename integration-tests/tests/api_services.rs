//! The API about what the services do: incidents, alerts, recoveries, acknowledgements, and agents that are
//! forgotten.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use varta_integration_tests::{Options, Receiver, Scratch, Server, Signal, agent, wait_until};

fn api(server: &Server, path: &str) -> Value {
    let response = server.get(&format!("/api/v1/{path}"));
    assert_eq!(response.status, 200, "{path}: {}", response.body);
    serde_json::from_str(&response.body).unwrap()
}

/// Asks on the control socket.
fn act(server: &Server, head: &str, body: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(server.control_socket()).unwrap();
    let length = body.len();
    write!(stream, "{head} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[test]
fn an_incident_its_alert_and_what_recovery_did_are_told_while_they_last_and_afterwards() {
    let webhook = Receiver::start([]);
    let options =
        ["--stall-after", "1s", "--recovery-exec", "/bin/true {name}", "--recovery-budget", "100/1s"];
    let server = Server::start(Options::from(options).args(["--webhook".to_owned(), webhook.url("/hook")]));
    assert_eq!(api(&server, "incidents")["incidents"], json!([]));
    let workers = server.start_agents(12, &["--name", "worker"]);
    server.await_agents("up", 12);
    for worker in &workers {
        worker.signal(Signal::Stop);
    }
    wait_until("all are in one incident", || {
        let first = &api(&server, "incidents?state=open")["incidents"][0];
        first["agents"] == 12 && first["in_alarm"] == 12
    });
    let incident = &api(&server, "incidents?name=work*")["incidents"][0];
    assert_eq!((&incident["state"], &incident["ended"]), (&json!("stalled"), &Value::Null));
    assert_eq!(incident["first"], incident["members"][0]["id"]);
    wait_until("the webhook has the alert", || {
        let alerts = api(&server, "alerts?problem=stalled");
        alerts["alerts"][0]["sent"][0]["outcome"] == "taken"
    });
    let alerts = api(&server, "alerts");
    let names: Vec<_> = alerts["alerts"].as_array().unwrap().iter().map(|alert| &alert["name"]).collect();
    // Those that fell before it was an incident have alerts of their own.
    assert!(names.contains(&&json!("VartaAgentsStalled")), "{names:?}");
    assert_eq!(alerts["receivers"][0]["kind"], "webhook");

    wait_until("a command has ended", || {
        api(&server, "recoveries?outcome=done")["recoveries"][0].is_object()
    });
    let page = api(&server, "recoveries?outcome=done&limit=1");
    let done = &page["recoveries"][0];
    assert_eq!((&done["action"], &done["exit_code"]), (&json!("command"), &json!(0)));
    assert_eq!(done["text"], "run /bin/true worker");
    let id = done["id"].as_str().unwrap();
    let of_agent =
        &api(&server, &format!("agents/{}", id.replace('[', "%5B").replace(']', "%5D")))["recoveries"];
    assert!(of_agent.as_array().unwrap().iter().any(|recovery| recovery["number"] == done["number"]));

    for worker in &workers {
        worker.signal(Signal::Continue);
    }
    wait_until("the incident is over", || api(&server, "incidents?state=ended")["incidents"][0].is_object());
    assert_eq!(api(&server, "incidents?state=open")["matched"], 0);

    let pause = r#"{"pattern": "worker", "for": "1h"}"#;
    assert_eq!(act(&server, "POST /api/v1/pauses", pause).0, 201);
    workers[0].signal(Signal::Stop);
    wait_until("it is told that nothing is done about who is paused", || {
        api(&server, "recoveries?outcome=refused")["recoveries"][0]["reason"] == "paused"
    });
    let of_server = |server: &Server| {
        ["incidents", "recoveries"].map(|path| {
            let answer = api(server, path);
            (answer[path].clone(), answer["next"].clone())
        })
    };
    let before = of_server(&server);
    let _successor = server.upgrade();
    assert_eq!(of_server(&server), before, "the next server knows what the one before it did");
}

#[test]
fn alarms_are_acknowledged_and_agents_forgotten_by_http() {
    let webhook = Receiver::start([]);
    let scratch = Scratch::make();
    let options = Options::from(["--stall-after", "1h", "--replaced-within", "0s"]).in_scratch(&scratch);
    let server = Server::start(options.args(["--webhook".to_owned(), webhook.url("/hook")]));
    let mut worker = server.start_agent(&["--name", "billing"]);
    let who = r#"{"who": "billing", "reason": "on it"}"#;
    assert_eq!(act(&server, "POST /api/v1/acks", who).0, 409, "nobody is in alarm");
    worker.ask("status critical");
    wait_until("it fires", || api(&server, "alerts?name=billing&acknowledged=no")["matched"] == 1);
    let (status, done) = act(&server, "POST /api/v1/acks", who);
    assert_eq!((status, &done["acknowledged"]["agents"]), (200, &json!(1)), "{done}");
    wait_until("it is acknowledged", || api(&server, "alerts?acknowledged=yes")["matched"] == 1);
    assert_eq!(act(&server, "DELETE /api/v1/acks?who=billing", "").0, 200);
    assert_eq!(act(&server, "DELETE /api/v1/acks?who=billing", "").0, 409);
    assert_eq!(act(&server, "POST /api/v1/forget", r#"{"who": "billing"}"#).0, 409, "it lives");
    worker.signal(Signal::Kill);
    worker.wait();
    server.expect(agent(&worker).down());
    let (status, done) = act(&server, "POST /api/v1/forget", r#"{"who": "billing"}"#);
    assert_eq!((status, &done["forgotten"]["agents"]), (200, &json!(1)), "{done}");
    for senseless in ["", "{}", r#"{"who": ""}"#, r#"{"who": "a", "x": 1}"#] {
        assert_eq!(act(&server, "POST /api/v1/forget", senseless).0, 400, "{senseless}");
    }
    let status = server.get("/api/v1/forget").status;
    assert_eq!(status, 405);
}

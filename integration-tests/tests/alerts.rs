//! Who is told of agents in alarm: what comes over the wire, and what becomes of it when nobody takes it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::time::{Duration, Instant};

use ring::hmac;
use serde_json::Value;
use varta_integration_tests::{
    AgentProcess, Options, Receiver, Reply, Request, Server, Signal, run_to_its_end, server_command,
    wait_for, write_secret,
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// No deadline comes in the lifetime of a test.
const NO_DEADLINE: [&str; 2] = ["--stall-after", "1h"];

fn to_webhook(receiver: &Receiver) -> Options {
    Options::from(NO_DEADLINE).args(["--webhook".to_owned(), receiver.url("/hook")])
}

fn agent(server: &Server, name: &str) -> AgentProcess {
    AgentProcess::start(server.socket(), &["--name", name])
}

/// Kinds and agents of notices, in order.
fn told(requests: &[Request]) -> Vec<String> {
    let told = |request: &Request| {
        let notice = request.json();
        format!("{} {}", notice["kind"].as_str().unwrap(), notice["agent"]["name"].as_str().unwrap())
    };
    requests.iter().map(told).collect()
}

#[track_caller]
fn await_line(server: &Server, text: &str) {
    let has_it = || server.log().lines().iter().any(|line| line.contains(text)).then_some(());
    assert!(wait_for(has_it).is_some(), "not in the log: {text}");
}

#[track_caller]
fn notifications(server: &Server, destination: &str, outcome: &str, count: f64) {
    let labels = [("destination", destination), ("outcome", outcome)];
    server.await_sample("varta_notifications_total", &labels, |value| value == count);
}

#[test]
fn the_webhook_is_told_once_of_each_alarm_and_of_its_end_and_can_tell_who_says_so() {
    let receiver = Receiver::start([]);
    let directory = tempfile::tempdir().unwrap();
    let key = write_secret(directory.path(), "key", SECRET);
    let server = Server::start(to_webhook(&receiver).args([Path::new("--webhook-key-file"), &key]));
    let mut worker = agent(&server, "worker");
    worker.ask("status critical");
    receiver.await_requests(1);
    worker.ask("status ok");
    receiver.await_requests(2);
    let pid = worker.pid();
    worker.signal(Signal::Kill);
    worker.wait();
    let requests = receiver.await_requests(3);
    assert_eq!(told(&requests), ["firing worker", "resolved worker", "firing worker"]);
    let ids: Vec<_> = requests.iter().map(|request| request.header("x-varta-delivery").unwrap()).collect();
    assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2], "{ids:?}");

    let first = &requests[0];
    assert_eq!(first.line, "POST /hook HTTP/1.1");
    assert_eq!(first.header("content-type"), Some("application/json"));
    let notice = first.json();
    assert_eq!(notice["version"], 1);
    let named = &notice["agent"];
    assert_eq!((&named["pid"], &named["transport"]), (&Value::from(pid), &Value::from("unix")));
    assert_eq!((&notice["state"], &notice["previous"]), (&Value::from("up"), &Value::from("up")));
    assert_eq!(notice["cause"], "reported");
    assert!(notice["summary"].as_str().unwrap().contains("critical"), "{notice}");
    let last = requests[2].json();
    assert_eq!((&last["state"], &last["cause"]), (&Value::from("down"), &Value::from("killed")));

    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    for request in &requests {
        let (time, tag) = request.header("x-varta-signature").unwrap().split_once(",v1=").unwrap();
        let seconds = time.strip_prefix("t=").unwrap();
        let signed = format!("{seconds}.{}", request.body);
        let expected = hmac::sign(&key, signed.as_bytes());
        let expected: String = expected.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(tag, expected);
    }
    notifications(&server, "webhook", "sent", 3.0);
    server.await_sample("varta_alerts_firing", &[], |value| value == 1.0);
}

#[test]
fn what_fails_is_tried_again_under_one_id_and_what_comes_later_waits() {
    let fails = [
        Reply::status(500, "", "not now"),
        Reply::status(429, "Retry-After: 1\r\n", ""),
        Reply::status(503, "", ""),
    ];
    let receiver = Receiver::start(fails);
    let server = Server::start(to_webhook(&receiver));
    let [mut one, mut other] = ["one", "other"].map(|name| agent(&server, name));
    one.ask("status critical");
    receiver.await_requests(1);
    other.ask("status critical");
    let requests = receiver.await_requests(5);
    assert_eq!(told(&requests), ["firing one", "firing one", "firing one", "firing one", "firing other"]);
    let id = |request: &Request| request.header("x-varta-delivery").unwrap().to_owned();
    assert!(requests[..4].iter().all(|request| id(request) == id(&requests[0])));
    assert_ne!(id(&requests[4]), id(&requests[0]));
    notifications(&server, "webhook", "retried", 3.0);
    notifications(&server, "webhook", "sent", 2.0);
}

#[test]
fn what_is_refused_is_said_and_not_sent_again_and_nobody_is_followed_elsewhere() {
    let elsewhere = Receiver::start([]);
    let there = format!("Location: {}\r\n", elsewhere.url("/"));
    let receiver = Receiver::start([Reply::status(400, "", "bad\nnotice"), Reply::status(307, &there, "")]);
    let server = Server::start(to_webhook(&receiver));
    let [mut one, mut two, mut three] = ["one", "two", "three"].map(|name| agent(&server, name));
    for agent in [&mut one, &mut two, &mut three] {
        agent.ask("status critical");
    }
    let requests = receiver.await_requests(3);
    assert_eq!(told(&requests), ["firing one", "firing two", "firing three"]);
    notifications(&server, "webhook", "refused", 2.0);
    notifications(&server, "webhook", "sent", 1.0);
    await_line(&server, "refused a notice");
    assert_eq!(elsewhere.requests(), []);
}

#[test]
fn a_receiver_that_is_away_hears_what_it_missed_once_and_in_order() {
    let address = Receiver::nowhere();
    let server = Server::start(
        Options::from(NO_DEADLINE).args(["--webhook".to_owned(), format!("http://{address}/")]),
    );
    let mut worker = agent(&server, "worker");
    worker.ask("status critical");
    worker.ask("status ok");
    await_line(&server, "does not take notices");
    let receiver = Receiver::start_at(address, []);
    assert_eq!(told(&receiver.await_requests(2)), ["firing worker", "resolved worker"]);
    notifications(&server, "webhook", "sent", 2.0);
    assert_eq!(receiver.requests().len(), 2);
}

#[test]
fn who_does_not_answer_holds_up_nobody_else() {
    let silent = Receiver::start([Reply::Never, Reply::Never, Reply::Never]);
    let other = Receiver::start([]);
    let options = to_webhook(&silent).args(["--alertmanager".to_owned(), silent.url("")]);
    let mut server = Server::start(options.args(["--alertmanager".to_owned(), other.url("/prefix/")]));
    let mut worker = agent(&server, "worker");
    worker.ask("status critical");
    let alerts = other.await_requests(1);
    assert_eq!(alerts[0].line, "POST /prefix/api/v2/alerts HTTP/1.1");
    silent.await_requests(2);
    server.await_beats_and_seconds(&[worker.pid()], 3, 0.0);
    server.signal(Signal::Terminate);
    let began = Instant::now();
    assert!(server.wait().success());
    // It waits for two seconds, and not for an answer.
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}

#[test]
fn an_alertmanager_is_told_again_and_again_what_lasts_and_once_that_it_is_over() {
    let receiver = Receiver::start([]);
    let every = ["--alert-resend-every", "150ms"];
    let options = Options::from(NO_DEADLINE).args(["--alertmanager".to_owned(), receiver.url("")]);
    let mut server = Server::start(options.args(every));
    let [mut mended, mut broken] = ["mended", "broken"].map(|name| agent(&server, name));
    broken.ask("status critical");
    mended.ask("status critical");
    let alerts_of = |request: &Request, name: &str| {
        let alerts = request.json();
        let alerts: Vec<_> = alerts.as_array().unwrap().clone();
        alerts.into_iter().filter(|alert| alert["labels"]["agent"] == name).collect::<Vec<_>>()
    };
    let of = |name: &str| -> Vec<Value> {
        receiver.requests().iter().flat_map(|request| alerts_of(request, name)).collect()
    };
    assert!(wait_for(|| (of("mended").len() >= 3).then_some(())).is_some());
    mended.ask("status ok");
    let ended = |alert: &Value| alert["annotations"]["resolved"].is_string();
    assert!(wait_for(|| of("mended").iter().any(ended).then_some(())).is_some());
    let seen = of("broken").len();
    assert!(wait_for(|| (of("broken").len() >= seen + 3).then_some(())).is_some());
    let all = of("mended");
    assert_eq!(all.iter().filter(|alert| ended(alert)).count(), 1);
    assert!(ended(all.last().unwrap()), "and nothing after it");
    assert!(
        all.iter()
            .all(|alert| alert["labels"] == all[0]["labels"] && alert["startsAt"] == all[0]["startsAt"])
    );
    assert!(all.iter().all(|alert| alert["endsAt"].as_str() > alert["startsAt"].as_str()), "{all:?}");

    // That this server stops ends no alert.
    server.signal(Signal::Terminate);
    assert!(server.wait().success());
    assert!(!of("broken").iter().any(ended));
}

#[test]
fn after_a_kill_nobody_is_told_again_of_what_goes_on_and_everybody_of_what_is_mended() {
    let receiver = Receiver::start([]);
    let place = tempfile::Builder::new().prefix("varta-it-").tempdir().unwrap();
    let (socket, state) = (place.path().join("varta.sock"), place.path().join("state"));
    let start = || {
        let options = to_webhook(&receiver).socket(&socket).args([Path::new("--state-dir"), &state]);
        Server::start(options.args(["--stall-after", "2s"]))
    };
    let mut server = start();
    let [mut broken, mut dead, mut mended] = ["broken", "dead", "mended"].map(|name| agent(&server, name));
    for agent in [&mut broken, &mut mended] {
        agent.ask("status critical");
    }
    server.await_agents("up", 3);
    dead.signal(Signal::Kill);
    dead.wait();
    let before = receiver.await_requests(3);
    // What was told is in the file, and who is known in the database.
    let is_kept = || {
        let read = |name: &str| std::fs::read(state.join(name)).unwrap_or_default();
        let alerts = String::from_utf8(read("alerts.json")).unwrap();
        let database = [read("varta.db"), read("varta.db-wal")].concat();
        let has = |name: &str| database.windows(name.len()).any(|at| at == name.as_bytes());
        let are_known = ["broken", "dead", "mended"].into_iter().all(has);
        (alerts.matches("\"is_said\":true").count() == 3 && are_known).then_some(())
    };
    assert!(wait_for(is_kept).is_some(), "{:?}", std::fs::read_to_string(state.join("alerts.json")));
    server.signal(Signal::Kill);
    assert!(!server.wait().success());

    mended.ask("status ok");
    let mut server = start();
    let after = receiver.await_requests(4);
    assert_eq!(told(&after[3..]), ["resolved mended"]);
    server.await_state(broken.pid(), "up");
    broken.ask("status ok");
    let after = receiver.await_requests(5);
    assert_eq!(told(&after[3..]), ["resolved mended", "resolved broken"]);
    server.await_sample("varta_alerts_firing", &[], |value| value == 1.0);
    assert_eq!(before[..], after[..3]);
    server.signal(Signal::Terminate);
    assert!(server.wait().success());
    let kept = std::fs::read_to_string(state.join("alerts.json")).unwrap();
    assert!(kept.contains("\"dead\"") && !kept.contains("\"mended\""), "{kept}");
}

#[test]
fn the_secrets_of_a_url_are_used_and_never_shown() {
    let receiver = Receiver::start([Reply::status(500, "", ""), Reply::status(400, "", "")]);
    let url = format!("http://someone:secret-word@{}/secret-path?token=secret-token", receiver.address());
    let mut server = Server::start(Options::from(NO_DEADLINE).args(["--webhook".to_owned(), url]));
    let mut worker = agent(&server, "worker");
    worker.ask("status critical");
    let requests = receiver.await_requests(2);
    assert_eq!(requests[0].line, "POST /secret-path?token=secret-token HTTP/1.1");
    // someone:secret-word
    assert_eq!(requests[0].header("authorization"), Some("Basic c29tZW9uZTpzZWNyZXQtd29yZA=="));
    notifications(&server, "webhook", "refused", 1.0);
    server.signal(Signal::Terminate);
    assert!(server.wait().success());
    let log = server.log().lines().join("\n");
    assert!(
        log.contains("notices go to") && log.contains("does not take notices") && log.contains("refused")
    );
    assert!(!log.contains("secret") && !log.contains("someone"), "{log}");
}

#[test]
fn who_is_paused_alarms_nobody_and_an_alert_that_fires_then_ends() {
    let receiver = Receiver::start([]);
    let server = Server::start(to_webhook(&receiver));
    let [mut before, mut during, mut other] =
        ["batch-1", "batch-2", "other"].map(|name| agent(&server, name));
    before.ask("status critical");
    receiver.await_requests(1);
    let mut control = server.socket().as_os_str().to_owned();
    control.push(".control");
    let mut pause = server_command();
    pause.args(["pause", "batch-*", "--for", "1h", "--control-socket"]).arg(control);
    let ended = run_to_its_end(pause);
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(told(&receiver.await_requests(2)), ["firing batch-1", "resolved batch-1"]);
    during.ask("status critical");
    server.await_scrape("both are not up", |scrape| {
        let up = |pid: u32| scrape.get("varta_agent_up", &[("pid", &pid.to_string())]);
        up(before.pid()) == Some(0.0) && up(during.pid()) == Some(0.0)
    });
    other.ask("status critical");
    assert_eq!(told(&receiver.await_requests(3))[2..], ["firing other"]);
}

//! Notifications of agents in alarm: what comes over the wire, and what becomes of it when no receiver takes
//! it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::ffi::OsStr;

use ring::hmac;
use serde_json::Value;
use varta_integration_tests::{
    AgentProcess, MailServer, Options, Receiver, Reply, Request, Scratch, Server, Signal, agent,
    await_in_database, line, line_with, metric, run_server, wait_until, write_secret,
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// No deadline comes in the lifetime of a test.
const NO_DEADLINE: [&str; 2] = ["--stall-after", "1h"];

fn webhook(receiver: &Receiver) -> [String; 2] {
    ["--webhook".to_owned(), receiver.url("/hook")]
}

fn to_webhook(receiver: &Receiver) -> Options {
    Options::from(NO_DEADLINE).args(webhook(receiver))
}

fn start(server: &Server, name: &str) -> AgentProcess {
    AgentProcess::start(server.socket(), &["--name", name])
}

/// Kinds and agents of notices, in order.
fn notices(requests: &[Request]) -> Vec<String> {
    let of = |request: &Request| {
        let notice = request.json();
        format!("{} {}", notice["kind"].as_str().unwrap(), notice["agent"]["name"].as_str().unwrap())
    };
    requests.iter().map(of).collect()
}

/// Waits until so many notices to the webhook had this outcome.
#[track_caller]
fn await_outcome(server: &Server, outcome: &str, count: f64) {
    let notifications = metric("varta_notifications_total").with("destination", "webhook");
    server.expect(notifications.with("outcome", outcome).is(count));
}

#[test]
fn the_webhook_is_told_once_of_each_alarm_and_of_its_end_and_can_tell_who_says_so() {
    let receiver = Receiver::start([]);
    let scratch = Scratch::make();
    let key = write_secret(scratch.directory(), "key", SECRET);
    let server = Server::start(to_webhook(&receiver).path("--webhook-key-file", &key));
    let mut worker = start(&server, "worker");
    worker.ask("status critical");
    receiver.await_requests(1);
    worker.ask("status ok");
    receiver.await_requests(2);
    let pid = worker.pid();
    worker.signal(Signal::Kill);
    worker.wait();
    let requests = receiver.await_requests(3);
    assert_eq!(notices(&requests), ["firing worker", "resolved worker", "firing worker"]);
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
    await_outcome(&server, "sent", 3.0);
    server.expect(metric("varta_alerts_firing").is(1.0));
}

#[test]
fn what_fails_is_tried_again_under_one_id() {
    let fails = [
        Reply::status(500, "", "not now"),
        Reply::status(429, "Retry-After: 1\r\n", ""),
        Reply::status(503, "", ""),
    ];
    let receiver = Receiver::start(fails);
    let server = Server::start(to_webhook(&receiver));
    let [mut one, mut other] = ["one", "other"].map(|name| start(&server, name));
    one.ask("status critical");
    receiver.await_requests(4);
    other.ask("status critical");
    let requests = receiver.await_requests(5);
    assert_eq!(notices(&requests), ["firing one", "firing one", "firing one", "firing one", "firing other"]);
    let id = |request: &Request| request.header("x-varta-delivery").unwrap().to_owned();
    assert!(requests[..4].iter().all(|request| id(request) == id(&requests[0])));
    assert_ne!(id(&requests[4]), id(&requests[0]));
    await_outcome(&server, "retried", 3.0);
    await_outcome(&server, "sent", 2.0);
}

#[test]
fn a_notice_that_is_not_answered_holds_up_those_of_its_own_agent_only() {
    let receiver = Receiver::start([Reply::Never]);
    let server = Server::start(to_webhook(&receiver));
    let [mut slow, mut other] = ["slow", "other"].map(|name| start(&server, name));
    slow.ask("status critical");
    receiver.await_requests(1);
    slow.ask("status ok");
    other.ask("status critical");
    receiver.await_requests(2);
    other.ask("status ok");
    let requests = receiver.await_requests(3);
    assert_eq!(notices(&requests), ["firing slow", "firing other", "resolved other"]);
    // The first one is given up on after its time, and sent again before what came after it.
    let requests = receiver.await_requests(5);
    assert_eq!(notices(&requests[3..]), ["firing slow", "resolved slow"]);
    assert_eq!(requests[3].header("x-varta-delivery"), requests[0].header("x-varta-delivery"));
    await_outcome(&server, "sent", 4.0);
}

#[test]
fn a_receiver_with_a_form_and_a_signature_of_its_own_gets_them() {
    let receiver = Receiver::start([]);
    let scratch = Scratch::make();
    let key = write_secret(scratch.directory(), "key", SECRET);
    let form = ["--webhook-signature", "x-hub-signature-256", "--webhook-template", "slack"];
    let server = Server::start(to_webhook(&receiver).path("--webhook-key-file", &key).args(form));
    let mut worker = start(&server, "worker");
    worker.ask("status critical");
    let request = receiver.await_requests(1).remove(0);
    let text = request.json()["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with(&format!("firing: worker[{}] on ", worker.pid())), "{text}");
    assert!(request.json()["attachments"][0]["text"].as_str().unwrap().contains("critical"));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let expected = hmac::sign(&key, request.body.as_bytes());
    let expected: String = expected.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(request.header("x-hub-signature-256"), Some(&*format!("sha256={expected}")));
    assert_eq!(request.header("x-varta-signature"), None);

    let mine = scratch.path("mine.txt");
    std::fs::write(&mine, "{{ kind }} of {{ agent.name }}").unwrap();
    let said = varta_integration_tests::refused_start(
        2,
        &scratch.path("socket"),
        ["--webhook", "http://localhost/", "--webhook-template", mine.to_str().unwrap()],
    );
    assert!(said.contains("mine.txt") && said.contains("incident"), "an incident has no agent: {said}");
}

#[test]
fn people_get_mails_in_order_and_one_that_is_put_off_comes_again() {
    let mails = MailServer::start(["451 not now", "250 taken", "550 not this one"]);
    let scratch = Scratch::make();
    let login = write_secret(scratch.directory(), "login", "varta:pass word");
    let to = ["--mail-from", "Varta <varta@example.test>", "--mail-to", "a@example.test,b@example.test"];
    let options = Options::from(NO_DEADLINE).args(["--mail-relay".to_owned(), mails.url()]).args(to);
    let server = Server::start(options.path("--mail-credentials-file", &login));
    let mut worker = start(&server, "worker");
    worker.ask("status critical");
    mails.await_mails(2);
    worker.ask("status ok");
    mails.await_mails(3);
    worker.ask("status critical");
    let mails = mails.await_mails(4);
    let subjects: Vec<_> =
        mails.iter().map(|mail| mail.header("Subject").split(':').next().unwrap()).collect();
    assert_eq!(subjects, ["firing", "firing", "resolved", "firing"]);
    assert_eq!(mails[0].header("Message-ID"), mails[1].header("Message-ID"));
    assert_ne!(mails[1].header("Message-ID"), mails[3].header("Message-ID"));
    let commands = &mails[0].commands;
    // \0varta\0pass word
    assert!(commands.contains(&"AUTH PLAIN AHZhcnRhAHBhc3Mgd29yZA==".to_owned()), "{commands:?}");
    for expected in ["MAIL FROM:<varta@example.test>", "RCPT TO:<a@example.test>", "RCPT TO:<b@example.test>"]
    {
        assert!(commands.iter().any(|command| command.starts_with(expected)), "{commands:?}");
    }
    assert_eq!(mails[0].header("Auto-Submitted"), "auto-generated");
    assert!(mails[0].text().contains("state: up"), "{}", mails[0].text());
    let mail = |outcome: &str, count: f64| {
        let notifications = metric("varta_notifications_total").with("destination", "mail");
        server.expect(notifications.with("outcome", outcome).is(count));
    };
    mail("sent", 2.0);
    mail("retried", 1.0);
    mail("refused", 1.0);
}

#[test]
fn what_is_refused_is_said_and_not_sent_again_and_nobody_is_followed_elsewhere() {
    let elsewhere = Receiver::start([]);
    let there = format!("Location: {}\r\n", elsewhere.url("/"));
    let receiver = Receiver::start([Reply::status(400, "", "bad\nnotice"), Reply::status(307, &there, "")]);
    let server = Server::start(to_webhook(&receiver));
    let [mut one, mut two, mut three] = ["one", "two", "three"].map(|name| start(&server, name));
    for worker in [&mut one, &mut two, &mut three] {
        worker.ask("status critical");
    }
    let requests = receiver.await_requests(3);
    let mut all = notices(&requests);
    all.sort();
    assert_eq!(all, ["firing one", "firing three", "firing two"]);
    await_outcome(&server, "refused", 2.0);
    await_outcome(&server, "sent", 1.0);
    server.expect(line_with("refused a notice"));
    assert_eq!(elsewhere.requests(), []);
}

#[test]
fn a_receiver_that_was_away_gets_what_it_missed_once_and_in_order() {
    let address = Receiver::nowhere();
    let server = Server::start(
        Options::from(NO_DEADLINE).args(["--webhook".to_owned(), format!("http://{address}/")]),
    );
    let mut worker = start(&server, "worker");
    worker.ask("status critical");
    worker.ask("status ok");
    server.expect(line_with("does not take notices"));
    let receiver = Receiver::start_at(address, []);
    assert_eq!(notices(&receiver.await_requests(2)), ["firing worker", "resolved worker"]);
    await_outcome(&server, "sent", 2.0);
    assert_eq!(receiver.requests().len(), 2);
}

#[test]
fn who_does_not_answer_holds_up_nobody_else() {
    let silent = Receiver::start([Reply::Never, Reply::Never, Reply::Never]);
    let other = Receiver::start([]);
    let options = to_webhook(&silent).args(["--alertmanager".to_owned(), silent.url("")]);
    let mut server = Server::start(options.args(["--alertmanager".to_owned(), other.url("/prefix/")]));
    let mut worker = start(&server, "worker");
    worker.ask("status critical");
    let alerts = other.await_requests(1);
    assert_eq!(alerts[0].line, "POST /prefix/api/v2/alerts HTTP/1.1");
    silent.await_requests(2);
    server.await_beats(&[worker.pid()], 3);
    server.stop();
    // It did not wait for the answer.
    server.expect(line("not all alerts could be sent within 2s"));
}

/// The alerts that a receiver got in the place of an Alertmanager, of one agent.
fn alerts_of(receiver: &Receiver, name: &str) -> Vec<Value> {
    let all = |request: &Request| request.json().as_array().unwrap().clone();
    let alerts = receiver.requests().iter().flat_map(all).collect::<Vec<_>>();
    alerts.into_iter().filter(|alert| alert["labels"]["agent"] == name).collect()
}

fn is_ended(alert: &Value) -> bool {
    alert["annotations"]["resolved"].is_string()
}

/// To a receiver in the place of an Alertmanager, with a resend every 150 ms.
fn to_alertmanager(receiver: &Receiver) -> Options {
    let options = Options::from(NO_DEADLINE).args(["--alertmanager".to_owned(), receiver.url("")]);
    options.args(["--alert-resend-every", "150ms"])
}

#[test]
fn an_alertmanager_gets_an_alert_again_and_again_while_it_lasts_and_then_the_same_end() {
    let receiver = Receiver::start([]);
    let mut server = Server::start(to_alertmanager(&receiver));
    let [mut mended, mut broken] = ["mended", "broken"].map(|name| start(&server, name));
    broken.ask("status critical");
    mended.ask("status critical");
    let of = |name: &str| alerts_of(&receiver, name);
    wait_until("an alert comes three times", || of("mended").len() >= 3);
    mended.ask("status ok");
    wait_until("its end comes three times", || {
        of("mended").iter().filter(|alert| is_ended(alert)).count() >= 3
    });
    let seen = of("broken").len();
    wait_until("the other comes three times more", || of("broken").len() >= seen + 3);
    let all = of("mended");
    let end = all.iter().position(is_ended).unwrap();
    assert!(all[end..].iter().all(|alert| *alert == all[end]), "and nothing but its end after it: {all:?}");
    assert!(
        all.iter()
            .all(|alert| alert["labels"] == all[0]["labels"] && alert["startsAt"] == all[0]["startsAt"])
    );
    assert!(all.iter().all(|alert| alert["endsAt"].as_str() > alert["startsAt"].as_str()), "{all:?}");

    // That this server stops ends no alert.
    server.stop();
    assert!(!of("broken").iter().any(is_ended));
}

#[test]
fn an_end_that_was_refused_is_sent_again_also_by_the_next_server() {
    let no = Reply::status(400, "", "no");
    let scratch = Scratch::make();
    let start_server = |receiver: &Receiver| Server::start(to_alertmanager(receiver).in_scratch(&scratch));
    let receiver = Receiver::start([Reply::status(200, "", ""), no.clone(), no.clone(), no]);
    let mut server = start_server(&receiver);
    let mut worker = start(&server, "worker");
    let mut other = start(&server, "other");
    worker.ask("status critical");
    receiver.await_requests(1);
    worker.ask("status ok");
    wait_until("the end is taken in the end", || {
        receiver.requests().len() >= 5 && is_ended(alerts_of(&receiver, "worker").last().unwrap())
    });
    let end = alerts_of(&receiver, "worker").pop().unwrap();
    other.ask("status critical");
    let kept = || scratch.lines("state/alerts.json").concat();
    wait_until("it is written", || kept().contains("\"other\"") && kept().contains("\"resolved\""));
    server.kill();

    let next = Receiver::start([]);
    let _server = start_server(&next);
    wait_until("the next server sends it too", || !alerts_of(&next, "worker").is_empty());
    assert_eq!(alerts_of(&next, "worker")[0], end);
}

#[test]
fn the_times_of_alerts_are_right_by_the_clock_of_the_alertmanager() {
    // A day and more away from any clock, on either side.
    for (date, is_ahead) in
        [("Sat, 01 Jan 2000 00:00:00 GMT", true), ("Fri, 01 Jan 2100 00:00:00 GMT", false)]
    {
        let reply = Reply::status(200, &format!("Date: {date}\r\n"), "");
        let receiver = Receiver::start(std::iter::repeat_n(reply, 1_000));
        let server = Server::start(to_alertmanager(&receiver));
        let mut worker = start(&server, "worker");
        worker.ask("status critical");
        let day = if is_ahead { "2000-01-01T00:0" } else { "2100-01-01T00:0" };
        let on_day = |alert: &Value, time: &str| alert[time].as_str().unwrap().starts_with(day);
        wait_until("it lasts by that clock", || {
            alerts_of(&receiver, "worker").iter().any(|alert| on_day(alert, "endsAt"))
        });
        worker.ask("status ok");
        wait_until("the end comes", || alerts_of(&receiver, "worker").iter().any(is_ended));
        let alerts = alerts_of(&receiver, "worker");
        let end = alerts.iter().find(|alert| is_ended(alert)).unwrap();
        assert_eq!(on_day(end, "endsAt"), is_ahead, "it is not in that clock's future: {end}");
        assert!(
            alerts.iter().all(|alert| alert["startsAt"].as_str() <= alert["endsAt"].as_str()),
            "{alerts:?}"
        );
        let side = if is_ahead { "ahead of" } else { "behind" };
        let warning = server.expect(line_with("the Date of its answers"));
        assert!(warning["message"].as_str().unwrap().contains(side), "{warning}");
        server.await_scrape("it is counted", |scrape| {
            scrape.value("varta_alertmanager_clock_skew_total", &[]) >= 3.0
        });
        let warnings =
            server.log().lines().iter().filter(|line| line.contains("the Date of its answers")).count();
        assert_eq!(warnings, 1);
    }
}

#[test]
fn the_webhook_is_told_that_an_agent_got_worse_in_one_notice() {
    let receiver = Receiver::start([]);
    let alertmanager = Receiver::start([]);
    let options = Options::from(["--stall-after", "2s"]).args(webhook(&receiver));
    let server = Server::start(options.args(["--alertmanager".to_owned(), alertmanager.url("")]));
    let mut worker = start(&server, "worker");
    server.await_beats(&[worker.pid()], 1);
    worker.signal(Signal::Stop);
    receiver.await_requests(1);
    worker.signal(Signal::Kill);
    worker.wait();
    let requests = receiver.await_requests(2);
    assert_eq!(notices(&requests), ["firing worker", "escalated worker"]);
    let worse = requests[1].json();
    assert_eq!((&worse["previous"], &worse["state"]), (&Value::from("stalled"), &Value::from("down")));
    // The end of the one and the beginning of the other are in one request.
    alertmanager.await_that("both in one request", |requests| {
        requests.iter().any(|request| {
            let alerts = request.json();
            let of = |name: &str| {
                let alerts = alerts.as_array().unwrap();
                alerts.iter().find(|alert| alert["labels"]["alertname"] == name).cloned()
            };
            of("VartaAgentDown").is_some()
                && of("VartaAgentStalled").is_some_and(|alert| alert["annotations"]["escalated"].is_string())
        })
    });
}

#[test]
fn after_a_kill_an_alert_that_lasts_is_not_sent_again_and_its_end_is_sent() {
    let receiver = Receiver::start([]);
    let scratch = Scratch::make();
    let start_server = || {
        let options = Options::from(["--stall-after", "2s"]).args(webhook(&receiver));
        Server::start(options.in_scratch(&scratch))
    };
    let mut server = start_server();
    let [mut broken, mut dead, mut mended] = ["broken", "dead", "mended"].map(|name| start(&server, name));
    for worker in [&mut broken, &mut mended] {
        worker.ask("status critical");
    }
    server.await_agents("up", 3);
    dead.signal(Signal::Kill);
    dead.wait();
    let before = receiver.await_requests(3);
    // What was sent is in the file, and the agents are in the database.
    let kept = || scratch.lines("state/alerts.json").concat();
    wait_until("what was sent is written", || kept().matches("\"is_said\":true").count() == 3);
    await_in_database(&scratch.state(), &["broken", "dead", "mended"]);
    server.kill();

    mended.ask("status ok");
    let mut server = start_server();
    let after = receiver.await_requests(4);
    assert_eq!(notices(&after[3..]), ["resolved mended"]);
    server.expect(agent(&broken).up());
    broken.ask("status ok");
    let after = receiver.await_requests(5);
    assert_eq!(notices(&after[3..]), ["resolved mended", "resolved broken"]);
    server.expect(metric("varta_alerts_firing").is(1.0));
    assert_eq!(before[..], after[..3]);
    server.stop();
    assert!(kept().contains("\"dead\"") && !kept().contains("\"mended\""), "{}", kept());
}

#[test]
fn the_secrets_of_a_url_are_used_and_never_shown() {
    let receiver = Receiver::start([Reply::status(500, "", ""), Reply::status(400, "", "")]);
    let url = format!("http://someone:secret-word@{}/secret-path?token=secret-token", receiver.address());
    let mut server = Server::start(Options::from(NO_DEADLINE).args(["--webhook".to_owned(), url]));
    let mut worker = start(&server, "worker");
    worker.ask("status critical");
    let requests = receiver.await_requests(2);
    assert_eq!(requests[0].line, "POST /secret-path?token=secret-token HTTP/1.1");
    // someone:secret-word
    assert_eq!(requests[0].header("authorization"), Some("Basic c29tZW9uZTpzZWNyZXQtd29yZA=="));
    await_outcome(&server, "refused", 1.0);
    server.stop();
    let log = server.log().lines().join("\n");
    assert!(
        log.contains("notices go to") && log.contains("does not take notices") && log.contains("refused")
    );
    assert!(!log.contains("secret") && !log.contains("someone"), "{log}");
}

#[test]
fn a_pause_ends_the_alert_that_fires_keeps_others_from_firing_and_its_end_tells_who_is_still_in_alarm() {
    let receiver = Receiver::start([]);
    let server = Server::start(to_webhook(&receiver));
    let [mut before, mut during, mut other] =
        ["batch-1", "batch-2", "other"].map(|name| start(&server, name));
    before.ask("status critical");
    receiver.await_requests(1);
    let control = server.control_socket();
    let pause = ["pause", "batch-*", "--for", "1h", "--control-socket"].map(OsStr::new);
    let ended = run_server(pause.into_iter().chain([control.as_os_str()]));
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(notices(&receiver.await_requests(2)), ["firing batch-1", "paused batch-1"]);
    during.ask("status critical");
    server.await_scrape("both are not up", |scrape| {
        let up = |pid: u32| scrape.get("varta_agent_up", &[("pid", &pid.to_string())]);
        up(before.pid()) == Some(0.0) && up(during.pid()) == Some(0.0)
    });
    other.ask("status critical");
    assert_eq!(notices(&receiver.await_requests(3))[2..], ["firing other"]);
    let resume = ["resume", "batch-*", "--control-socket"].map(OsStr::new);
    let ended = run_server(resume.into_iter().chain([control.as_os_str()]));
    assert!(ended.status.success(), "{}", ended.stderr);
    let mut after = notices(&receiver.await_requests(5))[3..].to_vec();
    after.sort();
    assert_eq!(after, ["firing batch-1", "firing batch-2"]);
}

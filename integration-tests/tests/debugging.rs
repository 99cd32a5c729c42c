//! What the log says at the levels debug and trace, for who looks into something.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use varta_agent::{Admission, Varta};
use varta_integration_tests::{
    Datagrams, Options, Receiver, Scratch, Server, Signal, agent, line, line_with, run_server,
};
use varta_proto::{Frame, Status};

/// A server with this level, and one of everything that a level could tell of.
fn one_of_everything(level: &str) -> Server {
    let scratch = Scratch::make();
    let receiver = Receiver::start([]);
    let webhook = format!("http://user:secret@{}/hook?secret=1", receiver.address());
    let options = Options::from(["--stall-after", "500ms", "--recovery-exec", "true {pid}"]);
    let options = options.args(["--webhook", &webhook]).path("--audit-log", &scratch.path("audit.log"));
    let server = Server::start(options.env("RUST_LOG", level));

    let mut datagrams = Datagrams::to(server.socket());
    datagrams.send(b"garbage");
    let beat = Frame::new(Status::Ok, std::process::id(), 1, 1, 0).to_bytes();
    datagrams.send(&beat);
    datagrams.send(&beat);
    let asking = Varta::connect(server.socket()).unwrap();
    assert_eq!(asking.check(Duration::from_secs(60)).unwrap(), Admission::Accepted);
    assert_eq!(server.get("/metrics?secret=1").status, 200);
    let control = server.control_socket();
    assert!(run_server(["pauses", "--control-socket", control.to_str().unwrap()]).status.success());

    let worker = server.start_agent(&["--name", "billing"]);
    worker.signal(Signal::Stop);
    server.expect(agent(&worker).stalled());
    server.expect(line_with("exited with status 0"));
    receiver.await_that("the agent is told of", |requests| {
        requests.iter().any(|request| request.body.contains("billing"))
    });
    worker.signal(Signal::Continue);
    server.expect(agent(&worker).up().from("stalled"));
    server
}

#[test]
fn debug_tells_each_refusal_deadline_request_and_step_and_no_secret() {
    let mut server = one_of_everything("debug");
    server.expect(line_with("a datagram of 7 bytes from process").with("is refused: bad_length"));
    server.expect(line("1 of the beats that came by unix are refused: duplicate"));
    server.expect(line("a process asked whether its beats are taken: ok"));
    server.expect(line("GET /metrics: 200 after "));
    server.expect(line_with("asks on the control socket: Ok(Pauses)"));
    server.expect(line("a request on the control socket is answered: {"));
    server.expect(line_with("has passed without a beat; it is inspected before the verdict"));
    server.expect(line_with("was inspected: stopped"));
    server.expect(line("verdict on billing[").with("stalled ("));
    server.expect(line_with("bytes are taken"));
    server.expect(line_with("(firing) is taken"));
    server.expect(line("job 1 begins: step 1 of attempt 1 for "));
    server.expect(line("job 1 has ended: Done"));
    server.stop();
    let log = server.log().lines().join("\n");
    assert!(!log.contains("secret"), "{log}");
    assert!(log.contains(r#""level":"DEBUG""#) && !log.contains(r#""level":"TRACE""#), "{log}");
}

#[test]
fn trace_tells_when_deadlines_come_and_what_a_scrape_has() {
    let mut server = one_of_everything("trace");
    server.expect(line("the next deadline, or look at the server's own turns, is in "));
    server.expect(line("deadlines are due; what has arrived is read first"));
    server.expect(line("a scrape has ").with("0 agents have no rows"));
    server.expect(line_with("is sampled: half of its deadline has passed without a beat"));
    server.stop();
    let log = server.log().lines().join("\n");
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn without_them_nothing_of_it_is_written() {
    let mut server = one_of_everything("info");
    server.stop();
    let log = server.log().lines().join("\n");
    assert!(!log.contains(r#""level":"DEBUG""#) && !log.contains(r#""level":"TRACE""#), "{log}");
}

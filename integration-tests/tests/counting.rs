//! Agents that beat and make no progress.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use varta_integration_tests::{
    AgentProcess, Options, Receiver, Request, Scratch, Server, Signal, agent, metric, wait_for,
};

const SOON: [&str; 4] = ["--stall-after", "1h", "--no-progress-after", "500ms"];

/// An agent that counts and has stood still for too long.
fn stuck(server: &Server) -> AgentProcess {
    let worker = server.start_agent(&["--counts"]);
    server.expect(agent(&worker).stalled().because("no_progress"));
    worker
}

#[test]
fn who_beats_and_does_nothing_is_an_alarm_with_a_dossier_until_it_does_something() {
    let webhook = Receiver::start([]);
    let options = Options::from(SOON).args(["--webhook", &webhook.url("/hook")]);
    let server = Server::start(options);
    let mut worker = stuck(&server);
    let told = server.expect(agent(&worker).stalled().because("no_progress"));
    assert!(told.dossier.contains("main thread"), "the process was looked at: {}", told.dossier);
    let is_about_it = |request: &Request| request.body.contains("no_progress");
    let request = wait_for(|| webhook.requests().into_iter().find(is_about_it)).unwrap();
    assert!(request.body.contains("its counter has stood for"), "{}", request.body);
    server.await_beats(&[worker.pid()], 20);
    server.expect(metric("varta_agents").with("state", "stalled").is(1.0));

    worker.ask("payload 2");
    server.expect(agent(&worker).up().because("progressed"));
    assert!(server.history(&worker).len() >= 3, "{:?}", server.history(&worker));
}

#[test]
fn who_makes_progress_or_need_not_is_up() {
    let scratch = Scratch::make();
    let config = "[[rule]]\nname = \"it-worker\"\nprogress = \"none\"\n";
    let server = Server::start(Options::from(SOON).config(&scratch, config));
    let [counting, plain] = [&["--counts"][..], &[]].map(|options| server.start_agent(options));
    server.await_beats_and_seconds(&[counting.pid(), plain.pid()], 10, 2.0);
    for worker in [&counting, &plain] {
        assert_eq!(server.history(worker), ["up: first_beat"]);
    }
}

#[test]
fn the_verdict_outlives_the_server_and_is_told_once() {
    let scratch = Scratch::make();
    let options = || Options::from(SOON).in_scratch(&scratch).path("--state-dir", &scratch.state());
    let mut server = Server::start(options());
    let mut worker = stuck(&server);
    server.stop();
    let server = Server::start(options());
    server.expect(metric("varta_beats_total").with("pid", worker.pid()).at_least(20.0));
    server.expect(metric("varta_agents").with("state", "stalled").is(1.0));
    assert_eq!(server.history(&worker), [""; 0]);
    worker.ask("payload 2");
    server.expect(agent(&worker).up().because("progressed"));
    worker.signal(Signal::Kill);
    server.expect(agent(&worker).down());
}

//! `varta-server exec --restart`: a command that has ended is started again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::os::unix::process::ExitStatusExt;

use varta_integration_tests::{ExecProcess, Scratch, Server, Signal, agent, exec_command, run_to_its_end};

#[test]
fn a_command_that_fails_is_started_again_and_critical_meanwhile_until_it_ends_well() {
    let server = Server::start(["--agent-metrics", "all"]);
    let scratch = Scratch::make();
    let runs = scratch.write("runs", "");
    let script =
        format!("echo $$ >> {0}; echo run; [ $(wc -l < {0}) -gt 2 ] || exit 3; read line", runs.display());
    let options = ["--beat=alive", "--name=flaky", "--restart=on-failure"];
    let mut exec = ExecProcess::start(server.socket(), &options, &script);
    exec.await_said("flaky exited with status 3 after ");
    exec.await_said(", and is started again in 1s; its last line: run");
    server.expect(agent("flaky").up().with_status("critical"));
    exec.await_said(", and is started again in 2s");
    exec.await_printed("run\nrun\nrun\n");
    server.expect(agent("flaky").up().from("up").with_status("ok"));
    let pid = exec.pid().to_string();
    server.await_scrape("the beats say how often it was started again", |scrape| {
        scrape.get("varta_agent_payload", &[("pid", &pid)]) == Some(2.0)
    });
    exec.tell("end");
    assert_eq!(exec.wait().status.code(), Some(0));
    assert_eq!(scratch.lines("runs").len(), 3);
    server.expect(agent("flaky").gone().because("goodbye"));
}

#[test]
fn who_is_asked_to_end_is_not_started_again() {
    let server = Server::start([] as [&str; 0]);
    let options = ["--beat=alive", "--name=lasting", "--restart=always"];
    let exec = ExecProcess::start(server.socket(), &options, "echo run; exec sleep 1000");
    exec.await_printed("run");
    server.expect(agent("lasting").up());
    exec.signal(Signal::Terminate);
    let ended = exec.wait();
    assert_eq!((ended.status.signal(), ended.stdout.as_str()), (Some(15), "run\n"));
    server.expect(agent("lasting").gone().because("goodbye"));
}

#[test]
fn a_request_to_end_between_two_runs_ends_exec_by_that_signal() {
    let server = Server::start([] as [&str; 0]);
    let options = ["--beat=alive", "--name=between", "--restart=always"];
    let exec = ExecProcess::start(server.socket(), &options, "echo run");
    for delay in ["1s", "2s", "4s"] {
        exec.await_said("exited with status 0 after ");
        exec.await_said(&format!("is started again in {delay}"));
    }
    exec.signal(Signal::Interrupt);
    let ended = exec.wait();
    assert_eq!((ended.status.signal(), ended.stdout.as_str()), (Some(2), "run\nrun\nrun\n"));
    server.expect(agent("between").gone().because("goodbye"));
}

#[test]
fn what_cannot_be_started_at_first_is_not_tried_again() {
    let scratch = Scratch::make();
    let options = ["--beat=alive", "--restart=always"];
    let ended = run_to_its_end(exec_command(&scratch.socket(), &options, &["/nowhere/at/all"]));
    assert_eq!(ended.status.code(), Some(127));
}

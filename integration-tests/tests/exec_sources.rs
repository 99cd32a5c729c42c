//! `varta-server exec`: what proves that a command is well.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use varta_integration_tests::{ExecProcess, Scratch, Server, Signal, agent, sys};

const NO_OPTIONS: [&str; 0] = [];
const SHORT: Duration = Duration::from_millis(600);

/// Beats often, and is missed soon.
fn options<'o>(source: &'o str, more: &[&'o str]) -> Vec<&'o str> {
    [&["--beat", source, "--every=100ms", "--stall-after=600ms"], more].concat()
}

#[test]
fn a_command_that_exists_beats_and_one_that_is_stopped_does_not() {
    let server = Server::start(NO_OPTIONS);
    let exec = ExecProcess::start(
        server.socket(),
        &options("alive", &["--stall-after=2s"]),
        "echo begun; exec sleep 1000",
    );
    exec.await_printed("begun");
    server.await_beats(&[exec.pid()], 5);
    let command = exec.command_pid();
    sys::send_signal(command, Signal::Stop).unwrap();
    server.expect(agent(exec.pid()).stalled().within(2 * SHORT));
    sys::send_signal(command, Signal::Continue).unwrap();
    server.expect(agent(exec.pid()).up().from("stalled"));
}

#[test]
fn a_command_that_stops_itself_is_stalled_and_nothing_else_is_stopped() {
    let server = Server::start(NO_OPTIONS);
    let exec = ExecProcess::start(server.socket(), &options("alive", &[]), "kill -STOP $$; exit 6");
    server.expect(agent(exec.pid()).stalled().within(SHORT));
    sys::send_signal(exec.command_pid(), Signal::Continue).unwrap();
    assert_eq!(exec.wait().status.code(), Some(6));
}

#[test]
fn a_command_that_prints_beats_and_one_that_falls_silent_is_stalled() {
    let server = Server::start(NO_OPTIONS);
    let script = "while read line; do echo $line >&$line; done";
    let mut exec = ExecProcess::start(server.socket(), &options("output", &["--stall-after=20s"]), script);
    server.expect(agent(exec.pid()).up());
    for (round, stream) in (2..).zip(["1", "2", "1", "2"]) {
        exec.tell(stream);
        server.await_scrape("each output is a beat", |scrape| {
            scrape.get("varta_beats_total", &[("pid", &exec.pid().to_string())]) >= Some(f64::from(round))
        });
    }
    drop(exec);
    let silent = ExecProcess::start(
        server.socket(),
        &options("output", &["--no-output"]),
        "echo once; exec sleep 1000",
    );
    server.expect(agent(silent.pid()).stalled().within(SHORT));
}

#[test]
fn much_output_is_no_more_beats_than_the_interval_allows() {
    let server = Server::start(NO_OPTIONS);
    let mut exec = ExecProcess::start(
        server.socket(),
        &["--beat=output", "--every=1h"],
        "seq 100000; read line; exit 0",
    );
    exec.await_printed("100000\n");
    exec.tell("end");
    assert_eq!(exec.wait().status.code(), Some(0));
    server.expect(agent("sh").gone());
    let scrape = server.scrape();
    // One beat, its introduction, the name of the child and the goodbye.
    assert_eq!(scrape.value("varta_frames_total", &[("transport", "unix"), ("outcome", "accepted")]), 4.0);
}

#[test]
fn a_check_that_ends_well_is_a_beat_and_one_that_fails_is_critical_at_once() {
    let server = Server::start(NO_OPTIONS);
    let scratch = Scratch::make();
    let well = scratch.write("it is well", "");
    let check = format!("check=test -e '{}'", well.display());
    let exec = ExecProcess::start(
        server.socket(),
        &options(&check, &["--stall-after=30s", "--name=checked"]),
        "exec sleep 1000",
    );
    server.await_beats(&[exec.pid()], 3);
    std::fs::remove_file(&well).unwrap();
    server.expect(agent("checked").up().with_status("critical"));
    exec.await_said("checked is critical: its check exited with status 1");
    scratch.write("it is well", "");
    exec.await_said("checked its check has ended well again");
    server.expect(agent("checked").up().from("up").with_status("ok"));
}

#[test]
fn a_check_that_takes_too_long_is_killed_with_all_that_it_started_and_critical() {
    let server = Server::start(NO_OPTIONS);
    let scratch = Scratch::make();
    let pids = scratch.path("pids");
    let check = format!("check=sh -c 'sleep 1000 & echo $! >> {}; wait'", pids.display());
    let exec =
        ExecProcess::start(server.socket(), &options(&check, &["--stall-after=30s"]), "exec sleep 1000");
    server.expect(agent(exec.pid()).up().with_status("critical"));
    exec.await_said("took longer than 100ms and was killed");
    varta_integration_tests::wait_until("checks are started again and again", || {
        scratch.lines("pids").len() >= 3
    });
    exec.signal(Signal::Terminate);
    assert_eq!(exec.wait().status.code(), None);
    for pid in scratch.lines("pids") {
        let is_gone = || !std::path::Path::new(&format!("/proc/{pid}")).exists();
        varta_integration_tests::wait_until("no check is left", is_gone);
    }
}

#[test]
fn a_check_that_cannot_be_run_is_critical() {
    let server = Server::start(NO_OPTIONS);
    let exec = ExecProcess::start(
        server.socket(),
        &options("check=/nowhere/at/all", &["--stall-after=30s"]),
        "exec sleep 1000",
    );
    server.expect(agent(exec.pid()).up().with_status("critical"));
    exec.await_said("its check cannot be started: No such file");
}

#[test]
fn of_several_sources_each_has_to_speak() {
    let server = Server::start(NO_OPTIONS);
    let exec = ExecProcess::start(
        server.socket(),
        &options("output", &["--beat=check=true", "--beat=alive"]),
        "echo once; exec sleep 1000",
    );
    server.expect(agent(exec.pid()).stalled().within(SHORT));
}

#[test]
fn a_command_gets_the_servers_socket_if_it_is_asked_for_and_never_a_foreign_watchdog_pid() {
    let server = Server::start(NO_OPTIONS);
    let print = |options: &[&str]| {
        let options = [&["--beat=alive"], options].concat();
        let mut command = varta_integration_tests::exec_command(
            server.socket(),
            &options,
            &["sh", "-c", "echo ${VARTA_SOCKET-none} ${WATCHDOG_PID-none}"],
        );
        command.env("WATCHDOG_PID", "1");
        varta_integration_tests::run_to_its_end(command).stdout
    };
    assert_eq!(print(&[]), "none none\n");
    assert_eq!(print(&["--pass-socket"]), format!("{} none\n", server.socket().display()));
}

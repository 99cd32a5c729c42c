//! `varta-server exec`: what is seen of a silent command is seen of its process, and not of exec.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use varta_integration_tests::{ExecProcess, Server, Signal, agent, sys};

const NO_OPTIONS: [&str; 0] = [];
const WITHIN: Duration = Duration::from_secs(2);

/// The command that prints once, and then does what `script` says.
fn start(server: &Server, script: &str) -> ExecProcess {
    let options = ["--beat=output", "--every=100ms", "--stall-after=2s"];
    let exec = ExecProcess::start(server.socket(), &options, &format!("echo begun; {script}"));
    exec.await_printed("begun");
    exec
}

#[test]
fn the_dossier_of_a_command_that_is_silent_names_its_process_and_what_that_does() {
    let server = Server::start(NO_OPTIONS);
    let table = [
        ("exec sleep 1000", "idle", "sleep", "sleeping"),
        ("while :; do :; done", "busy", "sh", "running"),
        ("kill -STOP $$", "stopped", "sh", "stopped"),
    ];
    for (script, activity, command, state) in table {
        let exec = start(&server, script);
        let dossier = server.expect(agent(exec.pid()).stalled().within(WITHIN)).dossier;
        let pid = exec.command_pid();
        assert!(dossier.starts_with(&format!("{activity}: child {pid} ({command}): ")), "{dossier}");
        assert!(dossier.contains(&format!("; main thread {state}")), "{dossier}");
        sys::send_signal(pid, Signal::Kill).unwrap();
        server.expect(agent(exec.pid()).down());
    }
}

#[test]
fn after_a_restart_it_is_the_new_process_and_exec_itself_is_shown_when_it_is_what_hangs() {
    let server = Server::start(NO_OPTIONS);
    let options = ["--beat=output", "--every=100ms", "--stall-after=2s", "--restart=always"];
    let exec = ExecProcess::start(server.socket(), &options, "echo begun; exec sleep 1000");
    exec.await_printed("begun");
    let first = exec.command_pid();
    sys::send_signal(first, Signal::Kill).unwrap();
    exec.await_printed("begun\nbegun");
    let second = exec.command_pid();
    assert_ne!(first, second);
    let stalled = server.expect(agent(exec.pid()).stalled().within(WITHIN));
    assert!(stalled.dossier.contains(&format!(": child {second} (sleep): ")), "{stalled}");
    let hanging = start(&server, "exec sleep 1000");
    sys::send_signal(hanging.pid(), Signal::Stop).unwrap();
    sys::send_signal(hanging.command_pid(), Signal::Kill).unwrap();
    let stalled = server.expect(agent(hanging.pid()).stalled().within(WITHIN));
    assert!(stalled.dossier.starts_with("stopped: a signal has stopped it"), "{stalled}");
}

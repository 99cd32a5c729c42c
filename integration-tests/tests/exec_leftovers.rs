//! `varta-server exec`: nothing of a command is left when exec has ended.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;
use std::process::Command;

use varta_integration_tests::foreign::skip;
use varta_integration_tests::{
    ExecProcess, Scratch, Signal, children, exec_command, into_pid_namespace, pid_namespaces_work,
    run_to_its_end, sys, wait_until,
};

const ALIVE: [&str; 1] = ["--beat=alive"];

fn is_there(pid: &str) -> bool {
    Path::new("/proc").join(pid.trim()).exists()
}

/// The state of a process, as `Z` for one that was not reaped.
fn state(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('-')
}

#[test]
fn a_command_that_goes_to_the_background_is_ended_and_exec_says_so() {
    let scratch = Scratch::make();
    let daemon = scratch.path("daemon");
    let script = format!("setsid sleep 1000 > /dev/null 2>&1 & echo $! > {}; exit 4", daemon.display());
    let ended = run_to_its_end(exec_command(&scratch.socket(), &ALIVE, &["sh", "-c", &script]));
    assert_eq!(ended.status.code(), Some(4));
    assert!(ended.stderr.contains("sh has left a process behind, now ended"), "{}", ended.stderr);
    assert!(!is_there(&fs::read_to_string(daemon).unwrap()));
}

#[test]
fn what_is_left_and_ignores_sigterm_is_killed_whatever_session_it_is_in() {
    let scratch = Scratch::make();
    let pids = scratch.path("pids");
    let deaf = format!("trap '' TERM; echo \\$\\$ >> {}; while :; do sleep 1000; done", pids.display());
    let script = format!(
        "setsid sh -c \"{deaf}\" & setsid setsid sh -c \"{deaf}\" & until [ $(wc -l < {0}) = 2 ]; do sleep 0.01; done; \
         head -c 100000 /dev/zero",
        pids.display()
    );
    scratch.write("pids", "");
    // They hold its standard output, too.
    let options = ["--beat=alive", "--kill-after=100ms"];
    let ended = run_to_its_end(exec_command(&scratch.socket(), &options, &["sh", "-c", &script]));
    assert_eq!((ended.status.code(), ended.stdout.len()), (Some(0), 100_000), "{}", ended.stderr);
    let pids = scratch.lines("pids");
    assert_eq!(pids.len(), 2);
    assert!(!pids.iter().any(|pid| is_there(pid)));
}

#[test]
fn a_second_request_to_end_kills_what_is_left_at_once() {
    let scratch = Scratch::make();
    let options = ["--beat=alive", "--kill-after=1h"];
    let script = "setsid sh -c \"trap '' TERM; echo left.; while :; do sleep 1000; done\" & echo begun; wait";
    let exec = ExecProcess::start(&scratch.socket(), &options, script);
    exec.await_printed("left.");
    exec.signal(Signal::Terminate);
    let command = exec.command_pid();
    wait_until("the command has ended", || !is_there(&command.to_string()));
    exec.signal(Signal::Terminate);
    let ended = exec.wait();
    assert!(ended.status.code().is_none());
    assert!(ended.stderr.contains("sh has left "), "{}", ended.stderr);
}

#[test]
fn the_children_of_a_shell_that_became_exec_are_left_alone() {
    let scratch = Scratch::make();
    let exec =
        exec_command(&scratch.socket(), &ALIVE, &["sh", "-c", "setsid sleep 1000 > /dev/null 2>&1 & exit 0"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "sleep 1000 > /dev/null 2>&1 & echo $!; exec \"$@\"", "sh"]);
    shell.arg(exec.get_program()).args(exec.get_args());
    let ended = run_to_its_end(shell);
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.stderr.contains("has left a process behind"), "{}", ended.stderr);
    let pid = ended.stdout.trim();
    assert!(is_there(pid));
    sys::send_signal(pid.parse().unwrap(), Signal::Kill).unwrap();
}

#[test]
fn as_process_1_it_reaps_orphans_and_ends_with_the_status_of_the_command() {
    if !pid_namespaces_work() {
        return;
    }
    let scratch = Scratch::make();
    let done = scratch.write("done", "");
    let script = format!(
        "for i in 1 2 3; do setsid sh -c '(sleep 0.1; echo >> {0}) &'; done; echo pid $$; read line; exit 5",
        done.display()
    );
    let inside = exec_command(&scratch.socket(), &ALIVE, &["sh", "-c", &script]);
    let mut exec = ExecProcess::run(into_pid_namespace(&inside));
    exec.await_printed("pid ");
    wait_until("all orphans have ended", || scratch.lines("done").len() == 3);
    let process_1 = exec.command_pid();
    let is_reaped = || !children(process_1).into_iter().any(|pid| state(pid) == 'Z');
    wait_until("all orphans are reaped", is_reaped);
    exec.tell("end");
    let ended = exec.wait();
    assert_eq!((ended.status.code(), ended.stderr.contains("left")), (Some(5), false), "{}", ended.stderr);
    let daemon = "setsid sh -c \"trap '' TERM; sleep 1000; sleep 1000\" > /dev/null 2>&1 & sleep 0.1; exit 6";
    let options = ["--beat=alive", "--kill-after=100ms"];
    let left =
        run_to_its_end(into_pid_namespace(&exec_command(&scratch.socket(), &options, &["sh", "-c", daemon])));
    assert_eq!(left.status.code(), Some(6));
    assert!(left.stderr.contains("has left processes behind"), "{}", left.stderr);
    let killed = exec_command(&scratch.socket(), &ALIVE, &["sh", "-c", "kill -SEGV $$"]);
    assert_eq!(run_to_its_end(into_pid_namespace(&killed)).status.code(), Some(128 + 11));
}

#[test]
fn a_command_that_becomes_another_user_is_watched_and_gets_its_signals() {
    if sys::user() != 0 {
        return skip("only root becomes another user");
    }
    let server = varta_integration_tests::Server::start([] as [&str; 0]);
    let words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c"];
    let script = "trap 'echo hung up' HUP; id -u; while :; do read line && exit 3; done";
    let words = [&words[..], &[script]].concat();
    let mut exec =
        ExecProcess::run(exec_command(server.socket(), &["--beat=alive", "--name=nobody"], &words));
    exec.await_printed("65534\n");
    server.expect(varta_integration_tests::agent(exec.pid()).named("nobody").up());
    exec.signal(Signal::HangUp);
    exec.await_printed("hung up");
    exec.tell("end");
    assert_eq!(exec.wait().status.code(), Some(3));
    server.expect(varta_integration_tests::agent("nobody").down().exit_code(3));
}

//! `varta-server exec`: signals reach the command once, and a terminal is its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use nix::sys::signal::kill;
use nix::unistd::Pid;
use varta_integration_tests::foreign::skip;
use varta_integration_tests::{
    ExecProcess, Scratch, Server, Signal, Terminal, agent, exec_command, run_to_its_end, sys, wait_until,
};

const ALIVE: [&str; 1] = ["--beat=alive"];

/// The state of a process, as `T` for one that is stopped.
fn state(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('-')
}

#[test]
fn who_is_asked_to_end_and_does_is_gone_by_the_same_signal() {
    let server = Server::start([] as [&str; 0]);
    let exec =
        ExecProcess::start(server.socket(), &["--beat=alive", "--name=obeys"], "echo begun; exec sleep 1000");
    exec.await_printed("begun");
    server.expect(agent("obeys").up());
    exec.signal(Signal::Terminate);
    let ended = exec.wait();
    assert_eq!((ended.status.signal(), ended.stderr.as_str()), (Some(15), ""));
    server.expect(agent("obeys").gone().because("goodbye"));
    // As a JVM does it.
    let script = "trap 'exit 143' TERM; echo begun; read line";
    let exec = ExecProcess::start(server.socket(), &["--beat=alive", "--name=handles"], script);
    exec.await_printed("begun");
    exec.signal(Signal::Terminate);
    assert_eq!(exec.wait().status.code(), Some(143));
    server.expect(agent("handles").gone().because("goodbye"));
}

#[test]
fn who_is_killed_by_another_is_down() {
    let server = Server::start([] as [&str; 0]);
    let exec =
        ExecProcess::start(server.socket(), &["--beat=alive", "--name=hit"], "echo begun; exec sleep 1000");
    exec.await_printed("begun");
    sys::send_signal(exec.command_pid(), Signal::Kill).unwrap();
    assert_eq!(exec.wait().status.signal(), Some(9));
    server.expect(agent("hit").down().because("killed").signal(9));
}

#[test]
fn every_signal_that_a_process_sends_is_passed_on() {
    let scratch = Scratch::make();
    let script = "for s in HUP INT QUIT USR1 USR2 ALRM URG 35 64; do trap \"echo got $s\" $s; done; echo ready; \
                  while :; do read line && exit 0; done";
    let mut exec = ExecProcess::run(exec_command(&scratch.socket(), &ALIVE, &["bash", "-c", script]));
    exec.await_printed("ready");
    let pid = Pid::from_raw(exec.pid().cast_signed());
    use nix::sys::signal::Signal as S;
    for signal in [S::SIGHUP, S::SIGINT, S::SIGQUIT, S::SIGUSR1, S::SIGUSR2, S::SIGALRM, S::SIGURG] {
        kill(pid, signal).unwrap();
        exec.await_printed(&format!("got {}\n", &signal.as_str()[3..]));
    }
    for number in ["35", "64"] {
        assert!(
            Command::new("kill")
                .args([&format!("-{number}"), &exec.pid().to_string()])
                .status()
                .unwrap()
                .success()
        );
        exec.await_printed(&format!("got {number}\n"));
    }
    exec.tell("end");
    let ended = exec.wait();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.stdout.lines().count(), 10, "{}", ended.stdout);
}

#[test]
fn who_ignores_sigterm_runs_on_and_ends_with_exec_that_is_killed() {
    let server = Server::start([] as [&str; 0]);
    let script = "trap '' TERM; trap 'echo usr1' USR1; echo begun; while :; do read line && echo $line; done";
    let mut exec = ExecProcess::start(server.socket(), &ALIVE, script);
    exec.await_printed("begun");
    let command = exec.command_pid();
    exec.signal(Signal::Terminate);
    // After SIGTERM, and so the answer shows that this has had no effect.
    exec.tell("alive");
    exec.await_printed("alive");
    assert_eq!(state(command), 'S');
    exec.signal(Signal::Kill);
    assert_eq!(exec.wait().status.signal(), Some(9));
    wait_until("the command has ended", || ['-', 'Z'].contains(&state(command)));
}

#[test]
fn the_command_has_the_signals_blocked_and_ignored_that_exec_was_started_with() {
    let starter = ["env", "--ignore-signal=HUP", "--block-signal=USR1", "--block-signal=RTMIN"];
    let trial = Command::new(starter[0]).args(&starter[1..]).arg("true").output();
    if !trial.is_ok_and(|trial| trial.status.success()) {
        return skip("`env` ignores and blocks no signals here: GNU coreutils from 8.31 on does");
    }
    let scratch = Scratch::make();
    let bare =
        Command::new(starter[0]).args(&starter[1..]).args(["grep", "^Sig[BI]", "/proc/self/status"]).output();
    let exec = exec_command(&scratch.socket(), &ALIVE, &["grep", "^Sig[BI]", "/proc/self/status"]);
    let mut through = Command::new(starter[0]);
    through.args(&starter[1..]).arg(exec.get_program()).args(exec.get_args());
    let ended = run_to_its_end(through);
    assert_eq!(ended.stdout, String::from_utf8(bare.unwrap().stdout).unwrap());
    assert!(ended.stdout.contains("SigBlk:"), "{}", ended.stdout);
}

/// Types a command line of exec that runs a script.
fn type_exec(terminal: &mut Terminal, scratch: &Scratch, options: &[&str], script: &str) {
    let path = scratch.write("script.sh", script);
    let command = exec_command(&scratch.socket(), options, &["sh", path.to_str().unwrap()]);
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
    terminal.type_keys(&format!("{}\n", words.join(" ")));
}

#[test]
fn the_command_has_the_terminal_of_exec() {
    let Some(mut terminal) = Terminal::with_shell() else { return };
    let scratch = Scratch::make();
    let script = "test -t 0 && test -t 1 && test -t 2 && echo size $(stty size)\n\
                  read line\necho read $line\n";
    type_exec(&mut terminal, &scratch, &ALIVE, script);
    assert_eq!(terminal.await_line("size "), "33 99");
    terminal.type_keys("some words\n");
    assert_eq!(terminal.await_line("read "), "some words");
    terminal.type_keys("echo status $?\n");
    assert_eq!(terminal.await_line("status "), "0");
}

#[test]
fn an_interrupt_of_the_terminal_reaches_the_command_once() {
    let Some(mut terminal) = Terminal::with_shell() else { return };
    let scratch = Scratch::make();
    let done = scratch.path("done");
    let script = format!(
        "trap 'n=$((n+1)); echo seen $n' INT\necho ready.\nwhile [ ! -e {} ]; do sleep 0.05; done\necho count $n\nexit 7\n",
        done.display()
    );
    type_exec(&mut terminal, &scratch, &ALIVE, &script);
    terminal.await_line("ready.");
    terminal.type_keys("\x03");
    terminal.await_line("seen 1");
    terminal.type_keys("\x03");
    terminal.await_line("seen 2");
    fs::write(&done, "").unwrap();
    assert_eq!(terminal.await_line("count "), "2");
    terminal.type_keys("echo status $?\n");
    assert_eq!(terminal.await_line("status "), "7");
}

#[test]
fn a_job_is_stopped_and_continued_as_a_whole() {
    let Some(mut terminal) = Terminal::with_shell() else { return };
    let scratch = Scratch::make();
    type_exec(&mut terminal, &scratch, &ALIVE, "echo pids $PPID $$\nread line\necho read $line\nexit 9\n");
    let pids: Vec<u32> = terminal.await_line("pids ").split(' ').map(|pid| pid.parse().unwrap()).collect();
    for round in 1..=2 {
        terminal.type_keys("\x1a");
        wait_until("both are stopped", || pids.iter().all(|pid| state(*pid) == 'T'));
        // The shell has its terminal back.
        terminal.type_keys(&format!("echo shell {round}\n"));
        terminal.await_line(&format!("shell {round}"));
        terminal.type_keys("fg\n");
        wait_until("both go on", || pids.iter().all(|pid| state(*pid) == 'S'));
    }
    terminal.type_keys("line\n");
    assert_eq!(terminal.await_line("read "), "line");
    terminal.type_keys("echo status $?\n");
    assert_eq!(terminal.await_line("status "), "9");
}

#[test]
fn a_terminal_that_is_hung_up_ends_the_command() {
    let Some(mut terminal) = Terminal::with_shell() else { return };
    let scratch = Scratch::make();
    type_exec(&mut terminal, &scratch, &ALIVE, "echo pids $PPID $$\nread line\nsleep 1000\n");
    let pids: Vec<u32> = terminal.await_line("pids ").split(' ').map(|pid| pid.parse().unwrap()).collect();
    drop(terminal);
    wait_until("both have ended", || pids.iter().all(|pid| ['-', 'Z'].contains(&state(*pid))));
}

#[test]
fn a_job_in_a_pipeline_shares_its_group_and_its_signals() {
    let Some(mut terminal) = Terminal::with_shell() else { return };
    let scratch = Scratch::make();
    let path = scratch.write("script.sh", "echo pids $PPID $$\nwhile :; do sleep 1000; done\n");
    let command = exec_command(&scratch.socket(), &ALIVE, &["sh", path.to_str().unwrap()]);
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
    terminal.type_keys(&format!("{} | cat\n", words.join(" ")));
    let pids: Vec<u32> = terminal.await_line("pids ").split(' ').map(|pid| pid.parse().unwrap()).collect();
    terminal.type_keys("\x1a");
    wait_until("both are stopped", || pids.iter().all(|pid| state(*pid) == 'T'));
    terminal.type_keys("fg\n");
    wait_until("both go on", || pids.iter().all(|pid| state(*pid) == 'S'));
    terminal.type_keys("\x03");
    terminal.type_keys("echo back.\n");
    terminal.await_line("back.");
    wait_until("both have ended", || pids.iter().all(|pid| state(*pid) == '-'));
}

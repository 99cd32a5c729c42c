//! What the server makes of what it inherits from the program that starts it, and of children that others leave
//! to it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::net::TcpStream;
use std::process::Command;

use varta_integration_tests::foreign::skip;
use varta_integration_tests::{
    AgentProcess, Options, Scratch, Server, Signal, agent, line_with, metric, pid_namespaces_work, wait_until,
};

/// A server that runs this command for each agent that is down.
fn server(options: Options, command: &str) -> Server {
    Server::start(options.args(["--recovery-exec", command]))
}

/// A command that writes what a shell prints into a file.
fn note(scratch: &Scratch, script: &str) -> String {
    format!("/bin/sh -c '{script} >> {}'", scratch.path("notes").display())
}

fn await_notes(scratch: &Scratch, count: usize) -> Vec<String> {
    wait_until(&format!("there are {count} notes"), || scratch.lines("notes").len() >= count);
    scratch.lines("notes")
}

#[track_caller]
fn await_action(server: &Server, result: &str, count: f64) {
    let actions = metric("varta_recovery_actions_total").with("action", "command").with("result", result);
    server.expect(actions.at_least(count));
}

#[test]
fn signals_that_the_starter_ignored_or_blocked_are_as_if_it_had_not() {
    let starter = ["env", "--ignore-signal=CHLD", "--block-signal=TERM", "--block-signal=HUP"];
    let trial = Command::new(starter[0]).args(&starter[1..]).arg("true").output();
    if !trial.is_ok_and(|trial| trial.status.success()) {
        return skip("`env` ignores and blocks no signals here: GNU coreutils from 8.31 on does");
    }
    let scratch = Scratch::make();
    let mut server = server(Options::new().started_by(starter), &note(&scratch, "echo ran"));
    let worker = server.start_agent(&[]);
    worker.signal(Signal::Kill);
    server.expect(agent(&worker).down());
    assert_eq!(await_notes(&scratch, 1), ["ran"]);
    await_action(&server, "done", 1.0);
    server.expect(line_with("exited with status 0"));
    // It waits until the server has ended by SIGTERM.
    server.stop();
}

#[test]
fn a_command_gets_the_descriptor_limit_that_the_server_was_given() {
    let scratch = Scratch::make();
    let starter = ["/bin/sh", "-c", "ulimit -Sn 300 && exec \"$@\"", "starter"];
    let server = server(Options::new().started_by(starter), &note(&scratch, "ulimit -Sn"));
    let worker = server.start_agent(&[]);
    worker.signal(Signal::Kill);
    assert_eq!(await_notes(&scratch, 1), ["300"]);
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let files: Vec<&str> = files.split_whitespace().collect();
    assert_eq!(files[0], files[1], "the server's own is raised");
}

#[test]
fn a_command_with_a_relative_path_is_found_where_the_server_was_started() {
    let scratch = Scratch::make();
    let notes = scratch.path("notes");
    let script = scratch.write("x.sh", &format!("#!/bin/sh\necho $1 >> {}\n", notes.display()));
    assert!(Command::new("chmod").arg("+x").arg(&script).status().unwrap().success());
    let enter = format!("cd {} && exec \"$@\"", scratch.directory().display());
    let starter = ["/bin/sh", "-c", &enter, "starter"];
    let server = server(Options::new().started_by(starter), "./x.sh {name}");
    let worker = server.start_agent(&[]);
    worker.signal(Signal::Kill);
    assert_eq!(await_notes(&scratch, 1), ["it-worker"]);
    await_action(&server, "done", 1.0);
}

#[test]
fn a_command_whose_daemon_ended_with_it_has_failed_and_is_not_run_again() {
    let scratch = Scratch::make();
    let options = Options::from(["--recovery-backoff", "10ms", "--recovery-debounce", "0s"]);
    let daemon =
        format!("/bin/sh -c 'echo $VARTA_ATTEMPT >> {}; sleep 1000 &'", scratch.path("notes").display());
    let server = server(options, &daemon);
    let worker = server.start_agent(&[]);
    worker.signal(Signal::Kill);
    server.expect(line_with("what it started did not stay").with("it is not tried again"));
    server.expect(metric("varta_recovery_refused_total").with("reason", "given_up").at_least(1.0));
    await_action(&server, "failed", 1.0);
    assert_eq!(scratch.lines("notes"), ["1"]);
}

/// The pids, states and parents of all processes.
fn processes() -> Vec<(u32, char, u32)> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let parse = |stat: String| {
        let pid = stat.split(' ').next()?.parse().ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        Some((pid, fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
    };
    stats.filter_map(parse).collect()
}

#[test]
fn as_process_1_it_reaps_what_others_leave_to_it_and_learns_how_its_commands_ended() {
    if !pid_namespaces_work() {
        return;
    }
    let scratch = Scratch::make();
    let (begun, done) = (scratch.write("begun", ""), scratch.path("done"));
    let (begun, done) = (begun.display(), done.display());
    // Each command leaves a process in a session of its own, whose parent is process 1 from then on, and which
    // ends a moment later. One command in three fails.
    let script = format!(
        "setsid sh -c \"echo >> {begun}; sleep 0.1; echo >> {done}\" > /dev/null 2>&1 & \
         until [ $(wc -l < {begun}) -ge $VARTA_ATTEMPT ]; do sleep 0.01; done; exit $(( VARTA_ATTEMPT % 3 == 0 ))"
    );
    let rules = format!(
        "[[expected]]\nname = 'ghost'\ngrace = '10ms'\n\
         [[recovery]]\nstate = 'expected'\nexec = \"\"\"/bin/sh -c '{script}'\"\"\"\n\
         attempts = 6\nbackoff = '10ms'\ndebounce = '0s'\nbudget = '100/1s'\n"
    );
    let options = Options::new().config(&scratch, &rules).in_a_container();
    let server = Server::start(options);
    await_action(&server, "done", 4.0);
    await_action(&server, "failed", 2.0);
    wait_until("all that the commands left has ended", || scratch.lines("done").len() >= 6);
    let inside = processes().into_iter().find(|(_, _, parent)| *parent == server.pid()).unwrap().0;
    wait_until("all of it is reaped", || {
        !processes().iter().any(|(_, state, parent)| *state == 'Z' && *parent == inside)
    });
    assert_eq!(server.scrape().value("varta_recovery_running", &[]), 0.0);
}

#[test]
fn with_few_descriptors_every_living_agent_stays_up_and_ends_are_noticed_and_acted_on() {
    let scratch = Scratch::make();
    let starter = ["/bin/sh", "-c", "ulimit -n 96 && exec \"$@\"", "starter"];
    let server =
        server(Options::new().started_by(starter).args(["--stall-after", "2s"]), &note(&scratch, "echo ran"));
    let mut living = server.start_agents(60, &[]);
    // As many clients as want to say nothing.
    let silent: Vec<_> = (0..60).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    let killed = living.split_off(40);
    for agent in &killed {
        agent.signal(Signal::Kill);
    }
    for ended in &killed {
        server.expect(agent(ended).down());
    }
    // Recovery has a budget, and so not all have one.
    await_notes(&scratch, 1);
    let pids: Vec<_> = living.iter().map(AgentProcess::pid).collect();
    server.await_beats(&pids, 20);
    for agent in &living {
        assert_eq!(server.history(agent), ["up: first_beat"]);
    }
    drop(silent);
}

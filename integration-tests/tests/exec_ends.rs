//! `varta-server exec`: how it ends, and what the server makes of that.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::os::unix::process::ExitStatusExt;

use varta_integration_tests::{
    ExecProcess, Scratch, Server, Signal, agent, exec_command, line_with, metric, run_to_its_end,
};

const NO_OPTIONS: [&str; 0] = [];
const ALIVE: [&str; 2] = ["--beat", "alive"];
const UNWATCHED: &str = "runs unwatched until a server takes its beats";

#[test]
fn a_command_that_ends_well_has_said_goodbye_and_one_that_fails_is_down() {
    let server = Server::start(NO_OPTIONS);
    let run =
        |name, script| ExecProcess::start(server.socket(), &["--beat=alive", "--name", name], script).wait();
    let well = run("well", "echo done");
    assert_eq!((well.status.code(), well.stdout.as_str(), well.stderr.as_str()), (Some(0), "done\n", ""));
    server.expect(agent("well").up());
    server.expect(agent("well").gone().because("goodbye"));
    let failed = run("failed", "echo out; echo 'what went wrong' >&2; exit 3");
    assert_eq!(failed.status.code(), Some(3));
    assert_eq!(failed.stdout, "out\n");
    assert!(
        failed.stderr.starts_with("what went wrong\nvarta-server exec: failed exited with status 3 after ")
    );
    assert!(failed.stderr.contains("its last line: "), "{}", failed.stderr);
    server.expect(agent("failed").down().because("exited").exit_code(3));
}

#[test]
fn the_last_lines_of_what_failed_are_in_the_verdict_unless_its_output_is_secret() {
    let server = Server::start(NO_OPTIONS);
    let run = |name, more: &[&str], script| {
        let options = [&["--beat=alive", "--name", name], more].concat();
        ExecProcess::start(server.socket(), &options, script).wait()
    };
    run("failed", &[], "echo one; printf 'no space \\033[2J left\\n\\n'; exit 3");
    server.expect(line_with("exited with status 3").with("(\"one | no space \u{fffd}[2J left\")"));
    run("well", &[], "echo fine");
    run("secret", &["--no-output"], "echo hidden; exit 3");
    run("long", &[], "seq 100000; exit 3");
    server.expect(agent("secret").down());
    let long = server.expect(line_with("exited with status 3").with(" | 99999 | 100000\")"));
    drop(long);
    let all = server.log().lines().join("\n");
    assert!(!all.contains("hidden") && !all.contains("fine"), "{all}");

    // One that is started again is critical meanwhile, and its words go when it runs.
    let options = ["--beat=alive", "--every=100ms", "--name=again", "--restart=on-failure"];
    let scratch = Scratch::make();
    let flag = scratch.path("flag");
    let script = format!("test -e {0} && exec sleep 600; touch {0}; echo broken; exit 1", flag.display());
    let again = ExecProcess::start(server.socket(), &options, &script);
    server.expect(line_with("it reports critical").with("(\"broken\")"));
    server.expect(agent("again").up().from("up").with_status("ok").because("reported"));
    again.signal(Signal::Kill);
    let down = server.expect(line_with("again[").with("from up to down"));
    assert!(!format!("{down:?}").contains("broken"), "{down:?}");
}

#[test]
fn exit_statuses_that_mean_success_are_a_goodbye_and_are_passed_on() {
    let server = Server::start(NO_OPTIONS);
    let options = ["--beat=alive", "--name=batch", "--success-exit-codes", "3,75"];
    let ended = ExecProcess::start(server.socket(), &options, "exit 75").wait();
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(75), ""));
    server.expect(agent("batch").gone().because("goodbye"));
}

#[test]
fn who_is_killed_by_a_signal_takes_exec_along_by_the_same_and_leaves_no_core_of_it() {
    let server = Server::start(NO_OPTIONS);
    for (name, number) in [("SEGV", 11), ("KILL", 9), ("USR1", 10), ("RTMIN+3", 37)] {
        let options = ["--beat=alive", "--name", name.split('+').next().unwrap()];
        let ended = ExecProcess::start(server.socket(), &options, &format!("kill -{number} $$")).wait();
        assert_eq!(ended.status.signal(), Some(number), "{name}: {}", ended.stderr);
        assert!(!ended.status.core_dumped(), "{name}");
        let expected = agent(options[2]).down().because("killed").signal(u64::from(number.unsigned_abs()));
        server.expect(expected);
    }
}

#[test]
fn a_command_that_cannot_be_started_is_told_from_one_that_failed() {
    let server = Server::start(NO_OPTIONS);
    let scratch = Scratch::make();
    let file = scratch.write("data", "no program");
    let path = file.to_str().unwrap();
    for (name, program, status, fault) in
        [("absent", "/nowhere/at/all", 127, "No such file"), ("data", path, 126, "Permission denied")]
    {
        let ended =
            run_to_its_end(exec_command(server.socket(), &["--beat=alive", "--name", name], &[program, "x"]));
        assert_eq!(ended.status.code(), Some(status), "{}", ended.stderr);
        assert!(
            ended
                .stderr
                .starts_with(&format!("varta-server exec: {name} cannot be started: {program}: {fault}"))
        );
        server.expect(agent(name).up().with_status("critical"));
        let code = u64::try_from(status).unwrap();
        server.expect(agent(name).down().because("exited").exit_code(code).with_status("critical"));
    }
}

#[test]
fn without_a_server_the_command_runs_all_the_same_and_is_watched_when_there_is_one() {
    let scratch = Scratch::make();
    let socket = scratch.socket();
    let options = ["--beat=alive", "--name=early", "--every=50ms", "--stall-after=30s"];
    let mut exec = ExecProcess::start(&socket, &options, "echo begun; read line; echo $line; exit 4");
    exec.await_printed("begun\n");
    exec.await_said(UNWATCHED);
    let server = Server::start(varta_integration_tests::Options::new().socket(&socket));
    server.expect(agent(exec.pid()).named("early").up());
    exec.await_said("early is watched: a server takes its beats");
    exec.tell("the end");
    let ended = exec.wait();
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(4), "begun\nthe end\n"));
    server.expect(agent("early").down().because("exited").exit_code(4));
}

#[test]
fn a_server_that_is_killed_and_started_again_watches_on_and_the_command_notices_nothing() {
    let scratch = Scratch::make();
    let socket = scratch.socket();
    let start = || Server::start(varta_integration_tests::Options::new().socket(&socket));
    let mut server = start();
    let options = ["--beat=alive", "--name=lasting", "--label=team=a", "--every=50ms", "--stall-after=30s"];
    let mut exec = ExecProcess::start(&socket, &options, "echo begun; read line; echo $line");
    server.expect(agent(exec.pid()).named("lasting").up());
    server.kill();
    drop(server);
    exec.await_said(UNWATCHED);
    let server = start();
    server.expect(agent(exec.pid()).named("lasting").up());
    server.await_beats(&[exec.pid()], 3);
    exec.tell("goodbye");
    let ended = exec.wait();
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(0), "begun\ngoodbye\n"));
    server.expect(agent("lasting").gone().because("goodbye"));
}

#[test]
fn the_agent_has_the_name_and_the_labels_that_are_given_else_the_name_of_the_program() {
    let server = Server::start(NO_OPTIONS);
    let exec = |options: &[&str]| {
        let options = [&ALIVE, options].concat();
        ExecProcess::run(exec_command(server.socket(), &options, &["sleep", "1000"]))
    };
    let unnamed = exec(&["--label", "team=a"]);
    server.expect(agent(unnamed.pid()).named("sleep").up());
    server.expect(metric("varta_agent_info").with("agent", "sleep").with("label_team", "a").is(1.0));
    let named = exec(&["--name=nightly:backup@db"]);
    server.expect(agent(named.pid()).named("nightly:backup@db").up());
    for exec in [unnamed, named] {
        exec.signal(Signal::Terminate);
        assert_eq!(exec.wait().status.signal(), Some(15));
    }
    server.expect(metric("varta_agents").with("state", "gone").is(2.0));
}

#[test]
fn what_makes_no_sense_is_wrong_usage_and_starts_nothing() {
    let scratch = Scratch::make();
    let touch = scratch.path("started");
    let command = ["touch", touch.to_str().unwrap()];
    for options in
        [&["--beat=alive", "--every=1ms"][..], &["--beat=check=a", "--beat=check=b"], &["--beat=wish"]]
    {
        let ended = run_to_its_end(exec_command(&scratch.socket(), options, &command));
        assert_eq!(ended.status.code(), Some(2), "{options:?}: {}", ended.stderr);
        assert!(!touch.exists());
    }
}

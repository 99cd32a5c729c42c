//! Ends that `/proc` does not show: of processes that are gone when the server reads their only beat, and of
//! those that a `/proc` mounted with `hidepid` hides from it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::process::Command;

use varta_integration_tests::foreign::skip;
use varta_integration_tests::sys::{self, NOBODY};
use varta_integration_tests::{
    AgentProcess, Options, Server, Signal, agent, metric, run_to_its_end, server_command,
};

/// Whether the kernel gives the status of a process that was reaped before its datagram was read: Linux 6.16
/// and later do.
fn kernel_remembers_senders() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 16)
}

#[test]
fn how_a_process_ended_that_was_gone_before_its_only_beat_was_read_is_known() {
    let server = Server::start(["--stall-after", "1h"]);
    server.pause();
    let ends = ["0", "3"].map(|code| {
        let arguments = ["--beats", "1", "--interval-ms", "0", "--exit-code", code];
        let mut process = AgentProcess::start(server.socket(), &arguments);
        let pid = process.pid();
        process.wait();
        pid
    });
    server.resume();
    let [well, badly] = ends;
    server.expect(agent(well).gone());
    if kernel_remembers_senders() {
        server.expect(agent(badly).down().because("exited"));
        assert_eq!(
            server.scrape().value("varta_transitions_total", &[("to", "down"), ("cause", "exited")]),
            1.0
        );
    } else {
        // Of what is not known nobody makes an alarm.
        server.expect(agent(badly).gone());
    }
}

/// A server whose `/proc` hides the agents, which are another user's: the server, and how agents are started. `None`
/// where that cannot be.
fn with_hidden_agents(options: Options) -> Option<(Server, [String; 2])> {
    let script =
        "mount -t proc -o hidepid=2,gid=65533 proc /proc && exec setpriv --bounding-set -sys_ptrace \"$@\"";
    let starter = ["unshare", "--mount", "/bin/sh", "-c", script, "starter"];
    let trial = Command::new(starter[0]).args(&starter[1..]).arg("true").output();
    if sys::user() != 0 || !trial.is_ok_and(|trial| trial.status.success()) {
        skip("/proc cannot be mounted here: that takes root, `unshare` and `setpriv`");
        return None;
    }
    let user = NOBODY.to_string();
    let options = options.args(["--allow-uid", &user]).open_to_all();
    Some((Server::start(options.started_by(starter)), ["--user".to_owned(), user]))
}

#[test]
fn ends_and_silences_are_noticed_though_proc_hides_the_agents() {
    let Some((server, user)) = with_hidden_agents(Options::from(["--stall-after", "1s"])) else { return };
    let arguments = user.each_ref().map(String::as_str);
    let mut well = server.start_agent(&arguments);
    let mut badly = server.start_agent(&arguments);
    let mut killed = server.start_agent(&arguments);
    let silent = server.start_agent(&arguments);
    well.ask("exit 0");
    badly.ask("exit 3");
    killed.signal(Signal::Kill);
    for ended in [&mut well, &mut badly, &mut killed] {
        ended.wait();
    }
    silent.signal(Signal::Stop);
    server.expect(agent(&well).gone());
    server.expect(agent(&badly).down().because("exited"));
    server.expect(agent(&killed).down().because("killed"));
    server.expect(agent(&silent).stalled().because("silent"));
}

#[test]
fn who_takes_the_place_of_a_hidden_process_that_its_parent_has_not_reaped_leaves_no_dead_row() {
    let Some((server, user)) = with_hidden_agents(Options::from(["--stall-after", "1h"])) else { return };
    let [option, user] = user.each_ref().map(String::as_str);
    let arguments = [option, user, "--name", "worker"];
    let mut workers = vec![server.start_agent(&arguments)];
    server.await_agents("up", 1);
    for _ in 0..5 {
        let before = workers.last().unwrap();
        before.signal(Signal::Kill);
        before.await_zombie();
        workers.push(server.start_agent(&arguments));
        server.expect(agent(workers.last().unwrap()).up());
    }
    server.expect(metric("varta_agent_restarts_total").with("agent", "worker").is(5.0));
    for worker in &mut workers[..5] {
        worker.wait();
    }
    // Behind all that the parent's questions lead to.
    let mut last = server.start_agent(&[option, user, "--name", "last"]);
    last.signal(Signal::Kill);
    last.wait();
    server.expect(agent(&last).down().because("killed"));
    let scrape = server.scrape();
    let rows: Vec<_> =
        scrape.matching("varta_agent_up", &[("agent", "worker")]).map(|row| row.value).collect();
    assert_eq!(rows, [1.0], "{}", scrape.text);
}

#[test]
fn a_hidden_process_that_is_stopped_lives_and_is_not_forgotten_until_it_has_ended() {
    let Some((server, user)) = with_hidden_agents(Options::from(["--stall-after", "1s"])) else { return };
    let mut worker = server.start_agent(&user.each_ref().map(String::as_str));
    worker.signal(Signal::Stop);
    server.expect(agent(&worker).stalled());
    let pid = worker.pid();
    let forget = || {
        let mut command = server_command();
        command.env("VARTA_SOCKET", server.socket()).args(["forget", &pid.to_string()]);
        run_to_its_end(command)
    };
    let said = forget();
    assert_eq!(said.status.code(), Some(1), "{}", said.stdout);
    assert!(said.stderr.contains(&format!("[{pid}] lives")), "{}", said.stderr);
    worker.signal(Signal::Kill);
    worker.wait();
    server.expect(agent(&worker).down().because("killed"));
    let said = forget();
    assert!(said.status.success(), "{}", said.stderr);
}

#[test]
fn a_hidden_process_whose_parent_does_not_ask_how_it_ended_is_down_and_gone_once_it_turns_out_that_it_ended_well()
 {
    let Some((server, user)) = with_hidden_agents(Options::from(["--stall-after", "1h"])) else { return };
    let [option, user] = user.each_ref().map(String::as_str);
    let [mut well, mut killed] = [(); 2].map(|()| server.start_agent(&[option, user, "--interval-ms", "20"]));
    // They are watched before their second beats are read.
    server.await_beats(&[well.pid(), killed.pid()], 3);
    well.ask("exit 0");
    killed.signal(Signal::Kill);
    for worker in [&well, &killed] {
        server.expect(agent(worker).down().because("exited"));
    }
    well.wait();
    killed.wait();
    if kernel_remembers_senders() {
        server.expect(agent(&well).gone().because("exited"));
    }
    assert_eq!(server.scrape().value("varta_agents", &[("state", "up")]), 0.0);
}

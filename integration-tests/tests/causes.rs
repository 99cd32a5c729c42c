//! Causes of a silence or an end that only the kernel knows, with real processes; and that recovery leaves those
//! processes alone that somebody holds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use nix::errno::Errno;
use nix::sys::{ptrace, wait};
use nix::unistd::Pid;
use varta_integration_tests::foreign::skip;
use varta_integration_tests::{
    AgentProcess, CgroupVersion, Freezer, LittleMemory, Options, Scratch, Server, Signal, agent, line_with,
    metric, wait_until, worker_command,
};

/// A deadline comes soon after the last beat.
const STALL_AFTER: [&str; 2] = ["--stall-after", "1s"];
/// A cgroup with less than the worker eats, and more than it needs.
const LITTLE: u64 = 48 << 20;

/// Runs a scenario with a server of its own. Where the look at the process came too late for the verdict, the
/// scenario shows nothing, gives `None`, and is run again.
#[track_caller]
fn with_looks_in_time(scenario: impl Fn(&Server) -> Option<()>) {
    wait_until("the server looks at the process in time", || scenario(&Server::start(STALL_AFTER)).is_some());
}

/// Waits until an agent is stalled, and returns what the line says of its process; `None` if the look at it
/// shows nothing.
#[track_caller]
fn expect_stalled(server: &Server, worker: &AgentProcess, cause: &str) -> Option<String> {
    let stalled = server.expect(agent(worker).stalled());
    // What waits for a processor looks busy.
    if stalled.has_no_look() || stalled.cause == "busy" {
        return None;
    }
    assert_eq!(stalled.cause, cause, "{stalled}");
    Some(stalled.dossier)
}

#[test]
fn a_process_in_a_frozen_cgroup_of_either_version_is_frozen_until_it_is_thawed() {
    for version in [CgroupVersion::Two, CgroupVersion::One] {
        let freezer = match Freezer::make(version) {
            Ok(freezer) => freezer,
            Err(error) => {
                skip(&format!("no cgroup of version {version:?} can be made here: {error}"));
                continue;
            }
        };
        with_looks_in_time(|server| {
            let worker = server.start_agent(&[]);
            if let Err(error) = freezer.take_in(worker.pid()) {
                skip(&format!("no process can be moved to another cgroup here: {error}"));
                return Some(());
            }
            freezer.freeze().unwrap();
            let dossier = expect_stalled(server, &worker, "frozen")?;
            assert!(dossier.contains("; cgroup /") && dossier.contains(", frozen"), "{dossier}");
            freezer.thaw().unwrap();
            server.expect(agent(&worker).up().because("recovered"));
            Some(())
        });
    }
}

#[test]
fn an_end_for_want_of_memory_is_told_from_any_other_kill_and_the_cgroup_is_named() {
    let cgroup = match LittleMemory::make(LITTLE) {
        Ok(cgroup) => cgroup,
        Err(error) => return skip(&format!("no cgroup with a limit of memory can be made here: {error}")),
    };
    let server = Server::start(["--stall-after", "1h"]);
    let start = || {
        let mut worker = worker_command();
        worker.arg("--socket").arg(server.socket()).args(["--interval-ms", "3600000"]);
        AgentProcess::run(cgroup.command(&worker))
    };
    let (mut eater, killed) = (start(), start());
    for worker in [&eater, &killed] {
        server.expect(agent(worker).up());
    }
    eater.ask("eat");
    server.expect(agent(&eater).down().because("oom_killed").signal(9));
    server.expect(line_with("because memory ran out in cgroup ").with(cgroup.name()));
    killed.signal(Signal::Kill);
    server.expect(agent(&killed).down().because("killed").signal(9));
    let of_cause =
        |cause| server.scrape().value("varta_transitions_total", &[("to", "down"), ("cause", cause)]);
    assert_eq!((of_cause("oom_killed"), of_cause("killed")), (1.0, 1.0));
}

#[test]
fn an_end_for_want_of_memory_is_told_in_a_cgroup_that_was_removed_and_made_again() {
    let cgroup = match LittleMemory::make(LITTLE) {
        Ok(cgroup) => cgroup,
        Err(error) => return skip(&format!("no cgroup with a limit of memory can be made here: {error}")),
    };
    let server = Server::start(["--stall-after", "1h"]);
    let start = || {
        let mut worker = worker_command();
        worker.arg("--socket").arg(server.socket()).args(["--interval-ms", "3600000"]);
        let worker = AgentProcess::run(cgroup.command(&worker));
        server.expect(agent(&worker).up());
        worker
    };
    // The server goes on to watch one that was started there, and moves out.
    let (mut eater, moved) = (start(), start());
    eater.ask("eat");
    server.expect(agent(&eater).down().because("oom_killed"));
    eater.wait();
    cgroup.release(moved.pid()).unwrap();
    cgroup.make_again().unwrap();
    let mut second = start();
    second.ask("eat");
    server.expect(agent(&second).down().because("oom_killed"));
    moved.signal(Signal::Kill);
    server.expect(agent(&moved).down().because("killed"));
}

#[test]
fn a_process_whose_main_thread_has_ended_is_seen_by_one_that_lives() {
    with_looks_in_time(|server| {
        let mut worker = server.start_agent(&[]);
        worker.ask("end-main-thread");
        let dossier = expect_stalled(server, &worker, "idle")?;
        assert!(dossier.contains("; main thread ended; thread "), "{dossier}");
        assert!(!dossier.contains("; 0 of ") && dossier.contains(" descriptors"), "{dossier}");
        assert!(dossier.contains(" MiB resident"), "{dossier}");
        worker.signal(Signal::Kill);
        server.expect(agent(&worker).down().signal(9));
        Some(())
    });
}

/// A server that kills whoever is silent, by a rule with this line in it.
fn killing_server(scratch: &Scratch, line: &str) -> Server {
    let rules = format!("[[recovery]]\n{line}\nsteps = [{{ signal = 'KILL' }}]\n");
    Server::start(Options::from(STALL_AFTER).config(scratch, &rules))
}

#[track_caller]
fn await_refusal(server: &Server, reason: &str) {
    server.expect(metric("varta_recovery_refused_total").with("reason", reason).at_least(1.0));
}

#[test]
fn recovery_leaves_a_frozen_process_alone_until_it_is_thawed() {
    let freezer = match Freezer::make(CgroupVersion::One).or_else(|_| Freezer::make(CgroupVersion::Two)) {
        Ok(freezer) => freezer,
        Err(error) => return skip(&format!("no cgroup can be made here: {error}")),
    };
    let scratch = Scratch::make();
    let server = killing_server(&scratch, "");
    let mut worker = server.start_agent(&[]);
    if let Err(error) = freezer.take_in(worker.pid()) {
        return skip(&format!("no process can be moved to another cgroup here: {error}"));
    }
    freezer.freeze().unwrap();
    await_refusal(&server, "frozen");
    server.expect(line_with("its cgroup is frozen; it is looked at again"));
    assert_eq!(server.scrape().sum("varta_recovery_actions_total", &[]), 0.0);
    // It does not beat when it is thawed.
    worker.signal(Signal::Stop);
    freezer.thaw().unwrap();
    server.expect(line_with("sent SIGKILL"));
    worker.wait();
    server.expect(agent(&worker).down().signal(9));
}

#[test]
fn recovery_leaves_a_process_alone_that_is_debugged_unless_a_rule_names_that() {
    for line in ["", "cause = ['traced', 'stopped']"] {
        let scratch = Scratch::make();
        let server = killing_server(&scratch, line);
        let worker = server.start_agent(&[]);
        let pid = Pid::from_raw(worker.pid().try_into().unwrap());
        match ptrace::attach(pid) {
            Err(Errno::EPERM) => return skip("no process can be traced here"),
            result => result.unwrap(),
        }
        wait::waitpid(pid, None).unwrap();
        if line.is_empty() {
            await_refusal(&server, "traced");
            assert_eq!(server.scrape().sum("varta_recovery_actions_total", &[]), 0.0);
            ptrace::detach(pid, None).unwrap();
            server.expect(agent(&worker).up().because("recovered"));
            server.expect(metric("varta_recovery_agents").is(0.0));
        } else {
            server.expect(line_with("sent SIGKILL"));
        }
    }
}

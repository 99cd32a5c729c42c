//! What becomes of a process, and what the server says of it: one test for each row of the table of verdicts.
//!
//! That something is told at once is shown without a clock: where a death is to be told, no deadline comes in the
//! lifetime of the test.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::sys::{ptrace, wait};
use nix::unistd::{Pid, mkfifo};
use varta_integration_tests::foreign::skip;
use varta_integration_tests::{
    AgentProcess, Datagrams, Freezer, LIMIT, Scrape, Server, Signal, Transition, as_pid, children,
    into_pid_namespace, pid_namespaces_work, pids_can_be_chosen, service_command, sys, wait_for,
    worker_command,
};

/// No deadline comes in the lifetime of a test.
const NO_DEADLINE: [&str; 2] = ["--stall-after", "1h"];
/// A deadline comes soon after the last beat.
const SOON: [&str; 2] = ["--stall-after", "1s"];
const SOON_MS: u64 = 1_000;

/// An agent whose first beat has been taken.
fn start(server: &Server, arguments: &[&str]) -> AgentProcess {
    let agent = AgentProcess::start(server.socket(), arguments);
    server.await_state(agent.pid(), "up");
    agent
}

/// What must hold of all verdicts on deaths and silences: so many there were, and none came later than a second after it
/// could have been known. That is a hundred times what it takes, and less than what a person would call late.
#[track_caller]
fn assert_nothing_was_told_late(scrape: &Scrape, verdicts: usize) {
    let within_a_second = scrape.value("varta_detection_latency_seconds_bucket", &[("le", "1")]);
    assert_eq!(within_a_second, verdicts as f64, "{}", scrape.text);
    assert_eq!(scrape.value("varta_detection_latency_seconds_count", &[]), verdicts as f64);
}

/// Waits until an agent is called stalled, and sees to it that the line says why and what was seen of its process.
#[track_caller]
fn await_stalled(server: &Server, pid: u32, cause: &str, main_thread: &str) -> Transition {
    let stalled = server.await_state(pid, "stalled");
    assert_eq!(stalled.cause, cause, "{stalled:?}");
    assert!(stalled.silence_ms >= SOON_MS, "{stalled:?}");
    assert!(stalled.dossier.starts_with(&format!("{cause}: ")), "{stalled:?}");
    assert!(stalled.dossier.contains(&format!("; main thread {main_thread}")), "{stalled:?}");
    let scrape = server.await_agents("stalled", 1);
    assert_eq!(scrape.of_agent("varta_agent_up", pid), 0.0);
    assert_eq!(scrape.of_agent("varta_status", pid), 3.0);
    assert_nothing_was_told_late(&scrape, 1);
    stalled
}

/// Waits until a stalled agent has recovered, and sees to it that nothing else was told of it.
#[track_caller]
fn await_recovery(server: &Server, pid: u32, cause: &str) {
    server.await_transition(pid, "up", "recovered");
    let stalled = format!("stalled: {cause}");
    assert_eq!(server.told(pid), ["up: first_beat", &stalled, "up: recovered"]);
    assert_eq!(server.scrape().of_agent("varta_agent_up", pid), 1.0);
}

/// Waits until a process is dead and nobody has asked how it ended.
#[track_caller]
fn await_zombie(pid: u32) {
    let is_zombie = |status: String| status.lines().any(|line| line.starts_with("State:\tZ")).then_some(());
    let died = wait_for(|| fs::read_to_string(format!("/proc/{pid}/status")).ok().and_then(is_zombie));
    assert!(died.is_some(), "{pid} has not ended within {LIMIT:?}");
}

// Deaths.

/// How a process comes to its end.
enum End {
    Command(&'static str),
    Signal(Signal),
}

#[test]
fn a_death_is_told_at_once_and_with_how_it_came() {
    let server = Server::start(NO_DEADLINE);
    let rows = [
        (End::Command("exit 0"), "gone", "exited", (Some(0), None)),
        (End::Command("exit 3"), "down", "exited", (Some(3), None)),
        (End::Command("exit 255"), "down", "exited", (Some(255), None)),
        (End::Command("abort"), "down", "killed", (None, Some(6))),
        (End::Command("crash"), "down", "killed", (None, Some(11))),
        (End::Signal(Signal::Kill), "down", "killed", (None, Some(9))),
        (End::Signal(Signal::Terminate), "down", "killed", (None, Some(15))),
    ];
    let mut agents: Vec<_> = rows.iter().map(|_| start(&server, &[])).collect();
    for (agent, (end, ..)) in agents.iter_mut().zip(&rows) {
        match end {
            End::Command(command) => drop(agent.ask(command)),
            End::Signal(signal) => agent.signal(*signal),
        }
    }
    for (agent, (_, to, cause, how)) in agents.iter().zip(&rows) {
        let told = server.await_state(agent.pid(), to);
        assert_eq!((told.cause.as_str(), (told.exit_code, told.signal)), (*cause, *how), "{told:?}");
        assert_eq!(server.told(agent.pid()), ["up: first_beat", &format!("{to}: {cause}")]);
    }
    let scrape = server.await_agents("down", rows.len() - 1);
    assert_nothing_was_told_late(&scrape, rows.len());
    for (agent, (_, to, ..)) in agents.iter().zip(&rows) {
        let up = scrape.get("varta_agent_up", &[("pid", &agent.pid().to_string())]);
        assert_eq!(up, if *to == "down" { Some(0.0) } else { None });
    }
    assert_eq!(scrape.sum("varta_stalls_total", &[]), 0.0);
}

#[test]
fn a_panic_that_aborts_is_critical_and_then_down() {
    let server = Server::start(NO_DEADLINE);
    let mut agent = start(&server, &["--panic-hook"]);
    agent.ask("panic-and-abort");
    let down = server.await_state(agent.pid(), "down");
    assert_eq!((down.cause.as_str(), down.status.as_str()), ("panicked", "critical"), "{down:?}");
    let expected = ["up: first_beat", "up: panicked", "down: panicked"];
    assert_eq!(server.told(agent.pid()), expected);
    assert_nothing_was_told_late(&server.scrape(), 1);
}

#[test]
fn a_panic_that_is_survived_is_not_held_against_the_process() {
    let server = Server::start(NO_DEADLINE);
    let mut agent = start(&server, &["--panic-hook"]);
    let pid = agent.pid();
    agent.ask("panic-in-thread");
    server.await_transition(pid, "up", "reported");
    let scrape = server.await_beats_and_seconds(&[pid], 3, 0.0);
    assert_eq!(scrape.of_agent("varta_agent_up", pid), 1.0);
    agent.ask("exit 0");
    assert_eq!(server.await_state(pid, "gone").cause, "exited");
    let expected = ["up: first_beat", "up: panicked", "up: reported", "gone: exited"];
    assert_eq!(server.told(pid), expected);
}

#[test]
fn who_says_goodbye_may_end_as_it_likes() {
    let server = Server::start(NO_DEADLINE);
    let [mut agent, later] = [(); 2].map(|()| start(&server, &[]));
    let pid = agent.pid();
    agent.ask("goodbye");
    assert_eq!(server.await_state(pid, "gone").cause, "goodbye");
    agent.ask("exit 1");
    await_zombie(pid);
    // Deaths are told in their order: when this one is, nothing more will be of the other.
    later.signal(Signal::Kill);
    server.await_state(later.pid(), "down");
    assert_eq!(server.told(pid), ["up: first_beat", "gone: goodbye"]);
    let scrape = server.scrape();
    assert_eq!(scrape.get("varta_agent_up", &[("pid", &pid.to_string())]), None);
    assert_eq!(scrape.value("varta_agents", &[("state", "down")]), 1.0);
}

#[test]
fn who_is_dead_before_its_first_beat_is_read_is_down_nevertheless() {
    let server = Server::start(NO_DEADLINE);
    server.pause();
    let agent = AgentProcess::start(server.socket(), &["--beats", "1", "--exit-code", "3"]);
    await_zombie(agent.pid());
    server.signal(Signal::Continue);
    let down = server.await_state(agent.pid(), "down");
    assert_eq!((down.cause.as_str(), down.exit_code), ("exited", Some(3)), "{down:?}");
}

#[test]
fn of_whom_nothing_is_left_when_its_first_beat_is_read_is_down_and_who_said_goodbye_is_gone() {
    let server = Server::start(NO_DEADLINE);
    server.pause();
    let ended_after = |commands: &[&str]| {
        let mut agent = AgentProcess::start(server.socket(), &[]);
        for command in commands {
            agent.ask(command);
        }
        agent.wait();
        agent.pid()
    };
    let vanished = ended_after(&["exit 3"]);
    let left = ended_after(&["goodbye", "exit 3"]);
    server.signal(Signal::Continue);
    let down = server.await_state(vanished, "down");
    assert_eq!((down.cause.as_str(), down.exit_code), ("exited", None), "{down:?}");
    server.await_state(left, "gone");
    assert_eq!(server.told(left), ["up: first_beat", "gone: goodbye"]);
}

// Silences.

#[test]
fn a_process_that_a_signal_stopped_is_stopped_until_it_goes_on() {
    let server = Server::start(SOON);
    let agent = start(&server, &[]);
    agent.signal(Signal::Stop);
    await_stalled(&server, agent.pid(), "stopped", "stopped");
    agent.signal(Signal::Continue);
    await_recovery(&server, agent.pid(), "stopped");
}

#[test]
fn a_process_that_a_debugger_holds_is_stopped_until_it_is_let_go() {
    let server = Server::start(SOON);
    let agent = start(&server, &[]);
    let pid = Pid::from_raw(agent.pid().try_into().unwrap());
    match ptrace::attach(pid) {
        Err(Errno::EPERM) => return skip("no process can be traced here"),
        result => result.unwrap(),
    }
    wait::waitpid(pid, None).unwrap();
    await_stalled(&server, agent.pid(), "stopped", "traced");
    ptrace::detach(pid, None).unwrap();
    await_recovery(&server, agent.pid(), "stopped");
}

#[test]
fn a_process_that_only_runs_is_busy() {
    let server = Server::start(SOON);
    let mut agent = start(&server, &[]);
    agent.ask("spin");
    await_stalled(&server, agent.pid(), "busy", "running");
    assert_eq!(server.told(agent.pid()), ["up: first_beat", "stalled: busy"]);
}

#[test]
fn a_process_that_waits_for_a_lock_for_ever_is_idle_and_down_when_somebody_ends_that() {
    let server = Server::start(SOON);
    let mut agent = start(&server, &[]);
    agent.ask("lock");
    await_stalled(&server, agent.pid(), "idle", "sleeping");
    agent.signal(Signal::Kill);
    assert_eq!(server.await_state(agent.pid(), "down").signal, Some(9));
    let expected = ["up: first_beat", "stalled: idle", "down: killed"];
    assert_eq!(server.told(agent.pid()), expected);
    assert_nothing_was_told_late(&server.scrape(), 2);
}

/// A pipe with a name, at which nobody else ever is.
struct Pipe(PathBuf);

impl Pipe {
    fn make(directory: &Path) -> Self {
        let path = directory.join("pipe");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        Pipe(path)
    }
}

impl Drop for Pipe {
    /// Lets whoever waits there go on: opened for both, a pipe does not make the opener wait.
    fn drop(&mut self) {
        let _ = fs::OpenOptions::new().read(true).write(true).open(&self.0);
    }
}

#[test]
fn a_process_that_nothing_interrupts_is_blocked_until_it_gets_what_it_waits_for() {
    let server = Server::start(SOON);
    let pipe = Pipe::make(server.directory());
    let mut agent = start(&server, &[]);
    agent.ask(&format!("block {}", pipe.0.display()));
    await_stalled(&server, agent.pid(), "blocked", "uninterruptible");
    drop(pipe);
    await_recovery(&server, agent.pid(), "blocked");
}

#[test]
fn a_process_in_a_frozen_cgroup_is_frozen_until_it_is_thawed() {
    let freezer = match Freezer::make() {
        Ok(freezer) => freezer,
        Err(error) => return skip(&format!("no cgroup can be made here: {error}")),
    };
    let server = Server::start(SOON);
    let agent = start(&server, &[]);
    if let Err(error) = freezer.take_in(agent.pid()) {
        return skip(&format!("no process can be moved to another cgroup here: {error}"));
    }
    freezer.freeze().unwrap();
    // In which state its threads are shown then is the kernel's business.
    await_stalled(&server, agent.pid(), "frozen", "");
    freezer.thaw().unwrap();
    await_recovery(&server, agent.pid(), "frozen");
}

#[test]
fn a_service_whose_work_is_stuck_is_stalled_however_well_its_runtime_is() {
    let server = Server::start(SOON);
    let mut command = service_command();
    command.arg("--socket").arg(server.socket());
    let mut agent = AgentProcess::run(command);
    let pid = agent.pid();
    server.await_beats_and_seconds(&[pid], 5, 1.5);
    agent.ask("wedge");
    await_stalled(&server, pid, "idle", "sleeping");
    assert_eq!(agent.ask("alive"), "ok");
    agent.ask("work");
    await_recovery(&server, pid, "idle");
    agent.ask("stop");
    assert_eq!(server.await_state(pid, "gone").cause, "goodbye");
}

#[test]
fn a_process_whose_beats_find_the_queue_full_is_not_called_dead() {
    let server = Server::start(SOON);
    let mut agent = start(&server, &["--interval-ms", "20", "--attempts", "1"]);
    let pid = agent.pid();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut flood = Datagrams::to(server.socket());
                while !is_over.load(Ordering::Relaxed) {
                    flood.send(b"not a frame");
                }
            });
        }
        let dropped = wait_for(|| {
            let dropped: u32 = agent.ask("dropped").strip_prefix("ok ").unwrap().parse().unwrap();
            (dropped >= 10).then_some(())
        });
        is_over.store(true, Ordering::Relaxed);
        assert!(dropped.is_some(), "the queue is never full");
    });
    let scrape = server.await_beats_and_seconds(&[pid], 3, 0.0);
    assert!(scrape.of_agent("varta_agent_beats_lost_total", pid) >= 10.0, "{}", scrape.text);
    assert_eq!(scrape.of_agent("varta_agent_up", pid), 1.0);
    let transitions = server.transitions();
    assert!(transitions.iter().all(|line| !["down", "gone"].contains(&line.to.as_str())), "{transitions:?}");
}

#[test]
fn a_server_that_was_stopped_accuses_none_of_two_hundred_and_misses_no_death_after_it() {
    const AGENTS: usize = 200;
    let server = Server::start(SOON);
    let agents: Vec<_> =
        (0..AGENTS).map(|_| AgentProcess::start(server.socket(), &["--interval-ms", "300"])).collect();
    let pids: Vec<_> = agents.iter().map(AgentProcess::pid).collect();
    server.await_beats_and_seconds(&pids, 2, 0.0);
    server.pause();
    // Not a wait for anything: that the server does not run for three seconds is what happens to it.
    thread::sleep(Duration::from_secs(3));
    server.signal(Signal::Continue);

    let scrape = server.await_beats_and_seconds(&pids, 3, 1.5);
    assert!(scrape.value("varta_blind_periods_total", &[]) >= 1.0);
    let transitions = server.transitions();
    let accused = transitions.iter().find(|line| !["up", "unknown"].contains(&line.to.as_str()));
    assert_eq!(accused, None);
    server.await_agents("up", AGENTS);

    for agent in &agents {
        agent.signal(Signal::Kill);
    }
    let scrape = server.await_agents("down", AGENTS);
    assert_nothing_was_told_late(&scrape, AGENTS);
    let transitions = server.transitions();
    let killed = transitions.iter().filter(|line| line.to == "down" && line.signal == Some(9));
    assert_eq!(killed.count(), AGENTS);
    assert_eq!(scrape.sum("varta_stalls_total", &[]), 0.0);
}

// Identity.

/// The worker's program under another name, which the kernel then calls it by.
fn other_program(server: &Server) -> PathBuf {
    let path = server.directory().join("it-other");
    std::os::unix::fs::symlink(worker_command().get_program(), &path).unwrap();
    path
}

/// A command for an agent that runs this program.
fn agent_of(program: &Path, server: &Server) -> Command {
    let mut command = Command::new(program);
    command.env_clear().arg("--socket").arg(server.socket());
    command
}

#[test]
fn a_process_that_becomes_another_program_goes_on_under_its_name() {
    let server = Server::start(NO_DEADLINE);
    let program = other_program(&server);
    let mut agent = start(&server, &[]);
    let pid = agent.pid();
    assert_eq!(agent.ask(&format!("exec {}", program.display())), format!("ready {pid}"));
    let scrape = server.await_beats_and_seconds(&[pid], 3, 0.0);
    assert_eq!(scrape.get("varta_agent_up", &[("agent", "it-other")]), Some(1.0));
    agent.signal(Signal::Kill);
    let down = server.await_state(pid, "down");
    assert_eq!((down.agent.as_str(), down.signal), ("it-other", Some(9)));
    assert_eq!(server.told(pid), ["up: first_beat", "down: killed"]);
}

#[test]
fn the_death_of_a_parent_does_not_bury_its_child() {
    let server = Server::start(NO_DEADLINE);
    let mut parent = start(&server, &[]);
    let child = parent.fork();
    server.await_state(child, "up");
    parent.signal(Signal::Kill);
    server.await_state(parent.pid(), "down");
    let scrape = server.await_beats_and_seconds(&[child], 5, 0.0);
    assert_eq!(scrape.of_agent("varta_agent_up", parent.pid()), 0.0);
    assert_eq!(scrape.of_agent("varta_agent_up", child), 1.0);
    assert_eq!(server.told(child), ["up: first_beat"]);
    assert_eq!(server.told(parent.pid()), ["up: first_beat", "down: killed"]);
}

#[test]
fn a_handle_that_is_made_anew_alarms_nobody() {
    let server = Server::start(NO_DEADLINE);
    let mut agent = start(&server, &[]);
    for _ in 0..5 {
        agent.ask("recreate");
        server.await_beats_and_seconds(&[agent.pid()], 2, 0.0);
    }
    assert_eq!(server.told(agent.pid()), ["up: first_beat"]);
    assert_eq!(server.scrape().value("varta_watch_pids_tracked", &[]), 1.0);
}

fn pids_cannot_be_chosen() -> bool {
    let cannot = !pids_can_be_chosen();
    if cannot {
        skip("no pid can be chosen here: that takes root and Linux 5.5");
    }
    cannot
}

#[test]
fn another_program_with_the_pid_of_a_dead_one_is_a_new_incarnation() {
    if pids_cannot_be_chosen() {
        return;
    }
    let server = Server::start(NO_DEADLINE);
    let program = other_program(&server);
    let mut first = start(&server, &[]);
    let pid = first.pid();
    first.signal(Signal::Kill);
    server.await_state(pid, "down");
    first.wait();
    let second = AgentProcess::run(as_pid(pid, &agent_of(&program, &server)));
    let restarted = server.await_transition(pid, "up", "restarted");
    assert_eq!((restarted.agent.as_str(), restarted.from.as_str()), ("it-other", "down"));
    // The new one has a death of its own.
    sys::send_signal(pid, Signal::Terminate).unwrap();
    server.await_scrape("the new one is down", |scrape| scrape.of_agent("varta_agent_up", pid) == 0.0);
    assert_eq!(server.told(pid), ["up: first_beat", "down: killed", "up: restarted", "down: killed"]);
    assert_eq!(server.scrape().value("varta_watch_pids_tracked", &[]), 1.0);
    drop(second);
}

#[test]
fn the_death_that_comes_late_of_who_had_a_pid_before_is_not_that_of_who_has_it_now() {
    if pids_cannot_be_chosen() {
        return;
    }
    let server = Server::start(NO_DEADLINE);
    let program = other_program(&server);
    let mut first = start(&server, &[]);
    let pid = first.pid();
    // When it runs again it learns of all of it in one moment.
    server.pause();
    first.signal(Signal::Kill);
    first.wait();
    let second = AgentProcess::run(as_pid(pid, &agent_of(&program, &server)));
    server.signal(Signal::Continue);
    server.await_transition(pid, "up", "restarted");
    let scrape = server.await_beats_and_seconds(&[pid], 5, 0.0);
    assert_eq!(scrape.of_agent("varta_agent_up", pid), 1.0);
    sys::send_signal(pid, Signal::Terminate).unwrap();
    server.await_scrape("the new one is down", |scrape| scrape.of_agent("varta_agent_up", pid) == 0.0);
    assert_eq!(server.told(pid), ["up: first_beat", "up: restarted", "down: killed"]);
    assert_eq!(server.await_state(pid, "down").signal, Some(15));
    drop(second);
}

fn cannot_be_contained() -> bool {
    let cannot = !pid_namespaces_work();
    if cannot {
        skip("no PID namespaces can be made here: that takes root, `unshare` and a kernel that allows it");
    }
    cannot
}

#[test]
fn process_1_of_a_container_dies_like_any_other() {
    if cannot_be_contained() {
        return;
    }
    let server = Server::start(NO_DEADLINE);
    let agent =
        AgentProcess::run(into_pid_namespace(&agent_of(Path::new(worker_command().get_program()), &server)));
    let [pid] = children(agent.pid())[..] else { panic!("it has one child") };
    server.await_state(pid, "up");
    // Of a signal from inside it would not take notice.
    sys::send_signal(pid, Signal::Kill).unwrap();
    assert_eq!(server.await_state(pid, "down").agent, "it-worker");
}

#[test]
fn an_ordinary_process_of_a_container_is_known_by_the_pid_that_it_has_here() {
    if cannot_be_contained() {
        return;
    }
    let server = Server::start(NO_DEADLINE);
    // Process 1 is a shell, and then a program that does not ask how its child ended.
    let mut shell = Command::new("sh");
    shell.env_clear().args(["-c", "exec 3<&0; \"$0\" \"$@\" <&3 3<&- & exec sleep 1000"]);
    shell.arg(worker_command().get_program());
    shell.arg("--socket").arg(server.socket()).args(["--name", "contained"]);
    let mut agent = AgentProcess::run(into_pid_namespace(&shell));
    let [first] = children(agent.pid())[..] else { panic!("it has one child") };
    let [pid] = children(first)[..] else { panic!("process 1 has one child") };
    let scrape = server.await_scrape("some beats have come", |scrape| scrape.datagrams() >= 5.0);
    assert_eq!(scrape.outcome("accepted"), scrape.datagrams(), "{}", scrape.text);
    assert_eq!(server.await_state(pid, "up").agent, "contained");
    agent.ask("exit 3");
    assert_eq!(server.await_state(pid, "down").exit_code, Some(3));
    assert_eq!(server.told(pid), ["up: first_beat", "down: exited"]);
}

#[test]
fn who_gives_itself_a_name_is_called_by_it() {
    let server = Server::start(NO_DEADLINE);
    let mut agent = start(&server, &["--name", "billing/worker@7"]);
    let pid = agent.pid();
    agent.ask("recreate");
    server.await_beats_and_seconds(&[pid], 3, 0.0);
    agent.ask("exit 3");
    server.await_state(pid, "down");
    let transitions = server.transitions();
    assert!(transitions.iter().all(|line| line.agent == "billing/worker@7"), "{transitions:?}");
    let (scrape, pid) = (server.scrape(), pid.to_string());
    let rows = scrape.samples.iter().filter(|sample| sample.labels.get("pid") == Some(&pid));
    let names: Vec<_> = rows.map(|sample| sample.labels["agent"].as_str()).collect();
    assert!(!names.is_empty() && names.iter().all(|name| *name == "billing/worker@7"), "{names:?}");
}

//! What becomes of a process, and the verdict on it: one test for each row of the table of verdicts.
//!
//! That a death is seen at once is shown without a clock: no deadline comes in the lifetime of such a test.

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
    AgentProcess, Datagrams, LIMIT, Options, Scrape, Server, Signal, agent, as_pid, children,
    into_pid_namespace, pid_namespaces_work, pids_can_be_chosen, same_pid, service_command, sys, wait_for,
    wait_until, worker_command,
};

/// No deadline comes in the lifetime of a test.
const NO_DEADLINE: [&str; 2] = ["--stall-after", "1h"];
/// A deadline comes soon after the last beat.
const STALL_AFTER: [&str; 2] = ["--stall-after", "1s"];
const DEADLINE: Duration = Duration::from_secs(1);
/// A worker that beats so seldom that the socket's queue has room for what its panic hook sends, also while
/// the server waits for a processor for a second or two.
const SELDOM_WITH_A_HOOK: [&str; 3] = ["--panic-hook", "--interval-ms", "1000"];

/// What must hold of all verdicts on deaths and silences: there were so many, and the time between the event
/// and the verdict is within the limit of a single wait.
#[track_caller]
fn assert_detections(scrape: &Scrape, verdicts: usize) {
    let (verdicts, limit) = (verdicts as f64, LIMIT.as_secs_f64());
    assert_eq!(scrape.value("varta_detection_latency_seconds_count", &[]), verdicts, "{}", scrape.text);
    let latencies = scrape.value("varta_detection_latency_seconds_sum", &[]);
    assert!(latencies <= verdicts * limit, "{}", scrape.text);
}

/// Runs a scenario with a server of its own. On a busy machine the server's look at the process may come too
/// late for the verdict, or find it waiting for a processor: such a scenario shows nothing, gives `None`, and
/// is run again.
#[track_caller]
fn with_looks_in_time(scenario: impl Fn(&Server) -> Option<()>) {
    wait_until("the server looks at the process in time", || scenario(&Server::start(STALL_AFTER)).is_some());
}

/// Waits until an agent is stalled, and checks what the line says of its process; `None` if the look at it
/// shows nothing.
#[track_caller]
fn expect_stalled(server: &Server, pid: u32, cause: &str, main_thread: &str) -> Option<()> {
    let stalled = server.expect(agent(pid).stalled().after_silence(DEADLINE).within(DEADLINE));
    // What waits for a processor looks busy.
    if stalled.has_no_look() || (stalled.cause == "busy" && cause != "busy") {
        return None;
    }
    assert_eq!(stalled.cause, cause, "{stalled}");
    assert!(stalled.dossier.starts_with(&format!("{cause}: ")), "{stalled}");
    assert!(stalled.dossier.contains(&format!("; main thread {main_thread}")), "{stalled}");
    let scrape = server.await_agents("stalled", 1);
    assert_eq!(scrape.of_agent("varta_agent_up", pid), 0.0);
    assert_eq!(scrape.of_agent("varta_status", pid), 3.0);
    assert_detections(&scrape, 1);
    Some(())
}

/// Waits until a stalled agent has recovered, and checks that there was no other verdict on it.
#[track_caller]
fn expect_recovery(server: &Server, pid: u32, cause: &str) {
    server.expect_history(pid, &["up: first_beat", &format!("stalled: {cause}"), "up: recovered"]);
    assert_eq!(server.scrape().of_agent("varta_agent_up", pid), 1.0);
}

// Deaths.

/// How a process comes to its end.
enum End {
    Command(&'static str),
    Signal(Signal),
}

#[test]
fn a_death_is_seen_at_once_with_its_exit_status_or_signal() {
    let server = Server::start(NO_DEADLINE);
    let rows = [
        (End::Command("exit 0"), "gone", "exited", (Some(0), None)),
        (End::Command("exit 3"), "down", "exited", (Some(3), None)),
        (End::Command("exit 255"), "down", "exited", (Some(255), None)),
        (End::Command("abort"), "down", "killed", (None, Some(6))),
        (End::Command("crash"), "down", "killed", (None, Some(11))),
        (End::Signal(Signal::Kill), "down", "killed", (None, Some(9))),
        (End::Signal(Signal::Terminate), "gone", "killed", (None, Some(15))),
    ];
    let mut workers: Vec<_> = rows.iter().map(|_| server.start_agent(&[])).collect();
    for (worker, (end, ..)) in workers.iter_mut().zip(&rows) {
        match end {
            End::Command(command) => drop(worker.ask(command)),
            End::Signal(signal) => worker.signal(*signal),
        }
    }
    for (worker, (_, to, cause, how)) in workers.iter().zip(&rows) {
        let change = server.expect(agent(worker).becomes(to));
        assert_eq!((change.exit_code, change.signal), *how, "{change}");
        server.expect_history(worker, &["up: first_beat", &format!("{to}: {cause}")]);
    }
    let scrape = server.await_agents("down", rows.len() - 2);
    assert_detections(&scrape, rows.len());
    for (worker, (_, to, ..)) in workers.iter().zip(&rows) {
        let up = scrape.get("varta_agent_up", &[("pid", &worker.pid().to_string())]);
        assert_eq!(up, if *to == "down" { Some(0.0) } else { None });
    }
    assert_eq!(scrape.sum("varta_stalls_total", &[]), 0.0);
}

#[test]
fn a_panic_that_aborts_is_critical_and_then_down() {
    let server = Server::start(NO_DEADLINE);
    let mut worker = server.start_agent(&SELDOM_WITH_A_HOOK);
    worker.ask("panic-and-abort");
    server.expect(agent(&worker).down().with_status("critical"));
    server.expect_history(&worker, &["up: first_beat", "up: panicked", "down: panicked"]);
    assert_detections(&server.scrape(), 1);
}

#[test]
fn a_panic_that_is_survived_is_not_held_against_the_process() {
    let server = Server::start(NO_DEADLINE);
    let mut worker = server.start_agent(&SELDOM_WITH_A_HOOK);
    let pid = worker.pid();
    worker.ask("panic-in-thread");
    server.expect(agent(pid).up().because("reported"));
    let scrape = server.await_beats(&[pid], 3);
    assert_eq!(scrape.of_agent("varta_agent_up", pid), 1.0);
    worker.ask("exit 0");
    server.expect_history(pid, &["up: first_beat", "up: panicked", "up: reported", "gone: exited"]);
}

#[test]
fn an_agent_that_said_goodbye_may_end_with_any_exit_status() {
    let server = Server::start(NO_DEADLINE);
    let [mut worker, later] = [(); 2].map(|()| server.start_agent(&[]));
    let pid = worker.pid();
    worker.ask("goodbye");
    server.expect(agent(pid).gone().because("goodbye"));
    worker.ask("exit 1");
    worker.await_zombie();
    // Deaths are seen in their order: after this one there is no verdict on the other any more.
    later.signal(Signal::Kill);
    server.expect(agent(&later).down());
    assert_eq!(server.history(pid), ["up: first_beat", "gone: goodbye"]);
    let scrape = server.scrape();
    assert_eq!(scrape.get("varta_agent_up", &[("pid", &pid.to_string())]), None);
    assert_eq!(scrape.value("varta_agents", &[("state", "down")]), 1.0);
}

#[test]
fn an_agent_that_dies_before_its_first_beat_is_read_is_down_all_the_same() {
    let server = Server::start(NO_DEADLINE);
    server.pause();
    let worker = AgentProcess::start(server.socket(), &["--beats", "1", "--exit-code", "3"]);
    worker.await_zombie();
    server.resume();
    server.expect(agent(&worker).down().because("exited").exit_code(3));
}

#[test]
fn a_process_that_has_vanished_before_its_goodbye_is_read_is_gone_by_that() {
    let server = Server::start(NO_DEADLINE);
    server.pause();
    let mut worker = AgentProcess::start(server.socket(), &[]);
    worker.ask("goodbye");
    worker.ask("exit 3");
    worker.wait();
    server.resume();
    server.expect_history(&worker, &["up: first_beat", "gone: goodbye"]);
}

// Silences.

#[test]
fn a_process_that_a_signal_stopped_is_stopped_until_it_goes_on() {
    with_looks_in_time(|server| {
        let worker = server.start_agent(&[]);
        worker.signal(Signal::Stop);
        expect_stalled(server, worker.pid(), "stopped", "stopped")?;
        worker.signal(Signal::Continue);
        expect_recovery(server, worker.pid(), "stopped");
        Some(())
    });
}

#[test]
fn a_process_that_a_debugger_holds_is_traced_until_it_is_let_go() {
    with_looks_in_time(|server| {
        let worker = server.start_agent(&[]);
        let pid = Pid::from_raw(worker.pid().try_into().unwrap());
        match ptrace::attach(pid) {
            Err(Errno::EPERM) => {
                skip("no process can be traced here");
                return Some(());
            }
            result => result.unwrap(),
        }
        wait::waitpid(pid, None).unwrap();
        expect_stalled(server, worker.pid(), "traced", "traced")?;
        ptrace::detach(pid, None).unwrap();
        expect_recovery(server, worker.pid(), "traced");
        Some(())
    });
}

#[test]
fn a_process_that_only_runs_is_busy() {
    with_looks_in_time(|server| {
        let mut worker = server.start_agent(&[]);
        worker.ask("spin");
        expect_stalled(server, worker.pid(), "busy", "running")?;
        server.expect_history(&worker, &["up: first_beat", "stalled: busy"]);
        Some(())
    });
}

#[test]
fn a_process_that_waits_for_a_lock_for_ever_is_idle_and_down_when_it_is_killed() {
    with_looks_in_time(|server| {
        let mut worker = server.start_agent(&[]);
        worker.ask("lock");
        expect_stalled(server, worker.pid(), "idle", "sleeping")?;
        worker.signal(Signal::Kill);
        server.expect(agent(&worker).down().signal(9));
        server.expect_history(&worker, &["up: first_beat", "stalled: idle", "down: killed"]);
        assert_detections(&server.scrape(), 2);
        Some(())
    });
}

/// A named pipe without a writer.
struct Pipe(PathBuf);

impl Pipe {
    fn make(directory: &Path) -> Self {
        let path = directory.join("pipe");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        Pipe(path)
    }
}

impl Drop for Pipe {
    /// Ends the wait of a process that opens it for reading: a pipe opened for both does not block.
    fn drop(&mut self) {
        let _ = fs::OpenOptions::new().read(true).write(true).open(&self.0);
    }
}

#[test]
fn a_process_that_nothing_interrupts_is_blocked_until_it_gets_what_it_waits_for() {
    with_looks_in_time(|server| {
        let pipe = Pipe::make(server.directory());
        let mut worker = server.start_agent(&[]);
        worker.ask(&format!("block {}", pipe.0.display()));
        expect_stalled(server, worker.pid(), "blocked", "uninterruptible")?;
        drop(pipe);
        expect_recovery(server, worker.pid(), "blocked");
        Some(())
    });
}

#[test]
fn a_service_whose_work_is_stuck_is_stalled_however_well_its_runtime_is() {
    with_looks_in_time(|server| {
        let mut command = service_command();
        command.arg("--socket").arg(server.socket());
        let mut service = AgentProcess::run(command);
        let pid = service.pid();
        server.await_beats_and_seconds(&[pid], 5, 1.5);
        service.ask("wedge");
        expect_stalled(server, pid, "idle", "sleeping")?;
        assert_eq!(service.ask("alive"), "ok ");
        service.ask("work");
        expect_recovery(server, pid, "idle");
        service.ask("stop");
        server.expect(agent(pid).gone().because("goodbye"));
        Some(())
    });
}

#[test]
fn a_process_whose_beats_find_the_queue_full_is_not_called_dead() {
    let server = Server::start(Options::from(STALL_AFTER).args(["--socket-queue", "1"]));
    let mut worker = server.start_agent(&["--interval-ms", "20", "--attempts", "1"]);
    let pid = worker.pid();
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
            let dropped: u32 = worker.ask("dropped").strip_prefix("ok ").unwrap().parse().unwrap();
            (dropped >= 10).then_some(())
        });
        is_over.store(true, Ordering::Relaxed);
        assert!(dropped.is_some(), "the queue is never full");
    });
    let scrape = server.await_beats(&[pid], 3);
    assert!(scrape.of_agent("varta_agent_beats_lost_total", pid) >= 10.0, "{}", scrape.text);
    assert_eq!(scrape.of_agent("varta_agent_up", pid), 1.0);
    let transitions = server.transitions();
    assert!(
        transitions.iter().all(|change| !["down", "gone"].contains(&change.to.as_str())),
        "{transitions:?}"
    );
}

#[test]
fn a_server_that_was_stopped_accuses_none_of_two_hundred_and_misses_no_death_after_it() {
    const AGENTS: usize = 200;
    let server = Server::start(STALL_AFTER);
    let workers: Vec<_> =
        (0..AGENTS).map(|_| AgentProcess::start(server.socket(), &["--interval-ms", "300"])).collect();
    let pids: Vec<_> = workers.iter().map(AgentProcess::pid).collect();
    server.await_beats(&pids, 2);
    server.pause_for(Duration::from_secs(3));
    let scrape = server.await_beats_and_seconds(&pids, 3, 1.5);
    assert!(scrape.value("varta_blind_periods_total", &[]) >= 1.0);
    let transitions = server.transitions();
    assert_eq!(transitions.iter().find(|change| change.to != "up"), None);
    server.await_agents("up", AGENTS);

    for worker in &workers {
        worker.signal(Signal::Kill);
    }
    let scrape = server.await_agents("down", AGENTS);
    assert_detections(&scrape, AGENTS);
    let transitions = server.transitions();
    let killed = transitions.iter().filter(|change| change.to == "down" && change.signal == Some(9));
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
    let mut worker = server.start_agent(&[]);
    let pid = worker.pid();
    assert_eq!(worker.ask(&format!("exec {}", program.display())), format!("ready {pid}"));
    let scrape = server.await_beats(&[pid], 3);
    assert_eq!(scrape.get("varta_agent_up", &[("agent", "it-other")]), Some(1.0));
    worker.signal(Signal::Kill);
    server.expect(agent(pid).named("it-other").down().signal(9));
    server.expect_history(pid, &["up: first_beat", "down: killed"]);
}

#[test]
fn the_death_of_a_parent_does_not_bury_its_child() {
    let server = Server::start(NO_DEADLINE);
    let mut parent = server.start_agent(&[]);
    let child = parent.fork();
    server.expect(agent(child).up());
    parent.signal(Signal::Kill);
    server.expect(agent(&parent).down());
    let scrape = server.await_beats(&[child], 5);
    assert_eq!(scrape.of_agent("varta_agent_up", parent.pid()), 0.0);
    assert_eq!(scrape.of_agent("varta_agent_up", child), 1.0);
    assert_eq!(server.history(child), ["up: first_beat"]);
    assert_eq!(server.history(&parent), ["up: first_beat", "down: killed"]);
}

#[test]
fn a_handle_that_is_made_again_raises_no_alarm() {
    let server = Server::start(NO_DEADLINE);
    let mut worker = server.start_agent(&[]);
    for _ in 0..5 {
        worker.ask("recreate");
        server.await_beats(&[worker.pid()], 2);
    }
    assert_eq!(server.history(&worker), ["up: first_beat"]);
    assert_eq!(server.scrape().value("varta_watch_pids_tracked", &[]), 1.0);
}

/// Kills a worker that beats to this server, and starts another program that has its pid. A server that is
/// paused for that sees both in one moment.
fn replace_with_other_program(server: &Server, is_paused: bool) -> (u32, AgentProcess) {
    let program = other_program(server);
    let mut first = server.start_agent(&[]);
    let pid = first.pid();
    // A process is known by its pid and its start time, which the kernel has in hundredths of a second.
    let uptime = || fs::read_to_string("/proc/uptime").unwrap().split_whitespace().next().unwrap().to_owned();
    let started = uptime();
    wait_until("a process that starts now has another start time", || uptime() != started);
    if is_paused {
        server.pause();
    }
    first.signal(Signal::Kill);
    if !is_paused {
        server.expect(agent(pid).down());
    }
    first.wait();
    (pid, AgentProcess::run(as_pid(pid, &agent_of(&program, server))))
}

#[test]
fn another_program_with_the_pid_of_a_dead_one_is_a_new_incarnation() {
    if !pids_can_be_chosen() {
        return;
    }
    let server = Server::start(NO_DEADLINE);
    let (pid, second) = replace_with_other_program(&server, false);
    server.expect(agent(pid).named("it-other").up().because("restarted").from("down"));
    // The new one has a death of its own.
    sys::send_signal(pid, Signal::Kill).unwrap();
    server.await_scrape("the new one is down", |scrape| scrape.of_agent("varta_agent_up", pid) == 0.0);
    server.expect_history(pid, &["up: first_beat", "down: killed", "up: restarted", "down: killed"]);
    assert_eq!(server.scrape().value("varta_watch_pids_tracked", &[]), 1.0);
    drop(second);
}

#[test]
fn a_death_that_is_seen_late_is_not_that_of_the_process_that_has_the_pid_by_then() {
    if !pids_can_be_chosen() {
        return;
    }
    let server = Server::start(NO_DEADLINE);
    let (pid, second) = replace_with_other_program(&server, true);
    server.resume();
    server.expect(agent(pid).up().because("restarted"));
    let scrape = server.await_beats(&[pid], 5);
    assert_eq!(scrape.of_agent("varta_agent_up", pid), 1.0);
    sys::send_signal(pid, Signal::Terminate).unwrap();
    server.expect(agent(pid).gone().signal(15));
    server.expect_history(pid, &["up: first_beat", "up: restarted", "gone: killed"]);
    drop(second);
}

/// Whether the kernel gives each process an inode number of its own (pidfs, from Linux 6.9 on).
fn processes_have_inodes() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (6, 9) {
        skip("this kernel does not number its processes");
    }
    version >= (6, 9)
}

#[test]
fn another_process_with_the_same_pid_and_the_same_start_time_is_another_agent_and_lives() {
    if !pids_can_be_chosen() || !processes_have_inodes() {
        return;
    }
    let server = Server::start(NO_DEADLINE);
    let mut pairs = AgentProcess::run(same_pid(server.socket()));
    // The first one may be gone before the server has read of it: then the second is all that it ever knew.
    let is_told = (0..200).any(|_| {
        let reply = pairs.ask("next");
        let pid: u32 = reply.strip_prefix("ok ").unwrap().parse().unwrap();
        server.await_beats(&[pid], 3);
        assert_eq!(server.scrape().of_agent("varta_agent_up", pid), 1.0);
        server.history(pid).last().is_some_and(|last| last == "up: restarted")
    });
    assert!(is_told, "none was told as another");
}

#[test]
fn process_1_of_a_container_dies_like_any_other() {
    if !pid_namespaces_work() {
        return;
    }
    let server = Server::start(NO_DEADLINE);
    let worker =
        AgentProcess::run(into_pid_namespace(&agent_of(Path::new(worker_command().get_program()), &server)));
    let [pid] = children(worker.pid())[..] else { panic!("it has one child") };
    server.expect(agent(pid).up());
    // Process 1 ignores signals that come from inside.
    sys::send_signal(pid, Signal::Kill).unwrap();
    server.expect(agent(pid).named("it-worker").down());
}

#[test]
fn an_ordinary_process_of_a_container_is_known_by_the_pid_that_it_has_here() {
    if !pid_namespaces_work() {
        return;
    }
    let server = Server::start(NO_DEADLINE);
    // Process 1 is a shell, and then a program that does not ask how its child ended.
    let mut shell = Command::new("sh");
    shell.env_clear().args(["-c", "exec 3<&0; \"$0\" \"$@\" <&3 3<&- & exec sleep 1000"]);
    shell.arg(worker_command().get_program());
    shell.arg("--socket").arg(server.socket()).args(["--name", "contained"]);
    let mut worker = AgentProcess::run(into_pid_namespace(&shell));
    let [first] = children(worker.pid())[..] else { panic!("it has one child") };
    let [pid] = children(first)[..] else { panic!("process 1 has one child") };
    let scrape = server.await_scrape("some beats have come", |scrape| scrape.datagrams() >= 5.0);
    assert_eq!(scrape.outcome("accepted"), scrape.datagrams(), "{}", scrape.text);
    server.expect(agent(pid).named("contained").up());
    worker.ask("exit 3");
    server.expect(agent(pid).down().exit_code(3));
    server.expect_history(pid, &["up: first_beat", "down: exited"]);
}

#[test]
fn an_agent_that_gives_itself_a_name_has_it_everywhere() {
    let server = Server::start(NO_DEADLINE);
    let mut worker = server.start_agent(&["--name", "billing/worker@7"]);
    let pid = worker.pid();
    worker.ask("recreate");
    server.await_beats(&[pid], 3);
    worker.ask("exit 3");
    server.expect(agent(pid).down());
    let transitions = server.transitions();
    assert!(transitions.iter().all(|change| change.agent == "billing/worker@7"), "{transitions:?}");
    let (scrape, pid) = (server.scrape(), pid.to_string());
    let rows = scrape.samples.iter().filter(|sample| sample.labels.get("pid") == Some(&pid));
    let names: Vec<_> = rows.map(|sample| sample.labels["agent"].as_str()).collect();
    assert!(!names.is_empty() && names.iter().all(|name| *name == "billing/worker@7"), "{names:?}");
}

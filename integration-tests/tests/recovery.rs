//! Recovery, with real processes: on which agents it acts, how, and above all on which it does not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use varta_integration_tests::foreign::skip;
use varta_integration_tests::{
    AgentProcess, Network, Options, RemoteAgent, Scratch, Server, Signal, agent, as_pid, line, line_with,
    metric, pids_can_be_chosen, wait_until,
};

/// A deadline comes soon after the last beat.
const STALL_AFTER: [&str; 2] = ["--stall-after", "1s"];

/// A command that writes the words into a file, with what its environment has of the agent.
fn note(scratch: &Scratch, words: &str) -> String {
    let notes = scratch.path("notes");
    format!("/bin/sh -c 'echo \"$* $VARTA_STATE $VARTA_CAUSE\" >> {}' note {words}", notes.display())
}

/// What commands have written.
fn notes(scratch: &Scratch) -> Vec<String> {
    scratch.lines("notes")
}

#[track_caller]
fn await_notes(scratch: &Scratch, count: usize) -> Vec<String> {
    wait_until(&format!("there are {count} notes"), || notes(scratch).len() >= count);
    notes(scratch)
}

/// A server with these rules.
fn server_with(scratch: &Scratch, rules: &str) -> Server {
    Server::start(Options::from(STALL_AFTER).config(scratch, rules))
}

/// A server that runs this command for each agent in alarm.
fn server_with_command(command: &str, further: &[&str]) -> Server {
    let options = Options::from(STALL_AFTER).args(["--recovery-exec", command]);
    Server::start(options.args(further.iter().copied()))
}

fn actions(server: &Server, action: &str, result: &str) -> f64 {
    server.scrape().value("varta_recovery_actions_total", &[("action", action), ("result", result)])
}

#[track_caller]
fn await_action(server: &Server, action: &str, result: &str, count: f64) {
    let actions = metric("varta_recovery_actions_total").with("action", action).with("result", result);
    server.expect(actions.at_least(count));
}

#[track_caller]
fn await_refusal(server: &Server, reason: &str, count: f64) {
    server.expect(metric("varta_recovery_refused_total").with("reason", reason).at_least(count));
}

/// Waits until recovery has no agent to act on any more.
#[track_caller]
fn await_peace(server: &Server) {
    server.expect(metric("varta_recovery_agents").is(0.0));
}

#[test]
fn a_stuck_worker_gets_term_then_kill_then_its_command() {
    let scratch = Scratch::make();
    let command = note(&scratch, "{pid} {name}");
    let rules = format!(
        "[[recovery]]\nstate = 'stalled'\nsteps = [\n\
         {{ signal = 'TERM' }},\n{{ wait = '1s', signal = 'KILL' }},\n{{ exec = \"\"\"{command}\"\"\" }},\n]\n"
    );
    let server = server_with(&scratch, &rules);
    let worker = server.start_agent(&[]);
    // A process that is stopped does not handle SIGTERM.
    worker.signal(Signal::Stop);
    let pid = worker.pid();
    let note = await_notes(&scratch, 1).remove(0);
    assert!(note.starts_with(&format!("{pid} it-worker ")), "{note}");
    server.expect(line_with("sent SIGTERM"));
    server.expect(line_with("sent SIGKILL"));
    let lines = server.log().lines();
    let place = |what: &str| lines.iter().position(|line| line.contains(what));
    let places = [place("sent SIGTERM"), place("sent SIGKILL")];
    assert!(places[0].is_some() && places[0] < places[1], "{lines:?}");
    await_action(&server, "command", "done", 1.0);
    assert_eq!((actions(&server, "signal", "done"), actions(&server, "command", "failed")), (2.0, 0.0));
    server.expect(agent(pid).down().signal(9));
}

#[test]
fn a_worker_that_comes_back_between_two_steps_is_left_alone() {
    let scratch = Scratch::make();
    let rules = "[[recovery]]\nsteps = [{ notify = true }, { wait = '1h', signal = 'KILL' }]\n";
    let server = server_with(&scratch, rules);
    let worker = server.start_agent(&[]);
    worker.signal(Signal::Stop);
    await_action(&server, "notify", "done", 1.0);
    worker.signal(Signal::Continue);
    server.expect(agent(&worker).up().because("recovered"));
    await_peace(&server);
    assert_eq!(server.scrape().sum("varta_recovery_actions_total", &[("action", "signal")]), 0.0);
}

#[test]
fn the_simple_case_is_one_flag() {
    let scratch = Scratch::make();
    let server = server_with_command(&note(&scratch, "{name}"), &["--recovery-env", "EXTRA=1"]);
    let worker = server.start_agent(&[]);
    worker.signal(Signal::Kill);
    assert_eq!(await_notes(&scratch, 1), ["it-worker down killed"]);
    server.expect(line_with("exited with status 0"));
}

#[test]
fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let scratch = Scratch::make();
    let server = server_with_command(&note(&scratch, "{name}"), &["--recovery-dry-run"]);
    let worker = server.start_agent(&[]);
    worker.signal(Signal::Kill);
    await_action(&server, "command", "dry_run", 1.0);
    server.expect(line("would run /bin/sh"));
    assert_eq!(notes(&scratch).len(), 0);
}

fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_pid_that_became_anothers_between_verdict_and_action_is_not_touched() {
    if !pids_can_be_chosen() {
        return;
    }
    let scratch = Scratch::make();
    let rules = format!(
        "[[recovery]]\nsteps = [{{ signal = 'KILL' }}, {{ wait = '2s', exec = \"\"\"{}\"\"\" }}]\n",
        note(&scratch, "{pid}")
    );
    let server = server_with(&scratch, &rules);
    let mut worker = server.start_agent(&[]);
    let pid = worker.pid();
    worker.signal(Signal::Stop);
    worker.wait();
    server.expect(agent(pid).down());
    let mut sleep = Command::new("sh");
    sleep.args(["-c", "echo ready; exec sleep 1000"]);
    let _stranger = AgentProcess::run(as_pid(pid, &sleep));
    await_refusal(&server, "pid_reused", 1.0);
    await_peace(&server);
    assert!(is_alive(pid) && notes(&scratch).is_empty());
}

#[test]
fn five_hundred_that_stop_at_once_are_one_incident_and_no_more_actions_than_the_budget() {
    const AGENTS: usize = 500;
    let scratch = Scratch::make();
    let rules = "[[recovery]]\nsteps = [{ signal = 'CONT' }]\nbudget = '7/1h'\n";
    // Together they send more than a queue of ten datagrams takes at once: the deadline is many beats long.
    let options = Options::from(["--recovery-budget", "100/1h", "--stall-after", "8s"]);
    let server = Server::start(options.config(&scratch, rules));
    let workers = server.start_agents(AGENTS, &["--interval-ms", "1500"]);
    for worker in &workers {
        worker.signal(Signal::Stop);
    }
    await_refusal(&server, "group_budget", 400.0);
    await_action(&server, "signal", "done", 7.0);
    let scrape = server.scrape();
    assert_eq!(scrape.sum("varta_recovery_actions_total", &[("result", "done")]), 7.0);
    assert_eq!(scrape.value("varta_incidents_total", &[]), 1.0);
}

#[test]
fn a_server_that_was_stopped_acts_on_no_agent() {
    let scratch = Scratch::make();
    let server = server_with_command(&note(&scratch, "{name}"), &[]);
    let workers = server.start_agents(20, &["--interval-ms", "200"]);
    let pids: Vec<u32> = workers.iter().map(AgentProcess::pid).collect();
    server.pause_for(Duration::from_secs(3));
    let scrape = server.await_beats_and_seconds(&pids, 5, 1.5);
    assert!(scrape.value("varta_blind_periods_total", &[]) >= 1.0);
    assert_eq!(scrape.sum("varta_recovery_actions_total", &[]), 0.0);
    assert!(notes(&scratch).is_empty());
}

#[test]
fn agents_of_other_hosts_are_acted_on_only_when_the_operator_says_so_and_get_no_signals() {
    let scratch = Scratch::make();
    let rules = |exec: &str| {
        format!(
            "[[recovery]]\ncause = 'unreachable'\nsteps = [{{ signal = 'KILL' }}]\nname = '*:1*'\n\
             [[recovery]]\ntransport = ['udp', 'secure_udp']\nexec = \"\"\"{exec}\"\"\"\n"
        )
    };
    for allowed in [false, true] {
        let mut options = Options::from(STALL_AFTER).on(Network::Plain, &["127.0.0.1".parse().unwrap()]);
        if allowed {
            options = options.args(["--allow-recovery-for-remote"]);
        }
        let server = Server::start(options.config(&scratch, &rules(&note(&scratch, "{name}"))));
        RemoteAgent::new(Network::Plain, server.udp_address(0), 4_000_000).beat();
        server.await_agents("stalled", 1);
        if allowed {
            assert_eq!(await_notes(&scratch, 1), ["127.0.0.1 stalled unreachable"]);
        } else {
            await_refusal(&server, "remote", 1.0);
            await_peace(&server);
            assert!(notes(&scratch).is_empty());
        }
    }
}

#[test]
fn the_last_of_a_group_that_still_beats_is_left_alone() {
    let scratch = Scratch::make();
    let rules = format!(
        "[[recovery]]\nstate = 'critical'\nexec = \"\"\"{}\"\"\"\nattempts = 1\n",
        note(&scratch, "{pid}")
    );
    let server = server_with(&scratch, &rules);
    let mut workers: Vec<_> = (0..3).map(|_| server.start_agent(&[])).collect();
    let mut last = workers.pop().unwrap();
    for worker in &mut workers {
        worker.ask("status critical");
    }
    assert_eq!(await_notes(&scratch, 2).len(), 2, "there is one that is well");
    for worker in &workers {
        worker.signal(Signal::Kill);
    }
    server.await_agents("down", 2);
    last.ask("status critical");
    await_refusal(&server, "last_one_standing", 1.0);
    assert_eq!(notes(&scratch).len(), 2);
    drop(last);
}

#[test]
fn what_cannot_be_filled_in_is_not_run() {
    let scratch = Scratch::make();
    let server = server_with_command(&note(&scratch, "{unit}"), &[]);
    let worker = server.start_agent(&[]);
    worker.signal(Signal::Kill);
    let unit = fs::read_to_string("/proc/self/cgroup").unwrap();
    if unit.contains(".service") || unit.contains(".scope") {
        await_notes(&scratch, 1);
    } else {
        await_refusal(&server, "argument", 1.0);
        assert!(notes(&scratch).is_empty());
    }
}

#[test]
fn a_command_that_fails_is_tried_again_and_then_given_up_loudly() {
    let scratch = Scratch::make();
    let exec = format!("/bin/sh -c 'echo $VARTA_ATTEMPT >> {}; exit 3'", scratch.path("notes").display());
    let rules = format!(
        "recovery-backoff = '100ms'\nrecovery-debounce = '0s'\nrecovery-attempts = 3\nrecovery-exec = \"\"\"{exec}\"\"\"\n"
    );
    let server = server_with(&scratch, &rules);
    let worker = server.start_agent(&[]);
    worker.signal(Signal::Kill);
    await_refusal(&server, "given_up", 1.0);
    assert_eq!(notes(&scratch), ["1", "2", "3"]);
    server.expect(line("given up: no attempt has helped it-worker"));
    assert_eq!(actions(&server, "command", "failed"), 3.0);
}

#[test]
fn rules_are_read_again_while_it_runs() {
    let scratch = Scratch::make();
    let server = server_with(&scratch, "[[recovery]]\nname = 'nobody'\nexec = 'true'\n");
    scratch.write("varta.toml", &format!("[[recovery]]\nexec = \"\"\"{}\"\"\"\n", note(&scratch, "{name}")));
    server.signal(Signal::HangUp);
    server.expect(line_with("was read again"));
    // Recovery gets the rules a moment later.
    let mut names = (0..).map(|number| format!("victim-{number}"));
    wait_until("the new rule has a command run", || {
        // None of them takes the place of another.
        let name = names.next().unwrap_or_default();
        server.start_agent(&["--name", &name]).signal(Signal::Kill);
        !notes(&scratch).is_empty()
    });
}

/// The processes that have this word among their arguments.
fn processes_with(word: &Path) -> usize {
    let word = word.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(word)).count()
}

#[test]
fn a_server_that_ends_ends_its_commands_first() {
    let scratch = Scratch::make();
    let mark = scratch.path("mark");
    let script = "trap \"\" TERM; touch $0; sleep 1000 & sleep 1000; sleep 1000";
    let exec = format!("/bin/sh -c '{script}' {}", mark.display());
    let mut server = server_with_command(&exec, &[]);
    let worker = server.start_agent(&[]);
    worker.signal(Signal::Kill);
    wait_until("the command runs", || mark.exists());
    server.stop();
    assert_eq!(processes_with(&mark), 0);
    server.expect(line_with("took too long and was ended"));
    drop(worker);
}

/// The files of `/proc/pressure` in a directory, with this share of time in which all waited for memory.
fn starve(directory: &Path, full: u32) {
    fs::create_dir_all(directory).unwrap();
    let file = |full| {
        format!(
            "some avg10=99.00 avg60=0.00 avg300=0.00 total=1\nfull avg10={full}.00 avg60=0.00 avg300=0.00 total=1\n"
        )
    };
    for (resource, full) in [("cpu", 0), ("memory", full), ("io", 0)] {
        // In place: the directory is mounted.
        fs::write(directory.join(resource), file(full)).unwrap();
    }
}

#[test]
fn while_the_host_is_starved_nobody_is_acted_on_and_afterwards_who_is_still_in_alarm() {
    let scratch = Scratch::make();
    let pressure = scratch.path("pressure");
    starve(&pressure, 90);
    let mount = format!("mount --bind '{}' /proc/pressure && exec \"$@\"", pressure.display());
    let starter = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", &mount, "starter"];
    let probe = Command::new(starter[0]).args(&starter[1..]).arg("true").output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        return skip(
            "a file system can be mounted by root alone, and over /proc/pressure where there is one",
        );
    }
    let options = Options::from(STALL_AFTER).started_by(starter);
    let server = Server::start(options.args(["--recovery-exec", &note(&scratch, "{name}")]));
    let [stays, recovers] = [(); 2].map(|()| server.start_agent(&[]));
    for worker in [&stays, &recovers] {
        worker.signal(Signal::Stop);
    }
    await_refusal(&server, "host_pressure", 2.0);
    recovers.signal(Signal::Continue);
    server.expect(agent(&recovers).up().because("recovered"));
    assert_eq!(notes(&scratch), [""; 0]);
    starve(&pressure, 20);
    assert_eq!(await_notes(&scratch, 1).len(), 1);
    await_action(&server, "command", "done", 1.0);
    assert_eq!(notes(&scratch).len(), 1, "{:?}", notes(&scratch));
}

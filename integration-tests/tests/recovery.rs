//! Recovery, with real processes: who is acted on, how, and above all who is not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use varta_integration_tests::foreign::skip;
use varta_integration_tests::{
    AgentProcess, LIMIT, Network, Options, RemoteAgent, Server, Signal, as_pid, pids_can_be_chosen, wait_for,
};

const SOON: [&str; 2] = ["--stall-after", "1s"];

/// A directory for rules, and for what commands leave behind.
struct Ground(tempfile::TempDir);

impl Ground {
    fn new() -> Self {
        Ground(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A command that writes the words into a file, and what its environment says of the agent.
    fn note(&self, words: &str) -> String {
        let notes = self.path("notes");
        format!("/bin/sh -c 'echo \"$* $VARTA_STATE $VARTA_CAUSE\" >> {}' note {words}", notes.display())
    }

    /// What commands have written.
    fn notes(&self) -> Vec<String> {
        let notes = fs::read_to_string(self.path("notes")).unwrap_or_default();
        notes.lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn await_notes(&self, count: usize) -> Vec<String> {
        let found = wait_for(|| Some(self.notes()).filter(|notes| notes.len() >= count));
        found.unwrap_or_else(|| panic!("there are not {count} notes within {LIMIT:?}: {:?}", self.notes()))
    }

    /// A server that goes by these rules.
    fn server(&self, rules: &str, options: impl Into<Options>) -> Server {
        let path = self.path("varta.toml");
        fs::write(&path, rules).unwrap();
        Server::start(options.into().args(SOON).args(["--config", path.to_str().unwrap()]))
    }
}

fn start(server: &Server, arguments: &[&str]) -> AgentProcess {
    let agent = AgentProcess::start(server.socket(), arguments);
    server.await_state(agent.pid(), "up");
    agent
}

fn actions(server: &Server, action: &str, result: &str) -> f64 {
    server.scrape().value("varta_recovery_actions_total", &[("action", action), ("result", result)])
}

#[track_caller]
fn await_action(server: &Server, action: &str, result: &str, count: f64) {
    let labels = [("action", action), ("result", result)];
    server.await_sample("varta_recovery_actions_total", &labels, |value| value >= count);
}

#[track_caller]
fn await_refusal(server: &Server, reason: &str, count: f64) {
    server.await_sample("varta_recovery_refused_total", &[("reason", reason)], |value| value >= count);
}

/// Waits until recovery is concerned with nobody any more.
#[track_caller]
fn await_peace(server: &Server) {
    server.await_sample("varta_recovery_agents", &[], |value| value == 0.0);
}

#[test]
fn a_stuck_worker_gets_term_then_kill_then_its_command() {
    let ground = Ground::new();
    let command = ground.note("{pid} {name}");
    let rules = format!(
        "[[recovery]]\nstate = 'stalled'\nsteps = [\n\
         {{ signal = 'TERM' }},\n{{ wait = '1s', signal = 'KILL' }},\n{{ exec = \"\"\"{command}\"\"\" }},\n]\n"
    );
    let server = ground.server(&rules, Options::new());
    let agent = start(&server, &[]);
    // A process that is stopped does not heed SIGTERM.
    agent.signal(Signal::Stop);
    let pid = agent.pid();
    let note = ground.await_notes(1).remove(0);
    assert!(note.starts_with(&format!("{pid} it-worker ")), "{note}");
    let lines = server.log().lines();
    let place = |what: &str| lines.iter().position(|line| line.contains(what));
    let places = [place("sent SIGTERM"), place("sent SIGKILL")];
    assert!(places[0].is_some() && places[0] < places[1], "{lines:?}");
    await_action(&server, "command", "done", 1.0);
    assert_eq!((actions(&server, "signal", "done"), actions(&server, "command", "failed")), (2.0, 0.0));
    assert_eq!(server.await_state(pid, "down").signal, Some(9));
}

#[test]
fn a_worker_that_comes_back_between_two_steps_is_left_alone() {
    let ground = Ground::new();
    let rules = "[[recovery]]\nsteps = [{ notify = true }, { wait = '1h', signal = 'KILL' }]\n";
    let server = ground.server(rules, Options::new());
    let agent = start(&server, &[]);
    agent.signal(Signal::Stop);
    await_action(&server, "notify", "done", 1.0);
    agent.signal(Signal::Continue);
    server.await_transition(agent.pid(), "up", "recovered");
    await_peace(&server);
    assert_eq!(server.scrape().sum("varta_recovery_actions_total", &[("action", "signal")]), 0.0);
}

#[test]
fn the_simple_case_is_one_flag() {
    let ground = Ground::new();
    let server = Server::start(Options::new().args(SOON).args([
        "--recovery-exec",
        &ground.note("{name}"),
        "--recovery-env",
        "EXTRA=1",
    ]));
    let agent = start(&server, &[]);
    agent.signal(Signal::Kill);
    assert_eq!(ground.await_notes(1), ["it-worker down killed"]);
    let said =
        wait_for(|| server.log().lines().into_iter().find(|line| line.contains("exited with status 0")));
    assert!(said.is_some());
}

#[test]
fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let ground = Ground::new();
    let command = ground.note("{name}");
    let server =
        Server::start(Options::new().args(SOON).args(["--recovery-exec", &command, "--recovery-dry-run"]));
    let agent = start(&server, &[]);
    agent.signal(Signal::Kill);
    await_action(&server, "command", "dry_run", 1.0);
    assert!(server.log().find("would run /bin/sh").is_some());
    assert_eq!(ground.notes().len(), 0);
}

fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_pid_that_became_anothers_between_verdict_and_action_is_not_touched() {
    if !pids_can_be_chosen() {
        skip("pids cannot be chosen here: that takes root and Linux 5.5");
        return;
    }
    let ground = Ground::new();
    let rules = format!(
        "[[recovery]]\nsteps = [{{ signal = 'KILL' }}, {{ wait = '2s', exec = \"\"\"{}\"\"\" }}]\n",
        ground.note("{pid}")
    );
    let server = ground.server(&rules, Options::new());
    let mut agent = start(&server, &[]);
    let pid = agent.pid();
    agent.signal(Signal::Stop);
    agent.wait();
    server.await_state(pid, "down");
    let mut sleep = Command::new("sh");
    sleep.args(["-c", "echo ready; exec sleep 1000"]);
    let _stranger = AgentProcess::run(as_pid(pid, &sleep));
    await_refusal(&server, "pid_reused", 1.0);
    await_peace(&server);
    assert!(is_alive(pid) && ground.notes().is_empty());
}

#[test]
fn five_hundred_that_stop_at_once_are_one_incident_and_no_more_actions_than_the_budget() {
    const AGENTS: usize = 500;
    let ground = Ground::new();
    let rules = "[[recovery]]\nsteps = [{ signal = 'CONT' }]\nbudget = '7/1h'\n";
    // Together they send more than a queue of ten datagrams takes at once.
    let options = Options::new().args(["--recovery-budget", "100/1h", "--stall-after", "3s"]);
    let path = ground.path("varta.toml");
    fs::write(&path, rules).unwrap();
    let server = Server::start(options.args(["--config", path.to_str().unwrap()]));
    let agents: Vec<_> =
        (0..AGENTS).map(|_| AgentProcess::start(server.socket(), &["--interval-ms", "500"])).collect();
    server.await_agents("up", AGENTS);
    for agent in &agents {
        agent.signal(Signal::Stop);
    }
    await_refusal(&server, "group_budget", 400.0);
    await_action(&server, "signal", "done", 7.0);
    let scrape = server.scrape();
    assert_eq!(scrape.sum("varta_recovery_actions_total", &[("result", "done")]), 7.0);
    assert_eq!(scrape.value("varta_incidents_total", &[]), 1.0);
}

#[test]
fn a_server_that_was_stopped_acts_on_nobody() {
    let ground = Ground::new();
    let server = Server::start(Options::new().args(SOON).args(["--recovery-exec", &ground.note("{name}")]));
    let agents: Vec<_> =
        (0..20).map(|_| AgentProcess::start(server.socket(), &["--interval-ms", "200"])).collect();
    let pids: Vec<u32> = agents.iter().map(AgentProcess::pid).collect();
    server.await_agents("up", 20);
    server.pause();
    // Not a wait for anything: that the server does not run for three seconds is what happens to it.
    thread::sleep(Duration::from_secs(3));
    server.signal(Signal::Continue);
    let scrape = server.await_beats_and_seconds(&pids, 5, 1.5);
    assert!(scrape.value("varta_blind_periods_total", &[]) >= 1.0);
    assert_eq!(scrape.sum("varta_recovery_actions_total", &[]), 0.0);
    assert!(ground.notes().is_empty());
}

#[test]
fn agents_of_other_hosts_are_acted_on_only_when_the_operator_says_so_and_get_no_signals() {
    let ground = Ground::new();
    let rules = |exec: &str| {
        format!(
            "[[recovery]]\ncause = 'unreachable'\nsteps = [{{ signal = 'KILL' }}]\nname = '*:1*'\n\
             [[recovery]]\ntransport = ['udp', 'secure_udp']\nexec = \"\"\"{exec}\"\"\"\n"
        )
    };
    for allowed in [false, true] {
        let mut options = Options::new().on(Network::Plain, &["127.0.0.1".parse().unwrap()]);
        if allowed {
            options = options.args(["--allow-recovery-for-remote"]);
        }
        let server = ground.server(&rules(&ground.note("{name}")), options);
        let mut agent = RemoteAgent::new(Network::Plain, server.udp_address(0), 4_000_000);
        agent.beat();
        server.await_agents("stalled", 1);
        if allowed {
            assert_eq!(ground.await_notes(1), ["127.0.0.1 stalled unreachable"]);
        } else {
            await_refusal(&server, "remote", 1.0);
            await_peace(&server);
            assert!(ground.notes().is_empty());
        }
    }
}

#[test]
fn the_last_of_a_group_that_still_beats_is_left_alone() {
    let ground = Ground::new();
    let rules = format!(
        "[[recovery]]\nstate = 'critical'\nexec = \"\"\"{}\"\"\"\nattempts = 1\n",
        ground.note("{pid}")
    );
    let server = ground.server(&rules, Options::new());
    let mut workers: Vec<_> = (0..3).map(|_| start(&server, &[])).collect();
    let mut last = workers.pop().unwrap();
    for worker in &mut workers {
        worker.ask("status critical");
    }
    assert_eq!(ground.await_notes(2).len(), 2, "there is one that is well");
    for worker in &workers {
        worker.signal(Signal::Kill);
    }
    server.await_agents("down", 2);
    last.ask("status critical");
    await_refusal(&server, "last_one_standing", 1.0);
    assert_eq!(ground.notes().len(), 2);
    // By itself it is nobody's last.
    drop(last);
}

#[test]
fn what_cannot_be_filled_in_is_not_run() {
    let ground = Ground::new();
    let server = Server::start(Options::new().args(SOON).args(["--recovery-exec", &ground.note("{unit}")]));
    let agent = start(&server, &[]);
    agent.signal(Signal::Kill);
    let unit = fs::read_to_string("/proc/self/cgroup").unwrap();
    if unit.contains(".service") || unit.contains(".scope") {
        ground.await_notes(1);
    } else {
        await_refusal(&server, "argument", 1.0);
        assert!(ground.notes().is_empty());
    }
}

#[test]
fn a_command_that_fails_is_tried_again_and_then_given_up_loudly() {
    let ground = Ground::new();
    let path = ground.path("varta.toml");
    let notes = ground.path("notes");
    let exec = format!("/bin/sh -c 'echo $VARTA_ATTEMPT >> {}; exit 3'", notes.display());
    let rules = format!(
        "recovery-backoff = '100ms'\nrecovery-debounce = '0s'\nrecovery-attempts = 3\nrecovery-exec = \"\"\"{exec}\"\"\"\n"
    );
    fs::write(&path, rules).unwrap();
    let server = Server::start(Options::new().args(SOON).args(["--config", path.to_str().unwrap()]));
    let agent = start(&server, &[]);
    agent.signal(Signal::Kill);
    await_refusal(&server, "given_up", 1.0);
    assert_eq!(ground.notes(), ["1", "2", "3"]);
    assert!(wait_for(|| server.log().find("given up: no attempt has helped it-worker")).is_some());
    assert_eq!(actions(&server, "command", "failed"), 3.0);
}

#[test]
fn rules_are_read_again_while_it_runs() {
    let ground = Ground::new();
    let server = ground.server("[[recovery]]\nname = 'nobody'\nexec = 'true'\n", Options::new());
    let agent = start(&server, &[]);
    let path = ground.path("varta.toml");
    fs::write(&path, format!("[[recovery]]\nexec = \"\"\"{}\"\"\"\n", ground.note("{name}"))).unwrap();
    server.signal(Signal::HangUp);
    assert!(
        wait_for(|| server.log().lines().into_iter().find(|line| line.contains("was read again"))).is_some()
    );
    agent.signal(Signal::Kill);
    ground.await_notes(1);
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
    let ground = Ground::new();
    let mark = ground.path("mark");
    let script = "trap \"\" TERM; touch $0; sleep 1000 & sleep 1000; sleep 1000";
    let exec = format!("/bin/sh -c '{script}' {}", mark.display());
    let mut server = Server::start(Options::new().args(SOON).args(["--recovery-exec", &exec]));
    let agent = start(&server, &[]);
    agent.signal(Signal::Kill);
    assert!(wait_for(|| mark.exists().then_some(())).is_some(), "the command runs");
    server.signal(Signal::Terminate);
    assert!(server.wait().success());
    assert_eq!(processes_with(&mark), 0);
    let said = server.log().lines().into_iter().find(|line| line.contains("took too long and was ended"));
    assert!(said.is_some(), "{:?}", server.log().lines());
    drop(agent);
}

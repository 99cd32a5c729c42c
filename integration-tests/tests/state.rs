//! A server that is killed and started again on the same state directory: it knows who should be there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use varta_integration_tests::foreign::skip;
use varta_integration_tests::{
    AgentProcess, LIMIT, Network, Options, RemoteAgent, Server, Signal, SmallDisk, loopback_socket,
    run_to_its_end, send_from, server_command, wait_for,
};

/// Long enough for servers and agents to be started in, short enough to be waited for.
const GRACE: [&str; 2] = ["--stall-after", "2s"];
const GRACE_MS: u64 = 2_000;
/// No deadline comes in the lifetime of a test.
const NO_DEADLINE: [&str; 2] = ["--stall-after", "1h"];

/// Where servers keep their state and their socket, one after the other.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Place { directory: tempfile::Builder::new().prefix("varta-it-").tempdir().unwrap() }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("varta.sock")
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn start(&self, arguments: [&str; 2]) -> Server {
        Server::start(self.options(&self.state()).args(arguments))
    }

    fn options(&self, state: &Path) -> Options {
        Options::new().socket(&self.socket()).args([Path::new("--state-dir"), state])
    }

    fn agent(&self, name: &str) -> AgentProcess {
        AgentProcess::start(&self.socket(), &["--name", name])
    }
}

/// Kills a server, but not before these agents are known by their names, and that is written.
#[track_caller]
fn kill(server: Server, state: &Path, names: &[&str]) {
    await_written(state, |bytes| {
        names.iter().all(|name| bytes.windows(name.len()).any(|at| at == name.as_bytes()))
    });
    end(server, Signal::Kill);
}

/// Waits until what a server has written is as expected.
#[track_caller]
fn await_written(state: &Path, expected: impl Fn(&[u8]) -> bool) {
    let read = |file| fs::read(state.join(file)).unwrap_or_default();
    let written = wait_for(|| expected(&[read("varta.db"), read("varta.db-wal")].concat()).then_some(()));
    assert!(written.is_some(), "not written within {LIMIT:?}");
}

#[track_caller]
fn end(mut server: Server, signal: Signal) {
    server.signal(signal);
    assert_eq!(server.wait().success(), signal == Signal::Terminate);
}

#[test]
fn after_a_kill_the_next_server_knows_who_died_who_lives_and_who_is_stopped() {
    let place = Place::new();
    let server = place.start(GRACE);
    let names = ["name-of-the-dead", "name-of-the-living", "name-of-the-stopped", "name-of-the-finished"];
    let [mut dead, living, stopped, mut finished] = names.map(|name| place.agent(name));
    server.await_agents("up", 4);
    let agents = [dead.pid(), living.pid(), stopped.pid(), finished.pid()];
    kill(server, &place.state(), &names);

    dead.signal(Signal::Kill);
    dead.wait();
    stopped.signal(Signal::Stop);
    finished.ask("exit 0");
    finished.wait();

    let server = place.start(GRACE);
    let [dead, living, stopped, finished] = agents;
    for gone in [dead, finished] {
        let down = server.await_state(gone, "down");
        assert_eq!(
            (down.from.as_str(), down.cause.as_str(), down.exit_code),
            ("up", "exited", None),
            "{down:?}"
        );
        assert!(down.silence_ms > 0, "{down:?}");
    }
    let recovered = server.await_state(living, "up");
    assert_eq!(
        (recovered.from.as_str(), recovered.cause.as_str()),
        ("expected", "recovered"),
        "{recovered:?}"
    );
    assert_eq!(recovered.agent, "name-of-the-living");
    let stalled = server.await_state(stopped, "stalled");
    assert_eq!((stalled.from.as_str(), stalled.cause.as_str()), ("expected", "stopped"), "{stalled:?}");
    assert!(stalled.silence_ms >= GRACE_MS, "{stalled:?}");
    assert_eq!(stalled.agent, "name-of-the-stopped");
    assert_eq!(server.told(dead), ["down: exited"]);
    assert_eq!(server.told(living), ["up: recovered"]);
    assert_eq!(server.told(stopped), ["stalled: stopped"]);
    let scrape = server.await_agents("down", 2);
    assert_eq!(scrape.of_agent("varta_agent_up", dead), 0.0);
    assert_eq!(scrape.of_agent("varta_agent_up", living), 1.0);
    assert_eq!(scrape.of_agent("varta_stalls_total", stopped), 1.0);
    assert_eq!(scrape.sum("varta_state_write_errors_total", &[]), 0.0);
}

#[test]
fn who_dies_in_its_grace_is_down_at_once_and_what_was_told_is_not_told_again() {
    let place = Place::new();
    let server = place.start(GRACE);
    let agent = place.agent("name-of-the-stopped");
    server.await_agents("up", 1);
    agent.signal(Signal::Stop);
    server.await_state(agent.pid(), "stalled");
    let dead = place.agent("name-of-the-dead");
    server.await_state(dead.pid(), "up");
    dead.signal(Signal::Kill);
    server.await_state(dead.pid(), "down");
    // In order: it writes all that it knows.
    end(server, Signal::Terminate);

    let server = place.start(NO_DEADLINE);
    let scrape = server.await_agents("stalled", 1);
    assert_eq!(scrape.value("varta_agents", &[("state", "down")]), 1.0);
    assert_eq!(scrape.of_agent("varta_stalls_total", agent.pid()), 1.0);
    agent.signal(Signal::Kill);
    let down = server.await_state(agent.pid(), "down");
    assert_eq!(
        (down.from.as_str(), down.cause.as_str(), down.signal),
        ("stalled", "killed", Some(9)),
        "{down:?}"
    );
    assert_eq!(server.told(dead.pid()), [""; 0]);

    // A new process of that name takes its place, as if there had been one server all the time.
    let heir = place.agent("name-of-the-dead");
    let restarted = server.await_transition(heir.pid(), "up", "restarted");
    assert_eq!(restarted.from, "down");
    server.await_agents("down", 1);
}

#[test]
fn an_agent_goes_on_through_an_orderly_restart_with_its_figures() {
    let place = Place::new();
    let server = place.start(NO_DEADLINE);
    let agent = place.agent("billing");
    let before = server.await_beats_and_seconds(&[agent.pid()], 5, 0.0);
    end(server, Signal::Terminate);
    let server = place.start(NO_DEADLINE);
    server.await_transition(agent.pid(), "up", "recovered");
    let scrape = server.scrape();
    let beats = |scrape: &varta_integration_tests::Scrape| scrape.of_agent("varta_beats_total", agent.pid());
    assert!(beats(&scrape) > beats(&before));
    assert_eq!(server.told(agent.pid()), ["up: recovered"]);
}

/// The pid of an agent on the network.
const VICTIM: u32 = 4242;

#[test]
fn what_was_sealed_for_one_server_is_refused_by_the_next_however_the_first_ended() {
    for (network, signal) in [
        (Network::SharedKey, Signal::Kill),
        (Network::MasterKey, Signal::Kill),
        (Network::SharedKey, Signal::Terminate),
        (Network::MasterKey, Signal::Terminate),
    ] {
        let place = Place::new();
        let options = || {
            let options = place.options(&place.state()).args(NO_DEADLINE);
            options.args(["--max-beat-rate", "0"]).secure_udp("127.0.0.1:0").key_of(network)
        };
        let server = Server::start(options());
        let mut victim = RemoteAgent::new(network, server.secure_udp_address(0), VICTIM);
        // Each under a prefix of its own, so that it can be seen whether it is written.
        let mut recorded: Vec<_> = (0..5)
            .map(|_| {
                victim.restart();
                victim.beat()
            })
            .collect();
        let last_word = victim.terminal_frame();
        victim.renew();
        recorded.push(victim.wrap(&last_word.to_bytes()));
        victim.send(&recorded[5]);
        server.await_datagrams(6.0);
        if signal == Signal::Kill {
            let is_written = |written: &[u8], sealed: &[u8]| {
                let mut prefixes = sealed.windows(8);
                prefixes.any(|prefix| written.windows(8).any(|at| at == prefix))
            };
            await_written(&place.state(), |written| {
                recorded.iter().all(|sealed| is_written(written, sealed))
            });
        } else {
            // It need not have been written when the server is told to stop.
            recorded.extend((0..5).map(|_| victim.beat()));
        }
        let count = recorded.len() as f64;
        server.await_datagrams(count);
        assert_eq!(server.scrape().outcome("accepted"), count);
        end(server, signal);

        let server = Server::start(options());
        let address = server.secure_udp_address(0);
        for sealed in &recorded {
            send_from(&loopback_socket(), address, sealed);
        }
        let scrape = server.await_datagrams(count);
        assert_eq!((scrape.outcome("replayed"), scrape.outcome("accepted")), (count, 0.0));
        assert_eq!(server.told(VICTIM), [""; 0]);
        victim.send_to(address);
        victim.beat();
        assert_eq!(server.await_state(VICTIM, "up").cause, "recovered");
        assert_eq!(server.scrape().of_agent("varta_status", VICTIM), 0.0);
    }
}

/// What a server says that cannot start with this state directory.
#[track_caller]
fn refused(place: &Place, state: &Path) -> String {
    let mut command = server_command();
    command
        .env("VARTA_METRICS_ADDR", "127.0.0.1:0")
        .arg("--socket")
        .arg(place.directory.path().join("other"));
    command.arg("--state-dir").arg(state);
    let ended = run_to_its_end(command);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    ended.stderr
}

#[test]
fn a_second_server_and_a_directory_that_cannot_be_used_are_refused() {
    let place = Place::new();
    let server = place.start(NO_DEADLINE);
    assert_eq!(fs::metadata(place.state()).unwrap().mode() & 0o777, 0o700);
    let said = refused(&place, &place.state());
    assert!(said.contains(&format!("another server (pid {})", server.pid())), "{said}");
    let file = place.directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(refused(&place, &file).contains(file.to_str().unwrap()));
    let open = place.directory.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    assert!(refused(&place, &open).contains("chmod go-w"));
}

#[test]
fn a_broken_database_is_moved_aside_and_the_server_starts() {
    let place = Place::new();
    end(place.start(NO_DEADLINE), Signal::Terminate);
    let database = place.state().join("varta.db");
    fs::write(&database, "broken ".repeat(1_000)).unwrap();
    let server = place.start(NO_DEADLINE);
    assert_eq!(server.log().find_all(&format!("{}: is broken", database.display())).len(), 1);
    assert!(place.state().join("varta.db.corrupt").exists());
    let agent = place.agent("billing");
    server.await_state(agent.pid(), "up");
    assert_eq!(server.scrape().sum("varta_state_write_errors_total", &[]), 0.0);
}

#[test]
fn a_full_disk_is_told_and_counted_and_the_server_goes_on() {
    let place = Place::new();
    let mounted = place.directory.path().join("disk");
    fs::create_dir(&mounted).unwrap();
    let Some(_disk) = SmallDisk::mount(&mounted) else { return skip("nothing can be mounted here") };
    let state = mounted.join("state");
    let server = Server::start(place.options(&state).args(NO_DEADLINE));
    let first = place.agent("name-of-the-first");
    server.await_state(first.pid(), "up");
    let ballast = mounted.join("ballast");
    // What finds no room any more is no fault here.
    let _ = fs::write(&ballast, vec![0; 1 << 20]);
    let later = place.agent("name-of-the-later");
    server.await_sample("varta_state_write_errors_total", &[], |errors| errors >= 2.0);
    server.await_beats_and_seconds(&[first.pid(), later.pid()], 5, 0.0);
    let warned = server.log().find_all(state.join("varta.db").to_str().unwrap());
    assert_eq!(warned.len(), 1, "{warned:?}");
    fs::remove_file(&ballast).unwrap();
    let again = wait_for(|| {
        let said = server.log().find_all(state.join("varta.db").to_str().unwrap());
        said.iter().any(|line| line["message"].as_str().unwrap().contains("written to again")).then_some(())
    });
    assert!(again.is_some(), "it does not write again within {LIMIT:?}");
    kill(server, &state, &["name-of-the-first", "name-of-the-later"]);
    let server = Server::start(place.options(&state).args(NO_DEADLINE));
    for agent in [&first, &later] {
        server.await_transition(agent.pid(), "up", "recovered");
    }
}

#[test]
fn a_file_that_may_not_grow_is_told_and_counted_and_the_server_goes_on() {
    let place = Place::new();
    drop(place.start(NO_DEADLINE));
    let server = place.start(NO_DEADLINE);
    // No file of it may be longer than what is there by now.
    let mut limit = Command::new("prlimit");
    limit.args(["--fsize=4096", "--pid", &server.pid().to_string()]);
    if !limit.output().is_ok_and(|output| output.status.success()) {
        return skip("prlimit is not there");
    }
    let agent = place.agent("billing");
    server.await_sample("varta_state_write_errors_total", &[], |errors| errors >= 1.0);
    server.await_beats_and_seconds(&[agent.pid()], 5, 0.0);
}

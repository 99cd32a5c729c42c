//! A server that is killed and started again on the same state directory: it knows which agents should be
//! there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use varta_integration_tests::foreign::skip;
use varta_integration_tests::{
    AgentProcess, Network, Options, RemoteAgent, Scrape, Scratch, Server, Signal, SmallDisk, agent,
    await_in_database, line, loopback_socket, metric, read_database, refused_start, send_from, wait_until,
};

/// Long enough for servers and agents to be started in, short enough to be waited for.
const GRACE: [&str; 2] = ["--stall-after", "2s"];
const GRACE_PERIOD: Duration = Duration::from_secs(2);
/// No deadline comes in the lifetime of a test.
const NO_DEADLINE: [&str; 2] = ["--stall-after", "1h"];

/// A server with its socket and its state in a scratch directory, as the one before it.
fn start(scratch: &Scratch, arguments: [&str; 2]) -> Server {
    Server::start(Options::from(arguments).in_scratch(scratch))
}

fn start_agent(scratch: &Scratch, name: &str) -> AgentProcess {
    AgentProcess::start(&scratch.socket(), &["--name", name])
}

#[test]
fn after_a_kill_the_next_server_knows_who_died_who_lives_and_who_is_stopped() {
    let scratch = Scratch::make();
    let mut server = start(&scratch, GRACE);
    let names = ["name-of-the-dead", "name-of-the-living", "name-of-the-stopped", "name-of-the-finished"];
    let [mut dead, living, stopped, mut finished] = names.map(|name| start_agent(&scratch, name));
    server.await_agents("up", 4);
    await_in_database(&scratch.state(), &names);
    server.kill();

    dead.signal(Signal::Kill);
    dead.wait();
    stopped.signal(Signal::Stop);
    finished.ask("exit 0");
    finished.wait();

    let server = start(&scratch, GRACE);
    for ended in [&dead, &finished] {
        let down = agent(ended).down().from("expected").because("exited");
        let down = server.expect(down.after_silence(GRACE_PERIOD).within(GRACE_PERIOD));
        assert_eq!(down.exit_code, None, "{down}");
    }
    let living_agent = agent(&living).named("name-of-the-living");
    server.expect(living_agent.up().from("expected").because("recovered"));
    let stopped_agent = agent(&stopped).named("name-of-the-stopped");
    let stalled = stopped_agent.stalled().from("expected").seen_as("stopped");
    server.expect(stalled.after_silence(GRACE_PERIOD).within(GRACE_PERIOD));
    assert_eq!(server.history(&dead), ["down: exited"]);
    assert_eq!(server.history(&living), ["up: recovered"]);
    server.expect_history(&stopped, &["stalled: stopped"]);
    let scrape = server.await_agents("down", 2);
    assert_eq!(scrape.of_agent("varta_agent_up", dead.pid()), 0.0);
    assert_eq!(scrape.of_agent("varta_agent_up", living.pid()), 1.0);
    assert_eq!(scrape.of_agent("varta_stalls_total", stopped.pid()), 1.0);
    assert_eq!(scrape.sum("varta_state_write_errors_total", &[]), 0.0);
}

#[test]
fn who_was_replaced_while_there_was_no_server_is_not_acted_on() {
    let scratch = Scratch::make();
    let start = || {
        let command =
            format!("/bin/sh -c 'echo \"$VARTA_AGENT $VARTA_STATE\" >> {}'", scratch.path("notes").display());
        let options = Options::from(GRACE).in_scratch(&scratch);
        // Who is replaced has an hour for it, so that no busy machine makes it late.
        let rules = "[[rule]]\nname = 'name-of-the-replaced'\nstall-after = '1h'\n";
        Server::start(options.config(&scratch, rules).args(["--recovery-exec", &command]))
    };
    let mut server = start();
    let names = ["name-of-the-replaced", "name-of-the-lost"];
    let mut agents = names.map(|name| start_agent(&scratch, name));
    server.await_agents("up", 2);
    await_in_database(&scratch.state(), &names);
    server.kill();
    for process in &mut agents {
        process.signal(Signal::Kill);
        process.wait();
    }
    let socket = scratch.socket();
    let successor = thread::spawn(move || AgentProcess::start(&socket, &["--name", names[0], "--lazy"]));

    let server = start();
    let successor = successor.join().unwrap();
    let [replaced, lost] = &agents;
    server.expect(agent(&successor).up().from("expected").because("restarted"));
    server.expect(agent(lost).down().from("expected").because("exited").within(GRACE_PERIOD));
    wait_until("the command has run for the other", || !scratch.lines("notes").is_empty());
    assert_eq!(scratch.lines("notes"), ["name-of-the-lost down"]);
    assert_eq!(server.history(replaced), [""; 0]);
}

#[test]
fn who_lives_is_known_again_by_a_server_whose_boot_clock_is_another() {
    let scratch = Scratch::make();
    let start = |ahead: Option<u32>| {
        let options = Options::from(GRACE).in_scratch(&scratch);
        Some(Server::start(match ahead {
            Some(seconds) => options.boot_clock_ahead(seconds)?,
            None => options,
        }))
    };
    let mut server = start(None).unwrap();
    let names = ["name-of-the-living", "name-of-the-stopped"];
    let [living, stopped] = names.map(|name| start_agent(&scratch, name));
    server.await_agents("up", 2);
    await_in_database(&scratch.state(), &names);
    for ahead in [Some(86_400), None] {
        server.stop();
        stopped.signal(Signal::Stop);
        let Some(next) = start(ahead) else { return };
        server = next;
        server.expect(agent(&living).up().from("expected").because("recovered"));
        server.expect(agent(&stopped).stalled().seen_as("stopped").within(GRACE_PERIOD));
        stopped.signal(Signal::Continue);
        server.expect(agent(&stopped).up().from("stalled").because("recovered"));
        assert_eq!(server.history(&living), ["up: recovered"]);
        server.expect_history(&stopped, &["stalled: stopped", "up: recovered"]);
    }
}

#[test]
fn an_agent_that_dies_in_its_grace_is_down_at_once_and_no_verdict_is_given_twice() {
    let scratch = Scratch::make();
    let mut server = start(&scratch, GRACE);
    let worker = start_agent(&scratch, "name-of-the-stopped");
    server.await_agents("up", 1);
    worker.signal(Signal::Stop);
    server.expect(agent(&worker).stalled().within(GRACE_PERIOD));
    let dead = start_agent(&scratch, "name-of-the-dead");
    server.expect(agent(&dead).up());
    dead.signal(Signal::Kill);
    server.expect(agent(&dead).down());
    // In order: it writes all that it knows.
    server.stop();

    let server = start(&scratch, NO_DEADLINE);
    let scrape = server.await_agents("stalled", 1);
    assert_eq!(scrape.value("varta_agents", &[("state", "down")]), 1.0);
    assert_eq!(scrape.of_agent("varta_stalls_total", worker.pid()), 1.0);
    worker.signal(Signal::Kill);
    server.expect(agent(&worker).down().from("stalled").because("killed").signal(9));
    assert_eq!(server.history(&dead), [""; 0]);

    // A new process of that name takes its place, as if there had been one server all the time.
    let successor = start_agent(&scratch, "name-of-the-dead");
    server.expect(agent(&successor).up().because("restarted").from("down"));
    server.await_agents("down", 1);
}

#[test]
fn an_agent_goes_on_through_an_orderly_restart_with_its_figures() {
    let scratch = Scratch::make();
    let mut server = start(&scratch, NO_DEADLINE);
    let worker = start_agent(&scratch, "billing");
    let before = server.await_beats(&[worker.pid()], 5);
    server.stop();
    let server = start(&scratch, NO_DEADLINE);
    server.expect(agent(&worker).up().because("recovered"));
    let known = server.log().find_all("billing");
    let is_exact = |line: &Value| line["message"].as_str().is_some_and(|text| !text.contains("at least"));
    assert!(!known.is_empty() && known.iter().all(is_exact), "{known:?}");
    let scrape = server.scrape();
    let beats = |scrape: &Scrape| scrape.of_agent("varta_beats_total", worker.pid());
    assert!(beats(&scrape) > beats(&before));
    assert_eq!(server.history(&worker), ["up: recovered"]);
}

#[test]
fn a_silence_over_a_kill_is_told_as_no_longer_than_it_can_have_been() {
    let scratch = Scratch::make();
    let mut server = start(&scratch, NO_DEADLINE);
    let worker = start_agent(&scratch, "billing");
    // Much longer ago than its last beat, it was written down.
    await_in_database(&scratch.state(), &["billing"]);
    server.await_beats(&[worker.pid()], 50);
    let beats = server.scrape().of_agent("varta_beats_total", worker.pid());
    let before = Instant::now();
    server.await_scrape("it has beaten since", |scrape| {
        scrape.of_agent("varta_beats_total", worker.pid()) > beats + 1.0
    });
    server.kill();
    let server = start(&scratch, NO_DEADLINE);
    let up = server.expect(agent(&worker).up().from("expected").because("recovered"));
    assert!(u128::from(up.silence_ms) <= before.elapsed().as_millis(), "{up}");
    server.expect(line("billing").with("this server knows it from before"));
}

#[test]
fn a_database_that_is_lost_or_replaced_is_told_and_what_is_none_is_refused() {
    let scratch = Scratch::make();
    let database = scratch.path("state/varta.db");
    let told = |server: &Server, what: &str| {
        server.expect(line(&format!("{}: {what}", database.display())));
    };
    let run = |what: Option<&str>| {
        let mut server = start(&scratch, NO_DEADLINE);
        if let Some(what) = what {
            told(&server, what);
        }
        server.stop();
        let all = server.log().find_all(database.to_str().unwrap());
        assert_eq!(all.len(), usize::from(what.is_some()), "{all:?}");
    };
    run(None);
    let first = fs::read(&database).unwrap();
    run(None);
    fs::write(&database, &first).unwrap();
    run(Some("is an older copy"));
    fs::remove_file(&database).unwrap();
    run(Some("is missing, and this directory had a database"));
    fs::write(&database, "").unwrap();
    run(Some("is empty, and this directory had a database"));
    fs::write(&database, &first).unwrap();
    run(Some("is not the database that this directory had"));
    run(None);

    let other = scratch.path("another");
    fs::create_dir(&other).unwrap();
    fs::set_permissions(&other, Permissions::from_mode(0o700)).unwrap();
    fs::write(other.join("varta.db"), "#!/bin/sh").unwrap();
    let said = refused(&scratch, &other);
    assert!(said.contains("it is not an SQLite database"), "{said}");
    assert_eq!(fs::read(other.join("varta.db")).unwrap(), b"#!/bin/sh");
}

/// The pid of an agent on the network.
const VICTIM: u32 = 4242;

#[test]
fn what_was_sealed_for_one_server_is_refused_by_the_next_however_the_first_ended() {
    type End = fn(&mut Server);
    let [stop, kill]: [End; 2] = [Server::stop, Server::kill];
    for (network, end, is_killed) in [
        (Network::SharedKey, kill, true),
        (Network::MasterKey, kill, true),
        (Network::SharedKey, stop, false),
        (Network::MasterKey, stop, false),
    ] {
        let scratch = Scratch::make();
        let options = || {
            let options = Options::from(NO_DEADLINE).in_scratch(&scratch);
            options.args(["--max-beat-rate", "0"]).secure_udp("127.0.0.1:0").key_of(network)
        };
        let mut server = Server::start(options());
        let mut victim = RemoteAgent::new(network, server.secure_udp_address(0), VICTIM);
        // Each under a prefix of its own, so that it can be seen whether it is written.
        let mut recorded: Vec<_> = (0..5)
            .map(|_| {
                victim.restart();
                victim.beat()
            })
            .collect();
        let terminal = victim.terminal_frame();
        victim.renew();
        recorded.push(victim.wrap(&terminal.to_bytes()));
        victim.send(&recorded[5]);
        server.await_datagrams(6.0);
        if is_killed {
            let is_written = |written: &[u8], sealed: &[u8]| {
                let mut prefixes = sealed.windows(8);
                prefixes.any(|prefix| written.windows(8).any(|at| at == prefix))
            };
            wait_until("all prefixes are in the database", || {
                let written = read_database(&scratch.state());
                recorded.iter().all(|sealed| is_written(&written, sealed))
            });
        } else {
            // These need not have been written when the server is stopped.
            recorded.extend((0..5).map(|_| victim.beat()));
        }
        let count = recorded.len() as f64;
        server.await_datagrams(count);
        assert_eq!(server.scrape().outcome("accepted"), count);
        end(&mut server);

        let server = Server::start(options());
        let address = server.secure_udp_address(0);
        for sealed in &recorded {
            send_from(&loopback_socket(), address, sealed);
        }
        let scrape = server.await_datagrams(count);
        assert_eq!((scrape.outcome("replayed"), scrape.outcome("accepted")), (count, 0.0));
        assert_eq!(server.history(VICTIM), [""; 0]);
        victim.send_to(address);
        victim.beat();
        server.expect_history(VICTIM, &["up: recovered"]);
        assert_eq!(server.scrape().of_agent("varta_status", VICTIM), 0.0);
    }
}

/// What a server writes that cannot start with this state directory.
#[track_caller]
fn refused(scratch: &Scratch, state: &Path) -> String {
    refused_start(1, &scratch.path("other"), [Path::new("--state-dir"), state])
}

#[test]
fn a_second_server_and_a_directory_that_cannot_be_used_are_refused() {
    let scratch = Scratch::make();
    let server = start(&scratch, NO_DEADLINE);
    assert_eq!(fs::metadata(scratch.state()).unwrap().mode() & 0o777, 0o700);
    let said = refused(&scratch, &scratch.state());
    assert!(said.contains(&format!("another server (pid {})", server.pid())), "{said}");
    let file = scratch.write("file", "");
    assert!(refused(&scratch, &file).contains(file.to_str().unwrap()));
    let open = scratch.path("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    assert!(refused(&scratch, &open).contains("chmod go-w"));
}

#[test]
fn a_broken_database_is_moved_aside_and_the_server_starts() {
    let scratch = Scratch::make();
    start(&scratch, NO_DEADLINE).stop();
    let database = scratch.write("state/varta.db", &"broken ".repeat(1_000));
    let server = start(&scratch, NO_DEADLINE);
    let warning = format!("{}: is broken", database.display());
    server.expect(line(&warning));
    assert_eq!(server.log().find_all(&warning).len(), 1);
    assert!(scratch.path("state/varta.db.corrupt").exists());
    let worker = start_agent(&scratch, "billing");
    server.expect(agent(&worker).up());
    assert_eq!(server.scrape().sum("varta_state_write_errors_total", &[]), 0.0);
}

#[test]
fn a_full_disk_is_logged_and_counted_and_the_server_goes_on() {
    let scratch = Scratch::make();
    let Some(disk) = SmallDisk::mount(&scratch) else { return };
    let state = disk.path("state");
    let options = || Options::from(NO_DEADLINE).socket(&scratch.socket()).path("--state-dir", &state);
    let mut server = Server::start(options());
    let first = start_agent(&scratch, "name-of-the-first");
    server.expect(agent(&first).up());
    disk.fill();
    let later = start_agent(&scratch, "name-of-the-later");
    server.expect(metric("varta_state_write_errors_total").at_least(2.0));
    server.await_beats(&[first.pid(), later.pid()], 5);
    let database = state.join("varta.db");
    server.expect(line(database.to_str().unwrap()));
    let warned = server.log().find_all(database.to_str().unwrap());
    assert_eq!(warned.len(), 1, "{warned:?}");
    disk.make_room();
    server.expect(line(database.to_str().unwrap()).with("written to again"));
    await_in_database(&state, &["name-of-the-first", "name-of-the-later"]);
    server.kill();
    let server = Server::start(options());
    for worker in [&first, &later] {
        server.expect(agent(worker).up().because("recovered"));
    }
}

#[test]
fn a_file_that_may_not_grow_is_counted_and_the_server_goes_on() {
    let scratch = Scratch::make();
    drop(start(&scratch, NO_DEADLINE));
    let server = start(&scratch, NO_DEADLINE);
    // No file of it may be longer than what is there by now.
    let mut limit = Command::new("prlimit");
    limit.args(["--fsize=4096", "--pid", &server.pid().to_string()]);
    if !limit.output().is_ok_and(|output| output.status.success()) {
        return skip("prlimit is not there");
    }
    let worker = start_agent(&scratch, "billing");
    server.expect(metric("varta_state_write_errors_total").at_least(1.0));
    server.await_beats(&[worker.pid()], 5);
}

//! A server that hands over to another: agents beat all the time, and one server reads at any moment.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use varta_integration_tests::handover_peer::{self, HandoverMessage, HandoverPeer};
use varta_integration_tests::{
    AgentProcess, Ended, LIMIT, Network, Options, Receiver, Scrape, Scratch, Server, Signal, Successor,
    agent, http, line_with, loopbacks, metric, notifier_command, run_to_its_end, server_command, sys,
    wait_until,
};

/// Asks for an upgrade.
fn ask(control: &Path) -> Ended {
    let mut command = server_command();
    command.arg("upgrade").arg("--control-socket").arg(control);
    run_to_its_end(command)
}

/// The same where it is expected to fail. Gives what is said.
#[track_caller]
fn refused(server: &Server) -> String {
    let ended = ask(&server.control_socket());
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(1), ""), "{}", ended.stderr);
    ended.stderr
}

/// The counters of a scrape, each with its labels.
fn counters(scrape: &Scrape) -> BTreeMap<(String, BTreeMap<String, String>), f64> {
    let is_counter = |name: &str| scrape.text.contains(&format!("# TYPE {name} counter\n"));
    let samples = scrape.samples.iter().filter(|sample| is_counter(&sample.name));
    samples.map(|sample| ((sample.name.clone(), sample.labels.clone()), sample.value)).collect()
}

/// No counter of `before` has fallen or gone by now.
#[track_caller]
fn assert_no_counter_fell(before: &Scrape, after: &Scrape) {
    let after = counters(after);
    for (series, value) in counters(before) {
        // Of the process, and not of what it counts.
        if series.0.starts_with("process_") {
            continue;
        }
        let now = after.get(&series).copied();
        assert!(now.is_some_and(|now| now >= value), "{series:?} was {value} and is {now:?}");
    }
}

#[test]
fn the_server_that_is_there_answers_at_the_control_socket_as_itself() {
    let server = Server::start(["--stall-after", "1h"]);
    let mut successors = Vec::new();
    for _ in 0..3 {
        successors.push(server.upgrade());
        let stream = UnixStream::connect(server.control_socket()).unwrap();
        let peer = getsockopt(&stream, PeerCredentials).unwrap();
        assert_eq!(u32::try_from(peer.pid()), Ok(successors.last().unwrap().pid()));
    }
}

#[test]
fn services_that_speak_sd_notify_go_on_with_the_connection_that_they_have() {
    let scratch = Scratch::make();
    let path = scratch.path("notify").to_str().unwrap().to_owned();
    let name = format!("@varta-upgrading-{}", std::process::id());
    let options = Options::from(["--stall-after", "1h", "--notify-socket", &path, "--notify-socket", &name]);
    let server = Server::start(options);
    let mut services = [&path, &name].map(|address| AgentProcess::run(notifier_command(address)));
    for service in &mut services {
        service.ask("say READY=1");
        server.expect(agent(&*service).over("notify").up());
    }
    let successors = [server.upgrade(), server.upgrade()];
    for service in &mut services {
        assert_eq!(service.ask("say WATCHDOG_USEC=1500000\\nWATCHDOG=1"), "ok ");
    }
    for service in &mut services {
        server.expect(agent(&*service).stalled());
        service.ask("say WATCHDOG=1");
        server.expect(agent(&*service).up().because("recovered"));
        assert_eq!(service.ask("barrier"), "ok ");
    }
    assert_eq!(server.scrape().value("varta_notify_services", &[]), 2.0);
    drop(successors);
}

#[test]
fn agents_of_all_transports_beat_through_ten_upgrades_and_nobody_is_accused_or_missed() {
    let [loopback, ..] = loopbacks()[..] else { panic!("there is a loopback address") };
    let options = Options::from(["--stall-after", "2s"]).on(Network::Plain, &[loopback]);
    let server = Server::start(options.on(Network::SharedKey, &[loopback]));
    let mut agents = server.start_agents(3, &["--interval-ms", "20"]);
    agents.push(server.start_agent(&["--interval-ms", "20", "--name", "named"]));
    agents.push(server.start_agent(&["--interval-ms", "20", "--shm"]));
    for network in [Network::Plain, Network::SharedKey] {
        let remote = AgentProcess::start_on(&server.route(network, 0), &["--interval-ms", "20"]);
        server.expect(agent(&remote).up());
        agents.push(remote);
    }
    let pids: Vec<u32> = agents.iter().map(AgentProcess::pid).collect();
    let mut before = server.scrape();
    let mut successors = Vec::new();
    for _ in 0..10 {
        successors.push(server.upgrade());
        server.await_beats(&pids, 5);
        let after = server.scrape();
        assert_no_counter_fell(&before, &after);
        before = after;
    }
    assert_eq!(before.sum("varta_transitions_total", &[("to", "stalled")]), 0.0, "{}", before.text);
    assert_eq!(before.sum("varta_transitions_total", &[("to", "down")]), 0.0, "{}", before.text);
    assert_eq!(before.sum("varta_agent_beats_lost_total", &[]), 0.0, "{}", before.text);
    assert_eq!(before.sum("varta_kernel_drops_total", &[]), 0.0, "{}", before.text);
    assert_eq!(before.outcome("accepted"), before.datagrams(), "{}", before.text);
    for agent in &mut agents {
        assert_eq!(agent.ask("dropped"), "ok 0");
        assert_eq!(server.history(&*agent), ["up: first_beat"]);
    }
    // The last one stops as any server does, and takes its files with it.
    sys::send_signal(successors.last().unwrap().pid(), Signal::Terminate).unwrap();
    wait_until("the socket goes with the last server", || !server.socket().exists());
}

#[test]
fn an_agent_that_is_killed_during_an_upgrade_is_told_down_with_its_signal() {
    let server = Server::start(["--stall-after", "1h"]);
    let mut successors = Vec::new();
    for _ in 0..5 {
        let agents = server.start_agents(8, &[]);
        thread::scope(|scope| {
            let upgrading = scope.spawn(|| server.upgrade());
            for agent in &agents {
                agent.signal(Signal::Kill);
                thread::yield_now();
            }
            successors.push(upgrading.join().unwrap());
        });
        for process in &agents {
            server.expect(agent(process).down().because("killed"));
        }
    }
}

#[test]
fn what_was_asked_for_and_what_is_remembered_passes_on_without_a_state_directory() {
    let server = Server::start(["--stall-after", "1h"]);
    let stopped = server.start_agent(&["--name", "stopped"]);
    let living = server.start_agent(&["--name", "living"]);
    stopped.signal(Signal::Kill);
    server.expect(agent(&stopped).down());
    let mut pause = server_command();
    pause.args(["pause", "batch-*", "--for", "1h", "--control-socket"]).arg(server.control_socket());
    assert!(run_to_its_end(pause).status.success());
    let _successor = server.upgrade();
    server.expect(line_with("took over from the server with pid"));
    server.await_beats(&[living.pid()], 3);
    assert_eq!(server.scrape().of_agent("varta_agent_up", stopped.pid()), 0.0);
    let mut pauses = server_command();
    pauses.args(["pauses", "--control-socket"]).arg(server.control_socket());
    let listed = run_to_its_end(pauses).stdout;
    assert!(listed.contains("batch-*"), "{listed}");
    assert_eq!(server.history(&stopped), ["up: first_beat", "down: killed"]);
}

#[test]
fn the_state_directory_passes_on_with_its_lock_and_a_third_server_is_refused() {
    let scratch = Scratch::make();
    let state = scratch.state();
    let server = Server::start(Options::new().path("--state-dir", &state));
    let worker = server.start_agent(&["--name", "worker"]);
    let successor = server.upgrade();
    server.await_beats(&[worker.pid()], 3);
    let mut third = server_command();
    third.args(["--control-socket", "none", "--metrics-addr", "none", "--socket"]).arg(scratch.socket());
    third.arg("--state-dir").arg(&state);
    let ended = run_to_its_end(third);
    assert!(ended.stderr.contains(&format!("pid {}", successor.pid())), "{}", ended.stderr);
    // A restart from what the second has written.
    sys::send_signal(successor.pid(), Signal::Terminate).unwrap();
    wait_until("it has ended", || !server.socket().exists());
    let restarted = Server::start(Options::new().path("--state-dir", &state).socket(server.socket()));
    restarted.await_beats(&[worker.pid()], 3);
    assert_eq!(restarted.history(&worker), ["up: recovered"]);
}

/// A server that runs from a file of its own, which can be replaced.
fn from_its_own_file(scratch: &Scratch, options: Options) -> (Server, PathBuf) {
    let program = scratch.path("varta-server");
    fs::copy(server_command().get_program(), &program).unwrap();
    let run = format!("shift; exec {} \"$@\"", program.display());
    (Server::start(options.started_by(["/bin/sh", "-c", &run, "sh"])), program)
}

/// Puts another program in the place of one that may be running.
fn replace(program: &Path, script: &str) {
    let next = program.with_extension("next");
    fs::write(&next, script).unwrap();
    fs::set_permissions(&next, Permissions::from_mode(0o755)).unwrap();
    fs::rename(next, program).unwrap();
}

#[test]
fn a_new_program_that_cannot_start_leaves_the_old_one_serving_and_says_why() {
    let scratch = Scratch::make();
    let file = scratch.write("varta.toml", "stall-after = \"2s\"\n");
    let (server, program) = from_its_own_file(&scratch, Options::new().path("--config", &file));
    let worker = server.start_agent(&["--interval-ms", "20"]);
    fs::write(&file, "stall-after = \"2s\"\nno-such-key = 1\n").unwrap();
    let said = refused(&server);
    assert!(said.contains("no-such-key") && said.contains("goes on as before"), "{said}");
    fs::write(&file, "stall-after = \"2s\"\nrecord = \"/tmp/x\"\n").unwrap();
    let said = refused(&server);
    assert!(said.contains("--record"), "{said}");
    fs::write(&file, "stall-after = \"2s\"\n").unwrap();
    replace(&program, "#!/bin/sh\necho not today >&2\nexit 7\n");
    let said = refused(&server);
    assert!(said.contains("exit status: 7") && said.contains("not today"), "{said}");
    // It is killed before it has said anything.
    replace(&program, "#!/bin/sh\nkill -KILL $$\n");
    let said = refused(&server);
    assert!(said.contains("signal: 9"), "{said}");
    fs::remove_file(&program).unwrap();
    let said = refused(&server);
    assert!(said.contains("cannot be started"), "{said}");
    server.await_beats(&[worker.pid()], 5);
    assert_eq!(server.history(&worker), ["up: first_beat"]);
    assert!(Path::new(&format!("/proc/{}", server.pid())).exists());
}

#[test]
fn a_server_that_is_started_by_hand_takes_over_with_another_configuration() {
    let server = Server::start(["--stall-after", "1h"]);
    let worker = server.start_agent(&["--interval-ms", "20", "--name", "worker"]);
    let mut command = server_command();
    command.args([
        "--take-over",
        "--stall-after",
        "90s",
        "--metrics-addr",
        "127.0.0.1:0",
        "--log-format",
        "json",
    ]);
    command.arg("--socket").arg(server.socket());
    let mut second = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let successor = Successor::with_pid(second.id());
    server.expect(line_with("another server has taken over"));
    server.await_beats(&[worker.pid()], 5);
    wait_until("the other timeout counts", || {
        server.scrape().of_agent("varta_agent_stall_after_seconds", worker.pid()) == 90.0
    });
    drop(successor);
    second.wait().unwrap();
}

#[test]
fn without_a_server_there_is_nothing_to_take_over() {
    let scratch = Scratch::make();
    let mut command: Command = server_command();
    command.args(["--take-over", "--metrics-addr", "none", "--socket"]).arg(scratch.socket());
    let ended = run_to_its_end(command);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("cannot take over"), "{}", ended.stderr);
}

/// The form of what is handed over that this version understands.
const FORM: u32 = 9;

/// Plays a new server until the old one has said something of this kind.
#[track_caller]
fn received(peer: &HandoverPeer, kind: u32) -> HandoverMessage {
    let message = peer.receive().unwrap().expect("the server is there");
    assert_eq!(message.kind, kind, "{}", String::from_utf8_lossy(&message.bytes));
    message
}

#[test]
fn a_new_server_that_dies_or_gives_up_at_any_moment_before_it_reads_leaves_the_old_one_reading() {
    let server = Server::start(["--stall-after", "1h"]);
    let mut worker = server.start_agent(&["--interval-ms", "20"]);
    for _ in 0..2 {
        let asks = || HandoverPeer::ask(&server.control_socket(), FORM).unwrap();
        let peer = asks();
        received(&peer, handover_peer::WELCOME);
        drop(peer);
        server.await_beats(&[worker.pid()], 3);
        let peer = asks();
        received(&peer, handover_peer::WELCOME);
        peer.send(handover_peer::PREPARED, b"", &[]).unwrap();
        drop(peer);
        server.await_beats(&[worker.pid()], 3);
        // With everything in its hands.
        let peer = asks();
        received(&peer, handover_peer::WELCOME);
        peer.send(handover_peer::PREPARED, b"", &[]).unwrap();
        received(&peer, handover_peer::STATE);
        drop(peer);
        server.await_beats(&[worker.pid()], 3);
        let peer = asks();
        received(&peer, handover_peer::WELCOME);
        peer.send(handover_peer::FAILED, b"not today", &[]).unwrap();
        server.expect(line_with("not today"));
        server.await_beats(&[worker.pid()], 3);
    }
    assert_eq!(worker.ask("dropped"), "ok 0");
    assert_eq!(server.history(&worker), ["up: first_beat"]);
    // And it hands over to one that lives.
    let _successor = server.upgrade();
    server.await_beats(&[worker.pid()], 3);
}

/// Plays a new server up to the moment in which the old one has given everything, and nobody reads. Gives what it
/// has sent: its welcome and its state.
#[track_caller]
fn take_everything(server: &Server) -> (HandoverPeer, [HandoverMessage; 2]) {
    let peer = HandoverPeer::ask(&server.control_socket(), FORM).unwrap();
    let welcome = received(&peer, handover_peer::WELCOME);
    peer.send(handover_peer::PREPARED, b"", &[]).unwrap();
    let state = received(&peer, handover_peer::STATE);
    (peer, [welcome, state])
}

/// Starts a server that takes over what another gave, which was killed then.
#[track_caller]
fn go_on_with(
    scratch: &Scratch,
    [welcome, state]: [HandoverMessage; 2],
    server: &Server,
) -> (Successor, Child) {
    let control = scratch.path("control");
    let listener = UnixListener::bind(&control).unwrap();
    let mut command = server_command();
    command.args(["--take-over", "--stall-after", "1h", "--metrics-addr", "127.0.0.1:0", "--socket"]);
    command.arg(server.socket()).arg("--control-socket").arg(&control);
    let new = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let successor = Successor::with_pid(new.id());
    let (stream, _) = listener.accept().unwrap();
    let peer = HandoverPeer::answer(stream).unwrap();
    drop(listener);
    fs::remove_file(&control).unwrap();
    peer.send(handover_peer::WELCOME, &welcome.bytes, &welcome.descriptors).unwrap();
    received(&peer, handover_peer::PREPARED);
    peer.send(handover_peer::STATE, &state.bytes, &state.descriptors).unwrap();
    received(&peer, handover_peer::TAKEN);
    (successor, new)
}

#[test]
fn an_old_server_that_is_killed_when_it_has_given_everything_is_followed_by_the_new_one() {
    let scratch = Scratch::make();
    let mut server = Server::start(["--stall-after", "1h"]);
    let worker = server.start_agent(&["--interval-ms", "200"]);
    let (peer, given) = take_everything(&server);
    server.kill();
    drop(peer);
    // The connection closes before the new one hears that it may read.
    let (successor, mut new) = go_on_with(&scratch, given, &server);
    server.await_beats(&[worker.pid()], 3);
    assert_eq!(server.scrape().of_agent("varta_agent_up", worker.pid()), 1.0);
    assert_eq!(server.scrape().sum("varta_transitions_total", &[("to", "stalled")]), 0.0);
    drop(successor);
    new.wait().unwrap();
}

/// Agents that say goodbye and end with a failure: one that its parent has reaped, and one that it has not.
fn leave_with_a_failure(agents: &mut [AgentProcess; 2]) {
    for agent in &mut *agents {
        agent.ask("goodbye");
        agent.ask("exit 3");
    }
    agents[0].wait();
    agents[1].await_zombie();
}

#[test]
fn who_says_goodbye_while_nobody_reads_and_ends_with_a_failure_is_gone_for_the_server_that_goes_on() {
    let scratch = Scratch::make();
    // The old one, because the new one gives up.
    let mut server = Server::start(["--stall-after", "1h"]);
    let mut agents = [(); 2].map(|()| server.start_agent(&[]));
    let (peer, given) = take_everything(&server);
    leave_with_a_failure(&mut agents);
    drop((peer, given));
    for agent in &agents {
        server.expect_history(agent, &["up: first_beat", "gone: goodbye"]);
    }
    // The new one. It has no log that the test reads.
    let mut agents = [(); 2].map(|()| server.start_agent(&[]));
    let (peer, given) = take_everything(&server);
    leave_with_a_failure(&mut agents);
    server.kill();
    drop(peer);
    let (successor, mut new) = go_on_with(&scratch, given, &server);
    let ends = metric("varta_transitions_total").with("to", "gone");
    server.expect(ends.with("cause", "goodbye").at_least(4.0));
    assert_eq!(server.scrape().sum("varta_transitions_total", &[("to", "down")]), 0.0);
    drop(successor);
    new.wait().unwrap();
}

/// The socket for HTTP among those that the old server has passed.
fn passed_metrics_socket(welcome: HandoverMessage) -> TcpListener {
    let said: serde_json::Value = serde_json::from_slice(&welcome.bytes).unwrap();
    let sockets = said["sockets"].as_array().unwrap();
    let place = sockets.iter().position(|socket| socket["option"] == "metrics-addr").unwrap();
    let listener = TcpListener::from(welcome.descriptors.into_iter().nth(place).unwrap());
    listener.set_nonblocking(false).unwrap();
    listener
}

fn request_for(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// A client that has asked, and reads later.
fn ask_for(server: &Server, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(request_for(path).as_bytes()).unwrap();
    stream
}

#[test]
fn the_old_server_answers_whom_it_has_accepted_and_whoever_comes_later_waits_for_the_new_one() {
    let mut server = Server::start(["--stall-after", "1h"]);
    let worker = server.start_agent(&[]);
    let (peer, [welcome, _state]) = take_everything(&server);
    // The tracker waits for the new server, and the scrape for the tracker.
    let mut accepted = ask_for(&server, "/metrics");
    // Connections are accepted in their order.
    assert_eq!(http::get(server.address(), "/healthz", &[]).unwrap().status, 200);
    peer.send(handover_peer::TAKEN, b"", &[]).unwrap();
    received(&peer, handover_peer::YOURS);
    let mut answer = String::new();
    accepted.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains(&format!("\nvarta_agent_up{{pid=\"{}\"", worker.pid())), "{answer}");

    received(&peer, handover_peer::RELEASED);
    let mut late = ask_for(&server, "/metrics");
    let listener = passed_metrics_socket(welcome);
    peer.send(handover_peer::RUNNING, b"", &[]).unwrap();
    assert!(server.wait().success());
    let (mut stream, _) = listener.accept().unwrap();
    let mut asked = vec![0; request_for("/metrics").len()];
    stream.read_exact(&mut asked).unwrap();
    assert_eq!(asked, request_for("/metrics").as_bytes());
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    drop(stream);
    answer.clear();
    late.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "HTTP/1.1 204 No Content\r\n\r\n");
}

#[test]
fn clients_of_http_see_nothing_of_upgrades() {
    let server = Server::start(["--stall-after", "1h"]);
    let worker = server.start_agent(&[]);
    let (is_over, began) = (AtomicBool::new(false), Instant::now());
    let successors: Vec<_> = thread::scope(|scope| {
        for path in ["/metrics", "/metrics", "/readyz", "/healthz"] {
            let (server, is_over) = (&server, &is_over);
            scope.spawn(move || {
                // The limit is for upgrades that fail.
                while !is_over.load(Ordering::SeqCst) && began.elapsed() < LIMIT {
                    let response = http::get(server.address(), path, &[]).unwrap();
                    assert_eq!(response.status, 200, "{path}: {}", response.body);
                }
            });
        }
        let successors = (0..5).map(|_| server.upgrade()).collect();
        is_over.store(true, Ordering::SeqCst);
        successors
    });
    assert_eq!(server.scrape().of_agent("varta_agent_up", worker.pid()), 1.0);
    drop(successors);
}

#[test]
fn a_server_that_knows_another_form_is_refused_clearly_and_the_old_one_goes_on() {
    let server = Server::start(["--stall-after", "1h"]);
    let worker = server.start_agent(&["--interval-ms", "20"]);
    let peer = HandoverPeer::ask(&server.control_socket(), FORM + 1).unwrap();
    let refusal = received(&peer, handover_peer::FAILED);
    let said = String::from_utf8(refusal.bytes).unwrap();
    let forms = [FORM + 1, FORM].map(|form| format!("form {form}"));
    assert!(forms.iter().all(|form| said.contains(form)), "{said}");
    server.await_beats(&[worker.pid()], 3);
}

#[test]
fn an_alert_that_fires_is_sent_once_and_ended_by_the_new_server() {
    let receiver = Receiver::start([]);
    let webhook = ["--webhook".to_owned(), receiver.url("/hook")];
    let server = Server::start(Options::from(["--stall-after", "1h"]).args(webhook));
    let mut worker = server.start_agent(&["--name", "worker", "--interval-ms", "20"]);
    worker.ask("status critical");
    receiver.await_requests(1);
    let _successors = [server.upgrade(), server.upgrade()];
    server.await_beats(&[worker.pid()], 3);
    worker.ask("status ok");
    let requests = receiver.await_requests(2);
    let kinds: Vec<_> = requests.iter().map(|request| request.json()["kind"].clone()).collect();
    assert_eq!(kinds, ["firing", "resolved"]);
}

#[test]
fn an_episode_of_recovery_goes_on_where_it_was() {
    let scratch = Scratch::make();
    let rules =
        "[[recovery]]\nstate = 'stalled'\nsteps = [{ notify = true }, { wait = '3s', signal = 'KILL' }]\n";
    let options = Options::from(["--stall-after", "1s"]);
    let server = Server::start(options.config(&scratch, rules));
    let worker = server.start_agent(&["--interval-ms", "20"]);
    worker.signal(Signal::Stop);
    let actions = metric("varta_recovery_actions_total").with("result", "done");
    server.expect(actions.with("action", "notify").at_least(1.0));
    let _successor = server.upgrade();
    server.expect(agent(&worker).down().because("killed"));
    let notified = [("action", "notify"), ("result", "done")];
    assert_eq!(server.scrape().value("varta_recovery_actions_total", &notified), 1.0);
}

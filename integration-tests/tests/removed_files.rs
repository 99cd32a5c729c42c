//! Files of a running server that a cleaner or a person removes, moves, or puts others in the place of.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use varta_agent::{Admission, Varta};
use varta_integration_tests::{
    AgentProcess, LIMIT, Options, Scratch, Server, agent, await_in_database, line_with, metric, run_server,
    wait_until,
};

/// Waits until others were noticed to have replaced a file of this part.
#[track_caller]
fn await_replaced(server: &Server, part: &str, count: f64) {
    server.expect(metric("varta_files_replaced_total").with("part", part).at_least(count));
    server.expect(metric("varta_faults").with("part", part).is(0.0));
}

#[track_caller]
fn await_readiness(server: &Server, is_ready: bool) {
    let status = if is_ready { 200 } else { 503 };
    wait_until(&format!("/readyz answers {status}"), || server.get("/readyz").status == status);
}

#[test]
fn a_socket_that_was_removed_is_bound_again_and_who_was_connected_goes_on() {
    let mut server = Server::start(["--stall-after", "1h"]);
    let connected = server.start_agent(&["--name", "connected"]);
    for count in [1.0, 2.0] {
        fs::remove_file(server.socket()).unwrap();
        await_replaced(&server, "socket", count);
        let new = server.start_agent(&["--name", "new"]);
        server.await_beats(&[new.pid(), connected.pid()], 3);
    }
    server.expect(line_with("was removed or moved while it was in use"));
    await_readiness(&server, true);
    server.stop();
    assert!(!server.socket().exists());
}

#[test]
fn the_oldest_of_many_removed_sockets_is_closed_so_that_agents_find_the_present_one() {
    let server = Server::start(Options::new());
    let connected = UnixDatagram::unbound().unwrap();
    connected.connect(server.socket()).unwrap();
    let is_closed = || connected.send(b"x").is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
    for count in [1.0, 2.0, 3.0, 4.0] {
        assert!(!is_closed());
        fs::remove_file(server.socket()).unwrap();
        await_replaced(&server, "socket", count);
    }
    wait_until("the first socket is closed", is_closed);
    connected.connect(server.socket()).unwrap();
    connected.send(b"x").unwrap();
}

#[test]
fn a_socket_that_cannot_be_bound_again_is_told_and_comes_back_when_it_can() {
    let scratch = Scratch::make();
    let socket = scratch.path("run/varta.sock");
    let server =
        Server::start(Options::from(["--stall-after", "1h", "--control-socket", "none"]).socket(&socket));
    let connected = AgentProcess::start(&socket, &[]);
    server.expect(agent(&connected).up());
    fs::rename(scratch.path("run"), scratch.path("moved")).unwrap();
    fs::write(scratch.path("run"), "in the way").unwrap();
    await_readiness(&server, false);
    let ready = server.get("/readyz");
    assert!(ready.body.starts_with("not ready\n") && ready.body.contains("run"), "{}", ready.body);
    wait_until("/readyz names the socket", || server.get("/readyz").body.contains("\nsocket: "));
    server.expect(metric("varta_faults").with("part", "socket").is(1.0));
    assert_eq!(server.get("/healthz").status, 200);
    fs::remove_file(scratch.path("run")).unwrap();
    await_readiness(&server, true);
    let new = AgentProcess::start(&socket, &[]);
    server.expect(agent(&new).up());
    server.await_beats(&[connected.pid()], 3);
}

#[test]
fn a_check_socket_that_cannot_be_bound_again_is_told_by_its_name_and_the_server_is_ready_without() {
    let server = Server::start(["--stall-after", "1h"]);
    let check = PathBuf::from(format!("{}.check", server.socket().display()));
    fs::remove_file(&check).unwrap();
    await_replaced(&server, "check_socket", 1.0);
    let agent = Varta::connect(server.socket()).unwrap();
    assert_eq!(agent.check(LIMIT).unwrap(), Admission::Accepted);

    // In one step, so that the server finds something in its way.
    let obstacle = server.directory().join("obstacle");
    fs::create_dir(&obstacle).unwrap();
    renameat2(AT_FDCWD, &obstacle, AT_FDCWD, &check, RenameFlags::RENAME_EXCHANGE).unwrap();
    server.expect(metric("varta_faults").with("part", "check_socket").is(1.0));
    server.expect(metric("varta_faults").with("part", "socket").is(0.0));
    let ready = server.get("/readyz");
    let told = "ready\ncheck_socket: ";
    assert!(ready.status == 200 && ready.body.starts_with(told), "{}", ready.body);
    assert!(ready.body.contains("agents cannot ask whether their beats are taken"), "{}", ready.body);
    server.expect(line_with("cannot be made again, and agents cannot ask"));
    assert_eq!(agent.check(LIMIT).unwrap(), Admission::Unknown);
    fs::remove_dir(&check).unwrap();
    await_replaced(&server, "check_socket", 2.0);
    assert_eq!(agent.check(LIMIT).unwrap(), Admission::Accepted);
}

#[test]
fn a_control_socket_that_was_removed_is_bound_again() {
    let server = Server::start(Options::new());
    let control = server.control_socket();
    fs::remove_file(&control).unwrap();
    await_replaced(&server, "control_socket", 1.0);
    let ended = run_server(["pauses", "--control-socket", control.to_str().unwrap()]);
    assert!(ended.status.success(), "{}", ended.stderr);
}

#[test]
fn a_state_directory_that_was_moved_or_removed_is_written_anew_with_all_that_is_known() {
    let scratch = Scratch::make();
    let mut server = Server::start(Options::from(["--stall-after", "1h"]).in_scratch(&scratch));
    let worker = server.start_agent(&["--name", "billing"]);
    let control = server.control_socket();
    let paused = ["pause", "reports-*", "--for", "1h", "--control-socket", control.to_str().unwrap()];
    let ended = run_server(paused);
    assert!(ended.status.success(), "{}", ended.stderr);
    let database = scratch.state().join("varta.db");
    let pauses = scratch.state().join("pauses.json");
    await_in_database(&scratch.state(), &["billing"]);
    let steps: [&dyn Fn(); 3] = [
        &|| fs::remove_file(&database).unwrap(),
        &|| fs::rename(scratch.state(), scratch.path("moved")).unwrap(),
        // In one step, as the server may be about to write into it.
        &|| {
            fs::rename(scratch.state(), scratch.path("removed")).unwrap();
            fs::remove_dir_all(scratch.path("removed")).unwrap();
        },
    ];
    for (step, count) in steps.iter().zip([1.0, 2.0, 3.0]) {
        step();
        await_replaced(&server, "state", count);
        await_in_database(&scratch.state(), &["billing"]);
        wait_until("the pauses are there again", || pauses.exists());
    }
    await_readiness(&server, true);
    server.kill();
    let server = Server::start(Options::from(["--stall-after", "1h"]).in_scratch(&scratch));
    server.expect(agent(&worker).up());
    let ended = run_server(["pauses", "--control-socket", server.control_socket().to_str().unwrap()]);
    assert!(ended.stdout.contains("reports-*"), "{}", ended.stdout);
}

//! What inherited handles do in the child of a fork.
//!
//! A child of these tests does nothing but beat, and says by its exit status whether all was as it should be; what it
//! sent is for its parent to read.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(unsafe_code, reason = "fork, clone and _exit are unsafe")]

mod common;

use std::io;
use std::os::unix::net::UnixDatagram;
use std::process;

use common::Server;
use varta_agent::{Frame, Status, Varta};

fn main() {
    #[cfg(feature = "test-hooks")]
    if std::env::var_os(WITHOUT_PAGE).is_some() {
        varta_agent::without_fork_page_for_test();
    }
    common::run(&[
        ("a_forked_child_beats_as_itself", a_forked_child_beats_as_itself),
        ("every_handle_of_a_child_notices", every_handle_of_a_child_notices),
        (
            "a_grandchild_notices_whether_or_not_its_parent_did",
            a_grandchild_notices_whether_or_not_its_parent_did,
        ),
        ("a_handle_made_in_the_child_is_the_childs_own", a_handle_made_in_the_child_is_the_childs_own),
        (
            "a_child_without_a_server_fails_until_there_is_one",
            a_child_without_a_server_fails_until_there_is_one,
        ),
        ("an_explicit_reconnect_in_the_child_goes_on", an_explicit_reconnect_in_the_child_goes_on),
        ("process_1_beats_under_a_random_pid", process_1_beats_under_a_random_pid),
        #[cfg(target_os = "linux")]
        ("raw_clone_is_noticed_like_fork", raw_clone_is_noticed_like_fork),
        #[cfg(feature = "test-hooks")]
        ("the_handler_of_fork_does_as_well_as_the_page", the_handler_of_fork_does_as_well_as_the_page),
    ]);
}

fn beat(agent: &mut Varta) -> bool {
    agent.beat(Status::Ok, 0).is_sent()
}

/// Runs `work` in a child that `spawn` makes, and gives the child's pid when it has ended well.
fn child_by(spawn: impl FnOnce() -> libc::pid_t, work: impl FnOnce() -> bool) -> u32 {
    let pid = spawn();
    assert!(pid >= 0, "{}", io::Error::last_os_error());
    if pid == 0 {
        let status = if work() { 0 } else { 1 };
        // SAFETY: ends the child here and now, without running what belongs to the parent.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    // SAFETY: the child is ours, and the status is a live integer.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0, "the child's wait status");
    pid.cast_unsigned()
}

fn child(work: impl FnOnce() -> bool) -> u32 {
    // SAFETY: this program has one thread, so the child has all of it.
    child_by(|| unsafe { libc::fork() }, work)
}

/// Pids and nonces, in the order of arrival.
fn signed(frames: &[Frame]) -> Vec<(u32, u64)> {
    frames.iter().map(|frame| (frame.pid, frame.nonce)).collect()
}

fn a_forked_child_beats_as_itself() {
    let server = Server::listening();
    let mut agent = Varta::connect(server.path()).unwrap();
    assert!(beat(&mut agent) && beat(&mut agent));

    let child = child(|| beat(&mut agent) && beat(&mut agent) && agent.fork_recoveries() == 1);
    assert!(beat(&mut agent));
    assert_eq!(agent.fork_recoveries(), 0);
    let parent = process::id();
    let frames = server.arrived();
    assert_eq!(signed(&frames), [(parent, 1), (parent, 2), (child, 1), (child, 2), (parent, 3)]);
    assert!(frames[2].timestamp < frames[1].timestamp, "the child's clock begins anew");
}

fn every_handle_of_a_child_notices() {
    let server = Server::listening();
    let mut agents = [(); 3].map(|()| Varta::connect(server.path()).unwrap());
    let child = child(|| agents.iter_mut().all(|agent| beat(agent) && agent.fork_recoveries() == 1));
    assert_eq!(signed(&server.arrived()), [(child, 1); 3]);
}

fn a_grandchild_notices_whether_or_not_its_parent_did() {
    for parent_beats in [false, true] {
        let server = Server::listening();
        let mut agent = Varta::connect(server.path()).unwrap();
        let recoveries = 1 + u64::from(parent_beats);
        child(|| {
            let beaten = !parent_beats || beat(&mut agent);
            child(|| beat(&mut agent) && agent.fork_recoveries() == recoveries);
            beaten
        });
        let frames = server.arrived();
        assert!(frames.iter().all(|frame| frame.nonce == 1 && frame.pid != process::id()));
        assert_eq!(frames.len(), 1 + usize::from(parent_beats));
        assert_ne!(frames[0].pid, frames.get(1).map_or(0, |frame| frame.pid));
    }
}

fn a_handle_made_in_the_child_is_the_childs_own() {
    let server = Server::listening();
    let _inherited = Varta::connect(server.path()).unwrap();
    let child = child(|| {
        let mut agent = Varta::connect(server.path()).unwrap();
        beat(&mut agent) && agent.fork_recoveries() == 0
    });
    assert_eq!(signed(&server.arrived()), [(child, 1)]);
}

fn a_child_without_a_server_fails_until_there_is_one() {
    let mut server = Server::listening();
    let path = server.path();
    let mut agent = Varta::connect(&path).unwrap();
    assert!(beat(&mut agent));
    server.kill();
    std::fs::remove_file(&path).unwrap();
    child(|| {
        let missing = (0..2).all(|_| {
            let error = agent.beat(Status::Ok, 0).error();
            error.is_some_and(|error| error.errno == libc::ENOENT) && agent.fork_recoveries() == 0
        });
        let server = UnixDatagram::bind(&path).unwrap();
        let found = beat(&mut agent) && agent.fork_recoveries() == 1;
        let mut datagram = [0; 64];
        let length = server.recv(&mut datagram).unwrap();
        let frame = Frame::decode(&datagram[..length]).unwrap();
        missing && found && (frame.pid, frame.nonce) == (process::id(), 1)
    });
}

fn an_explicit_reconnect_in_the_child_goes_on() {
    let server = Server::listening();
    let mut agent = Varta::connect(server.path()).unwrap();
    assert!(beat(&mut agent));
    let child = child(|| agent.reconnect().is_ok() && beat(&mut agent) && agent.fork_recoveries() == 0);
    assert_eq!(signed(&server.arrived()), [(process::id(), 1), (child, 2)]);
}

/// In a PID namespace of its own, which takes a privilege that not everybody who runs tests has.
#[allow(clippy::print_stdout, reason = "a test that was not run says so")]
fn process_1_beats_under_a_random_pid() {
    #[cfg(target_os = "linux")]
    {
        let server = Server::listening();
        let mut agents = [(); 2].map(|()| Varta::connect(server.path()).unwrap());
        child(|| {
            // SAFETY: it concerns the children of this process only.
            if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
                return true;
            }
            let beats = || {
                let mut own = Varta::connect(server.path()).unwrap();
                process::id() == 1 && agents.iter_mut().chain([&mut own]).all(beat)
            };
            child(beats);
            true
        });
        let frames = server.arrived();
        let Some(first) = frames.first() else {
            println!("process_1_beats_under_a_random_pid: no permission for a PID namespace, not tested");
            return;
        };
        assert!(first.pid >= 1 << 31);
        assert_eq!(signed(&frames), [(first.pid, 1); 3], "all handles of the process agree");
    }
}

#[cfg(target_os = "linux")]
fn raw_clone_is_noticed_like_fork() {
    if cfg!(feature = "test-hooks") && std::env::var_os(WITHOUT_PAGE).is_some() {
        return;
    }
    let server = Server::listening();
    let mut agent = Varta::connect(server.path()).unwrap();
    assert!(beat(&mut agent));
    let clone = || {
        // SAFETY: with no flag but the signal it is a fork, and this program has one thread.
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
        libc::pid_t::try_from(pid).unwrap()
    };
    let child = child_by(clone, || beat(&mut agent) && agent.fork_recoveries() == 1);
    assert_eq!(signed(&server.arrived()), [(process::id(), 1), (child, 1)]);
}

/// Set in a run of this program that has no page.
const WITHOUT_PAGE: &str = "VARTA_TEST_WITHOUT_FORK_PAGE";

#[cfg(feature = "test-hooks")]
fn the_handler_of_fork_does_as_well_as_the_page() {
    if std::env::var_os(WITHOUT_PAGE).is_none() {
        let program = std::env::current_exe().unwrap();
        let output = process::Command::new(program).env(WITHOUT_PAGE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("test every_handle_of_a_child_notices ... ok"), "{said}");
    }
}

//! Inherited handles in the child of a fork.
//!
//! A child of these tests only sends beats, and reports by its exit status whether they had the right
//! outcome; its parent checks what the server received.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(unsafe_code, reason = "fork, clone and _exit are unsafe")]

#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "secure-udp")]
mod secure;
#[cfg(feature = "udp")]
mod udp;

use std::io;
use std::os::unix::net::UnixDatagram;
use std::process;

#[cfg(feature = "shm")]
use common::WithPage;
use common::{HandleKind, Server, SocketOnly};
use varta_agent::{BeatTransport, Control, Frame, Status, Varta};

fn main() {
    #[cfg(feature = "test-hooks")]
    if std::env::var_os(WITHOUT_PAGE).is_some() {
        varta_agent::without_fork_page_for_test();
    }
    common::run(&[
        ("a_forked_child_beats_as_itself", a_forked_child_beats_as_itself::<SocketOnly>),
        ("every_handle_of_a_child_notices", every_handle_of_a_child_notices::<SocketOnly>),
        (
            "a_grandchild_notices_whether_or_not_its_parent_did",
            a_grandchild_notices_whether_or_not_its_parent_did::<SocketOnly>,
        ),
        (
            "a_handle_made_in_the_child_is_the_childs_own",
            a_handle_made_in_the_child_is_the_childs_own::<SocketOnly>,
        ),
        (
            "a_child_without_a_server_fails_until_there_is_one",
            a_child_without_a_server_fails_until_there_is_one::<SocketOnly>,
        ),
        (
            "an_explicit_reconnect_in_the_child_goes_on",
            an_explicit_reconnect_in_the_child_goes_on::<SocketOnly>,
        ),
        ("a_named_child_says_hello_as_itself", a_named_child_says_hello_as_itself::<SocketOnly>),
        ("process_1_beats_under_a_random_pid", process_1_beats_under_a_random_pid::<SocketOnly>),
        #[cfg(feature = "shm")]
        ("with_a_page_a_forked_child_beats_as_itself", a_forked_child_beats_as_itself::<WithPage>),
        #[cfg(feature = "shm")]
        ("with_a_page_every_handle_of_a_child_notices", every_handle_of_a_child_notices::<WithPage>),
        #[cfg(feature = "shm")]
        (
            "with_a_page_a_grandchild_notices_whether_or_not_its_parent_did",
            a_grandchild_notices_whether_or_not_its_parent_did::<WithPage>,
        ),
        #[cfg(feature = "shm")]
        (
            "with_a_page_a_handle_made_in_the_child_is_the_childs_own",
            a_handle_made_in_the_child_is_the_childs_own::<WithPage>,
        ),
        #[cfg(feature = "shm")]
        (
            "with_a_page_a_child_without_a_server_fails_until_there_is_one",
            a_child_without_a_server_fails_until_there_is_one::<WithPage>,
        ),
        #[cfg(feature = "shm")]
        (
            "with_a_page_an_explicit_reconnect_in_the_child_goes_on",
            an_explicit_reconnect_in_the_child_goes_on::<WithPage>,
        ),
        #[cfg(feature = "shm")]
        ("with_a_page_a_named_child_says_hello_as_itself", a_named_child_says_hello_as_itself::<WithPage>),
        #[cfg(feature = "shm")]
        ("with_a_page_process_1_beats_under_a_random_pid", process_1_beats_under_a_random_pid::<WithPage>),
        #[cfg(feature = "shm")]
        ("with_a_page_raw_clone_is_noticed_like_fork", raw_clone_is_noticed_like_fork::<WithPage>),
        #[cfg(feature = "shm")]
        ("a_child_that_uses_the_inherited_transport_itself_touches_no_page", touches_no_page),
        #[cfg(feature = "udp")]
        ("by_udp_a_forked_child_beats_as_itself", udp::by_udp_a_forked_child_beats_as_itself),
        #[cfg(feature = "udp")]
        (
            "by_udp_a_reconnect_that_fails_leaves_the_handle_working",
            udp::by_udp_a_reconnect_that_fails_leaves_the_handle_working,
        ),
        #[cfg(feature = "secure-udp")]
        ("a_forked_child_seals_as_itself", secure::a_forked_child_seals_as_itself),
        #[cfg(feature = "secure-udp")]
        ("a_named_child_seals_its_hello_as_itself", secure::a_named_child_seals_its_hello_as_itself),
        #[cfg(feature = "secure-udp")]
        (
            "an_explicit_reconnect_in_the_child_seals_as_itself",
            secure::an_explicit_reconnect_in_the_child_seals_as_itself,
        ),
        #[cfg(feature = "secure-udp")]
        (
            "a_child_that_uses_the_inherited_transport_itself_repeats_no_nonce",
            secure::a_child_that_uses_the_inherited_transport_itself_repeats_no_nonce,
        ),
        #[cfg(feature = "secure-udp")]
        (
            "a_sealed_session_survives_a_reconnect_that_fails",
            secure::a_sealed_session_survives_a_reconnect_that_fails,
        ),
        #[cfg(all(feature = "secure-udp", target_os = "linux"))]
        ("without_entropy_nothing_new_is_sealed", secure::without_entropy_nothing_new_is_sealed),
        #[cfg(target_os = "linux")]
        ("raw_clone_is_noticed_like_fork", raw_clone_is_noticed_like_fork::<SocketOnly>),
        #[cfg(feature = "test-hooks")]
        ("the_handler_of_fork_does_as_well_as_the_page", the_handler_of_fork_does_as_well_as_the_page),
    ]);
}

fn beat<T: BeatTransport>(agent: &mut Varta<T>) -> bool {
    agent.beat(Status::Ok, 0).is_sent()
}

/// Runs `work` in a child that `spawn` creates, and returns the child's pid after it has succeeded.
fn child_by(spawn: impl FnOnce() -> libc::pid_t, work: impl FnOnce() -> bool) -> u32 {
    let pid = spawn();
    assert!(pid >= 0, "{}", io::Error::last_os_error());
    if pid == 0 {
        let status = if work() { 0 } else { 1 };
        // SAFETY: ends the child at once, without running destructors of the parent.
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

fn a_forked_child_beats_as_itself<W: HandleKind>() {
    let server = Server::listening();
    let mut agent = W::connect(server.path()).unwrap();
    assert!(beat(&mut agent) && beat(&mut agent));

    let child = child(|| beat(&mut agent) && beat(&mut agent) && agent.fork_recoveries() == 1);
    assert!(beat(&mut agent));
    assert_eq!(agent.fork_recoveries(), 0);
    let parent = process::id();
    let frames = server.arrived();
    assert_eq!(signed(&frames), [(parent, 1), (parent, 2), (child, 1), (child, 2), (parent, 3)]);
    assert!(frames[2].timestamp < frames[1].timestamp, "the child's clock starts at 0");
}

fn every_handle_of_a_child_notices<W: HandleKind>() {
    let server = Server::listening();
    let mut agents = [(); 3].map(|()| W::connect(server.path()).unwrap());
    let child = child(|| agents.iter_mut().all(|agent| beat(agent) && agent.fork_recoveries() == 1));
    assert_eq!(signed(&server.arrived()), [(child, 1); 3]);
}

fn a_grandchild_notices_whether_or_not_its_parent_did<W: HandleKind>() {
    for parent_beats in [false, true] {
        let server = Server::listening();
        let mut agent = W::connect(server.path()).unwrap();
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

fn a_handle_made_in_the_child_is_the_childs_own<W: HandleKind>() {
    let server = Server::listening();
    let _inherited = W::connect(server.path()).unwrap();
    let child = child(|| {
        let mut agent = W::connect(server.path()).unwrap();
        beat(&mut agent) && agent.fork_recoveries() == 0
    });
    assert_eq!(signed(&server.arrived()), [(child, 1)]);
}

fn a_child_without_a_server_fails_until_there_is_one<W: HandleKind>() {
    let mut server = Server::listening();
    let path = server.path();
    let mut agent = W::connect(path.clone()).unwrap();
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

fn an_explicit_reconnect_in_the_child_goes_on<W: HandleKind>() {
    let server = Server::listening();
    let mut agent = W::connect(server.path()).unwrap();
    assert!(beat(&mut agent));
    let child = child(|| agent.reconnect().is_ok() && beat(&mut agent) && agent.fork_recoveries() == 0);
    assert_eq!(signed(&server.arrived()), [(process::id(), 1), (child, 2)]);
}

fn a_named_child_says_hello_as_itself<W: HandleKind>() {
    let server = Server::listening();
    let mut agent = W::build(Varta::builder().name("worker").socket(server.path())).unwrap();
    assert!(beat(&mut agent));
    let child = child(|| beat(&mut agent) && beat(&mut agent));
    assert!(beat(&mut agent));

    let datagrams = server.datagrams();
    let lengths: Vec<bool> = datagrams.iter().map(|datagram| datagram.len() == 32).collect();
    assert_eq!(lengths, [false, true, false, true, true, true], "each process says Hello once");
    let [parents, childs] = [0, 2].map(|index| Control::decode(&datagrams[index]).unwrap());
    assert_eq!((parents.pid(), parents.nonce()), (process::id(), 0));
    assert_eq!((childs.pid(), childs.nonce()), (child, 0));
    assert_eq!(childs.name().map(|name| name.as_str()), Some("worker"));
    assert_ne!(parents.session(), childs.session());
}

/// In a PID namespace of its own, which needs a privilege. Without it the test is skipped.
#[allow(clippy::print_stdout, reason = "a test that was not run says so")]
fn process_1_beats_under_a_random_pid<W: HandleKind>() {
    #[cfg(target_os = "linux")]
    {
        let server = Server::listening();
        let mut agents = [(); 2].map(|()| W::connect(server.path()).unwrap());
        child(|| {
            // SAFETY: it concerns the children of this process only.
            if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
                return true;
            }
            let beats = || {
                let mut own = W::connect(server.path()).unwrap();
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
fn raw_clone_is_noticed_like_fork<W: HandleKind>() {
    if cfg!(feature = "test-hooks") && std::env::var_os(WITHOUT_PAGE).is_some() {
        return;
    }
    let server = Server::listening();
    let mut agent = W::connect(server.path()).unwrap();
    assert!(beat(&mut agent));
    let clone = || {
        // SAFETY: with no flag but the signal it is a fork, and this program has one thread.
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
        libc::pid_t::try_from(pid).unwrap()
    };
    let child = child_by(clone, || beat(&mut agent) && agent.fork_recoveries() == 1);
    assert_eq!(signed(&server.arrived()), [(process::id(), 1), (child, 1)]);
}

/// A page that a server reads, and the child of a fork.
#[cfg(feature = "shm")]
fn touches_no_page() {
    if cfg!(feature = "test-hooks") && std::env::var_os(WITHOUT_PAGE).is_some() {
        // No page is created where a fork may go undetected.
        return;
    }
    let server = common::page::PageServer::listening();
    let mut transport = varta_agent::ShmTransport::connect(server.path()).unwrap();
    let mut nonce = 0;
    let mut send = |transport: &mut varta_agent::ShmTransport| {
        nonce += 1;
        transport.send(&Frame::new(Status::Ok, process::id(), nonce, nonce, 0).to_bytes()).is_ok()
    };
    assert!(send(&mut transport));
    let page = server.page();
    page.promise();
    assert!(send(&mut transport) && send(&mut transport));
    assert_eq!(page.nonce(), Some(3));
    // Dropping the inherited transport is safe.
    let mut transport = Some(transport);
    child(|| {
        let sent = transport.as_mut().is_some_and(&mut send);
        transport.take();
        sent
    });
    assert_eq!(page.nonce(), Some(3));
    assert!(!page.was_left());
}

/// Set in a run of this program without the page.
const WITHOUT_PAGE: &str = "VARTA_TEST_WITHOUT_FORK_PAGE";

#[cfg(feature = "test-hooks")]
fn the_handler_of_fork_does_as_well_as_the_page() {
    if std::env::var_os(WITHOUT_PAGE).is_none() {
        let program = std::env::current_exe().unwrap();
        let output = process::Command::new(program).env(WITHOUT_PAGE, "1").output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
        assert!(stdout.contains("test every_handle_of_a_child_notices ... ok"), "{stdout}");
    }
}

/// Denies this process opening any file, or allows it again.
#[cfg(feature = "udp")]
fn descriptors_are_refused(refused: bool) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is a live structure for the kernel to fill.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    limit.rlim_cur = if refused { 0 } else { limit.rlim_max };
    // SAFETY: the limit is a live structure that the kernel only reads.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

//! Inherited handles in the child of a fork.
//!
//! A child of these tests only sends beats, and reports by its exit status whether they had the right
//! outcome; its parent checks what the server received.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(unsafe_code, reason = "fork, clone and _exit are unsafe")]

mod common;

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
    assert_eq!(lengths, [false, true, true, false, true, true], "each process says Hello once");
    let [parents, childs] = [0, 3].map(|index| Control::decode(&datagrams[index]).unwrap());
    assert_eq!((parents.pid(), parents.nonce()), (process::id(), 0));
    assert_eq!((childs.pid(), childs.nonce()), (child, 1));
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

#[cfg(feature = "udp")]
mod udp {
    use super::*;
    use common::UdpServer;

    fn frames(server: &UdpServer) -> Vec<Frame> {
        server.arrived().iter().map(|datagram| Frame::decode(datagram).unwrap()).collect()
    }

    pub(super) fn by_udp_a_forked_child_beats_as_itself() {
        let server = UdpServer::listening();
        let mut agent = Varta::connect_udp(server.addr()).unwrap();
        assert!(beat(&mut agent) && beat(&mut agent));
        let child = child(|| beat(&mut agent) && beat(&mut agent) && agent.fork_recoveries() == 1);
        assert!(beat(&mut agent));
        let parent = process::id();
        let expected = [(parent, 1), (parent, 2), (child, 1), (child, 2), (parent, 3)];
        assert_eq!(signed(&frames(&server)), expected);
    }

    pub(super) fn by_udp_a_reconnect_that_fails_leaves_the_handle_working() {
        let server = UdpServer::listening();
        let child = child(|| {
            let mut agent = Varta::connect_udp(server.addr()).unwrap();
            descriptors_are_refused(true);
            agent.reconnect().is_err() && beat(&mut agent)
        });
        assert_eq!(signed(&frames(&server)), [(child, 1)]);
    }
}

#[cfg(feature = "secure-udp")]
mod secure {
    use super::*;
    use common::UdpServer;
    use std::net::SocketAddr;
    use varta_agent::{Key, SecureUdpTransport};
    use varta_proto::control::MAX_CONTROL_LEN;
    use varta_proto::secure::{Opened, open_agent, open_control_agent, open_shared};

    fn key() -> Key {
        Key::from_bytes([0x8f; 32])
    }

    #[derive(Clone, Copy, Debug)]
    enum Mode {
        Shared,
        Master,
    }

    use Mode::{Master, Shared};

    impl Mode {
        fn transport(self, addr: SocketAddr) -> SecureUdpTransport {
            match self {
                Shared => SecureUdpTransport::connect(addr, key()).unwrap(),
                Master => SecureUdpTransport::connect_with_master(addr, key()).unwrap(),
            }
        }

        fn connect(self, addr: SocketAddr) -> Varta<SecureUdpTransport> {
            match self {
                Shared => Varta::connect_secure_udp(addr, key()).unwrap(),
                Master => Varta::connect_secure_udp_with_master(addr, key()).unwrap(),
            }
        }

        /// Opens the datagrams received so far, each with the key of the process that is expected to have
        /// sent it.
        fn open(self, server: &UdpServer, senders: &[u32]) -> Vec<Opened> {
            let datagrams = server.arrived();
            assert_eq!(datagrams.len(), senders.len(), "{self:?}");
            let opened = datagrams.iter().zip(senders).map(|(datagram, sender)| {
                let opened = match self {
                    Shared => open_shared(&key(), datagram),
                    Master => open_agent(&key().agent_key(*sender), datagram),
                }
                .unwrap();
                assert_eq!(opened.frame.pid, *sender, "{self:?}");
                opened
            });
            opened.collect()
        }
    }

    fn counters(opened: &[Opened]) -> Vec<u32> {
        opened.iter().map(|opened| opened.iv_counter).collect()
    }

    /// Returns which datagrams have the prefix of the first.
    fn as_the_first(opened: &[Opened]) -> Vec<bool> {
        opened.iter().map(|other| other.iv_random == opened[0].iv_random).collect()
    }

    pub(super) fn a_forked_child_seals_as_itself() {
        for mode in [Shared, Master] {
            let server = UdpServer::listening();
            let mut agent = mode.connect(server.addr());
            assert!(beat(&mut agent) && beat(&mut agent));
            let child = child(|| beat(&mut agent) && beat(&mut agent) && agent.fork_recoveries() == 1);
            assert!(beat(&mut agent));
            let parent = process::id();
            let opened = mode.open(&server, &[parent, parent, child, child, parent]);
            assert_eq!(as_the_first(&opened), [true, true, false, false, true]);
            assert_eq!(counters(&opened), [1, 2, 1, 2, 3]);
            let nonces: Vec<u64> = opened.iter().map(|opened| opened.frame.nonce).collect();
            assert_eq!(nonces, [1, 2, 1, 2, 3]);
        }
    }

    pub(super) fn a_named_child_seals_its_hello_as_itself() {
        let server = UdpServer::listening();
        let builder = Varta::builder().name("worker").secure_udp_with_master(server.addr(), key());
        let mut agent = builder.connect().unwrap();
        assert!(beat(&mut agent));
        let child = child(|| beat(&mut agent) && beat(&mut agent));
        let datagrams = server.arrived();
        let [parents, _, _, childs, last] = &datagrams[..] else { panic!("{}", datagrams.len()) };

        let mut rooms = [[0; MAX_CONTROL_LEN]; 2];
        let [first, second] = &mut rooms;
        let parents = open_control_agent(&key().agent_key(process::id()), parents, first).unwrap();
        let childs = open_control_agent(&key().agent_key(child), childs, second).unwrap();
        assert_eq!((parents.control.pid(), childs.control.pid()), (process::id(), child));
        assert_ne!(parents.control.session(), childs.control.session());
        assert_ne!(parents.iv_random, childs.iv_random);
        let last = open_agent(&key().agent_key(child), last).unwrap();
        assert_eq!((childs.iv_counter, last.iv_counter, last.iv_random), (2, 3, childs.iv_random));
    }

    pub(super) fn an_explicit_reconnect_in_the_child_seals_as_itself() {
        for mode in [Shared, Master] {
            let server = UdpServer::listening();
            let mut agent = mode.connect(server.addr());
            assert!(beat(&mut agent));
            let child = child(|| agent.reconnect().is_ok() && beat(&mut agent));
            let opened = mode.open(&server, &[process::id(), child]);
            assert_eq!(as_the_first(&opened), [true, false]);
            assert_eq!(opened[1].frame.nonce, 2);
        }
    }

    pub(super) fn a_child_that_uses_the_inherited_transport_itself_repeats_no_nonce() {
        for mode in [Shared, Master] {
            let server = UdpServer::listening();
            let mut transport = mode.transport(server.addr());
            let send = |transport: &mut SecureUdpTransport| {
                let frame = Frame::new(Status::Ok, process::id(), 0, 1, 0);
                transport.send(&frame.to_bytes()).is_ok()
            };
            assert!(send(&mut transport));
            let child = child(|| send(&mut transport) && send(&mut transport));
            assert!(send(&mut transport));
            let parent = process::id();
            let opened = mode.open(&server, &[parent, child, child, parent]);
            assert_eq!(as_the_first(&opened), [true, false, false, true]);
            assert_eq!(opened[1].iv_random, opened[2].iv_random);
            assert_eq!(counters(&opened), [1, 1, 2, 2]);
        }
    }

    pub(super) fn a_sealed_session_survives_a_reconnect_that_fails() {
        for mode in [Shared, Master] {
            let server = UdpServer::listening();
            let child_beats = || {
                let mut agent = mode.connect(server.addr());
                let before = beat(&mut agent);
                descriptors_are_refused(true);
                let kept = agent.reconnect().is_err() && beat(&mut agent);
                descriptors_are_refused(false);
                let moved = agent.reconnect().is_ok() && beat(&mut agent);
                before && kept && moved
            };
            let child = child(child_beats);
            let opened = mode.open(&server, &[child; 3]);
            assert_eq!(as_the_first(&opened), [true, true, false]);
            assert_eq!(counters(&opened), [1, 2, 1]);
        }
    }

    /// With a seccomp filter, which needs a privilege. Without it the test is skipped.
    #[cfg(target_os = "linux")]
    #[allow(clippy::print_stdout, reason = "a test that was not run says so")]
    pub(super) fn without_entropy_nothing_new_is_sealed() {
        for mode in [Shared, Master] {
            let server = UdpServer::listening();
            let mut agent = mode.connect(server.addr());
            let mut transport = mode.transport(server.addr());
            let deprived = child(|| {
                let mut own = mode.connect(server.addr());
                if !common::take_entropy_away() {
                    return true;
                }
                // The inherited transport has no session to continue, and its error is a lasting one.
                let failed =
                    (0..2).all(|_| agent.beat(Status::Ok, 0).is_failed() && agent.fork_recoveries() == 0);
                let sent = transport.send(&Frame::new(Status::Ok, process::id(), 0, 1, 0).to_bytes());
                let refused = sent.is_err_and(|error| varta_agent::classify_send_error(&error).is_failed());
                // A transport that was created before continues its session.
                let kept = own.reconnect().is_err() && beat(&mut own) && beat(&mut own);
                let error = SecureUdpTransport::connect(server.addr(), key()).unwrap_err().to_string();
                failed && refused && kept && error.contains("gives no randomness")
            });
            assert!(beat(&mut agent), "the parent has lost nothing");
            let datagrams = server.arrived();
            if let [_] = datagrams[..] {
                println!("without_entropy_nothing_new_is_sealed: no permission for a filter, not tested");
                return;
            }
            assert_eq!(datagrams.len(), 3);
            let opened = datagrams[..2].iter().map(|datagram| match mode {
                Shared => open_shared(&key(), datagram).unwrap(),
                Master => open_agent(&key().agent_key(deprived), datagram).unwrap(),
            });
            assert_eq!(counters(&opened.collect::<Vec<_>>()), [1, 2]);
        }
    }
}

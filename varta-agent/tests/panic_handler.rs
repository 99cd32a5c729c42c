//! The terminal frames of processes that really panic: this program runs itself again, once for each.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::panic;
use std::path::PathBuf;
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::sync::Barrier;
use std::thread;

use common::Server;
use varta_agent::{Frame, NONCE_TERMINAL, Status, Varta, install_panic_handler};

fn main() {
    #[cfg(feature = "udp")]
    if let (Ok(role), Ok(mode)) = (env::var(ROLE), env::var(MODE)) {
        return udp::play(&role, &mode, env::var(PATH).unwrap().parse().unwrap());
    }
    if let Ok(role) = env::var(ROLE) {
        return play(&role, &PathBuf::from(env::var_os(PATH).unwrap()));
    }
    common::run(&[
        ("a_panic_sends_a_terminal_frame", a_panic_sends_a_terminal_frame),
        (
            "a_server_that_started_after_the_install_is_notified",
            a_server_that_started_after_the_install_is_notified,
        ),
        ("a_restarted_server_is_notified", a_restarted_server_is_notified),
        ("the_hook_before_runs_with_and_without_a_server", the_hook_before_runs_with_and_without_a_server),
        ("a_full_queue_does_not_hold_up_the_panic", a_full_queue_does_not_hold_up_the_panic),
        ("an_abort_comes_after_the_frame", an_abort_comes_after_the_frame),
        ("threads_that_panic_together_each_send_a_frame", threads_that_panic_together_each_send_a_frame),
        ("a_process_that_survives_its_panic_beats_on", a_process_that_survives_its_panic_beats_on),
        ("a_second_install_adds_a_frame", a_second_install_adds_a_frame),
        ("an_install_that_fails_installs_nothing", an_install_that_fails_installs_nothing),
        ("a_forked_child_panics_under_its_own_pid", a_forked_child_panics_under_its_own_pid),
        #[cfg(feature = "udp")]
        ("a_panic_sends_a_terminal_frame_by_udp", udp::a_panic_sends_a_terminal_frame_by_udp),
        #[cfg(feature = "udp")]
        (
            "by_udp_a_server_that_started_later_is_notified",
            udp::by_udp_a_server_that_started_later_is_notified,
        ),
        #[cfg(feature = "secure-udp")]
        ("a_panic_sends_a_sealed_terminal_frame", secure::a_panic_sends_a_sealed_terminal_frame),
        #[cfg(feature = "secure-udp")]
        ("threads_that_panic_together_share_no_nonce", secure::threads_that_panic_together_share_no_nonce),
        #[cfg(feature = "secure-udp")]
        (
            "a_forked_child_that_panics_has_nonces_and_a_key_of_its_own",
            secure::a_forked_child_that_panics_has_nonces_and_a_key_of_its_own,
        ),
        #[cfg(all(feature = "secure-udp", target_os = "linux"))]
        (
            "a_forked_child_without_entropy_panics_in_silence",
            secure::a_forked_child_without_entropy_panics_in_silence,
        ),
    ]);
}

const ROLE: &str = "VARTA_TEST_ROLE";
/// The child's environment variable with a path, or with an address if there is a [`MODE`].
const PATH: &str = "VARTA_TEST_PATH";
/// Set if the hook sends by UDP.
#[cfg(feature = "udp")]
const MODE: &str = "VARTA_TEST_MODE";

/// What the child prints before it panics.
const READY: &str = "ready";
/// What the child's previous hook prints.
const BEFORE: &str = "the hook before";

fn play(role: &str, path: &PathBuf) {
    panic::set_hook(Box::new(|_| say(BEFORE)));
    match role {
        "panics" => {
            install_panic_handler(path).unwrap();
            ready();
            panic!("on request");
        }
        "aborts in the hook" => {
            panic::set_hook(Box::new(|_| process::abort()));
            install_panic_handler(path).unwrap();
            ready();
            panic!("on request");
        }
        "cannot unwind" => {
            extern "C" fn no_way_out() {
                panic!("on request");
            }
            install_panic_handler(path).unwrap();
            ready();
            no_way_out();
        }
        "panics in two threads" => {
            install_panic_handler(path).unwrap();
            ready();
            let together = Barrier::new(2);
            thread::scope(|scope| {
                let threads = [(); 2].map(|()| {
                    scope.spawn(|| {
                        together.wait();
                        panic!("on request");
                    })
                });
                for thread in threads {
                    assert!(thread.join().is_err());
                }
            });
        }
        "survives" => {
            install_panic_handler(path).unwrap();
            let mut agent = Varta::connect(path).unwrap();
            assert!(agent.beat(Status::Ok, 0).is_sent());
            ready();
            assert!(panic::catch_unwind(|| panic!("on request")).is_err());
            assert!(agent.beat(Status::Ok, 0).is_sent());
        }
        "installs twice" => {
            install_panic_handler(path).unwrap();
            install_panic_handler(path).unwrap();
            ready();
            panic!("on request");
        }
        "installs in vain" => {
            let error = install_panic_handler("x".repeat(200)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            let stream = path.with_file_name("stream");
            let _listener = std::os::unix::net::UnixListener::bind(&stream).unwrap();
            assert!(install_panic_handler(&stream).is_err());

            struct Installs(PathBuf);
            impl Drop for Installs {
                fn drop(&mut self) {
                    assert!(thread::panicking());
                    assert!(install_panic_handler(&self.0).is_err());
                }
            }
            let installs = Installs(path.clone());
            ready();
            let _dropped_while_panicking = installs;
            panic!("on request");
        }
        "forks" => {
            install_panic_handler(path).unwrap();
            ready();
            forked(|| drop(panic::catch_unwind(|| panic!("on request"))));
        }
        other => panic!("no such role: {other}"),
    }
}

#[allow(unsafe_code, reason = "fork is unsafe")]
fn forked(work: impl FnOnce()) {
    // SAFETY: this program has one thread, so the child has all of it.
    match unsafe { libc::fork() } {
        0 => {
            work();
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(0) };
        }
        child => {
            // SAFETY: the child is ours, and its status is not needed.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        }
    }
}

fn say(line: &str) {
    // Not `println`, whose lock a test should not depend on within a hook.
    let _ = io::stdout().write_all(format!("{line}\n").as_bytes());
}

/// Waits until the parent has prepared the server.
fn ready() {
    say(READY);
    io::stdin().lock().read_line(&mut String::new()).unwrap();
}

/// A child that is about to panic.
struct PanickingChild {
    child: Child,
    output: BufReader<process::ChildStdout>,
}

impl PanickingChild {
    fn start(role: &str, server: &Server) -> Self {
        Self::run(Command::new(env::current_exe().unwrap()).env(ROLE, role).env(PATH, server.path()))
    }

    #[cfg(feature = "udp")]
    fn start_by_udp(role: &str, mode: &str, addr: std::net::SocketAddr) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        Self::run(command.env(ROLE, role).env(MODE, mode).env(PATH, addr.to_string()))
    }

    fn run(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), READY);
        Self { child, output }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Makes it panic, and waits for its end.
    fn finish(mut self) -> (ExitStatus, Vec<String>) {
        drop(self.child.stdin.take());
        let output = self.output.lines().map(Result::unwrap).collect();
        (self.child.wait().unwrap(), output)
    }
}

fn assert_terminal(frame: &Frame, pid: u32) {
    assert!(frame.is_terminal());
    assert_eq!((frame.status, frame.nonce), (Status::Critical, NONCE_TERMINAL));
    assert_eq!((frame.pid, frame.payload), (pid, 0));
}

fn a_panic_sends_a_terminal_frame() {
    let server = Server::listening();
    let child = PanickingChild::start("panics", &server);
    let pid = child.pid();
    let (status, output) = child.finish();
    assert_eq!((status.code(), output), (Some(101), vec![BEFORE.to_owned()]));
    let [frame] = server.arrived()[..] else { panic!("one frame") };
    assert_terminal(&frame, pid);
    assert!(frame.timestamp > 0);
}

fn a_server_that_started_after_the_install_is_notified() {
    let mut server = Server::absent();
    let child = PanickingChild::start("panics", &server);
    server.start();
    let pid = child.pid();
    child.finish();
    let [frame] = server.arrived()[..] else { panic!("one frame") };
    assert_terminal(&frame, pid);
}

fn a_restarted_server_is_notified() {
    let mut server = Server::listening();
    let child = PanickingChild::start("panics", &server);
    server.kill();
    server.start();
    let pid = child.pid();
    child.finish();
    let [frame] = server.arrived()[..] else { panic!("one frame") };
    assert_terminal(&frame, pid);
}

fn the_hook_before_runs_with_and_without_a_server() {
    let mut killed = Server::listening();
    let child = PanickingChild::start("panics", &killed);
    killed.kill();
    for child in [child, PanickingChild::start("panics", &Server::absent())] {
        let (status, output) = child.finish();
        assert_eq!((status.code(), output), (Some(101), vec![BEFORE.to_owned()]));
    }
}

fn a_full_queue_does_not_hold_up_the_panic() {
    let server = Server::listening();
    let child = PanickingChild::start("panics", &server);
    common::fill(&server.path());
    let (status, output) = child.finish();
    assert_eq!((status.code(), output), (Some(101), vec![BEFORE.to_owned()]));
}

fn an_abort_comes_after_the_frame() {
    for role in ["aborts in the hook", "cannot unwind"] {
        let server = Server::listening();
        let child = PanickingChild::start(role, &server);
        let pid = child.pid();
        let (status, _) = child.finish();
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{role}");
        assert_terminal(&server.frame(), pid);
    }
}

fn threads_that_panic_together_each_send_a_frame() {
    let server = Server::listening();
    let child = PanickingChild::start("panics in two threads", &server);
    let pid = child.pid();
    let (status, output) = child.finish();
    assert!(status.success());
    assert_eq!(output, [BEFORE, BEFORE]);
    let frames = server.arrived();
    assert_eq!(frames.len(), 2);
    for frame in frames {
        assert_terminal(&frame, pid);
    }
}

fn a_process_that_survives_its_panic_beats_on() {
    let server = Server::listening();
    let child = PanickingChild::start("survives", &server);
    assert!(child.finish().0.success());
    let nonces: Vec<u64> = server.arrived().iter().map(|frame| frame.nonce).collect();
    assert_eq!(nonces, [1, NONCE_TERMINAL, 2]);
}

fn a_second_install_adds_a_frame() {
    let server = Server::listening();
    let child = PanickingChild::start("installs twice", &server);
    let pid = child.pid();
    assert_eq!(child.finish().1, [BEFORE]);
    let frames = server.arrived();
    assert_eq!(frames.len(), 2);
    for frame in frames {
        assert_terminal(&frame, pid);
    }
}

fn an_install_that_fails_installs_nothing() {
    let server = Server::listening();
    let child = PanickingChild::start("installs in vain", &server);
    let (status, output) = child.finish();
    assert_eq!((status.code(), output), (Some(101), vec![BEFORE.to_owned()]));
    assert!(server.arrived().is_empty());
}

fn a_forked_child_panics_under_its_own_pid() {
    let server = Server::listening();
    let child = PanickingChild::start("forks", &server);
    let pid = child.pid();
    assert!(child.finish().0.success());
    let frame = server.frame();
    assert!(frame.is_terminal());
    assert_ne!(frame.pid, pid);
}

#[cfg(feature = "udp")]
mod udp {
    use super::*;
    use common::UdpServer;
    use std::net::SocketAddr;
    use varta_agent::install_panic_handler_udp;

    pub(super) fn play(role: &str, mode: &str, addr: SocketAddr) {
        panic::set_hook(Box::new(|_| say(BEFORE)));
        match mode {
            "udp" => install_panic_handler_udp(addr).unwrap(),
            #[cfg(feature = "secure-udp")]
            mode => secure::install(mode, addr),
            #[cfg(not(feature = "secure-udp"))]
            other => panic!("no such mode: {other}"),
        }
        let panics = || drop(panic::catch_unwind(|| panic!("on request")));
        ready();
        match role {
            "panics" => panic!("on request"),
            "panics in many threads" => {
                let together = Barrier::new(THREADS);
                thread::scope(|scope| {
                    for _ in 0..THREADS {
                        scope.spawn(|| {
                            together.wait();
                            (0..PANICS).for_each(|_| panics());
                        });
                    }
                });
            }
            "panics before, in and after a fork" => {
                panics();
                forked(|| {
                    panics();
                    forked(panics);
                    panics();
                });
                panics();
            }
            #[cfg(all(feature = "secure-udp", target_os = "linux"))]
            "forks a child without entropy" => {
                forked(|| {
                    if common::take_entropy_away() {
                        panics();
                    }
                });
                panics();
            }
            other => panic!("no such role: {other}"),
        }
    }

    /// All of their frames must fit into the queue of one socket.
    pub(super) const THREADS: usize = 8;
    pub(super) const PANICS: usize = 8;

    pub(super) fn a_panic_sends_a_terminal_frame_by_udp() {
        let server = UdpServer::listening();
        let child = PanickingChild::start_by_udp("panics", "udp", server.addr());
        let pid = child.pid();
        let (status, output) = child.finish();
        assert_eq!((status.code(), output), (Some(101), vec![BEFORE.to_owned()]));
        let [datagram] = &server.arrived()[..] else { panic!("one frame") };
        assert_terminal(&Frame::decode(datagram).unwrap(), pid);
    }

    pub(super) fn by_udp_a_server_that_started_later_is_notified() {
        let absent = UdpServer::absent();
        let addr = absent.addr();
        let child = PanickingChild::start_by_udp("panics", "udp", addr);
        drop(absent);
        let server = std::net::UdpSocket::bind(addr).unwrap();
        let pid = child.pid();
        child.finish();
        let mut datagram = [0; 64];
        let length = server.recv(&mut datagram).unwrap();
        assert_terminal(&Frame::decode(&datagram[..length]).unwrap(), pid);
    }
}

#[cfg(feature = "secure-udp")]
mod secure {
    use super::udp::{PANICS, THREADS};
    use super::*;
    use common::UdpServer;
    use std::collections::HashSet;
    use std::net::SocketAddr;
    use varta_agent::{Key, install_panic_handler_secure_udp, install_panic_handler_secure_udp_with_master};
    use varta_proto::secure::{Opened, open_master, open_shared};

    const MODES: [&str; 2] = ["shared", "master"];

    fn key() -> Key {
        Key::from_bytes([0x8f; 32])
    }

    pub(super) fn install(mode: &str, addr: SocketAddr) {
        let nowhere = ([127, 0, 0, 1], 0).into();
        if mode == "shared" {
            assert!(install_panic_handler_secure_udp(nowhere, key()).is_err());
            install_panic_handler_secure_udp(addr, key()).unwrap();
        } else {
            assert!(install_panic_handler_secure_udp_with_master(nowhere, key()).is_err());
            install_panic_handler_secure_udp_with_master(addr, key()).unwrap();
        }
    }

    /// Opens the datagrams received so far, and checks that each is terminal and no nonce repeats.
    fn open(mode: &str, server: &UdpServer) -> Vec<Opened> {
        let mut nonces = HashSet::new();
        let opened = server.arrived().into_iter().map(|datagram| {
            let opened = match mode {
                "shared" => open_shared(&key(), &datagram),
                _ => open_master(&key(), &datagram),
            }
            .unwrap();
            assert!(opened.frame.is_terminal());
            assert!(nonces.insert((opened.iv_random, opened.iv_counter)), "{mode}: a nonce came twice");
            opened
        });
        opened.collect()
    }

    pub(super) fn a_panic_sends_a_sealed_terminal_frame() {
        for mode in MODES {
            let server = UdpServer::listening();
            let child = PanickingChild::start_by_udp("panics", mode, server.addr());
            let pid = child.pid();
            let (status, output) = child.finish();
            assert_eq!((status.code(), output), (Some(101), vec![BEFORE.to_owned()]));
            let [opened] = open(mode, &server)[..] else { panic!("one frame") };
            assert_terminal(&opened.frame, pid);
        }
    }

    pub(super) fn threads_that_panic_together_share_no_nonce() {
        for mode in MODES {
            let server = UdpServer::listening();
            let child = PanickingChild::start_by_udp("panics in many threads", mode, server.addr());
            let pid = child.pid();
            let (status, output) = child.finish();
            assert!(status.success());
            assert_eq!(output.len(), THREADS * PANICS);
            let opened = open(mode, &server);
            assert_eq!(opened.len(), THREADS * PANICS);
            assert!(opened.iter().all(|opened| opened.frame.pid == pid));
        }
    }

    pub(super) fn a_forked_child_that_panics_has_nonces_and_a_key_of_its_own() {
        for mode in MODES {
            let server = UdpServer::listening();
            let child =
                PanickingChild::start_by_udp("panics before, in and after a fork", mode, server.addr());
            let pid = child.pid();
            assert!(child.finish().0.success());
            let opened = open(mode, &server);
            let [before, child, grandchild, again, after] = opened[..] else { panic!("five frames") };
            assert_eq!((before.frame.pid, after.frame.pid), (pid, pid));
            assert_eq!(child.frame.pid, again.frame.pid);
            assert_eq!(HashSet::from([pid, child.frame.pid, grandchild.frame.pid]).len(), 3);

            assert_eq!((after.iv_random, after.iv_counter), (before.iv_random, before.iv_counter + 1));
            let sessions = [before, child, grandchild, again].map(|opened| opened.iv_random);
            assert_eq!(HashSet::from(sessions).len(), 4);
        }
    }

    /// With a seccomp filter; where it cannot be installed the child does not panic.
    #[cfg(target_os = "linux")]
    pub(super) fn a_forked_child_without_entropy_panics_in_silence() {
        for mode in MODES {
            let server = UdpServer::listening();
            let child = PanickingChild::start_by_udp("forks a child without entropy", mode, server.addr());
            let pid = child.pid();
            assert!(child.finish().0.success());
            let [opened] = open(mode, &server)[..] else { panic!("one frame") };
            assert_eq!(opened.frame.pid, pid);
        }
    }
}

//! The terminal frames of processes that really panic: this program runs itself again, once for each.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "secure-udp")]
mod secure;
#[cfg(feature = "udp")]
mod udp;

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

//! The last word of processes that really panic: this program runs itself again, once for each.

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
    if let Ok(role) = env::var(ROLE) {
        return play(&role, &PathBuf::from(env::var_os(PATH).unwrap()));
    }
    common::run(&[
        ("a_panic_sends_a_terminal_frame", a_panic_sends_a_terminal_frame),
        ("a_server_that_came_after_the_install_is_told", a_server_that_came_after_the_install_is_told),
        ("a_server_that_was_restarted_is_told", a_server_that_was_restarted_is_told),
        ("the_hook_before_runs_with_and_without_a_server", the_hook_before_runs_with_and_without_a_server),
        ("a_full_queue_does_not_hold_up_the_panic", a_full_queue_does_not_hold_up_the_panic),
        ("an_abort_comes_after_the_frame", an_abort_comes_after_the_frame),
        ("threads_that_panic_together_each_send_a_frame", threads_that_panic_together_each_send_a_frame),
        ("a_process_that_survives_its_panic_beats_on", a_process_that_survives_its_panic_beats_on),
        ("a_second_install_adds_a_frame", a_second_install_adds_a_frame),
        ("an_install_that_fails_installs_nothing", an_install_that_fails_installs_nothing),
        ("a_forked_child_panics_under_its_own_pid", a_forked_child_panics_under_its_own_pid),
    ]);
}

const ROLE: &str = "VARTA_TEST_ROLE";
const PATH: &str = "VARTA_TEST_PATH";

/// What the child says when it is about to panic.
const READY: &str = "ready";
/// What the hook says that the child had before.
const BEFORE: &str = "the hook before";

fn play(role: &str, path: &PathBuf) {
    panic::set_hook(Box::new(|_| say(BEFORE)));
    match role {
        "panics" => {
            install_panic_handler(path).unwrap();
            ready();
            panic!("as told");
        }
        "aborts in the hook" => {
            panic::set_hook(Box::new(|_| process::abort()));
            install_panic_handler(path).unwrap();
            ready();
            panic!("as told");
        }
        "cannot unwind" => {
            extern "C" fn no_way_out() {
                panic!("as told");
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
                        panic!("as told");
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
            assert!(panic::catch_unwind(|| panic!("as told")).is_err());
            assert!(agent.beat(Status::Ok, 0).is_sent());
        }
        "installs twice" => {
            install_panic_handler(path).unwrap();
            install_panic_handler(path).unwrap();
            ready();
            panic!("as told");
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
            panic!("as told");
        }
        "forks" => {
            install_panic_handler(path).unwrap();
            ready();
            forked(|| drop(panic::catch_unwind(|| panic!("as told"))));
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
            // SAFETY: ends the child here and now.
            unsafe { libc::_exit(0) };
        }
        child => {
            // SAFETY: the child is ours, and nobody asks for its status.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        }
    }
}

fn say(line: &str) {
    // Not `println`, whose lock a test should not depend on within a hook.
    let _ = io::stdout().write_all(format!("{line}\n").as_bytes());
}

/// Waits for the parent to have prepared the world.
fn ready() {
    say(READY);
    io::stdin().lock().read_line(&mut String::new()).unwrap();
}

/// A child that is about to panic.
struct Doomed {
    child: Child,
    said: BufReader<process::ChildStdout>,
}

impl Doomed {
    fn start(role: &str, server: &Server) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .env(ROLE, role)
            .env(PATH, server.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), READY);
        Self { child, said }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it panic, and waits for its end.
    fn finish(mut self) -> (ExitStatus, Vec<String>) {
        drop(self.child.stdin.take());
        let said = self.said.lines().map(Result::unwrap).collect();
        (self.child.wait().unwrap(), said)
    }
}

fn assert_terminal(frame: &Frame, pid: u32) {
    assert!(frame.is_terminal());
    assert_eq!((frame.status, frame.nonce), (Status::Critical, NONCE_TERMINAL));
    assert_eq!((frame.pid, frame.payload), (pid, 0));
}

fn a_panic_sends_a_terminal_frame() {
    let server = Server::listening();
    let child = Doomed::start("panics", &server);
    let pid = child.pid();
    let (status, said) = child.finish();
    assert_eq!((status.code(), said), (Some(101), vec![BEFORE.to_owned()]));
    let [frame] = server.arrived()[..] else { panic!("one frame") };
    assert_terminal(&frame, pid);
    assert!(frame.timestamp > 0);
}

fn a_server_that_came_after_the_install_is_told() {
    let mut server = Server::absent();
    let child = Doomed::start("panics", &server);
    server.start();
    let pid = child.pid();
    child.finish();
    let [frame] = server.arrived()[..] else { panic!("one frame") };
    assert_terminal(&frame, pid);
}

fn a_server_that_was_restarted_is_told() {
    let mut server = Server::listening();
    let child = Doomed::start("panics", &server);
    server.kill();
    server.start();
    let pid = child.pid();
    child.finish();
    let [frame] = server.arrived()[..] else { panic!("one frame") };
    assert_terminal(&frame, pid);
}

fn the_hook_before_runs_with_and_without_a_server() {
    let mut killed = Server::listening();
    let child = Doomed::start("panics", &killed);
    killed.kill();
    for child in [child, Doomed::start("panics", &Server::absent())] {
        let (status, said) = child.finish();
        assert_eq!((status.code(), said), (Some(101), vec![BEFORE.to_owned()]));
    }
}

fn a_full_queue_does_not_hold_up_the_panic() {
    let server = Server::listening();
    let child = Doomed::start("panics", &server);
    common::fill(&server.path());
    let (status, said) = child.finish();
    assert_eq!((status.code(), said), (Some(101), vec![BEFORE.to_owned()]));
}

fn an_abort_comes_after_the_frame() {
    for role in ["aborts in the hook", "cannot unwind"] {
        let server = Server::listening();
        let child = Doomed::start(role, &server);
        let pid = child.pid();
        let (status, _) = child.finish();
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{role}");
        assert_terminal(&server.frame(), pid);
    }
}

fn threads_that_panic_together_each_send_a_frame() {
    let server = Server::listening();
    let child = Doomed::start("panics in two threads", &server);
    let pid = child.pid();
    let (status, said) = child.finish();
    assert!(status.success());
    assert_eq!(said, [BEFORE, BEFORE]);
    let frames = server.arrived();
    assert_eq!(frames.len(), 2);
    for frame in frames {
        assert_terminal(&frame, pid);
    }
}

fn a_process_that_survives_its_panic_beats_on() {
    let server = Server::listening();
    let child = Doomed::start("survives", &server);
    assert!(child.finish().0.success());
    let nonces: Vec<u64> = server.arrived().iter().map(|frame| frame.nonce).collect();
    assert_eq!(nonces, [1, NONCE_TERMINAL, 2]);
}

fn a_second_install_adds_a_frame() {
    let server = Server::listening();
    let child = Doomed::start("installs twice", &server);
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
    let child = Doomed::start("installs in vain", &server);
    let (status, said) = child.finish();
    assert_eq!((status.code(), said), (Some(101), vec![BEFORE.to_owned()]));
    assert!(server.arrived().is_empty());
}

fn a_forked_child_panics_under_its_own_pid() {
    let server = Server::listening();
    let child = Doomed::start("forks", &server);
    let pid = child.pid();
    assert!(child.finish().0.success());
    let frame = server.frame();
    assert!(frame.is_terminal());
    assert_ne!(frame.pid, pid);
}

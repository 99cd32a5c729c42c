//! Runs each program to its end, and compares its output with what the README shows.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use varta_agent::{Control, ControlKind, Frame, GoodbyeReason, Status};

/// A test that waits longer has failed. It is no measure of speed, and no test that succeeds waits so long.
const LIMIT: Duration = Duration::from_secs(60);
/// The last datagram of an agent that ends in order.
const GOODBYE: Sent = Sent::Goodbye(Some(GoodbyeReason::Shutdown));

#[test]
fn sync_worker_prints_the_result_of_its_jobs() {
    let observer = Observer::listen();
    let ended = Program::new(env!("CARGO_BIN_EXE_sync_worker")).arg("8").arg(observer.path()).run();
    assert!(ended.status.success(), "{ended:?}");
    ended.assert_shown_in_readme();
    assert_eq!(
        ended.stdout,
        [
            "job 1: ok, beat sent",
            "job 4: degraded, beat sent",
            "job 6: critical, beat sent",
            "job 7: ok, beat sent",
        ]
    );
    let sent = observer.all();
    assert_eq!(sent[0], Sent::Hello("sync_worker".to_owned()));
    let frames = beats(sent);
    assert!(frames.iter().all(|frame| u64::from(frame.payload) == frame.nonce));
    let statuses: Vec<Status> = frames.iter().map(|frame| frame.status).collect();
    let (ok, degraded) = (Status::Ok, Status::Degraded);
    assert_eq!(statuses, [ok, ok, ok, degraded, degraded, Status::Critical, ok, ok]);
}

#[test]
fn without_a_server_a_program_does_its_work() {
    let nowhere = tempfile::tempdir().unwrap();
    let socket = nowhere.path().join("varta.sock");
    let ended = Program::new(env!("CARGO_BIN_EXE_sync_worker")).socket_of_this_host(&socket).arg("4").run();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(
        ended.stdout,
        ["job 1: ok, beat dropped: nobody listens", "job 4: degraded, beat dropped: nobody listens"]
    );
    let ended = Program::new(env!("CARGO_BIN_EXE_tokio_service")).arg("2").arg(&socket).run();
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_transport_that_connects_at_once_prints_what_to_do_without_a_server() {
    let nowhere = tempfile::tempdir().unwrap();
    let socket = nowhere.path().join("varta.sock");
    let ended = Program::new(env!("CARGO_BIN_EXE_custom_transport")).socket_of_this_host(&socket).run();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let socket = socket.display();
    assert!(ended.stderr.contains(&format!("cannot connect to {socket}")), "{ended:?}");
    assert!(ended.stderr.contains("start varta-server"), "{ended:?}");
}

#[test]
fn tokio_service_reports_that_too_many_jobs_wait() {
    let observer = Observer::listen();
    let ended = Program::new(env!("CARGO_BIN_EXE_tokio_service")).arg("8").arg(observer.path()).run();
    assert!(ended.status.success(), "{ended:?}");
    ended.assert_shown_in_readme();
    assert_eq!(
        ended.stdout,
        [
            "job 1 is done and 7 wait: degraded",
            "job 4 is done and 4 wait: ok",
            "stopping after 8 jobs",
            "stopped",
        ]
    );
    let mut sent = observer.all();
    assert_eq!(sent.pop(), Some(GOODBYE));
    let mut statuses: Vec<Status> = beats(sent).iter().map(|frame| frame.status).collect();
    statuses.dedup();
    assert!(statuses.ends_with(&[Status::Degraded, Status::Ok]), "{statuses:?}");
}

#[test]
fn tokio_service_ends_in_order_when_it_is_interrupted() {
    let observer = Observer::listen();
    let running =
        Program::new(env!("CARGO_BIN_EXE_tokio_service")).socket_of_this_host(&observer.path()).start();
    // Before the first beat the service has begun to wait for the signal.
    observer.await_any();
    kill(running.pid, Signal::SIGINT).unwrap();
    let ended = running.finish();
    assert!(ended.status.success(), "{ended:?}");
    ended.assert_shown_in_readme();
    let [.., interrupted, stopping, stopped] = &ended.stdout[..] else { panic!("{ended:?}") };
    assert_eq!((interrupted.as_str(), stopped.as_str()), ("interrupted", "stopped"));
    assert!(stopping.starts_with("stopping after "), "{ended:?}");
    assert_eq!(observer.all().pop(), Some(GOODBYE));
}

#[test]
fn panicking_worker_sends_a_terminal_frame() {
    let observer = Observer::listen();
    let ended =
        Program::new(env!("CARGO_BIN_EXE_panicking_worker")).socket_of_this_host(&observer.path()).run();
    assert_eq!(ended.status.code(), Some(101), "{ended:?}");
    ended.assert_shown_in_readme();
    assert_eq!(ended.stdout, ["job 1: 3 pieces, beat sent", "job 2: 12 pieces, beat sent"]);
    assert!(ended.stderr.contains("an order begins with a number"), "{ended:?}");
    let [first, second, last] = beats(observer.all())[..] else { panic!("three frames") };
    assert_eq!([first.nonce, second.nonce], [1, 2]);
    assert!(last.is_terminal());
    assert_eq!(last.status, Status::Critical);
}

#[test]
fn each_process_of_prefork_is_an_agent_of_its_own() {
    let observer = Observer::listen();
    let ended = Program::new(env!("CARGO_BIN_EXE_prefork")).arg("3").arg(observer.path()).run();
    assert!(ended.status.success(), "{ended:?}");
    ended.assert_shown_in_readme();
    for child in 1..=3 {
        let said = ended.stdout.iter().find(|line| line.starts_with(&format!("child {child} ["))).unwrap();
        assert!(said.ends_with("1 fork noticed"), "{said}");
    }
    assert!(ended.stdout.last().unwrap().ends_with("all children have ended, 0 forks noticed"), "{ended:?}");

    let mut nonces: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for frame in beats(observer.all()) {
        nonces.entry(frame.pid).or_default().push(frame.nonce);
    }
    assert_eq!(nonces.len(), 4, "{nonces:?}");
    assert!(nonces.values().all(|nonces| nonces[0] == 1), "{nonces:?}");
}

#[test]
fn custom_transport_shows_what_it_sends() {
    let observer = Observer::listen();
    let ended = Program::new(env!("CARGO_BIN_EXE_custom_transport")).arg("3").arg(observer.path()).run();
    assert!(ended.status.success(), "{ended:?}");
    ended.assert_shown_in_readme();
    let mut sent = observer.all();
    assert_eq!(sent.pop(), Some(GOODBYE));
    let frames = beats(sent);
    let [hello, beaten @ .., goodbye] = &ended.stdout[..] else { panic!("{ended:?}") };
    assert!(hello.starts_with("Hello, ") && goodbye.starts_with("Goodbye, "), "{hello} {goodbye}");
    assert_eq!((beaten.len(), frames.len()), (3, 3));
    for (line, frame) in beaten.iter().zip(frames) {
        let hex: String = frame.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(line.replace(' ', "").starts_with(&hex), "{line}");
        assert!(line.ends_with(&format!("beat {}: ok, payload {}", frame.nonce, frame.payload)), "{line}");
        assert_eq!(u64::from(frame.payload), frame.nonce * 100);
    }
}

#[test]
fn demo_gets_the_verdicts_it_wants_and_leaves_nothing_behind() {
    let scratch = tempfile::tempdir().unwrap();
    let started = Instant::now();
    // Its processes have its standard error, so its end is the end of the last of them.
    let run = || Program::new(env!("CARGO_BIN_EXE_demo")).scratch(scratch.path()).run();
    let mut ended = run();
    // On a busy machine the look at a process may come too late for the verdict, which has no reason then:
    // such a run shows nothing.
    while ended.stdout.iter().any(|line| line.contains("stalled: silent")) && started.elapsed() < LIMIT {
        ended = run();
    }
    assert!(ended.status.success(), "{ended:?}");
    ended.assert_shown_in_readme();
    assert_eq!(
        ended.stdout.last().unwrap(),
        "Every conclusion was as it must be, and there was none about worker-a."
    );
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn the_readme_has_every_program_and_its_command() {
    let readme = readme();
    assert!(readme.contains("cargo run --release -p varta-server\n"));
    let mut programs = 0;
    for file in fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "rs") {
            let name = file.file_stem().unwrap().to_str().unwrap();
            let command = format!("cargo run -p varta-examples --bin {name}");
            assert!(readme.contains(&format!("\n## `{name}`\n")), "{name} has no heading");
            assert!(readme.contains(&command), "`{command}` is not in the README");
            let head = fs::read_to_string(&file).unwrap();
            assert!(head.contains(&format!("//! {command}")), "{name} has no command that runs it");
            programs += 1;
        }
    }
    assert_eq!(readme.matches("\n## `").count(), programs, "a heading of a program that is not there");
}

/// What arrives where a server might listen.
#[derive(Debug, PartialEq)]
enum Sent {
    Beat(Frame),
    /// With the name in it.
    Hello(String),
    Goodbye(Option<GoodbyeReason>),
}

impl Sent {
    fn read(datagram: &[u8]) -> Self {
        match Frame::decode(datagram) {
            Ok(frame) => Sent::Beat(frame),
            Err(_) => {
                let control = Control::decode(datagram).unwrap();
                match control.kind() {
                    ControlKind::Hello => {
                        Sent::Hello(control.name().map(ToString::to_string).unwrap_or_default())
                    }
                    _ => Sent::Goodbye(control.reason()),
                }
            }
        }
    }
}

/// The frames of datagrams, of which each session begins with its name and none is a goodbye.
fn beats(sent: Vec<Sent>) -> Vec<Frame> {
    let frame = |sent| match sent {
        Sent::Beat(frame) => Some(frame),
        Sent::Hello(name) => {
            assert!(!name.is_empty());
            None
        }
        Sent::Goodbye(_) => panic!("a goodbye before the last beat"),
    };
    sent.into_iter().filter_map(frame).collect()
}

/// A socket on which a server might listen, and what arrives there.
struct Observer {
    dir: TempDir,
    sent: Receiver<Sent>,
}

impl Observer {
    fn listen() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("varta.sock")).unwrap();
        let (to_sent, sent) = mpsc::channel();
        thread::spawn(move || {
            let mut datagram = [0; 1024];
            // An empty datagram is the end.
            while let Ok(length @ 1..) = socket.recv(&mut datagram) {
                let _ = to_sent.send(Sent::read(&datagram[..length]));
            }
        });
        Observer { dir, sent }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("varta.sock")
    }

    /// Waits for the next datagram.
    fn await_any(&self) {
        self.sent.recv_timeout(LIMIT).unwrap();
    }

    /// All that was sent until now.
    fn all(self) -> Vec<Sent> {
        UnixDatagram::unbound().unwrap().send_to(&[], self.path()).unwrap();
        self.sent.iter().collect()
    }
}

/// A program that has not been started.
struct Program(Command);

impl Program {
    fn new(path: &str) -> Self {
        let mut command = Command::new(path);
        command.env_remove("VARTA_SOCKET").env_remove("RUST_BACKTRACE");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Program(command)
    }

    fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.0.arg(argument);
        self
    }

    fn socket_of_this_host(mut self, path: &Path) -> Self {
        self.0.env("VARTA_SOCKET", path);
        self
    }

    fn scratch(mut self, dir: &Path) -> Self {
        self.0.env("TMPDIR", dir);
        self
    }

    fn start(mut self) -> Running {
        let child = self.0.spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        let (to_sent, output) = mpsc::channel();
        thread::spawn(move || to_sent.send(child.wait_with_output().unwrap()));
        Running { pid, output }
    }

    fn run(self) -> Ended {
        self.start().finish()
    }
}

struct Running {
    pid: Pid,
    output: Receiver<Output>,
}

impl Running {
    /// Waits until the program has ended, and all others that have its outputs.
    fn finish(self) -> Ended {
        let Ok(Output { status, stdout, stderr }) = self.output.recv_timeout(LIMIT) else {
            let _ = kill(self.pid, Signal::SIGKILL);
            panic!("does not end within {LIMIT:?}");
        };
        let stdout = String::from_utf8(stdout).unwrap().lines().map(str::to_owned).collect();
        Ended { status, stdout, stderr: String::from_utf8(stderr).unwrap() }
    }
}

/// A program that has ended.
#[derive(Debug)]
struct Ended {
    status: ExitStatus,
    /// Its standard output, by lines.
    stdout: Vec<String>,
    /// Its standard error.
    stderr: String,
}

impl Ended {
    /// Checks that the README shows each line of the output, with whatever numbers.
    fn assert_shown_in_readme(&self) {
        let readme = readme();
        let shown: Vec<String> = readme.lines().map(shape).collect();
        for line in &self.stdout {
            assert!(shown.contains(&shape(line)), "the README does not show: {line}");
        }
    }
}

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// What of a line is the same each time: its words, with `#` for every number.
fn shape(line: &str) -> String {
    let mut shape = String::new();
    for word in line.split_whitespace() {
        // Eight bytes of a frame.
        let is_hex = word.len() == 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        for character in if is_hex { "0" } else { word }.chars() {
            if !character.is_ascii_digit() {
                shape.push(character);
            } else if !shape.ends_with('#') {
                shape.push('#');
            }
        }
        shape.push(' ');
    }
    shape
}

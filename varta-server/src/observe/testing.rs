//! Child processes for tests: each does one thing, and is killed and reaped when the test ends.

use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroU64;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::observe::procfs::tests;
use crate::observe::stat::Stat;

/// A test that waits longer has failed. It is no measure of speed, and no test that succeeds waits so long.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Environment variables: the part of [`helper`] that a child plays, and an argument for it.
pub(crate) const PART: &str = "VARTA_TEST_HELPER";
pub(crate) const ARGUMENT: &str = "VARTA_TEST_ARGUMENT";

/// Waits until `condition` holds; `what` says the condition in words.
#[track_caller]
pub(crate) fn await_that(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether this kernel (from Linux 6.15) provides the exit status of processes that are no children.
pub(crate) fn kernel_tells_exits() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

/// A child that is killed and reaped on drop.
pub(crate) struct Child {
    process: std::process::Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Child {
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().unwrap());
        Child { process, input, output }
    }

    pub(crate) fn shell(script: &str) -> Self {
        Child::start(Command::new("sh").args(["-c", script]))
    }

    /// Runs this very test program as one part of [`helper`].
    pub(crate) fn playing(part: &str) -> Self {
        Child::playing_at(part, Path::new(""))
    }

    /// Runs a part of [`helper`] with a path as its argument.
    pub(crate) fn playing_at(part: &str, path: &Path) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        command.args(["--exact", "observe::testing::helper", "--nocapture"]);
        Child::start(command.env(PART, part).env(ARGUMENT, path))
    }

    /// A program that waits for a line, past its start and with no other work.
    pub(crate) fn asleep() -> Self {
        let mut child = Child::start(&mut Command::new("cat"));
        child.say("are you there?");
        child.hear("are you there?");
        let pid = child.pid();
        await_that("it sleeps", || Stat::of_process(pid).is_some_and(|stat| stat.state == b'S'));
        child
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn start_time(&self) -> NonZeroU64 {
        Stat::of_thread(self.pid(), self.pid()).unwrap().start_time
    }

    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Reads lines from the child until one equals `wanted`.
    pub(crate) fn hear(&mut self, wanted: &str) {
        let mut line = String::new();
        while line.trim_end() != wanted {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "it ended without saying {wanted}");
        }
    }

    pub(crate) fn close_input(&mut self) {
        self.input.take();
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits for the end of the child, and reaps it.
    pub(crate) fn reap(&mut self) {
        self.process.wait().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Not a test: the body of a child that [`Child::playing`] started. Without a part it does nothing.
#[test]
fn helper() {
    let Ok(part) = std::env::var(PART) else { return };
    let mut lines = std::io::stdin().lines().map_while(Result::ok);
    match part.as_str() {
        // Threads end, and the process goes on.
        "threads" => {
            for _ in lines.by_ref() {
                std::thread::spawn(|| ()).join().unwrap();
                println!("\na thread ended");
            }
            std::process::exit(4);
        }
        // A thread other than the main thread calls exec, which ends all other threads.
        "exec" => {
            lines.next();
            let thread = std::thread::spawn(|| {
                let exec = "echo; echo another program; read line; exit 5";
                std::os::unix::process::CommandExt::exec(Command::new("sh").args(["-c", exec]))
            });
            panic!("{}", thread.join().unwrap());
        }
        "busy" => {
            println!("\nbusy");
            loop {
                std::hint::spin_loop();
            }
        }
        "many threads" => {
            for _ in 0..100 {
                std::thread::spawn(std::thread::park);
            }
            println!("\nall are there");
            let _ = lines.next();
        }
        "blocked" => tests::be_blocked(Path::new(&std::env::var_os(ARGUMENT).unwrap())),
        "stranger" => tests::be_stranger(std::env::var(ARGUMENT).unwrap().parse().unwrap()),
        other => panic!("there is no part {other}"),
    }
}

//! Real processes for the tests of this module: children that do one thing, and are gone when the test is.

use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroU64;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::observe::procfs::tests;
use crate::observe::stat::Stat;

/// A test that waits longer has failed. It is no measure of speed, and no test that succeeds waits so long.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Names the part of [`helper`] that a child is to play, and something that it is to know.
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

/// Whether this kernel tells how a process died that is no child of ours: from Linux 6.15.
pub(crate) fn kernel_tells_exits() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

/// A child that is killed and reaped at the end.
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

    /// This very test program, playing one part of [`helper`] and nothing else.
    pub(crate) fn playing(part: &str) -> Self {
        Child::playing_at(part, Path::new(""))
    }

    /// The same, with a path that the part is about.
    pub(crate) fn playing_at(part: &str, path: &Path) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        command.args(["--exact", "observe::testing::helper", "--nocapture"]);
        Child::start(command.env(PART, part).env(ARGUMENT, path))
    }

    /// A program that waits for a line. It is past its start, and runs no more than that.
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

    /// Waits until it writes this line; others are passed over.
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

    /// Asks for its status, as a parent does; waits for its end.
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

/// No test: what a child does that [`Child::playing`] started. Without a part it does nothing.
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
        // A thread that is not the main one becomes another program, which ends every other thread.
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

//! A process that beats and obeys commands.
//!
//! Whatever the program is, it speaks one language: a line that begins with `ready` after its first beat, and
//! one line for each command that it was given.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;

use crate::foreign;
use crate::programs::{await_exit, foreign_worker_command, worker_command};
use crate::retry::{LIMIT, or_fail, wait_until};
use crate::route::Route;
use crate::sys::{self, Signal};

/// Does what the program `it-foreign` does.
const PYTHON_AGENT: &str = include_str!("foreign_agent.py");

/// A running agent. It is killed when this is dropped, and a child that it may have forked ends by itself.
#[derive(Debug)]
pub struct AgentProcess {
    child: Child,
    stdin: Option<ChildStdin>,
    replies: Receiver<String>,
}

impl AgentProcess {
    /// Starts one of ours that beats to the socket at this path, and waits until its first beat is on its
    /// way.
    #[must_use]
    #[track_caller]
    pub fn start(socket: &Path, arguments: &[&str]) -> Self {
        Self::start_on(&Route::Unix(socket.into()), arguments)
    }

    /// Starts one of ours on any route.
    #[must_use]
    #[track_caller]
    pub fn start_on(route: &Route, arguments: &[&str]) -> Self {
        let mut command = worker_command();
        command.args(route.arguments()).args(arguments);
        Self::run(command)
    }

    /// Starts one of the published Rust client.
    #[must_use]
    #[track_caller]
    pub fn start_foreign(route: &Route) -> Self {
        let mut command = foreign_worker_command();
        command.args(route.arguments());
        Self::run(command)
    }

    /// Starts one of the published Python client; `None` where that [was not fetched](foreign::command).
    #[must_use]
    #[track_caller]
    pub fn start_python(route: &Route) -> Option<Self> {
        let mut command = foreign::command("venv/bin/python")?;
        command.args(["-c", PYTHON_AGENT]).args(route.arguments());
        Some(Self::run(command))
    }

    /// Starts any program that speaks the language, and waits for its first word.
    #[must_use]
    #[track_caller]
    pub fn run(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let stdin = child.stdin.take();
        let (to_replies, replies) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if to_replies.send(line).is_err() {
                    return;
                }
            }
        });
        let agent = AgentProcess { child, stdin, replies };
        let first = agent.reply("start");
        assert!(first.starts_with("ready"), "{command:?} says {first}");
        agent
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives it a command, and waits for the answer.
    #[track_caller]
    pub fn ask(&mut self, command: &str) -> String {
        let stdin = self.stdin.as_mut().expect("its input is open as long as it lives");
        or_fail(
            writeln!(stdin, "{command}").map_err(|error| format!("{command} cannot be sent to it: {error}")),
        );
        let reply = self.reply(command);
        assert!(!reply.starts_with("error"), "to {command} it says {reply}");
        reply
    }

    /// Has one of ours fork, and gives the pid of the child, which beats on with the handles that it has
    /// inherited.
    #[track_caller]
    pub fn fork(&mut self) -> u32 {
        let reply = self.ask("fork");
        let child = reply.strip_prefix("ok ").and_then(|pid| pid.parse().ok());
        or_fail(child.ok_or_else(|| format!("to fork it says {reply}")))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        sys::send_signal(self.pid(), signal).expect("a child that was not waited for can be signalled");
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        or_fail(await_exit(&mut self.child).ok_or_else(|| format!("it has not ended within {LIMIT:?}")))
    }

    /// Waits until it is dead, and does not reap it.
    ///
    /// # Panics
    ///
    /// After [`LIMIT`].
    #[track_caller]
    pub fn await_zombie(&self) {
        let pid = self.pid();
        wait_until(&format!("{pid} has ended"), || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with("State:\tZ"))
        });
    }

    #[track_caller]
    fn reply(&self, command: &str) -> String {
        match self.replies.recv_timeout(LIMIT) {
            Ok(reply) => reply,
            Err(RecvTimeoutError::Timeout) => panic!("it does not answer to {command} within {LIMIT:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("it ended and did not answer to {command}"),
        }
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        // With this a forked child ends.
        self.stdin.take();
        // It may have ended already; a failure here has no consequence.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! A command that runs under `varta-server exec`.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::programs::{Ended, await_exit, children, server_command};
use crate::retry::{LIMIT, or_fail, wait_for, wait_until};
use crate::sys::{self, Signal};

/// A command line of `exec` that beats to the socket at this path. `command` comes after `--`.
#[must_use]
pub fn exec_command(socket: &Path, options: &[&str], command: &[&str]) -> Command {
    let mut exec = server_command();
    exec.arg("exec").arg("--socket").arg(socket).args(options).arg("--").args(command);
    exec
}

/// A running `exec`, whose output is read. It is killed when this is dropped, and its command with it.
#[derive(Debug)]
pub struct ExecProcess {
    child: Child,
    streams: [Stream; 2],
}

#[derive(Debug)]
struct Stream {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Stream {
    fn read(stream: Option<impl Read + Send + 'static>) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&text);
        let reader = thread::spawn(move || {
            let Some(mut stream) = stream else { return };
            let mut room = [0; 4096];
            // What came before an error is still worth showing.
            while let Ok(length @ 1..) = stream.read(&mut room) {
                let piece = String::from_utf8_lossy(&room[..length]);
                shared.lock().unwrap_or_else(PoisonError::into_inner).push_str(&piece);
            }
        });
        Stream { text, reader: Some(reader) }
    }

    fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ExecProcess {
    /// Starts a shell script under exec.
    #[must_use]
    #[track_caller]
    pub fn start(socket: &Path, options: &[&str], script: &str) -> Self {
        Self::run(exec_command(socket, options, &["sh", "-c", script]))
    }

    /// Starts a command line of exec.
    #[must_use]
    #[track_caller]
    pub fn run(mut command: Command) -> Self {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = or_fail(spawned.map_err(|error| format!("{command:?} cannot be started: {error}")));
        let streams = [Stream::read(child.stdout.take()), Stream::read(child.stderr.take())];
        ExecProcess { child, streams }
    }

    /// The pid of exec, which is that of the agent.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The pid of the command.
    #[must_use]
    #[track_caller]
    pub fn command_pid(&self) -> u32 {
        let found = wait_for(|| children(self.pid()).first().copied());
        or_fail(found.ok_or_else(|| format!("exec starts nothing, and says {}", self.said())))
    }

    /// What was printed to standard output until now.
    #[must_use]
    pub fn printed(&self) -> String {
        self.streams[0].text()
    }

    /// What was printed to standard error until now.
    #[must_use]
    pub fn said(&self) -> String {
        self.streams[1].text()
    }

    /// Waits until this was printed to standard output.
    #[track_caller]
    pub fn await_printed(&self, part: &str) {
        let what = format!("{part:?} is printed");
        wait_until(&what, || self.printed().contains(part));
    }

    /// Waits until this was printed to standard error.
    #[track_caller]
    pub fn await_said(&self, part: &str) {
        let what = format!("{part:?} is said");
        wait_until(&what, || self.said().contains(part));
    }

    /// Gives the command a line.
    #[track_caller]
    pub fn tell(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("its input is open as long as it lives");
        or_fail(writeln!(stdin, "{line}").map_err(|error| format!("{line:?} cannot be sent to it: {error}")));
    }

    /// Sends exec a signal.
    pub fn signal(&self, signal: Signal) {
        sys::send_signal(self.pid(), signal).expect("a child that was not waited for can be signalled");
    }

    /// Waits until it has ended.
    #[must_use]
    #[track_caller]
    pub fn wait(mut self) -> Ended {
        let status = await_exit(&mut self.child);
        let status: ExitStatus = or_fail(status.ok_or_else(|| {
            format!("it has not ended within {LIMIT:?}; it printed\n{}\n{}", self.printed(), self.said())
        }));
        for stream in &mut self.streams {
            if let Some(reader) = stream.reader.take() {
                reader.join().expect("a thread that only reads does not panic");
            }
        }
        Ended { status, stdout: self.printed(), stderr: self.said() }
    }
}

impl Drop for ExecProcess {
    fn drop(&mut self) {
        // It has ended, or does by that.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

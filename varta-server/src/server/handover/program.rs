//! The program that a server starts in its place.

use std::env;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::oneshot;

use crate::base::children::{self, OwnChild};
use crate::observe::pidfd::Pidfd;

/// The variables by which a service manager speaks to one process only.
const OF_ONE_PROCESS: [&str; 5] =
    ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "WATCHDOG_PID"];
/// The most of its last words that are kept, in bytes.
const LAST_WORDS: usize = 2_048;
/// The longest wait for them after its end.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(1);
/// The option that has a server take over.
const TAKE_OVER: &str = "--take-over";

/// A program with its arguments: the one that is at its path when it is started.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

/// A started program.
#[derive(Debug)]
pub(super) struct StartedProgram {
    child: OwnChild,
    pidfd: Option<Pidfd>,
    last_words: Arc<Mutex<Vec<u8>>>,
    /// Closed when nothing more is written.
    silent: Receiver<()>,
}

impl Program {
    /// The program of this process, with its arguments. To be called at the start: later, the file may be another.
    ///
    /// # Errors
    ///
    /// `/proc` does not say where it is.
    pub fn of_this_process() -> io::Result<Self> {
        let path = env::current_exe()?;
        // What the kernel appends when the file was replaced.
        let bytes = path.as_os_str().as_bytes();
        let path = match bytes.strip_suffix(b" (deleted)") {
            Some(before) => PathBuf::from(std::ffi::OsStr::from_bytes(before)),
            None => path,
        };
        Ok(Program { path, arguments: env::args_os().skip(1).collect() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Starts it, to take over. What it writes to standard error comes out of this process's own.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub(super) fn start(&self) -> io::Result<StartedProgram> {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).arg(TAKE_OVER).stdin(Stdio::null()).stderr(Stdio::piped());
        for variable in OF_ONE_PROCESS {
            command.env_remove(variable);
        }
        let mut child = children::spawn(&mut command)?;
        let pidfd = Pidfd::open(child.id()).ok();
        let last_words = Arc::default();
        let (writes, silent) = mpsc::channel::<()>();
        if let Some(stderr) = child.take_stderr() {
            let words = Arc::clone(&last_words);
            let forward = move || {
                forward(stderr, &words);
                drop(writes);
            };
            thread::Builder::new().name("varta-upgrade".to_owned()).spawn(forward)?;
        }
        Ok(StartedProgram { child, pidfd, last_words, silent })
    }
}

impl StartedProgram {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What its end will be, with its last words.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub(super) fn end(self) -> io::Result<oneshot::Receiver<String>> {
        let (tell, told) = oneshot::channel();
        // A thread that nobody waits for when this server ends before.
        let wait = move || {
            let _ = tell.send(self.wait());
        };
        thread::Builder::new().name("varta-upgrade".to_owned()).spawn(wait)?;
        Ok(told)
    }

    fn wait(mut self) -> String {
        let status = self.child.wait();
        // What it has started may write for longer.
        let _ = self.silent.recv_timeout(LAST_WORDS_WITHIN);
        let how = status.map_or_else(|error| error.to_string(), |status: ExitStatus| status.to_string());
        let words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        let words = String::from_utf8_lossy(&words);
        let last: Vec<_> = words.lines().filter(|line| !line.trim().is_empty()).collect();
        match last.last() {
            Some(last) => format!("it has ended ({how}), and its last words are: {last}"),
            None => format!("it has ended ({how}) without a word"),
        }
    }

    /// What ends it for sure.
    pub(super) fn killer(&self) -> impl FnOnce() + Send + 'static {
        let pidfd = self.pidfd.as_ref().and_then(|pidfd| pidfd.as_fd().try_clone_to_owned().ok());
        move || {
            if let Some(pidfd) = pidfd {
                // It may have ended.
                let _ = Pidfd::of_sender(pidfd).send_signal(Signal::SIGKILL);
            }
        }
    }
}

/// Copies what comes to standard error, and keeps the end of it.
fn forward(mut from: impl Read, last_words: &Mutex<Vec<u8>>) {
    let mut room = [0; 4_096];
    while let Ok(length @ 1..) = from.read(&mut room) {
        // Whether anybody hears it makes no difference.
        let _ = io::stderr().write_all(&room[..length]);
        let mut words = last_words.lock().unwrap_or_else(PoisonError::into_inner);
        words.extend_from_slice(&room[..length]);
        let surplus = words.len().saturating_sub(LAST_WORDS);
        words.drain(..surplus);
    }
}

//! The commands of a test to an agent's process: lines on its standard input.
//!
//! They are read without a thread and without a shared buffer, because the process forks and calls `exec`
//! between two of them.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use crate::sys::{self, Readiness};

/// The lines that come in.
#[derive(Debug)]
pub struct Commands {
    input: File,
    unread: Vec<u8>,
    only_end: bool,
}

/// What one read gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceivedCommand {
    /// A command.
    Line(String),
    /// Nothing within the time.
    Nothing,
    /// The test has gone.
    End,
}

/// The exit status of an agent's process. A failure is told to the test by a line that begins with `error`.
#[must_use]
pub fn exit_code(result: Result<(), Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stdout, reason = "this is how an agent's process answers")]
            {
                println!("error {error}");
            }
            ExitCode::FAILURE
        }
    }
}

impl Commands {
    /// Commands from standard input.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn from_stdin() -> io::Result<Self> {
        let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Commands { input, unread: Vec::new(), only_end: false })
    }

    /// Reads no more commands, and waits only for the end: a forked child must not read what is for its
    /// parent.
    pub fn stop_reading(&mut self) {
        self.only_end = true;
    }

    /// The next command, if one comes within `limit`.
    ///
    /// # Errors
    ///
    /// The error of the kernel.
    pub fn next(&mut self, limit: Duration) -> io::Result<ReceivedCommand> {
        if let Some(line) = self.take_line() {
            return Ok(ReceivedCommand::Line(line));
        }
        match sys::wait_readable(self.input.as_fd(), self.only_end, limit)? {
            Readiness::Nothing => return Ok(ReceivedCommand::Nothing),
            Readiness::HungUp => return Ok(ReceivedCommand::End),
            Readiness::Readable => {}
        }
        let mut buffer = [0; 256];
        match self.input.read(&mut buffer)? {
            0 => Ok(ReceivedCommand::End),
            length => {
                self.unread.extend_from_slice(&buffer[..length]);
                Ok(self.take_line().map_or(ReceivedCommand::Nothing, ReceivedCommand::Line))
            }
        }
    }

    fn take_line(&mut self) -> Option<String> {
        let end = self.unread.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.unread.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line[..end]).into_owned())
    }
}

//! What a test tells an agent's process: lines on its standard input.
//!
//! Read without a thread and without a buffer that somebody else might share, because the process forks and calls `exec`
//! in the middle of it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::Duration;

use crate::sys::{self, Readiness};

/// The lines that come in.
#[derive(Debug)]
pub struct Commands {
    input: File,
    unread: Vec<u8>,
    deaf: bool,
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A command.
    Line(String),
    /// Nothing within the time.
    Nothing,
    /// The test has gone.
    End,
}

impl Commands {
    /// Commands from standard input.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn from_stdin() -> io::Result<Self> {
        let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Commands { input, unread: Vec::new(), deaf: false })
    }

    /// Takes no more commands, and listens only for the end: a forked child must not read what is for its parent.
    pub fn grow_deaf(&mut self) {
        self.deaf = true;
    }

    /// The next command, if one comes within `patience`.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn next(&mut self, patience: Duration) -> io::Result<Heard> {
        if let Some(line) = self.take_line() {
            return Ok(Heard::Line(line));
        }
        match sys::wait_readable(self.input.as_fd(), self.deaf, patience)? {
            Readiness::Nothing => return Ok(Heard::Nothing),
            Readiness::HungUp => return Ok(Heard::End),
            Readiness::Readable => {}
        }
        let mut buffer = [0; 256];
        match self.input.read(&mut buffer)? {
            0 => Ok(Heard::End),
            length => {
                self.unread.extend_from_slice(&buffer[..length]);
                Ok(self.take_line().map_or(Heard::Nothing, Heard::Line))
            }
        }
    }

    fn take_line(&mut self) -> Option<String> {
        let end = self.unread.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.unread.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line[..end]).into_owned())
    }
}

//! Standard output of the commands.

use std::io::{self, Write};

use crate::base::error::Error;

/// Prints the result of a command.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    match io::stdout().write_all(text.as_bytes()) {
        // The reader has closed the pipe, and wants no more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|source| Error::Runtime { action: "print the result", source }),
    }
}

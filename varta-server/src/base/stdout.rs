use std::io::{self, Write};

use crate::base::error::Error;

/// Prints what a task has to say.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    match io::stdout().write_all(text.as_bytes()) {
        // Who reads it has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|source| Error::Runtime { action: "print the result", source }),
    }
}

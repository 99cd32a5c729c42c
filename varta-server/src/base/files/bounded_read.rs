use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::base::error::Error;
use crate::base::options::table::line_at;

/// A file that is longer than this was not written by people.
pub(crate) const LONGEST_FILE: u64 = 1 << 20;

/// Reads the text, and says what ought to be otherwise with the file.
pub(crate) fn read_text(path: &Path) -> Result<(String, Option<String>), Error> {
    let unusable = |fault: String| Error::configuration_file(path, fault);
    let failed = |error: io::Error| unusable(format!("cannot be read: {error}"));
    // Without waiting: a pipe that nobody writes to would hold up the start for ever.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(unusable("is not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    // One more than there may be, and not what its length was a moment ago.
    file.take(LONGEST_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LONGEST_FILE {
        return Err(unusable(format!("is longer than {} KiB", LONGEST_FILE >> 10)));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = line_at(error.as_bytes(), error.utf8_error().valid_up_to());
        Error::ConfigLine { path: path.to_path_buf(), line, fault: "is not UTF-8 text".to_owned() }
    })?;
    let us = nix::unistd::geteuid().as_raw();
    let who = if found.mode() & 0o002 != 0 {
        Some(format!("everybody may write to it (mode {:04o}); chmod o-w it", found.mode() & 0o7777))
    } else if found.uid() != us && found.uid() != 0 {
        Some(format!("it belongs to uid {}, which is neither this server's nor root", found.uid()))
    } else {
        None
    };
    let warning =
        who.map(|who| format!("{}: {who}: who can change it decides what this server does", path.display()));
    Ok((text, warning))
}

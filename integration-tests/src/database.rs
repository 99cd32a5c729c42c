//! What a server has written into the database of its state directory, as bytes.

use std::fs;
use std::path::Path;

use crate::retry::wait_until;

/// The database's file and the log of what was written since.
#[must_use]
pub fn read_database(state: &Path) -> Vec<u8> {
    // A file that is not there yet has nothing in it.
    ["varta.db", "varta.db-wal"].map(|name| fs::read(state.join(name)).unwrap_or_default()).concat()
}

/// Waits until each of these names is written.
#[track_caller]
pub fn await_in_database(state: &Path, names: &[&str]) {
    wait_until(&format!("{names:?} are in the database"), || {
        let written = read_database(state);
        names.iter().all(|name| written.windows(name.len()).any(|bytes| bytes == name.as_bytes()))
    });
}

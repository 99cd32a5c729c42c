//! A directory of a test's own.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A directory for what outlives one server: sockets, state, configuration, and what commands leave behind.
/// It is removed when this is dropped.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// Makes an empty directory.
    #[must_use]
    pub fn make() -> Self {
        let made = tempfile::Builder::new().prefix("varta-it-").tempdir();
        Scratch(made.expect("there is a place for temporary directories"))
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.0.path()
    }

    /// The path of a file in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// The path for the socket of a server.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path("varta.sock")
    }

    /// The path for the state of a server.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Writes a file, and gives its path.
    #[track_caller]
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// The lines of a file; none of one that is not there.
    #[must_use]
    pub fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.path(name)).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

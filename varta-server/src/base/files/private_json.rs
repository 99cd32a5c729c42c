//! A small JSON file that this server writes for the next one, and replaces as a whole: a crash leaves the
//! old or the new.
//!
//! One that a newer server wrote is refused and stays as it is. One that makes no sense is moved aside.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::base::error::Error;
use crate::base::files::atomic;
use crate::base::files::bounded_read::{self, Checks, Owner, ReadError, Symlink};

/// A file with a version of its format in it, at `version` or `v`.
#[derive(Clone, Debug)]
pub(crate) struct PrivateJson {
    path: PathBuf,
    version: u64,
    checks: Checks,
}

/// Why a file was not taken.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It was not read.
    Unreadable(ReadError),
    /// It makes no sense.
    Broken(String),
}

#[derive(Deserialize)]
struct Versioned {
    #[serde(alias = "v")]
    version: u64,
}

impl PrivateJson {
    /// The file at `path`, of this version and at most `max_len` bytes. Nothing is done yet.
    pub(crate) fn new(path: PathBuf, version: u64, max_len: u64, owner: Owner) -> Self {
        PrivateJson { path, version, checks: Checks { max_len, symlink: Symlink::Refused, owner } }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses a file that a newer server wrote, which [`read`](PrivateJson::read) would take for a broken
    /// one.
    ///
    /// # Errors
    ///
    /// [`Error::NewerState`].
    pub(crate) fn refuse_newer(&self) -> Result<(), Error> {
        let Ok((content, _)) = bounded_read::read(&self.path, self.checks) else { return Ok(()) };
        match serde_json::from_slice(&content) {
            Ok(Versioned { version }) if version > self.version => {
                Err(Error::NewerState { path: self.path.clone(), form: "format", version })
            }
            // What is wrong with any other is found when it is read.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// What the file says by `parse`; `None` when there is none.
    ///
    /// # Errors
    ///
    /// Why it was not taken. It is as it was.
    pub(crate) fn read<T>(&self, parse: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<Option<T>, Fault> {
        match bounded_read::read(&self.path, self.checks) {
            Ok((content, _)) => parse(&content).map(Some).map_err(Fault::Broken),
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Fault::Unreadable(error)),
        }
    }

    /// Gives the file another name, with `.corrupt` behind it, and says in words what became of it.
    pub(crate) fn move_aside(&self) -> String {
        let mut aside = self.path.clone().into_os_string();
        aside.push(".corrupt");
        match fs::rename(&self.path, &aside) {
            Ok(()) => format!("it is {} now", aside.display()),
            Err(error) => format!("it cannot be moved aside: {error}"),
        }
    }

    /// Puts a new file in the place of the old one, and returns when it is on the disk. Only its owner can
    /// read it.
    ///
    /// # Errors
    ///
    /// What the system says. The old file is as it was; only if the directory could not be written out may it
    /// be either.
    pub(crate) fn write(&self, content: &[u8]) -> io::Result<()> {
        atomic::replace(&self.path, content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_in(directory: &tempfile::TempDir) -> PrivateJson {
        PrivateJson::new(directory.path().join("file.json"), 3, 100, Owner::OursOrRoot)
    }

    fn text(content: &[u8]) -> Result<String, String> {
        String::from_utf8(content.to_vec()).map_err(|_| "is not text".to_owned())
    }

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = file_in(&directory);
        assert_eq!(file.read(text).unwrap(), None);
        file.write(b"{}").unwrap();
        assert_eq!(file.read(text).unwrap().as_deref(), Some("{}"));
    }

    #[test]
    fn only_a_newer_version_is_refused_and_it_stays() {
        let directory = tempfile::tempdir().unwrap();
        let file = file_in(&directory);
        assert!(file.refuse_newer().is_ok());
        for content in ["", "{", "{}", "[]", r#"{"v":3}"#, r#"{"version":2,"more":1}"#, r#"{"v":"4"}"#] {
            file.write(content.as_bytes()).unwrap();
            assert!(file.refuse_newer().is_ok(), "{content}");
        }
        for content in [r#"{"v":4}"#, r#"{"more":[{}],"version":18446744073709551615}"#] {
            file.write(content.as_bytes()).unwrap();
            assert!(matches!(file.refuse_newer(), Err(Error::NewerState { .. })), "{content}");
            assert_eq!(file.read(text).unwrap().as_deref(), Some(content));
        }
    }

    #[test]
    fn a_broken_file_is_kept_under_another_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = file_in(&directory);
        file.write(b"\xff").unwrap();
        assert!(matches!(file.read(text), Err(Fault::Broken(fault)) if fault == "is not text"));
        let aside = directory.path().join("file.json.corrupt");
        assert_eq!(file.move_aside(), format!("it is {} now", aside.display()));
        assert_eq!((fs::read(&aside).unwrap(), file.read(text).unwrap()), (b"\xff".to_vec(), None));
        assert!(file.move_aside().starts_with("it cannot be moved aside: No such file"));
    }

    #[test]
    fn one_that_is_too_long_or_a_link_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = file_in(&directory);
        file.write(&[b' '; 101]).unwrap();
        let fault = file.read(text).unwrap_err();
        assert!(matches!(fault, Fault::Unreadable(ReadError::TooLong { max_len: 100 })));
        file.move_aside();
        std::os::unix::fs::symlink("/dev/zero", file.path()).unwrap();
        assert!(matches!(file.read(text), Err(Fault::Unreadable(ReadError::Symlink))));
    }
}

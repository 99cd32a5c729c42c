//! The state directory: private to the server's user, and used by one server at a time.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::error::Error;
use crate::base::files::append_log::is_at;
use crate::base::files::directory::make_directory;
use crate::base::files::lock::try_lock;
use crate::base::files::regular_file::{self, Symlink};
use crate::base::host_check::HostCheck;

const LOCK: &str = "varta.lock";
/// The most bytes read of the lock file: the digits of a pid, and some more.
const MAX_PID_LEN: u64 = 32;

/// A locked state directory. Each part of the server that writes to it holds a clone, so the lock outlives
/// the last write.
#[derive(Clone, Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    /// Locked until the last clone is dropped, however this process ends.
    lock: Arc<Mutex<File>>,
}

impl StateDir {
    /// Creates the directory if it is missing, checks that only this user may write to it, and locks it.
    ///
    /// # Errors
    ///
    /// It cannot be created or written to, belongs to another user, is writable for others, or another server
    /// holds the lock.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        Ok(StateDir { path: path.to_path_buf(), lock: Arc::new(Mutex::new(make_and_lock(path)?)) })
    }

    /// Takes over the directory, and the lock of it that the server before this one has passed, if that is this
    /// directory's.
    ///
    /// # Errors
    ///
    /// As for [`StateDir::open`].
    pub(crate) fn take_over(path: &Path, lock: File) -> Result<Self, Error> {
        let is_its = is_at(&lock, &path.join(LOCK)).unwrap_or(false);
        if !is_its {
            return Self::open(path);
        }
        Ok(StateDir { path: path.to_path_buf(), lock: Arc::new(Mutex::new(lock)) })
    }

    /// A second descriptor of the lock, for the server that takes over. The directory stays locked while one of
    /// them is open.
    ///
    /// # Errors
    ///
    /// Descriptors are short.
    pub(crate) fn pass_lock(&self) -> io::Result<File> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).try_clone()
    }

    /// Writes down that this process holds the lock.
    pub(crate) fn sign(&self) {
        // Only for the error message of another server.
        let _ = write_holder(&mut self.lock.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Checks that a directory can be used, or made. Nothing changes by it.
    pub(crate) fn check(path: &Path, host: &mut HostCheck) {
        if let Ok(found) = fs::metadata(path)
            && found.is_dir()
        {
            host.result(check_private(path, &found));
        }
        host.directory("--state-dir", path);
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the file that is locked.
    pub(crate) fn lock_path(&self) -> PathBuf {
        self.path.join(LOCK)
    }

    /// Whether the directory is still at its path, with the lock in it.
    ///
    /// # Errors
    ///
    /// The error of the kernel.
    pub(crate) fn is_in_place(&self) -> io::Result<bool> {
        is_at(&self.lock.lock().unwrap_or_else(PoisonError::into_inner), &self.lock_path())
    }

    /// Makes and locks the directory, or its lock, again if others have removed or moved it.
    ///
    /// # Errors
    ///
    /// As for [`StateDir::open`].
    pub(crate) fn keep_place(&self) -> Result<(), Error> {
        if !matches!(self.is_in_place(), Ok(true)) {
            let made = make_and_lock(&self.path)?;
            *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = made;
        }
        Ok(())
    }
}

fn make_and_lock(path: &Path) -> Result<File, Error> {
    let failed = |action| move |source| Error::StateDirectory { path: path.to_path_buf(), action, source };
    make_directory(path, 0o700).map_err(failed("make the directory for the state"))?;
    let found = fs::metadata(path).map_err(failed("look at the directory for the state"))?;
    check_private(path, &found)?;
    let file = path.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let opened = regular_file::open(&mut options, &file, Symlink::Refused);
    let (mut lock, _) = opened.map_err(|fault| Error::StateDirectory {
        path: file.clone(),
        action: "open the lock",
        source: fault.into(),
    })?;
    match try_lock(&lock) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Error::StateInUse { path: path.to_path_buf(), holder: read_holder(&mut lock) });
        }
        Err(TryLockError::Error(source)) => {
            return Err(Error::StateDirectory { path: file, action: "take the lock", source });
        }
    }
    // Only for the error message of a second server; the lock itself does not depend on it.
    if let Err(error) = write_holder(&mut lock) {
        tracing::warn!(
            target: "varta::state",
            "{}: cannot write who has the lock: {error}",
            file.display()
        );
    }
    Ok(lock)
}

/// Checks that only this user and root may write to a directory.
fn check_private(path: &Path, found: &Metadata) -> Result<(), Error> {
    let us = nix::unistd::geteuid().as_raw();
    if found.uid() != us && found.uid() != 0 || found.mode() & 0o022 != 0 {
        return Err(Error::UnsafeStateDirectory { path: path.to_path_buf() });
    }
    Ok(())
}

fn write_holder(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

/// The pid of the server that holds the lock, if it can be read.
fn read_holder(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.rewind().ok()?;
    lock.take(MAX_PID_LEN).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_missing_directory_is_made_and_closed_to_others() {
        let outside = tempfile::tempdir().unwrap();
        let path = outside.path().join("lib/varta");
        let directory = StateDir::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert_eq!(directory.path(), path);
    }

    #[test]
    fn a_second_server_is_refused_and_told_who_the_first_is() {
        let directory = tempfile::tempdir().unwrap();
        let first = StateDir::open(directory.path()).unwrap();
        let refused = StateDir::open(directory.path()).unwrap_err();
        assert_eq!(refused.exit_status(), 1);
        let said = refused.to_string();
        assert!(said.contains(&format!("pid {}", std::process::id())), "{said}");
        drop(first);
        StateDir::open(directory.path()).unwrap();
    }

    #[test]
    fn a_directory_that_was_moved_is_made_and_locked_again_and_so_is_a_lock_that_was_removed() {
        let outside = tempfile::tempdir().unwrap();
        let [path, moved] = ["varta", "moved"].map(|name| outside.path().join(name));
        let directory = StateDir::open(&path).unwrap();
        assert!(directory.is_in_place().unwrap());
        fs::rename(&path, &moved).unwrap();
        for _ in 0..2 {
            assert!(!directory.is_in_place().unwrap());
            directory.keep_place().unwrap();
            assert!(directory.is_in_place().unwrap());
            assert!(matches!(StateDir::open(&path), Err(Error::StateInUse { .. })));
            fs::remove_file(directory.lock_path()).unwrap();
        }
        drop(StateDir::open(&moved).unwrap());
        let other = StateDir::open(&path).unwrap();
        assert!(matches!(directory.keep_place(), Err(Error::StateInUse { .. })));
        drop(other);
        directory.keep_place().unwrap();
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o770, 0o707] {
            fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
            let refused = StateDir::open(directory.path()).unwrap_err();
            assert!(matches!(refused, Error::UnsafeStateDirectory { .. }), "{refused}");
            assert_eq!(refused.exit_status(), 1);
        }
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        StateDir::open(directory.path()).unwrap();
    }

    #[test]
    fn what_cannot_be_a_directory_is_refused_by_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [file.path().to_path_buf(), file.path().join("below")] {
            let refused = StateDir::open(&path).unwrap_err();
            assert_eq!(refused.exit_status(), 1);
            assert!(refused.to_string().starts_with(path.to_str().unwrap()), "{refused}");
        }
    }
}

//! A bound Unix socket as it is at present: where its file is, and by which options it is bound again. A reload
//! changes the group and the mode of its file.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::error::Error;
use crate::base::{FileAccess, SocketOptions, SocketPlace};

/// The present options and file of one socket. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct HeldSocket(Arc<Mutex<Held>>);

#[derive(Debug)]
struct Held {
    options: SocketOptions,
    place: SocketPlace,
    /// Whether this server has made the file: those of a service manager stay as that has made them.
    is_ours: bool,
}

impl HeldSocket {
    pub(super) fn new(options: SocketOptions, place: SocketPlace, is_ours: bool) -> Self {
        HeldSocket(Arc::new(Mutex::new(Held { options, place, is_ours })))
    }

    /// By what it is bound again.
    pub(super) fn options(&self) -> SocketOptions {
        self.lock().options.clone()
    }

    /// Where its file is.
    pub(super) fn place(&self) -> SocketPlace {
        self.lock().place.clone()
    }

    /// Whether this server has made the file.
    pub(super) fn is_ours(&self) -> bool {
        self.lock().is_ours
    }

    /// Notes that another socket is there in its place, with a file of this server.
    pub(super) fn is_replaced(&self, place: SocketPlace) {
        let mut held = self.lock();
        (held.place, held.is_ours) = (place, true);
    }

    /// Gives the file the group and the mode of these options, if they are others. `None` if they are not.
    ///
    /// # Errors
    ///
    /// The kernel refuses. Nothing has changed.
    pub(super) fn change(&self, mode: u32, group: Option<u32>) -> Result<Option<Changed>, Error> {
        let held = self.lock();
        if (held.options.mode, held.options.group) == (mode, group) {
            return Ok(None);
        }
        // A file that others have removed is made again by the new options.
        let is_changed = held.is_ours && held.place.is_held();
        let former = if is_changed { Some(held.place.give_access(mode, group)?) } else { None };
        let options = SocketOptions { mode, group, ..held.options.clone() };
        Ok(Some(Changed { socket: self.clone(), place: held.place.clone(), options, former, is_kept: false }))
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Another group and mode of a file. A drop takes them back.
#[derive(Debug)]
pub(super) struct Changed {
    socket: HeldSocket,
    place: SocketPlace,
    options: SocketOptions,
    former: Option<FileAccess>,
    is_kept: bool,
}

impl Changed {
    /// Keeps them.
    pub(super) fn keep(mut self) {
        self.is_kept = true;
        self.socket.lock().options = self.options.clone();
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        let Some(FileAccess { mode, gid }) = self.former.filter(|_| !self.is_kept) else { return };
        if self.place.is_held()
            && let Err(error) = self.place.give_access(mode, Some(gid))
        {
            tracing::error!(target: "varta::socket", "cannot take back the mode and group: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::base::{SocketFile, SocketFiles};

    #[test]
    fn a_change_of_mode_is_taken_back_unless_it_is_kept_and_the_next_socket_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("varta.sock");
        let options = SocketOptions { path: path.clone(), is_default: false, mode: 0o600, group: None };
        let (_socket, file) = SocketFile::bind(&options, &SocketFiles::default()).unwrap();
        let held = HeldSocket::new(options, file.place().clone(), true);
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert!(held.change(0o600, None).unwrap().is_none());
        drop(held.change(0o660, None).unwrap());
        assert_eq!((mode(), held.options().mode), (0o600, 0o600));
        held.change(0o660, None).unwrap().unwrap().keep();
        assert_eq!((mode(), held.options().mode), (0o660, 0o660));
    }

    #[test]
    fn a_group_that_cannot_be_given_is_an_error_and_a_file_that_others_have_made_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("varta.sock");
        let options = SocketOptions { path: path.clone(), is_default: false, mode: 0o600, group: None };
        let (_socket, file) = SocketFile::bind(&options, &SocketFiles::default()).unwrap();
        let gid = fs::metadata(&path).unwrap().gid();
        let given = HeldSocket::new(options.clone(), file.place().clone(), false);
        given.change(0o660, Some(gid)).unwrap().unwrap().keep();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let held = HeldSocket::new(options, file.place().clone(), true);
        fs::remove_file(&path).unwrap();
        held.change(0o660, None).unwrap().unwrap().keep();
        assert_eq!(held.options().mode, 0o660);
    }
}

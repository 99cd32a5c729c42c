//! The Unix sockets of a server and their files: which there are, and whether the files go with the sockets.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use socket2::Socket;

use crate::base::SocketPlace;

/// A bound Unix socket, and where its file is.
#[derive(Debug)]
pub(crate) struct BoundSocket {
    /// `None` when descriptors were short.
    pub(crate) socket: Option<OwnedFd>,
    pub(crate) place: SocketPlace,
    /// Whether the file is removed in the end.
    pub(crate) is_removed: bool,
    /// The datagrams that its queue holds, where that is known.
    pub(crate) queue: OnceLock<usize>,
}

/// The files of all Unix sockets that a server has bound or was given. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct SocketFiles(Arc<FilesInner>);

#[derive(Debug, Default)]
struct FilesInner {
    /// Whether they stay when their sockets are closed, because another server has these sockets.
    are_kept: AtomicBool,
    bound: Mutex<Vec<Weak<BoundSocket>>>,
}

impl SocketFiles {
    /// Leaves all files in place from now on, or removes them again.
    pub(crate) fn keep(&self, are_kept: bool) {
        self.0.are_kept.store(are_kept, Ordering::Relaxed);
    }

    /// Whether they stay.
    pub(super) fn are_kept(&self) -> bool {
        self.0.are_kept.load(Ordering::Relaxed)
    }

    /// The sockets whose files are in their places.
    pub(crate) fn held(&self) -> Vec<Arc<BoundSocket>> {
        let bound = self.0.bound.lock().unwrap_or_else(PoisonError::into_inner);
        bound.iter().filter_map(Weak::upgrade).filter(|bound| bound.place.is_held()).collect()
    }

    /// Adds a socket, and whether its file is removed in the end.
    pub(super) fn add(&self, socket: &Socket, place: SocketPlace, is_removed: bool) -> Arc<BoundSocket> {
        let socket = socket.as_fd().try_clone_to_owned().ok();
        let bound = Arc::new(BoundSocket { socket, place, is_removed, queue: OnceLock::new() });
        let mut all = self.0.bound.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|bound| bound.strong_count() > 0);
        all.push(Arc::downgrade(&bound));
        bound
    }
}

//! Sockets that the service manager keeps while the server is restarted, by its store of descriptors (`FDSTORE=1` in
//! sd_notify(3)): those to which others are connected who never connect again.
//!
//! Each has a name there, which says what cannot be asked of a socket: which file it was bound to, by device and inode,
//! and how long its queue is. With it a socket that comes back is known to be the one behind its path, or not.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use nix::sys::stat::fstat;
use socket2::{Domain, Socket, Type};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How the names of all begin.
const PREFIX: &str = "notify-socket-";

/// What the service manager keeps, and is to keep. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SocketStore(Arc<Store>);

#[derive(Debug, Default)]
struct Store {
    /// What has come back and was not taken.
    returned: Mutex<Vec<Returned>>,
    /// The names of all that has come back.
    names: Mutex<BTreeSet<String>>,
    kept: Mutex<Vec<Weak<KeptSocket>>>,
    changed: Notify,
    /// Cancelled when the server stops: until then, a socket that is closed is not wanted any more.
    stop: OnceLock<CancellationToken>,
}

/// A descriptor that has come back.
#[derive(Debug)]
struct Returned {
    socket: Socket,
    name: String,
}

/// A socket that is to be kept, as long as this lives.
#[derive(Debug)]
pub(crate) struct KeptSocket {
    socket: OwnedFd,
    name: String,
    is_stored: AtomicBool,
    store: Weak<Store>,
}

/// What the name of a socket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named {
    /// Device and inode of its file; zeros for an abstract name.
    file: (u64, u64),
    queue: Option<usize>,
}

impl Named {
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.split('-');
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let (device, inode, queue, _socket) = (number()?, number()?, number()?, number()?);
        let queue = usize::try_from(queue).ok().filter(|length| *length > 0);
        parts.next().is_none().then_some(Named { file: (device, inode), queue })
    }

    fn name(self, socket: u64) -> String {
        let ((device, inode), queue) = (self.file, self.queue.unwrap_or(0));
        format!("{PREFIX}{device:x}-{inode:x}-{queue:x}-{socket:x}")
    }
}

impl SocketStore {
    /// Whether a descriptor with this name is one that a server has had kept.
    pub(super) fn is_name(name: &str) -> bool {
        name.starts_with(PREFIX)
    }

    /// Adds a descriptor that has come back. What it is, is looked at when it is asked for.
    pub(super) fn add_returned(&self, descriptor: OwnedFd, name: String) {
        lock(&self.0.names).insert(name.clone());
        lock(&self.0.returned).push(Returned { socket: descriptor.into(), name });
    }

    /// Takes the datagram socket behind this path, and the length of its queue where that is known. One that was
    /// bound to the path and is not behind it any more is closed.
    pub(super) fn take_unix(&self, path: &Path) -> Option<(Socket, Option<usize>)> {
        let is_meant = |socket: &Socket| path_of(socket).is_some_and(|its| its == path);
        let file = fs::symlink_metadata(path).map(|found| (found.dev(), found.ino())).ok();
        self.take(is_meant, |named| {
            if file == Some(named.file) { Ok(()) } else { Err("another file, or none, is at its path") }
        })
    }

    /// Takes the datagram socket with this abstract name, likewise.
    pub(super) fn take_abstract(&self, name: &str) -> Option<(Socket, Option<usize>)> {
        let is_meant = |socket: &Socket| {
            socket.local_addr().is_ok_and(|at| at.as_abstract_namespace() == Some(name.as_bytes()))
        };
        self.take(is_meant, |_| Ok(()))
    }

    fn take(
        &self,
        is_meant: impl Fn(&Socket) -> bool,
        check: impl Fn(Named) -> Result<(), &'static str>,
    ) -> Option<(Socket, Option<usize>)> {
        let mut returned = lock(&self.0.returned);
        let mut taken = None;
        // Of several, such as one whose file was made anew, one at most is behind the path.
        for Returned { socket, name } in returned.extract_if(.., |given| is_meant(&given.socket)) {
            let is_datagram = socket.domain().is_ok_and(|its| its == Domain::UNIX)
                && socket.r#type().is_ok_and(|its| its == Type::DGRAM);
            let checked = match Named::parse(&name) {
                Some(named) if is_datagram => check(named).map(|()| named),
                _ => Err("it is no datagram socket of a server"),
            };
            match checked {
                Ok(named) if taken.is_none() => taken = Some((socket, named.queue)),
                Ok(_) => {}
                Err(fault) => tracing::warn!(
                    target: "varta::socket",
                    "a socket at {} that the service manager has kept is closed, and another is bound: {fault}",
                    address_of(&socket)
                ),
            }
        }
        taken
    }

    /// Closes what no option has taken, and removes its files.
    pub(crate) fn close_returned(&self) {
        for Returned { socket, name } in lock(&self.0.returned).drain(..) {
            tracing::info!(
                target: "varta::socket",
                "a socket at {} that the service manager has kept is closed: no option names it",
                address_of(&socket)
            );
            let file = Named::parse(&name).map(|named| named.file);
            let is_its = |found: &fs::Metadata| Some((found.dev(), found.ino())) == file;
            if let Some(path) = path_of(&socket)
                && fs::symlink_metadata(&path).is_ok_and(|found| is_its(&found))
            {
                // A file that stays is one of a server that has ended, and is replaced by the next.
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Has a socket kept as long as the result lives; `None` where descriptors are short. `file` is device and inode of
    /// its file.
    pub(crate) fn keep(
        &self,
        socket: BorrowedFd<'_>,
        file: Option<(u64, u64)>,
        queue: Option<usize>,
    ) -> Option<Arc<KeptSocket>> {
        let number = fstat(socket).ok()?.st_ino;
        let name = Named { file: file.unwrap_or_default(), queue }.name(number);
        let socket = socket.try_clone_to_owned().ok()?;
        let store = Arc::downgrade(&self.0);
        let kept = Arc::new(KeptSocket { socket, name, is_stored: AtomicBool::new(false), store });
        let mut all = lock(&self.0.kept);
        all.retain(|kept| kept.strong_count() > 0);
        all.push(Arc::downgrade(&kept));
        drop(all);
        self.0.changed.notify_one();
        Some(kept)
    }

    /// The sockets that are to be kept.
    pub(crate) fn kept(&self) -> Vec<Arc<KeptSocket>> {
        lock(&self.0.kept).iter().filter_map(Weak::upgrade).collect()
    }

    /// The names under which the service manager had something at the start.
    pub(crate) fn returned_names(&self) -> BTreeSet<String> {
        lock(&self.0.names).clone()
    }

    /// Waits until others are to be kept than when this was asked last.
    pub(crate) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Sets what is cancelled when the server stops.
    pub(crate) fn set_stop(&self, stop: &CancellationToken) {
        self.0.stop.get_or_init(|| stop.clone());
    }
}

impl KeptSocket {
    /// Its name in the store.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Notes that the service manager was given it.
    pub(crate) fn note_stored(&self) {
        self.is_stored.store(true, Ordering::Relaxed);
    }

    /// Whether it goes on without this server, which stops.
    pub(crate) fn outlives_server(&self) -> bool {
        let is_stopping = |store: Arc<Store>| store.stop.get().is_some_and(CancellationToken::is_cancelled);
        self.is_stored.load(Ordering::Relaxed) && self.store.upgrade().is_some_and(is_stopping)
    }
}

impl AsFd for KeptSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for KeptSocket {
    fn drop(&mut self) {
        if let Some(store) = self.store.upgrade() {
            store.changed.notify_one();
        }
    }
}

fn path_of(socket: &Socket) -> Option<PathBuf> {
    socket.local_addr().ok()?.as_pathname().map(Path::to_path_buf)
}

/// Its address, for people.
fn address_of(socket: &Socket) -> String {
    let abstract_name = || {
        let address = socket.local_addr().ok()?;
        Some(format!("@{}", String::from_utf8_lossy(address.as_abstract_namespace()?).escape_debug()))
    };
    path_of(socket)
        .map(|path| path.display().to_string())
        .or_else(abstract_name)
        .unwrap_or_else(|| "an address that is none".to_owned())
}

fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change of them is complete by itself.
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn identity(path: &Path) -> (u64, u64) {
        let found = fs::symlink_metadata(path).unwrap();
        (found.dev(), found.ino())
    }

    fn returned(socket: &UnixDatagram, name: &str) -> SocketStore {
        let store = SocketStore::default();
        store.add_returned(socket.try_clone().unwrap().into(), name.to_owned());
        store
    }

    #[test]
    fn a_socket_that_comes_back_is_taken_by_its_path_with_the_length_of_its_queue() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let kept = SocketStore::default().keep(socket.as_fd(), Some(identity(&path)), Some(700)).unwrap();
        let store = returned(&socket, kept.name());
        assert_eq!(store.take_unix(&directory.path().join("other")).map(|taken| taken.1), None);
        let (taken, queue) = store.take_unix(&path).unwrap();
        assert_eq!(queue, Some(700));
        let client = UnixDatagram::unbound().unwrap();
        client.send_to(b"one", &path).unwrap();
        drop(socket);
        let taken: UnixDatagram = OwnedFd::from(taken).into();
        assert_eq!(taken.recv(&mut [0; 8]).unwrap(), 3);
        assert!(store.take_unix(&path).is_none());
    }

    #[test]
    fn one_whose_path_leads_elsewhere_or_whose_name_makes_no_sense_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let of = identity(&path);
        let named = |file| Named { file, queue: None }.name(7);
        for name in [named((of.0, of.1 + 1)), named((0, 0)), format!("{PREFIX}what"), PREFIX.to_owned()] {
            let store = returned(&socket, &name);
            assert!(store.take_unix(&path).is_none(), "{name}");
            assert!(lock(&store.0.returned).is_empty());
            assert!(store.returned_names().contains(&name));
        }
        fs::remove_file(&path).unwrap();
        assert!(returned(&socket, &named(of)).take_unix(&path).is_none());
    }

    #[test]
    fn what_no_option_names_is_closed_with_its_file_and_with_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let of = identity(&path);
        returned(&socket, &Named { file: (of.0, of.1 + 1), queue: None }.name(7)).close_returned();
        assert!(path.exists());
        returned(&socket, &Named { file: of, queue: None }.name(7)).close_returned();
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_outlives_the_server_only_if_it_is_stored_and_the_server_stops() {
        let socket = UnixDatagram::unbound().unwrap();
        let (store, stop) = (SocketStore::default(), CancellationToken::new());
        store.set_stop(&stop);
        let kept = store.keep(socket.as_fd(), None, None).unwrap();
        assert_eq!(store.kept().len(), 1);
        stop.cancel();
        assert!(!kept.outlives_server());
        kept.note_stored();
        assert!(kept.outlives_server());
        drop(kept);
        assert!(store.kept().is_empty());
    }
}

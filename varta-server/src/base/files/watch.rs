//! Notices that files are removed, moved or replaced by others. Nothing wakes up while that does not happen.
//!
//! The kernel reports it (inotify) for a file and for each directory above it. Where it cannot, because a user's
//! watches have run out, a look every few seconds takes its place. A report is a hint: who waits for it compares
//! the file.
//!
//! The only unsafe code here registers a descriptor with the runtime.
#![allow(unsafe_code, reason = "the runtime wants the word that a registered descriptor stays open")]

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::base::files::directory::directory_of;

/// The pause after a report, which bounds the work that others can cause.
const PAUSE: Duration = Duration::from_millis(200);
/// How often there is a look where the kernel does not report.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The most directories above a file that are watched.
const MAX_DEPTH: usize = 64;

/// Watches files. Clones share the watches.
#[derive(Clone, Debug)]
pub(crate) struct FileWatcher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` where the kernel gives none.
    inotify: Option<Inotify>,
    watched: Mutex<Watched>,
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Watched {
    paths: BTreeSet<PathBuf>,
    watches: HashSet<WatchDescriptor>,
    /// Whether the kernel has refused to watch one of them.
    has_gaps: bool,
}

/// Reports that one of the watched files may have changed.
#[derive(Debug)]
pub(crate) struct FileChanges(watch::Receiver<()>);

impl FileChanges {
    /// Resolves when a watched file may be another than before. Never resolves when nobody watches any more.
    pub(crate) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl FileWatcher {
    pub(crate) fn new() -> Self {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK);
        if let Err(error) = &inotify {
            tracing::warn!(
                target: "varta::server",
                "the kernel does not report removed files ({error}; see fs.inotify.max_user_instances): they are looked \
                 for every {LOOK_EVERY:?}"
            );
        }
        let inotify = inotify.ok();
        FileWatcher(Arc::new(Inner { inotify, watched: Mutex::default(), changes: watch::Sender::new(()) }))
    }

    /// Watches a file from now on, also after it was replaced. The path may be watched already.
    pub(crate) fn watch(&self, path: &Path) -> FileChanges {
        let changes = self.0.changes.subscribe();
        self.0.watched.lock().unwrap_or_else(PoisonError::into_inner).paths.insert(path.to_path_buf());
        self.refresh();
        FileChanges(changes)
    }

    /// Watches what the paths name now, and nothing else.
    pub(crate) fn refresh(&self) {
        let Some(inotify) = &self.0.inotify else { return };
        let mut watched = self.0.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = HashSet::new();
        let mut has_gaps = false;
        let mut add = |path: &Path, flags: AddWatchFlags| {
            let mask = AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF;
            match inotify.add_watch(path, mask | flags) {
                Ok(watch) => _ = found.insert(watch),
                // What is not there is looked for by those who miss it.
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(_) => has_gaps = true,
            }
        };
        for path in &watched.paths {
            add(path, AddWatchFlags::IN_DONT_FOLLOW);
            let Ok(directory) = fs::canonicalize(directory_of(path)) else { continue };
            directory.ancestors().take(MAX_DEPTH).for_each(|above| add(above, AddWatchFlags::empty()));
        }
        for old in watched.watches.difference(&found) {
            // It is gone already if its file is.
            let _ = inotify.rm_watch(*old);
        }
        (watched.watches, watched.has_gaps) = (found, has_gaps);
    }

    /// Passes on what the kernel reports, until `stop` is cancelled.
    ///
    /// # Errors
    ///
    /// The runtime cannot watch the kernel's descriptor.
    pub(crate) async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let reports = match &self.0.inotify {
            Some(inotify) => {
                let descriptor: OwnedFd = inotify.as_fd().try_clone_to_owned()?;
                // SAFETY: an `OwnedFd` returns the same descriptor until it is dropped, and is moved in here.
                Some(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE)? })
            }
            None => None,
        };
        loop {
            let looks =
                reports.is_none() || self.0.watched.lock().unwrap_or_else(PoisonError::into_inner).has_gaps;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.reported(reports.as_ref()) => {}
                () = tokio::time::sleep(LOOK_EVERY), if looks => {}
            }
            self.refresh();
            self.0.changes.send_replace(());
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Resolves when the kernel has reported something, all of which is read then.
    async fn reported(&self, reports: Option<&AsyncFd<OwnedFd>>) {
        let (Some(reports), Some(inotify)) = (reports, &self.0.inotify) else {
            return std::future::pending().await;
        };
        loop {
            // The runtime is shutting down.
            let Ok(mut ready) = reports.readable().await else { return std::future::pending().await };
            let mut has_read = false;
            while inotify.read_events().is_ok_and(|events| !events.is_empty()) {
                has_read = true;
            }
            ready.clear_ready();
            if has_read {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_file_that_is_removed_moved_or_replaced_is_reported_also_by_a_directory_above_it() {
        let outside = tempfile::tempdir().unwrap();
        let [above, elsewhere] = ["above", "elsewhere"].map(|name| outside.path().join(name));
        let path = above.join("below/file");
        let make = || {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
        };
        make();
        let watcher = FileWatcher::new();
        let stop = CancellationToken::new();
        let running = tokio::spawn(watcher.clone().run(stop.clone()));
        let steps: [&dyn Fn(); 5] = [
            &|| fs::remove_file(&path).unwrap(),
            &|| fs::rename(&path, outside.path().join("moved")).unwrap(),
            &|| fs::rename(outside.path().join("moved"), &path).unwrap(),
            &|| fs::rename(&above, &elsewhere).unwrap(),
            &|| fs::remove_dir_all(&above).unwrap(),
        ];
        for step in steps {
            make();
            let mut changes = watcher.watch(&path);
            step();
            changes.next().await;
        }
        stop.cancel();
        running.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_is_watched_no_more_is_let_go_of() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "").unwrap();
        let watcher = FileWatcher::new();
        let _changes = watcher.watch(&path);
        let count = || watcher.0.watched.lock().unwrap().watches.len();
        let before = count();
        for number in 0..5 {
            // The old one is still open somewhere.
            fs::rename(&path, directory.path().join(number.to_string())).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            watcher.refresh();
        }
        assert_eq!(count(), before);
        assert!(before > 1 && !watcher.0.watched.lock().unwrap().has_gaps);
    }
}

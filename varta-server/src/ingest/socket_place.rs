//! Makes a Unix socket again whose file others have removed or moved: nobody could find the server.

use std::path::Path;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::base::SocketPlace;
use crate::base::backoff::Backoff;
use crate::base::error::Error;
use crate::base::files::watch::FileWatcher;
use crate::metrics::faults::{Faults, Part};

/// What keeps a socket at its path.
#[derive(Clone, Debug)]
pub(crate) struct PlaceKeeper {
    pub(crate) part: Part,
    pub(crate) watcher: FileWatcher,
    pub(crate) faults: Faults,
}

impl PlaceKeeper {
    /// Forgets what is wrong with a socket that is no more.
    pub(super) fn forget(&self, path: &Path) {
        self.faults.clear(self.part, path);
    }

    /// Waits until the file of a socket is not at its path any more, and binds another, which may take several
    /// attempts. `bind` runs on a thread for what blocks. `None` when `stop` is cancelled.
    pub(crate) async fn replacement<T: Send + 'static>(
        &self,
        place: &SocketPlace,
        bind: impl Fn() -> Result<T, Error> + Clone + Send + 'static,
        stop: &CancellationToken,
    ) -> Option<T> {
        let path = place.path();
        // The failures so far, and the last of them.
        let mut failing: Option<(Backoff, String)> = None;
        loop {
            // Before the look, so that no change in between is missed.
            let mut changes = self.watcher.watch(path);
            let mut retry = None;
            let is_held = place.is_held();
            // After the look: a server that stops removes the file itself.
            if stop.is_cancelled() {
                return None;
            }
            if is_held {
                if failing.take().is_some() {
                    self.faults.clear(self.part, path);
                }
            } else {
                if failing.is_none() {
                    self.faults.count_replaced(self.part);
                    tracing::warn!(
                        target: "varta::socket",
                        "{}: was removed or moved while it was in use; another socket is made in its place",
                        path.display()
                    );
                }
                let bound = tokio::select! {
                    () = stop.cancelled() => return None,
                    bound = spawn_blocking(bind.clone()) => bound,
                };
                let error = match bound {
                    Ok(Ok(bound)) => {
                        self.faults.clear(self.part, path);
                        tracing::info!(target: "varta::socket", "{}: is there again", path.display());
                        return Some(bound);
                    }
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                };
                let (backoff, former) = failing.get_or_insert_with(Default::default);
                if *former != error {
                    tracing::error!(
                        target: "varta::socket",
                        "{}: cannot be made again, and {}: {error}; it goes on trying",
                        path.display(),
                        self.part.loss()
                    );
                    self.faults.set(self.part, path, format!("{}: {error}", self.part.loss()));
                    *former = error;
                }
                retry = Some(backoff.next_delay());
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = changes.next() => {}
                () = tokio::time::sleep(retry.unwrap_or(Duration::MAX)), if retry.is_some() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixDatagram;
    use std::path::PathBuf;

    use super::*;
    use crate::base::{SocketFile, SocketFiles, SocketOptions};
    use crate::metrics::Registry;

    struct World {
        directory: tempfile::TempDir,
        path: PathBuf,
        keeper: PlaceKeeper,
        stop: CancellationToken,
    }

    type Bound = (UnixDatagram, SocketFile);

    impl World {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("run/varta.sock");
            let faults = Faults::new(&Registry::for_test());
            let keeper = PlaceKeeper { part: Part::Socket, watcher: FileWatcher::new(), faults };
            let stop = CancellationToken::new();
            tokio::spawn(keeper.watcher.clone().run(stop.clone()));
            World { directory, path, keeper, stop }
        }

        fn bind(&self) -> impl Fn() -> Result<Bound, Error> + Clone + Send + 'static + use<> {
            let options =
                SocketOptions { path: self.path.clone(), is_default: false, mode: 0o600, group: None };
            move || SocketFile::bind(&options, &SocketFiles::default())
        }

        async fn replacement(&self, former: &Bound) -> Option<Bound> {
            self.keeper.replacement(former.1.place(), self.bind(), &self.stop).await
        }
    }

    #[tokio::test]
    async fn a_socket_that_was_removed_or_moved_is_made_again_with_its_directory() {
        let world = World::new();
        let mut sockets = vec![world.bind()().unwrap()];
        let moved = world.directory.path().join("moved");
        let steps: [&dyn Fn(); 3] = [
            &|| fs::remove_file(&world.path).unwrap(),
            &|| fs::rename(&world.path, &moved).unwrap(),
            &|| fs::remove_dir_all(world.path.parent().unwrap()).unwrap(),
        ];
        for step in steps {
            step();
            let next = world.replacement(sockets.last().unwrap()).await.unwrap();
            let sender = UnixDatagram::unbound().unwrap();
            sender.send_to(b"x", &world.path).unwrap();
            assert_eq!(next.0.recv(&mut [0]).unwrap(), 1);
            sockets.push(next);
        }
        drop(sockets);
        assert!(!world.path.exists() && moved.exists());
    }

    #[tokio::test]
    async fn while_it_cannot_be_made_that_is_a_fault_and_it_is_tried_until_it_can() {
        let world = World::new();
        let former = world.bind()().unwrap();
        fs::remove_file(&world.path).unwrap();
        fs::create_dir(&world.path).unwrap();
        let replaced = world.replacement(&former);
        let repaired = async {
            while world.keeper.faults.report(true).0 {
                tokio::task::yield_now().await;
            }
            let (_, said) = world.keeper.faults.report(true);
            assert!(said.contains("nobody finds this server") && said.contains("is not a socket"), "{said}");
            fs::remove_dir(&world.path).unwrap();
        };
        let (replaced, ()) = tokio::join!(replaced, repaired);
        replaced.unwrap();
        assert_eq!(world.keeper.faults.report(true), (true, String::new()));
        world.stop.cancel();
        let former = world.bind();
        assert!(former().is_ok(), "its file went with it");
    }

    #[tokio::test]
    async fn a_server_that_stops_removes_its_socket_itself_and_makes_no_other() {
        let world = World::new();
        let former = world.bind()().unwrap();
        world.stop.cancel();
        fs::remove_file(&world.path).unwrap();
        assert!(world.replacement(&former).await.is_none());
        assert!(!world.path.exists());
    }
}

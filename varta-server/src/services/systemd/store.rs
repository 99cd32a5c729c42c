//! Keeps what the service manager holds for this server as it is to be: the sockets for notifications, which must live
//! longer than one process.

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use crate::base::socket_store::SocketStore;
use crate::services::systemd::notifier::Notifier;

/// The most that is taken out at once: more than a server can have had there.
const MAX_REMOVED: usize = 128;

/// The store of descriptors of the service manager.
#[derive(Debug)]
pub(super) struct StoreKeeper {
    notifier: Notifier,
    store: SocketStore,
    /// What the service manager has, as far as is known: it confirms nothing.
    stored: BTreeSet<String>,
}

impl StoreKeeper {
    pub(super) fn new(notifier: Notifier, store: SocketStore) -> Self {
        let stored = store.returned_names();
        StoreKeeper { notifier, store, stored }
    }

    /// Waits until others are to be kept.
    pub(super) async fn changed(&self) {
        self.store.changed().await;
    }

    /// Gives the service manager what it has not, and takes out what is not used any more. Whether all of that was taken.
    pub(super) async fn bring_up_to_date(&mut self) -> bool {
        let kept = self.store.kept();
        let mut is_done = true;
        let is_kept = |name: &String| kept.iter().any(|socket| socket.name() == name);
        let gone: Vec<_> = self.stored.iter().filter(|name| !is_kept(name)).cloned().collect();
        for name in gone.into_iter().take(MAX_REMOVED) {
            if self.notifier.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}")).await {
                self.stored.remove(&name);
            } else {
                is_done = false;
            }
        }
        for socket in kept {
            let name = socket.name();
            if !self.stored.contains(name) {
                let message = format!("FDSTORE=1\nFDNAME={name}");
                if !self.notifier.send_with(&message, Some(socket.as_fd())).await {
                    is_done = false;
                    continue;
                }
                self.stored.insert(name.to_owned());
            }
            socket.note_stored();
        }
        is_done
    }
}

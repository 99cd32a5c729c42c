//! What the engine hands over to another server, and the requests for that.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::domain::tracker::{TRACKER_STATE_VERSION, TrackerState, TrackerStateRef};
use crate::observe::exit_watcher::{ExitWatcher, ProcessExit, WatchedProcess};

/// The version of the form of all that is handed over: that of the tracker's state, and of the rest, whose number
/// is raised when any of it changes.
pub(crate) const HANDOVER_VERSION: u32 = TRACKER_STATE_VERSION + 2;

/// Somebody on the control socket who asks for a hand-over, with its connection.
#[derive(Debug)]
pub(crate) enum HandoverRequest {
    /// A user wants this server to start another in its place.
    Upgrade { stream: UnixStream, uid: u32 },
    /// Another server wants to take the place of this one, and understands this version of the form.
    TakeOver { stream: UnixStream, version: u32 },
}

/// Gives the state away while everything stands still; whether another server has it, and this one is to end.
pub(crate) struct GiveAway(pub(crate) Box<dyn FnOnce(&Export<'_>) -> bool + Send>);

impl fmt::Debug for GiveAway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GiveAway").finish_non_exhaustive()
    }
}

/// The state of the engine, as it is given.
#[derive(Debug)]
pub(crate) struct Export<'e> {
    written: Written<'e>,
    pub(crate) pidfds: Vec<BorrowedFd<'e>>,
}

#[derive(Debug, Serialize)]
struct Written<'e> {
    tracker: TrackerStateRef<'e>,
    watched: Vec<WatchedProcess>,
    exits: Vec<&'e ProcessExit>,
}

/// The same, as it is taken.
#[derive(Debug, Deserialize)]
pub(crate) struct EngineState {
    pub(crate) tracker: TrackerState,
    /// The processes that were watched; the pidfds are in the same order.
    pub(crate) watched: Vec<WatchedProcess>,
    /// The exits that were seen and not acted on.
    pub(crate) exits: Vec<ProcessExit>,
}

impl<'e> Export<'e> {
    pub(super) fn new(tracker: TrackerStateRef<'e>, watcher: &'e ExitWatcher) -> Self {
        let (watched, pidfds) = watcher.watched().unzip();
        let exits = watcher.peeked().collect();
        Export { written: Written { tracker, watched, exits }, pidfds }
    }

    /// The state but for the pidfds.
    ///
    /// # Errors
    ///
    /// What cannot be written.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, String> {
        postcard::to_allocvec(&self.written).map_err(|error| error.to_string())
    }
}

impl EngineState {
    /// Reads a state.
    ///
    /// # Errors
    ///
    /// It is none of this version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        postcard::from_bytes(bytes).map_err(|error| error.to_string())
    }
}

/// What services leave to the next server where they have no file for it: bytes of a form of their own, by the
/// service's name. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Estate(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Estate {
    /// Leaves something to the service of this name.
    pub(crate) fn leave(&self, to: &'static str, what: Vec<u8>) {
        self.lock().insert(to.to_owned(), what);
    }

    /// Takes what was left to the service of this name.
    pub(crate) fn take(&self, by: &'static str) -> Option<Vec<u8>> {
        self.lock().remove(by)
    }

    /// All that was left.
    pub(crate) fn take_all(&self) -> BTreeMap<String, Vec<u8>> {
        std::mem::take(&mut self.lock())
    }

    /// Has what another server's services have left.
    pub(crate) fn put_all(&self, left: BTreeMap<String, Vec<u8>>) {
        *self.lock() = left;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Work that a hand-over must not cut off: it is waited for, and none begins meanwhile.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkInHand(Arc<WorkInner>);

#[derive(Debug, Default)]
struct WorkInner {
    is_held: watch::Sender<bool>,
    running: watch::Sender<usize>,
}

impl WorkInHand {
    /// Says how much is being done.
    pub(crate) fn set(&self, running: usize) {
        self.0.running.send_if_modified(|before| std::mem::replace(before, running) != running);
    }

    /// Whether none may begin.
    pub(crate) fn is_held(&self) -> bool {
        *self.0.is_held.borrow()
    }

    /// Waits until work may begin again.
    pub(crate) async fn may_begin(&self) {
        // The sender lives as long as this.
        let _ = self.0.is_held.subscribe().wait_for(|is_held| !is_held).await;
    }

    /// Lets none begin, and waits until none is done.
    pub(crate) async fn hold(&self) {
        self.0.is_held.send_replace(true);
        let _ = self.0.running.subscribe().wait_for(|running| *running == 0).await;
    }

    /// Lets work begin again.
    pub(crate) fn release(&self) {
        self.0.is_held.send_replace(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;
    use crate::domain::process::{ExitStatus, Lineage, PidfdTag};
    use crate::domain::tracker::{Policy, Tracker};

    #[tokio::test]
    async fn an_exit_that_was_seen_and_not_acted_on_passes_on_with_its_status() {
        let lineage = Lineage { command: 7 };
        let process =
            WatchedProcess { pid: 2, start_time: None, was_alive: true, tag: PidfdTag::UNKNOWN, lineage };
        let deaths = [
            ExitStatus::Exited { code: 3 },
            ExitStatus::Killed { signal: 9, core_dumped: true },
            ExitStatus::Unknown,
        ];
        let exits = deaths.map(|death| ProcessExit { key: 2, process, death });
        let mut watcher = ExitWatcher::new(Clock::start(), 1).unwrap();
        watcher.put_back(exits.into());
        let tracker = Tracker::new(Policy::default());
        let bytes = Export::new(tracker.state(), &watcher).encode().unwrap();
        assert_eq!(EngineState::decode(&bytes).unwrap().exits, exits);
    }
}

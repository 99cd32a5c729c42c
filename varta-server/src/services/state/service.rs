//! Opens the state database, restores what is in it, and starts the thread that writes it.

use std::mem;

use crate::base::error::Error;
use crate::domain::tracker::Tracker;
use crate::engine::state_queue::StateSink;
use crate::ingest::Keyring;
use crate::services::context::Context;
use crate::services::state::database::{Limits, PersistedState, StateDatabase};
use crate::services::state::metrics::StateMetrics;
use crate::services::state::reader::HistoryReader;
use crate::services::state::restore::restore;

/// The capability before it runs. Without `--state-dir` it has its metrics and nothing else.
#[derive(Debug)]
pub(crate) struct State {
    /// The database, and what the server before this one knew.
    store: Option<(StateDatabase, PersistedState)>,
    /// The keys and the replay table of the secure sockets.
    keyring: Keyring,
}

impl State {
    /// Reads what the server before this one left in the state directory, up to `max_agents` agents, and
    /// restores the replay table.
    ///
    /// # Errors
    ///
    /// When the database cannot be used, see [`StateDatabase::open`].
    pub(crate) fn open(context: &Context, max_agents: usize, keyring: &Keyring) -> Result<Self, Error> {
        let (jobs, replay_sessions) = (Tracker::MAX_JOBS, keyring.most_sessions());
        let room = Limits { agents: max_agents, replay_sessions, jobs };
        let mut store = None;
        if let Some(directory) = context.state_dir.clone() {
            let (opened, mut state) = StateDatabase::open(directory, room, context.clock)?;
            keyring.restore(&mem::take(&mut state.replay_sessions));
            store = Some((opened, state));
        }
        Ok(State { store, keyring: keyring.clone() })
    }

    /// The way to read the history while the server runs; `None` without a state directory.
    pub(crate) fn history(&self) -> Option<HistoryReader> {
        self.store.as_ref().map(|(store, _)| HistoryReader::new(store.directory.path()))
    }

    /// Restores the tracker, and starts the thread that writes. Returns the queue to it, for the tracker's
    /// task.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub(crate) fn start(
        self,
        context: &mut Context,
        tracker: &mut Tracker,
    ) -> Result<Option<StateSink>, Error> {
        let metrics = StateMetrics::new(&context.registry, context.faults.clone());
        let State { store: Some((store, state)), keyring } = self else { return Ok(None) };
        let PersistedState { agents, jobs, unseen, replay_sessions: _ } = state;
        tracker.track_registry_changes();
        restore(tracker, agents, &keyring, context.clock.now());
        tracker.restore_jobs(jobs, unseen);
        let (sink, done) = store
            .start(context.clock, context.queries.clone(), keyring, metrics, context.watcher.clone())
            .map_err(|source| Error::Runtime { action: "start the thread that keeps the state", source })?;
        context.spawn_thread("state", "thread that keeps the state", done);
        Ok(Some(sink))
    }
}

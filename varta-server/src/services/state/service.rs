//! Opens the state database, restores what is in it, and starts the thread that writes it.

use crate::base::error::Error;
use crate::domain::tracker::Tracker;
use crate::engine::state_queue::StateSink;
use crate::ingest::Keyring;
use crate::services::context::Context;
use crate::services::state::database::{Limits, PersistedState, StateDatabase};
use crate::services::state::metrics::StateMetrics;
use crate::services::state::registry::PersistedAgent;
use crate::services::state::restore::restore;

/// The capability before it runs. Without `--state-dir` it has its metrics and nothing else.
#[derive(Debug)]
pub(crate) struct State {
    /// The database, and the agents that the server before this one knew.
    store: Option<(StateDatabase, Vec<PersistedAgent>)>,
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
        let room = Limits { agents: max_agents, replay_sessions: keyring.most_sessions() };
        let mut store = None;
        if let Some(directory) = context.state_dir.clone() {
            let (opened, PersistedState { agents, replay_sessions: seals }) =
                StateDatabase::open(directory, room, context.clock)?;
            keyring.restore(&seals);
            store = Some((opened, agents));
        }
        Ok(State { store, keyring: keyring.clone() })
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
        let State { store: Some((store, agents)), keyring } = self else { return Ok(None) };
        tracker.track_registry_changes();
        restore(tracker, agents, &keyring, context.clock.now());
        let (sink, done) = store
            .start(context.clock, context.queries.clone(), keyring, metrics, context.watcher.clone())
            .map_err(|source| Error::Runtime { action: "start the thread that keeps the state", source })?;
        context.spawn_thread("state", "thread that keeps the state", done);
        Ok(Some(sink))
    }
}

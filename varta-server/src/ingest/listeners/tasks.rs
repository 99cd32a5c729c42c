//! The tasks of the listeners: each reads on the engine's thread, and check sockets are served on the other.

use std::future::Future;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::base::SocketOptions;
use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::files::watch::FileWatcher;
use crate::domain::beat::Transport;
use crate::ingest::batch::Batch;
use crate::ingest::gate::Gate;
use crate::ingest::listener::Intake;
use crate::ingest::listeners::bound::{Bound, Parts, Wanted};
use crate::ingest::metrics::FrameCounters;
use crate::ingest::socket_keeper::SocketKeeper;
use crate::ingest::socket_place::PlaceKeeper;
use crate::metrics::faults::{Faults, Part};

/// What the tasks need besides their sockets.
pub(crate) struct Surroundings {
    /// The engine's thread.
    pub(crate) ingest: Handle,
    pub(crate) inbox: mpsc::Sender<Batch>,
    pub(crate) clock: Clock,
    /// Indexed by [`Transport::index`].
    pub(crate) frames: [FrameCounters; Transport::ALL.len()],
    pub(crate) watcher: FileWatcher,
    pub(crate) faults: Faults,
    /// Shut while another server takes over.
    pub(crate) gate: Gate,
}

/// A listener that is to read.
#[derive(Debug)]
pub(super) struct Starting {
    pub(super) bound: Bound,
    pub(super) stop: CancellationToken,
    /// Cancelled when its tasks have ended: one for each.
    pub(super) ended: Vec<CancellationToken>,
    pub(super) parts: Parts,
}

/// A task that has ended: its name, whether it was to end, and how it did.
type Ended = (&'static str, bool, Result<(), Error>);

/// Keeps the tasks of all listeners.
pub(crate) struct ListenerTasks {
    surroundings: Surroundings,
    starts: mpsc::Receiver<Starting>,
    tasks: JoinSet<Ended>,
}

impl ListenerTasks {
    pub(super) fn new(surroundings: Surroundings, starts: mpsc::Receiver<Starting>) -> Self {
        ListenerTasks { surroundings, starts, tasks: JoinSet::new() }
    }

    /// Has a listener read.
    pub(super) fn begin(&mut self, starting: Starting) {
        let Starting { bound, stop, ended, parts } = starting;
        let Bound { wanted, listener, check, probe, queue } = bound;
        let Surroundings { inbox, clock, frames, gate, .. } = &self.surroundings;
        let counters = frames[listener.endpoint().transport().index()].clone();
        let (inbox, gate) = (inbox.clone(), gate.clone());
        let intake = Intake { stop: stop.clone(), inbox, clock: *clock, counters, gate };
        let (ingest, clock) = (self.surroundings.ingest.clone(), *clock);
        let mut ended = ended.into_iter();
        match listener.file().cloned() {
            Some(file) => {
                let part =
                    if matches!(wanted, Wanted::Notify(_)) { Part::NotifySocket } else { Part::Socket };
                let place = self.place_keeper(part);
                let bind = move |options: SocketOptions| {
                    let wanted = match &wanted {
                        Wanted::Notify(_) => Wanted::Notify(options),
                        _ => Wanted::Unix(options),
                    };
                    parts.open(&wanted, queue)
                };
                let keeper = SocketKeeper { file, probe, place, bind: Arc::new(bind) };
                self.spawn("listener", &ingest, &stop, ended.next(), keeper.run(listener, intake));
            }
            None => {
                self.spawn("listener", &ingest, &stop, ended.next(), listener.run(intake));
            }
        }
        if let Some(check) = check {
            let serve = check.run(self.place_keeper(Part::CheckSocket), clock, stop.clone());
            self.spawn("check socket", &Handle::current(), &stop, ended.next(), serve);
        }
    }

    fn place_keeper(&self, part: Part) -> PlaceKeeper {
        let Surroundings { watcher, faults, .. } = &self.surroundings;
        PlaceKeeper { part, watcher: watcher.clone(), faults: faults.clone() }
    }

    fn spawn(
        &mut self,
        name: &'static str,
        runtime: &Handle,
        stop: &CancellationToken,
        ended: Option<CancellationToken>,
        task: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) {
        let (stop, ended) = (stop.clone(), ended.map(CancellationToken::drop_guard));
        let task = async move {
            let result = task.await;
            drop(ended);
            (name, stop.is_cancelled(), result)
        };
        self.tasks.spawn_on(task, runtime);
    }

    /// Runs until `stop` is cancelled and all listeners have ended.
    ///
    /// # Errors
    ///
    /// A listener has ended by itself.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = self.tasks.join_next() => judge(ended)?,
                Some(starting) = self.starts.recv() => self.begin(starting),
            }
        }
        let ListenerTasks { surroundings, starts, mut tasks } = self;
        // What has not begun is released, and the engine's inbox ends with the last listener.
        drop((surroundings, starts));
        while let Some(ended) = tasks.join_next().await {
            judge(ended)?;
        }
        Ok(())
    }
}

fn judge(ended: Result<Ended, JoinError>) -> Result<(), Error> {
    match ended {
        Ok((_, true, result)) => result,
        Ok((_, false, Err(error))) => Err(error),
        Ok((task, false, Ok(()))) => Err(Error::ended_unasked(task)),
        Err(error) => Err(Error::TaskEnded { task: "listener", fault: error.to_string() }),
    }
}

//! What every service may use, and the tasks of a running server.
//!
//! A service starts its tasks and threads through [`Context`], which stops the server when one of them ends
//! too early, and waits for all of them when the server stops.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::files::state_dir::StateDir;
use crate::base::files::watch::FileWatcher;
use crate::base::given_sockets::GivenSockets;
use crate::base::peers::Peers;
use crate::domain::tracker::{Forgotten, Transition};
use crate::engine::Feed;
use crate::engine::handover::{Estate, HandoverRequest, WorkInHand};
use crate::engine::query::Query;
use crate::ingest::socket_place::PlaceKeeper;
use crate::metrics::Registry;
use crate::metrics::faults::{Faults, Part};
use crate::observe::descriptor_limit::DescriptorShares;

/// How long the tasks may take to end in order before the server ends without them.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// A request to read keys and configuration again: where the answer goes.
pub(crate) type ReloadRequest = oneshot::Sender<Result<ReloadReport, String>>;

/// Asks a running server to read its keys and its configuration again.
#[derive(Clone, Debug)]
pub struct Reloader {
    requests: mpsc::Sender<ReloadRequest>,
}

impl Reloader {
    pub(crate) fn new(requests: mpsc::Sender<ReloadRequest>) -> Self {
        Reloader { requests }
    }

    /// Has the server reload, and waits for it. The result is logged as well.
    ///
    /// # Errors
    ///
    /// What cannot be used, a line for each fault. Nothing has changed.
    pub async fn reload(&self) -> Result<ReloadReport, String> {
        let (answer, answered) = oneshot::channel();
        let stopping = || "the server is stopping".to_owned();
        self.requests.send(answer).await.map_err(|_| stopping())?;
        answered.await.unwrap_or_else(|_| Err(stopping()))
    }
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadReport {
    /// The keys that open datagrams; `None` without key files.
    pub keys: Option<usize>,
    /// What the configuration file says; `None` without one.
    pub file: Option<ReloadedFile>,
    /// Options of the file that differ from those at the start, and count only after a restart.
    pub waiting: Vec<String>,
}

impl ReloadReport {
    /// What counts from now on, a line for each kind of file that was read.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let keys = self.keys.map(|keys| format!("the key files were read again; {keys} keys open datagrams"));
        let file = self.file.as_ref().map(ToString::to_string);
        let lines: Vec<_> = keys.into_iter().chain(file).collect();
        if lines.is_empty() {
            let none = "there is no file to read again: neither keys nor --config; options stay as given";
            return vec![none.to_owned()];
        }
        lines
    }
}

/// What a configuration file says that was read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadedFile {
    /// Its path.
    pub path: PathBuf,
    /// The number of rules.
    pub rules: usize,
    /// The number of expected agents.
    pub expected: usize,
    /// How many of these are not awaited, because a user has had them forgotten and they have not come since.
    pub forgotten: usize,
    /// The number of planned pauses.
    pub pauses: usize,
    /// The number of rules of recovery.
    pub recovery: usize,
}

impl fmt::Display for ReloadedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReloadedFile { path, rules, expected, forgotten, pauses, recovery } = self;
        write!(
            f,
            "{} was read again: {rules} rules, {expected} expected agents, {pauses} pauses and {recovery} \
             recovery rules count from now on",
            path.display()
        )?;
        match forgotten {
            0 => Ok(()),
            count => {
                write!(f, "; {count} expected agents are not awaited, because they were forgotten by request")
            }
        }
    }
}

/// How a task ended, by the task's name.
type Ended = (&'static str, Result<(), Error>);

/// What every service may use. Nothing of another service is in it.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) clock: Clock,
    /// The name of this host.
    pub(crate) host: Arc<str>,
    /// Where the service registers its metrics.
    pub(crate) registry: Registry,
    /// Questions to the tracker.
    pub(crate) queries: mpsc::Sender<Query>,
    /// Requests to read keys and configuration again.
    pub(crate) reloads: Reloader,
    /// Requests to hand over to another server.
    pub(crate) handovers: mpsc::Sender<HandoverRequest>,
    /// Cancelled when another server has taken over, and this one stops because of that.
    pub(crate) is_handed_over: CancellationToken,
    /// Answers that this server still owes when another has taken over. They are given while that one runs already.
    pub(crate) last_answers: TaskTracker,
    /// Cancelled when this server is the only one: at once, unless it takes over from another.
    pub(crate) is_alone: CancellationToken,
    /// Work that a hand-over waits for.
    pub(crate) work: WorkInHand,
    /// What services leave to those of the next server, and have from those of the one before, by their names.
    pub(crate) estate: Estate,
    /// Notices that files of the server are removed or moved.
    pub(crate) watcher: FileWatcher,
    /// Sockets that were bound before this server was started.
    pub(crate) given: GivenSockets,
    /// What the parts of the server send to.
    pub(crate) peers: Peers,
    /// What of the server does not work at present.
    pub(crate) faults: Faults,
    /// The directory of `--state-dir`, locked for this server.
    pub(crate) state_dir: Option<StateDir>,
    /// The descriptors that services may take.
    pub(crate) descriptors: DescriptorShares,
    /// Cancelled when the server stops.
    pub(crate) stop: CancellationToken,
    /// Cancelled when all tasks have ended but those of [`Context::spawn_last`].
    pub(crate) stop_last: CancellationToken,
    /// Why the server ends, if that is because of an error: set before `stop_last` is cancelled.
    pub(crate) failure: Arc<OnceLock<String>>,
    tasks: JoinSet<Ended>,
    last_tasks: JoinSet<Ended>,
    subscribers: Vec<Feed>,
}

impl Context {
    /// A context without tasks and subscribers.
    pub(crate) fn new(
        clock: Clock,
        registry: Registry,
        queries: mpsc::Sender<Query>,
        reloads: Reloader,
        state_dir: Option<StateDir>,
        descriptors: DescriptorShares,
        given: GivenSockets,
    ) -> Self {
        Context {
            clock,
            host: host_name().into(),
            watcher: FileWatcher::new(),
            given,
            peers: Peers::default(),
            faults: Faults::new(&registry),
            registry,
            queries,
            reloads,
            handovers: mpsc::channel(1).0,
            is_handed_over: CancellationToken::new(),
            last_answers: TaskTracker::new(),
            is_alone: CancellationToken::new(),
            work: WorkInHand::default(),
            estate: Estate::default(),
            state_dir,
            descriptors,
            stop: CancellationToken::new(),
            stop_last: CancellationToken::new(),
            failure: Arc::default(),
            tasks: JoinSet::new(),
            last_tasks: JoinSet::new(),
            subscribers: Vec::new(),
        }
    }

    /// What makes a socket of this part again when its file is removed.
    pub(crate) fn place_keeper(&self, part: Part) -> PlaceKeeper {
        PlaceKeeper { part, watcher: self.watcher.clone(), faults: self.faults.clone() }
    }

    /// A queue of all transitions. Those that do not fit are counted under the label `sink`.
    pub(crate) fn subscribe(&mut self, sink: &'static str) -> mpsc::Receiver<Transition> {
        self.subscribe_with_loss(sink).0
    }

    /// The same, and a flag that is set when a transition did not fit. The service clears it.
    pub(crate) fn subscribe_with_loss(
        &mut self,
        sink: &'static str,
    ) -> (mpsc::Receiver<Transition>, Arc<AtomicBool>) {
        let (feed, transitions) = Feed::new(&self.registry, sink);
        let lost = feed.lost();
        self.subscribers.push(feed);
        (transitions, lost)
    }

    /// The same, and the agents that the tracker forgets. Those come after their transitions, in a queue of
    /// their own.
    pub(crate) fn subscribe_with_forgotten(
        &mut self,
        sink: &'static str,
    ) -> (mpsc::Receiver<Transition>, mpsc::Receiver<Forgotten>, Arc<AtomicBool>) {
        let (mut feed, transitions) = Feed::new(&self.registry, sink);
        let (forgotten, lost) = (feed.add_forgotten(), feed.lost());
        self.subscribers.push(feed);
        (transitions, forgotten, lost)
    }

    /// The sending ends of all subscriptions, in their order. The tracker's task closes them when it ends.
    pub(crate) fn take_subscribers(&mut self) -> Vec<Feed> {
        std::mem::take(&mut self.subscribers)
    }

    /// Runs a task on the current runtime. A task that ends before the server stops is an error of the
    /// server.
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) {
        self.tasks.spawn(async move { (name, task.await) });
    }

    /// The same on another runtime.
    pub(crate) fn spawn_on(
        &mut self,
        runtime: &Handle,
        name: &'static str,
        task: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) {
        self.tasks.spawn_on(async move { (name, task.await) }, runtime);
    }

    /// Runs a task that ends after all others, by [`Context::stop_last`], and within limits of its own.
    pub(crate) fn spawn_last(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) {
        self.last_tasks.spawn(async move { (name, task.await) });
    }

    /// Counts a thread among the tasks. The thread sends `ended` when its work is done, and drops it when it
    /// panics. The thread is not joined, so that a disk that hangs does not keep the server from ending.
    pub(crate) fn spawn_thread(
        &mut self,
        name: &'static str,
        thread: &'static str,
        ended: oneshot::Receiver<()>,
    ) {
        self.spawn(name, async move { ended.await.map_err(|_| thread_panicked(thread)) });
    }

    /// Waits for `shutdown` or the first task that ends before it, then stops all tasks in order.
    ///
    /// # Errors
    ///
    /// The first error of a task, or that one ended too early.
    pub(crate) async fn run_until(mut self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let watching = self.watcher.clone().run(self.stop.clone());
        self.spawn("watch of files", async {
            watching.await.map_err(|source| Error::Runtime { action: "watch files", source })
        });
        let mut result = tokio::select! {
            biased;
            () = self.is_handed_over.cancelled() => Ok(()),
            () = shutdown => Ok(()),
            Some(ended) = self.tasks.join_next() => Err(ended_unasked(ended)),
            Some(ended) = self.last_tasks.join_next() => Err(ended_unasked(ended)),
        };
        if self.is_handed_over.is_cancelled() {
            tracing::info!(target: "varta::server", "another server has taken over; stopping");
        } else if result.is_ok() {
            tracing::info!(target: "varta::server", "stopping");
        }
        self.stop.cancel();
        if tokio::time::timeout(STOP_WITHIN, join_all(&mut self.tasks, &mut result)).await.is_err() {
            tracing::error!(
                target: "varta::server",
                "not all tasks ended within {STOP_WITHIN:?}; ending without them"
            );
        }
        if let Err(error) = &result {
            _ = self.failure.set(error.to_string());
        }
        self.stop_last.cancel();
        // Its own limits end it.
        join_all(&mut self.last_tasks, &mut result).await;
        result
    }
}

#[cfg(test)]
impl Context {
    /// A context for the test of a service, and the questions that the service asks.
    pub(crate) fn for_test() -> (Self, mpsc::Receiver<Query>) {
        let (to_queries, queries) = mpsc::channel(16);
        let descriptors = DescriptorShares::of(1_024);
        let reloads = Reloader::new(mpsc::channel(1).0);
        let (clock, registry, given) = (Clock::start(), Registry::for_test(), GivenSockets::default());
        (Context::new(clock, registry, to_queries, reloads, None, descriptors, given), queries)
    }
}

/// Waits for every task; the first error found on the way is kept.
async fn join_all(tasks: &mut JoinSet<Ended>, result: &mut Result<(), Error>) {
    while let Some(ended) = tasks.join_next().await {
        let outcome = match ended {
            Ok((_, outcome)) => outcome,
            Err(_) => Err(ended_unasked(ended)),
        };
        if result.is_ok() {
            *result = outcome;
        }
    }
}

fn ended_unasked(ended: Result<Ended, JoinError>) -> Error {
    match ended {
        Ok((_, Err(error))) => error,
        Ok((task, Ok(()))) => Error::ended_unasked(task),
        Err(error) => Error::TaskEnded { task: "server", fault: error.to_string() },
    }
}

/// The error of a thread that ended without a word.
pub(super) fn thread_panicked(thread: &'static str) -> Error {
    Error::TaskEnded { task: thread, fault: "it panicked".to_owned() }
}

fn host_name() -> String {
    nix::unistd::gethostname()
        .map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_or_thread_that_ends_before_the_server_is_named_with_how_it_ended() {
        for (begin, said) in [
            (
                (|context| context.spawn("sink", ready(Ok(())))) as fn(&mut Context),
                "the sink ended unasked: it thought that it was done",
            ),
            (|context| context.spawn_last("page", async { Ok(()) }), "the page ended unasked: it thought"),
            (
                |context| context.spawn_thread("state", "thread that writes", oneshot::channel().1),
                "the thread that writes ended unasked: it panicked",
            ),
        ] {
            let (mut context, _queries) = Context::for_test();
            context.spawn("other", pending());
            begin(&mut context);
            // The other one never ends, and is not waited for longer than the limit.
            let ended = context.run_until(pending()).await.unwrap_err().to_string();
            assert!(ended.starts_with(said), "{ended}");
        }
        let (mut context, _queries) = Context::for_test();
        let error = Error::Runtime { action: "watch", source: std::io::Error::other("no") };
        context.spawn("sink", ready(Err(error)));
        assert_eq!(context.run_until(pending()).await.unwrap_err().to_string(), "cannot watch: no");
    }

    #[tokio::test]
    async fn the_last_tasks_run_until_the_others_have_ended() {
        let (mut context, _queries) = Context::for_test();
        let (stop, stop_last) = (context.stop.clone(), context.stop_last.clone());
        let (ended, end) = oneshot::channel();
        context.spawn("first", async move {
            stop.cancelled().await;
            tokio::task::yield_now().await;
            // The receiver is dropped when the last task ended before this one.
            ended.send(()).map_err(|()| thread_panicked("order"))
        });
        context.spawn_last("last", async move {
            stop_last.cancelled().await;
            end.await.map_err(|_| thread_panicked("order"))
        });
        context.run_until(ready(())).await.unwrap();
    }
}

//! A running server: its tasks, and the order in which they start and stop.

use std::io;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::time::MonoTime;
use crate::config::Config;
use crate::domain::beat::Transport;
use crate::domain::tracker::{Policy, Tracker};
use crate::engine::metrics::TrackerMetrics;
use crate::engine::query::Query;
use crate::engine::reload::Reload;
use crate::engine::subscribers::Subscribers;
use crate::engine::task::TrackerActor;
use crate::engine::thread::IngestThread;
use crate::engine::{ProcessMonitor, Recorder};
use crate::ingest::batch::Batch;
use crate::ingest::gate::Gate;
use crate::ingest::listener::INBOX_BATCHES;
use crate::ingest::listeners::{ListenerSet, Listeners, Surroundings};
use crate::ingest::metrics::FrameCounters;
use crate::ingest::{Keyring, ShmPages};
use crate::metrics::agent_rows::AutoRows;
use crate::observe::ProcReader;
use crate::observe::descriptor_limit::DescriptorShares;
use crate::observe::exit_watcher::ExitWatcher;
use crate::observe::hierarchy::Hierarchies;
use crate::observe::oom::OomWatch;
use crate::observe::sampler::Sampler;
use crate::server::handover::{Giver, Predecessor};
use crate::server::reload_metrics::ReloadMetrics;
use crate::server::reloader::ReloadTask;
use crate::server::{BoundServer, Prepared};
use crate::services::context::Context;
use crate::services::{self, ForTracker, Services};

/// How long a server that has handed over goes on with its last answers: as long as Prometheus waits for a scrape.
const LAST_ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// What reads sockets and pages.
struct Ingest {
    thread: IngestThread,
    frames: [FrameCounters; Transport::ALL.len()],
    pages: ShmPages,
    gate: Gate,
}

/// What comes to the tracker's task.
struct Inputs {
    inbox: mpsc::Receiver<Batch>,
    queries: mpsc::Receiver<Query>,
}

/// What does not change while the server starts.
struct Base<'b> {
    config: &'b Config,
    keyring: &'b Keyring,
    listeners: ListenerSet,
}

const fn failed(action: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Runtime { action, source }
}

impl BoundServer {
    /// Runs until `shutdown` is ready, then stops in order: listeners drain their sockets, the tracker its
    /// inbox, the services their queues, and HTTP ends last. Or until another server has taken over.
    ///
    /// Must be called within a Tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    ///
    /// A failure to start, or a task that ended by itself.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let BoundServer { config, mut context, listeners, keyring, pages, queries, .. } = self;
        let BoundServer { services, reloads, handovers, predecessor, program, .. } = self;
        let base = Base { config: &config, keyring: &keyring, listeners: listeners.set().clone() };
        let gate = Gate::new(predecessor.is_some());
        let (ingest, inbox) = start_ingest(&config, &mut context, listeners, pages, gate)?;
        let inputs = Inputs { inbox, queries };
        let giver = Giver::new(&context, base.listeners.probes(), &keyring, ingest.gate.clone(), program);
        let reload = match (services, predecessor) {
            (Prepared::Open(services), _) => base.start(*services, &mut context, &ingest, inputs)?,
            (Prepared::Later(options), Some(predecessor)) => {
                base.take_over(*options, &mut context, &ingest, inputs, predecessor).await?
            }
            (Prepared::Later(_), None) => unreachable!("services wait for another server only"),
        };
        context.spawn("reload", reload.run(reloads, context.stop.clone()));
        let (handed_over, estate) = (giver.outcome(), context.estate.clone());
        let last_answers = context.last_answers.clone();
        context.spawn("hand-over", giver.run(handovers, context.stop.clone()));
        let result = context.run_until(shutdown).await;
        match handed_over.take() {
            Some(handed_over) => {
                let result = handed_over.finish(result, &estate).await;
                last_answers.close();
                // Whoever takes longer is cut off.
                let _ = timeout(LAST_ANSWERS_WITHIN, last_answers.wait()).await;
                result
            }
            None => result,
        }
    }
}

impl Base<'_> {
    /// Starts services and tracker of a server that is the only one.
    fn start(
        &self,
        services: Services,
        context: &mut Context,
        ingest: &Ingest,
        inputs: Inputs,
    ) -> Result<ReloadTask, Error> {
        let reload = self.reload_task(context, &services);
        let mut tracker = Tracker::new(self.config.policy.clone());
        let kernel_drops = self.listeners.kernel_drops().clone();
        let ForTracker { state, recorder } = services.start(context, &mut tracker, kernel_drops)?;
        let sinks = Subscribers::new(context.take_subscribers(), state);
        let monitor = start_process_monitor(&ingest.thread, context.clock, context.descriptors, recorder)
            .map_err(failed("watch processes"))?;
        self.listeners.services().know(tracker.services(), context.clock.now());
        self.start_tracker(context, ingest, inputs, (tracker, monitor, sinks), None);
        Ok(reload)
    }

    /// Takes over from another server: first what it knows, with which this one reads on, and when the services of
    /// that one have ended, their files.
    async fn take_over(
        &self,
        options: services::Options,
        context: &mut Context,
        ingest: &Ingest,
        inputs: Inputs,
        predecessor: Predecessor,
    ) -> Result<ReloadTask, Error> {
        let mut monitor =
            start_process_monitor(&ingest.thread, context.clock, context.descriptors, Recorder::default())
                .map_err(failed("watch processes"))?;
        let state = predecessor.state().await?;
        let stopped_at = state.stopped_at();
        let kernel_drops = self.listeners.kernel_drops().clone();
        let taken = state.resume(self.config, context, self.keyring, &kernel_drops, &mut monitor);
        let tracker = match taken {
            Ok(tracker) => tracker,
            Err(fault) => return Err(predecessor.refuse(&fault)),
        };
        predecessor.take().await?;
        self.listeners.services().know(tracker.services(), context.clock.now());
        let parts = (tracker, monitor, Subscribers::that_come_later());
        let unread_since = MonoTime::from_nanos(stopped_at.saturating_sub(context.clock.host_start()));
        self.start_tracker(context, ingest, inputs, parts, Some(unread_since));
        ingest.gate.open();
        predecessor.log_pause(stopped_at);

        context.estate.put_all(predecessor.release().await);
        if let Some(directory) = &context.state_dir {
            directory.sign();
        }
        // The agents are known: none is read from files.
        let policy = Policy { max_agents: 0, ..self.config.policy.clone() };
        let (services, ()) = Services::open(options, context, &policy, self.keyring, || Ok(()))?;
        let reload = self.reload_task(context, &services);
        let ForTracker { state, recorder: _ } =
            services.start(context, &mut Tracker::new(policy), kernel_drops)?;
        let subscribers = Subscribers::new(context.take_subscribers(), state);
        // The tracker's task ends only when the server does.
        let _ = context.queries.send(Query::Attach(Box::new(subscribers))).await;
        context.given.close_inherited();
        context.given.files().keep(false);
        predecessor.finish(context.is_alone.clone());
        Ok(reload)
    }

    /// What reloads the files.
    fn reload_task(&self, context: &Context, services: &Services) -> ReloadTask {
        ReloadTask {
            keyring: self.keyring.clone(),
            keys: self.config.ingest.keys.clone(),
            listeners: self.listeners.clone(),
            policy: self.config.policy.clone(),
            file: self.config.file.clone(),
            engine: Reload::new(self.config.policy.max_agents, context.queries.clone()),
            services: services.reload(),
            faults: context.faults.clone(),
            metrics: ReloadMetrics::new(&context.registry, self.config.file.as_ref()),
        }
    }

    fn start_tracker(
        &self,
        context: &mut Context,
        ingest: &Ingest,
        Inputs { inbox, queries }: Inputs,
        (tracker, process_monitor, sinks): (Tracker, ProcessMonitor, Subscribers),
        unread_since: Option<MonoTime>,
    ) {
        let sockets = self.listeners.probes().clone();
        // What was dropped before is no loss of this server's.
        sockets.each(|socket| _ = socket.has_new_drops());
        let policy = &self.config.policy;
        let actor = TrackerActor {
            tracker,
            process_monitor,
            clock: context.clock,
            inbox,
            sockets,
            pages: ingest.pages.clone(),
            queries,
            sinks,
            frames: ingest.frames.clone(),
            metrics: TrackerMetrics::new(&context.registry, policy.max_agents),
            auto_rows: AutoRows::default(),
            host: context.host.to_string(),
            stall_after: policy.stall_after,
            gate: ingest.gate.clone(),
            unread_since,
        };
        context.spawn_on(ingest.thread.handle(), "tracker", actor.run());
    }
}

#[cfg(test)]
impl BoundServer {
    /// What reloads the files of a server that does not run.
    pub(super) fn reload_task(&self) -> ReloadTask {
        let Prepared::Open(services) = &self.services else { panic!("a server that takes over") };
        let listeners = self.listeners.set().clone();
        Base { config: &self.config, keyring: &self.keyring, listeners }.reload_task(&self.context, services)
    }
}

/// Starts what reads sockets and pages, which waits at the gate while that is shut.
fn start_ingest(
    config: &Config,
    context: &mut Context,
    listeners: Listeners,
    pages: ShmPages,
    gate: Gate,
) -> Result<(Ingest, mpsc::Receiver<Batch>), Error> {
    let thread = IngestThread::start().map_err(failed("start the ingest thread"))?;
    let (to_inbox, inbox) = mpsc::channel(INBOX_BATCHES);
    let frames = Transport::ALL.map(|transport| FrameCounters::new(&context.registry, transport));
    let sockets = listeners.set().probes().clone();
    let surroundings = Surroundings {
        ingest: thread.handle().clone(),
        inbox: to_inbox.clone(),
        clock: context.clock,
        frames: frames.clone(),
        watcher: context.watcher.clone(),
        faults: context.faults.clone(),
        gate: gate.clone(),
    };
    listeners.announce(&config.ingest, config.policy.stall_after, config.policy.max_agents);
    context.spawn("listeners", listeners.start(surroundings).run(context.stop.clone()));
    let counters = frames[Transport::Shm.index()].clone();
    let poll = pages.clone().run(context.stop.clone(), to_inbox, sockets, counters, gate.clone());
    context.spawn_on(thread.handle(), "poll of shared pages", poll);
    Ok((Ingest { thread, frames, pages, gate }, inbox))
}

/// Starts the process monitor on the ingest thread.
fn start_process_monitor(
    ingest: &IngestThread,
    clock: Clock,
    descriptors: DescriptorShares,
    recorder: Recorder,
) -> io::Result<ProcessMonitor> {
    // Descriptors are registered with the entered runtime.
    let _entered = ingest.handle().enter();
    let watcher = ExitWatcher::new(clock, descriptors.watched)?;
    let oom = OomWatch::new(Hierarchies::find(), descriptors.kill_counts);
    let (sampler, answers) = Sampler::start(clock, ProcReader::find())?;
    Ok(ProcessMonitor::new(watcher, oom, sampler, answers, recorder))
}

//! The writer thread of the state database.
//!
//! It collects changes for a second, and writes them in one transaction. Changes stay pending until they are
//! written. While the disk refuses writes, the thread stops receiving; the queue fills, and further changes
//! are dropped and counted. The history then has a gap. The registry is repaired by sweeps over all agents, a
//! slice at a time: regularly, and at once after a drop. Sweeps also update the times of last beats, which no
//! event reports, and delete rows whose end was not reported.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::mpsc;

use crate::base::backoff::{Backoff, FIRST_DELAY};
use crate::base::clock::{Clock, WallClock};
use crate::base::files::state_dir::StateDir;
use crate::base::files::watch::{FileChanges, FileWatcher};
use crate::base::time::MonoTime;
use crate::base::worker_thread;
use crate::engine::BoundedQueue;
use crate::engine::query::Query;
use crate::engine::state_queue::{Event, STATE_QUEUE, Slice, StateSink};
use crate::ingest::Keyring;
use crate::metrics::faults::Part;
use crate::observe::Boot;
use crate::services::state::database::{DATABASE, StateDatabase, move_aside};
use crate::services::state::encode::unix_millis;
use crate::services::state::files::DatabaseFiles;
use crate::services::state::history_limit::HistoryLimit;
use crate::services::state::instance::InstanceFile;
use crate::services::state::last_sign::{self, LastSign, Moment, SIGN_EVERY};
use crate::services::state::metrics::StateMetrics;
use crate::services::state::progress::{Next, SLICE_PAUSE, SWEEP_EVERY, Save, Sweep};
use crate::services::state::registry::Context;
use crate::services::state::schema::{DatabaseError, with_suffix};
use crate::services::state::{history, jobs, registry, replay_sessions, schema};

/// The longest delay of a change before it is written.
const WRITE_WITHIN: Duration = Duration::from_secs(1);
/// The most changes taken before they are written.
const BATCH: usize = 4_096;

impl StateDatabase {
    /// Starts the thread. It ends once the queue is closed and its content is written, and reports that
    /// through the receiver.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub(super) fn start(
        self,
        clock: Clock,
        queries: mpsc::Sender<Query>,
        keyring: Keyring,
        metrics: StateMetrics,
        watcher: FileWatcher,
    ) -> io::Result<(StateSink, worker_thread::Ended)> {
        let (sink, writer) = self.into_writer(clock, queries, keyring, metrics, watcher);
        Ok((sink, worker_thread::start_async("varta-state", writer.run())?))
    }

    /// The thread's own, and the way to it.
    pub(super) fn into_writer(
        self,
        clock: Clock,
        queries: mpsc::Sender<Query>,
        keyring: Keyring,
        metrics: StateMetrics,
        watcher: FileWatcher,
    ) -> (StateSink, Writer) {
        let StateDatabase { directory, database, sweep, instance_file, sign, absence } = self;
        let (to_queue, queue) = BoundedQueue::new(STATE_QUEUE, metrics.dropped.clone());
        let lost = Arc::new(AtomicBool::new(false));
        let path = directory.path().join(DATABASE);
        let files = database.as_ref().map(|_| DatabaseFiles::of(&path)).unwrap_or_default();
        let changes = watcher.watch(&path);
        let _ = watcher.watch(&with_suffix(&path, "-wal"));
        let _ = watcher.watch(&directory.lock_path());
        let writer = Writer {
            path,
            directory,
            files,
            watcher,
            changes,
            database,
            queue,
            own_queue: to_queue.sender().downgrade(),
            lost: Arc::clone(&lost),
            pending: Vec::new(),
            write_at: MonoTime::NEVER,
            failing: None,
            save: None,
            sweep: Sweep { number: sweep, is_whole: false, next: Next::Begin { at: MonoTime::START } },
            boot: sign.boot.as_ref().map(Boot::to_string),
            steady: absence.wall,
            sign,
            sign_at: MonoTime::START,
            instance_file,
            limit: HistoryLimit::new(),
            clock,
            queries,
            keyring,
            metrics,
        };
        (StateSink { queue: to_queue, lost }, writer)
    }
}

/// The state of the writer thread.
pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) directory: StateDir,
    /// Those of the open database.
    pub(super) files: DatabaseFiles,
    watcher: FileWatcher,
    /// Reports that somebody may have removed or moved them.
    changes: FileChanges,
    /// `None` when it must be opened first.
    pub(super) database: Option<Connection>,
    queue: mpsc::Receiver<Event>,
    /// Weak, so that the queue closes when its senders are dropped.
    pub(super) own_queue: mpsc::WeakSender<Event>,
    pub(super) lost: Arc<AtomicBool>,
    /// Changes to write: at most [`BATCH`], which only a slice exceeds.
    pub(super) pending: Vec<Event>,
    /// When the pending changes are due.
    pub(super) write_at: MonoTime,
    /// Set while writes fail.
    pub(super) failing: Option<Failing>,
    pub(super) sweep: Sweep,
    /// Set while replay windows remain to be saved.
    pub(super) save: Option<Save>,
    boot: Option<String>,
    /// The wall clock as it was when the server started, by which a wall clock that is set ahead does not make
    /// the history old.
    steady: WallClock,
    /// The sign of this server, as it was written last.
    pub(super) sign: LastSign,
    /// When it is due again. `NEVER` while there are no agents.
    sign_at: MonoTime,
    instance_file: InstanceFile,
    limit: HistoryLimit,
    clock: Clock,
    /// To the tracker's task, for slices of what it knows.
    pub(super) queries: mpsc::Sender<Query>,
    /// For the fingerprints of keys.
    pub(super) keyring: Keyring,
    pub(super) metrics: StateMetrics,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Failing {
    since: MonoTime,
    backoff: Backoff,
}

impl Writer {
    async fn run(mut self) {
        loop {
            let now = self.clock.now();
            let wake_at = self.wake_at(now);
            let has_room = self.pending.len() < BATCH;
            tokio::select! {
                biased;
                event = self.queue.recv(), if has_room => match event {
                    Some(event) => self.take(event, now),
                    None => return self.finish(),
                },
                () = self.changes.next() => {
                    self.look(now);
                }
                () = self.keyring.changed(), if self.save.is_none() => {
                    self.save = Some(Save { from: 0, at: now + WRITE_WITHIN });
                }
                () = tokio::time::sleep_until(self.clock.instant(wake_at)) => {}
            }
            self.turn(self.clock.now());
            if self.failing.is_some() && self.queue.is_closed() {
                return self.finish();
            }
        }
    }

    /// Does what is due at `now`.
    pub(super) fn turn(&mut self, now: MonoTime) {
        self.fetch(now);
        if self.is_due(now) {
            self.write(now);
        }
        self.ask(now);
        self.save(now);
    }

    /// Takes changes from the queue, up to [`BATCH`].
    fn fetch(&mut self, now: MonoTime) {
        while self.pending.len() < BATCH
            && let Ok(event) = self.queue.try_recv()
        {
            self.take(event, now);
        }
    }

    /// Adds one change.
    pub(super) fn take(&mut self, event: Event, now: MonoTime) {
        if let Event::Transition(transition) = &event
            && !self.limit.take(transition)
        {
            self.metrics.dropped.increment(1);
            return;
        }
        // A sweep waits for its slice to be written, and replay windows have already waited.
        let is_late = matches!(event, Event::Slice(_) | Event::Seals(_));
        let within = if is_late { Duration::ZERO } else { WRITE_WITHIN };
        if self.failing.is_none() {
            self.write_at = self.write_at.min(now + within);
        }
        if self.sweep.next == (Next::Begin { at: MonoTime::NEVER }) {
            self.sweep.next = Next::Begin { at: now + SWEEP_EVERY };
        }
        self.pending.push(event);
    }

    /// When the next turn is due if no change comes.
    fn wake_at(&self, now: MonoTime) -> MonoTime {
        let sweep_at = match self.sweep.next {
            // A dropped change makes a sweep due at once.
            Next::Begin { .. } if self.lost.load(Ordering::Relaxed) => now,
            Next::Begin { at } | Next::Ask { at, .. } => at,
            Next::Wait => MonoTime::NEVER,
        };
        match self.failing {
            None => {
                let save_at = self.save.map_or(MonoTime::NEVER, |save| save.at);
                self.write_at.min(sweep_at).min(save_at).min(self.sign_at)
            }
            // A full queue is not received from, so its end must be detected by regular turns.
            Some(_) => self.write_at.min(now + FIRST_DELAY),
        }
    }

    fn is_due(&self, now: MonoTime) -> bool {
        if self.failing.is_some() {
            return self.write_at <= now;
        }
        self.pending.len() >= BATCH || self.write_at.min(self.sign_at) <= now
    }

    /// Writes all pending changes; after a failure a retry is scheduled.
    pub(super) fn write(&mut self, now: MonoTime) {
        if !self.look(now) {
            self.write_now(now);
        }
    }

    pub(super) fn write_now(&mut self, now: MonoTime) {
        match self.try_write() {
            Ok(()) => self.note_written(now),
            Err(fault) => self.note_failure(&fault, now),
        }
    }

    fn try_write(&mut self) -> Result<(), DatabaseError> {
        let database = match &mut self.database {
            Some(database) => database,
            none => {
                let locked = self.directory.keep_place();
                locked.map_err(|error| DatabaseError::File(io::Error::other(error.to_string())))?;
                let opened = schema::open(&self.path)?;
                self.files = DatabaseFiles::default();
                self.instance_file.write_again();
                none.insert(opened.connection)
            }
        };
        schema::migrate(database)?;
        let moment = Moment::now(self.clock, self.sign.boot.clone());
        let (previous, mut sign) = (&self.sign, self.sign.clone());
        let mut context = Context {
            wall: moment.clock,
            boot: self.boot.clone(),
            fingerprints: self.keyring.fingerprints(),
            sweep: self.sweep.number,
        };
        let mut is_whole = self.sweep.is_whole;
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for event in &self.pending {
            match event {
                Event::Transition(transition) => history::insert(&transaction, transition, context.wall)?,
                Event::RegistryChange(change) => registry::apply(&transaction, change, &context)?,
                Event::Seals(seals) => {
                    for seal in seals {
                        replay_sessions::put(&transaction, seal, context.wall)?;
                    }
                }
                Event::Slice(Slice { from, jobs, agents, next }) => {
                    if *from == 0 {
                        jobs::replace(&transaction, jobs)?;
                        context.sweep += 1;
                        is_whole = true;
                    }
                    for agent in agents {
                        registry::put(&transaction, agent, &context)?;
                    }
                    if next.is_none() && is_whole {
                        registry::remove_unmet(&transaction, context.sweep)?;
                    }
                }
                Event::Complete => sign.is_complete = true,
            }
        }
        let WallClock { mono, wall, .. } = moment.clock;
        history::prune(&transaction, unix_millis(wall.min(self.steady.at(mono))))?;
        (sign.wall, sign.since_boot) = (wall, moment.since_boot);
        last_sign::put(&transaction, &sign)?;
        transaction.commit()?;
        // What was written before a step of the wall clock has other times than what is written after it.
        if last_sign::is_step(previous, &sign) {
            self.lost.store(true, Ordering::Relaxed);
        }
        (self.sweep.number, self.sweep.is_whole, self.sign) = (context.sweep, is_whole, sign);
        if self.instance_file.write_once(&self.sign).is_err() {
            self.metrics.write_errors.increment(1);
        }
        Ok(())
    }

    fn note_written(&mut self, now: MonoTime) {
        if self.files.complete(&self.path) {
            self.watcher.refresh();
        }
        self.metrics.faults.clear(Part::State, &self.path);
        if let Some(Failing { since, .. }) = self.failing.take() {
            tracing::info!(
                target: "varta::state",
                "{}: is written to again, after {:.3?}",
                self.path.display(), now.since(since)
            );
        }
        for event in self.pending.drain(..) {
            let Event::Slice(Slice { from, jobs, agents, next }) = event else { continue };
            self.sweep.next = match next {
                Some(from) => Next::Ask { from, at: now + SLICE_PAUSE },
                None if from == 0 && agents.is_empty() && jobs.is_empty() => {
                    Next::Begin { at: MonoTime::NEVER }
                }
                None => Next::Begin { at: now + SWEEP_EVERY },
            };
        }
        self.write_at = MonoTime::NEVER;
        let has_agents = self.sweep.next != Next::Begin { at: MonoTime::NEVER };
        self.sign_at = if has_agents { now + SIGN_EVERY } else { MonoTime::NEVER };
    }

    fn note_failure(&mut self, fault: &DatabaseError, now: MonoTime) {
        self.metrics.write_errors.increment(1);
        let code = match fault {
            DatabaseError::Sqlite(error) => error.sqlite_error_code(),
            _ => None,
        };
        match code {
            // The connection is still usable.
            Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {}
            // The database refuses these values for good.
            Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
                tracing::error!(
                    target: "varta::state",
                    "{}: refuses what was to be written: {fault}; {} changes are given up",
                    self.path.display(),
                    self.pending.len()
                );
                return self.give_up(now);
            }
            _ => self.database = None,
        }
        let moved = fault.is_broken(true) && move_aside(&self.path, &fault.to_string()).is_ok();
        if moved {
            // Its content must be written again.
            self.lose();
        }
        if !moved {
            self.metrics.faults.set(Part::State, &self.path, format!("cannot be written to: {fault}"));
        }
        if self.failing.is_none() && !moved {
            tracing::warn!(
                target: "varta::state",
                "{}: cannot be written to: {fault}; this server goes on without, keeps up to {STATE_QUEUE} changes, and \
                 goes on trying",
                self.path.display()
            );
        }
        let failing = self.failing.get_or_insert(Failing { since: now, backoff: Backoff::default() });
        self.write_at = now + failing.backoff.next_delay();
    }

    /// Marks registry and replay table as incomplete in the database.
    pub(super) fn lose(&mut self) {
        self.lost.store(true, Ordering::Relaxed);
        self.keyring.mark_unsaved();
    }

    /// Drops the pending changes.
    fn give_up(&mut self, now: MonoTime) {
        self.metrics.dropped.increment(self.pending.len() as u64);
        self.pending.clear();
        self.write_at = MonoTime::NEVER;
        self.lose();
        self.sweep.is_whole = false;
        self.sweep.next = Next::Begin { at: now + SLICE_PAUSE };
    }

    /// Writes what remains at the end.
    fn finish(mut self) {
        loop {
            let now = self.clock.now();
            self.fetch(now);
            if self.failing.is_none() {
                let from = self.save.map_or(0, |save| save.from);
                self.save = Some(Save { from, at: now });
                self.save(now);
            }
            if self.pending.is_empty() && self.save.is_none() {
                return;
            }
            if self.pending.is_empty() {
                continue;
            }
            let before = self.pending.len();
            self.write(now);
            if self.pending.len() == before {
                tracing::error!(
                    target: "varta::state",
                    "{}: the last changes before this server's end could not be written",
                    self.path.display()
                );
                return;
            }
        }
    }
}

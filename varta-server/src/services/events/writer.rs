//! The thread that writes the events file.
//!
//! Queued lines are written together, and at once when the queue is empty. While the disk refuses writes, the
//! thread keeps its lines, stops receiving, and retries; the queue fills, and transitions that do not fit are
//! counted.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::base::backoff::{Backoff, FIRST_DELAY};
use crate::base::clock::{Clock, WallClock};
use crate::base::files::append_log::{AppendFile, rotate};
use crate::base::files::directory::make_directory_of;
use crate::base::time::MonoTime;
use crate::domain::tracker::Transition;
use crate::services::events::event_record::add_line;
use crate::services::events::metrics::EventsMetrics;
use crate::services::events::options::EventsOptions;
use crate::services::events::service::EventsFile;

/// Opens or creates the file, and its directory, and locks it against other servers.
pub(super) fn open_alone(path: &Path) -> io::Result<AppendFile> {
    make_directory_of(path, EventsOptions::DIRECTORY_MODE)?;
    let file = AppendFile::open(path, EventsOptions::MODE)?;
    file.lock()?;
    Ok(file)
}

/// The most bytes collected before a write while more is queued.
const BUFFER: usize = 64 << 10;
/// How often `path` is checked for still naming the open file.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The state of the thread.
pub(super) struct Writer {
    options: EventsOptions,
    file: AppendFile,
    clock: Clock,
    /// The name of this host.
    host: Arc<str>,
    metrics: EventsMetrics,
    queue: mpsc::Receiver<Transition>,
    /// Whether the file was just opened, and may end with an incomplete line of another server.
    is_fresh: bool,
    /// Whole lines to write.
    buffer: Vec<u8>,
    /// The number of lines in the buffer.
    lines: u64,
    /// The time of the last check that `path` names the open file.
    looked_at: MonoTime,
    /// Set while writes fail.
    failing: Option<Failing>,
}

#[derive(Clone, Copy, Debug)]
struct Failing {
    since: MonoTime,
    backoff: Backoff,
    retry_at: MonoTime,
}

impl Writer {
    pub(super) fn new(
        file: EventsFile,
        clock: Clock,
        host: &Arc<str>,
        metrics: EventsMetrics,
        queue: mpsc::Receiver<Transition>,
    ) -> Self {
        let EventsFile { options, file } = file;
        Writer {
            options,
            file,
            clock,
            host: Arc::clone(host),
            metrics,
            queue,
            is_fresh: true,
            buffer: Vec::new(),
            lines: 0,
            looked_at: clock.now(),
            failing: None,
        }
    }

    pub(super) async fn run(mut self) {
        while let Some(transition) = self.queue.recv().await {
            self.add(&transition);
            while self.buffer.len() < self.most()
                && let Ok(transition) = self.queue.try_recv()
            {
                self.add(&transition);
            }
            while !self.write(self.clock.now()) {
                if self.queue.is_closed() {
                    return self.give_up();
                }
                // A closed queue is noticed only by polling.
                tokio::time::sleep(FIRST_DELAY).await;
            }
        }
    }

    /// The size of a full buffer: at most half of the file's limit.
    fn most(&self) -> usize {
        usize::try_from(self.options.limit / 2).map_or(BUFFER, |half| half.min(BUFFER))
    }

    pub(super) fn add(&mut self, transition: &Transition) {
        let at = WallClock::read(self.clock).at(transition.at);
        add_line(transition, at.into(), &self.host, &mut self.buffer);
        self.lines += 1;
    }

    /// Writes the buffer, unless a retry is not due yet. Returns whether the buffer is empty.
    pub(super) fn write(&mut self, now: MonoTime) -> bool {
        // At the end there is no later retry.
        if self.failing.is_some_and(|failing| now < failing.retry_at) && !self.queue.is_closed() {
            return false;
        }
        match self.try_write(now) {
            Ok(()) => {
                if let Some(Failing { since, .. }) = self.failing.take() {
                    let path = self.options.path.display();
                    tracing::info!(
                        target: "varta::events",
                        "{path}: is written to again, after {:.3?}",
                        now.since(since)
                    );
                }
                self.buffer.clear();
                self.lines = 0;
                true
            }
            Err(error) => {
                self.note_failure(&error, now);
                false
            }
        }
    }

    fn try_write(&mut self, now: MonoTime) -> io::Result<()> {
        let path = self.options.path.as_path();
        let is_full = |file: &AppendFile, more: usize| {
            file.length() > 0 && file.length().saturating_add(more as u64) > self.options.limit
        };
        let is_due = now.since(self.looked_at) >= LOOK_EVERY || self.failing.is_some();
        if is_due || is_full(&self.file, self.buffer.len()) {
            self.looked_at = now;
            // The file was moved away by log rotation.
            if !self.file.is_at(path)? {
                // If that fails, the moved file ends with half a line.
                let _ = self.file.mend();
                self.file = open_alone(path)?;
                self.is_fresh = true;
            }
        }
        if is_full(&self.file, self.buffer.len()) {
            // After the rename an incomplete line would remain.
            self.file.mend()?;
            rotate(path, self.options.keep)?;
            self.file = open_alone(path)?;
        }
        if self.is_fresh {
            self.file.end_line()?;
            self.is_fresh = false;
        }
        self.file.append(&self.buffer)
    }

    fn note_failure(&mut self, error: &io::Error, now: MonoTime) {
        self.metrics.write_errors.increment(1);
        if self.failing.is_none() {
            tracing::warn!(
                target: "varta::events",
                "{}: events cannot be written: {error}; this server goes on, keeps those that its queue holds, and goes on \
                 trying",
                self.options.path.display()
            );
        }
        let failing = Failing { since: now, backoff: Backoff::default(), retry_at: now };
        let failing = self.failing.get_or_insert(failing);
        failing.retry_at = now + failing.backoff.next_delay();
    }

    /// Counts the lines that are not written when the server ends.
    fn give_up(&mut self) {
        let mut lost = self.lines;
        while self.queue.try_recv().is_ok() {
            lost += 1;
        }
        self.metrics.dropped.increment(lost);
        tracing::warn!(
            target: "varta::events",
            "{}: {lost} events could not be written",
            self.options.path.display()
        );
    }
}

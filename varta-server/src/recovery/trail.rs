//! The trail: what is done is written down before it is done, by a thread of its own, so that a slow disk holds up
//! recovery and nothing else.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use metrics::Counter;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use crate::audit::AuditLog;
use crate::clock::wall_now;

/// Records that may wait to be written.
const QUEUE: usize = 1_024;
/// Records that are made durable together.
const TOGETHER: usize = 64;
/// How long a record may take to be on the disk.
const DURABLE_WITHIN: Duration = Duration::from_secs(2);
/// A disk that fails is told of so often.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Where records are written.
pub(crate) trait Ledger: Send + 'static {
    /// Writes a record.
    ///
    /// # Errors
    ///
    /// When it is not written, and nothing of it is.
    fn append(&mut self, at: SystemTime, event: &str, fields: Map<String, Value>) -> io::Result<()>;

    /// Returns when what was written is on the disk.
    ///
    /// # Errors
    ///
    /// When that is not known.
    fn sync(&mut self) -> io::Result<()>;
}

impl Ledger for AuditLog {
    fn append(&mut self, at: SystemTime, event: &str, fields: Map<String, Value>) -> io::Result<()> {
        AuditLog::append(self, at, event, fields).map(drop)
    }

    fn sync(&mut self) -> io::Result<()> {
        AuditLog::sync(self)
    }
}

/// The way to the thread that writes. Without a ledger nothing is written.
#[derive(Clone, Debug)]
pub(crate) struct Trail(Option<Way>);

#[derive(Clone, Debug)]
struct Way {
    queue: SyncSender<Entry>,
    missing: Counter,
}

#[derive(Debug)]
struct Entry {
    at: SystemTime,
    event: &'static str,
    fields: Map<String, Value>,
    written: oneshot::Sender<bool>,
}

impl Trail {
    /// None.
    pub(crate) fn none() -> Self {
        Trail(None)
    }

    /// Starts the thread that writes, and gives what tells of its end. `missing` counts the records that were not written.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub(crate) fn start(ledger: impl Ledger, missing: Counter) -> io::Result<(Self, oneshot::Receiver<()>)> {
        let (queue, entries) = sync_channel(QUEUE);
        let (ended, end) = oneshot::channel();
        thread::Builder::new().name("varta-audit".to_owned()).spawn(move || {
            write(ledger, &entries);
            let _ = ended.send(());
        })?;
        Ok((Trail(Some(Way { queue, missing })), end))
    }

    /// Writes a record, and waits until it is on the disk, but not for long. Whether it is.
    pub(super) async fn record(&self, event: &'static str, fields: Map<String, Value>) -> bool {
        let Some(Way { queue, missing }) = &self.0 else { return true };
        let (written, was_written) = oneshot::channel();
        let entry = Entry { at: wall_now(), event, fields, written };
        let is_durable = match queue.try_send(entry) {
            Ok(()) => matches!(tokio::time::timeout(DURABLE_WITHIN, was_written).await, Ok(Ok(true))),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        };
        if !is_durable {
            missing.increment(1);
        }
        is_durable
    }
}

/// Writes records until nobody makes any more.
fn write(mut ledger: impl Ledger, entries: &Receiver<Entry>) {
    let mut told_at: Option<Instant> = None;
    while let Ok(first) = entries.recv() {
        let more = entries.try_iter().take(TOGETHER - 1);
        let mut failed = None;
        let mut answers = Vec::with_capacity(TOGETHER);
        for Entry { at, event, fields, written } in std::iter::once(first).chain(more) {
            let appended = ledger.append(at, event, fields);
            answers.push((written, appended.is_ok()));
            failed = failed.or(appended.err());
        }
        let synced = ledger.sync();
        let is_durable = synced.is_ok();
        failed = failed.or(synced.err());
        for (written, was_appended) in answers {
            // Who asked may have given up waiting, and has counted that.
            let _ = written.send(was_appended && is_durable);
        }
        if let Some(error) = failed
            && told_at.is_none_or(|told_at| told_at.elapsed() >= TOLD_EVERY)
        {
            told_at = Some(Instant::now());
            tracing::error!(
                "the audit log of --audit-log cannot be written: {error}; make room, or mend the disk"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps what is on the disk, and fails when it is told to.
    #[derive(Clone, Default)]
    struct Book(Arc<Mutex<Pages>>);

    #[derive(Default)]
    struct Pages {
        written: Vec<String>,
        durable: usize,
        fails: bool,
        hangs: Option<Receiver<()>>,
    }

    impl Ledger for Book {
        fn append(&mut self, _: SystemTime, event: &str, _: Map<String, Value>) -> io::Result<()> {
            let mut pages = self.0.lock().unwrap();
            if pages.fails {
                return Err(io::ErrorKind::StorageFull.into());
            }
            pages.written.push(event.to_owned());
            Ok(())
        }

        fn sync(&mut self) -> io::Result<()> {
            let hangs = self.0.lock().unwrap().hangs.take();
            if let Some(hangs) = hangs {
                let _ = hangs.recv();
            }
            let mut pages = self.0.lock().unwrap();
            pages.durable = pages.written.len();
            Ok(())
        }
    }

    fn start(book: &Book) -> (Trail, Counter) {
        let counter = Counter::noop();
        (Trail::start(book.clone(), counter.clone()).unwrap().0, counter)
    }

    #[tokio::test]
    async fn a_record_is_on_the_disk_when_it_is_said_to_be() {
        let book = Book::default();
        let (trail, _) = start(&book);
        assert!(trail.record("fired", Map::new()).await);
        assert_eq!(book.0.lock().unwrap().durable, 1);
        assert!(Trail::none().record("fired", Map::new()).await);
    }

    #[tokio::test]
    async fn a_disk_that_is_full_is_told_and_one_that_has_room_again_is_used() {
        let book = Book::default();
        let (trail, _) = start(&book);
        book.0.lock().unwrap().fails = true;
        assert!(!trail.record("fired", Map::new()).await);
        book.0.lock().unwrap().fails = false;
        assert!(trail.record("fired", Map::new()).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_is_not_waited_for() {
        let book = Book::default();
        let (go_on, hangs) = std::sync::mpsc::channel();
        book.0.lock().unwrap().hangs = Some(hangs);
        let (trail, _) = start(&book);
        assert!(!trail.record("fired", Map::new()).await);
        drop(go_on);
    }
}

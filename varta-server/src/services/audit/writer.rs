//! The audit writer: a thread that makes records durable before the actions that they announce, so that a
//! slow disk delays recovery and nothing else.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use metrics::Counter;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use crate::base::clock::wall_now;
use crate::base::worker_thread;
use crate::engine::BoundedQueue;

/// The capacity of the queue of records.
const QUEUE: usize = 1_024;
/// The most records in one sync.
const TOGETHER: usize = 64;
/// The longest wait for a record to be durable.
const DURABLE_WITHIN: Duration = Duration::from_secs(2);
/// The shortest time between two log lines about a failing disk.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// The destination of records.
pub(super) trait RecordSink: Send + 'static {
    /// Appends a record.
    ///
    /// # Errors
    ///
    /// No part of the record is written.
    fn append(&mut self, at: SystemTime, event: &str, fields: Map<String, Value>) -> io::Result<()>;

    /// Returns once all records are on the disk.
    ///
    /// # Errors
    ///
    /// It is not known whether they are.
    fn sync(&mut self) -> io::Result<()>;

    /// Looks at what may have changed without a record: at the start, at the end, and when the files have changed.
    fn check(&mut self) {}
}

/// The handle of the writer thread. Without a destination it writes nothing.
#[derive(Clone, Debug)]
pub(crate) struct AuditWriter(Option<Arc<WriterQueue>>);

#[derive(Debug)]
struct WriterQueue {
    queue: BoundedQueue<Entry>,
    missing: Counter,
}

#[derive(Debug)]
pub(super) enum Entry {
    Record(PendingRecord),
    /// Have a look at the files.
    Check,
}

#[derive(Debug)]
pub(super) struct PendingRecord {
    at: SystemTime,
    event: &'static str,
    fields: Map<String, Value>,
    /// `None` without a wait for the result.
    written: Option<oneshot::Sender<bool>>,
}

impl AuditWriter {
    /// A handle without a destination.
    pub(crate) fn none() -> Self {
        AuditWriter(None)
    }

    /// Starts the thread, and returns a receiver of its end. `missing` counts records that were not written.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub(super) fn start(
        ledger: impl RecordSink,
        missing: Counter,
    ) -> io::Result<(Self, worker_thread::Ended)> {
        let (queue, entries) = BoundedQueue::new(QUEUE, missing.clone());
        let way = WriterQueue { queue, missing: missing.clone() };
        let end = worker_thread::start("varta-audit", move || write(ledger, entries, &missing))?;
        Ok((AuditWriter(Some(Arc::new(way))), end))
    }

    /// Whether there is a ledger.
    pub(crate) const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Writes a record, waits up to two seconds until it is on the disk, and returns whether it is.
    pub(crate) async fn record(&self, event: &'static str, fields: Map<String, Value>) -> bool {
        let Some(way) = &self.0 else { return true };
        let (written, was_written) = oneshot::channel();
        if !way.put(event, fields, Some(written), false) {
            return false;
        }
        let is_durable = matches!(tokio::time::timeout(DURABLE_WITHIN, was_written).await, Ok(Ok(true)));
        if !is_durable {
            way.missing.increment(1);
        }
        is_durable
    }

    /// What has the thread look at its files. It does not keep the thread running.
    pub(super) fn checker(&self) -> Checker {
        Checker(self.0.as_ref().map(|way| way.queue.sender().downgrade()))
    }

    /// Queues a record without a wait. Cheap records, which many agents can cause at once, use only half of
    /// the queue.
    pub(crate) fn note(&self, event: &'static str, fields: Map<String, Value>, is_cheap: bool) {
        if let Some(way) = &self.0 {
            way.put(event, fields, None, is_cheap);
        }
    }
}

/// Has the writer look at its files, which may have changed.
#[derive(Debug)]
pub(super) struct Checker(Option<mpsc::WeakSender<Entry>>);

impl Checker {
    pub(super) fn check(&self) {
        if let Some(queue) = self.0.as_ref().and_then(mpsc::WeakSender::upgrade) {
            // A full queue is full of records, which make it look as well.
            let _ = queue.try_send(Entry::Check);
        }
    }
}

impl WriterQueue {
    /// Puts a record into the queue, if there is room; if not, it is counted as missing.
    fn put(
        &self,
        event: &'static str,
        fields: Map<String, Value>,
        written: Option<oneshot::Sender<bool>>,
        is_cheap: bool,
    ) -> bool {
        self.queue.put(is_cheap, || Entry::Record(PendingRecord { at: wall_now(), event, fields, written }))
    }
}

/// Writes records until all senders are dropped.
fn write(mut ledger: impl RecordSink, mut entries: mpsc::Receiver<Entry>, missing: &Counter) {
    let mut told_at: Option<Instant> = None;
    let mut batch = Vec::with_capacity(TOGETHER);
    while entries.blocking_recv_many(&mut batch, TOGETHER) > 0 {
        let mut failed = None;
        let mut answers = Vec::with_capacity(TOGETHER);
        for entry in batch.drain(..) {
            let Entry::Record(PendingRecord { at, event, fields, written }) = entry else {
                ledger.check();
                continue;
            };
            let appended = ledger.append(at, event, fields);
            answers.push((written, appended.is_ok()));
            failed = failed.or(appended.err());
        }
        if answers.is_empty() {
            continue;
        }
        let synced = ledger.sync();
        let is_durable = synced.is_ok();
        failed = failed.or(synced.err());
        for (written, was_appended) in answers {
            match written {
                // A receiver that timed out is dropped, and has counted the record.
                Some(written) => _ = written.send(was_appended && is_durable),
                None if was_appended && is_durable => {}
                None => missing.increment(1),
            }
        }
        if let Some(error) = failed
            && told_at.is_none_or(|told_at| told_at.elapsed() >= TOLD_EVERY)
        {
            told_at = Some(Instant::now());
            tracing::error!(
                target: "varta::audit",
                "the audit log cannot be written: {error}; see --audit-log"
            );
        }
    }
    // A file that was cut off since the last record would keep the next server from continuing it.
    ledger.check();
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::Receiver;

    use super::*;

    /// Holds the records on the disk, and fails on demand.
    #[derive(Clone, Default)]
    struct Book(Arc<Mutex<Pages>>);

    #[derive(Default)]
    struct Pages {
        written: Vec<String>,
        durable: usize,
        fails: bool,
        hangs: Option<Receiver<()>>,
    }

    impl RecordSink for Book {
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

    fn start(book: &Book) -> (AuditWriter, Counter) {
        let counter = Counter::noop();
        (AuditWriter::start(book.clone(), counter.clone()).unwrap().0, counter)
    }

    #[tokio::test]
    async fn a_record_is_on_the_disk_when_it_is_said_to_be() {
        let book = Book::default();
        let (trail, _) = start(&book);
        assert!(trail.record("fired", Map::new()).await);
        assert_eq!(book.0.lock().unwrap().durable, 1);
        assert!(AuditWriter::none().record("fired", Map::new()).await);
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

    #[tokio::test]
    async fn what_very_many_bring_about_leaves_room_for_what_is_done() {
        let book = Book::default();
        let (go_on, hangs) = std::sync::mpsc::channel();
        book.0.lock().unwrap().hangs = Some(hangs);
        let (trail, _) = start(&book);
        for _ in 0..2 * QUEUE {
            trail.note("refused", Map::new(), true);
        }
        for _ in 0..QUEUE / 4 {
            trail.note("withdrawn", Map::new(), false);
        }
        drop(go_on);
        assert!(trail.record("fired", Map::new()).await);
        let written = &book.0.lock().unwrap().written;
        let count = |event: &str| written.iter().filter(|written| *written == event).count();
        assert!((QUEUE / 2..=QUEUE / 2 + TOGETHER).contains(&count("refused")), "{}", count("refused"));
        assert_eq!((count("withdrawn"), count("fired")), (QUEUE / 4, 1));
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

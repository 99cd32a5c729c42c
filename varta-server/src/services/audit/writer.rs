//! The trail: what is done is written down before it is done, by a thread of its own, so that a slow disk holds up
//! recovery and nothing else.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use metrics::Counter;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use crate::base::clock::wall_now;
use crate::services::audit::log::AuditLog;

/// Records that may wait to be written.
const QUEUE: usize = 1_024;
/// Records that are made durable together.
const TOGETHER: usize = 64;
/// How long a record may take to be on the disk.
const DURABLE_WITHIN: Duration = Duration::from_secs(2);
/// A disk that fails is told of so often.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Where records are written.
pub(super) trait Ledger: Send + 'static {
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
    /// How many are in it.
    waiting: Arc<AtomicUsize>,
    missing: Counter,
}

#[derive(Debug)]
struct Entry {
    at: SystemTime,
    event: &'static str,
    fields: Map<String, Value>,
    /// `None` when nobody waits for it.
    written: Option<oneshot::Sender<bool>>,
}

impl Trail {
    /// None.
    pub(super) fn none() -> Self {
        Trail(None)
    }

    /// Starts the thread that writes, and gives what tells of its end. `missing` counts the records that were not written.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub(super) fn start(ledger: impl Ledger, missing: Counter) -> io::Result<(Self, oneshot::Receiver<()>)> {
        let (queue, entries) = sync_channel(QUEUE);
        let (ended, end) = oneshot::channel();
        let way = Way { queue, waiting: Arc::default(), missing };
        let (waiting, missing) = (Arc::clone(&way.waiting), way.missing.clone());
        thread::Builder::new().name("varta-audit".to_owned()).spawn(move || {
            write(ledger, &entries, &waiting, &missing);
            let _ = ended.send(());
        })?;
        Ok((Trail(Some(way)), end))
    }

    /// Whether there is a ledger.
    pub(crate) const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Writes a record, and waits until it is on the disk, but not for long. Whether it is.
    pub(crate) async fn record(&self, event: &'static str, fields: Map<String, Value>) -> bool {
        let Some(way) = &self.0 else { return true };
        let (written, was_written) = oneshot::channel();
        let is_durable = way.put(event, fields, Some(written))
            && matches!(tokio::time::timeout(DURABLE_WITHIN, was_written).await, Ok(Ok(true)));
        if !is_durable {
            way.missing.increment(1);
        }
        is_durable
    }

    /// Has a record written behind those that wait, and waits for nothing. What very many agents can bring about at once
    /// leaves half of the queue to what is done.
    pub(crate) fn note(&self, event: &'static str, fields: Map<String, Value>, is_cheap: bool) {
        let Some(way) = &self.0 else { return };
        let has_place = !is_cheap || way.waiting.load(Ordering::Relaxed) < QUEUE / 2;
        if !has_place || !way.put(event, fields, None) {
            way.missing.increment(1);
        }
    }
}

impl Way {
    /// Puts a record into the queue, if there is room.
    fn put(
        &self,
        event: &'static str,
        fields: Map<String, Value>,
        written: Option<oneshot::Sender<bool>>,
    ) -> bool {
        let is_taken = self.queue.try_send(Entry { at: wall_now(), event, fields, written }).is_ok();
        if is_taken {
            self.waiting.fetch_add(1, Ordering::Relaxed);
        }
        is_taken
    }
}

/// Writes records until nobody makes any more.
fn write(mut ledger: impl Ledger, entries: &Receiver<Entry>, waiting: &AtomicUsize, missing: &Counter) {
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
        // One that was taken before its sender counted it brings this below zero for a moment, and round; what is cheap has
        // no place then.
        waiting.fetch_sub(answers.len(), Ordering::Relaxed);
        for (written, was_appended) in answers {
            match written {
                // Who asked may have given up waiting, and has counted that.
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
                target: "varta::recovery",
                "the audit log cannot be written: {error}; see --audit-log"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

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

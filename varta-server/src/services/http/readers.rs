//! Clients that read their answers: the slowest of them make room for others.
//!
//! A client is slow when it has taken nothing for a while, or since its answer began less than a least pace. Where
//! nobody needs its place it may be as slow as it likes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::Counter;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::base::accept::MakeRoom;
use crate::metrics::Registry;
use crate::metrics::family::families;

families! {
    CONNECTIONS_CUT = "varta_http_connections_cut_total", "Connections to the metrics address that this server has ended before the client had its answer.";
}

/// For how long a client may take nothing before it is slow: longer than the kernel needs to send again what was
/// lost once.
pub(super) const GRACE: Duration = Duration::from_millis(GRACE_MILLIS);
const GRACE_MILLIS: u64 = 250;
/// The least bytes in a second, from the beginning of the answer on, of a client that is not slow.
const LEAST_PACE: u64 = 64 << 10;

/// All clients that read an answer. Clones share them.
#[derive(Clone)]
pub(super) struct Readers(Arc<All>);

struct All {
    silent: Counter,
    slow: Counter,
    stalled: Counter,
    present: Mutex<Present>,
    /// Notified of each change, for who waits until a client is slow.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Present {
    next: u64,
    /// By numbers of clients.
    readers: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// From when on it is slow.
    slow_from: Instant,
    cut: CancellationToken,
    gone: CancellationToken,
}

/// A client, which reads from the moment on at which the first byte of its answer is written.
#[derive(Debug)]
pub(super) struct Reader {
    number: u64,
    has_asked: AtomicBool,
    /// Whether its answer has pauses of its own, so that its pace says nothing.
    is_streaming: AtomicBool,
    cut: CancellationToken,
    gone: CancellationToken,
    all: Readers,
}

/// How far a client has read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    began: Instant,
    /// The bytes that the kernel has taken for it.
    taken: u64,
    /// Since when it has taken nothing, while more waits for it.
    stalled_since: Option<Instant>,
}

impl Readers {
    pub(super) fn new(registry: &Registry) -> Self {
        let counter = |reason| registry.counter(CONNECTIONS_CUT, &[("reason", reason)]);
        let [silent, slow, stalled] = ["silent", "slow", "stalled"].map(counter);
        Readers(Arc::new(All { silent, slow, stalled, present: Mutex::default(), changed: Notify::new() }))
    }

    /// A client that has just connected.
    pub(super) fn enter(&self) -> Reader {
        let mut present = self.lock();
        let number = present.next;
        present.next += 1;
        let [cut, gone] = [(); 2].map(|()| CancellationToken::new());
        Reader {
            number,
            has_asked: AtomicBool::new(false),
            is_streaming: AtomicBool::new(false),
            cut,
            gone,
            all: self.clone(),
        }
    }

    /// Cuts off the client that has been slow for the longest time, if one is slow, and waits until it is gone. Whether
    /// there was one.
    pub(super) async fn cut_slowest(&self) -> bool {
        let Some((number, slow_from)) = self.slowest() else { return false };
        if slow_from > Instant::now() {
            return false;
        }
        let Some(Entry { cut, gone, .. }) = self.lock().readers.remove(&number) else { return false };
        self.0.slow.increment(1);
        cut.cancel();
        gone.cancelled().await;
        true
    }

    /// Waits until a client may be slow.
    async fn slow(&self) {
        let changed = self.0.changed.notified();
        match self.slowest() {
            Some((_, slow_from)) => {
                tokio::select! {
                    () = changed => {}
                    () = sleep_until(slow_from) => {}
                }
            }
            None => changed.await,
        }
    }

    /// Notes that a client that had said nothing has lost its place to another.
    pub(super) fn has_evicted_silent(&self) {
        self.0.silent.increment(1);
    }

    fn slowest(&self) -> Option<(u64, Instant)> {
        let present = self.lock();
        let all = present.readers.iter().map(|(number, entry)| (*number, entry.slow_from));
        all.min_by_key(|(_, slow_from)| *slow_from)
    }

    fn lock(&self) -> MutexGuard<'_, Present> {
        self.0.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MakeRoom for Readers {
    async fn make_room(&self) {
        while !self.cut_slowest().await {
            self.slow().await;
        }
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readers").field(&self.lock()).finish()
    }
}

impl Reader {
    /// Notes that it has sent a request: what is written from now on is its answer.
    pub(super) fn has_asked(&self) {
        self.has_asked.store(true, Ordering::Relaxed);
    }

    /// Notes that its answer goes on without an end: it is slow only while it takes nothing of it.
    pub(super) fn is_streaming(&self) {
        self.is_streaming.store(true, Ordering::Relaxed);
    }

    /// Resolves when another is to have its place.
    pub(super) async fn cut(&self) {
        self.cut.cancelled().await;
    }

    /// Notes that it is cut off because it has taken nothing for too long, though nobody needs its place.
    pub(super) fn has_stalled(&self) {
        self.all.0.stalled.increment(1);
    }

    /// Notes what became of a write: so many bytes, or `None` if the client takes nothing for now. `progress` is
    /// that of this client, `None` before its answer.
    pub(super) fn record(&self, progress: &mut Option<Progress>, written: Option<usize>) {
        if !self.has_asked.load(Ordering::Relaxed) {
            return;
        }
        let now = Instant::now();
        let progress = progress.get_or_insert(Progress { began: now, taken: 0, stalled_since: None });
        match written {
            Some(length) => {
                progress.taken += length as u64;
                progress.stalled_since = None;
            }
            None => _ = progress.stalled_since.get_or_insert(now),
        }
        if self.cut.is_cancelled() {
            return;
        }
        let slow_from = match self.is_streaming.load(Ordering::Relaxed) {
            false => progress.slow_from(),
            true => match progress.stalled_since {
                Some(since) => since + GRACE,
                None => {
                    self.all.lock().readers.remove(&self.number);
                    return;
                }
            },
        };
        let [cut, gone] = [&self.cut, &self.gone].map(CancellationToken::clone);
        let entry = Entry { slow_from, cut, gone };
        self.all.lock().readers.insert(self.number, entry);
        self.all.0.changed.notify_waiters();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.all.lock().readers.remove(&self.number);
        self.gone.cancel();
    }
}

impl Progress {
    fn slow_from(&self) -> Instant {
        let by_pace = self.began + GRACE + Duration::from_millis(self.taken * 1_000 / LEAST_PACE);
        self.stalled_since.map_or(by_pace, |since| by_pace.min(since + GRACE))
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use tokio::time::{sleep, timeout};

    use super::*;

    /// Has a client read, by what this records, until it is cut off: then its name is noted.
    fn read<F: Future<Output = ()> + Send + 'static>(
        (readers, cut): (&Readers, &Arc<Mutex<Vec<&'static str>>>),
        name: &'static str,
        reading: impl FnOnce(Arc<Reader>) -> F,
    ) {
        let (reader, cut) = (Arc::new(readers.enter()), Arc::clone(cut));
        reader.has_asked();
        let reading = reading(Arc::clone(&reader));
        tokio::spawn(async move {
            tokio::select! {
                () = reading => {}
                () = reader.cut() => cut.lock().unwrap().push(name),
            }
        });
    }

    /// Takes so many bytes now and then.
    async fn take(reader: Arc<Reader>, length: usize) {
        let mut progress = None;
        loop {
            reader.record(&mut progress, Some(length));
            sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_stalls_or_trickles_is_slow_and_who_keeps_the_pace_never_is() {
        let (readers, cut) = (Readers::new(&Registry::for_test()), Arc::default());
        let all = (&readers, &cut);
        read(all, "steady", |reader| take(reader, 700));
        read(all, "trickle", |reader| take(reader, 6));
        read(all, "stalled", |reader| async move {
            let mut progress = None;
            reader.record(&mut progress, Some(1 << 20));
            reader.record(&mut progress, None);
            std::future::pending::<()>().await;
        });
        // It has not asked yet.
        let silent = readers.enter();
        silent.record(&mut None, None);
        let begin = Instant::now();
        for _ in 0..2 {
            readers.make_room().await;
        }
        assert!(begin.elapsed() >= GRACE && begin.elapsed() <= 2 * GRACE, "{:?}", begin.elapsed());
        assert!(timeout(Duration::from_secs(60), readers.make_room()).await.is_err());
        assert_eq!(*cut.lock().unwrap(), ["stalled", "trickle"]);
    }
}

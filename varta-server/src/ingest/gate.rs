//! The gate of all readers of sockets: while it is shut for a hand-over nobody reads, and what arrives waits in the
//! queues of the kernel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{RwLock, watch};
use tokio_util::sync::CancellationToken;

/// The gate. Clones are the same gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<GateInner>);

#[derive(Debug)]
struct GateInner {
    is_shut: AtomicBool,
    changes: watch::Sender<bool>,
    /// Read by each reader that may read; written by who has shut the gate and waits for them.
    readers: Arc<RwLock<()>>,
    /// The readers that wait at the gate.
    waiting: watch::Sender<usize>,
}

/// A reader that waits at the gate.
struct Waiting<'g>(&'g watch::Sender<usize>);

impl<'g> Waiting<'g> {
    fn at(gate: &'g GateInner) -> Self {
        gate.waiting.send_modify(|waiting| *waiting += 1);
        Waiting(&gate.waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

/// What entitles to read.
#[derive(Debug)]
pub(crate) struct ReadPermit(#[expect(dead_code, reason = "held")] tokio::sync::OwnedRwLockReadGuard<()>);

/// Proof that nobody reads.
#[derive(Debug)]
pub(crate) struct NobodyReads(#[expect(dead_code, reason = "held")] tokio::sync::OwnedRwLockWriteGuard<()>);

impl Gate {
    /// An open gate, or one that is shut.
    pub(crate) fn new(is_shut: bool) -> Self {
        let readers = Arc::new(RwLock::new(()));
        let changes = watch::Sender::new(is_shut);
        let waiting = watch::Sender::new(0);
        Gate(Arc::new(GateInner { is_shut: AtomicBool::new(is_shut), changes, readers, waiting }))
    }

    /// Whether readers are to take what has arrived, and then to pause.
    #[inline]
    pub(crate) fn is_shut(&self) -> bool {
        self.0.is_shut.load(Ordering::Relaxed)
    }

    /// Waits until the gate is shut.
    pub(crate) async fn shut(&self) {
        // The sender lives as long as this.
        let _ = self.0.changes.subscribe().wait_for(|is_shut| *is_shut).await;
    }

    /// Waits until this reader may read; `None` when `stop` is cancelled before that. A reader that may read at once
    /// does, also after `stop`, so that what has arrived by then is read.
    pub(crate) async fn enter(&self, stop: &CancellationToken) -> Option<ReadPermit> {
        let _waiting = Waiting::at(&self.0);
        let mut changes = self.0.changes.subscribe();
        let open = async {
            loop {
                let _ = changes.wait_for(|is_shut| !*is_shut).await;
                let permit = Arc::clone(&self.0.readers).read_owned().await;
                if !self.is_shut() {
                    return ReadPermit(permit);
                }
            }
        };
        tokio::select! {
            biased;
            permit = open => Some(permit),
            () = stop.cancelled() => None,
        }
    }

    /// Waits until the gate is open and every reader has entered that was waiting there. A reader reads what it
    /// finds in the turn of its task in which it enters, so that for a task of the same thread all have read.
    pub(crate) async fn entered_by_all(&self) {
        let (mut changes, mut waiting) = (self.0.changes.subscribe(), self.0.waiting.subscribe());
        loop {
            // The senders live as long as this.
            let _ = changes.wait_for(|is_shut| !*is_shut).await;
            let _ = waiting.wait_for(|waiting| *waiting == 0).await;
            if !self.is_shut() {
                return;
            }
        }
    }

    /// Shuts the gate, and waits until no reader reads any more.
    pub(crate) async fn close(&self) -> NobodyReads {
        self.0.is_shut.store(true, Ordering::Relaxed);
        self.0.changes.send_replace(true);
        NobodyReads(Arc::clone(&self.0.readers).write_owned().await)
    }

    /// Opens it. What proves that nobody reads must be dropped before.
    pub(crate) fn open(&self) {
        self.0.is_shut.store(false, Ordering::Relaxed);
        self.0.changes.send_replace(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_was_stopped_before_it_could_read_once_reads_once_unless_the_gate_is_shut() {
        let (gate, stop) = (Gate::new(false), CancellationToken::new());
        stop.cancel();
        assert!(gate.enter(&stop).await.is_some());
        drop(gate.close().await);
        assert!(gate.enter(&stop).await.is_none());
    }

    #[tokio::test]
    async fn who_shuts_it_waits_for_all_readers_and_they_wait_until_it_is_open() {
        let (gate, stop) = (Gate::new(false), CancellationToken::new());
        let reader = {
            let (gate, stop) = (gate.clone(), stop.clone());
            tokio::spawn(async move {
                let mut times = 0;
                while let Some(permit) = gate.enter(&stop).await {
                    times += 1;
                    gate.shut().await;
                    assert!(gate.is_shut());
                    drop(permit);
                }
                times
            })
        };
        tokio::task::yield_now().await;
        for _ in 0..3 {
            drop(gate.close().await);
            assert!(gate.is_shut());
            gate.open();
            tokio::task::yield_now().await;
        }
        drop(gate.close().await);
        stop.cancel();
        assert_eq!(reader.await.unwrap(), 4);
    }

    #[tokio::test]
    async fn all_have_entered_when_each_reader_that_waited_has_read_and_not_before() {
        let (gate, stop) = (Gate::new(true), CancellationToken::new());
        let read = Arc::new(std::sync::Mutex::new(Vec::new()));
        let readers: Vec<_> = (0..3)
            .map(|reader| {
                let (gate, stop, read) = (gate.clone(), stop.clone(), Arc::clone(&read));
                tokio::spawn(async move {
                    let permit = gate.enter(&stop).await;
                    read.lock().unwrap().push(reader);
                    // It reads for longer than a turn.
                    gate.shut().await;
                    drop(permit);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        let mut all = Box::pin(gate.entered_by_all());
        assert!(at_once(&mut all).is_none(), "it is shut");
        gate.open();
        assert!(at_once(&mut all).is_none(), "nobody has run yet");
        all.await;
        let mut read = read.lock().unwrap().clone();
        read.sort_unstable();
        assert_eq!(read, [0, 1, 2]);
        drop(gate.close().await);
        assert!(at_once(&mut Box::pin(gate.entered_by_all())).is_none());
        for reader in readers {
            reader.await.unwrap();
        }
        gate.open();
        gate.entered_by_all().await;
    }

    /// What a future gives without a wait.
    fn at_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        }
    }
}

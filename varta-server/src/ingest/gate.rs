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
        Gate(Arc::new(GateInner { is_shut: AtomicBool::new(is_shut), changes, readers }))
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
}

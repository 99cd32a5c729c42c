//! Closes received file descriptors away from the receiving thread.
//!
//! `close(2)` may block: on a FUSE file system that does not answer, or on a connection that drains. The
//! receiving thread therefore closes only memfds, and leaves every other descriptor to a thread of its own.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, mpsc};
use std::thread;

use crate::ingest::recvmmsg::BATCH;
use crate::ingest::shm::page::seals_of;

/// The capacity of the queue. While it has no room for a batch, no descriptors are received: the kernel drops
/// them.
const WAITING: usize = 4 * BATCH;

/// A thread that closes descriptors. It ends once this value is dropped and its queue is empty; one that is
/// blocked in `close(2)` goes on.
#[derive(Debug)]
pub(super) struct FdReaper {
    queue: SyncSender<OwnedFd>,
    waiting: Arc<AtomicUsize>,
}

impl FdReaper {
    /// # Errors
    ///
    /// The thread cannot be spawned.
    pub(super) fn start() -> io::Result<Self> {
        Self::with(drop)
    }

    fn with(close: impl Fn(OwnedFd) + Send + 'static) -> io::Result<Self> {
        let (queue, descriptors) = mpsc::sync_channel::<OwnedFd>(WAITING);
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&waiting);
        thread::Builder::new().name("varta-closer".to_owned()).spawn(move || {
            for descriptor in descriptors {
                close(descriptor);
                left.fetch_sub(1, Ordering::Relaxed);
            }
        })?;
        Ok(FdReaper { queue, waiting })
    }

    /// Whether the queue has room for the descriptors of a whole batch.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.has_room_for(BATCH)
    }

    /// Whether the queue has room for so many descriptors.
    pub(super) fn has_room_for(&self, descriptors: usize) -> bool {
        self.waiting.load(Ordering::Relaxed) + descriptors <= WAITING
    }

    /// Closes a memfd at once, and queues any other descriptor.
    pub(super) fn close(&self, descriptor: OwnedFd) {
        if seals_of(&descriptor).is_some() {
            return;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.queue.try_send(descriptor) {
            // Queue full or thread gone. Dropping the error closes the descriptor here.
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            drop(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Barrier;

    use super::*;
    use crate::ingest::shm::page::tests::sealed;

    fn stranger() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn one_that_takes_for_ever_holds_up_nobody_and_no_more_are_received() {
        let gate = Arc::new(Barrier::new(2));
        let closed = Arc::clone(&gate);
        let closer = FdReaper::with(move |_| _ = closed.wait()).unwrap();
        for _ in 0..=WAITING - BATCH {
            assert!(closer.has_room());
            closer.close(stranger());
        }
        assert!(!closer.has_room());
        closer.close(sealed());
        for _ in 0..=WAITING - BATCH {
            gate.wait();
        }
    }
}

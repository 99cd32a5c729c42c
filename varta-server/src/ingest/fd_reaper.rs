//! Closes what strangers pass along.
//!
//! To close a file is to ask its file system, which may be of the stranger's own making and need not answer, or to wait
//! for a connection to drain. So nothing but memory is closed on the thread that takes beats.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, mpsc};
use std::thread;

use crate::ingest::recvmmsg::BATCH;
use crate::ingest::shm::page::seals_of;

/// Descriptors that may wait. While there is no place for those of a batch none are received: the kernel drops them.
const WAITING: usize = 4 * BATCH;

/// A thread that closes descriptors. It ends when this is dropped, unless somebody keeps it waiting.
#[derive(Debug)]
pub(super) struct Closer {
    queue: SyncSender<OwnedFd>,
    waiting: Arc<AtomicUsize>,
}

impl Closer {
    /// # Errors
    ///
    /// When there is no thread to be had.
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
        Ok(Closer { queue, waiting })
    }

    /// Whether there is a place for as many as a batch may bring.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) + BATCH <= WAITING
    }

    /// Closes a descriptor, sooner or later.
    pub(super) fn close(&self, descriptor: OwnedFd) {
        if seals_of(&descriptor).is_some() {
            return;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.queue.try_send(descriptor) {
            // Only if more came than there was room for, or the thread is gone. It is closed here then.
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
        let closer = Closer::with(move |_| _ = closed.wait()).unwrap();
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

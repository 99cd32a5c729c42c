//! The ingest thread: a runtime of its own for listeners and tracker, so that nothing else that the server does, a
//! scrape above all, stands in a beat's way.
//!
//! One thread and not several: between a listener and the tracker a batch changes hands some hundred thousand times a
//! second, and a hand-over within one thread costs a tenth of one between two.

use std::io;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A running thread. It ends when this is dropped; what still runs on it is dropped then.
#[derive(Debug)]
pub(crate) struct IngestThread {
    handle: Handle,
    /// Dropped first: that is the word to stop.
    running: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl IngestThread {
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (running, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("varta-ingest".to_owned()).spawn(move || {
            // Only ever fails, when the other end is dropped, and that is what it waits for.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(IngestThread { handle, running: Some(running), thread: Some(thread) })
    }

    /// Where tasks for this thread are spawned.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for IngestThread {
    fn drop(&mut self) {
        self.running.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(target: "varta::ingest", "the ingest thread panicked");
        }
    }
}

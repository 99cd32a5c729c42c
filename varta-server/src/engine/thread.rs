//! The engine's thread: a runtime of its own for listeners and tracker, so that other work of the server,
//! such as a scrape, never delays a beat.
//!
//! One thread instead of several: a batch passes from a listener to the tracker some hundred thousand times a
//! second, and a hand-over within one thread costs a tenth of one between two.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A running thread. Dropping it ends the thread, and drops the tasks that still run there.
#[derive(Debug)]
pub(crate) struct IngestThread {
    handle: Handle,
    /// Dropped first, which stops the thread.
    running: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl IngestThread {
    pub(crate) fn start() -> io::Result<Self> {
        let (running, stopped) = oneshot::channel::<()>();
        let (tell, told) = mpsc::sync_channel(1);
        // The runtime is made and dropped there: within another runtime a drop panics.
        let thread = std::thread::Builder::new().name("varta-ingest".to_owned()).spawn(move || {
            match Builder::new_current_thread().enable_io().enable_time().build() {
                Ok(runtime) => {
                    // The other end waits for it.
                    let _ = tell.send(Ok(runtime.handle().clone()));
                    // `Err` when the sender is dropped, which is the signal to stop.
                    let _ = runtime.block_on(stopped);
                }
                Err(error) => _ = tell.send(Err(error)),
            }
        })?;
        let handle = told.recv().map_err(|_| io::Error::other("the ingest thread panicked"))??;
        Ok(IngestThread { handle, running: Some(running), thread: Some(thread) })
    }

    /// The handle to spawn tasks on this thread.
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

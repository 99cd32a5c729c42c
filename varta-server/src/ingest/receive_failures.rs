//! Failures of a listener to receive from its socket: it goes on, unless they do not end.

use std::io;
use std::time::Duration;

use crate::base::error::Error;
use crate::ingest::endpoint::Endpoint;
use crate::ingest::metrics::FrameCounters;

/// The pause after a failed receive call, as when the kernel is short of memory.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(20);
/// The number of consecutive failures, a second's worth, at which the listener ends with an error.
const MAX_ERRORS: u32 = 50;

/// The failures since something was received.
#[derive(Debug, Default)]
pub(super) struct ReceiveFailures {
    in_a_row: u32,
}

impl ReceiveFailures {
    /// Something was received.
    pub(super) const fn clear(&mut self) {
        self.in_a_row = 0;
    }

    /// Counts a failure, logs the first of several in a row, and pauses.
    ///
    /// # Errors
    ///
    /// The failure itself, if it is the last that is put up with.
    pub(super) async fn add(
        &mut self,
        error: io::Error,
        endpoint: &Endpoint,
        counters: &FrameCounters,
    ) -> Result<(), Error> {
        self.in_a_row += 1;
        counters.io_error();
        if self.in_a_row >= MAX_ERRORS {
            return Err(endpoint.failed("receive from the socket", error));
        }
        if self.in_a_row == 1 {
            tracing::warn!(target: "varta::ingest", "{endpoint}: cannot receive: {error}; trying again");
        }
        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        Ok(())
    }
}

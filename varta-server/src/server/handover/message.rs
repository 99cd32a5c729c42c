//! What is said in a hand-over.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::base::descriptor_link::{DescriptorLink, Message};
use crate::ingest::PersistedWindow;
use crate::metrics::counters::CounterValue;

pub(super) const WELCOME: u32 = 1;
pub(super) const PREPARED: u32 = 2;
pub(super) const STATE: u32 = 3;
pub(super) const TAKEN: u32 = 4;
pub(super) const YOURS: u32 = 5;
pub(super) const RELEASED: u32 = 6;
pub(super) const RUNNING: u32 = 7;
pub(super) const FAILED: u32 = 8;

/// The longest wait for a new server to read its configuration and keys.
pub(super) const PREPARED_WITHIN: Duration = Duration::from_secs(60);
/// The longest wait for any other step.
pub(super) const STEP_WITHIN: Duration = Duration::from_secs(15);

/// What the old server says first, as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Welcome {
    /// The start of its clock on that of the host, in nanoseconds.
    pub(super) host_start: u64,
    /// Those of all keys that it has ever loaded, in the order of their numbers.
    pub(super) fingerprints: Vec<u64>,
    /// Its sockets, whose descriptors come in the same order.
    pub(super) sockets: Vec<PassedSocket>,
    /// Whether the lock of its state directory comes behind them.
    pub(super) has_lock: bool,
    /// Whether its standard error comes last, in which the new server is to log.
    pub(super) has_stderr: bool,
}

/// A socket that is passed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PassedSocket {
    /// The option that it belongs to, without dashes.
    pub(super) option: String,
    /// Whether its file is removed in the end.
    pub(super) removes_file: bool,
    /// The datagrams that its queue holds, where that is known.
    pub(super) queue: Option<usize>,
}

/// All that the old server knows, but for its descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) fingerprints: Vec<u64>,
    pub(super) engine: Vec<u8>,
    pub(super) windows: Vec<PersistedWindow>,
    pub(super) counters: Vec<CounterValue>,
    /// When it stopped reading, on the clock of the host in nanoseconds.
    pub(super) stopped_at: u64,
}

/// Waits for a message of this kind. Blocks.
///
/// # Errors
///
/// What the other end says instead, or why it says nothing.
pub(super) fn expect(link: &DescriptorLink, kind: u32, other: &str) -> Result<Message, String> {
    match link.receive() {
        Ok(message) if message.kind == kind => Ok(message),
        Ok(Message { kind: FAILED, bytes, .. }) => Err(String::from_utf8_lossy(&bytes).into_owned()),
        Ok(Message { kind, .. }) => Err(format!("{other} says what is not expected (message {kind})")),
        Err(error) => Err(match error.kind() {
            _ if is_end(&error) => format!("{other} has ended"),
            ErrorKind::WouldBlock => format!("{other} does not answer"),
            _ => format!("{other} cannot be understood: {error}"),
        }),
    }
}

/// Whether a link failed because the other end is gone.
pub(super) fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// Does something with the link that blocks, on a thread for that.
///
/// # Errors
///
/// What it gives, or that it panicked.
pub(super) async fn blocking<T: Send + 'static>(
    link: &Arc<DescriptorLink>,
    work: impl FnOnce(&DescriptorLink) -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let link = Arc::clone(link);
    spawn_blocking(move || work(&link)).await.unwrap_or_else(|error| Err(error.to_string()))
}

/// The fault of a step that a link failed in.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(super) fn fault(error: io::Error) -> String {
    error.to_string()
}

//! A batch: the beats and control messages that a listener reads together.
//!
//! Listeners hand batches to the engine, so that one reading of the clock and one send serve many beats.

use std::os::fd::OwnedFd;

use crate::base::time::MonoTime;
use crate::domain::beat::{ReceivedBeat, ReceivedControl, Transport};

/// The beats that one listener read together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) transport: Transport,
    pub(crate) beats: Vec<ReceivedBeat>,
    /// The control messages between the beats, each with the number of beats before it. There are few.
    pub(crate) controls: Vec<(usize, ReceivedControl)>,
    /// When the batch was read, if the socket's queue was full and the kernel turned senders away.
    pub(crate) queue_full_at: Option<MonoTime>,
    /// Pidfds of senders, with their pids: while there is little to read, and never all of a crowd.
    pub(crate) pidfds: Vec<(u32, OwnedFd)>,
}

impl Batch {
    /// A batch of what services say, without anything in it.
    pub(crate) const fn of_services() -> Self {
        Batch {
            transport: Transport::Notify,
            beats: Vec::new(),
            controls: Vec::new(),
            queue_full_at: None,
            pidfds: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.beats.is_empty() && self.controls.is_empty() && self.queue_full_at.is_none()
    }
}

use crate::base::time::MonoTime;
use crate::domain::beat::{ReceivedBeat, ReceivedControl, Transport};

/// Beats that were read together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) transport: Transport,
    pub(crate) beats: Vec<ReceivedBeat>,
    /// What came between them, each with the number of beats before it. There are few.
    pub(crate) controls: Vec<(usize, ReceivedControl)>,
    /// When it was read, if the socket's queue was full, so that senders were turned away.
    pub(crate) turned_away_at: Option<MonoTime>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.beats.is_empty() && self.controls.is_empty() && self.turned_away_at.is_none()
    }
}

//! What the picture of a replay is drawn from, in bounded memory.

use std::collections::HashMap;
use std::time::Duration;

use crate::base::time::MonoTime;
use crate::domain::beat::Sender;
use crate::services::recording::quantiles::Quantiles;

/// A verdict that was wrong from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// When it was taken back, since the beginning of the recording.
    pub(super) at: Duration,
    /// How long it lasted.
    pub(super) lasted: Duration,
}

/// The figures of a picture.
#[derive(Debug, Default)]
pub(super) struct PlotData {
    /// From each accepted beat of an agent to the next one.
    pub(super) gaps: Quantiles,
    /// The first mistakes, [`PlotData::MAX_MISTAKES`] at most.
    pub(super) mistakes: Vec<Mistake>,
    first: Option<MonoTime>,
    /// The last beat of each sender. Those whose beats are accepted are no more than the tracker has agents.
    last: HashMap<Sender, MonoTime>,
}

impl PlotData {
    /// The most mistakes that are drawn: more of them make no other picture.
    const MAX_MISTAKES: usize = 10_000;

    /// Takes an accepted beat.
    pub(super) fn beat(&mut self, sender: Sender, at: MonoTime) {
        self.first.get_or_insert(at);
        if let Some(before) = self.last.insert(sender, at) {
            self.gaps.add(at.since(before));
        }
    }

    /// Takes a mistake, which was taken back at this time.
    pub(super) fn mistake(&mut self, at: MonoTime, lasted: Duration) {
        if self.mistakes.len() < Self::MAX_MISTAKES {
            let at = at.since(self.first.unwrap_or(at));
            self.mistakes.push(Mistake { at, lasted });
        }
    }
}

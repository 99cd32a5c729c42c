//! Going over all agents, so that the registry has what nobody tells it, and heals.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::writer::Writer;
use crate::actor::Query;
use crate::time::MonoTime;

/// How often all agents are gone over.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Between two slices, so that a million agents neither hold up beats nor fill the disk's queue.
pub(super) const SLICE_PAUSE: Duration = Duration::from_millis(100);

/// How far the agents have been gone over.
#[derive(Debug)]
pub(super) struct Sweep {
    /// Of the one that goes on or was the last: what it wrote bears that number.
    pub(super) number: i64,
    /// Whether every slice of it has been written so far.
    pub(super) is_whole: bool,
    pub(super) next: Next,
}

/// What comes next in a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// To begin one. `NEVER` when there is nobody to go over.
    Begin { at: MonoTime },
    /// To ask for the slice from this slot number on.
    Ask { from: usize, at: MonoTime },
    /// A slice is on its way.
    Wait,
}

impl Writer {
    /// Asks for the next slice of agents, if it is time.
    pub(super) fn ask(&mut self, now: MonoTime) {
        if self.failing.is_some() {
            return;
        }
        let from = match self.sweep.next {
            Next::Begin { at } if at <= now || self.lost.load(Ordering::Relaxed) => 0,
            Next::Ask { from, at } if at <= now => from,
            Next::Begin { .. } | Next::Ask { .. } | Next::Wait => return,
        };
        // A place for the answer is kept, so that it cannot get lost, and comes after all that was told before.
        let place = self.own_queue.upgrade().and_then(|queue| queue.try_reserve_owned().ok());
        // What is lost after the question is asked may be what the answer has.
        let makes_up_for_loss = from == 0 && self.lost.swap(false, Ordering::Relaxed);
        let asked = place.map(|place| self.means.queries.try_send(Query::Slice { from, place }));
        self.sweep.next = if let Some(Ok(())) = asked {
            Next::Wait
        } else {
            if makes_up_for_loss {
                self.lost.store(true, Ordering::Relaxed);
            }
            Next::Ask { from, at: now + SLICE_PAUSE }
        };
    }
}

//! Going over all agents, so that the registry has what nobody tells it, and heals.

use std::sync::atomic::Ordering;

use crate::base::time::MonoTime;
use crate::engine::query::Query;
use crate::services::state::progress::{Next, SLICE_PAUSE};
use crate::services::state::writer::Writer;

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
        let asked = place.map(|place| self.queries.try_send(Query::Slice { from, place }));
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

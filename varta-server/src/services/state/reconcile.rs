//! Reconciliation of the registry: sweeps over all agents update what no event reports, and repair what was
//! lost.

use std::sync::atomic::Ordering;

use crate::base::time::MonoTime;
use crate::engine::query::Query;
use crate::services::state::progress::{Next, SLICE_PAUSE};
use crate::services::state::writer::Writer;

impl Writer {
    /// Requests the next slice of agents when it is due.
    pub(super) fn ask(&mut self, now: MonoTime) {
        if self.failing.is_some() {
            return;
        }
        let from = match self.sweep.next {
            Next::Begin { at } if at <= now || self.lost.load(Ordering::Relaxed) => 0,
            Next::Ask { from, at } if at <= now => from,
            Next::Begin { .. } | Next::Ask { .. } | Next::Wait => return,
        };
        // The response gets a reserved place, so that it cannot be lost, and follows all changes queued
        // before.
        let place = self.own_queue.upgrade().and_then(|queue| queue.try_reserve_owned().ok());
        // The flag is cleared before the request: a change that is lost later may or may not be in the
        // response.
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

//! What the actor has to do with pages of memory, beside taking what the looks at them hand on.

use std::num::NonZeroU64;

use crate::base::time::MonoTime;
use crate::domain::beat::{Origin, Sender, Transport};
use crate::engine::task::Actor;

impl Actor {
    /// Reads the pages of those whose silence would be judged next. What was sent by datagram before `now` has been taken.
    pub(super) fn read_pages(&mut self, now: MonoTime) {
        while let Some(pid) = self.tracker.poll_unread() {
            self.read_page(pid, now);
            self.tracker.handle_read(pid, now);
        }
        if let Some(pids) = self.pages.poll_pace(now) {
            let tracker = &self.tracker;
            self.pages.set_pace(pids.iter().filter_map(|pid| tracker.stall_after_of_process(*pid)).min());
        }
    }

    pub(super) fn read_page(&mut self, pid: u32, now: MonoTime) {
        if self.pages.has(pid) {
            let (batch, refused) = self.pages.read(pid, now);
            self.frames[Transport::Shm.index()].add(&refused);
            self.take(&batch);
        }
    }

    /// Takes what was sent by datagram up to now, if the process has a page, and then what is in that.
    pub(super) async fn read_page_behind_datagrams(&mut self, pid: u32) {
        if self.pages.has(pid) {
            let now = self.clock.now();
            self.catch_up().await;
            self.read_page(pid, now);
        }
    }

    /// Takes the last that a process has written that died.
    pub(super) fn read_last_of(&mut self, pid: u32, start_time: NonZeroU64, noticed_at: MonoTime) {
        self.read_page(pid, noticed_at);
        self.pages.forget(pid, start_time);
    }

    /// Has pages looked at as often as one needs it that has just said something of itself.
    pub(super) fn keep_pace(&self, Sender { origin, pid, .. }: Sender) {
        if origin == Origin::Local
            && self.pages.has(pid)
            && let Some(stall_after) = self.tracker.stall_after_of_process(pid)
        {
            self.pages.hurry(stall_after);
        }
    }
}

//! The engine's own reads of shared memory pages, besides the regular polls: before a verdict, and after an
//! exit.

use std::num::NonZeroU64;

use crate::base::time::MonoTime;
use crate::domain::beat::{Sender, Transport};
use crate::engine::task::TrackerActor;

impl TrackerActor {
    /// Reads the pages of processes whose deadline has passed. Datagrams sent before `now` have been
    /// processed.
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
            self.take(batch);
        }
    }

    /// Processes the datagrams sent up to now, if the process has a page, and then reads the page.
    pub(super) async fn read_page_behind_datagrams(&mut self, pid: u32) {
        if self.pages.has(pid) {
            let now = self.clock.now();
            self.read_ahead().await;
            self.read_page(pid, now);
        }
    }

    /// Reads what an exited process has last written, and drops its pages.
    pub(super) fn read_last_of(&mut self, pid: u32, start_time: Option<NonZeroU64>, noticed_at: MonoTime) {
        self.read_page(pid, noticed_at);
        self.pages.forget(pid, start_time);
    }

    /// Shortens the poll interval to what the timeout of an agent needs that has just sent a control message.
    pub(super) fn keep_pace(&self, Sender { origin, pid, .. }: Sender) {
        if origin.is_local()
            && self.pages.has(pid)
            && let Some(stall_after) = self.tracker.stall_after_of_process(pid)
        {
            self.pages.shorten_interval(stall_after);
        }
    }
}

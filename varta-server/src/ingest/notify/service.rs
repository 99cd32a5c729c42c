//! One service: its session of beats, and what is known of its keep-alives.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use varta_proto::{Frame, Status};

use crate::base::time::{MonoTime, nanos};
use crate::domain::beat::{KeepAlives, Notification};
use crate::domain::service_message::ServiceMessage;

/// The gaps between keep-alives that are remembered, of which the longest counts as the interval: some services have
/// several rhythms, and after a stall the interval is soon the usual one again.
const GAPS: usize = 8;
/// The gaps from which on an interval is known.
const MIN_GAPS: usize = 3;
/// How often what is awaited is said again.
const TOLD_EVERY: u32 = 16;

/// A service that is known.
#[derive(Debug)]
pub(super) struct Service {
    /// The frame of its last sign of life.
    last: Frame,
    /// The start of its session's clock.
    began: MonoTime,
    is_stopping: bool,
    /// The time within which it means to send keep-alives.
    within: Option<Duration>,
    kept_alive_at: Option<MonoTime>,
    gaps: VecDeque<Duration>,
    /// What was said last of the keep-alives that are awaited, and of how many messages since nothing was.
    told: Option<KeepAlives>,
    untold: u32,
    pub(super) cgroup: Option<String>,
    /// Descendants that have said that they are ready, of which one may become the main process.
    pub(super) heirs: Vec<u32>,
    /// When its main process was seen to have ended.
    pub(super) ended_at: Option<MonoTime>,
}

impl Service {
    /// A service with this main process, of which nothing has been heard.
    pub(super) fn new(pid: u32, within: Option<Duration>, cgroup: Option<String>, now: MonoTime) -> Self {
        Service {
            last: Frame::new(Status::Ok, pid, 0, 0, 0),
            began: now,
            is_stopping: false,
            within,
            kept_alive_at: None,
            gaps: VecDeque::new(),
            told: None,
            untold: 0,
            cgroup,
            heirs: Vec::new(),
            ended_at: None,
        }
    }

    /// What a message means for the agent.
    ///
    /// After `STOPPING=1` nothing is a sign of life but another `READY=1`: keep-alives may go on until the end.
    pub(super) fn say(&mut self, message: &ServiceMessage, at: MonoTime) -> Notification {
        if let Some(within) = message.watchdog {
            self.within = Some(within).filter(|within| !within.is_zero());
        }
        self.is_stopping &= !message.is_ready;
        let is_first = self.last.nonce == 0;
        let keeps_alive = (message.is_alive || message.is_broken) && !self.is_stopping;
        if keeps_alive {
            self.note_keep_alive(at);
        }
        let is_beat = keeps_alive || message.is_ready || is_first;
        if is_beat {
            let status = if message.is_broken { Status::Critical } else { Status::Ok };
            let timestamp = nanos(at.since(self.began)).saturating_add(1);
            self.last = Frame::new(status, self.last.pid, timestamp, self.last.nonce + 1, 0);
        }
        let keep_alives = self.keep_alives().or(is_first.then_some(KeepAlives::Unawaited));
        let keep_alives = keep_alives.filter(|_| is_beat || message.watchdog.is_some());
        self.is_stopping |= message.is_stopping;
        Notification {
            frame: self.last,
            is_beat,
            keep_alives: self.tell(keep_alives),
            busy_for: message.busy_for,
            status: message.status.as_deref().map(Arc::from),
            is_goodbye: message.is_stopping,
            is_derived: false,
        }
    }

    /// Says what keep-alives are awaited if that is news, and now and then though it is none, for a tracker that has
    /// forgotten the agent meanwhile. What says nothing else is an ordinary beat.
    fn tell(&mut self, keep_alives: Option<KeepAlives>) -> Option<KeepAlives> {
        let keep_alives = keep_alives?;
        self.untold += 1;
        if self.told == Some(keep_alives) && self.untold < TOLD_EVERY {
            return None;
        }
        self.untold = 0;
        self.told = Some(keep_alives);
        self.told
    }

    fn note_keep_alive(&mut self, at: MonoTime) {
        if let Some(before) = self.kept_alive_at.replace(at) {
            if self.gaps.len() >= GAPS {
                self.gaps.pop_front();
            }
            self.gaps.push_back(at.since(before));
        }
    }

    /// What keep-alives are awaited; `None` before one has come, or as long as nothing is known of their interval.
    fn keep_alives(&self) -> Option<KeepAlives> {
        self.kept_alive_at?;
        if let Some(within) = self.within {
            return Some(KeepAlives::Within(within));
        }
        let longest = self.gaps.iter().max().filter(|_| self.gaps.len() >= MIN_GAPS)?;
        Some(KeepAlives::Every(*longest))
    }
}

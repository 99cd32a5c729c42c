//! A simulated agent: a process with a handle, a clock that drifts, and a fate.

use std::time::Duration;

use varta_proto::control::GoodbyeReason;
use varta_proto::{Frame, NONCE_TERMINAL, Status};

use crate::base::time::{MonoTime, nanos};
use crate::domain::beat::{ControlMessage, Hello, ReceivedBeat, ReceivedControl, Sender};
use crate::domain::tracker::tests::simulation::chance::Chance;
use crate::domain::tracker::tests::simulation::link::Link;

/// The minimum life of a handle on a fixed port.
const MIN_LIFE: Duration = Duration::from_secs(8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Beating,
    /// Stopped until this time.
    Paused(MonoTime),
    /// It said goodbye, or its process ended.
    Away,
}

#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) sender: Sender,
    pub(super) link: Link,
    pub(super) chance: Chance,
    pub(super) state: State,
    /// Rises with each handle, over all lives of the process.
    pub(super) handle: u32,
    /// The start time of the process, as the kernel would report it; `None` for a remote one.
    pub(super) start_time: Option<u64>,
    pub(super) status: Status,
    pub(super) interval: Duration,
    /// The maximum delay of its timer, as no timer is exact.
    lateness: Duration,
    /// Parts per million by which its clock is fast.
    drift: i32,
    /// The resolution of its clock, in nanoseconds.
    grain: u64,
    /// The time on its clock when it connected.
    began_with: u64,
    /// Whether all its handles send from one port.
    has_fixed_port: bool,
    connected_at: MonoTime,
    nonce: u64,
    /// The time at which it last sent anything.
    sent_at: MonoTime,
    /// Whether nothing has happened to it but delays of its beats.
    pub(super) undisturbed: bool,
}

impl Worker {
    pub(super) fn new(number: u16, mut chance: Chance, at: MonoTime) -> Self {
        let pid = 100 + u32::from(number);
        let is_local = chance.happens(0.6);
        let source = (std::net::Ipv4Addr::new(10, 0, 0, 1), 4_000 + number).into();
        let sender = if is_local { Sender::local(pid) } else { Sender::udp(source, pid) };
        let link = if is_local { Link::local(&mut chance) } else { Link::remote(&mut chance) };
        let interval = chance.millis(100, 1_500);
        let grain = chance.one_of(&[1, 1, 1_000_000, 1_000_000_000]);
        let has_fixed_port = !is_local && chance.happens(0.5);
        Worker {
            grain: if is_local || has_fixed_port { grain } else { 1 },
            began_with: 1_000,
            has_fixed_port,
            sender,
            state: State::Beating,
            handle: 1,
            start_time: is_local.then_some(1_000),
            status: Status::Ok,
            interval,
            lateness: Duration::from_micros(50) + interval.mul_f64(chance.one_of(&[0.0, 0.01, 0.2])),
            drift: chance.one_of(&[0, 0, -200, 200, 50_000]),
            connected_at: at,
            nonce: 0,
            sent_at: at,
            undisturbed: link.loss == 0.0,
            link,
            chance,
        }
    }

    /// The longest time between the arrivals of two of its beats, as long as nothing happens to it.
    pub(super) fn longest_gap(&self) -> Duration {
        self.interval + self.lateness + self.link.longest()
    }

    /// Makes a handle, which has a socket of its own.
    pub(super) fn connect(&mut self, at: MonoTime) {
        self.handle += 1;
        self.began_with = 1 + self.chance.below(1_000_000);
        if self.start_time.is_none() && !self.has_fixed_port {
            self.sender.lane.port += 100;
        }
        self.connected_at = at;
        self.nonce = 0;
        self.state = State::Beating;
    }

    /// Whether it may make a handle. Two sockets whose datagrams arrive in turn are two agents, so a remote
    /// worker waits until all that it sent has arrived. A worker with a fixed port does not wait for that,
    /// but is not restarted so soon that its new handle looks like one whose beats are late.
    pub(super) fn may_connect(&self, now: MonoTime) -> bool {
        if self.has_fixed_port {
            now > self.connected_at + MIN_LIFE
        } else {
            self.start_time.is_some() || now > self.sent_at + self.link.longest()
        }
    }

    /// The time of its next beat.
    pub(super) fn next_wake(&mut self, now: MonoTime) -> MonoTime {
        now + self.interval + self.lateness.mul_f64(self.chance.unit())
    }

    /// The frame of its next beat; the link decides when it arrives.
    pub(super) fn beat(&mut self, now: MonoTime) -> ReceivedBeat {
        self.nonce += 1;
        self.sent_at = now;
        self.frame(self.nonce, self.status, now)
    }

    pub(super) fn last_word(&self, now: MonoTime) -> ReceivedBeat {
        self.frame(NONCE_TERMINAL, Status::Critical, now)
    }

    pub(super) fn goodbye(&self, now: MonoTime) -> ReceivedControl {
        let reason = Some(GoodbyeReason::Shutdown);
        let said = ControlMessage::Goodbye { nonce: self.nonce, timestamp: self.clock(now), reason };
        ReceivedControl { received_at: now, sender: self.sender, said }
    }

    pub(super) fn hello(&mut self, now: MonoTime) -> ReceivedControl {
        let chance = &mut self.chance;
        let interval = chance.happens(0.4).then_some(self.interval);
        let stall_after = chance.happens(0.4).then(|| chance.millis(5, 8_000));
        let busy_for = chance.happens(0.3).then(|| chance.millis(0, 9_000));
        let introduction = Hello { interval, stall_after, busy_for, ..Hello::default() };
        ReceivedControl { received_at: now, sender: self.sender, said: ControlMessage::Hello(introduction) }
    }

    fn frame(&self, nonce: u64, status: Status, now: MonoTime) -> ReceivedBeat {
        let frame = Frame::new(status, self.sender.pid, self.clock(now), nonce, 0);
        ReceivedBeat { received_at: now, sender: self.sender, frame }
    }

    fn clock(&self, now: MonoTime) -> u64 {
        let elapsed = nanos(now.since(self.connected_at));
        let exact = elapsed.saturating_add_signed(elapsed.cast_signed() / 1_000_000 * i64::from(self.drift))
            + self.began_with;
        (exact - exact % self.grain).max(1)
    }
}

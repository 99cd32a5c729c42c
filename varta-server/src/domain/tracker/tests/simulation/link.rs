//! The link of an agent: it loses, delays, duplicates and reorders datagrams.

use std::time::Duration;

use crate::base::time::MonoTime;
use crate::domain::tracker::tests::simulation::chance::Chance;

#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) loss: f64,
    pub(super) doubling: f64,
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    /// Whether datagrams arrive in the order in which they were sent.
    pub(super) keeps_order: bool,
    newest_arrival: MonoTime,
}

impl Link {
    /// A Unix datagram socket: it loses datagrams when its queue is full, and does nothing else.
    pub(super) fn local(chance: &mut Chance) -> Self {
        Link {
            loss: chance.one_of(&[0.0, 0.0, 0.05, 0.3]),
            doubling: 0.0,
            delay: Duration::ZERO,
            jitter: Duration::from_micros(500),
            keeps_order: true,
            newest_arrival: MonoTime::START,
        }
    }

    /// A network with every fault that it may have.
    pub(super) fn remote(chance: &mut Chance) -> Self {
        Link {
            loss: chance.one_of(&[0.0, 0.0, 0.02, 0.1, 0.3]),
            doubling: chance.one_of(&[0.0, 0.0, 0.1]),
            delay: chance.millis(0, 100),
            jitter: chance.one_of(&[
                Duration::from_millis(1),
                Duration::from_millis(15),
                Duration::from_millis(900),
            ]),
            keeps_order: chance.happens(0.3),
            newest_arrival: MonoTime::START,
        }
    }

    /// The longest time that a datagram takes.
    pub(super) fn longest(&self) -> Duration {
        self.delay + self.jitter
    }

    /// The times at which a datagram sent now arrives: none, one or two.
    pub(super) fn carry(&mut self, chance: &mut Chance, now: MonoTime) -> [Option<MonoTime>; 2] {
        if chance.happens(self.loss) {
            return [None, None];
        }
        let first = self.arrival(chance, now);
        let second = chance.happens(self.doubling).then(|| self.arrival(chance, now));
        [Some(first), second]
    }

    /// The time at which a datagram arrives that is sent after all others and is neither lost nor overtaken.
    pub(super) fn carry_last(&mut self, now: MonoTime) -> MonoTime {
        (now + self.longest()).max(self.newest_arrival)
    }

    fn arrival(&mut self, chance: &mut Chance, now: MonoTime) -> MonoTime {
        let mut at = now + self.delay + self.jitter.mul_f64(chance.unit());
        if self.keeps_order {
            at = at.max(self.newest_arrival);
        }
        self.newest_arrival = self.newest_arrival.max(at);
        at
    }
}

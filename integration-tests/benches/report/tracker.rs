//! What the tracker alone takes for a beat, with very many agents that beat in random order, beside a random read in an
//! array of as many cache lines: fewer memory accesses than one there cannot be.

use std::hint::black_box;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use varta_agent::{Frame, Status};
use varta_server::beat::{ReceivedBeat, Sender};
use varta_server::time::MonoTime;
use varta_server::tracker::{Policy, ProcessIdentity, Processes, Tracker};

use crate::statistics::Comparison;
use crate::{Fallible, sys};

/// Beats that are handed in together, as a listener does.
const BATCH: usize = 64;
const ROUNDS: usize = 9;
/// Beats of a round; fewer agents beat several times in it.
const BEATS: u32 = 1_000_000;
const FIRST_PID: u32 = 2;

pub(crate) const YARDSTICK: &str = "random read of 64 bytes";

/// What so many agents cost the tracker.
pub(crate) struct Cost {
    /// Nanoseconds for a beat, beside those for a cache line.
    pub(crate) beat: Comparison,
    /// Bytes allocated for each agent.
    pub(crate) memory: f64,
}

impl Cost {
    pub(crate) fn of(count: u32) -> Fallible<Self> {
        let mut agents = Agents::new(count)?;
        let lines = Lines::new(count);
        let (mut ours, mut yardstick) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(agents.round()?);
            yardstick.push(lines.round(&agents.order));
        }
        Ok(Cost {
            beat: Comparison::of(&ours, &yardstick)?,
            memory: agents.allocated as f64 / f64::from(count),
        })
    }
}

/// Processes of which nobody knows more than the pid.
struct Nobody;

impl Processes for Nobody {
    fn identify(&mut self, pid: u32) -> Option<ProcessIdentity> {
        Some(ProcessIdentity::of_command(NonZeroU64::MIN, format!("worker-{}", pid % 100)))
    }
}

/// A tracker with agents that all have beaten once.
struct Agents {
    tracker: Tracker,
    /// Bytes that the tracker has allocated for them.
    allocated: usize,
    nonces: Vec<u64>,
    now: MonoTime,
    /// Whose turn it is.
    order: Vec<u32>,
}

impl Agents {
    fn new(count: u32) -> Fallible<Self> {
        let policy = Policy {
            max_agents: count as usize,
            max_beat_rate: 0,
            // Nobody's deadline comes.
            stall_after: Duration::from_secs(1_000_000),
            ..Policy::default()
        };
        let order = shuffled(BEATS.max(count), count);
        let (first, nonces) = ((0..count).collect::<Vec<u32>>(), vec![0; count as usize]);
        let allocated_before = sys::allocated();
        let mut agents = Agents {
            tracker: Tracker::new(policy),
            allocated: 0,
            nonces,
            now: MonoTime::from_secs(1),
            order,
        };
        agents.beat(&first)?;
        agents.allocated = sys::allocated().saturating_sub(allocated_before);
        Ok(agents)
    }

    /// Nanoseconds for each beat of a round.
    fn round(&mut self) -> Fallible<f64> {
        let order = std::mem::take(&mut self.order);
        let time = self.beat(&order)?;
        let nanos = time.as_nanos() as f64 / order.len() as f64;
        self.order = order;
        Ok(nanos)
    }

    /// Has agents beat one after the other. The time counts in which the tracker takes batches, and not that in which they
    /// are made.
    fn beat(&mut self, order: &[u32]) -> Fallible<Duration> {
        let mut time = Duration::ZERO;
        let mut batch = Vec::with_capacity(BATCH);
        for some in order.chunks(BATCH) {
            self.now = self.now + Duration::from_micros(some.len() as u64);
            batch.clear();
            batch.extend(some.iter().map(|agent| {
                let nonce = &mut self.nonces[*agent as usize];
                *nonce += 1;
                let pid = FIRST_PID + agent;
                let frame = Frame::new(Status::Ok, pid, self.now.as_nanos(), *nonce, 0);
                ReceivedBeat { received_at: self.now, sender: Sender::local(pid), frame }
            }));
            let start = Instant::now();
            let tally = self.tracker.handle_batch(&batch, &mut Nobody);
            time += start.elapsed();
            if tally.rows().map(|(_, count)| count).max() != Some(some.len() as u64) {
                return Err(format!("not every beat had the same outcome: {tally:?}").into());
            }
            while self.tracker.poll_transition().is_some() {}
            while self.tracker.poll_request().is_some() {}
        }
        Ok(time)
    }
}

/// As many cache lines as agents.
struct Lines(Vec<Line>);

#[derive(Clone)]
#[repr(align(64))]
struct Line([u64; 8]);

impl Lines {
    fn new(count: u32) -> Self {
        Lines((0..count).map(|number| Line([u64::from(number); 8])).collect())
    }

    /// Nanoseconds for each line that is read in this order.
    fn round(&self, order: &[u32]) -> f64 {
        let start = Instant::now();
        let sum: u64 = order.iter().map(|number| self.0[*number as usize].0[3]).fold(0, u64::wrapping_add);
        black_box(sum);
        start.elapsed().as_nanos() as f64 / order.len() as f64
    }
}

/// `length` numbers below `count`, each as often as the others, in an order without a pattern (Fisher and Yates).
fn shuffled(length: u32, count: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..length).map(|number| number % count).collect();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..order.len()).rev() {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        #[allow(clippy::cast_possible_truncation, reason = "below the length")]
        order.swap(last, (seed % (last as u64 + 1)) as usize);
    }
    order
}

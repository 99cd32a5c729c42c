//! The arrival estimator: learns how an agent beats that requests no timeout, and from that how long it may
//! be silent.
//!
//! Two things are learned, and kept apart. How often the agent *sends* is read from its own clock: timestamps
//! over nonces. How evenly its beats *travel* is read from "received minus timestamp". So a pause of the
//! server, or a hiccup of the network, after which a dozen beats arrive in a bunch, does not look like an
//! agent with another interval: its sending has not changed, and of the bunch only the last beat says
//! anything of the way.
//!
//! The estimator is pure, takes a fixed 64 bytes for each agent, does a fixed amount of work for each beat
//! and allocates nothing. An agent's clock is not trusted beyond a bound: whatever comes, the answer lies
//! between the shortest and the longest silence of the policy, or there is none and the fixed deadline holds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::time::{MonoTime, nanos};
use crate::domain::tracker::detection::arrival::policy::{ArrivalPolicy, Kind, NoEstimate};
use crate::domain::tracker::detection::arrival::{chen, phi};

/// The minimum number of beats for an estimate.
pub(super) const MIN_SAMPLES: u16 = 16;
/// The number of beats over which the mean and deviation of intervals and delays are taken, by exponential
/// weights. Long enough to be steady, short enough to follow a clock that drifts and a network that changes.
const WINDOW: u16 = 128;
/// The number of beats over which losses are counted, and the gaps of the phi detector.
const LONG_WINDOW: u16 = 1_000;
/// The maximum interval. An agent that sends less often has a timeout of its own, or the fixed one.
const MAX_INTERVAL: Duration = Duration::from_secs(3_600);
/// The minimum interval. A clock that advances by less between beats says nothing.
const MIN_INTERVAL: Duration = Duration::from_micros(100);
/// The maximum gap in the nonces. After a longer one the beats before it say nothing of the time between.
const MAX_LOST: u64 = 64;
/// A delay beyond this many deviations, and an interval's [`LENIENCY`], is clipped to that.
const CLIP: f64 = 4.0;
/// The share of an interval by which a delay may differ from the mean and always count in full.
const LENIENCY: f64 = 1.0 / 16.0;
/// The number of clipped delays in a row on one side that means that the way has changed, or a clock was set.
const STRIKES: i8 = 3;
/// A beat that comes within this share of the time after which it was sent came in a bunch with the one
/// before.
const BUNCHED: f64 = 1.0 / 16.0;

/// What was learned of how one agent's beats arrive.
///
/// For an agent of which only one session beats: several that beat in turn restart it all the time, and never
/// get beyond the fixed deadline.
///
/// ```
/// use std::time::Duration;
/// use varta_server::time::MonoTime;
/// use varta_server::tracker::arrival::{ArrivalPolicy, Arrivals, Bounds, Kind};
///
/// let kind = Kind::Chen(Bounds { mistake_every: Some(Duration::from_secs(3_600)), ..Bounds::default() });
/// let policy = ArrivalPolicy { kind, ..ArrivalPolicy::default() };
/// let mut arrivals = Arrivals::new(MonoTime::from_secs(7), 1, 0);
/// for beat in 1..1_000 {
///     arrivals.observe(MonoTime::from_secs(7 + beat), 1 + beat, beat * 1_000_000_000);
/// }
/// let silence = arrivals.stall_after(&policy).unwrap();
/// assert!(silence > Duration::from_secs(1) && silence < Duration::from_secs(4), "{silence:?}");
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Arrivals {
    /// The nonce of the newest beat.
    nonce: u64,
    /// The timestamp of the newest beat.
    timestamp: u64,
    /// When the newest beat arrived. Its delay is not used before the next one comes.
    received_at: MonoTime,
    /// The mean of "received minus timestamp", in nanoseconds. A number only for comparison with others of
    /// its kind, so it may wrap.
    offset: u64,
    /// The mean time between two beats as sent, in nanoseconds, and its variance.
    interval: f32,
    interval_variance: f32,
    /// The mean square of the error of the expected delay, which contains what a drifting clock adds.
    delay_variance: f32,
    /// The share of beats that are lost, and of those that start a run of lost beats.
    loss: f32,
    runs: f32,
    /// The mean time between two beats as received, and its variance, for the phi detector.
    gap: f32,
    gap_variance: f32,
    /// Beats observed, up to [`LONG_WINDOW`].
    samples: u16,
    /// Delays that counted, up to [`WINDOW`]: not all of those in a bunch do.
    delays: u8,
    /// Clipped delays in a row: below zero for beats too early, above for beats too late.
    strikes: i8,
}

const _: () = assert!(size_of::<Arrivals>() <= 64, "one cache line for each agent under an adaptive policy");

impl Arrivals {
    /// Starts with the first beat of a session.
    #[must_use]
    pub fn new(received_at: MonoTime, nonce: u64, timestamp: u64) -> Self {
        Arrivals {
            nonce,
            timestamp,
            received_at,
            offset: received_at.as_nanos().wrapping_sub(timestamp),
            interval: 0.0,
            interval_variance: 0.0,
            delay_variance: 0.0,
            loss: 0.0,
            runs: 0.0,
            gap: 0.0,
            gap_variance: 0.0,
            samples: 0,
            delays: 0,
            strikes: 0,
        }
    }

    /// Observes the next accepted beat of the session.
    ///
    /// A beat that cannot be the next, by its nonce or its clock, restarts the estimate.
    #[inline]
    pub fn observe(&mut self, received_at: MonoTime, nonce: u64, timestamp: u64) {
        let beats = nonce.wrapping_sub(self.nonce);
        let sent = timestamp.wrapping_sub(self.timestamp);
        let follows = nonce > self.nonce && timestamp >= self.timestamp;
        if !follows || sent / beats > nanos(MAX_INTERVAL) {
            *self = Arrivals::new(received_at, nonce, timestamp);
            return;
        }
        let gap = nanos(received_at.since(self.received_at)) as f64;
        if beats <= MAX_LOST {
            let sent = sent as f64;
            self.learn_interval(sent / beats as f64);
            if gap >= sent * BUNCHED || self.lateness() <= 0.0 {
                self.learn_delay();
            }
            self.learn_loss(beats as f64);
        }
        self.learn_gap(gap);
        self.samples = (self.samples + 1).min(LONG_WINDOW);
        self.nonce = nonce;
        self.timestamp = timestamp;
        self.received_at = received_at;
    }

    /// How long the agent may be silent after the newest beat, by what was learned.
    ///
    /// # Errors
    ///
    /// [`NoEstimate`] when there is no estimate yet, or the policy asks for what the observed beats do not
    /// allow. Then the fixed deadline holds, as it does without any policy.
    pub fn stall_after(&self, policy: &ArrivalPolicy) -> Result<Duration, NoEstimate> {
        let learned = self.samples >= MIN_SAMPLES && f64::from(self.interval) >= nanos(MIN_INTERVAL) as f64;
        let silence = match policy.kind {
            Kind::Fixed => return Err(NoEstimate::Fixed),
            _ if !learned => return Err(NoEstimate::Learning),
            Kind::Phi(settings) => phi::silence(f64::from(self.gap), f64::from(self.gap_variance), &settings),
            Kind::Chen(bounds) => {
                let link = self.link();
                let margin = chen::margin(&link, &bounds, nanos(policy.longest) as f64)?;
                // A beat that came late does not make the next one late. Nor is the next one expected sooner
                // after it than it is sent.
                link.interval + margin - self.lateness().clamp(-link.interval, margin)
            }
        };
        // NaN, and a number beyond every bound, become one within the bounds.
        let silence = Duration::from_nanos(silence.clamp(0.0, u64::MAX as f64) as u64);
        Ok(silence.max(policy.shortest).min(policy.longest))
    }

    /// The deadline that follows from the newest beat.
    ///
    /// # Errors
    ///
    /// As for [`Arrivals::stall_after`].
    pub fn deadline(&self, policy: &ArrivalPolicy) -> Result<MonoTime, NoEstimate> {
        Ok(self.received_at + self.stall_after(policy)?)
    }

    /// What was learned of the agent's beats and their way.
    pub(super) fn link(&self) -> chen::Link {
        let (lost, runs) = (f64::from(self.loss), f64::from(self.runs));
        // Losses that were not seen in so many beats may be as frequent as once in as many: Laplace's rule of
        // succession, so that after 1,000 beats without a loss one beat in 1,002 is taken to be lost.
        let unseen = 1.0 / (f64::from(self.samples) + 2.0);
        let loss = lost + (1.0 - lost) * unseen;
        chen::Link {
            interval: f64::from(self.interval),
            variance: f64::from(self.interval_variance) + f64::from(self.delay_variance),
            loss,
            // As if losses were independent, as long as few losses say otherwise.
            loss_again: ((lost - runs + 2.0 * unseen * loss) / (lost + 2.0 * unseen)).clamp(0.0, 1.0),
        }
    }

    /// How much later than expected the newest beat came, in nanoseconds; below zero when it came sooner.
    pub(super) fn lateness(&self) -> f64 {
        let offset = self.received_at.as_nanos().wrapping_sub(self.timestamp);
        offset.wrapping_sub(self.offset).cast_signed() as f64
    }

    fn learn_interval(&mut self, sample: f64) {
        let weight = weight(self.samples, WINDOW);
        learn(&mut self.interval, &mut self.interval_variance, sample, weight);
    }

    /// Learns from the delay of the newest beat, which is known not to be the first of a bunch.
    fn learn_delay(&mut self) {
        let lateness = self.lateness();
        let most = CLIP * f64::from(self.delay_variance).sqrt() + LENIENCY * f64::from(self.interval);
        if lateness.abs() <= most {
            self.strikes = 0;
        } else {
            let side = if lateness > 0.0 { 1 } else { -1 };
            self.strikes = if self.strikes.signum() == side { self.strikes + side } else { side };
            if self.strikes.abs() >= STRIKES {
                self.offset = self.received_at.as_nanos().wrapping_sub(self.timestamp);
                self.strikes = 0;
                return;
            }
        }
        let counted = lateness.clamp(-most, most);
        let weight = weight(u16::from(self.delays), WINDOW);
        self.delays = (self.delays + 1).min(WINDOW as u8);
        self.offset = self.offset.wrapping_add_signed((weight * counted) as i64);
        self.delay_variance =
            ((1.0 - weight) * f64::from(self.delay_variance) + weight * counted * counted) as f32;
    }

    /// Learns that of `beats` the last arrived and the others were lost.
    fn learn_loss(&mut self, beats: f64) {
        let weight = (beats * weight(self.samples, LONG_WINDOW)).min(1.0);
        let lost = (beats - 1.0) / beats;
        let runs = if beats > 1.0 { 1.0 / beats } else { 0.0 };
        self.loss += (weight * (lost - f64::from(self.loss))) as f32;
        self.runs += (weight * (runs - f64::from(self.runs))) as f32;
    }

    fn learn_gap(&mut self, gap: f64) {
        let weight = weight(self.samples, LONG_WINDOW);
        learn(&mut self.gap, &mut self.gap_variance, gap, weight);
    }
}

/// The weight of one more sample after `seen`: all have the same weight until the window is full, and from
/// then on the old ones decay.
fn weight(seen: u16, window: u16) -> f64 {
    1.0 / (f64::from(seen.min(window - 1)) + 1.0)
}

/// Moves a mean and its variance towards a sample.
///
/// After T. Finch, "Incremental calculation of weighted mean and variance", 2009, chapter 9.
fn learn(mean: &mut f32, variance: &mut f32, sample: f64, weight: f64) {
    let difference = sample - f64::from(*mean);
    *mean = (f64::from(*mean) + weight * difference) as f32;
    *variance = ((1.0 - weight) * (f64::from(*variance) + weight * difference * difference)) as f32;
}

impl ArrivalPolicy {
    /// How long an agent may be silent after its newest beat: by the estimate, or else `fixed`.
    #[must_use]
    pub fn stall_after(&self, arrivals: Option<&Arrivals>, fixed: Duration) -> Duration {
        arrivals.and_then(|arrivals| arrivals.stall_after(self).ok()).unwrap_or(fixed)
    }
}

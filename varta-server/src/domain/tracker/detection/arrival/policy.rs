//! The policy for the timeouts of agents that request none, which a configuration fills in.

use std::time::Duration;

/// Bounds on the quality of service of the detector, on average. A bound that is left out is not required;
/// without any every agent has the longest silence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The maximum time to detection: from the moment at which the last beat of an agent that stopped was
    /// sent and had its usual time to arrive (the paper's upper bound on T_D). Alone, it is used up for as
    /// few mistakes as it allows.
    pub detect_within: Option<Duration>,
    /// The minimum time between two mistakes about one agent (the lower bound on T_MR). With it the deadline
    /// is the shortest that keeps to it.
    pub mistake_every: Option<Duration>,
    /// The maximum duration of a mistake (the upper bound on T_M).
    pub corrected_within: Option<Duration>,
}

/// The settings of the phi accrual detector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Phi {
    /// The φ from which on a silence is too long: a probability of ten to the minus φ. 8 in the paper.
    pub threshold: f64,
    /// The pause that any agent may make, in addition to what its beats suggest.
    pub acceptable_pause: Duration,
    /// The minimum standard deviation of the gaps, whatever was observed.
    pub min_deviation: Duration,
}

impl Phi {
    /// The detector of the paper, which has neither a pause nor a minimum deviation.
    pub const PUBLISHED: Phi =
        Phi { threshold: 8.0, acceptable_pause: Duration::ZERO, min_deviation: Duration::ZERO };
}

impl Default for Phi {
    fn default() -> Self {
        Phi {
            acceptable_pause: Duration::from_secs(3),
            min_deviation: Duration::from_millis(100),
            ..Phi::PUBLISHED
        }
    }
}

/// How agents that request no timeout get one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ArrivalPolicy {
    /// The detector.
    pub kind: Kind,
    /// The minimum timeout, whatever was learned.
    pub shortest: Duration,
    /// The maximum timeout, whatever was learned.
    pub longest: Duration,
}

/// A failure detector.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// The same stall timeout for all agents. Nothing is learned.
    Fixed,
    /// The phi accrual detector: the longest silence that is not too improbable by the gaps between the beats
    /// before.
    Phi(Phi),
    /// The detector of Chen, Toueg and Aguilera: the silence that keeps to these bounds.
    Chen(Bounds),
}

/// Why there is no estimate of an agent's timeout. The fixed deadline holds meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoEstimate {
    /// The policy does not ask for one.
    Fixed,
    /// Too few beats were seen, or the agent's clock says nothing.
    Learning,
    /// No deadline meets all bounds with beats that arrive like these.
    Impossible {
        /// The detection time with which the other bounds could be met; `None` if none up to the longest
        /// silence is enough.
        least: Option<Duration>,
    },
}

impl ArrivalPolicy {
    /// Whether the policy learns, so that each agent needs an [`Arrivals`](super::Arrivals).
    #[must_use]
    pub const fn learns(&self) -> bool {
        match self.kind {
            Kind::Fixed => false,
            Kind::Phi(_) | Kind::Chen(_) => true,
        }
    }
}

impl Default for ArrivalPolicy {
    fn default() -> Self {
        ArrivalPolicy {
            kind: Kind::Fixed,
            shortest: Duration::from_millis(100),
            longest: Duration::from_secs(60),
        }
    }
}

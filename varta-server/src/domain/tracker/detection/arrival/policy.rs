//! By what rule an agent is given its time that asks for none itself: what a configuration fills in.

use std::time::Duration;

/// What the detector is to achieve, on average. Whatever is left out is not asked for; with nothing at all every agent
/// is given the longest silence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// How long after its last beat was sent and had its usual time to arrive an agent that stopped is found out, at the
    /// latest (the paper's upper bound on T_D). Alone, all of it is used: as few mistakes as this allows.
    pub detect_within: Option<Duration>,
    /// The time between two mistakes about one agent, at the least (the lower bound on T_MR). With it the deadline is the
    /// shortest that keeps to it.
    pub mistake_every: Option<Duration>,
    /// How long a mistake lasts, at the most (the upper bound on T_M).
    pub corrected_within: Option<Duration>,
}

/// By what rule agents that promise nothing are given their time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ArrivalPolicy {
    /// Which rule.
    pub kind: Kind,
    /// The least that an agent is given, whatever was learned.
    pub shortest: Duration,
    /// The most that an agent is given, whatever was learned.
    pub longest: Duration,
}

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// The same for everybody: stall-after. Nothing is learned.
    Fixed,
    /// The phi accrual detector: as long as a silence is not too unlikely by the gaps between the beats before.
    Phi {
        /// By how many powers of ten a silence must be unlikely to be too long, 8 as published.
        threshold: f64,
    },
    /// The detector of Chen, Toueg and Aguilera: as long as it takes to keep to these bounds.
    Chen(Bounds),
}

/// Why nothing was concluded from an agent's beats. The fixed deadline holds meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEstimate {
    /// The policy does not ask for it.
    Fixed,
    /// Too few beats were seen, or the agent's clock tells nothing.
    Learning,
    /// No deadline meets all bounds with beats that arrive like these.
    Impossible {
        /// The detection time with which the others could be met; `None` if with none up to the longest silence.
        least: Option<Duration>,
    },
}

impl ArrivalPolicy {
    /// Whether there is anything to learn, and so an [`Arrivals`] to keep for each agent.
    #[must_use]
    pub const fn learns(&self) -> bool {
        match self.kind {
            Kind::Fixed => false,
            Kind::Phi { .. } | Kind::Chen(_) => true,
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

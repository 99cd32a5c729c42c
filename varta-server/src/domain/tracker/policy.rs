//! What the tracker goes by.

use std::time::Duration;

use crate::domain::expected::ExpectedAgents;
use crate::domain::rules::Rules;
use crate::domain::tracker::detection::arrival::ArrivalPolicy;

/// What the tracker goes by.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How long an agent may be silent of which nothing else is said, asked for or learned.
    pub stall_after: Duration,
    /// How that is learned, if it is, of agents for which there is no rule and that ask for nothing.
    pub arrival: ArrivalPolicy,
    /// How long a silent agent is remembered after its last beat.
    pub forget_after: Duration,
    /// How long an agent may ask not to be missed ("busy until"), and be silent at the most.
    pub longest_silence: Duration,
    /// How many agents there must be for doubt when half of them are silent at once; 0 for no doubt.
    pub least_crowd: usize,
    /// Close looks at processes a second; 0 for none.
    pub looks_per_second: u32,
    /// What holds for agents by their names, before what they ask for.
    pub rules: Rules,
    /// Agents that are to come.
    pub expected: ExpectedAgents,
    /// How many agents there may be; beyond that new ones are refused.
    pub max_agents: usize,
    /// How many agents one address may introduce over plaintext UDP, or those of one host: all of loopback, an IPv6 network
    /// of 64 bits; 0 is no limit.
    pub max_agents_per_source: usize,
    /// How many agents there may be over plaintext UDP altogether.
    pub max_plain_agents: usize,
    /// Beats a second from one agent; 0 is no limit.
    pub max_beat_rate: u32,
    /// Beats a second from all agents together; 0 is no limit.
    pub max_total_rate: u32,
}

impl Policy {
    /// How long an agent may ask to be silent if nobody says otherwise.
    pub const DEFAULT_LONGEST_SILENCE: Duration = Duration::from_secs(3600);
    /// How many agents there must be for doubt, if nobody says otherwise.
    pub const LEAST_CROWD: usize = 16;
    /// How many close looks at processes there are in a second.
    pub const LOOKS_PER_SECOND: u32 = 200;
    /// How many agents there may be if nobody says otherwise.
    pub const DEFAULT_MAX_AGENTS: usize = 1_000_000;
    /// How many agents one address may introduce over plaintext UDP if nobody says otherwise.
    pub const DEFAULT_MAX_AGENTS_PER_SOURCE: usize = 4_096;
    /// How many beats a second one agent may send if nobody says otherwise.
    pub const DEFAULT_MAX_BEAT_RATE: u32 = 1_000;
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            stall_after: Duration::from_secs(5),
            arrival: ArrivalPolicy::default(),
            forget_after: Duration::from_secs(86_400),
            rules: Rules::default(),
            expected: ExpectedAgents::default(),
            longest_silence: Policy::DEFAULT_LONGEST_SILENCE,
            least_crowd: Policy::LEAST_CROWD,
            looks_per_second: Policy::LOOKS_PER_SECOND,
            max_agents: Policy::DEFAULT_MAX_AGENTS,
            max_plain_agents: Policy::DEFAULT_MAX_AGENTS,
            max_agents_per_source: Policy::DEFAULT_MAX_AGENTS_PER_SOURCE,
            max_beat_rate: Policy::DEFAULT_MAX_BEAT_RATE,
            max_total_rate: 0,
        }
    }
}

//! The policy of a tracker: the timeouts, limits and rules that a configuration sets.

use std::time::Duration;

use crate::base::time_zone::TimeZone;
use crate::domain::expected::ExpectedAgents;
use crate::domain::job::Jobs;
use crate::domain::rules::Rules;
use crate::domain::tracker::detection::arrival::ArrivalPolicy;

/// The timeouts, limits and rules of a tracker.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The stall timeout of an agent for which no rule, request or adaptive timeout sets another.
    pub stall_after: Duration,
    /// The adaptive timeouts of agents without a rule or a request.
    pub arrival: ArrivalPolicy,
    /// How long the counter of an agent that makes progress may stand, where no rule and not the agent says it.
    pub no_progress_after: Duration,
    /// How long a silent agent is kept after its last beat.
    pub forget_after: Duration,
    /// How long after the end of an agent's process another may take its place without an alarm, where no
    /// rule says it.
    pub replaced_within: Duration,
    /// The maximum silence that an agent may request, by a stall timeout or by "busy until".
    pub longest_silence: Duration,
    /// The minimum number of agents for mass silence, which means that half of them are silent at once; 0
    /// turns that off.
    pub mass_silence_min_agents: usize,
    /// The maximum number of inspections of processes per second; 0 for none.
    pub looks_per_second: u32,
    /// Settings by the agents' names, which take precedence over what agents request.
    pub rules: Rules,
    /// The agents that the configuration expects.
    pub expected: ExpectedAgents,
    /// The jobs of the configuration.
    pub jobs: Jobs,
    /// The time zone of the host, for declared jobs that name none.
    pub time_zone: TimeZone,
    /// The maximum number of agents; beyond it new ones are refused.
    pub max_agents: usize,
    /// The maximum number of agents over plaintext UDP from one address, or from those of one host: all of
    /// loopback, an IPv6 network of 64 bits; 0 is no limit.
    pub max_agents_per_source: usize,
    /// The maximum number of agents over plaintext UDP altogether.
    pub max_plain_agents: usize,
    /// The maximum number of beats per second from one agent; 0 is no limit.
    pub max_beat_rate: u32,
    /// The maximum number of beats per second from all agents together; 0 is no limit.
    pub max_total_rate: u32,
}

impl Policy {
    /// The default time in which another may take the place of an agent without an alarm.
    pub const DEFAULT_REPLACED_WITHIN: Duration = Duration::from_secs(2);
    /// The default time for which a counter may stand.
    pub const DEFAULT_NO_PROGRESS_AFTER: Duration = Duration::from_secs(60);
    /// The default maximum silence that an agent may request.
    pub const DEFAULT_MAX_SILENCE: Duration = Duration::from_secs(3600);
    /// The default minimum number of agents for mass silence.
    pub const MASS_SILENCE_MIN_AGENTS: usize = 16;
    /// The default maximum number of inspections of processes per second.
    pub const LOOKS_PER_SECOND: u32 = 200;
    /// The default maximum number of agents.
    pub const DEFAULT_MAX_AGENTS: usize = 1_000_000;
    /// The default maximum number of agents over plaintext UDP from one address.
    pub const DEFAULT_MAX_AGENTS_PER_SOURCE: usize = 4_096;
    /// The default maximum number of beats per second from one agent.
    pub const DEFAULT_MAX_BEAT_RATE: u32 = 1_000;

    /// The longest stall timeout that it gives by itself or by a rule.
    pub(crate) fn longest_stall_after(&self) -> Duration {
        let by_rule = self.rules.longest().and_then(|rule| rule.stall_after);
        by_rule.unwrap_or_default().max(self.stall_after)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            stall_after: Duration::from_secs(5),
            arrival: ArrivalPolicy::default(),
            no_progress_after: Policy::DEFAULT_NO_PROGRESS_AFTER,
            forget_after: Duration::from_secs(86_400),
            replaced_within: Policy::DEFAULT_REPLACED_WITHIN,
            rules: Rules::default(),
            expected: ExpectedAgents::default(),
            jobs: Jobs::default(),
            time_zone: TimeZone::utc(),
            longest_silence: Policy::DEFAULT_MAX_SILENCE,
            mass_silence_min_agents: Policy::MASS_SILENCE_MIN_AGENTS,
            looks_per_second: Policy::LOOKS_PER_SECOND,
            max_agents: Policy::DEFAULT_MAX_AGENTS,
            max_plain_agents: Policy::DEFAULT_MAX_AGENTS,
            max_agents_per_source: Policy::DEFAULT_MAX_AGENTS_PER_SOURCE,
            max_beat_rate: Policy::DEFAULT_MAX_BEAT_RATE,
            max_total_rate: 0,
        }
    }
}

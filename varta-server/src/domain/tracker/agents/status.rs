use std::time::Duration;

use crate::domain::process::ProcessId;
use crate::domain::tracker::verdicts::verdict::Verdict;

/// How an agent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What is concluded about it.
    pub verdict: Verdict,
    /// Its process, of this host and as far as it is known. It may have ended.
    pub process: Option<ProcessId>,
    /// How long it has been silent.
    pub silence: Duration,
    /// Whether nothing was missed for as long as it may be silent: otherwise its silence may be this server's own.
    pub is_seen: bool,
}

/// How many agents have a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// All that are known, also those that are down or gone.
    pub all: usize,
    /// Those that beat and are not in a critical state.
    pub up: usize,
}

impl std::ops::AddAssign for Named {
    fn add_assign(&mut self, more: Named) {
        self.all += more.all;
        self.up += more.up;
    }
}

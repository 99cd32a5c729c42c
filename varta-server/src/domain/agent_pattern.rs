//! A selection of agents by name or pid, as a user writes it.

use std::num::NonZeroU32;

use crate::base::{EntryError, Glob};

/// The agents whose name a pattern matches, and those with a pid if the text is one: a name may be a number
/// too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentPattern {
    names: Glob,
    pid: Option<NonZeroU32>,
}

impl AgentPattern {
    /// Parses a pattern of names, or a pid.
    ///
    /// # Errors
    ///
    /// As for a pattern: see [`Glob::parse`].
    pub(crate) fn parse(text: &str) -> Result<Self, EntryError> {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let pid = is_number.then(|| text.parse().ok()).flatten();
        Ok(AgentPattern { names: Glob::parse(text)?, pid })
    }

    /// The text as it was written.
    pub(crate) fn as_str(&self) -> &str {
        self.names.as_str()
    }

    /// Whether an agent is among those that are meant. An expected agent that has not come has the pid 0.
    pub(crate) fn matches(&self, name: &str, pid: u32) -> bool {
        self.pid.is_some_and(|own| own.get() == pid) || self.names.matches(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, name: &str, pid: u32) -> bool {
        AgentPattern::parse(pattern).unwrap().matches(name, pid)
    }

    #[test]
    fn agents_are_selected_by_their_name_or_their_pid() {
        assert!(fits("billing", "billing", 7) && !fits("billing", "billing-2", 7));
        assert!(fits("billing*", "billing-2", 7));
        assert!(fits("7", "billing", 7) && fits("7", "7", 8) && !fits("7", "billing", 77));
        assert!(!fits("0", "billing", 0) && fits("0", "0", 7), "no process has the pid 0");
        assert!(!fits("99999999999", "billing", 7) && !fits("+7", "billing", 7));
        for wrong in ["", "a\nb", &"x".repeat(Glob::MAX_LEN + 1)] {
            assert!(AgentPattern::parse(wrong).is_err());
        }
    }
}

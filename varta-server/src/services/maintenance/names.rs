//! The names that complete what a user types: of agents, or of pauses, by the command they are for.

use std::collections::BTreeSet;

/// The most names that are listed.
pub(crate) const MAX_NAMES: usize = 1_000;

/// The command that the names are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NamesOf {
    /// All agents.
    Pause,
    /// The same.
    Watch,
    /// The same.
    Events,
    /// The patterns of pauses that a user may lift.
    Resume,
    /// Agents that can be forgotten.
    Forget,
    /// Agents in alarm, whose alarms are not acknowledged.
    Acknowledge,
    /// Agents whose alarms are acknowledged.
    TakeBack,
}

impl NamesOf {
    pub(crate) const ALL: [NamesOf; 7] = [
        NamesOf::Pause,
        NamesOf::Watch,
        NamesOf::Events,
        NamesOf::Resume,
        NamesOf::Forget,
        NamesOf::Acknowledge,
        NamesOf::TakeBack,
    ];

    /// The name of the command.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            NamesOf::Pause => "pause",
            NamesOf::Watch => "watch",
            NamesOf::Events => "events",
            NamesOf::Resume => "resume",
            NamesOf::Forget => "forget",
            NamesOf::Acknowledge => "ack",
            NamesOf::TakeBack => "unack",
        }
    }

    /// Parses the name of a command.
    ///
    /// # Errors
    ///
    /// It has no names.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        NamesOf::ALL.into_iter().find(|of| of.as_str() == text).ok_or_else(|| {
            let all = NamesOf::ALL.map(NamesOf::as_str).join(", ");
            format!("for: `{}` is none of {all}", text.escape_debug())
        })
    }
}

/// The first names in order, and the last one: what all of them begin with, so do these.
#[derive(Debug, Default)]
pub(super) struct NameList {
    names: BTreeSet<String>,
}

impl NameList {
    pub(super) fn add(&mut self, name: &str) {
        if !self.names.contains(name) {
            self.names.insert(name.to_owned());
        }
        if self.names.len() > MAX_NAMES {
            let last = self.names.pop_last();
            self.names.pop_last();
            self.names.extend(last);
        }
    }

    /// The names in order.
    pub(super) fn into_names(self) -> Vec<String> {
        self.names.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_names_the_first_stay_and_the_last_so_that_all_begin_as_those_that_are_listed() {
        let mut list = NameList::default();
        let all = |count: usize| (0..count).map(|n| format!("worker-{n:05}"));
        for name in all(3 * MAX_NAMES).rev().chain(["x".to_owned()]).chain(all(2 * MAX_NAMES)) {
            list.add(&name);
        }
        assert_eq!(list.names.len(), MAX_NAMES);
        let first: Vec<_> = all(MAX_NAMES - 1).collect();
        assert!(list.names.iter().take(MAX_NAMES - 1).eq(&first));
        assert_eq!(list.names.last().map(String::as_str), Some("x"));
    }

    #[test]
    fn a_command_has_names_by_its_own_name() {
        for of in NamesOf::ALL {
            assert_eq!(NamesOf::parse(of.as_str()), Ok(of));
        }
        assert_eq!(
            NamesOf::parse("x").unwrap_err(),
            "for: `x` is none of pause, watch, events, resume, forget, ack, unack"
        );
    }
}

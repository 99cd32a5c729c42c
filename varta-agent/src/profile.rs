//! The profile of an agent: name, interval, stall-after and labels.
//!
//! Settings are checked when a handle is created, because the caller can handle an error there; a [`Profile`]
//! holds only what can be encoded.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use varta_proto::control::{AgentName, Hello, Label, LabelError, LabelSet, LabelSetError, NameError};

use crate::time::MAX_DURATION;

/// What every Hello of an agent carries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Profile {
    name: Option<AgentName>,
    interval_ms: Option<u32>,
    stall_after_ms: Option<u32>,
    labels: LabelSet,
}

impl Profile {
    pub(crate) fn set_name(&mut self, name: &str) -> Result<(), ProfileError> {
        let parsed = AgentName::parse(name);
        self.name = Some(parsed.map_err(|source| ProfileError::Name { name: name.into(), source })?);
        Ok(())
    }

    /// Sets the interval, and returns whether it has changed.
    pub(crate) fn set_interval(&mut self, interval: Duration) -> Result<bool, ProfileError> {
        let what = "the interval between beats";
        let interval_ms =
            milliseconds(interval).ok_or(ProfileError::OutOfRange { what, actual: interval })?;
        Ok(self.interval_ms.replace(interval_ms) != Some(interval_ms))
    }

    pub(crate) fn set_stall_after(&mut self, stall_after: Duration) -> Result<(), ProfileError> {
        let what = "the time after which an agent is stalled";
        self.stall_after_ms =
            Some(milliseconds(stall_after).ok_or(ProfileError::OutOfRange { what, actual: stall_after })?);
        Ok(())
    }

    pub(crate) fn add_label(&mut self, key: &str, value: &str) -> Result<(), ProfileError> {
        let label = || format!("{key}={value}");
        let parsed =
            Label::new(key, value).map_err(|source| ProfileError::Label { label: label(), source })?;
        self.labels.push(parsed).map_err(|source| ProfileError::Labels { label: label(), source })
    }

    /// Checks the settings against each other.
    pub(crate) const fn check(&self) -> Result<(), ProfileError> {
        match (self.interval_ms, self.stall_after_ms) {
            (Some(interval_ms), Some(stall_after_ms)) if stall_after_ms <= interval_ms => {
                Err(ProfileError::NoTimeToBeat { interval_ms, stall_after_ms })
            }
            _ => Ok(()),
        }
    }

    /// Copies the profile into a Hello.
    pub(crate) const fn fill<'a>(&'a self, hello: &mut Hello<'a>) {
        hello.name = self.name.as_ref();
        hello.interval_ms = self.interval_ms;
        hello.stall_after_ms = self.stall_after_ms;
        hello.labels = &self.labels;
    }
}

/// Converts a duration to milliseconds, rounded up; `None` for zero and for more than [`MAX_DURATION`].
fn milliseconds(span: Duration) -> Option<u32> {
    let fits = !span.is_zero() && span <= MAX_DURATION;
    fits.then(|| u32::try_from(span.as_nanos().div_ceil(1_000_000)).ok()).flatten()
}

/// Why a setting was rejected.
#[derive(Debug)]
pub(crate) enum ProfileError {
    Name { name: String, source: NameError },
    OutOfRange { what: &'static str, actual: Duration },
    Label { label: String, source: LabelError },
    Labels { label: String, source: LabelSetError },
    NoTimeToBeat { interval_ms: u32, stall_after_ms: u32 },
}

impl ProfileError {
    pub(crate) fn into_io(self) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, self)
    }
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { name, source } => write!(f, "an agent cannot be named {name:?}: {source}"),
            Self::OutOfRange { what, actual } => {
                write!(f, "{what} is more than zero and at most 49 days, not {actual:?}")
            }
            Self::Label { label, source } => write!(f, "an agent cannot have the label {label:?}: {source}"),
            Self::Labels { label, source } => {
                write!(f, "there is no place for the label {label:?}: {source}")
            }
            Self::NoTimeToBeat { interval_ms, stall_after_ms } => write!(
                f,
                "an agent that beats every {interval_ms} ms is never well if it is stalled after {stall_after_ms} ms: \
                 ask for three intervals"
            ),
        }
    }
}

impl Error for ProfileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Name { source, .. } => Some(source),
            Self::Label { source, .. } => Some(source),
            Self::Labels { source, .. } => Some(source),
            Self::OutOfRange { .. } | Self::NoTimeToBeat { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_said_in_milliseconds_begun() {
        let nanosecond = Duration::from_nanos(1);
        for (span, interval_ms) in [
            (Duration::ZERO, None),
            (nanosecond, Some(1)),
            (Duration::from_millis(1), Some(1)),
            (Duration::from_millis(1) + nanosecond, Some(2)),
            (MAX_DURATION - nanosecond, Some(u32::MAX)),
            (MAX_DURATION, Some(u32::MAX)),
            (MAX_DURATION + nanosecond, None),
            (Duration::MAX, None),
        ] {
            assert_eq!(milliseconds(span), interval_ms, "{span:?}");
        }
    }

    #[test]
    fn an_agent_has_to_have_time_to_beat() {
        let with = |interval, stall_after| {
            let mut profile = Profile::default();
            profile.set_interval(Duration::from_millis(interval)).unwrap();
            profile.set_stall_after(Duration::from_millis(stall_after)).unwrap();
            profile.check()
        };
        assert!(with(500, 501).is_ok());
        assert!(with(500, 500).is_err());
        assert_eq!(
            with(500, 100).unwrap_err().to_string(),
            "an agent that beats every 500 ms is never well if it is stalled after 100 ms: ask for three intervals"
        );
    }

    #[test]
    fn a_fault_names_what_was_asked_for_and_what_is_wrong_with_it() {
        let mut profile = Profile::default();
        profile.add_label("team", "payments").unwrap();
        let faults = [
            profile.set_name("my worker"),
            profile.set_interval(Duration::ZERO).map(drop),
            profile.set_stall_after(Duration::MAX),
            profile.add_label("my-team", "x"),
            profile.add_label("team", "search"),
        ];
        let messages = [
            "an agent cannot be named \"my worker\": character 3 of the name is none of A-Z a-z 0-9 . _ - : / @",
            "the interval between beats is more than zero and at most 49 days, not 0ns",
            "the time after which an agent is stalled is more than zero and at most 49 days, \
             not 18446744073709551615.999999999s",
            "an agent cannot have the label \"my-team=x\": \
             the key of a label is a letter or _, then letters, digits and _, without __ ahead",
            "there is no place for the label \"team=search\": an agent has no two labels with one key",
        ];
        for (fault, message) in faults.into_iter().zip(messages) {
            assert_eq!(fault.unwrap_err().into_io().to_string(), message);
        }
        assert!(profile.name.is_none() && profile.interval_ms.is_none());
    }
}

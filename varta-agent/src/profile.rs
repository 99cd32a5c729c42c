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

/// The default of a server's `--stall-after`.
#[cfg(feature = "tokio")]
const SERVER_STALL_AFTER: Duration = Duration::from_secs(5);

/// What every Hello of an agent carries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Profile {
    name: Option<AgentName>,
    interval_ms: Option<u32>,
    stall_after_ms: Option<u32>,
    no_progress_after_ms: Option<u32>,
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

    /// Returns whether a heartbeat with this interval must be announced: in place of an interval that was set,
    /// to be checked against a stall-after, and where a server would not wait for the next beat.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_concerned_by_heartbeat(&self, interval: Duration) -> bool {
        let is_slow = interval > SERVER_STALL_AFTER / 3;
        self.interval_ms.is_some() || self.stall_after_ms.is_some() || is_slow
    }

    pub(crate) fn set_stall_after(&mut self, stall_after: Duration) -> Result<(), ProfileError> {
        let what = "the time after which an agent is stalled";
        self.stall_after_ms =
            Some(milliseconds(stall_after).ok_or(ProfileError::OutOfRange { what, actual: stall_after })?);
        Ok(())
    }

    pub(crate) fn set_no_progress_after(&mut self, after: Duration) -> Result<(), ProfileError> {
        let what = "the time for which a counter may stand";
        self.no_progress_after_ms =
            Some(milliseconds(after).ok_or(ProfileError::OutOfRange { what, actual: after })?);
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
        hello.no_progress_after_ms = self.no_progress_after_ms;
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
mod tests;

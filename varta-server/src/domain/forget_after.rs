//! How long agents that do not beat are kept, by their state.

use std::time::Duration;

use crate::base::EntryError;
use crate::base::limits::check_duration;
use crate::domain::tracker::Verdict;

/// How long an agent is kept after its last beat, by its state; `None` for the default.
///
/// ```
/// use std::time::Duration;
/// use varta_server::config::ForgetAfter;
///
/// let hour = Duration::from_secs(3_600);
/// assert_eq!(ForgetAfter::all(hour).stalled, Some(hour));
/// assert_eq!(ForgetAfter::default().down, None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForgetAfter {
    /// While it is `stalled`.
    pub stalled: Option<Duration>,
    /// Once it is `down`.
    pub down: Option<Duration>,
    /// Once it is `gone`.
    pub gone: Option<Duration>,
}

impl ForgetAfter {
    /// The same for each state.
    #[must_use]
    pub const fn all(kept: Duration) -> Self {
        ForgetAfter { stalled: Some(kept), down: Some(kept), gone: Some(kept) }
    }

    /// How long an agent is kept with this verdict; `None` for the default, and while its beat is awaited.
    #[must_use]
    pub const fn with(self, verdict: Verdict) -> Option<Duration> {
        match verdict {
            Verdict::Stalled => self.stalled,
            Verdict::Down => self.down,
            Verdict::Gone => self.gone,
            Verdict::Up(_) | Verdict::Unknown | Verdict::Expected => None,
        }
    }

    /// Checks that each is within the limits of durations.
    pub(crate) fn check(self) -> Result<(), EntryError> {
        [self.stalled, self.down, self.gone]
            .into_iter()
            .flatten()
            .try_for_each(|kept| check_duration("forget-after", kept))
    }
}

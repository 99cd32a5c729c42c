//! Durations as the protocol encodes them.

use std::time::Duration;

/// The longest duration that the protocol carries in milliseconds: 49 days.
pub(crate) const MAX_DURATION: Duration = Duration::from_millis(u32::MAX as u64);

/// The maximum timestamp; the next value is reserved by the protocol.
const MAX_TIMESTAMP: u64 = u64::MAX - 1;

/// Converts a duration to a timestamp; anything from 584 years on becomes [`MAX_TIMESTAMP`].
#[inline]
pub(crate) fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).map_or(MAX_TIMESTAMP, |nanoseconds| nanoseconds.min(MAX_TIMESTAMP))
}

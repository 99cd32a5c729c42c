//! Times as they stand on the wire.

use std::time::Duration;

/// The longest duration that the protocol carries in milliseconds: 49 days.
pub(crate) const MAX_DURATION: Duration = Duration::from_millis(u32::MAX as u64);

/// The largest timestamp; the one above it means an error in the protocol.
const MAX_TIMESTAMP: u64 = u64::MAX - 1;

/// Turns a time span into what fits on the wire; the last value stands for all beyond it, which begin after 584 years.
#[inline]
pub(crate) fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).map_or(MAX_TIMESTAMP, |nanoseconds| nanoseconds.min(MAX_TIMESTAMP))
}

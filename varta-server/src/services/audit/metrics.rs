//! What the audit log counts.

use metrics::Counter;

use crate::metrics::{Registry, family};

/// The counter of records that were not written. It is registered also without an audit log.
pub(super) fn missing_records(registry: &Registry) -> Counter {
    registry.counter(family::AUDIT_MISSING, &[])
}

//! What the audit log counts.

use metrics::Counter;

use crate::metrics::Registry;
use crate::metrics::family::families;

families! {
    AUDIT_MISSING = "varta_audit_missing_total", "Records that were not on the disk in time, or are not in --audit-log at all.";
}

/// The counter of records that were not written. It is registered also without an audit log.
pub(super) fn missing_records(registry: &Registry) -> Counter {
    registry.counter(AUDIT_MISSING, &[])
}

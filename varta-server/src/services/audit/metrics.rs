//! What the audit log counts.

use crate::metrics::family::families;

families! {
    AUDIT_MISSING = "varta_audit_missing_total", "Records that were not on the disk in time, or are not in --audit-log at all.";
}

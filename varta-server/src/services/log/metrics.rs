//! Metrics of the log: what was left out of it.

use metrics::Counter;

use crate::metrics::Registry;
use crate::metrics::family::families;

families! {
    SUPPRESSED = "varta_log_lines_suppressed_total",
        "Log lines left out because more came than the log takes, by kind; other is a line that is not about an agent.";
}

/// The counter of lines of this kind.
pub(super) fn suppressed(registry: &Registry, kind: &str) -> Counter {
    registry.counter(SUPPRESSED, &[("kind", kind)])
}

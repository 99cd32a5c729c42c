//! What the state database counts.

use crate::metrics::family::families;

families! {
    STATE_WRITE_ERRORS = "varta_state_write_errors_total", "Failures to write to the directory of --state-dir.";
}

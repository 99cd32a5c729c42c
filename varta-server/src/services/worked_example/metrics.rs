//! The number of transitions of the agent.

use metrics::Counter;

use crate::metrics::Registry;
use crate::metrics::family::families;

families! {
    WORKED_EXAMPLE_TRANSITIONS = "varta_worked_example_transitions_total", "Transitions of the agent of --worked-example-agent.";
}

/// The value of the metric label `sink`.
pub(super) const SINK: &str = "worked_example";

/// The counter of transitions. It is registered also without an agent.
pub(super) fn counted_transitions(registry: &Registry) -> Counter {
    registry.counter(WORKED_EXAMPLE_TRANSITIONS, &[])
}

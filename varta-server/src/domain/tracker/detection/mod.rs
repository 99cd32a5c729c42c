//! When a silence means something: deadlines, arrival estimators, observer gaps, mass silence, inspections.

pub(in crate::domain::tracker) mod adaptive;
pub mod arrival;
pub(in crate::domain::tracker) mod incidents;
pub(in crate::domain::tracker) mod inspection_budget;
pub(in crate::domain::tracker) mod observer_gaps;
pub(in crate::domain::tracker) mod silence_sample;
pub(in crate::domain::tracker) mod wheel;

//! Arrival-time estimators: how long an agent may be silent, learned from its own beats.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "estimates: what is stored has 24 bits of them, and what is given out is within bounds"
)]

mod chen;
pub(crate) mod estimator;
mod phi;
mod policy;
#[cfg(test)]
mod tests;

pub use self::estimator::Arrivals;
#[cfg(test)]
pub(crate) use self::phi::deviations;
pub use self::policy::{ArrivalPolicy, Bounds, Kind, NoEstimate, Phi};

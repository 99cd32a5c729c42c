//! Conversions of times, numbers and origins to columns of the database.

use crate::base::time::WallTime;
use crate::domain::beat::Origin;

/// Unix time as the tables have it, in milliseconds.
pub(super) fn unix_millis(at: WallTime) -> i64 {
    whole(at.as_millis())
}

/// A number clamped to SQLite's signed 64-bit integers.
pub(super) fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The origin of an agent: `local`, `named 1000`, `udp 10.0.0.1`, `secure_udp fd00::1`.
pub(super) fn origin_text(origin: Origin) -> String {
    match origin {
        Origin::Local => "local".to_owned(),
        Origin::Notify => "notify".to_owned(),
        Origin::Named { uid } => format!("named {uid}"),
        Origin::Udp(address) | Origin::SecureUdp(address) => {
            format!("{} {address}", origin.transport().as_str())
        }
    }
}

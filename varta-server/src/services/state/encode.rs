use crate::base::time::WallTime;
use crate::domain::beat::Origin;

/// Unix time as the tables have it, in milliseconds.
pub(super) fn unix_millis(at: WallTime) -> i64 {
    whole(at.as_millis())
}

/// A number as SQLite can keep it.
pub(super) fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Where an agent beats from: `local`, `udp 10.0.0.1`, `secure_udp fd00::1`.
pub(super) fn origin_text(origin: Origin) -> String {
    match origin {
        Origin::Local => "local".to_owned(),
        Origin::Udp(address) | Origin::SecureUdp(address) => {
            format!("{} {address}", origin.transport().as_str())
        }
    }
}

use crate::base::clock::Clock;
use crate::base::time::{MonoTime, millis};
use crate::domain::beat::Origin;

/// Translates moments of this server into Unix time, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wall {
    /// The server's start.
    pub(super) start: i64,
    pub(super) now: i64,
}

impl Wall {
    /// As the wall clock has it now.
    pub(super) fn read(clock: Clock) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds since 1970 fit")]
        let start = (clock.wall_start_seconds() * 1000.0) as i64;
        let now = start + whole(clock.now().as_nanos() / 1_000_000);
        Wall { start, now }
    }

    pub(super) fn of(self, at: MonoTime) -> i64 {
        self.start.saturating_add(whole(millis(at.since(MonoTime::START))))
    }
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

//! The table `server`: one row, the last sign of the server that writes the database.
//!
//! A server renews it with each write, and once a second while it knows agents. By it the next server knows
//! how long no server ran: by the clock of the boot, which nobody sets, unless the host was booted in between.
//! The last beats of agents are written once a minute and when a server stops in order; how long an agent was
//! silent when a server was killed is therefore told as at least the time without a server.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::base::clock::{Clock, WallClock, since_boot};
use crate::base::time::{WallTime, millis};
use crate::observe::Boot;
use crate::services::state::encode::{unix_millis, whole};

/// How often a server gives a sign while it knows agents.
pub(super) const SIGN_EVERY: Duration = Duration::from_secs(1);
/// How long after its last sign a killed server may have run: the interval of signs, and as much for a write
/// that takes its time.
const MAY_HAVE_RUN: Duration = Duration::from_secs(2);
/// The longest absence over a boot of the host that is believed to the wall clock. Hosts are switched off for
/// weeks; a clock that has lost its battery is wrong by years.
const MAX_ABSENCE: Duration = Duration::from_secs(30 * 86_400);
/// The most by which a wall clock may go wrong without a warning.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// A moment by each clock.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub(super) clock: WallClock,
    pub(super) boot: Option<Boot>,
    /// The time since the boot, suspend included, whatever this server's time namespace; `None` where it is
    /// not known.
    pub(super) since_boot: Option<Duration>,
}

impl Moment {
    /// The present moment in this boot.
    pub(super) fn now(clock: Clock, boot: Option<Boot>) -> Self {
        let since_boot = boot.as_ref().and_then(|boot| boot.host_time(since_boot()?));
        Moment { clock: WallClock::read(clock), boot, since_boot }
    }
}

/// The last sign of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LastSign {
    /// The name of the database, which it keeps for ever.
    pub(super) instance: String,
    /// How often a server was started with it.
    pub(super) starts: u64,
    pub(super) boot: Option<Boot>,
    pub(super) since_boot: Option<Duration>,
    pub(super) wall: WallTime,
    /// Whether the server stopped in order, and wrote all that it knew.
    pub(super) is_complete: bool,
}

/// The time without a server before the start of this one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Absence {
    /// From the last sign of the server before; `None` where it is not known.
    length: Option<Duration>,
    is_complete: bool,
    /// The present moment by the wall clock as the server before had it: by this the times in the tables are
    /// read.
    pub(super) wall: WallClock,
    /// How far the wall clock was set meanwhile, or by how much it cannot be right.
    jump: Option<ClockJump>,
}

/// A wall clock that is not what the tables say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClockJump {
    Ahead(Duration),
    Behind(Duration),
}

impl ClockJump {
    fn between(expected: WallTime, found: WallTime) -> Self {
        if found >= expected {
            ClockJump::Ahead(found.since(expected))
        } else {
            ClockJump::Behind(expected.since(found))
        }
    }

    const fn length(self) -> Duration {
        match self {
            ClockJump::Ahead(length) | ClockJump::Behind(length) => length,
        }
    }
}

impl std::fmt::Display for ClockJump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let length = humantime::format_duration(Duration::from_secs(self.length().as_secs()));
        match self {
            ClockJump::Ahead(_) => write!(f, "{length} ahead of"),
            ClockJump::Behind(_) => write!(f, "{length} behind"),
        }
    }
}

impl Absence {
    /// The absence from this sign to `now`. Without a sign its length is not known.
    pub(super) fn since(last: Option<&LastSign>, now: &Moment) -> Self {
        let WallClock { mono, wall: present, .. } = now.clock;
        let Some(last) = last else {
            return Absence { length: None, is_complete: false, wall: now.clock, jump: None };
        };
        let is_same_boot = match (&last.boot, &now.boot) {
            (Some(then), Some(now)) => then.id == now.id,
            (None, _) | (_, None) => false,
        };
        let by_boot = last.since_boot.zip(now.since_boot).filter(|_| is_same_boot);
        let by_boot = by_boot.and_then(|(then, now)| now.checked_sub(then));
        let (length, jump) = match by_boot {
            Some(length) => (Some(length), ClockJump::between(last.wall.after(length), present)),
            None => match ClockJump::between(last.wall, present) {
                ClockJump::Ahead(length) if length <= MAX_ABSENCE => {
                    (Some(length), ClockJump::Ahead(Duration::ZERO))
                }
                jump => (None, jump),
            },
        };
        let wall = WallClock::new(mono, last.wall.after(length.unwrap_or_default()).into());
        let jump = Some(jump).filter(|jump| jump.length() > CLOCK_TOLERANCE);
        Absence { length, is_complete: last.is_complete, wall, jump }
    }

    /// How long an agent has been silent, if it is so long by its row, and whether that is the least.
    pub(super) fn silence(&self, by_row: Duration, is_awaited: bool) -> (Duration, bool) {
        let least = self.length.unwrap_or_default().saturating_sub(MAY_HAVE_RUN);
        match self.length {
            Some(_) if self.is_complete || !is_awaited => (by_row, false),
            _ if is_awaited && !self.is_complete => (by_row.min(least), true),
            _ => (by_row, true),
        }
    }

    /// What a person should know of the clocks.
    pub(super) fn warning(&self) -> Option<String> {
        let jump = self.jump?;
        Some(match self.length {
            Some(length) => format!(
                "the wall clock is {jump} where it would be by the clock of the boot; ages are counted by the latter: no \
                 server ran for {length:.0?}"
            ),
            None => format!(
                "the wall clock is {jump} the last sign of the server before, and the host was booted since: that cannot \
                 be told from a clock that is wrong, so the time in between is not counted, and nobody is forgotten for it"
            ),
        })
    }
}

/// Whether the wall clock was set between two signs of one server.
pub(super) fn is_step(before: &LastSign, after: &LastSign) -> bool {
    let passed =
        before.since_boot.zip(after.since_boot).and_then(|(before, after)| after.checked_sub(before));
    passed
        .is_some_and(|passed| ClockJump::between(before.wall.after(passed), after.wall).length() > SIGN_EVERY)
}

/// Writes the sign of this server.
pub(super) fn put(database: &Connection, sign: &LastSign) -> rusqlite::Result<()> {
    let LastSign { instance, starts, boot, since_boot, wall, is_complete } = sign;
    database
        .prepare_cached(
            "INSERT OR REPLACE INTO server (only_one, instance, starts, boot, since_boot_ms, wall_ms, is_complete)
             VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            instance,
            whole(*starts),
            boot.as_ref().map(Boot::to_string),
            since_boot.map(|time| whole(millis(time))),
            unix_millis(*wall),
            is_complete,
        ])?;
    Ok(())
}

/// Reads the sign of the server before; `None` where none has given one.
pub(super) fn read(database: &Connection) -> rusqlite::Result<Option<LastSign>> {
    database.query_row("SELECT * FROM server", [], read_row).optional()
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<LastSign> {
    let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
    let boot: Option<String> = row.get("boot")?;
    let since_boot: Option<i64> = row.get("since_boot_ms")?;
    Ok(LastSign {
        instance: row.get("instance")?,
        starts: unsigned(row.get("starts")?),
        boot: boot.as_deref().and_then(Boot::parse),
        since_boot: since_boot.map(|time| Duration::from_millis(unsigned(time))),
        wall: WallTime::default().after(Duration::from_millis(unsigned(row.get("wall_ms")?))),
        is_complete: row.get("is_complete")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::MonoTime;

    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn boot(id: &str) -> Boot {
        Boot { id: id.to_owned(), namespace: "pid:[1]".to_owned(), clock_offset: Some(0) }
    }

    fn wall(since_epoch: Duration) -> WallTime {
        WallTime::default().after(since_epoch)
    }

    /// The sign of a server that ran in the boot `a`, an hour after its begin.
    fn sign(is_complete: bool) -> LastSign {
        LastSign {
            instance: "0".to_owned(),
            starts: 1,
            boot: Some(boot("a")),
            since_boot: Some(HOUR),
            wall: wall(YEAR * 56),
            is_complete,
        }
    }

    /// So long after that by the clock of the boot, and so long by the wall clock.
    fn later(id: &str, by_boot: Duration, at: WallTime) -> Moment {
        let clock = WallClock::new(MonoTime::from_secs(1), at.into());
        Moment { clock, boot: Some(boot(id)), since_boot: Some(HOUR + by_boot) }
    }

    #[test]
    fn within_a_boot_ages_are_by_its_clock_wherever_the_wall_clock_is() {
        let then = sign(true);
        for (at, is_told) in [
            (then.wall.after(HOUR), false),
            (then.wall.after(HOUR + CLOCK_TOLERANCE), false),
            (then.wall.after(YEAR), true),
            (then.wall.before(YEAR), true),
        ] {
            let absence = Absence::since(Some(&then), &later("a", HOUR, at));
            assert_eq!((absence.length, absence.wall.wall), (Some(HOUR), then.wall.after(HOUR)), "{at}");
            assert_eq!(absence.warning().is_some(), is_told, "{at}");
        }
        let ahead = Absence::since(Some(&then), &later("a", HOUR, then.wall.after(HOUR + YEAR)));
        assert!(ahead.warning().unwrap().contains("24s ahead of where it would be"), "{:?}", ahead.warning());
    }

    #[test]
    fn over_a_boot_the_wall_clock_is_believed_as_far_as_it_can_be_right() {
        let then = sign(true);
        let over_boot = |at| Absence::since(Some(&then), &later("b", Duration::ZERO, at));
        for length in [Duration::ZERO, HOUR, MAX_ABSENCE] {
            let absence = over_boot(then.wall.after(length));
            assert_eq!((absence.length, absence.warning()), (Some(length), None));
            assert_eq!(absence.wall.wall, then.wall.after(length));
        }
        for at in [then.wall.after(YEAR), then.wall.before(HOUR)] {
            let absence = over_boot(at);
            assert_eq!((absence.length, absence.wall.wall), (None, then.wall));
            assert!(absence.warning().unwrap().contains("nobody is forgotten"));
            assert_eq!(absence.silence(HOUR, false), (HOUR, true));
        }
        assert_eq!(over_boot(then.wall.before(Duration::from_secs(1))).warning(), None);
    }

    #[test]
    fn a_silence_that_is_not_known_is_told_as_the_least_that_it_can_be() {
        let seconds = Duration::from_secs;
        let absence = |is_complete, length: u64| {
            let then = sign(is_complete);
            let at = then.wall.after(seconds(length));
            Absence::since(Some(&then), &later("a", seconds(length), at))
        };
        // It wrote all last beats, so they are known.
        assert_eq!(absence(true, 0).silence(seconds(1), true), (seconds(1), false));
        assert_eq!(absence(true, 10).silence(seconds(50), true), (seconds(50), false));
        // It was killed: the last beat was after the one that was written.
        assert_eq!(absence(false, 10).silence(seconds(50), true), (seconds(8), true));
        assert_eq!(absence(false, 1).silence(seconds(50), true), (Duration::ZERO, true));
        // Unless that was the last thing that it wrote.
        assert_eq!(absence(false, 10).silence(seconds(7), true), (seconds(7), true));
        // Who was silent already beat no more.
        assert_eq!(absence(false, 10).silence(seconds(50), false), (seconds(50), false));
        let nobody = Absence::since(None, &later("a", HOUR, wall(YEAR)));
        assert_eq!(nobody.silence(HOUR, true), (Duration::ZERO, true));
        assert_eq!(nobody.warning(), None);
    }

    #[test]
    fn without_a_boot_clock_the_wall_clock_counts() {
        let then = LastSign { since_boot: None, ..sign(true) };
        let absence = Absence::since(Some(&then), &later("a", HOUR, then.wall.after(HOUR * 2)));
        assert_eq!(absence.length, Some(HOUR * 2));
        let then = LastSign { boot: None, ..sign(true) };
        let absence = Absence::since(Some(&then), &later("a", HOUR, then.wall.after(HOUR * 2)));
        assert_eq!(absence.length, Some(HOUR * 2));
    }

    #[test]
    fn a_boot_clock_that_went_back_is_none_of_the_same_boot() {
        let then = sign(true);
        let now = later("a", Duration::ZERO, then.wall.after(HOUR));
        let now = Moment { since_boot: Some(Duration::from_secs(1)), ..now };
        assert_eq!(Absence::since(Some(&then), &now).length, Some(HOUR));
    }
}

//! Time zones of the IANA database.

use std::env;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz;

/// A time zone: its name, and its offsets from UTC in the past and the future.
///
/// The database is the host's; what it does not have comes from one in the program.
///
/// ```
/// use varta_server::schedule::TimeZone;
///
/// assert_eq!(TimeZone::named("europe/berlin")?.name(), "Europe/Berlin");
/// assert!(TimeZone::named("Europe/Atlantis").is_err());
/// # Ok::<(), varta_server::schedule::UnknownTimeZone>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeZone {
    name: Arc<str>,
    rules: tz::TimeZone,
}

/// There is no time zone of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no time zone; write one as in Europe/Berlin, or UTC", name.escape_debug())]
pub struct UnknownTimeZone {
    /// The name.
    name: String,
}

/// The longest name of a zone that is looked up, in bytes. The longest that exists has 32.
const MAX_NAME: usize = 64;

impl TimeZone {
    /// Universal time.
    #[must_use]
    pub fn utc() -> Self {
        TimeZone { name: "UTC".into(), rules: tz::TimeZone::UTC }
    }

    /// The zone of this name, in capitals or not.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn named(name: &str) -> Result<Self, UnknownTimeZone> {
        let rules = if name.len() <= MAX_NAME { tz::TimeZone::get(name).ok() } else { None };
        let Some(rules) = rules else {
            return Err(UnknownTimeZone { name: name.chars().take(MAX_NAME).collect() });
        };
        let name = rules.iana_name().unwrap_or(name).into();
        Ok(TimeZone { name, rules })
    }

    /// The zone of this host: that of the variable TZ, else that of `/etc/localtime`, else UTC. One without a
    /// name is called `local`.
    ///
    /// # Errors
    ///
    /// TZ names none.
    pub fn of_host() -> Result<Self, UnknownTimeZone> {
        match tz::TimeZone::try_system() {
            Ok(rules) => Ok(TimeZone { name: rules.iana_name().unwrap_or("local").into(), rules }),
            Err(_) => match env::var_os("TZ").filter(|value| !value.is_empty()) {
                Some(name) => Err(UnknownTimeZone { name: name.to_string_lossy().into_owned() }),
                None => Ok(TimeZone::utc()),
            },
        }
    }

    /// Its name in the database.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The stretch of time with one offset in which a moment lies. Moments are seconds since 1970.
    pub(crate) fn stretch(&self, at: i64) -> Stretch {
        let moment = timestamp(at);
        let offset = |at: i64| i64::from(self.rules.to_offset(timestamp(at)).seconds());
        let start = self.rules.preceding(timestamp(at.saturating_add(1))).next();
        let start = start.map(|transition| transition.timestamp().as_second());
        let end = self.rules.following(moment).next();
        Stretch {
            start: start.map(|start| Start { at: start, offset_before: offset(start - 1) }),
            end: end.map(|transition| transition.timestamp().as_second()),
            offset: offset(at),
        }
    }

    /// A moment as RFC 3339 writes it, with the offset of the zone.
    pub(crate) fn rfc3339(&self, at: i64) -> String {
        let moment = timestamp(at);
        let offset = self.rules.to_offset(moment);
        moment.display_with_offset(offset).to_string()
    }

    /// The English name of the day of the week of a moment, three letters.
    pub(crate) fn weekday(&self, at: i64) -> String {
        self.rules.to_datetime(timestamp(at)).strftime("%a").to_string()
    }
}

impl fmt::Display for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A stretch of time in which the offset from UTC is the same. All are seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Its begin; `None` when nothing is before it.
    pub(crate) start: Option<Start>,
    /// The first moment after it; `None` when nothing follows.
    pub(crate) end: Option<i64>,
    /// Local time minus universal time.
    pub(crate) offset: i64,
}

/// The begin of a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// The first moment of the stretch.
    pub(crate) at: i64,
    /// The offset until then.
    pub(crate) offset_before: i64,
}

/// The nearest moment that can be written.
fn timestamp(at: i64) -> Timestamp {
    let (least, most) = (Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    Timestamp::from_second(at.clamp(least, most)).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600;

    #[test]
    fn a_stretch_ends_where_the_clocks_are_set() {
        let berlin = TimeZone::named("Europe/Berlin").unwrap();
        // 2026-07-01, between 2026-03-29 and 2026-10-25, both at 01:00 UTC.
        let (spring, autumn) = (1_774_746_000, 1_792_890_000);
        let summer = Stretch {
            start: Some(Start { at: spring, offset_before: HOUR }),
            end: Some(autumn),
            offset: 2 * HOUR,
        };
        for at in [spring, 1_782_864_000, autumn - 1] {
            assert_eq!(berlin.stretch(at), summer);
        }
        assert_eq!(berlin.stretch(autumn).start, Some(Start { at: autumn, offset_before: 2 * HOUR }));
        let always = Stretch { start: None, end: None, offset: 0 };
        assert_eq!(TimeZone::utc().stretch(0), always);
        assert_eq!(TimeZone::utc().stretch(i64::MAX), always);
    }

    #[test]
    fn no_name_leads_out_of_the_database() {
        for name in
            ["", "../../etc/passwd", "/etc/localtime", "Europe/", "Europe", "posixrules\0", "Mars/Base"]
        {
            assert!(TimeZone::named(name).is_err(), "{name}");
        }
        let long = TimeZone::named(&"x".repeat(1_000_000)).unwrap_err().to_string();
        assert!(long.len() < 200, "{long}");
    }
}

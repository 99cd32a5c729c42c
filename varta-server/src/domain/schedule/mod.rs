//! When something recurring is due: intervals, expressions of cron, and calendar events of systemd.
//!
//! A schedule is a pure value: it is handed a moment and gives the next one that is due. docs/SCHEDULES.md has the
//! forms, and what happens on days on which clocks are set.

mod calendar;
mod cron;
mod error;
mod pattern;
mod zoned;

use std::fmt;
use std::time::Duration;

pub use self::error::ScheduleError;
use self::zoned::{ClockChanges, Zoned};
use crate::base::options::duration::parse_duration;
use crate::base::time::WallTime;
use crate::base::time_zone::TimeZone;

/// When something recurring is due.
///
/// ```
/// use varta_server::schedule::{Schedule, TimeZone};
/// use varta_server::time::WallTime;
///
/// let zone = TimeZone::named("Europe/Berlin")?;
/// let named = |name: &str| TimeZone::named(name).ok();
/// let nightly = Schedule::parse("30 2 * * Mon-Fri", &zone, named)?;
/// let friday = WallTime::parse("2026-03-27T12:00:00Z")?;
/// let due = nightly.next_after(friday).expect("there is always a Monday");
/// assert_eq!(due.to_string(), "2026-03-30T00:30:00.000Z");
///
/// // The same, as timers of systemd have it.
/// let timer = Schedule::parse("Mon..Fri 02:30 Europe/Berlin", &TimeZone::utc(), named)?;
/// assert_eq!(timer.next_after(friday), Some(due));
///
/// let error = Schedule::parse("61 2 * * *", &zone, named).unwrap_err();
/// assert_eq!(error.to_string(), "`61`: minutes are 0 to 59");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Schedule {
    text: Box<str>,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Interval(Duration),
    Zoned(ScheduleKind, Box<Zoned>),
}

/// The form of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScheduleKind {
    /// A duration: due when so much time has passed.
    Interval,
    /// Five or six fields of cron, or a nickname such as `@daily`.
    Cron,
    /// A calendar event as in systemd.time(7).
    Calendar,
}

impl Schedule {
    /// The longest text, in bytes.
    pub const MAX_BYTES: usize = 255;
    /// The shortest interval.
    pub const MIN_INTERVAL: Duration = Duration::from_secs(1);
    /// The longest interval: ten years of 365 days.
    pub const MAX_INTERVAL: Duration = Duration::from_secs(3_650 * 86_400);

    /// Reads a schedule: a duration (`1d`, `every 90m`), an expression of cron, or a calendar event.
    ///
    /// Five fields and more are an expression of cron, less are a calendar event. Times are those of `zone`, unless a
    /// calendar event names another, which `named` looks up.
    ///
    /// # Errors
    ///
    /// The part that is wrong, and what would be right.
    pub fn parse(
        text: &str,
        zone: &TimeZone,
        named: impl FnOnce(&str) -> Option<TimeZone>,
    ) -> Result<Self, ScheduleError> {
        let text = text.trim_ascii();
        if text.len() > Self::MAX_BYTES {
            let start: String = text.chars().take(24).collect();
            return Err(ScheduleError::new(
                start,
                format!("a schedule has at most {} bytes", Self::MAX_BYTES),
            ));
        }
        let form = if let Some(interval) = interval(text) {
            Form::Interval(interval?)
        } else if text.starts_with('@') || text.split_ascii_whitespace().count() >= 5 {
            let (pattern, changes) = cron::parse(text)?;
            Form::Zoned(ScheduleKind::Cron, Box::new(Zoned::new(pattern, zone.clone(), changes)))
        } else {
            let (pattern, other) = calendar::parse(text, named)?;
            let zone = other.unwrap_or_else(|| zone.clone());
            Form::Zoned(ScheduleKind::Calendar, Box::new(Zoned::new(pattern, zone, ClockChanges::SYSTEMD)))
        };
        Ok(Schedule { text: text.into(), form })
    }

    /// The text that it was read from.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its form.
    #[must_use]
    pub fn kind(&self) -> ScheduleKind {
        match &self.form {
            Form::Interval(_) => ScheduleKind::Interval,
            Form::Zoned(kind, _) => *kind,
        }
    }

    /// The time zone that counts; `None` for an interval.
    #[must_use]
    pub fn zone(&self) -> Option<&TimeZone> {
        match &self.form {
            Form::Interval(_) => None,
            Form::Zoned(_, zoned) => Some(zoned.zone()),
        }
    }

    /// The first moment after `at` that is due, in whole seconds; `None` when there is none before the year 2200.
    ///
    /// An interval is due so long after `at`: hand in when it was last kept.
    #[must_use]
    pub fn next_after(&self, at: WallTime) -> Option<WallTime> {
        match &self.form {
            Form::Interval(interval) => Some(at.after(*interval)).filter(|due| due.as_seconds() < zoned::END),
            Form::Zoned(_, zoned) => zoned.next_after(at.as_seconds()).map(WallTime::from_seconds),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Two schedules are equal when the same text counts in the same zone.
impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.zone() == other.zone()
    }
}

impl Eq for Schedule {}

/// Reads a duration with or without `every`. `None` for what is neither.
fn interval(text: &str) -> Option<Result<Duration, ScheduleError>> {
    let rest = match text.split_once(|character: char| character.is_ascii_whitespace()) {
        Some(("every", rest)) => Some(rest.trim_ascii()),
        _ => None,
    };
    let refuse = |fault: String| Err(ScheduleError::new(rest.unwrap_or(text), fault));
    match (parse_duration(rest.unwrap_or(text)), rest) {
        (Ok(interval), _) if interval < Schedule::MIN_INTERVAL || interval > Schedule::MAX_INTERVAL => {
            Some(refuse("an interval is 1s to 3650d".to_owned()))
        }
        (Ok(interval), _) => Some(Ok(interval)),
        (Err(fault), Some(_)) => {
            Some(refuse(format!("{fault}; an interval is written as 90m, 1d or 1h 30m")))
        }
        (Err(_), None) => None,
    }
}

#[cfg(test)]
mod tests;

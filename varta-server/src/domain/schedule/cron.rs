//! Expressions of cron.
//!
//! What a field may hold is checked here, with an error that says what would be right; what a day of the month or of
//! the week means is croner's.

use croner::parser::{CronParser, Seconds, Year};

use crate::domain::schedule::error::ScheduleError;
use crate::domain::schedule::pattern::{Days, Pattern, Times, Years};
use crate::domain::schedule::zoned::ClockChanges;

/// Reads an expression with five fields, with six of which the first are seconds, or a nickname.
pub(super) fn parse(text: &str) -> Result<(Pattern, ClockChanges), ScheduleError> {
    let text = match text.strip_prefix('@') {
        Some(nickname) => expand(text, nickname)?,
        None => text,
    };
    let parts: Vec<&str> = text.split_ascii_whitespace().collect();
    let fields = match parts.len() {
        5 => &FIELDS[1..],
        6 => &FIELDS[..],
        more => {
            let fault = format!(
                "an expression of cron has 5 fields, or 6 with seconds in front, and this has {more}"
            );
            return Err(ScheduleError::new(text, fault));
        }
    };
    for (field, part) in fields.iter().zip(&parts) {
        for item in part.split(',') {
            field.check(item)?;
        }
    }
    let [.., minutes, hours, days, _, weekdays] = parts[..] else {
        return Err(ScheduleError::new(text, "an expression of cron has 5 fields"));
    };
    let starred = |part: &str| part.starts_with(['*', '?']);
    let cron = CronParser::builder()
        .seconds(Seconds::Optional)
        .year(Year::Disallowed)
        // As in the first cron and in Debian's: where one of the two is starred, both must fit, else one of them.
        .dom_and_dow(starred(days) || starred(weekdays))
        .build()
        .parse(text)
        .map_err(|error| ScheduleError::new(text, error.to_string()))?;
    let pattern = cron.pattern;
    let times = Times {
        hours: pattern.hours.values().into_iter().collect(),
        minutes: pattern.minutes.values().into_iter().collect(),
        seconds: pattern.seconds.values().into_iter().collect(),
    };
    let months = pattern.months.values().into_iter().collect();
    let is_wild = minutes.starts_with('*') || hours.starts_with('*');
    let changes = if is_wild { ClockChanges::CRON_WILD } else { ClockChanges::CRON_FIXED };
    Ok((Pattern { years: Years::All, months, days: Days::Cron(Box::new(pattern)), times }, changes))
}

/// The five fields of a nickname.
fn expand(text: &str, nickname: &str) -> Result<&'static str, ScheduleError> {
    match nickname.to_ascii_lowercase().as_str() {
        "hourly" => Ok("0 * * * *"),
        "daily" | "midnight" => Ok("0 0 * * *"),
        "weekly" => Ok("0 0 * * 0"),
        "monthly" => Ok("0 0 1 * *"),
        "yearly" | "annually" => Ok("0 0 1 1 *"),
        "reboot" => Err(ScheduleError::new(text, "what starts with the host is due at no time of the clock")),
        _ => Err(ScheduleError::new(
            text,
            "nicknames are @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually",
        )),
    }
}

/// A field.
struct Field {
    /// What its values are, in the plural.
    values: &'static str,
    least: u32,
    most: u32,
    /// Names that stand for the values from `least` on.
    names: &'static [&'static str],
    /// What more an item can be.
    extras: Extras,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Extras {
    None,
    /// `L`, `LW`, `15W` and `?`.
    OfMonth,
    /// `5L`, `5#3` and `?`.
    OfWeek,
}

const FIELDS: [Field; 6] = [
    Field { values: "seconds", least: 0, most: 59, names: &[], extras: Extras::None },
    Field { values: "minutes", least: 0, most: 59, names: &[], extras: Extras::None },
    Field { values: "hours", least: 0, most: 23, names: &[], extras: Extras::None },
    Field { values: "days of the month", least: 1, most: 31, names: &[], extras: Extras::OfMonth },
    Field {
        values: "months",
        least: 1,
        most: 12,
        names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
        extras: Extras::None,
    },
    Field {
        values: "days of the week",
        least: 0,
        most: 7,
        names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
        extras: Extras::OfWeek,
    },
];

impl Field {
    /// Checks an item of its list.
    fn check(&self, item: &str) -> Result<(), ScheduleError> {
        if self.is_extra(item) {
            return Ok(());
        }
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        match (range, range.split_once('-')) {
            ("*", _) => {}
            (_, Some((from, to))) => {
                let (first, mut last) = (self.value(from, item)?, self.value(to, item)?);
                if self.extras == Extras::OfWeek && to.eq_ignore_ascii_case("sun") {
                    last = 7;
                }
                if first > last {
                    return Err(ScheduleError::new(item, "a range begins with the lesser of its ends"));
                }
            }
            (value, None) => {
                self.value(value, item)?;
                if step.is_some() {
                    let fault =
                        format!("a step follows a range or `*`, as in */5 or {value}-{}/5", self.most);
                    return Err(ScheduleError::new(item, fault));
                }
            }
        }
        match step.map(|step| (number(step), step)) {
            None => Ok(()),
            Some((Some(step), _)) if (1..=self.most).contains(&step) => Ok(()),
            Some(_) => {
                Err(ScheduleError::new(item, format!("a step of {} is 1 to {}", self.values, self.most)))
            }
        }
    }

    /// The number that a value is.
    fn value(&self, value: &str, item: &str) -> Result<u32, ScheduleError> {
        let named = self.names.iter().zip(self.least..).find(|(name, _)| name.eq_ignore_ascii_case(value));
        let number = named.map(|(_, number)| number).or_else(|| number(value));
        number.filter(|number| (self.least..=self.most).contains(number)).ok_or_else(|| {
            let names = match self.names {
                [first, .., last] => format!(", or {first} to {last}"),
                _ => String::new(),
            };
            let Field { values, least, most, .. } = self;
            ScheduleError::new(item, format!("{values} are {least} to {most}{names}"))
        })
    }

    fn is_extra(&self, item: &str) -> bool {
        let value = |value: &str| self.value(value, item).is_ok();
        let upper = item.to_ascii_uppercase();
        match self.extras {
            Extras::None => false,
            Extras::OfMonth => {
                matches!(upper.as_str(), "?" | "L" | "LW") || upper.strip_suffix('W').is_some_and(value)
            }
            Extras::OfWeek => match upper.split_once('#') {
                Some((day, count)) => value(day) && matches!(count, "1" | "2" | "3" | "4" | "5"),
                None => upper == "?" || upper.strip_suffix('L').is_some_and(value),
            },
        }
    }
}

/// A number of at most four digits.
fn number(text: &str) -> Option<u32> {
    let is_number = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

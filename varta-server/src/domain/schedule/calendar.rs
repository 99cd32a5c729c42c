//! Calendar events, as systemd.time(7) describes them: `Mon..Fri *-*-* 02:00:00 Europe/Berlin`.

use crate::base::time_zone::TimeZone;
use crate::domain::schedule::error::ScheduleError;
use crate::domain::schedule::pattern::{Days, Pattern, Set, Times, Years};

type Result<T> = std::result::Result<T, ScheduleError>;

/// The first and the last year that can be named.
const YEARS: (u16, u16) = (1970, 2199);

/// Reads a calendar event, and the time zone that it names.
pub(super) fn parse(
    text: &str,
    named: impl FnOnce(&str) -> Option<TimeZone>,
) -> Result<(Pattern, Option<TimeZone>)> {
    let mut parts: Vec<&str> = text.split_ascii_whitespace().collect();
    let zone = match parts[..] {
        [_, .., last] if last.starts_with(|first: char| first.is_ascii_alphabetic()) => {
            parts.pop();
            Some(named(last).ok_or_else(|| {
                ScheduleError::new(
                    last,
                    "is no time zone, which stands last; write one as in Europe/Berlin, or UTC",
                )
            })?)
        }
        _ => None,
    };
    if let [word] = parts[..]
        && let Some(event) = expand(word)
    {
        parts = event.split(' ').collect();
    }
    let mut rest = &parts[..];
    let weekdays = match rest {
        [first, others @ ..] if first.starts_with(|first: char| first.is_ascii_alphabetic()) => {
            rest = others;
            weekdays(first)?
        }
        _ => Set::ALL,
    };
    let (date, time) = match *rest {
        [] if !parts.is_empty() => ("*-*-*", "00:00"),
        [one] if one.contains(':') => ("*-*-*", one),
        [one] => (one, "00:00"),
        [date, time] => (date, time),
        _ => {
            return Err(ScheduleError::new(
                text,
                "is neither a duration such as 1d, nor the five fields of cron, nor a calendar event such as \
                 `Mon..Fri *-*-* 02:00:00 UTC`, `daily`",
            ));
        }
    };
    let (years, months, days, from_end) = read_date(date)?;
    let days = Days::Calendar { days, from_end, weekdays };
    Ok((Pattern { years, months, days, times: read_time(time)? }, zone))
}

/// What a word stands for.
fn expand(word: &str) -> Option<&'static str> {
    Some(match word.to_ascii_lowercase().as_str() {
        "minutely" => "*-*-* *:*:00",
        "hourly" => "*-*-* *:00:00",
        "daily" => "*-*-* 00:00:00",
        "weekly" => "Mon *-*-* 00:00:00",
        "monthly" => "*-*-01 00:00:00",
        "quarterly" => "*-01,04,07,10-01 00:00:00",
        "semiannually" | "semi-annually" | "biannually" | "bi-annually" => "*-01,07-01 00:00:00",
        "yearly" | "annually" => "*-01-01 00:00:00",
        _ => return None,
    })
}

const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// Reads days of the week: `Mon,Wed..Fri`, with or without a comma behind them.
fn weekdays(part: &str) -> Result<Set> {
    let day = |name: &str| {
        let lower = name.to_ascii_lowercase();
        WEEKDAYS.iter().zip(0u16..).find(|(day, _)| **day == lower || day[..3] == lower).map(|(_, day)| day)
    };
    let mut set = Set::default();
    for item in part.strip_suffix(',').unwrap_or(part).split(',') {
        let (first, last) = item.split_once("..").or(item.split_once('-')).unwrap_or((item, item));
        let (Some(first), Some(last)) = (day(first), day(last)) else {
            let fault = "is no day of the week; write them as in Mon..Fri or Sat,Sun, or a word such as daily, weekly";
            return Err(ScheduleError::new(item, fault));
        };
        if first > last {
            return Err(ScheduleError::new(item, "a range of days runs from Mon to Sun"));
        }
        (first..=last).for_each(|day| set.insert(day));
    }
    Ok(set)
}

/// Reads `YEAR-MONTH-DAY` or `MONTH-DAY`, with `~` before a day that is counted from the end of the month.
fn read_date(part: &str) -> Result<(Years, Set, Set, bool)> {
    let refuse =
        || ScheduleError::new(part, "a date is YEAR-MONTH-DAY or MONTH-DAY, or with ~ for - before the day");
    let (rest, day, from_end) = match part.rsplit_once('~') {
        Some((rest, day)) => (rest, day, true),
        None => part.rsplit_once('-').map(|(rest, day)| (rest, day, false)).ok_or_else(refuse)?,
    };
    let (year, month) = rest.rsplit_once('-').unwrap_or(("*", rest));
    if [year, month, day].iter().any(|part| part.is_empty() || part.contains(['-', '~', ':'])) {
        return Err(refuse());
    }
    let years = match year {
        "*" => Years::All,
        _ => {
            let mut sets = [Set::default(); 4];
            for year in values(year, "years", YEARS, Way::Years)? {
                let number = year - YEARS.0;
                sets[usize::from(number / 64)].insert(number % 64);
            }
            Years::These(sets)
        }
    };
    let months = set(month, "months", (1, 12), Way::Up)?;
    let way = if from_end { Way::FromEnd } else { Way::Up };
    let days = set(day, "days", (1, 31), way)?;
    Ok((years, months, days, from_end))
}

/// Reads `HOUR:MINUTE` or `HOUR:MINUTE:SECOND`.
fn read_time(part: &str) -> Result<Times> {
    let mut parts = part.split(':');
    let (Some(hours), Some(minutes), seconds, None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(ScheduleError::new(part, "a time is HOUR:MINUTE or HOUR:MINUTE:SECOND"));
    };
    Ok(Times {
        hours: set(hours, "hours", (0, 23), Way::Up)?,
        minutes: set(minutes, "minutes", (0, 59), Way::Up)?,
        seconds: set(seconds.unwrap_or("0"), "seconds", (0, 59), Way::Up)?,
    })
}

/// How the values of a component are counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    /// Repetitions go on towards the end of the month, which is 1.
    FromEnd,
    /// Two digits stand for 1970 to 2069.
    Years,
}

fn set(part: &str, name: &str, range: (u16, u16), way: Way) -> Result<Set> {
    match part {
        "*" => Ok(Set::ALL),
        _ => Ok(values(part, name, range, way)?.into_iter().collect()),
    }
}

/// Reads a component: a list of values, ranges `3..5` and repetitions `3/2`, `3..9/2`.
fn values(part: &str, name: &str, (least, most): (u16, u16), way: Way) -> Result<Vec<u16>> {
    let mut values = Vec::new();
    for item in part.split(',') {
        let refuse = |fault: String| ScheduleError::new(item, fault);
        let value = |text: &str| {
            let is_number = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
            let number: Option<u16> = if is_number { text.parse().ok() } else { None };
            let number = match number {
                Some(year @ 0..70) if way == Way::Years => Some(year + 2000),
                Some(year @ 70..100) if way == Way::Years => Some(year + 1900),
                number => number,
            };
            number
                .filter(|number| (least..=most).contains(number))
                .ok_or_else(|| refuse(format!("{name} are {least} to {most}, or `*` alone for all of them")))
        };
        let (range, step_of_item) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let (first, last) = match range.split_once("..") {
            Some((first, last)) => (value(first)?, value(last)?),
            None if step_of_item.is_some() => (value(range)?, most),
            None => (value(range)?, value(range)?),
        };
        if first > last {
            return Err(refuse("a range begins with the lesser of its ends".to_owned()));
        }
        let step = match step_of_item.map(str::parse::<u16>) {
            None => 1,
            // The first repetition is in the range.
            Some(Ok(step)) if step > 0 && step <= last - first => step,
            Some(_) => {
                let fault =
                    format!("a repetition of {name} is 1 or more, and stays within {first} to {last}");
                return Err(refuse(fault));
            }
        };
        match way {
            // As in systemd: what has an end is counted from its first value, what has none goes on to the last day.
            Way::FromEnd if step_of_item.is_some() && !range.contains("..") => {
                values.extend((least..=first).rev().step_by(step.into()));
            }
            Way::Up | Way::FromEnd | Way::Years => values.extend((first..=last).step_by(step.into())),
        }
    }
    Ok(values)
}

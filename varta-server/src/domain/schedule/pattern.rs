//! Which local times are due, without a time zone.

use croner::{CronPattern, Weekday};
use jiff::civil::{self, Date};

/// Seconds of a day.
pub(super) const DAY: i64 = 86_400;

/// A set of numbers below 64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set(u64);

impl Set {
    /// All that it can hold.
    pub(super) const ALL: Set = Set(u64::MAX);

    pub(super) fn insert(&mut self, number: u16) {
        self.0 |= 1u64.checked_shl(number.into()).unwrap_or(0);
    }

    pub(super) fn has(self, number: u32) -> bool {
        self.0 & 1u64.checked_shl(number).unwrap_or(0) != 0
    }

    /// The least that is `from` or more, and below `end`.
    fn least(self, from: u32, end: u32) -> Option<u32> {
        let found = (self.0 & u64::MAX.checked_shl(from).unwrap_or(0)).trailing_zeros();
        (found < end).then_some(found)
    }
}

impl FromIterator<u16> for Set {
    fn from_iter<I: IntoIterator<Item = u16>>(numbers: I) -> Self {
        let mut set = Set::default();
        numbers.into_iter().for_each(|number| set.insert(number));
        set
    }
}

/// Which times of a day are due: each hour, minute and second of these.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) hours: Set,
    pub(super) minutes: Set,
    pub(super) seconds: Set,
}

impl Times {
    /// The first that is not before `from`. Both are seconds of the day.
    fn first(&self, from: u32) -> Option<u32> {
        let (hour, minute, second) = (from / 3_600, from / 60 % 60, from % 60);
        let first_minute = |from| self.minutes.least(from, 60);
        let first_second = |from| self.seconds.least(from, 60);
        if self.hours.has(hour) {
            if self.minutes.has(minute)
                && let Some(second) = first_second(second)
            {
                return Some(hour * 3_600 + minute * 60 + second);
            }
            if let Some(minute) = first_minute(minute + 1) {
                return Some(hour * 3_600 + minute * 60 + first_second(0)?);
            }
        }
        Some(self.hours.least(hour + 1, 24)? * 3_600 + first_minute(0)? * 60 + first_second(0)?)
    }
}

/// Which years are due.
#[derive(Clone, Copy, Debug)]
pub(super) enum Years {
    All,
    /// Those that are 1970 plus a number in here.
    These([Set; 4]),
}

impl Years {
    fn has(&self, year: i16) -> bool {
        match self {
            Years::All => true,
            Years::These(sets) => {
                let number = u32::from(year.saturating_sub(1970).unsigned_abs());
                sets.iter().zip(0..).any(|(set, index)| number / 64 == index && set.has(number % 64))
            }
        }
    }
}

/// Which days of their months are due.
#[derive(Clone, Debug)]
pub(super) enum Days {
    /// As cron has it: by the day of the month or of the week, or by both.
    Cron(Box<CronPattern>),
    /// By both.
    Calendar {
        days: Set,
        /// Whether `days` are counted from the end of the month, whose last day is 1.
        from_end: bool,
        /// Monday is 0.
        weekdays: Set,
    },
}

impl Days {
    fn has(&self, date: Date) -> bool {
        let (year, month, day) = (date.year(), date.month().unsigned_abs(), date.day().unsigned_abs());
        let weekday = date.weekday();
        match self {
            Days::Cron(pattern) => {
                let weekday =
                    Weekday::from_days_from_sunday(weekday.to_sunday_zero_offset().unsigned_abs().into());
                pattern.day_match(year.into(), month.into(), day.into(), weekday).unwrap_or(false)
            }
            Days::Calendar { days, from_end, weekdays } => {
                let length = date.days_in_month().unsigned_abs();
                let day = if *from_end { length + 1 - day } else { day };
                days.has(day.into()) && weekdays.has(weekday.to_monday_zero_offset().unsigned_abs().into())
            }
        }
    }
}

/// Which local times are due.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    pub(super) years: Years,
    pub(super) months: Set,
    pub(super) days: Days,
    pub(super) times: Times,
}

impl Pattern {
    /// The first local time that is due, not before `from` and before `end`. Local times are seconds since the local
    /// 1970-01-01 00:00:00, as if no clock was ever set.
    pub(super) fn first(&self, from: i64, end: i64) -> Option<i64> {
        let mut local = from;
        while local < end {
            let day = local.div_euclid(DAY);
            let date = date(day)?;
            if !self.years.has(date.year()) || !self.months.has(date.month().unsigned_abs().into()) {
                let left = date.days_in_month() - date.day() + 1;
                local = (day + i64::from(left)) * DAY;
                continue;
            }
            let second = u32::try_from(local.rem_euclid(DAY)).ok()?;
            if self.days.has(date)
                && let Some(second) = self.times.first(second)
            {
                return Some(day * DAY + i64::from(second)).filter(|found| *found < end);
            }
            local = (day + 1) * DAY;
        }
        None
    }
}

/// The date of a day since 1970-01-01.
fn date(day: i64) -> Option<Date> {
    civil::date(1970, 1, 1).checked_add(jiff::Span::new().try_days(day).ok()?).ok()
}

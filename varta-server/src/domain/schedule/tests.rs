//! Schedules at given moments.

use proptest::prelude::*;

use super::*;

fn named(name: &str) -> Option<TimeZone> {
    TimeZone::named(name).ok()
}

fn schedule(text: &str, zone: &str) -> Schedule {
    Schedule::parse(text, &named(zone).unwrap(), named).unwrap()
}

fn wall(text: &str) -> WallTime {
    WallTime::parse(text).unwrap()
}

/// The first due times after a moment, in local time without the year, the seconds and what is behind them.
fn due(text: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let schedule = schedule(text, zone);
    let zone = schedule.zone().cloned().unwrap_or_else(TimeZone::utc);
    let mut at = wall(after);
    let times = std::iter::from_fn(|| {
        at = schedule.next_after(at)?;
        let local = zone.rfc3339(at.as_seconds());
        Some(format!("{}{}", &local[5..16], &local[19..]))
    });
    times.take(count).collect()
}

fn fault(text: &str) -> String {
    Schedule::parse(text, &TimeZone::utc(), named).unwrap_err().to_string()
}

#[test]
fn the_form_decides_which_rules_count() {
    for (text, kind) in [
        ("1d", ScheduleKind::Interval),
        ("every 90m", ScheduleKind::Interval),
        (" 1h 30m ", ScheduleKind::Interval),
        ("*/5 * * * *", ScheduleKind::Cron),
        ("10 */5 * * * *", ScheduleKind::Cron),
        ("@Daily", ScheduleKind::Cron),
        ("daily", ScheduleKind::Calendar),
        ("Mon..Fri *-*-* 02:00:00 Europe/Berlin", ScheduleKind::Calendar),
        ("02:00", ScheduleKind::Calendar),
    ] {
        assert_eq!(schedule(text, "UTC").kind(), kind, "{text}");
    }
}

#[test]
fn an_interval_is_due_so_long_after_what_is_handed_in() {
    let interval = schedule("every 90m", "Europe/Berlin");
    assert_eq!(interval.next_after(wall("2026-03-29T00:30:00Z")), Some(wall("2026-03-29T02:00:00Z")));
    assert_eq!(interval.zone(), None);
    assert_eq!(
        fault("every 2"),
        "`2`: time unit needed, for example 2sec or 2ms; an interval is written as 90m, 1d or 1h 30m"
    );
    assert_eq!(fault("900ms"), "`900ms`: an interval is 1s to 3650d");
    assert_eq!(fault("every 11years"), "`11years`: an interval is 1s to 3650d");
}

#[test]
fn a_due_time_is_after_the_moment_and_in_whole_seconds() {
    let minutes = schedule("* * * * *", "UTC");
    for (at, next) in [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
        ("2026-01-01T00:00:59.999Z", "2026-01-01T00:01:00Z"),
        ("2026-01-01T00:01:00.001Z", "2026-01-01T00:02:00Z"),
    ] {
        assert_eq!(minutes.next_after(wall(at)), Some(wall(next)), "{at}");
    }
}

#[test]
fn what_cron_has_at_a_fixed_time_in_a_skipped_hour_is_due_right_after_it_and_once() {
    let spring = "2026-03-28T12:00:00Z";
    assert_eq!(due("30 2 * * *", "Europe/Berlin", spring, 2), ["03-29T03:00+02:00", "03-30T02:30+02:00"]);
    assert_eq!(due("5,35 2 29 3 *", "Europe/Berlin", spring, 1), ["03-29T03:00+02:00"]);
    assert_eq!(due("0 3 29 3 *", "Europe/Berlin", spring, 1), ["03-29T03:00+02:00"]);
    // Half an hour is skipped, from 02:00 on.
    let october = "2026-10-03T12:00:00Z";
    assert_eq!(due("15 2 * * *", "Australia/Lord_Howe", october, 1), ["10-04T02:30+11:00"]);
}

#[test]
fn what_cron_has_at_a_fixed_time_in_a_repeated_hour_is_due_once() {
    let autumn = "2026-10-24T12:00:00Z";
    assert_eq!(due("30 2 * * *", "Europe/Berlin", autumn, 2), ["10-25T02:30+02:00", "10-26T02:30+01:00"]);
    // Also for who asks between the two.
    assert_eq!(due("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1), ["10-26T02:30+01:00"]);
    // 01:30 to 02:00 is shown twice.
    let april = "2026-04-04T12:00:00Z";
    assert_eq!(
        due("45 1 * * *", "Australia/Lord_Howe", april, 2),
        ["04-05T01:45+11:00", "04-06T01:45+10:30"]
    );
}

#[test]
fn what_cron_repeats_is_due_at_each_time_that_a_clock_shows() {
    let before = "2026-10-03T15:05:00Z";
    assert_eq!(
        due("*/20 * * * *", "Australia/Lord_Howe", before, 4),
        ["10-04T01:40+10:30", "10-04T02:40+11:00", "10-04T03:00+11:00", "10-04T03:20+11:00"]
    );
    assert_eq!(due("30 * * * *", "Australia/Lord_Howe", before, 1), ["10-04T02:30+11:00"]);
    assert_eq!(due("0 */4 * * *", "Australia/Lord_Howe", before, 1), ["10-04T04:00+11:00"]);
    assert_eq!(
        due("30 * * * *", "America/New_York", "2026-11-01T05:00:00Z", 3),
        ["11-01T01:30-04:00", "11-01T01:30-05:00", "11-01T02:30-05:00"]
    );
}

#[test]
fn a_calendar_event_is_not_due_at_a_skipped_time_and_once_at_a_repeated_one() {
    let spring = "2026-03-28T12:00:00Z";
    assert_eq!(due("02:30 Europe/Berlin", "UTC", spring, 1), ["03-30T02:30+02:00"]);
    assert_eq!(
        due("*:0/30 Europe/Berlin", "UTC", "2026-10-25T00:10:00Z", 3),
        ["10-25T02:30+02:00", "10-25T03:00+01:00", "10-25T03:30+01:00"]
    );
    assert_eq!(due("*:0/30 Europe/Berlin", "UTC", "2026-10-25T01:10:00Z", 1), ["10-25T03:00+01:00"]);
}

#[test]
fn a_zone_may_skip_a_day_and_set_its_clocks_more_than_twice_a_year() {
    // There was no 2011-12-30 in Samoa.
    let samoa = "2011-12-29T12:00:00Z";
    assert_eq!(due("30 2 * * *", "Pacific/Apia", samoa, 2), ["12-29T02:30-10:00", "12-31T02:30+14:00"]);
    assert_eq!(due("02:30 Pacific/Apia", "UTC", samoa, 2), ["12-29T02:30-10:00", "12-31T02:30+14:00"]);
    // In Morocco the clocks go back for Ramadan, and forward after it.
    assert_eq!(
        due("30 2 * * *", "Africa/Casablanca", "2026-02-14T12:00:00Z", 2),
        ["02-15T02:30+01:00", "02-16T02:30+00:00"]
    );
    assert_eq!(
        due("30 2 * * *", "Africa/Casablanca", "2026-03-21T12:00:00Z", 2),
        ["03-22T03:00+01:00", "03-23T02:30+01:00"]
    );
}

#[test]
fn days_of_the_month_and_of_the_week_are_joined_as_in_debians_cron() {
    let utc = |text, count| due(text, "UTC", "2026-11-01T00:00:00Z", count);
    assert_eq!(utc("0 0 13 * 5", 3), ["11-06T00:00+00:00", "11-13T00:00+00:00", "11-20T00:00+00:00"]);
    assert_eq!(utc("0 0 */2 * 5", 3), ["11-13T00:00+00:00", "11-27T00:00+00:00", "12-11T00:00+00:00"]);
    assert_eq!(utc("0 0 13 * *", 2), ["11-13T00:00+00:00", "12-13T00:00+00:00"]);
    assert_eq!(utc("0 0 * * fri-sun", 3), ["11-06T00:00+00:00", "11-07T00:00+00:00", "11-08T00:00+00:00"]);
    assert_eq!(utc("0 0 ? * 7", 1), ["11-08T00:00+00:00"]);
}

#[test]
fn the_last_day_of_december_is_a_last_day() {
    let utc = |text| due(text, "UTC", "2026-12-20T00:00:00Z", 2);
    assert_eq!(utc("0 0 L * *"), ["12-31T00:00+00:00", "01-31T00:00+00:00"]);
    assert_eq!(utc("0 0 LW * *"), ["12-31T00:00+00:00", "01-29T00:00+00:00"]);
    assert_eq!(utc("0 0 * * 5L"), ["12-25T00:00+00:00", "01-29T00:00+00:00"]);
    assert_eq!(utc("0 0 * * Fri#5"), ["01-29T00:00+00:00", "04-30T00:00+00:00"]);
    assert_eq!(utc("0 0 26W * *"), ["12-25T00:00+00:00", "01-26T00:00+00:00"]);
    assert_eq!(utc("*~1"), ["12-31T00:00+00:00", "01-31T00:00+00:00"]);
}

#[test]
fn days_from_the_end_of_a_month_are_counted_as_in_systemd() {
    let utc = |text, count| due(text, "UTC", "2026-01-31T12:00:00Z", count);
    assert_eq!(utc("*-02~03", 1), ["02-26T00:00+00:00"]);
    assert_eq!(utc("Mon *-05~07/1", 1), ["05-25T00:00+00:00"]);
    // A range is counted from its first value, and a value alone on to the last day.
    assert_eq!(utc("*-*~3..8/4", 3), ["02-22T00:00+00:00", "02-26T00:00+00:00", "03-25T00:00+00:00"]);
    assert_eq!(utc("*-*~8/4", 3), ["02-21T00:00+00:00", "02-25T00:00+00:00", "03-24T00:00+00:00"]);
}

#[test]
fn what_is_never_due_again_is_said_and_takes_no_time_to_find_out() {
    for text in ["0 0 30 2 *", "2026-02-30", "2025-*-* 10:00", "*-02~30"] {
        assert_eq!(schedule(text, "Europe/Berlin").next_after(wall("2026-01-01T00:00:00Z")), None, "{text}");
    }
    assert_eq!(due("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", 1), ["02-29T00:00+00:00"]);
    let last = wall("2199-12-31T23:59:00Z");
    assert_eq!(schedule("* * * * *", "UTC").next_after(last), None);
    assert_eq!(schedule("1d", "UTC").next_after(last), None);
}

#[test]
fn words_stand_for_what_they_stand_for_in_systemd_and_in_cron() {
    for (word, long) in [
        ("minutely", "*-*-* *:*:00"),
        ("hourly", "*:00"),
        ("weekly UTC", "Mon 0:0"),
        ("monthly", "*-1"),
        ("quarterly", "*-1/3-1"),
        ("semiannually", "*-1,7-1"),
        ("Annually", "1-1"),
        ("@hourly", "0 * * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * sun"),
        ("@monthly", "0 0 1 * *"),
        ("@annually", "0 0 1 jan *"),
        ("Wed, 17:48", "wednesday..WED *-* 17:48:00"),
    ] {
        assert_eq!(due(word, "UTC", "2026-01-05T06:07:08Z", 4), due(long, "UTC", "2026-01-05T06:07:08Z", 4));
    }
}

#[test]
fn what_is_no_schedule_is_refused_with_the_part_that_is_wrong() {
    for (text, part, fault) in [
        ("61 * * * *", "61", "minutes are 0 to 59"),
        ("* 24 * * *", "24", "hours are 0 to 23"),
        ("* * 0 * *", "0", "days of the month are 1 to 31"),
        ("* * * foo *", "foo", "months are 1 to 12, or jan to dec"),
        ("* * * * 8", "8", "days of the week are 0 to 7, or sun to sat"),
        ("* * mon * *", "mon", "days of the month are 1 to 31"),
        ("* * * mon *", "mon", "months are 1 to 12, or jan to dec"),
        ("* * * janfeb *", "janfeb", "months are 1 to 12, or jan to dec"),
        ("1,,2 * * * *", "", "minutes are 0 to 59"),
        ("1+1 * * * *", "1+1", "minutes are 0 to 59"),
        ("5/15 * * * *", "5/15", "a step follows a range or `*`, as in */5 or 5-59/5"),
        ("*/0 * * * *", "*/0", "a step of minutes is 1 to 59"),
        ("*/2/3 * * * *", "*/2/3", "a step of minutes is 1 to 59"),
        ("9-5 * * * *", "9-5", "a range begins with the lesser of its ends"),
        ("* * * * L", "L", "days of the week are 0 to 7, or sun to sat"),
        ("* * * * +1", "+1", "days of the week are 0 to 7, or sun to sat"),
        ("* * * * mon#6", "mon#6", "days of the week are 0 to 7, or sun to sat"),
        ("? * * * *", "?", "minutes are 0 to 59"),
        ("@reboot", "@reboot", "what starts with the host is due at no time of the clock"),
        (
            "* * * * * * 2026",
            "* * * * * * 2026",
            "an expression of cron has 5 fields, or 6 with seconds in front, and this has 7",
        ),
        ("25:00", "25", "hours are 0 to 23, or `*` alone for all of them"),
        ("*:60", "60", "minutes are 0 to 59, or `*` alone for all of them"),
        ("*:*/2", "*/2", "minutes are 0 to 59, or `*` alone for all of them"),
        ("*:0/60", "0/60", "a repetition of minutes is 1 or more, and stays within 0 to 59"),
        ("*:10..20/15", "10..20/15", "a repetition of minutes is 1 or more, and stays within 10 to 20"),
        ("8:00:00.5", "00.5", "seconds are 0 to 59, or `*` alone for all of them"),
        ("2300-1-1", "2300", "years are 1970 to 2199, or `*` alone for all of them"),
        ("*-13-1", "13", "months are 1 to 12, or `*` alone for all of them"),
        ("*-*-0", "0", "days are 1 to 31, or `*` alone for all of them"),
        ("1-1-1-1", "1-1-1-1", "a date is YEAR-MONTH-DAY or MONTH-DAY, or with ~ for - before the day"),
        ("5", "5", "a date is YEAR-MONTH-DAY or MONTH-DAY, or with ~ for - before the day"),
        ("1:2:3:4", "1:2:3:4", "a time is HOUR:MINUTE or HOUR:MINUTE:SECOND"),
        ("Sat..Mon", "Sat..Mon", "a range of days runs from Mon to Sun"),
        (
            "10:00 Mars/Base",
            "Mars/Base",
            "is no time zone, which stands last; write one as in Europe/Berlin, or UTC",
        ),
        (
            "dayly",
            "dayly",
            "is no day of the week; write them as in Mon..Fri or Sat,Sun, or a word such as daily, weekly",
        ),
    ] {
        let error = Schedule::parse(text, &TimeZone::utc(), named).unwrap_err();
        assert_eq!((error.part(), error.fault()), (part, fault), "{text}");
    }
    assert!(fault("").contains("neither a duration"), "{}", fault(""));
    let long = fault(&"*".repeat(256));
    assert!(long.contains("at most 255 bytes") && long.len() < 100, "{long}");
}

#[test]
fn a_schedule_is_known_by_its_text_and_its_zone() {
    assert_eq!(schedule("0 2 * * *", "UTC"), schedule(" 0 2 * * * ", "UTC"));
    assert_ne!(schedule("0 2 * * *", "UTC"), schedule("0 2 * * *", "Europe/Berlin"));
    assert_eq!(schedule("02:00 Europe/Berlin", "UTC"), schedule("02:00 Europe/Berlin", "America/New_York"));
    assert_eq!(schedule("0 2 * * *", "UTC").text(), "0 2 * * *");
}

proptest! {
    #[test]
    fn any_text_is_answered_and_what_is_due_is_later(text in "[-*/,.:~@#?0-9LWa-fmot ]{0,40}", at in 0i64..7_000_000_000) {
        let zone = named("America/New_York").unwrap();
        if let Ok(schedule) = Schedule::parse(&text, &zone, named) {
            let at = WallTime::from_seconds(at);
            if let Some(due) = schedule.next_after(at) {
                prop_assert!(due > at);
                // Nothing is due between the two.
                let before = due.before(Duration::from_secs(1));
                if schedule.kind() != ScheduleKind::Interval && before > at {
                    prop_assert_eq!(schedule.next_after(before), Some(due));
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_answered(text in "\\PC{0,60}") {
        let _: Result<Schedule, ScheduleError> = Schedule::parse(&text, &TimeZone::utc(), named);
    }
}

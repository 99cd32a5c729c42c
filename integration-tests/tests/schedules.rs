//! A year of schedules, against other programs that know when they are due.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use varta_integration_tests::{foreign, run_to_its_end, server_command};
use varta_server::schedule::{Schedule, TimeZone};
use varta_server::time::WallTime;

/// 2026-01-01 00:00:00 UTC.
const START: u64 = 1_767_225_600;
const YEAR: u64 = 366 * 86_400;

/// Zones, each with a moment two or three hours before each change of its clocks: by an hour in spring and autumn; for
/// Ramadan; and by half an hour.
const ZONES: [(&str, [u64; 2]); 4] = [
    // 2026-03-28 23:00 and 2026-10-24 23:00 UTC.
    ("Europe/Berlin", [1_774_738_800, 1_792_882_800]),
    // 2026-03-08 04:00 and 2026-11-01 04:00 UTC.
    ("America/New_York", [1_772_942_400, 1_793_505_600]),
    // 2026-02-15 00:00 and 2026-03-22 00:00 UTC.
    ("Africa/Casablanca", [1_771_113_600, 1_774_137_600]),
    // 2026-04-04 13:00 and 2026-10-03 13:00 UTC.
    ("Australia/Lord_Howe", [1_775_307_600, 1_791_032_400]),
];

fn schedule(text: &str, zone: &str) -> Schedule {
    let named = |name: &str| TimeZone::named(name).ok();
    Schedule::parse(text, &named(zone).unwrap(), named).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The Unix times at which a schedule is due after a moment, within a year of the start and no more than `most`.
fn due(text: &str, zone: &str, after: u64, most: usize) -> Vec<u64> {
    let schedule = schedule(text, zone);
    let mut at = WallTime::from(UNIX_EPOCH + Duration::from_secs(after));
    let times = std::iter::from_fn(|| {
        at = schedule.next_after(at)?;
        Some(SystemTime::from(at).duration_since(UNIX_EPOCH).unwrap().as_secs())
    });
    times.take_while(|time| *time <= START + YEAR).take(most).collect()
}

/// Expressions of cron: each time of the day on each set of days.
fn expressions() -> Vec<String> {
    let times = [
        "0 *",
        "*/20 *",
        "7-59/13 */4",
        "15,45 */4",
        "*/20 1-3",
        "30 2",
        "0 2",
        "15,45 1-3",
        "30 1",
        "0 0,12,23",
        "59 2,14",
        "1-7/2 3",
        "30 3",
        "0 0",
        "10 0-23/6",
    ];
    let days = [
        "* * *",
        "1 * *",
        "L * *",
        "LW * *",
        "*/7 * *",
        "13 * 5",
        "* * 1-5",
        "31 * *",
        "29 2 *",
        "* 3,10 0",
        "* * 5L",
        "* * 1#2",
        "* jan-mar,oct sun",
        "1-31/2 * 0,6",
        "*/2 * */3",
    ];
    let all = times.iter().flat_map(|time| days.map(|day| (*time, day)));
    // What is due each hour is compared on a few of the sets of days, for the time that it takes.
    let few = all.filter(|(time, day)| {
        !time.ends_with('*') || matches!(*day, "L * *" | "13 * 5" | "* * 5L" | "29 2 *")
    });
    few.map(|(time, day)| format!("{time} {day}")).collect()
}

#[test]
fn a_year_of_cron_is_that_of_cronsim_in_zones_whose_clocks_are_set() {
    let Some(mut python) = foreign::command("venv/bin/python") else { return };
    let expressions = expressions();
    assert!(expressions.len() > 200, "{}", expressions.len());
    let mut cases = Vec::new();
    for (zone, _) in ZONES {
        for text in &expressions {
            // cronsim walks whole hours, and passes over times after a clock was set by half of one.
            let walks =
                zone == "Australia/Lord_Howe" && text.split(' ').take(2).any(|field| field.starts_with('*'));
            if !walks {
                cases.push((zone, text));
            }
        }
    }
    let mut input = String::new();
    for (zone, text) in &cases {
        input += &format!("{zone}\t{START}\t{}\t{text}\n", START + YEAR);
    }
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/src/cron_times.py"));
    let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    let output = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.lines().count(), cases.len());
    let mut count = 0;
    for ((zone, text), line) in cases.iter().zip(output.lines()) {
        let theirs: Vec<u64> =
            line.split(' ').filter(|time| !time.is_empty()).map(|time| time.parse().unwrap()).collect();
        assert_same(&format!("`{text}` in {zone}"), &due(text, zone, START, usize::MAX), &theirs);
        count += theirs.len();
    }
    assert!(count > 100_000, "only {count} times were compared");
}

fn assert_same(what: &str, ours: &[u64], theirs: &[u64]) {
    let differs = ours.iter().zip(theirs).find(|(ours, theirs)| ours != theirs);
    assert!(
        differs.is_none() && ours.len() == theirs.len(),
        "{what}: first of ours and theirs {differs:?}, {} and {}",
        ours.len(),
        theirs.len()
    );
}

/// Calendar events. The repetitions divide what they repeat: systemd 252 leaves out the midnight after others.
const EVENTS: [&str; 60] = [
    "hourly",
    "daily",
    "weekly",
    "monthly",
    "quarterly",
    "semiannually",
    "yearly",
    "02:30",
    "01:30",
    "02:15",
    "00:00",
    "23:59",
    "*:0/15",
    "*:05",
    "*:*:0/30",
    "0/3:10",
    "0..23/4:20",
    "2..3:0,30",
    "Mon..Fri 02:30",
    "Sat,Sun 08:05:40",
    "Mon..Wed,Sat *:5",
    "Fri 23:00",
    "tuesday 4:4:4",
    "Sun *-*-* 02:00",
    "Sun *-*-* 03:00",
    "*-*-1/2 04:00",
    "*-*-1/5",
    "*-*-29,30,31 23:59:59",
    "*-*-1..7",
    "Mon *-*-1..7 10:00",
    "*-*~1",
    "*-*~2",
    "*-*~1..3 00:30",
    "*-*~7/2",
    "*-*~9..20/4",
    "*-*~9..20/3 1:00",
    "Mon *-*~7/1 02:30",
    "*-02~03",
    "*-05~07/1",
    "*~1",
    "*-02-29",
    "*-2-28..29",
    "Wed *-1",
    "Fri *-*-13",
    "*-03,10-25..31 0..3:30",
    "*-1/2-1,3 *:30:45",
    "*-6/3-15",
    "10-25 02:30",
    "3-29 02:30",
    "*-4-5 1:45",
    "*-10-4 2:15",
    "2026-*-01",
    "2026..2028/2-06-01",
    "26-12-24 18:00",
    "2024,2026-7-1",
    "12,14,13,12:20,10,30",
    "8..18/2:30",
    "*-*-* 1..3:59:59",
    "6:0..30/10",
    "*-*-28..31/3 12:00",
];

#[test]
fn a_year_of_calendar_events_is_that_of_systemd_in_zones_whose_clocks_are_set() {
    if !std::path::Path::new("/usr/bin/systemd-analyze").exists() {
        foreign::skip("systemd-analyze is not there");
        assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "systemd-analyze is not there");
        return;
    }
    for (zone, changes) in ZONES {
        // Where clocks are set back for Ramadan, systemd passes over times after the skipped hour.
        let agreed = EVENTS.iter().filter(|event| zone != "Africa/Casablanca" || !event.starts_with("2..3:"));
        let texts: Vec<String> = agreed.map(|event| format!("{event} {zone}")).collect();
        for after in [START, changes[0], changes[1]] {
            let mut command = Command::new("systemd-analyze");
            command.env("TZ", "UTC").env("LC_ALL", "C");
            command.args(["calendar", "--iterations=24", &format!("--base-time=@{after}")]).args(&texts);
            let output = command.output().unwrap();
            let printed = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let blocks: Vec<&str> = printed.split("Normalized form:").skip(1).collect();
            assert_eq!(blocks.len(), texts.len());
            for (text, block) in texts.iter().zip(blocks) {
                let theirs: Vec<u64> =
                    block.lines().filter_map(elapse).filter(|time| *time <= START + YEAR).collect();
                assert_same(text, &due(text, "UTC", after, theirs.len().max(1)), &theirs);
            }
        }
    }
}

/// The Unix time of a line such as `  Iter. #2: Sun 2026-03-29 01:00:00 UTC`.
fn elapse(line: &str) -> Option<u64> {
    let (head, moment) = line.split_once(": ")?;
    let head = head.trim_start();
    if head != "Next elapse" && !head.starts_with("Iter. #") {
        return None;
    }
    let (_, moment) = moment.split_once(' ')?;
    let moment = moment.strip_suffix(" UTC")?.replace(' ', "T") + "Z";
    let moment = humantime::parse_rfc3339(&moment).unwrap();
    Some(moment.duration_since(UNIX_EPOCH).unwrap().as_secs())
}

#[test]
fn the_times_of_a_schedule_are_printed_with_their_offsets() {
    let print = |arguments: &[&str]| {
        let mut command = server_command();
        command.arg("schedule").args(arguments).args(["--after", "2026-03-28T00:00:00Z"]);
        let ended = run_to_its_end(command);
        (ended.status.code(), ended.stdout, ended.stderr)
    };
    let printed = "# an expression of cron, in Europe/Berlin\n\
                   2026-03-28T02:30:00+01:00 Sat\n\
                   2026-03-29T03:00:00+02:00 Sun\n";
    let shown = print(&["30 2 * * *", "--timezone", "Europe/Berlin", "--next", "2"]);
    assert_eq!(shown, (Some(0), printed.to_owned(), String::new()));
    let never = "# a calendar event, in UTC\nnever\n";
    assert_eq!(print(&["2025-1-1 UTC"]), (Some(1), never.to_owned(), String::new()));
    let (status, _, fault) = print(&["61 * * * *"]);
    assert_eq!((status, fault.trim_end()), (Some(2), "varta-server: SCHEDULE: `61`: minutes are 0 to 59"));
    let (status, _, fault) = print(&["daily", "--timezone", "Mars/Base"]);
    assert_eq!(status, Some(2));
    assert!(fault.contains("--timezone: `Mars/Base` is no time zone"), "{fault}");
}

#[test]
fn without_a_time_zone_that_of_the_host_counts() {
    let print = |zone: Option<&str>| {
        let mut command = server_command();
        match zone {
            Some(zone) => command.env("TZ", zone),
            None => command.env_remove("TZ"),
        };
        command.args(["schedule", "12:00", "--next", "1", "--after", "2026-07-01T00:00:00Z"]);
        run_to_its_end(command)
    };
    assert!(print(Some("America/New_York")).stdout.contains("2026-07-01T12:00:00-04:00 Wed"));
    assert!(print(Some(":Asia/Kolkata")).stdout.contains("2026-07-01T12:00:00+05:30 Wed"));
    assert_eq!(print(None).status.code(), Some(0));
    let wrong = print(Some("Mars/Base"));
    assert_eq!(wrong.status.code(), Some(2));
    assert!(wrong.stderr.contains("TZ: `Mars/Base` is no time zone"), "{wrong:?}");
}

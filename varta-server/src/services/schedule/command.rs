//! The task that prints due times.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::base::clock::wall_now;
use crate::base::error::Error;
use crate::base::stdout::print;
use crate::base::time::WallTime;
use crate::base::time_zone::TimeZone;
use crate::domain::schedule::{Schedule, ScheduleKind};

/// What can be done with a schedule.
#[derive(Clone, Debug, Subcommand)]
#[non_exhaustive]
pub enum ScheduleTask {
    /// Print when a schedule is due next
    ///
    /// A schedule is a duration (1d, every 90m), an expression of cron (30 2 * * Mon-Fri, @daily), or a calendar event as
    /// timers of systemd have it (Mon..Fri 02:30 Europe/Berlin, daily). docs/SCHEDULES.md has all of it.
    ///
    /// Each line is a moment with its offset from UTC, and its day of the week.
    ///
    /// Exit status: 0 if there is a next time; 1 if there is none before the year 2200; 2 if it is no schedule.
    Schedule(ScheduleArgs),
}

/// Which schedule, and which of its times.
#[derive(Clone, Debug, Args)]
pub struct ScheduleArgs {
    /// The schedule, as one argument
    #[arg(value_name = "SCHEDULE")]
    pub schedule: String,

    /// Time zone, as in Europe/Berlin; by default that of this host
    #[arg(long, value_name = "ZONE")]
    pub timezone: Option<String>,

    /// How many times to print
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub next: u32,

    /// Moment after which to begin, as in 2026-03-28T12:00:00Z; by default now
    ///
    /// An interval counts from here.
    #[arg(long, value_name = "TIME", value_parser = WallTime::parse)]
    pub after: Option<WallTime>,
}

impl ScheduleTask {
    /// Runs the task, and prints its result. Gives the exit status of the program.
    ///
    /// # Errors
    ///
    /// The text is no schedule, or the output cannot be written.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let ScheduleTask::Schedule(args) = self;
        let zone = match &args.timezone {
            Some(name) => TimeZone::named(name),
            None => TimeZone::of_host(),
        };
        let option = if args.timezone.is_some() { "--timezone" } else { "TZ" };
        let zone = zone.map_err(|error| Error::Option { option, fault: error.to_string() })?;
        let schedule = Schedule::parse(&args.schedule, &zone, |name| TimeZone::named(name).ok())
            .map_err(|error| Error::Option { option: "SCHEDULE", fault: error.to_string() })?;
        let zone = schedule.zone().unwrap_or(&zone);
        let form = match schedule.kind() {
            ScheduleKind::Interval => "an interval".to_owned(),
            ScheduleKind::Cron => format!("an expression of cron, in {zone}"),
            ScheduleKind::Calendar => format!("a calendar event, in {zone}"),
        };
        let mut text = format!("# {form}\n");
        let mut at = args.after.unwrap_or_else(|| WallTime::from(wall_now()));
        let times = std::iter::from_fn(|| {
            at = schedule.next_after(at)?;
            Some(at.as_seconds())
        });
        let mut count = 0;
        for due in times.take(usize::try_from(args.next).unwrap_or(usize::MAX)) {
            text += &format!("{} {}\n", zone.rfc3339(due), zone.weekday(due));
            count += 1;
        }
        if count == 0 {
            text += "never\n";
        }
        print(&text)?;
        Ok(if count == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

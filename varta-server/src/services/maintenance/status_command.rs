//! The command `status`: how a running server and its agents are, for a person and for scripts.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use crate::base::error::Error;
use crate::base::stdout::print;
use crate::base::visible::visible_lines;
use crate::domain::tracker::Verdict;
use crate::services::maintenance::command::ControlArgs;
use crate::services::maintenance::protocol::Request;

/// The exit status where something is wrong.
const IN_ALARM: u8 = 1;
/// The same where that cannot be told.
const UNKNOWN: u8 = 2;

/// The most jobs that are shown to a person.
const SHOWN_JOBS: usize = 20;

/// How the status is shown.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    /// Which server is asked.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// What is shown of an answer.
#[derive(Debug, Deserialize)]
struct Report {
    version: String,
    host: String,
    pid: u32,
    uptime_ms: u64,
    ready: bool,
    faults: Vec<String>,
    /// How many, by state.
    agents: serde_json::Map<String, Value>,
    pauses: u64,
    #[serde(default)]
    jobs_in_all: u64,
    /// Those that are late first, then those that are due next.
    #[serde(default)]
    jobs: Vec<ReportedJob>,
    alarms_in_all: u64,
    alarms: Vec<ReportedAlarm>,
}

#[derive(Debug, Deserialize)]
struct ReportedAlarm {
    problem: String,
    since: Option<String>,
    summary: String,
    paused: bool,
    acknowledged: bool,
}

#[derive(Debug, Deserialize)]
struct ReportedJob {
    name: String,
    late_since: Option<String>,
    next_due: Option<String>,
    running: u64,
    running_since: Option<String>,
    last_end: Option<String>,
    last_success: Option<String>,
    last_duration_ms: Option<u64>,
}

impl ReportedJob {
    /// A line for a person.
    fn text(&self) -> String {
        let Self { name, late_since, next_due, running, running_since, last_end, last_success, .. } = self;
        let mut parts = Vec::new();
        if let Some(since) = late_since {
            parts.push(format!("late since {since}"));
        }
        match (running, running_since) {
            (1, Some(since)) => parts.push(format!("running since {since}")),
            (runs, Some(since)) => parts.push(format!("{runs} runs since {since}")),
            (_, None) => {}
        }
        if let Some(due) = next_due {
            parts.push(format!("next due {due}"));
        }
        parts.push(match last_end {
            None => "has not ended yet".to_owned(),
            Some(end) => {
                let how = if last_success == last_end { "well" } else { "with a failure" };
                let took = self.last_duration_ms.map(|took| {
                    format!(" after {}", humantime::format_duration(Duration::from_millis(took)))
                });
                format!("last ended {how} {end}{}", took.unwrap_or_default())
            }
        });
        format!("job {name}: {}", parts.join(", "))
    }
}

impl StatusArgs {
    /// Asks for the status, and prints it. Gives the exit status: 0 if all is well, 1 if an agent that is not paused
    /// is in alarm or a part of the server does not work, 2 if no server answers.
    ///
    /// # Errors
    ///
    /// When the answer cannot be printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let answered =
            self.control.ask(&Request::Status).map_err(|error| error.to_string()).and_then(|answer| {
                let status = answer.status.ok_or_else(|| "the server does not say how it is".to_owned())?;
                let report = Report::deserialize(&status).map_err(|fault| {
                    format!("the answer makes no sense: {fault}; is this the server's version?")
                })?;
                Ok((status, report))
            });
        let (status, report) = match answered {
            Ok(answered) => answered,
            Err(fault) => {
                // Whether anybody can hear it makes no difference.
                let _ = writeln!(io::stderr(), "varta-server: {fault}");
                return Ok(ExitCode::from(UNKNOWN));
            }
        };
        print(&if self.json { format!("{status}\n") } else { report.text() })?;
        Ok(if report.is_well() { ExitCode::SUCCESS } else { ExitCode::from(IN_ALARM) })
    }
}

impl Report {
    /// Whether nobody need look.
    fn is_well(&self) -> bool {
        // The listed ones are the worst, and not all that are paused need be among them.
        let is_all_paused = self.alarms.iter().all(|alarm| alarm.paused) && !self.is_cut();
        self.ready && self.faults.is_empty() && is_all_paused
    }

    /// Whether there are more alarms than are listed.
    fn is_cut(&self) -> bool {
        self.alarms_in_all > self.alarms.len() as u64
    }

    /// The status as lines for a person.
    fn text(&self) -> String {
        let Report { version, host, pid, uptime_ms, ready, faults, agents, pauses, alarms, .. } = self;
        let uptime = humantime::format_duration(Duration::from_secs(uptime_ms / 1_000));
        let readiness = if *ready { "ready" } else { "not ready" };
        let mut lines =
            vec![format!("varta-server {version} on {host}, pid {pid}, for {uptime}: {readiness}")];
        lines.extend(faults.iter().map(|fault| format!("does not work: {fault}")));
        let counts = Verdict::NAMES.iter().filter_map(|state| Some((state, agents.get(*state)?.as_u64()?)));
        let by_state: Vec<_> = counts
            .clone()
            .filter(|(_, count)| *count > 0)
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        lines.push(match counts.map(|(_, count)| count).sum::<u64>() {
            0 => "no agents".to_owned(),
            1 => format!("1 agent: {}", by_state.join(", ")),
            all => format!("{all} agents: {}", by_state.join(", ")),
        });
        lines.extend(self.jobs.iter().take(SHOWN_JOBS).map(ReportedJob::text));
        let shown = self.jobs.len().min(SHOWN_JOBS) as u64;
        if self.jobs_in_all > shown {
            lines.push(format!("and {} more jobs, due later; --json lists them", self.jobs_in_all - shown));
        }
        match pauses {
            0 => {}
            1 => lines.push("1 pause is in force".to_owned()),
            pauses => lines.push(format!("{pauses} pauses are in force")),
        }
        if alarms.is_empty() {
            lines.push("nobody is in alarm".to_owned());
        }
        for ReportedAlarm { problem, since, summary, paused, acknowledged } in alarms {
            let since = since.as_ref().map_or_else(String::new, |since| format!(" since {since}"));
            let marks = [(*paused, " (paused)"), (*acknowledged, " (acknowledged)")];
            let marks: String = marks.into_iter().filter_map(|(is_so, mark)| is_so.then_some(mark)).collect();
            lines.push(format!("{problem}{since}{marks}: {summary}"));
        }
        if self.is_cut() {
            lines.push(format!("and {} more in alarm", self.alarms_in_all - alarms.len() as u64));
        }
        lines.iter().map(|line| format!("{}\n", visible_lines(line))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(change: impl FnOnce(&mut Value)) -> Report {
        let mut status = json!({
            "version": "1.2.3", "host": "web-1", "pid": 4711, "uptime_ms": 90_061_500, "ready": true, "faults": [],
            "agents": { "up": 10, "stalled": 1, "down": 0 }, "pauses": 0, "alarms_in_all": 0, "alarms": [],
        });
        change(&mut status);
        Report::deserialize(&status).unwrap()
    }

    fn alarm(paused: bool) -> Value {
        json!({
            "problem": "down", "since": "2026-11-23T16:00:00Z", "summary": "a[1] went\u{1b}[2J", "paused": paused,
            "acknowledged": true, "agent": "a",
        })
    }

    #[test]
    fn a_person_reads_who_is_in_alarm_and_no_agent_can_write_on_the_terminal() {
        let text = report(|status| {
            status["alarms"] = json!([alarm(true)]);
            status["alarms_in_all"] = json!(3);
            status["pauses"] = json!(2);
            status["faults"] = json!(["state: /x: no room"]);
            let end = "2026-11-29T04:10:00Z";
            let late = json!({
                "name": "backup", "late_since": "2026-11-30T04:00:00Z", "next_due": "2026-12-01T04:00:00Z", "running": 0,
                "last_end": end, "last_success": end, "last_duration_ms": 600_000,
            });
            let runs = json!({
                "name": "mail", "next_due": "2026-12-01T04:00:00Z", "running": 2, "running_since": end, "last_end": end,
            });
            let mut jobs = vec![late, runs];
            jobs.resize(25, json!({ "name": "new", "running": 0 }));
            status["jobs"] = json!(jobs);
            status["jobs_in_all"] = json!(600);
        })
        .text();
        let expected = "\
varta-server 1.2.3 on web-1, pid 4711, for 1day 1h 1m 1s: ready
does not work: state: /x: no room
11 agents: 10 up, 1 stalled
job backup: late since 2026-11-30T04:00:00Z, next due 2026-12-01T04:00:00Z, last ended well 2026-11-29T04:10:00Z after 10m
job mail: 2 runs since 2026-11-29T04:10:00Z, next due 2026-12-01T04:00:00Z, last ended with a failure 2026-11-29T04:10:00Z
JOBS
and 580 more jobs, due later; --json lists them
2 pauses are in force
down since 2026-11-23T16:00:00Z (paused) (acknowledged): a[1] went?[2J
and 2 more in alarm
";
        let expected = expected.replace("JOBS", &["job new: has not ended yet"; 18].join("\n"));
        assert_eq!(text, expected);
        let well = report(|status| status["agents"] = json!({})).text();
        assert!(well.ends_with("ready\nno agents\nnobody is in alarm\n"), "{well}");
    }

    #[test]
    fn all_is_well_without_faults_and_alarms_that_are_not_paused() {
        assert!(report(|_| {}).is_well());
        let wrong: [&dyn Fn(&mut Value); 4] = [
            &|status| status["ready"] = json!(false),
            &|status| status["faults"] = json!(["audit: …"]),
            &|status| {
                status["alarms"] = json!([alarm(true), alarm(false)]);
                status["alarms_in_all"] = json!(2);
            },
            &|status| {
                status["alarms"] = json!([alarm(true)]);
                status["alarms_in_all"] = json!(2);
            },
        ];
        for change in wrong {
            assert!(!report(change).is_well());
        }
        let paused = report(|status| {
            status["alarms"] = json!([alarm(true)]);
            status["alarms_in_all"] = json!(1);
        });
        assert!(paused.is_well());
    }
}

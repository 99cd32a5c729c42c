//! The report of a replay, as text and as JSON.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};
use std::{fmt, io};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

use crate::base::error::Error;
use crate::domain::tracker::Policy;
use crate::domain::tracker::arrival::{ArrivalPolicy, Bounds, Kind, Phi};
use crate::services::recording::findings::{Findings, Mistaken};
use crate::services::recording::plot::Plot;
use crate::services::recording::plot_data::PlotData;

/// The most agents listed by name.
const NAMED: usize = 10;
const SECONDS_PER_DAY: f64 = 86_400.0;

/// The contents of a recording, which do not depend on the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) records: u64,
    pub(super) beats: u64,
    pub(super) losses: u64,
    pub(super) blindnesses: u64,
    pub(super) blind: Duration,
    /// Records that did not fit the queue.
    pub(super) dropped: u64,
    /// The Unix time of the first record, in nanoseconds.
    pub(super) unix_first: u64,
    /// The time from the first to the last record.
    pub(super) span: Duration,
    /// The length of an incomplete last record, in bytes.
    pub(super) torn: u64,
}

/// The verdicts of a policy over a recording. [`Display`](fmt::Display) renders it as text.
#[derive(Debug)]
pub struct Report {
    path: PathBuf,
    stall_after: Duration,
    arrival: ArrivalPolicy,
    recorded: Recorded,
    found: Findings,
}

impl Report {
    pub(super) fn new(path: PathBuf, policy: &Policy, recorded: Recorded, mut found: Findings) -> Self {
        // Most false positives first; among equals the longest first.
        found.mistaken.sort_by(|one, other| {
            let order = |row: &Mistaken| (row.mistakes, row.longest);
            order(other).cmp(&order(one)).then_with(|| one.agent.cmp(&other.agent))
        });
        found.mistaken.truncate(NAMED);
        Report { path, stall_after: policy.stall_after, arrival: policy.arrival, recorded, found }
    }

    /// The picture of it, from what the replay has gathered for that.
    ///
    /// # Errors
    ///
    /// It cannot be drawn.
    pub(super) fn plot(&self, data: &PlotData) -> Result<String, Error> {
        let Findings { detection, mistakes, .. } = &self.found;
        let (policy, span) = (self.policy(), self.recorded.span);
        let plot = Plot { data, detection, mistakes: mistakes.count(), policy: &policy, span };
        let failed = |fault| Error::Runtime { action: "draw the picture", source: io::Error::other(fault) };
        plot.to_svg().map_err(failed)
    }

    /// False positives for each agent and day of uptime; `None` without uptime.
    fn mistakes_per_agent_and_day(&self) -> Option<f64> {
        let days = self.found.up_nanos as f64 / 1e9 / SECONDS_PER_DAY;
        (days > 0.0).then(|| self.found.mistakes.count() as f64 / days)
    }

    fn policy(&self) -> String {
        let ArrivalPolicy { kind, shortest, longest } = self.arrival;
        let time = humantime::format_duration;
        let fixed = time(self.stall_after);
        let learned = |rule: String| {
            let (shortest, longest) = (time(shortest), time(longest));
            format!("{rule}; between {shortest} and {longest}, and {fixed} where nothing is learned")
        };
        match kind {
            Kind::Fixed => format!("fixed, {fixed} for all that ask for nothing else"),
            Kind::Phi(Phi { threshold, acceptable_pause, min_deviation }) => {
                let (pause, deviation) = (time(acceptable_pause), time(min_deviation));
                learned(format!("phi, threshold {threshold}, pause {pause}, deviation at least {deviation}"))
            }
            Kind::Chen(Bounds { detect_within, mistake_every, corrected_within }) => {
                let bounds = [
                    ("a mistake every", mistake_every),
                    ("found out within", detect_within),
                    ("corrected within", corrected_within),
                ];
                let bounds =
                    bounds.iter().filter_map(|(what, bound)| Some(format!("{what} {}", time((*bound)?))));
                learned(format!("chen, {}", bounds.collect::<Vec<_>>().join(", ")))
            }
        }
    }

    /// One JSON object on one line, with times in seconds; undefined values are `null`.
    #[must_use]
    pub fn to_json(&self) -> String {
        ReportJson::from(self).to_line()
    }
}

#[derive(Serialize)]
struct ReportJson<'r> {
    file: Cow<'r, str>,
    policy: String,
    recorded: RecordedJson,
    detection_seconds: DetectionJson,
    verdicts: VerdictsJson,
    mistakes: MistakesJson<'r>,
}

impl<'r> From<&'r Report> for ReportJson<'r> {
    fn from(report: &'r Report) -> Self {
        let Recorded { records, beats, losses, blindnesses, blind, dropped, unix_first, span, torn } =
            report.recorded;
        let &Findings { agents, accepted, lost, stalled, taken_back, down, .. } = &report.found;
        let Findings { detection, mistakes, mistaken, .. } = &report.found;
        ReportJson {
            file: report.path.to_string_lossy(),
            policy: report.policy(),
            recorded: RecordedJson {
                agents,
                records,
                beats,
                beats_accepted: accepted,
                beats_lost: lost,
                losses,
                unix_start: Duration::from_nanos(unix_first).as_secs_f64(),
                seconds: span.as_secs_f64(),
                blind_periods: blindnesses,
                blind_seconds: blind.as_secs_f64(),
                records_missing: dropped,
                torn_bytes: torn,
            },
            detection_seconds: DetectionJson {
                mean: seconds(detection.mean()),
                median: seconds(detection.percentile(50)),
                p99: seconds(detection.percentile(99)),
                most: seconds(detection.most()),
            },
            verdicts: VerdictsJson { stalled, taken_back, mistakes: mistakes.count(), down },
            mistakes: MistakesJson {
                per_agent_and_day: report.mistakes_per_agent_and_day(),
                mean_seconds: seconds(mistakes.mean()),
                most_seconds: seconds(mistakes.most()),
                agents: mistaken.iter().map(MistakenJson::from).collect(),
            },
        }
    }
}

impl ReportJson<'_> {
    fn to_line(&self) -> String {
        let mut line = Vec::new();
        self.serialize(&mut Serializer::with_formatter(&mut line, PlainNumbers))
            .expect("text, numbers and lists of them have a form in JSON");
        line.push(b'\n');
        String::from_utf8(line).expect("JSON is UTF-8")
    }
}

#[derive(Serialize)]
struct RecordedJson {
    agents: u64,
    records: u64,
    beats: u64,
    beats_accepted: u64,
    beats_lost: u64,
    losses: u64,
    unix_start: f64,
    seconds: f64,
    blind_periods: u64,
    blind_seconds: f64,
    records_missing: u64,
    torn_bytes: u64,
}

#[derive(Serialize)]
struct DetectionJson {
    mean: Option<f64>,
    median: Option<f64>,
    p99: Option<f64>,
    most: Option<f64>,
}

#[derive(Serialize)]
struct VerdictsJson {
    stalled: u64,
    taken_back: u64,
    mistakes: u64,
    down: u64,
}

#[derive(Serialize)]
struct MistakesJson<'r> {
    per_agent_and_day: Option<f64>,
    mean_seconds: Option<f64>,
    most_seconds: Option<f64>,
    agents: Vec<MistakenJson<'r>>,
}

#[derive(Serialize)]
struct MistakenJson<'r> {
    agent: &'r str,
    mistakes: u64,
    longest_seconds: f64,
}

impl<'r> From<&'r Mistaken> for MistakenJson<'r> {
    fn from(row: &'r Mistaken) -> Self {
        let Mistaken { agent, mistakes, longest } = row;
        MistakenJson { agent, mistakes: *mistakes, longest_seconds: longest.as_secs_f64() }
    }
}

fn seconds(time: Option<Duration>) -> Option<f64> {
    time.map(|time| time.as_secs_f64())
}

/// JSON with numbers as `Display` writes them: whole ones without a point, and none with an exponent.
struct PlainNumbers;

impl Formatter for PlainNumbers {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        write!(writer, "{value}")
    }
}

/// A count with its noun, as in `1 beat`.
fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A duration with three decimals: `2.500s`, `13.1ms`; `–` for none.
struct Time(Option<Duration>);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(Duration::ZERO) => f.write_str("0s"),
            Some(time) => write!(f, "{time:.3?}"),
            None => f.write_str("–"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Recorded { records, beats, losses, blindnesses, blind, dropped, unix_first, span, torn } =
            &self.recorded;
        let Findings { agents, accepted, lost, detection, stalled, taken_back, down, mistakes, .. } =
            &self.found;
        let span = humantime::format_duration(Duration::from_secs(span.as_secs()));
        let [agents, beats, records] = [(*agents, "agent"), (*beats, "beat"), (*records, "record")]
            .map(|(number, what)| count(number, what));
        writeln!(f, "recording   {}", self.path.display())?;
        let first = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_nanos(*unix_first));
        writeln!(f, "            {agents}, {beats} in {span} from {first} on; {records}")?;
        let losses = count(*losses, "time");
        writeln!(
            f,
            "            {accepted} beats accepted, {lost} lost on the way; losses were noted {losses}"
        )?;
        let blindnesses = count(*blindnesses, "time");
        writeln!(f, "            blind {blindnesses}, for {} in all", Time(Some(*blind)))?;
        if *dropped > 0 {
            writeln!(
                f,
                "            {dropped} records are missing: the disk was too slow; it counts as blind then"
            )?;
        }
        if *torn > 0 {
            writeln!(f, "            the last record was cut off; its {torn} bytes are passed over")?;
        }
        writeln!(f, "policy      {}", self.policy())?;
        writeln!(
            f,
            "found out   after a last beat: mean {}, median {}, 99 % {}, most {}",
            Time(detection.mean()),
            Time(detection.percentile(50)),
            Time(detection.percentile(99)),
            Time(detection.most())
        )?;
        writeln!(
            f,
            "verdicts    {stalled} stalled; of these {taken_back} taken back, of these {} mistakes; {down} down",
            mistakes.count()
        )?;
        match self.mistakes_per_agent_and_day().filter(|_| mistakes.count() > 0) {
            None => writeln!(f, "mistakes    none")?,
            Some(rate) => {
                let (mean, most) = (Time(mistakes.mean()), Time(mistakes.most()));
                writeln!(
                    f,
                    "mistakes    {rate:.3} per agent and day; they last {mean} on average, {most} at the most"
                )?;
            }
        }
        for Mistaken { agent, mistakes, longest } in &self.found.mistaken {
            writeln!(f, "            {mistakes:>7}  {agent}, the longest {longest:.3?}")?;
        }
        Ok(())
    }
}

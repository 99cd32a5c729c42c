//! What came of a replay, for people and for programs.

use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use crate::domain::tracker::Policy;
use crate::domain::tracker::detection::arrival::{ArrivalPolicy, Bounds, Kind};
use crate::services::recording::findings::{Findings, Mistaken};

/// How many agents are named.
const NAMED: usize = 10;
const SECONDS_PER_DAY: f64 = 86_400.0;

/// What a recording has, whatever the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) records: u64,
    pub(super) beats: u64,
    pub(super) losses: u64,
    pub(super) blindnesses: u64,
    pub(super) blind: Duration,
    /// Records that found no place.
    pub(super) dropped: u64,
    /// Unix time of the first of them, in nanoseconds.
    pub(super) unix_first: u64,
    /// From the first to the last.
    pub(super) span: Duration,
    /// Bytes of a last record that was not finished.
    pub(super) torn: u64,
}

/// What a policy makes of a recording. [`Display`](fmt::Display) lays it out for people.
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
        // Those with the most mistakes first; of as many, those with the longest.
        found.mistaken.sort_by(|one, other| {
            let order = |row: &Mistaken| (row.mistakes, row.longest);
            order(other).cmp(&order(one)).then_with(|| one.agent.cmp(&other.agent))
        });
        found.mistaken.truncate(NAMED);
        Report { path, stall_after: policy.stall_after, arrival: policy.arrival, recorded, found }
    }

    /// Mistakes for each agent and day that it was up; `None` when none was up.
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
            Kind::Phi { threshold } => learned(format!("phi, threshold {threshold}")),
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

    /// One JSON object in one line, with times in seconds; what there is nothing to take of is `null`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let Recorded { records, beats, losses, blindnesses, blind, dropped, unix_first, span, torn } =
            &self.recorded;
        let Findings { agents, accepted, lost, detection, stalled, taken_back, down, mistakes, .. } =
            &self.found;
        let rate =
            self.mistakes_per_agent_and_day().map_or_else(|| "null".to_owned(), |rate| rate.to_string());
        let mistaken: Vec<String> = self.found.mistaken.iter().map(mistaken_json).collect();
        format!(
            "{{\"file\":{},\"policy\":{},\"recorded\":{{\"agents\":{agents},\"records\":{records},\"beats\":{beats},\
             \"beats_accepted\":{accepted},\"beats_lost\":{lost},\"losses\":{losses},\"unix_start\":{},\"seconds\":{},\
             \"blind_periods\":{blindnesses},\"blind_seconds\":{},\"records_missing\":{dropped},\"torn_bytes\":{torn}}},\
             \"detection_seconds\":{{\"mean\":{},\"median\":{},\"p99\":{},\"most\":{}}},\
             \"verdicts\":{{\"stalled\":{stalled},\"taken_back\":{taken_back},\"mistakes\":{},\"down\":{down}}},\
             \"mistakes\":{{\"per_agent_and_day\":{rate},\"mean_seconds\":{},\"most_seconds\":{},\"agents\":[{}]}}}}\n",
            json_text(&self.path.to_string_lossy()),
            json_text(&self.policy()),
            Duration::from_nanos(*unix_first).as_secs_f64(),
            span.as_secs_f64(),
            blind.as_secs_f64(),
            json_time(detection.mean()),
            json_time(detection.percentile(50)),
            json_time(detection.percentile(99)),
            json_time(detection.most()),
            mistakes.count(),
            json_time(mistakes.mean()),
            json_time(mistakes.most()),
            mistaken.join(",")
        )
    }
}

fn mistaken_json(row: &Mistaken) -> String {
    let Mistaken { agent, mistakes, longest } = row;
    let longest = longest.as_secs_f64();
    format!("{{\"agent\":{},\"mistakes\":{mistakes},\"longest_seconds\":{longest}}}", json_text(agent))
}

fn json_time(time: Option<Duration>) -> String {
    time.map_or_else(|| "null".to_owned(), |time| time.as_secs_f64().to_string())
}

fn json_text(text: &str) -> String {
    let mut json = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            // Writing into memory does not fail.
            control if control.is_control() => _ = write!(json, "\\u{:04x}", u32::from(control)),
            other => json.push(other),
        }
    }
    json.push('"');
    json
}

/// So many of something, as in `1 beat`.
fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A time as people read it, to three places: `2.500s`, `13.1ms`; `–` where there is none.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_in_json_is_closed_where_it_ends() {
        assert_eq!(json_text("a\"b\\c\n\u{7f}é"), "\"a\\\"b\\\\c\\u000a\\u007fé\"");
    }
}

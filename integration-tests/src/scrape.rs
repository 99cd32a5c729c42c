//! One reading of `/metrics`.

use std::collections::BTreeMap;
use std::fmt;

use crate::retry::or_fail;

/// The value of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The family's name; for a histogram with its suffix.
    pub name: String,
    /// Label names and values, without the escapes.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

/// All samples of one reading, and the text from which they were read.
#[derive(Clone, Debug, PartialEq)]
pub struct Scrape {
    /// The text as it came.
    pub text: String,
    /// Its samples, in its order.
    pub samples: Vec<Sample>,
}

/// Families that move by themselves, whatever a test does: time passes, and on a busy machine the server may
/// not run for a while and count that. The time of a last beat is on the wall clock, which is read for each
/// scrape. And what the process of the server uses varies.
const RESTLESS: [&str; 9] = [
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_threads",
    "process_virtual_memory_bytes",
    "varta_watch_uptime_seconds",
    "varta_blind_periods_total",
    "varta_clamped_stamps_total",
    "varta_agent_last_beat_timestamp_seconds",
];

impl Scrape {
    /// Reads the text format.
    ///
    /// # Errors
    ///
    /// The line that is not of it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rows = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples: Result<_, _> =
            rows.map(|line| parse_sample(line).ok_or_else(|| format!("not a sample: {line}"))).collect();
        Ok(Scrape { text: text.to_owned(), samples: samples? })
    }

    /// The samples of a family that have all of `labels`, and maybe more.
    pub fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Sample> {
        let has = |sample: &Sample, (name, value): &(&str, &str)| {
            sample.labels.get(*name).is_some_and(|found| found == value)
        };
        self.samples
            .iter()
            .filter(move |sample| sample.name == name && labels.iter().all(|label| has(sample, label)))
    }

    /// The value of the only sample that has all of `labels`; `None` when there is none.
    #[must_use]
    #[track_caller]
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut matching = self.matching(name, labels);
        let found = matching.next()?;
        assert!(matching.next().is_none(), "{name} {labels:?} is more than one sample of\n{}", self.text);
        Some(found.value)
    }

    /// The value of the only sample that has all of `labels`, which there must be.
    #[must_use]
    #[track_caller]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        or_fail(
            self.get(name, labels).ok_or_else(|| format!("there is no {name} {labels:?} in\n{}", self.text)),
        )
    }

    /// The value of an agent's row, which there must be.
    #[must_use]
    #[track_caller]
    pub fn of_agent(&self, name: &str, pid: u32) -> f64 {
        self.value(name, &[("pid", &pid.to_string())])
    }

    /// The values of all samples that have all of `labels`, added up.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// Every datagram that the server has read, whatever became of it.
    #[must_use]
    pub fn datagrams(&self) -> f64 {
        self.sum("varta_frames_total", &[])
    }

    /// How many datagrams ended as `outcome`, over all transports; on one of them there must be such an
    /// outcome.
    #[must_use]
    #[track_caller]
    pub fn outcome(&self, outcome: &str) -> f64 {
        let labels = [("outcome", outcome)];
        let exists = self.matching("varta_frames_total", &labels).next().is_some();
        assert!(exists, "there is no outcome {outcome} in\n{}", self.text);
        self.sum("varta_frames_total", &labels)
    }

    /// By how much each series has changed from `before` to now, without those that always change. A series
    /// that one of the two does not have counts as zero there.
    #[must_use]
    pub fn changes_since(&self, before: &Scrape) -> BTreeMap<String, f64> {
        let mut changes = BTreeMap::new();
        for (scrape, sign) in [(before, -1.0), (self, 1.0)] {
            for sample in &scrape.samples {
                if !RESTLESS.contains(&sample.name.as_str()) {
                    *changes.entry(sample.to_string()).or_insert(0.0) += sign * sample.value;
                }
            }
        }
        changes.retain(|_, change| *change != 0.0);
        changes
    }
}

/// The series that it belongs to: `name{label="value"}`, labels in the order of their names.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<_> = self.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        if labels.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}{{{}}}", self.name, labels.join(","))
        }
    }
}

fn parse_sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = parse_label_value(after)?;
            labels.insert(label.to_owned(), value).is_none().then_some(())?;
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// A label's value up to its closing quote, and what comes after that.
fn parse_label_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    loop {
        match characters.next()? {
            (index, '"') => return Some((value, &text[index + 1..])),
            (_, '\\') => value.push(match characters.next()?.1 {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                _ => return None,
            }),
            (_, character) => value.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_a_name_labels_and_a_value() {
        let scrape = Scrape::parse("# HELP a b\na 1\nb{x=\"1\",y=\"q\\\"\\\\\\n}\"} 2.5\n").unwrap();
        assert_eq!(scrape.value("a", &[]), 1.0);
        assert_eq!(scrape.value("b", &[("y", "q\"\\\n}")]), 2.5);
        assert_eq!(scrape.get("b", &[("x", "2")]), None);
    }

    #[test]
    fn what_is_no_sample_is_refused() {
        for text in ["a", "a x", "a{b} 1", "a{b=\"c} 1", "a{b=\"c\",b=\"d\"} 1", "a{b=\"\\x\"} 1"] {
            assert!(Scrape::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_change_is_listed_by_its_series() {
        let before = Scrape::parse("a{y=\"1\",x=\"2\"} 3\nb 1\nvarta_watch_uptime_seconds 1\n").unwrap();
        let after = Scrape::parse("b 1\na{y=\"1\",x=\"2\"} 5\nc 1\nvarta_watch_uptime_seconds 2\n").unwrap();
        let changes = after.changes_since(&before);
        let expected = [("a{x=\"2\",y=\"1\"}".to_owned(), 2.0), ("c".to_owned(), 1.0)];
        assert_eq!(changes, BTreeMap::from(expected));
    }
}

//! Metrics. Families with few series are kept by the exporter, with handles taken once at the start; rows for single
//! agents are written when they are asked for, by [`agents`], because an exporter that keeps a million of them does
//! nothing else.

pub(crate) mod agent_rows;
pub(crate) mod family;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use self::family::Family;

/// Upper bounds, in seconds, of the buckets for detection latency.
const LATENCY_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// The same for detection time, which follows from deadlines, and for how long mistakes last.
const SILENCE_BUCKETS: [f64; 14] =
    [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0];
/// The exporter keeps samples of a histogram until somebody scrapes; beyond this many we have it digest them.
pub(crate) const SAMPLES_BEFORE_UPKEEP: u32 = 1024;

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

/// Registers families and renders them. Not the process's global recorder: two servers in one process, as in tests,
/// have their own figures.
pub(crate) struct Registry {
    recorder: PrometheusRecorder,
}

impl Registry {
    pub(crate) fn new() -> Result<Self, BuildError> {
        let buckets: [(Family, &[f64]); 3] = [
            (family::DETECTION_LATENCY, &LATENCY_BUCKETS),
            (family::DETECTION_TIME, &SILENCE_BUCKETS),
            (family::MISTAKE_DURATION, &SILENCE_BUCKETS),
        ];
        let mut builder = PrometheusBuilder::new();
        for (family, buckets) in buckets {
            builder = builder.set_buckets_for_metric(Matcher::Full(family.name.to_owned()), buckets)?;
        }
        Ok(Registry { recorder: builder.build_recorder() })
    }

    pub(crate) fn handle(&self) -> PrometheusHandle {
        self.recorder.handle()
    }

    pub(crate) fn counter(&self, family: Family, labels: &[(&'static str, &str)]) -> Counter {
        self.recorder.describe_counter(family.name.into(), None, family.help.into());
        self.recorder.register_counter(&key(family, labels), &METADATA)
    }

    pub(crate) fn gauge(&self, family: Family, labels: &[(&'static str, &str)]) -> Gauge {
        self.recorder.describe_gauge(family.name.into(), None, family.help.into());
        self.recorder.register_gauge(&key(family, labels), &METADATA)
    }

    pub(crate) fn histogram(&self, family: Family) -> Histogram {
        self.recorder.describe_histogram(family.name.into(), Some(Unit::Seconds), family.help.into());
        self.recorder.register_histogram(&key(family, &[]), &METADATA)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

fn key(family: Family, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> =
        labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(family.name, labels)
}

/// Puts families and, except for histograms, their rows in the order of their names: the exporter gives them in
/// another one each time.
pub(crate) fn in_order(rendered: &str) -> String {
    let mut families: Vec<Vec<&str>> =
        rendered.split("\n\n").map(|family| family.lines().collect()).collect();
    families.sort_unstable();
    for family in &mut families {
        let histogram = family.iter().any(|line| line.starts_with("# TYPE") && line.ends_with(" histogram"));
        if !histogram {
            // HELP and TYPE sort before any row.
            family.sort_unstable();
        }
    }
    let lines = families.into_iter().flatten().flat_map(|line| [line, "\n"]);
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::beat::Transport;
    use crate::domain::outcome::{Outcome, Tally};
    use crate::ingest::metrics::FrameCounters;
    use varta_proto::DecodeError;

    #[test]
    fn every_refusal_stands_at_zero_from_the_first_scrape() {
        let registry = Registry::new().unwrap();
        let _counters = FrameCounters::new(&registry, Transport::Unix);
        let text = registry.handle().render();
        for outcome in Outcome::labels() {
            let row = format!("outcome=\"{outcome}\"}} 0");
            assert!(text.contains(&row), "{row} is missing in\n{text}");
        }
        for kind in DecodeError::KINDS {
            assert!(text.contains(&format!("varta_decode_errors_total{{kind=\"{kind}\"}} 0")), "{kind}");
        }
        assert!(text.contains("# HELP varta_frames_total "));
        assert!(text.contains("# TYPE varta_frames_total counter"));
    }

    #[test]
    fn a_refusal_is_counted_once_in_the_books_and_again_where_people_look_for_it() {
        let registry = Registry::new().unwrap();
        let counters = FrameCounters::new(&registry, Transport::Unix);
        let mut tally = Tally::default();
        tally.count(Outcome::Malformed(DecodeError::BadLength { actual: 3 }));
        tally.count(Outcome::PidMismatch);
        tally.count(Outcome::UidRefused);
        counters.add(&tally);
        let text = registry.handle().render();
        assert!(text.contains("varta_frames_total{transport=\"unix\",outcome=\"bad_length\"} 1"), "{text}");
        assert!(text.contains("varta_decode_errors_total{kind=\"bad_length\"} 1"));
        assert!(text.contains("varta_truncated_datagrams_total 1"));
        assert!(text.contains("varta_frame_auth_failures_total 2"));
    }
}

//! The metrics registry. The exporter keeps families with few series, by handles taken once at the start.
//! Series of single agents are rendered at each scrape by [`agent_rows`], because an exporter that holds a
//! million of them has time for nothing else.

pub(crate) mod agent_rows;
pub(crate) mod counters;
pub(crate) mod family;
pub(crate) mod faults;
pub(crate) mod job_rows;
pub(crate) mod openmetrics;

use std::collections::HashSet;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use self::family::Family;

/// The number of histogram samples after which the exporter aggregates them; otherwise it keeps them until a
/// scrape.
pub(crate) const SAMPLES_BEFORE_UPKEEP: u32 = 1024;

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

/// Registers and renders families. Not the process-wide recorder, so that several servers in one process, as
/// in tests, have separate metrics.
pub(crate) struct Registry {
    recorder: PrometheusRecorder,
    /// Those of all families.
    names: HashSet<&'static str>,
}

impl Registry {
    /// Sets the buckets of those families that are histograms.
    pub(crate) fn new(families: impl IntoIterator<Item = &'static Family>) -> Result<Self, BuildError> {
        let mut builder = PrometheusBuilder::new();
        let mut names = HashSet::new();
        for family in families {
            names.insert(family.name);
            if let Some(buckets) = family.buckets {
                builder = builder.set_buckets_for_metric(Matcher::Full(family.name.to_owned()), buckets)?;
            }
        }
        Ok(Registry { recorder: builder.build_recorder(), names })
    }

    /// A registry for a unit test, which has no histograms.
    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        Registry::new([]).unwrap()
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

/// Sorts families, and their series except those of histograms, by name: the exporter's order differs each
/// time.
pub(crate) fn in_order(rendered: &str) -> String {
    let mut families: Vec<Vec<&str>> =
        rendered.split("\n\n").map(|family| family.lines().collect()).collect();
    families.sort_unstable();
    for family in &mut families {
        let histogram = family.iter().any(|line| line.starts_with("# TYPE") && line.ends_with(" histogram"));
        if !histogram {
            // HELP and TYPE sort before any series.
            family.sort_unstable();
        }
    }
    let lines = families.into_iter().flatten().flat_map(|line| [line, "\n"]);
    lines.collect()
}

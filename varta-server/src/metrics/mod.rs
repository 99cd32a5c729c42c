//! Metrics. Families with few series are kept by the exporter, with handles taken once at the start; rows for single
//! agents are written when they are asked for, by [`agents`], because an exporter that keeps a million of them does
//! nothing else.

pub(crate) mod agents;
mod kernel_drops;
mod maintenance;
pub(crate) mod names;
mod pages;

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use varta_proto::DecodeError;

pub(crate) use self::kernel_drops::KernelDrops;
pub(crate) use self::maintenance::MaintenanceMetrics;
use self::names::Family;
pub(crate) use self::pages::PageMetrics;
use crate::beat::Transport;
use crate::outcome::{Outcome, Tally};
use crate::process::looker::LooksRefused;
use crate::process::watch::Refusals;
use crate::tracker::{Cause, Statistics, Tracker, Transition, Verdict};

/// Upper bounds, in seconds, of the buckets for detection latency.
const LATENCY_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// The same for detection time, which follows from deadlines, and for how long mistakes last.
const SILENCE_BUCKETS: [f64; 14] =
    [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0];
/// The exporter keeps samples of a histogram until somebody scrapes; beyond this many we have it digest them.
const SAMPLES_BEFORE_UPKEEP: u32 = 1024;

/// Which changes there are: each is a row from the first scrape on.
const CHANGES: [(usize, &[Cause]); 6] = [
    (Verdict::UP, &[Cause::FirstBeat, Cause::Reported, Cause::Recovered, Cause::Restarted, Cause::Panicked]),
    (
        Verdict::STALLED,
        &[
            Cause::Silent,
            Cause::Stopped,
            Cause::Frozen,
            Cause::Blocked,
            Cause::Busy,
            Cause::Idle,
            Cause::Lossy,
            Cause::Unreachable,
            Cause::Panicked,
        ],
    ),
    (Verdict::DOWN, &[Cause::Exited { code: None }, Cause::Killed { signal: 0 }, Cause::Panicked]),
    (Verdict::GONE, &[Cause::Exited { code: None }, Cause::Goodbye { reason: None }]),
    (Verdict::UNKNOWN, &[Cause::ObserverBlind, Cause::Lossy]),
    (Verdict::EXPECTED, &[Cause::NeverSeen]),
];

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

/// Registers families and renders them. Not the process's global recorder: two servers in one process, as in tests,
/// have their own figures.
pub(crate) struct Registry {
    recorder: PrometheusRecorder,
}

impl Registry {
    pub(crate) fn new() -> Result<Self, BuildError> {
        let buckets: [(Family, &[f64]); 3] = [
            (names::DETECTION_LATENCY, &LATENCY_BUCKETS),
            (names::DETECTION_TIME, &SILENCE_BUCKETS),
            (names::MISTAKE_DURATION, &SILENCE_BUCKETS),
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

/// The books on datagrams: what became of each, once in `varta_frames_total` and again in the families by which
/// people have long known some of the refusals.
#[derive(Clone)]
pub(crate) struct FrameCounters {
    /// For each outcome the counters that it moves.
    by_outcome: Arc<[Vec<Counter>]>,
    io_errors: Counter,
}

impl FrameCounters {
    pub(crate) fn new(registry: &Registry, transport: Transport) -> Self {
        let labels = Outcome::labels();
        let mut by_outcome: Vec<Vec<Counter>> = labels
            .iter()
            .map(|outcome| {
                let labels = [("transport", transport.as_str()), ("outcome", outcome)];
                vec![registry.counter(names::FRAMES, &labels)]
            })
            .collect();
        let mut also =
            |outcome: Outcome, counter: &Counter| by_outcome[outcome.index()].push(counter.clone());

        let auth_failures = registry.counter(names::AUTH_FAILURES, &[]);
        also(Outcome::Unattested, &auth_failures);
        also(Outcome::PidMismatch, &auth_failures);
        also(Outcome::UidRefused, &auth_failures);
        let out_of_order = registry.counter(names::OUT_OF_ORDER, &[]);
        also(Outcome::OutOfOrder, &out_of_order);
        also(Outcome::Duplicate, &out_of_order);
        also(Outcome::RateLimitedAgent, &registry.counter(names::RATE_LIMITED, &[("reason", "per_pid")]));
        also(Outcome::RateLimitedGlobal, &registry.counter(names::RATE_LIMITED, &[("reason", "global")]));
        also(Outcome::SourceLimit, &registry.counter(names::SOURCE_LIMITED, &[]));
        also(Outcome::DecryptFailed, &registry.counter(names::DECRYPT_FAILURES, &[]));
        let replays = registry.counter(names::REPLAY_REFUSED, &[]);
        also(Outcome::Replayed, &replays);
        also(Outcome::ReplayTableFull, &replays);
        also(Outcome::Capacity, &registry.counter(names::CAPACITY_EXCEEDED, &[]));
        also(
            Outcome::Malformed(DecodeError::BadLength { actual: 0 }),
            &registry.counter(names::TRUNCATED, &[]),
        );
        for (counters, label) in by_outcome.iter_mut().zip(labels) {
            if DecodeError::KINDS.contains(&label) {
                counters.push(registry.counter(names::DECODE_ERRORS, &[("kind", label)]));
            }
        }
        let io_errors = registry.counter(names::IO_ERRORS, &[]);
        FrameCounters { by_outcome: by_outcome.into(), io_errors }
    }

    /// Enters what became of some datagrams.
    pub(crate) fn add(&self, tally: &Tally) {
        for (row, count) in tally.rows() {
            for counter in &self.by_outcome[row] {
                counter.increment(count);
            }
        }
    }

    pub(crate) fn io_error(&self) {
        self.io_errors.increment(1);
    }
}

impl std::fmt::Debug for FrameCounters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameCounters").finish_non_exhaustive()
    }
}

/// What the tracker's actor reports.
pub(crate) struct TrackerMetrics {
    agents: [Gauge; Verdict::NAMES.len()],
    pids_tracked: Gauge,
    /// By the new verdict's and the cause's place among their names.
    transitions: Vec<(usize, usize, Counter)>,
    detection_latency: Histogram,
    detection_time: Histogram,
    mistakes: Counter,
    mistake_duration: Histogram,
    nonce_wraps: Counter,
    forgotten: Counter,
    clamped_stamps: Counter,
    looks_refused: Counter,
    incidents: Counter,
    unwatched: Counter,
    blind_periods: Counter,
    handle: PrometheusHandle,
    samples: u32,
}

impl TrackerMetrics {
    pub(crate) fn new(registry: &Registry, max_agents: usize) -> Self {
        registry.gauge(names::CAPACITY, &[]).set(max_agents as f64);
        let rows = CHANGES.iter().flat_map(|(to, causes)| causes.iter().map(|cause| (*to, cause.index())));
        let transition = |(to, cause): (usize, usize)| {
            let labels = [("to", Verdict::NAMES[to]), ("cause", Cause::NAMES[cause])];
            (to, cause, registry.counter(names::TRANSITIONS, &labels))
        };
        TrackerMetrics {
            agents: Verdict::NAMES.map(|state| registry.gauge(names::AGENTS, &[("state", state)])),
            pids_tracked: registry.gauge(names::PIDS_TRACKED, &[]),
            transitions: rows.map(transition).collect(),
            detection_latency: registry.histogram(names::DETECTION_LATENCY),
            detection_time: registry.histogram(names::DETECTION_TIME),
            mistakes: registry.counter(names::MISTAKES, &[]),
            mistake_duration: registry.histogram(names::MISTAKE_DURATION),
            nonce_wraps: registry.counter(names::NONCE_WRAPS, &[]),
            forgotten: registry.counter(names::EVICTED, &[]),
            clamped_stamps: registry.counter(names::CLAMPED_STAMPS, &[]),
            looks_refused: registry.counter(names::LOOKS_REFUSED, &[]),
            incidents: registry.counter(names::INCIDENTS, &[]),
            unwatched: registry.counter(names::DEATHS_UNWATCHED, &[]),
            blind_periods: registry.counter(names::BLIND_PERIODS, &[]),
            handle: registry.handle(),
            samples: 0,
        }
    }

    /// Publishes the tracker's present figures, and how often a process was not watched or looked at.
    pub(crate) fn publish(&self, tracker: &Tracker, watches: Refusals, looks: LooksRefused) {
        for (gauge, count) in self.agents.iter().zip(tracker.population()) {
            gauge.set(count as f64);
        }
        self.pids_tracked.set(tracker.len() as f64);
        let Statistics {
            nonce_wraps,
            forgotten,
            clamped_stamps,
            looks_refused,
            incidents,
            mistakes,
            lost: _,
        } = tracker.statistics();
        self.nonce_wraps.absolute(nonce_wraps);
        self.mistakes.absolute(mistakes);
        self.forgotten.absolute(forgotten);
        self.clamped_stamps.absolute(clamped_stamps);
        self.incidents.absolute(incidents);
        self.unwatched.absolute(watches.full + watches.kernel);
        self.looks_refused.absolute(looks_refused + looks.rate + looks.queue);
    }

    pub(crate) fn transition(&mut self, transition: &Transition) {
        let row = (transition.to.index(), transition.cause.index());
        if let Some((.., counter)) = self.transitions.iter().find(|(to, cause, _)| (*to, *cause) == row) {
            counter.increment(1);
        }
        let is_silent = |verdict: Verdict| matches!(verdict, Verdict::Stalled | Verdict::Down);
        // Who is stalled and then dies was found out before.
        let is_found_out = is_silent(transition.to) && !transition.from.is_some_and(is_silent);
        let samples = [
            (&self.detection_latency, transition.detection_latency),
            (&self.detection_time, is_found_out.then_some(transition.silence)),
            (&self.mistake_duration, transition.mistake),
        ];
        for (histogram, sample) in samples {
            if let Some(sample) = sample {
                histogram.record(sample.as_secs_f64());
                self.samples += 1;
            }
        }
        if self.samples >= SAMPLES_BEFORE_UPKEEP {
            self.samples = 0;
            self.handle.run_upkeep();
        }
    }

    pub(crate) fn blind(&self) {
        self.blind_periods.increment(1);
    }
}

/// What the server reports of itself.
pub(crate) struct ServerMetrics {
    uptime: Gauge,
    omitted: Gauge,
    log_dropped: Counter,
    kernel_drops: KernelDrops,
    handle: PrometheusHandle,
}

impl ServerMetrics {
    pub(crate) fn new(registry: &Registry, kernel_drops: KernelDrops) -> Self {
        let version = [("version", crate::VERSION), ("commit", crate::COMMIT)];
        registry.gauge(names::BUILD_INFO, &version).set(1.0);
        ServerMetrics {
            uptime: registry.gauge(names::UPTIME, &[]),
            omitted: registry.gauge(names::AGENT_ROWS_OMITTED, &[]),
            log_dropped: registry.counter(names::LOG_DROPPED, &[]),
            kernel_drops,
            handle: registry.handle(),
        }
    }

    /// Renders all families that the exporter keeps.
    pub(crate) fn render(&self, uptime: Duration, omitted: usize, log_lines_dropped: u64) -> String {
        self.uptime.set(uptime.as_secs_f64());
        self.omitted.set(omitted as f64);
        self.log_dropped.absolute(log_lines_dropped);
        self.kernel_drops.publish();
        in_order(&self.handle.render())
    }
}

/// Puts families and, except for histograms, their rows in the order of their names: the exporter gives them in
/// another one each time.
fn in_order(rendered: &str) -> String {
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

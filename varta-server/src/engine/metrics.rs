//! Metrics of the engine: population, transitions and detection times, and the limits that the tracker has
//! run into.

use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::domain::tracker::{Cause, Statistics, Tracker, Transition, Verdict};
use crate::metrics::family::families;
use crate::metrics::{Registry, SAMPLES_BEFORE_UPKEEP};
use crate::observe::exit_watcher::WatchRefusals;

/// Upper bounds, in seconds, of the buckets for detection latency.
const LATENCY_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// The same for detection time, which follows from deadlines, and for how long mistakes last.
const SILENCE_BUCKETS: [f64; 14] =
    [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0];

families! {
    AGENTS = "varta_agents", "Agents known, by what is concluded about them.";
    PIDS_TRACKED = "varta_watch_pids_tracked", "Agents known, silent ones included.";
    CAPACITY = "varta_tracker_capacity", "Agents for which there is room (--max-agents).";
    NONCE_WRAPS = "varta_nonce_wrap_total", "Sessions whose nonce went round to 0.";
    EVICTED = "varta_tracker_evicted_total", "Agents forgotten after a long silence (--forget-after).";
    TRANSITIONS = "varta_transitions_total", "Changes of verdict, by the new one and its cause.";
    INCIDENTS = "varta_incidents_total",
        "Times at which ten or more agents of one origin came to be stalled or down within a second.";
    DETECTION_LATENCY = "varta_detection_latency_seconds",
        "From the moment at which a change could first have been known to the moment at which it was.",
        LATENCY_BUCKETS;
    DETECTION_TIME = "varta_detection_time_seconds",
        "How long agents had been silent when they were first called stalled or down: from the last beat to the verdict.",
        SILENCE_BUCKETS;
    MISTAKES = "varta_mistakes_total",
        "Verdicts stalled about agents that were beating all along: their beats were late or lost.";
    MISTAKE_DURATION = "varta_mistake_duration_seconds", "From such a mistake to the beat that took it back.",
        SILENCE_BUCKETS;
    BLIND_PERIODS = "varta_blind_periods_total", "Times at which this server could not see for a while, and moved deadlines.";
    CLAMPED_STAMPS = "varta_clamped_stamps_total", "Beats whose receive time lay before that of an earlier one.";
    LOOKS_REFUSED = "varta_looks_refused_total",
        "Silent agents whose process was not looked at, because there were too many to look at.";
    DEATHS_UNWATCHED = "varta_unwatched_processes_total",
        "Processes whose end is not noticed at once, because descriptors have run out or the kernel refused one.";
    SINK_DROPPED = "varta_sink_dropped_total",
        "Changes that a sink did not take: it was too slow, or more of a kind that costs nothing came than it takes.";
}

/// The possible pairs of verdict and cause, each of which has a series from the first scrape on.
const CHANGES: [(usize, &[Cause]); 6] = [
    (
        Verdict::UP,
        &[
            Cause::FirstBeat,
            Cause::Reported,
            Cause::Recovered,
            Cause::Restarted,
            Cause::Panicked,
            Cause::Overlapped,
            Cause::Progressed,
        ],
    ),
    (
        Verdict::STALLED,
        &[
            Cause::Silent,
            Cause::Stopped,
            Cause::Traced,
            Cause::Frozen,
            Cause::DumpingCore,
            Cause::Blocked,
            Cause::Busy,
            Cause::Idle,
            Cause::Lossy,
            Cause::Unreachable,
            Cause::Panicked,
            Cause::Overran,
            Cause::Overlapped,
            Cause::NoProgress,
        ],
    ),
    (
        Verdict::DOWN,
        &[
            Cause::Exited { code: None },
            Cause::Killed { signal: 0 },
            Cause::OomKilled,
            Cause::Panicked,
            Cause::Failed { status: None },
        ],
    ),
    (
        Verdict::GONE,
        &[
            Cause::Exited { code: None },
            Cause::Killed { signal: 0 },
            Cause::OomKilled,
            Cause::Goodbye { reason: None },
        ],
    ),
    (Verdict::UNKNOWN, &[Cause::ObserverBlind, Cause::Lossy, Cause::QueueFull]),
    (Verdict::EXPECTED, &[Cause::NeverSeen, Cause::Late]),
];

/// The metric handles of the engine.
pub(crate) struct TrackerMetrics {
    agents: [Gauge; Verdict::NAMES.len()],
    pids_tracked: Gauge,
    /// Indices of verdict and cause among their names, with the counter of the pair.
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
        registry.gauge(CAPACITY, &[]).set(max_agents as f64);
        let rows = CHANGES.iter().flat_map(|(to, causes)| causes.iter().map(|cause| (*to, cause.index())));
        let transition = |(to, cause): (usize, usize)| {
            let labels = [("to", Verdict::NAMES[to]), ("cause", Cause::NAMES[cause])];
            (to, cause, registry.counter(TRANSITIONS, &labels))
        };
        TrackerMetrics {
            agents: Verdict::NAMES.map(|state| registry.gauge(AGENTS, &[("state", state)])),
            pids_tracked: registry.gauge(PIDS_TRACKED, &[]),
            transitions: rows.map(transition).collect(),
            detection_latency: registry.histogram(DETECTION_LATENCY),
            detection_time: registry.histogram(DETECTION_TIME),
            mistakes: registry.counter(MISTAKES, &[]),
            mistake_duration: registry.histogram(MISTAKE_DURATION),
            nonce_wraps: registry.counter(NONCE_WRAPS, &[]),
            forgotten: registry.counter(EVICTED, &[]),
            clamped_stamps: registry.counter(CLAMPED_STAMPS, &[]),
            looks_refused: registry.counter(LOOKS_REFUSED, &[]),
            incidents: registry.counter(INCIDENTS, &[]),
            unwatched: registry.counter(DEATHS_UNWATCHED, &[]),
            blind_periods: registry.counter(BLIND_PERIODS, &[]),
            handle: registry.handle(),
            samples: 0,
        }
    }

    /// Publishes the tracker's statistics, and how often a process was not watched or not inspected.
    pub(crate) fn publish(&self, tracker: &Tracker, watches: WatchRefusals, looks: u64) {
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
            false_positives: mistakes,
            lost: _,
        } = tracker.statistics();
        self.nonce_wraps.absolute(nonce_wraps);
        self.mistakes.absolute(mistakes);
        self.forgotten.absolute(forgotten);
        self.clamped_stamps.absolute(clamped_stamps);
        self.incidents.absolute(incidents);
        self.unwatched.absolute(watches.full + watches.kernel);
        self.looks_refused.absolute(looks_refused + looks);
    }

    pub(crate) fn transition(&mut self, transition: &Transition) {
        let row = (transition.to.index(), transition.cause.index());
        // An agent that was counted when it came, and takes the place of another once it says its name.
        let was_counted =
            transition.predecessor.is_some() && transition.from.is_some_and(|from| from == transition.to);
        if !was_counted
            && let Some((.., counter)) = self.transitions.iter().find(|(to, cause, _)| (*to, *cause) == row)
        {
            counter.increment(1);
        }
        let is_silent = |verdict: Verdict| matches!(verdict, Verdict::Stalled | Verdict::Down);
        // An agent that is stalled and then goes down was detected before.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::MonoTime;

    #[test]
    fn every_change_is_a_row_from_the_start_and_one_that_happens_is_counted_in_its_own() {
        let registry = Registry::for_test();
        let mut metrics = TrackerMetrics::new(&registry, 100);
        metrics.transition(&Transition::of_missing(&"agent".into(), MonoTime::START));
        let text = registry.handle().render();
        let rows: Vec<_> = text.lines().filter(|line| line.starts_with("varta_transitions_total{")).collect();
        assert_eq!(rows.len(), CHANGES.iter().map(|(_, causes)| causes.len()).sum::<usize>());
        let moved: Vec<_> = rows.into_iter().filter(|row| !row.ends_with(" 0")).collect();
        assert_eq!(moved, [r#"varta_transitions_total{to="expected",cause="never_seen"} 1"#]);
    }

    #[test]
    fn a_mistake_is_a_sample_between_the_bounds_of_its_family() {
        let registry = Registry::new(FAMILIES).unwrap();
        let mut metrics = TrackerMetrics::new(&registry, 100);
        let mistake = Some(std::time::Duration::from_secs(7));
        let missing = Transition::of_missing(&"agent".into(), MonoTime::START);
        metrics.transition(&Transition { mistake, ..missing });
        let text = registry.handle().render();
        assert!(text.contains("varta_mistake_duration_seconds_bucket{le=\"5\"} 0"), "{text}");
        assert!(text.contains("varta_mistake_duration_seconds_bucket{le=\"10\"} 1"), "{text}");
        assert!(text.contains("varta_mistake_duration_seconds_sum 7"), "{text}");
    }
}

use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::domain::tracker::state::Tracker;
use crate::domain::tracker::{Cause, Statistics, Transition, Verdict};
use crate::metrics::{Registry, SAMPLES_BEFORE_UPKEEP, family};
use crate::observe::exit_watcher::Refusals;
use crate::observe::sampler::LooksRefused;

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
        registry.gauge(family::CAPACITY, &[]).set(max_agents as f64);
        let rows = CHANGES.iter().flat_map(|(to, causes)| causes.iter().map(|cause| (*to, cause.index())));
        let transition = |(to, cause): (usize, usize)| {
            let labels = [("to", Verdict::NAMES[to]), ("cause", Cause::NAMES[cause])];
            (to, cause, registry.counter(family::TRANSITIONS, &labels))
        };
        TrackerMetrics {
            agents: Verdict::NAMES.map(|state| registry.gauge(family::AGENTS, &[("state", state)])),
            pids_tracked: registry.gauge(family::PIDS_TRACKED, &[]),
            transitions: rows.map(transition).collect(),
            detection_latency: registry.histogram(family::DETECTION_LATENCY),
            detection_time: registry.histogram(family::DETECTION_TIME),
            mistakes: registry.counter(family::MISTAKES, &[]),
            mistake_duration: registry.histogram(family::MISTAKE_DURATION),
            nonce_wraps: registry.counter(family::NONCE_WRAPS, &[]),
            forgotten: registry.counter(family::EVICTED, &[]),
            clamped_stamps: registry.counter(family::CLAMPED_STAMPS, &[]),
            looks_refused: registry.counter(family::LOOKS_REFUSED, &[]),
            incidents: registry.counter(family::INCIDENTS, &[]),
            unwatched: registry.counter(family::DEATHS_UNWATCHED, &[]),
            blind_periods: registry.counter(family::BLIND_PERIODS, &[]),
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

//! The quality of the detectors: how long they take to detect that an agent stopped, and how often they
//! suspect one that did not, on links that lose, delay and hold up beats. This computes the tables of
//! `docs/DETECTION.md`:
//!
//! ```console
//! $ VARTA_UPDATE=1 cargo test -p varta-server --lib simulation::measure   # writes them
//! ```
//!
//! The seeds are fixed, and all arithmetic gives the same result on every machine.

use std::fmt::Write as _;
use std::time::Duration;

use crate::base::time::{MonoTime, nanos};
use crate::domain::tracker::detection::arrival::{Bounds, Kind, Phi};
use crate::domain::tracker::tests::simulation::chance::Chance;
use crate::domain::tracker::tests::simulation::detectors::{Detector, Ours, PublishedPhi};

const INTERVAL: Duration = Duration::from_secs(1);
const AGENTS: u64 = 6;
/// The beats of each agent before any counts: by then the window of the phi detector is full.
const WARM_UP: usize = 1_100;
/// The beats of each agent altogether.
const BEATS: usize = 4_100;

/// How beats are sent and travel.
#[derive(Clone, Copy)]
struct Conditions {
    name: &'static str,
    loss: f64,
    /// The mean number of beats in a run of lost ones.
    burst: f64,
    jitter: Jitter,
    /// The deviation of the sender's interval, as a share of the interval.
    unevenness: f64,
    /// Parts per million by which the sender's clock is slow.
    drift: f64,
    /// What pauses, about once in how many beats, and for how many seconds: at least and at most.
    pause: Option<(Who, f64, f64, f64)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Who {
    Server,
    Network,
    Agent,
}

/// How long a beat takes in addition to the 10 ms that all take.
#[derive(Clone, Copy)]
enum Jitter {
    /// Exponentially distributed, with this mean in seconds.
    Exponential(f64),
    /// Pareto's distribution with exponent 2 and this scale in seconds: a heavy tail and infinite variance.
    Pareto(f64),
}

const CALM: Conditions = Conditions {
    name: "a local socket",
    loss: 0.0,
    burst: 1.0,
    jitter: Jitter::Exponential(0.000_2),
    unevenness: 0.001,
    drift: 0.0,
    pause: None,
};

const NETWORK: Conditions =
    Conditions { jitter: Jitter::Exponential(0.005), unevenness: 0.005, drift: 20.0, ..CALM };

const fn lossy(name: &'static str, loss: f64) -> Conditions {
    Conditions { name, loss, ..NETWORK }
}

const ALL: [Conditions; 15] = [
    CALM,
    lossy("a network that loses nothing", 0.0),
    lossy("1 % lost", 0.01),
    lossy("5 % lost", 0.05),
    lossy("10 % lost", 0.1),
    lossy("20 % lost", 0.2),
    lossy("30 % lost", 0.3),
    Conditions { name: "10 % lost, four in a row", burst: 4.0, ..lossy("", 0.1) },
    Conditions { name: "1 % lost, jitter 100 ms", jitter: Jitter::Exponential(0.1), ..lossy("", 0.01) },
    Conditions { name: "jitter with a heavy tail", jitter: Jitter::Pareto(0.01), ..NETWORK },
    Conditions { name: "a clock that drifts by 500 ppm", drift: 500.0, ..NETWORK },
    Conditions { name: "an uneven sender, ±20 %", unevenness: 0.2, ..NETWORK },
    Conditions {
        name: "the server stands still, 1 to 20 s",
        pause: Some((Who::Server, 400.0, 1.0, 20.0)),
        ..NETWORK
    },
    Conditions {
        name: "the network stands still, 1 to 6 s",
        pause: Some((Who::Network, 400.0, 1.0, 6.0)),
        ..NETWORK
    },
    Conditions {
        name: "the agent stands still, 1 to 4 s",
        pause: Some((Who::Agent, 200.0, 1.0, 4.0)),
        ..NETWORK
    },
];

#[derive(Clone, Copy)]
struct Beat {
    sent_at: MonoTime,
    timestamp: u64,
    nonce: u64,
    read_at: Option<MonoTime>,
}

/// One agent's beats.
struct Trace {
    beats: Vec<Beat>,
    /// The indices of the beats that arrive, in the order in which they are read.
    read: Vec<usize>,
    /// When the server was paused.
    blind: Vec<(MonoTime, MonoTime)>,
    /// Where in each interval the agent is taken to have stopped, as a share of the interval.
    stops: Vec<f64>,
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.max(0.0))
}

impl Trace {
    fn new(conditions: &Conditions, mut chance: Chance) -> Self {
        let start = MonoTime::from_secs(10);
        let mut still = Vec::new();
        if let Some((who, every, from, to)) = conditions.pause {
            let mut at = start;
            while at < start + INTERVAL * u32::try_from(BEATS).unwrap() {
                at = at + seconds(every * (0.5 + chance.unit()));
                let end = at + seconds(from + (to - from) * chance.unit());
                still.push((who, at, end));
                at = end;
            }
        }
        let after = |who: Who, at: MonoTime| {
            let during = still.iter().find(|(other, from, to)| *other == who && *from <= at && at < *to);
            during.map_or(at, |(_, _, to)| *to)
        };
        let mut sent_at = start;
        let mut newest = start;
        let mut is_losing = false;
        let mut beats = Vec::with_capacity(BEATS);
        for nonce in 1..=BEATS as u64 {
            let interval = INTERVAL.as_secs_f64() * (1.0 + conditions.unevenness * chance.normal());
            sent_at = after(Who::Agent, sent_at + seconds(interval.max(0.05)));
            let since_start = sent_at.since(start).as_secs_f64();
            let timestamp = nanos(seconds(since_start * (1.0 - conditions.drift / 1e6)));
            // E. N. Gilbert's model: once a beat is lost the next ones are likely to be.
            let ends = 1.0 / conditions.burst;
            let begins = conditions.loss * ends / (1.0 - conditions.loss);
            is_losing = if is_losing { !chance.happens(ends) } else { chance.happens(begins) };
            if conditions.burst == 1.0 {
                is_losing = chance.happens(conditions.loss);
            }
            let jitter = match conditions.jitter {
                Jitter::Exponential(mean) => mean * chance.exponential(),
                Jitter::Pareto(scale) => scale * ((1.0 / (1.0 - chance.unit())).sqrt() - 1.0),
            };
            // Nothing is overtaken: a frame that was would be refused.
            newest = newest.max(after(Who::Network, sent_at + seconds(0.01 + jitter)));
            let read_at = (!is_losing).then(|| after(Who::Server, newest));
            beats.push(Beat { sent_at, timestamp, nonce, read_at });
        }
        let read = (0..beats.len()).filter(|index| beats[*index].read_at.is_some()).collect();
        let blind = still.iter().filter(|(who, ..)| *who == Who::Server).map(|(_, from, to)| (*from, *to));
        Trace { read, blind: blind.collect(), stops: (0..BEATS).map(|_| chance.unit()).collect(), beats }
    }

    /// The deadline after a beat: an agent that is silent during an observer gap has its whole timeout again.
    fn deadline(&self, last: MonoTime, silence: Duration) -> MonoTime {
        let blind = self.blind.iter().filter(|(from, _)| *from >= last);
        blind.fold(
            last + silence,
            |deadline, (from, to)| if *from < deadline { *to + silence } else { deadline },
        )
    }
}

/// The quality of one detector under one set of conditions.
#[derive(Clone, Copy, Debug, Default)]
struct Quality {
    /// The mean time from the moment at which an agent stops to its detection, in seconds.
    detection: f64,
    mistakes: u32,
}

fn measure<D: Detector>(traces: &[Trace], detector: impl Fn() -> D) -> Quality {
    let (mut total, mut stops, mut mistakes) = (0.0, 0_u32, 0);
    for trace in traces {
        let mut detector = detector();
        let mut deadline: Option<MonoTime> = None;
        for (place, index) in trace.read.iter().enumerate() {
            let Beat { timestamp, nonce, read_at: Some(read_at), .. } = trace.beats[*index] else { continue };
            let counts = *index >= WARM_UP;
            mistakes += u32::from(counts && deadline.is_some_and(|deadline| deadline < read_at));
            detector.observe(read_at, nonce, timestamp);
            if *index + 20 < WARM_UP {
                continue;
            }
            deadline = detector.silence().map(|silence| trace.deadline(read_at, silence));
            // If the agent had stopped before its next beat, or before any until the next that is read, this
            // would be the detection.
            let next_read = trace.read.get(place + 1).copied().unwrap_or(BEATS);
            for stopped in *index..next_read.min(BEATS - 1) {
                let (from, to) = (trace.beats[stopped].sent_at, trace.beats[stopped + 1].sent_at);
                let stopped_at = from + to.since(from).mul_f64(trace.stops[stopped]);
                if let Some(deadline) = deadline.filter(|_| counts) {
                    total += deadline.since(stopped_at).as_secs_f64();
                    stops += 1;
                }
            }
        }
    }
    Quality { detection: total / f64::from(stops), mistakes }
}

/// The quality of a detector with the timeout that makes it as fast as another on average.
fn as_fast_as<D: Detector>(target: Quality, traces: &[Trace], detector: impl Fn(Duration) -> D) -> Quality {
    let mut silence = target.detection + 0.5;
    let mut quality = Quality::default();
    for _ in 0..3 {
        quality = measure(traces, || detector(seconds(silence)));
        let missing = target.detection - quality.detection;
        if missing.abs() < 1e-6 {
            break;
        }
        silence += missing;
    }
    quality
}

/// The same for a detector that is given the minimum time between mistakes: as rare mistakes as it can
/// promise while it is as fast. `u32::MAX` mistakes when it cannot be.
fn as_fast_by_rarity(target: Quality, traces: &[Trace]) -> Quality {
    let detector = |mistake_every: f64| {
        let bounds = Bounds { mistake_every: Some(seconds(mistake_every)), ..Bounds::default() };
        measure(traces, || Ours::new(Kind::Chen(bounds), Duration::from_secs(600)))
    };
    let (mut faster, mut slower): (f64, f64) = (10.0, 100_000.0);
    let mut quality = Quality { mistakes: u32::MAX, ..Quality::default() };
    for _ in 0..12 {
        let middle = (faster * slower).sqrt();
        let found = detector(middle);
        if found.detection <= target.detection + 0.000_5 {
            (faster, quality) = (middle, found);
        } else {
            slower = middle;
        }
    }
    quality
}

struct Row {
    name: &'static str,
    published: Quality,
    phi: Quality,
    /// The phi detector with the settings that are the defaults of the options.
    usual_phi: Quality,
    fixed: Quality,
    ours: Quality,
    rare: Quality,
    five_seconds: Quality,
    hourly: Quality,
}

impl Row {
    fn of(conditions: &Conditions, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let traces: Vec<_> = (0..AGENTS).map(|_| Trace::new(conditions, chance.split())).collect();
        let published = measure(&traces, PublishedPhi::default);
        let hourly = Bounds {
            detect_within: Some(Duration::from_secs(10)),
            mistake_every: Some(Duration::from_secs(3_600)),
            ..Bounds::default()
        };
        Row {
            name: conditions.name,
            published,
            phi: measure(&traces, || Ours::phi(Phi::PUBLISHED)),
            usual_phi: measure(&traces, || Ours::phi(Phi::default())),
            fixed: as_fast_as(published, &traces, Ours::fixed),
            ours: as_fast_as(published, &traces, Ours::within),
            rare: as_fast_by_rarity(published, &traces),
            five_seconds: measure(&traces, || Ours::fixed(Duration::from_secs(5))),
            hourly: measure(&traces, || Ours::new(Kind::Chen(hourly), Duration::from_secs(10))),
        }
    }
}

/// The document with the tables.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/DETECTION.md");
const BEGIN: &str = "<!-- measured: from here -->\n";
const END: &str = "<!-- measured: to here -->\n";

fn tables(rows: &[Row]) -> String {
    let mut text = String::from(
        "\nAt the same time of detection, mistakes:\n\n\
         | beats | found out after | φ, as published | φ, in 64 bytes | fixed | chen, told the time | chen, told the rarity |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let Row { name, published, phi, fixed, ours, rare, .. } = row;
        let mistakes = [published, phi, fixed, ours, rare].map(|quality| match quality.mistakes {
            u32::MAX => "–".to_owned(),
            mistakes => mistakes.to_string(),
        });
        let mistakes = mistakes.join(" | ");
        writeln!(text, "| {name} | {:.2} s | {mistakes} |", published.detection).unwrap();
    }
    text += "\nWith the same settings everywhere, found out after so long, and mistakes:\n\n\
             | beats | fixed, 5 s | φ, as published | φ, by default | chen, once an hour, within 10 s |\n\
             |---|---|---|---|---|\n";
    for row in rows {
        let cells = [row.five_seconds, row.phi, row.usual_phi, row.hourly]
            .map(|Quality { detection, mistakes }| format!("{detection:.2} s, {mistakes}"));
        writeln!(text, "| {} | {} |", row.name, cells.join(" | ")).unwrap();
    }
    text.push('\n');
    text
}

#[test]
fn the_tables_in_the_documentation_are_what_is_measured() {
    let rows: Vec<Row> = std::thread::scope(|scope| {
        let seeded = ALL.iter().zip(1..);
        let rows: Vec<_> =
            seeded.map(|(conditions, seed)| scope.spawn(move || Row::of(conditions, seed))).collect();
        rows.into_iter().map(|row| row.join().unwrap()).collect()
    });
    for Row { name, published, ours, rare, hourly, .. } in &rows {
        let best = ours.mistakes.min(rare.mistakes);
        assert!(best <= published.mistakes, "{name}: {best} mistakes, and {} of phi", published.mistakes);
        for quality in [ours, rare] {
            assert!(quality.detection <= published.detection + 0.001, "{name}: {quality:?} {published:?}");
        }
        assert!(hourly.detection < 10.0, "{name}: {hourly:?}");
    }
    let measured = tables(&rows);
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("a place for the tables");
    let (written, after) = rest.split_once(END).expect("an end of that place");
    if std::env::var_os("VARTA_UPDATE").is_some() {
        std::fs::write(DOCUMENT, [before, BEGIN, &measured, END, after].concat()).unwrap();
        return;
    }
    assert_eq!(written, measured, "VARTA_UPDATE=1 writes what is measured into docs/DETECTION.md");
}

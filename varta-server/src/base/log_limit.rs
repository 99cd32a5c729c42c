//! A limit on each line of the log: whatever provokes a line, and however often, it fills no disk.
//!
//! A line is a place in the code that logs. The first [`AT_ONCE`] of it come at once, and one each second from
//! then on; the others are left out, counted, and told by the log service now and then. Lines about agents have
//! limits of their own, which tell agents apart. What somebody has turned on to look into something, debug and
//! trace, has none.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::base::clock::Clock;
use crate::base::rate_limit::{RateLimit, Usage};
use crate::base::time::MonoTime;

/// The target of lines about agents.
pub(crate) const AGENT_TARGET: &str = "varta::agent";
/// How often one line may come at once, and how long it takes until it may again.
pub(crate) const AT_ONCE: NonZeroU32 = NonZeroU32::new(100).expect("more than zero");
const WITHIN: Duration = Duration::from_secs(100);

/// The lines that this process has left out.
pub(crate) static OMITTED: OmittedLines = OmittedLines::new();

/// Counts lines that were left out, and wakes who tells of them.
#[derive(Debug)]
pub(crate) struct OmittedLines {
    counts: Mutex<Counts>,
    grew: Notify,
}

#[derive(Debug)]
struct Counts {
    all: u64,
    /// Those that nobody was told of, by target.
    untold: BTreeMap<&'static str, u64>,
}

impl OmittedLines {
    const fn new() -> Self {
        let counts = Counts { all: 0, untold: BTreeMap::new() };
        OmittedLines { counts: Mutex::new(counts), grew: Notify::const_new() }
    }

    fn add(&self, target: &'static str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all += 1;
        *counts.untold.entry(target).or_default() += 1;
        self.grew.notify_one();
    }

    /// Waits for a line that is left out.
    pub(crate) async fn grew(&self) {
        self.grew.notified().await;
    }

    /// The number of lines left out since the start of this process.
    pub(crate) fn count(&self) -> u64 {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).all
    }

    /// Takes the numbers of those that nobody was told of, by target.
    pub(crate) fn take_untold(&self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner).untold)
    }
}

/// The limit, as a layer of the log.
pub(super) struct LineLimit {
    limit: RateLimit,
    /// As many as there are places in the code that log.
    usages: Mutex<HashMap<Identifier, Usage>>,
    omitted: &'static OmittedLines,
    now: Box<dyn Fn() -> MonoTime + Send + Sync>,
}

impl LineLimit {
    pub(super) fn new() -> Self {
        let clock = Clock::start();
        LineLimit::with(&OMITTED, move || clock.now())
    }

    fn with(omitted: &'static OmittedLines, now: impl Fn() -> MonoTime + Send + Sync + 'static) -> Self {
        let limit = RateLimit::within(AT_ONCE, WITHIN);
        LineLimit { limit, usages: Mutex::default(), omitted, now: Box::new(now) }
    }

    fn try_take(&self, line: &'static Metadata<'static>) -> bool {
        if *line.level() > Level::INFO || line.target() == AGENT_TARGET {
            return true;
        }
        let mut usages = self.usages.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = self.limit.try_take(usages.entry(line.callsite()).or_default(), (self.now)());
        if !fits {
            self.omitted.add(line.target());
        }
        fits
    }
}

impl fmt::Debug for LineLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineLimit").finish_non_exhaustive()
    }
}

impl<S: Subscriber> Layer<S> for LineLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.try_take(event.metadata())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Counts the lines that are written.
    #[derive(Clone, Default)]
    struct Lines(Arc<AtomicU64>);

    impl Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Runs `log` with its own clock, which it sets to seconds.
    fn with_limit(log: impl FnOnce(&AtomicU64)) -> (u64, &'static OmittedLines) {
        let omitted: &'static OmittedLines = Box::leak(Box::new(OmittedLines::new()));
        let (lines, seconds) = (Lines::default(), Arc::new(AtomicU64::new(1_000)));
        let (writer, time) = (lines.clone(), Arc::clone(&seconds));
        let format = tracing_subscriber::fmt().with_max_level(Level::DEBUG);
        let limit = LineLimit::with(omitted, move || MonoTime::from_secs(time.load(Ordering::Relaxed)));
        let subscriber = format.with_writer(move || writer.clone()).finish().with(limit);
        tracing::subscriber::with_default(subscriber, || log(&seconds));
        (lines.0.load(Ordering::Relaxed), omitted)
    }

    #[test]
    fn a_line_comes_a_hundred_times_at_once_and_once_a_second_from_then_on_and_hides_no_other() {
        let (lines, omitted) = with_limit(|seconds| {
            for _ in 0..10 {
                (0..1_000).for_each(|_| tracing::warn!(target: "varta::alerts", "refused"));
                seconds.fetch_add(1, Ordering::Relaxed);
            }
            tracing::error!(target: "varta::alerts", "another line");
        });
        assert_eq!(lines, 100 + 9 + 1);
        assert_eq!(omitted.count(), 10_000 - 109);
        assert_eq!(omitted.take_untold(), BTreeMap::from([("varta::alerts", 9_891)]));
        assert_eq!((omitted.take_untold().len(), omitted.count()), (0, 9_891));
    }

    #[test]
    fn lines_about_agents_and_those_of_debugging_are_not_limited_here() {
        let (lines, omitted) = with_limit(|_| {
            (0..1_000).for_each(|_| tracing::warn!(target: "varta::agent", "is down"));
            (0..1_000).for_each(|_| tracing::debug!(target: "varta::ingest", "refused"));
        });
        assert_eq!((lines, omitted.count()), (2_000, 0));
    }
}

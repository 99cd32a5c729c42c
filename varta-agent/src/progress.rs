//! Guards: the heartbeat stops while work that must make progress is stuck.
//!
//! A timer that beats proves only that the timer runs, and hides a worker that is stuck or has panicked. So a
//! worker holds a [`Guard`] and ticks, and the heartbeat task checks all guards before each beat.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::agent::lower_bits;

/// Represents one piece of work that must make progress. Created by
/// [`Heartbeat::guard`](crate::Heartbeat::guard).
///
/// The heartbeat beats while the guard ticks at least once in each `limit`. Otherwise the guard is overdue:
/// the beats are withheld, so that the server reaches its verdict, or have the status
/// [`Critical`](Self::critical_when_overdue); and the log of this program names the guard, once, as a warning
/// of the crate `tracing`. The next tick ends that.
///
/// Dropping a guard means that its work is done. A guard that is dropped by an unwinding panic is overdue
/// from then on, until a new guard of the same name is created.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use varta_agent::Varta;
///
/// let heartbeat = Varta::disabled().spawn_heartbeat(Duration::from_secs(1))?;
/// let guard = heartbeat.guard("consumer", Duration::from_secs(30));
/// let consumer = std::thread::spawn(move || {
///     for _message in 0..3 {
///         // … handle it …
///         guard.tick();
///     }
/// });
/// # consumer.join().unwrap();
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it says that its work is done"]
pub struct Guard {
    state: Arc<GuardState>,
    guards: Arc<Guards>,
}

impl Guard {
    /// Records progress.
    ///
    /// It takes no lock, allocates nothing and reads no clock, so it may be called in an inner loop. Any
    /// thread may call it, and several threads may share one guard.
    #[inline]
    pub fn tick(&self) {
        // The load first keeps threads that share a guard from contending for its cache line.
        if !self.state.ticked.load(Ordering::Relaxed) {
            self.state.ticked.store(true, Ordering::Relaxed);
        }
    }

    /// Records progress, and how much work was done so far: a count that changes with it.
    ///
    /// The beats have the count as their payload, of which it is the lower 32 bits, and if several guards of a heartbeat
    /// count, their sum. They declare it as a counter, so that the server finds it out too when the count stands: see
    /// [`Varta::progress`](crate::Varta::progress). The cost is that of a tick.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use varta_agent::Varta;
    ///
    /// let heartbeat = Varta::disabled().spawn_heartbeat(Duration::from_secs(1))?;
    /// let guard = heartbeat.guard("consumer", Duration::from_secs(30));
    /// for offset in 1..=3 {
    ///     // … handle the message at this offset …
    ///     guard.progress(offset);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn progress(&self, count: u64) {
        self.state.count.store(lower_bits(count), Ordering::Relaxed);
        if !self.state.counts.load(Ordering::Relaxed) {
            self.state.counts.store(true, Ordering::Relaxed);
        }
        self.tick();
    }

    /// Makes beats have the status [`Critical`](crate::Status::Critical) while this guard is overdue, instead
    /// of withholding them: for work that may be stuck for a while in a process that is alive.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use varta_agent::Varta;
    ///
    /// let heartbeat = Varta::disabled().spawn_heartbeat(Duration::from_secs(1))?;
    /// let guard = heartbeat.guard("importer", Duration::from_secs(600)).critical_when_overdue();
    /// # Ok(())
    /// # }
    /// ```
    pub fn critical_when_overdue(self) -> Self {
        self.state.is_critical.store(true, Ordering::Relaxed);
        self
    }

    /// Returns the guard's name in the log.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// # use varta_agent::Varta;
    /// let heartbeat = Varta::disabled().spawn_heartbeat(Duration::from_secs(1))?;
    /// assert_eq!(heartbeat.guard("consumer", Duration::from_secs(30)).name(), "consumer");
    /// # Ok(())
    /// # }
    /// ```
    pub fn name(&self) -> &str {
        &self.state.name
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.state.is_abandoned.store(true, Ordering::Relaxed);
        } else {
            self.guards.remove(|state| Arc::ptr_eq(state, &self.state));
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("name", &self.name()).field("limit", &self.state.limit).finish()
    }
}

/// The state shared by a guard and the heartbeat task. All access is relaxed: the words publish nothing else.
struct GuardState {
    name: Box<str>,
    limit: Duration,
    /// Whether there was a tick since the last check. A flag and not a time, so that a tick reads no clock.
    ticked: AtomicBool,
    is_critical: AtomicBool,
    /// The work done, and whether the program says how much.
    count: AtomicU32,
    counts: AtomicBool,
    /// Whether the guard was dropped by a panic.
    is_abandoned: AtomicBool,
}

/// The guards of one heartbeat.
#[derive(Default)]
pub(crate) struct Guards(Mutex<GuardList>);

/// The entries of [`Guards`]. The list allocates only when a guard is added.
#[derive(Default)]
struct GuardList {
    entries: Vec<GuardEntry>,
    last_check: Option<Instant>,
}

struct GuardEntry {
    state: Arc<GuardState>,
    /// The time of the last check that found a tick; for a new guard, of its first check.
    last_progress: Option<Instant>,
    is_overdue: bool,
    /// Whether the log still has to report that the guard has become overdue or has recovered.
    is_unreported: bool,
}

/// The result of a check of all guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// No guard is overdue.
    Good,
    /// A guard is overdue, and beats have the status critical.
    Critical,
    /// A guard is overdue, and beats are withheld.
    Stuck,
}

impl Guards {
    /// Adds a guard. It replaces one of the same name that was dropped by a panic.
    pub(crate) fn add(self: &Arc<Self>, name: &str, limit: Duration) -> Guard {
        self.remove(|state| state.is_abandoned.load(Ordering::Relaxed) && *state.name == *name);
        let state = Arc::new(GuardState {
            name: name.into(),
            limit,
            ticked: AtomicBool::new(false),
            is_critical: AtomicBool::new(false),
            count: AtomicU32::new(0),
            counts: AtomicBool::new(false),
            is_abandoned: AtomicBool::new(false),
        });
        let entry =
            GuardEntry { state: state.clone(), last_progress: None, is_overdue: false, is_unreported: false };
        self.list().entries.push(entry);
        Guard { state, guards: self.clone() }
    }

    /// Checks all guards, and logs what has changed.
    ///
    /// While the program is busy no guard is overdue, and afterwards each has its whole limit. If a check is
    /// more than an interval late, the task was delayed, and so perhaps were the guards: the delay does not
    /// count against them.
    pub(crate) fn check(&self, now: Instant, interval: Duration, is_busy: bool) -> Progress {
        let progress = self.list().check(now, interval, is_busy);
        // Logged without the lock, because the program's subscriber may do anything.
        while let Some(ProgressUpdate { state, silence }) = self.take_update(now) {
            log(&state, silence);
        }
        progress
    }

    /// Returns the sum of all counts; `None` if no guard counts.
    pub(crate) fn count(&self) -> Option<u32> {
        let list = self.list();
        let counting = list.entries.iter().filter(|entry| entry.state.counts.load(Ordering::Relaxed));
        counting.map(|entry| entry.state.count.load(Ordering::Relaxed)).reduce(u32::wrapping_add)
    }

    fn take_update(&self, now: Instant) -> Option<ProgressUpdate> {
        let mut list = self.list();
        let entry = list.entries.iter_mut().find(|entry| entry.is_unreported)?;
        entry.is_unreported = false;
        let silence = entry.last_progress.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        Some(ProgressUpdate { state: entry.state.clone(), silence: entry.is_overdue.then_some(silence) })
    }

    fn remove(&self, which: impl Fn(&Arc<GuardState>) -> bool) {
        self.list().entries.retain(|entry| !which(&entry.state));
    }

    fn list(&self) -> MutexGuard<'_, GuardList> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GuardList {
    fn check(&mut self, now: Instant, interval: Duration, is_busy: bool) -> Progress {
        let since_last = self.last_check.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last_check = Some(now);
        let late = since_last.saturating_sub(interval);
        let delay = if late > interval { late } else { Duration::ZERO };
        let mut progress = Progress::Good;
        for entry in &mut self.entries {
            progress = match (progress, entry.check(now, delay, is_busy)) {
                (Progress::Stuck, _) | (_, Progress::Stuck) => Progress::Stuck,
                (Progress::Critical, _) | (_, Progress::Critical) => Progress::Critical,
                (Progress::Good, Progress::Good) => Progress::Good,
            };
        }
        progress
    }
}

impl GuardEntry {
    fn check(&mut self, now: Instant, delay: Duration, is_busy: bool) -> Progress {
        let state = &self.state;
        let has_progress = state.ticked.swap(false, Ordering::Relaxed) || is_busy;
        let last_progress = match self.last_progress {
            Some(last_progress) if !has_progress => (last_progress + delay).min(now),
            _ => now,
        };
        self.last_progress = Some(last_progress);
        let is_overdue = state.is_abandoned.load(Ordering::Relaxed) || now - last_progress > state.limit;
        self.is_unreported |= is_overdue != self.is_overdue;
        self.is_overdue = is_overdue;
        match (is_overdue, state.is_critical.load(Ordering::Relaxed)) {
            (false, _) => Progress::Good,
            (true, true) => Progress::Critical,
            (true, false) => Progress::Stuck,
        }
    }
}

/// A change to log: a guard that is overdue after `silence`, or one that has recovered.
struct ProgressUpdate {
    state: Arc<GuardState>,
    silence: Option<Duration>,
}

fn log(state: &GuardState, silence: Option<Duration>) {
    let GuardState { name, limit, .. } = state;
    let Some(silence) = silence else {
        tracing::info!(guard = %name, "{name} makes progress again");
        return;
    };
    let consequence = match state.is_critical.load(Ordering::Relaxed) {
        true => "beats say critical until it does",
        false => "beats are held back until it does",
    };
    if state.is_abandoned.load(Ordering::Relaxed) {
        tracing::warn!(guard = %name, "{name} ended by a panic and makes no progress; {consequence}");
    } else {
        tracing::warn!(
            guard = %name,
            "{name} has made no progress for {silence:.1?}, and has to every {limit:.1?}; {consequence}"
        );
    }
}

impl fmt::Debug for Guards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = self.list();
        f.debug_list().entries(list.entries.iter().map(|entry| &entry.state.name)).finish()
    }
}

//! Progress, and not existence: work that has to move, or the heartbeat falls silent.
//!
//! A timer that beats proves that the timer runs. A worker that is stuck, or dead of a panic, hides behind it. So whoever
//! does the work holds a [`Guard`] and ticks, and the task that beats looks before each beat who has.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

/// Stands for one piece of work that has to make progress; [`Heartbeat::guard`](crate::Heartbeat::guard) gives one.
///
/// As long as it ticks at least once in its limit, the heartbeat beats. When it does not it is overdue: the beats are held
/// back, so that the server comes to its verdict, or [say Critical](Self::critical_when_overdue); and the log of this
/// program names it, once, as a warning of the crate `tracing`. With the next tick all is as before.
///
/// Dropping a guard ends that: its work is done. If it is dropped by a panic that unwinds, its work is not done, and it
/// is overdue from then on, until there is a new guard of the same name.
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
    /// Says that there has been progress.
    ///
    /// It costs next to nothing and may stand in an inner loop: no lock, no allocation, no clock. Any thread may call
    /// it, and several may share one guard.
    #[inline]
    pub fn tick(&self) {
        // Read first, so that threads that share a guard do not fight for its cache line.
        if !self.state.ticked.load(Ordering::Relaxed) {
            self.state.ticked.store(true, Ordering::Relaxed);
        }
    }

    /// Has the beats say [`Critical`](crate::Status::Critical) while this is overdue, rather than hold them back: for
    /// work that is stuck now and then and in a process that is alive all the same.
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

    /// Gives the name under which the log knows it.
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

/// What a guard and the task that looks share. All access is relaxed: the words carry nothing but themselves.
struct GuardState {
    name: Box<str>,
    limit: Duration,
    /// Whether there was a tick since the last look. A flag and not a time, so that a tick reads no clock.
    ticked: AtomicBool,
    is_critical: AtomicBool,
    /// Its guard was dropped by a panic.
    is_abandoned: AtomicBool,
}

/// The guards of one heartbeat.
#[derive(Default)]
pub(crate) struct Guards(Mutex<GuardList>);

/// It grows when a guard is made and at no other time.
#[derive(Default)]
struct GuardList {
    entries: Vec<GuardEntry>,
    last_check: Option<Instant>,
}

struct GuardEntry {
    state: Arc<GuardState>,
    /// When a look last found a tick; for a new guard, its first look.
    last_progress: Option<Instant>,
    is_overdue: bool,
    /// It has become overdue or moves again, and nobody was told yet.
    is_unreported: bool,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Everybody has moved in time.
    Good,
    /// Somebody is overdue, and the beats are to say so.
    Critical,
    /// Somebody is overdue, and there are to be no beats.
    Stuck,
}

impl Guards {
    /// Adds a guard, in place of one of that name that was dropped by a panic.
    pub(crate) fn add(self: &Arc<Self>, name: &str, limit: Duration) -> Guard {
        self.remove(|state| state.is_abandoned.load(Ordering::Relaxed) && *state.name == *name);
        let state = Arc::new(GuardState {
            name: name.into(),
            limit,
            ticked: AtomicBool::new(false),
            is_critical: AtomicBool::new(false),
            is_abandoned: AtomicBool::new(false),
        });
        let entry =
            GuardEntry { state: state.clone(), last_progress: None, is_overdue: false, is_unreported: false };
        self.list().entries.push(entry);
        Guard { state, guards: self.clone() }
    }

    /// Looks who has moved, and tells the log what is new.
    ///
    /// As long as the program is busy, as it says, nobody is overdue, and afterwards everybody has the whole limit. A
    /// look that comes later than an interval after it was due was itself held up: the guards are not blamed for that
    /// time, in which they may have been held up too.
    pub(crate) fn check(&self, now: Instant, interval: Duration, is_busy: bool) -> Progress {
        let progress = self.list().check(now, interval, is_busy);
        // Told without the lock, because nobody knows what a program does with its log.
        while let Some(ProgressUpdate { state, silence }) = self.take_update(now) {
            log(&state, silence);
        }
        progress
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

/// What the log has not heard yet: who has been silent for how long, or moves again.
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

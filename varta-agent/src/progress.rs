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
    watched: Arc<Watched>,
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
        if !self.watched.ticked.load(Ordering::Relaxed) {
            self.watched.ticked.store(true, Ordering::Relaxed);
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
        self.watched.is_critical.store(true, Ordering::Relaxed);
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
        &self.watched.name
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.watched.is_abandoned.store(true, Ordering::Relaxed);
        } else {
            self.guards.forget(|watched| Arc::ptr_eq(watched, &self.watched));
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("name", &self.name()).field("limit", &self.watched.limit).finish()
    }
}

/// What a guard and the task that looks share. All access is relaxed: the words carry nothing but themselves.
struct Watched {
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
pub(crate) struct Guards(Mutex<List>);

/// It grows when a guard is made and at no other time.
#[derive(Default)]
struct List {
    entries: Vec<Entry>,
    last_look: Option<Instant>,
}

struct Entry {
    watched: Arc<Watched>,
    /// When a look last found a tick; for a new guard, its first look.
    moved: Option<Instant>,
    is_overdue: bool,
    /// It has become overdue or moves again, and nobody was told yet.
    is_news: bool,
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
        self.forget(|watched| watched.is_abandoned.load(Ordering::Relaxed) && *watched.name == *name);
        let watched = Arc::new(Watched {
            name: name.into(),
            limit,
            ticked: AtomicBool::new(false),
            is_critical: AtomicBool::new(false),
            is_abandoned: AtomicBool::new(false),
        });
        let entry = Entry { watched: watched.clone(), moved: None, is_overdue: false, is_news: false };
        self.list().entries.push(entry);
        Guard { watched, guards: self.clone() }
    }

    /// Looks who has moved, and tells the log what is new.
    ///
    /// As long as the program is busy, as it says, nobody is overdue, and afterwards everybody has the whole limit. A
    /// look that comes later than an interval after it was due was itself held up: the guards are not blamed for that
    /// time, in which they may have been held up too.
    pub(crate) fn look(&self, now: Instant, interval: Duration, is_busy: bool) -> Progress {
        let progress = self.list().look(now, interval, is_busy);
        // Told without the lock, because nobody knows what a program does with its log.
        while let Some(News { watched, silence }) = self.take_news(now) {
            tell(&watched, silence);
        }
        progress
    }

    fn take_news(&self, now: Instant) -> Option<News> {
        let mut list = self.list();
        let entry = list.entries.iter_mut().find(|entry| entry.is_news)?;
        entry.is_news = false;
        let silence = entry.moved.map_or(Duration::ZERO, |moved| now.saturating_duration_since(moved));
        Some(News { watched: entry.watched.clone(), silence: entry.is_overdue.then_some(silence) })
    }

    fn forget(&self, which: impl Fn(&Arc<Watched>) -> bool) {
        self.list().entries.retain(|entry| !which(&entry.watched));
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    fn look(&mut self, now: Instant, interval: Duration, is_busy: bool) -> Progress {
        let since_last = self.last_look.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last_look = Some(now);
        let late = since_last.saturating_sub(interval);
        let held_up = if late > interval { late } else { Duration::ZERO };
        let mut progress = Progress::Good;
        for entry in &mut self.entries {
            let found = entry.look(now, held_up, is_busy);
            progress = match (progress, found) {
                (Progress::Stuck, _) | (_, Progress::Stuck) => Progress::Stuck,
                (Progress::Critical, _) | (_, Progress::Critical) => Progress::Critical,
                (Progress::Good, Progress::Good) => Progress::Good,
            };
        }
        progress
    }
}

impl Entry {
    fn look(&mut self, now: Instant, held_up: Duration, is_busy: bool) -> Progress {
        let watched = &self.watched;
        let has_moved = watched.ticked.swap(false, Ordering::Relaxed) || is_busy;
        let moved = match self.moved {
            Some(moved) if !has_moved => (moved + held_up).min(now),
            _ => now,
        };
        self.moved = Some(moved);
        let is_overdue = watched.is_abandoned.load(Ordering::Relaxed) || now - moved > watched.limit;
        self.is_news |= is_overdue != self.is_overdue;
        self.is_overdue = is_overdue;
        match (is_overdue, watched.is_critical.load(Ordering::Relaxed)) {
            (false, _) => Progress::Good,
            (true, true) => Progress::Critical,
            (true, false) => Progress::Stuck,
        }
    }
}

/// What the log has not heard yet: who has been silent for how long, or moves again.
struct News {
    watched: Arc<Watched>,
    silence: Option<Duration>,
}

fn tell(watched: &Watched, silence: Option<Duration>) {
    let Watched { name, limit, .. } = watched;
    let Some(silence) = silence else {
        tracing::info!(guard = %name, "{name} makes progress again");
        return;
    };
    let consequence = match watched.is_critical.load(Ordering::Relaxed) {
        true => "beats say critical until it does",
        false => "beats are held back until it does",
    };
    if watched.is_abandoned.load(Ordering::Relaxed) {
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
        f.debug_list().entries(list.entries.iter().map(|entry| &entry.watched.name)).finish()
    }
}

//! The end of what a command leaves behind: its descendants, which the kernel makes children of exec, because exec is
//! a subreaper.
//!
//! As process 1 of a namespace, exec ends all other processes of it, as the kernel would; `/proc` may be that of
//! another namespace there.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::base::children::{has_children, reap_adopted};
use crate::observe::{Pidfd, descendants, is_descendant};

/// The interval at which the remaining ones are looked for; the end of a child is noticed at once.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long killed processes may take to end. One in uninterruptible sleep does not.
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// The processes that are being ended.
#[derive(Debug)]
pub(super) struct Leftovers {
    /// Those that have got SIGTERM.
    told: HashSet<u32>,
    /// Whether all processes of the namespace have got it.
    are_all_told: bool,
    next: Instant,
    /// When SIGKILL comes, or after it when the rest is given up.
    until: Instant,
    is_killing: bool,
}

/// How far their end is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Waiting,
    /// All have ended.
    Done,
    /// Some do not, by SIGKILL either.
    GivenUp(String),
}

/// The descendants that this process had before it started anything: a shell that became exec leaves it its own.
pub(super) fn strangers() -> HashSet<u32> {
    if has_children() { descendants(std::process::id()).into_iter().collect() } else { HashSet::new() }
}

impl Leftovers {
    pub(super) fn new(now: Instant, kill_after: Duration) -> Self {
        Leftovers {
            told: HashSet::new(),
            are_all_told: false,
            next: now,
            until: now + kill_after,
            is_killing: false,
        }
    }

    /// Who has been told to end, in words.
    pub(super) fn told(&self) -> Option<String> {
        if self.are_all_told {
            return Some("processes".to_owned());
        }
        (!self.told.is_empty()).then(|| processes(self.told.len()))
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        self.next
    }

    /// SIGKILL comes at once.
    pub(super) fn hurry(&mut self, now: Instant) {
        if !self.is_killing {
            self.until = now;
            self.next = now;
        }
    }

    /// Reaps those that have ended, and tells the others to, `strangers` excepted.
    pub(super) fn step(&mut self, now: Instant, strangers: &HashSet<u32>) -> Progress {
        reap_adopted();
        if !has_children() {
            return Progress::Done;
        }
        if now < self.next {
            return Progress::Waiting;
        }
        self.next = now + LOOK_AGAIN;
        let own = std::process::id();
        let left: Vec<u32> = if own == 1 {
            Vec::new()
        } else {
            descendants(own).into_iter().filter(|pid| !strangers.contains(pid)).collect()
        };
        if left.is_empty() && own != 1 {
            // Those that have ended meanwhile are none that are left, and children all the same.
            reap_adopted();
            return Progress::Done;
        }
        if now >= self.until {
            if self.is_killing {
                return Progress::GivenUp(processes(left.len()));
            }
            self.is_killing = true;
            self.until = now + GONE_WITHIN;
        }
        if own == 1 {
            self.tell_all();
        }
        for pid in left {
            if self.is_killing {
                send(pid, own, &[Signal::SIGKILL]);
                self.told.insert(pid);
            } else if self.told.insert(pid) {
                // One that is stopped can only act on SIGTERM when it goes on.
                send(pid, own, &[Signal::SIGTERM, Signal::SIGCONT]);
            }
        }
        Progress::Waiting
    }

    /// Tells all processes of the namespace but this one.
    fn tell_all(&mut self) {
        let signals: &[Signal] = match (self.is_killing, self.are_all_told) {
            (true, _) => &[Signal::SIGKILL],
            (false, false) => &[Signal::SIGTERM, Signal::SIGCONT],
            (false, true) => &[],
        };
        self.are_all_told = true;
        for signal in signals {
            // It fails when there is none but dead ones.
            let _ = kill(Pid::from_raw(-1), *signal);
        }
    }
}

/// So many processes, in words; of some, the number is not known.
fn processes(count: usize) -> String {
    match count {
        0 => "processes".to_owned(),
        1 => "a process".to_owned(),
        _ => format!("{count} processes"),
    }
}

/// Sends the process signals, if it is still a descendant when nothing else can get its pid any more.
fn send(pid: u32, own: u32, signals: &[Signal]) {
    let Ok(pidfd) = Pidfd::open(pid) else { return };
    if is_descendant(pid, own) {
        for signal in signals {
            // It may have ended, or be another user's; what remains is counted.
            let _ = pidfd.send_signal(*signal);
        }
    }
}

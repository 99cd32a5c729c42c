//! When a beat is due: once all sources have spoken since the last beat, and at most once in an interval.
//!
//! Times are handed in.

use std::time::{Duration, Instant};

/// A source that has been named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Alive,
    Output,
    Check,
    Notify,
}

impl Source {
    const fn bit(self) -> u8 {
        match self {
            Source::Alive => 1,
            Source::Output => 2,
            Source::Check => 4,
            Source::Notify => 8,
        }
    }
}

/// What the sources have said since the last beat.
#[derive(Debug)]
pub(super) struct Sources {
    /// Those that must speak, without [`Source::Alive`], which speaks as long as the command runs.
    wanted: u8,
    spoken: u8,
    every: Duration,
    last_beat: Instant,
    /// A stopped command is not well, whatever a check says.
    is_stopped: bool,
}

impl Sources {
    /// Those of a command that was started at `now`, which was the first beat.
    pub(super) fn new(named: &[Source], every: Duration, now: Instant) -> Self {
        let bits = named.iter().fold(0, |bits, source| bits | source.bit());
        Sources { wanted: bits & !Source::Alive.bit(), spoken: 0, every, last_beat: now, is_stopped: false }
    }

    /// A source says that the command is well.
    pub(super) fn handle_sign(&mut self, source: Source) {
        self.spoken |= source.bit();
    }

    /// A source takes back what it said.
    pub(super) fn revoke(&mut self, source: Source) {
        self.spoken &= !source.bit();
    }

    /// Whether a source that is needed has not spoken since the last beat.
    pub(super) fn lacks(&self, source: Source) -> bool {
        self.wanted & !self.spoken & source.bit() != 0
    }

    /// The next beat need not wait for the end of the interval.
    pub(super) fn make_due(&mut self, now: Instant) {
        self.last_beat = now.checked_sub(self.every).unwrap_or(self.last_beat);
    }

    /// Beats are sent at most once in this interval from now on.
    pub(super) fn set_interval(&mut self, every: Duration) {
        self.every = every;
    }

    pub(super) fn set_stopped(&mut self, is_stopped: bool) {
        self.is_stopped = is_stopped;
    }

    /// When the next beat is due; `None` while a source has to speak first.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let all_spoke = self.wanted & !self.spoken == 0;
        (all_spoke && !self.is_stopped).then(|| self.last_beat + self.every)
    }

    /// Whether a beat is due, which counts as sent then.
    pub(super) fn take_beat(&mut self, now: Instant) -> bool {
        let is_due = self.poll_timeout().is_some_and(|due| due <= now);
        if is_due {
            self.spoken = 0;
            self.last_beat = now;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(10);

    #[test]
    fn a_command_that_is_only_to_exist_beats_once_in_each_interval() {
        let start = Instant::now();
        let mut sources = Sources::new(&[Source::Alive], EVERY, start);
        assert!(!sources.take_beat(start + EVERY / 2));
        assert_eq!(sources.poll_timeout(), Some(start + EVERY));
        assert!(sources.take_beat(start + EVERY));
        assert!(!sources.take_beat(start + EVERY));
        assert_eq!(sources.poll_timeout(), Some(start + 2 * EVERY));
    }

    #[test]
    fn all_sources_have_to_speak_after_each_beat() {
        let start = Instant::now();
        let mut sources = Sources::new(&[Source::Output, Source::Check, Source::Alive], EVERY, start);
        assert_eq!(sources.poll_timeout(), None);
        sources.handle_sign(Source::Output);
        assert!(!sources.take_beat(start + 2 * EVERY));
        sources.handle_sign(Source::Check);
        sources.revoke(Source::Output);
        assert!(!sources.take_beat(start + 2 * EVERY));
        sources.handle_sign(Source::Output);
        assert!(sources.take_beat(start + 2 * EVERY));
        assert_eq!(sources.poll_timeout(), None);
    }

    #[test]
    fn what_is_said_within_an_interval_is_one_beat_at_its_end() {
        let start = Instant::now();
        let mut sources = Sources::new(&[Source::Output], EVERY, start);
        sources.handle_sign(Source::Output);
        sources.handle_sign(Source::Output);
        assert_eq!(sources.poll_timeout(), Some(start + EVERY));
        assert!(sources.take_beat(start + EVERY));
        assert!(!sources.take_beat(start + 3 * EVERY));
    }

    #[test]
    fn a_stopped_command_sends_no_beat_until_it_goes_on() {
        let start = Instant::now();
        let mut sources = Sources::new(&[Source::Alive], EVERY, start);
        sources.set_stopped(true);
        assert_eq!(sources.poll_timeout(), None);
        assert!(!sources.take_beat(start + 9 * EVERY));
        sources.set_stopped(false);
        assert!(sources.take_beat(start + 9 * EVERY));
    }
}

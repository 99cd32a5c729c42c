//! Limits on the lines about agents: no agent, and no number of them, fills a disk or hides the alarms of others.
//!
//! A line needs room in two limits: that of its agent for lines of this kind to this verdict, so that one that goes
//! up and down without end takes a small part of the log and its death is a line all the same, and that of its
//! kind. What finds none is left out, counted, and told every [`TOLD_EVERY`].

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::time::Duration;

use crate::base::rate_limit::{RateLimit, Usage};
use crate::base::time::MonoTime;
use crate::domain::agent_key::AgentKey;
use crate::domain::beat::Transport;
use crate::domain::tracker::Transition;
use crate::services::log::names::NameCounts;

/// The lines of one agent of a kind and to a verdict at once, and the time after which it may have as many again:
/// two lines a minute.
const OF_AGENT: NonZeroU32 = NonZeroU32::new(20).expect("more than zero");
const OF_AGENT_WITHIN: Duration = Duration::from_secs(600);
/// The same for all lines of a kind: ten lines a second.
const OF_KIND: NonZeroU32 = NonZeroU32::new(1_000).expect("more than zero");
const OF_KIND_WITHIN: Duration = Duration::from_secs(100);
/// The places for what agents have used of their limits. They are spread over them at random; two in one place
/// share its limit.
const PLACES: usize = 4_096;
/// How often it is told what was left out.
pub(super) const TOLD_EVERY: Duration = Duration::from_secs(10);

/// What a line is, by what it says and by how easily it is provoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineKind {
    /// Something is wrong.
    Alarm,
    /// Any other change of verdict.
    Change,
    /// A changed status, or a panic: an agent can report that at any rate.
    Report,
    /// About an agent in plaintext, which anybody in the network can make up.
    Plaintext,
}

impl LineKind {
    pub(super) const ALL: [LineKind; 4] =
        [LineKind::Alarm, LineKind::Change, LineKind::Report, LineKind::Plaintext];

    fn of(transition: &Transition) -> Self {
        match transition.agent.origin.transport() {
            Transport::Udp => LineKind::Plaintext,
            Transport::Unix | Transport::Shm | Transport::Notify | Transport::SecureUdp
                if transition.is_report() =>
            {
                LineKind::Report
            }
            Transport::Unix | Transport::Shm | Transport::Notify | Transport::SecureUdp
                if transition.to.is_alarm() =>
            {
                LineKind::Alarm
            }
            Transport::Unix | Transport::Shm | Transport::Notify | Transport::SecureUdp => LineKind::Change,
        }
    }

    /// The value of the metric label `kind`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            LineKind::Alarm => "alarm",
            LineKind::Change => "change",
            LineKind::Report => "report",
            LineKind::Plaintext => "plaintext",
        }
    }
}

/// The limits, and what was left out since that was told last.
#[derive(Debug)]
pub(super) struct LineLimits {
    of_agent: RateLimit,
    of_kind: RateLimit,
    agents: Box<[Usage; PLACES]>,
    kinds: [Usage; LineKind::ALL.len()],
    places: RandomState,
    omitted: Option<Omitted>,
}

/// What was left out within a time.
#[derive(Debug)]
pub(super) struct Omitted {
    since: MonoTime,
    /// By kind.
    lines: [u64; LineKind::ALL.len()],
    names: NameCounts,
}

impl LineLimits {
    pub(super) fn new() -> Self {
        LineLimits {
            of_agent: RateLimit::within(OF_AGENT, OF_AGENT_WITHIN),
            of_kind: RateLimit::within(OF_KIND, OF_KIND_WITHIN),
            agents: Box::new([Usage::default(); PLACES]),
            kinds: Default::default(),
            places: RandomState::new(),
            omitted: None,
        }
    }

    /// Takes room for the line of a transition.
    ///
    /// # Errors
    ///
    /// The kind of the line, if there is no room: it is left out.
    pub(super) fn try_take(&mut self, transition: &Transition, now: MonoTime) -> Result<(), LineKind> {
        let kind = LineKind::of(transition);
        let place = self.place_of(transition);
        let of_agent = &mut self.agents[place];
        let has_room = self.of_agent.next_at(*of_agent) <= now;
        if has_room && self.of_kind.try_take(&mut self.kinds[kind as usize], now) {
            self.of_agent.take(of_agent, now);
            return Ok(());
        }
        let omitted = self.omitted.get_or_insert_with(|| Omitted {
            since: now,
            lines: Default::default(),
            names: NameCounts::default(),
        });
        omitted.lines[kind as usize] += 1;
        omitted.names.add(&transition.agent.name);
        Err(kind)
    }

    fn place_of(&self, transition: &Transition) -> usize {
        let line =
            (AgentKey::of(&transition.agent), LineKind::of(transition).as_str(), transition.to.as_str());
        let [low, high, ..] = self.places.hash_one(line).to_ne_bytes();
        usize::from(u16::from_ne_bytes([low, high])) % PLACES
    }

    /// When it is to be told what was left out; `None` if nothing was.
    pub(super) fn told_at(&self) -> Option<MonoTime> {
        self.omitted.as_ref().map(|omitted| omitted.since + TOLD_EVERY)
    }

    /// Takes what was left out, if it is to be told.
    pub(super) fn poll_omitted(&mut self, now: MonoTime) -> Option<Omitted> {
        self.omitted.take_if(|omitted| omitted.since + TOLD_EVERY <= now)
    }

    /// Takes what was left out, at the end.
    pub(super) fn take_omitted(&mut self) -> Option<Omitted> {
        self.omitted.take()
    }
}

impl Omitted {
    /// All lines that were left out.
    pub(super) fn count(&self) -> u64 {
        self.lines.iter().sum()
    }
}

/// The counts by kind and by name, and where all of it is to be found.
impl fmt::Display for Omitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = LineKind::ALL.iter().zip(self.lines).filter(|(_, count)| *count > 0);
        let kinds: Vec<_> = kinds.map(|(kind, count)| format!("{} {count}", kind.as_str())).collect();
        write!(
            f,
            "{} lines about agents were left out: by kind {}, by name {}; an agent has {OF_AGENT} lines of \
             each kind to each verdict at once and two a minute, and a kind {OF_KIND} and ten a second; metrics, alerts and \
             the events file have all changes",
            self.count(),
            kinds.join(", "),
            self.names
        )
    }
}

#[cfg(test)]
mod tests {
    use varta_proto::Status;

    use super::*;
    use crate::domain::beat::Origin;
    use crate::domain::tracker::tests::sample;
    use crate::domain::tracker::{Cause, Verdict};

    fn stalled(pid: u32) -> Transition {
        sample::transition("worker").pid(pid).to(Verdict::Stalled, Cause::Silent)
    }

    fn recovered(pid: u32) -> Transition {
        sample::transition("worker").pid(pid).to(Verdict::Up(Status::Ok), Cause::Recovered)
    }

    fn reported(pid: u32) -> Transition {
        sample::transition("worker").pid(pid).to(Verdict::Up(Status::Critical), Cause::Reported)
    }

    fn in_plaintext(pid: u32) -> Transition {
        let mut transition = stalled(pid);
        transition.agent.origin = Origin::Udp("192.0.2.1".parse().unwrap());
        transition
    }

    fn taken(
        limits: &mut LineLimits,
        now: MonoTime,
        transitions: impl IntoIterator<Item = Transition>,
    ) -> usize {
        transitions.into_iter().filter(|transition| limits.try_take(transition, now).is_ok()).count()
    }

    #[test]
    fn an_agent_that_goes_up_and_down_without_end_has_a_few_lines_and_hides_nobody() {
        let mut limits = LineLimits::new();
        let mut now = MonoTime::from_secs(1_000);
        let mut lines = 0;
        for _ in 0..60_000 {
            lines += taken(&mut limits, now, [stalled(7), recovered(7)]);
            now = now + Duration::from_millis(10);
        }
        // Ten minutes of it.
        assert_eq!(lines, 2 * (20 + 19));
        let used = [stalled(7), recovered(7)].map(|transition| limits.place_of(&transition));
        let is_free = |pid: &u32| {
            [stalled(*pid), recovered(*pid)].iter().all(|of| !used.contains(&limits.place_of(of)))
        };
        let other = (8..).find(is_free).unwrap();
        assert_eq!(taken(&mut limits, now, [stalled(other), recovered(other)]), 2);
    }

    #[test]
    fn what_an_agent_reports_and_how_often_it_stalls_hides_neither_its_silence_nor_its_death() {
        let mut limits = LineLimits::new();
        let now = MonoTime::from_secs(1_000);
        let down = |pid| sample::transition("worker").pid(pid).to(Verdict::Down, Cause::Killed { signal: 9 });
        // Three places of their own.
        let is_apart = |pid: &u32| {
            let mut places = [reported(*pid), stalled(*pid), down(*pid)].map(|of| limits.place_of(&of));
            places.sort_unstable();
            places.windows(2).all(|pair| pair[0] != pair[1])
        };
        let pid = (7..).find(is_apart).unwrap();
        assert_eq!(taken(&mut limits, now, (0..100).map(|_| reported(pid))), 20);
        assert_eq!(taken(&mut limits, now, (0..100).map(|_| stalled(pid))), 20);
        assert_eq!(limits.try_take(&down(pid), now), Ok(()));
    }

    #[test]
    fn the_first_alarms_after_a_quiet_time_are_shown_however_many_agents_they_are_about() {
        let mut limits = LineLimits::new();
        let now = MonoTime::from_secs(1_000);
        let first = taken(&mut limits, now, (2..502).map(stalled));
        assert_eq!(first, 500);
        // A storm takes all that is left, and ten lines a second from then on.
        let storm = |limits: &mut LineLimits, now| taken(limits, now, (1_000..11_000).map(stalled));
        assert_eq!(storm(&mut limits, now), 500);
        assert!(
            (1..=10).map(|second| storm(&mut limits, now + Duration::from_secs(second))).all(|n| n == 10)
        );
        // A kind has its own limit.
        assert_eq!(
            taken(&mut limits, now + Duration::from_secs(10), [recovered(20_000), reported(20_001)]),
            2
        );
        let quiet = now + Duration::from_secs(10) + OF_KIND_WITHIN;
        assert_eq!(taken(&mut limits, quiet, (20_002..20_502).map(stalled)), 500);
    }

    #[test]
    fn reports_and_agents_in_plaintext_hide_no_alarm() {
        let mut limits = LineLimits::new();
        let now = MonoTime::from_secs(1_000);
        assert_eq!(taken(&mut limits, now, (2..5_000).map(in_plaintext)), 1_000);
        assert_eq!(taken(&mut limits, now, (5_000..9_000).map(reported)), 1_000);
        assert_eq!(limits.try_take(&in_plaintext(1), now), Err(LineKind::Plaintext));
        assert_eq!(limits.try_take(&reported(1), now), Err(LineKind::Report));
        assert_eq!(limits.try_take(&stalled(1), now), Ok(()));
    }

    #[test]
    fn what_was_left_out_is_told_once_in_ten_seconds_by_kind_and_name() {
        let mut limits = LineLimits::new();
        let now = MonoTime::from_secs(1_000);
        taken(&mut limits, now, (0..20).map(|_| stalled(7)));
        assert_eq!(limits.told_at(), None);
        taken(&mut limits, now, (0..23).map(|_| recovered(7)));
        assert!(limits.try_take(&stalled(7), now + Duration::from_secs(9)).is_err());
        assert_eq!(limits.told_at(), Some(now + TOLD_EVERY));
        assert!(limits.poll_omitted(now + Duration::from_secs(9)).is_none());
        let omitted = limits.poll_omitted(now + TOLD_EVERY).unwrap();
        let told = omitted.to_string();
        let expected = "4 lines about agents were left out: by kind alarm 1, change 3, by name worker 4; ";
        assert!(told.starts_with(expected), "{told}");
        assert_eq!(limits.told_at(), None);
    }

    #[test]
    fn every_kind_is_in_its_place() {
        assert!(LineKind::ALL.iter().enumerate().all(|(place, kind)| place == *kind as usize));
    }
}

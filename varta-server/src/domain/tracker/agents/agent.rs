//! The state of an agent in three parts: a cache line that every beat writes, a part that few beats touch,
//! and one that few agents have.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use varta_proto::{Frame, Status};

use crate::base::rate_limit::Usage;
use crate::base::time::MonoTime;
use crate::domain::beat::{KeyId, Origin, RemoteEndpoint, Transport};
use crate::domain::by_value;
use crate::domain::labels::Labels;
use crate::domain::process::ProcessStart;
use crate::domain::tracker::agents::names::{NameId, NameSource};
use crate::domain::tracker::agents::origins::{SourceId, Sources};
use crate::domain::tracker::agents::progress::ProgressWatch;
use crate::domain::tracker::agents::session::{FramePosition, Handles, Newest, OtherSessions, Session};
use crate::domain::tracker::agents::slot_flags::SlotFlags;
use crate::domain::tracker::verdicts::transition::{LastReport, Twin};
use crate::domain::tracker::verdicts::verdict::Verdict;

/// The key by which the table finds an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::domain::tracker) struct IndexKey {
    pub(in crate::domain::tracker) source: SourceId,
    pub(in crate::domain::tracker) pid: u32,
    /// Changes when a remote agent reconnects.
    pub(in crate::domain::tracker) lane: RemoteEndpoint,
}

impl IndexKey {
    /// The key of a process of this host.
    pub(in crate::domain::tracker) const fn local(pid: u32) -> Self {
        IndexKey { source: SourceId::LOCAL, pid, lane: RemoteEndpoint { port: 0, key: KeyId(0) } }
    }
}

/// The part of an agent that a beat writes: one cache line and not parts of two, so that a beat costs one
/// memory access however many agents there are.
#[derive(Debug, Serialize, Deserialize)]
#[repr(align(64))]
pub(in crate::domain::tracker) struct AgentHot {
    pub(in crate::domain::tracker) session: Session,
    /// The time of the last beat in any session; a beat that was refused only for its rate counts.
    pub(in crate::domain::tracker) last_beat: MonoTime,
    /// Beats accepted from this incarnation.
    pub(in crate::domain::tracker) beats: u64,
    pub(in crate::domain::tracker) usage: Usage,
    pub(in crate::domain::tracker) key: IndexKey,
    pub(in crate::domain::tracker) payload: u32,
    /// Of an agent that is stalled, down or gone: the milliseconds without a beat after which it was called that; 0
    /// when that is not known. Of any other whose progress is watched: when its counter moved last, see
    /// [`AgentHot::moved_at`].
    pub(in crate::domain::tracker) fell_after: u32,
    /// `None` for a vacant slot.
    pub(in crate::domain::tracker) verdict: Option<Verdict>,
    /// The last reported status, which a stalled agent keeps.
    #[serde(with = "by_value::status")]
    pub(in crate::domain::tracker) status: Status,
    /// Whether the newest frame was terminal.
    pub(in crate::domain::tracker) terminal: bool,
    pub(in crate::domain::tracker) flags: SlotFlags,
}

const _: () = assert!(size_of::<AgentHot>() <= 64, "a slot is one cache line");

/// The part of an agent that only a first beat, a transition or a scrape needs.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::domain::tracker) struct AgentCold {
    /// When the process was started, and which of those that were started then it is; `None` where that could not
    /// be read.
    pub(in crate::domain::tracker) started: Option<ProcessStart>,
    pub(in crate::domain::tracker) extra: Option<Box<AgentRare>>,
    /// Beats that this incarnation sent, by its nonces, and that did not arrive; saturates.
    pub(in crate::domain::tracker) lost: u32,
    pub(crate) name: NameId,
    /// How often this agent was called stalled.
    pub(in crate::domain::tracker) stalls: u32,
    pub(in crate::domain::tracker) twin: Twin,
    pub(in crate::domain::tracker) inquiry: Inspection,
    /// Whether the process is known to be gone.
    pub(in crate::domain::tracker) is_dead: bool,
    pub(in crate::domain::tracker) name_source: NameSource,
}

/// The part that few agents have.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::domain::tracker) struct AgentRare {
    pub(in crate::domain::tracker) sessions: OtherSessions,
    /// The stall timeout that a rule sets for its name.
    pub(in crate::domain::tracker) ruled: Option<Duration>,
    /// The stall timeout that follows from what the agent said of itself, within bounds.
    pub(in crate::domain::tracker) asked: Option<AskedTimeout>,
    /// Until when the agent may be silent because it requested that ("busy until").
    pub(in crate::domain::tracker) busy_until: MonoTime,
    /// How long the agent was silent before this server knew it, if it has not beaten since.
    pub(in crate::domain::tracker) silent_before: Duration,
    /// Whether it may have been silent for longer than that. Cleared with the transition that a beat causes.
    pub(in crate::domain::tracker) silent_at_least: bool,
    /// How often it was called stalled although it was beating.
    pub(in crate::domain::tracker) false_positives: u32,
    /// The labels that the agent sent.
    #[serde(with = "by_value::labels")]
    pub(in crate::domain::tracker) labels: Labels,
    /// The unit that the agent runs in, if its name is another.
    pub(in crate::domain::tracker) unit: Option<Arc<str>>,
    /// Its status in its own words.
    pub(in crate::domain::tracker) said: Option<Arc<str>>,
    /// The user whose process it is, where that matters.
    pub(in crate::domain::tracker) uid: Option<u32>,
    /// The child of its process that does its work, by the pid that it has for its parent.
    pub(in crate::domain::tracker) child: Option<NonZeroU32>,
    /// How its progress is watched.
    pub(in crate::domain::tracker) progress: ProgressWatch,
}

/// The stall timeout that follows from what an agent said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::domain::tracker) enum AskedTimeout {
    /// It requested this timeout.
    Requested(Duration),
    /// It announced the interval between its beats, and this is three of them: where nothing else is known
    /// of the agent it holds in place of the default.
    Intervals(Duration),
}

impl AskedTimeout {
    /// The number of intervals that an agent may be silent if it requests no timeout but sends its interval.
    pub(in crate::domain::tracker) const INTERVALS: u32 = 3;

    pub(in crate::domain::tracker) const fn timeout(self) -> Duration {
        match self {
            AskedTimeout::Requested(timeout) | AskedTimeout::Intervals(timeout) => timeout,
        }
    }
}

/// How far the process of a silent agent has been inspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::domain::tracker) enum Inspection {
    /// Not at all.
    None,
    /// A quick sample was taken, at half of the silence.
    Sampled,
    /// A full inspection is under way, and the verdict waits for it for a moment.
    Looking,
    /// Beats may have been lost or not observed, and the agent is in grace.
    InGrace,
    /// Its beats may have been refused, and the queue of its socket has had no room for long enough.
    AwaitsRoom,
    /// The grace is over, and a last inspection is under way.
    LookingAgain,
}

/// Whether an agent writes beats to a shared memory page, of which the server sees some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::domain::tracker) enum PageUse {
    /// The agent sends only datagrams.
    None,
    /// The agent has a page, and its newest beat there must be read before its silence counts.
    Unread,
    /// A read of the page has been requested.
    Read,
}

const _: () = assert!(
    size_of::<AgentHot>() + size_of::<AgentCold>() <= 96,
    "with index and timer an agent takes 128 bytes at the most"
);

impl AgentRare {
    pub(in crate::domain::tracker) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
            && self.ruled.is_none()
            && self.asked.is_none()
            && self.busy_until == MonoTime::START
            && self.silent_before == Duration::ZERO
            && !self.silent_at_least
            && self.false_positives == 0
            && self.labels.is_empty()
            && self.unit.is_none()
            && self.said.is_none()
            && self.uid.is_none()
            && self.child.is_none()
            && self.progress == ProgressWatch::default()
    }
}

impl AgentCold {
    /// The start time of the process, in the kernel's ticks since boot.
    pub(in crate::domain::tracker) fn start_time(&self) -> Option<NonZeroU64> {
        self.started.map(ProcessStart::time)
    }

    /// How long it was silent before this server's start; zero if it has beaten since.
    pub(in crate::domain::tracker) fn silent_before(&self) -> Duration {
        self.extra.as_ref().map_or(Duration::ZERO, |extra| extra.silent_before)
    }

    /// Whether its silence may be longer than is known.
    pub(in crate::domain::tracker) fn silent_at_least(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.silent_at_least)
    }

    /// The stall timeout that a rule sets, or else the one that the agent requested.
    pub(in crate::domain::tracker) fn requested_timeout(&self) -> Option<Duration> {
        let extra = self.extra.as_ref()?;
        extra.ruled.or(match extra.asked {
            Some(AskedTimeout::Requested(timeout)) => Some(timeout),
            Some(AskedTimeout::Intervals(_)) | None => None,
        })
    }

    /// Three of the intervals that the agent announced, if it requested no timeout.
    pub(in crate::domain::tracker) fn three_intervals(&self) -> Option<Duration> {
        match self.extra.as_ref()?.asked {
            Some(AskedTimeout::Intervals(timeout)) => Some(timeout),
            Some(AskedTimeout::Requested(_)) | None => None,
        }
    }

    /// The cold part of a new agent.
    pub(crate) fn new(name: NameId, started: Option<ProcessStart>, twin: Twin) -> Self {
        AgentCold {
            started,
            extra: None,
            lost: 0,
            name,
            stalls: 0,
            twin,
            inquiry: Inspection::None,
            is_dead: false,
            name_source: NameSource::Common,
        }
    }
}

impl AgentHot {
    /// The hot part of a new agent, by its first frame.
    pub(in crate::domain::tracker) fn first_heard(key: IndexKey, frame: &Frame, at: MonoTime) -> Self {
        AgentHot {
            session: if frame.is_terminal() { Session::UNHEARD } else { Session::of(frame) },
            last_beat: at,
            beats: 1,
            usage: Usage::default(),
            key,
            payload: frame.payload,
            fell_after: 0,
            verdict: Some(Verdict::Up(frame.status)),
            status: frame.status,
            terminal: frame.is_terminal(),
            flags: SlotFlags::default(),
        }
    }

    /// Whether beats that did not arrive may have been written to a shared memory page, and overwritten
    /// there.
    #[inline]
    pub(in crate::domain::tracker) const fn has_page(&self) -> bool {
        self.flags.has(SlotFlags::PAGE)
    }

    /// How the agent uses a shared memory page.
    pub(in crate::domain::tracker) const fn page(&self) -> PageUse {
        match (self.has_page(), self.flags.has(SlotFlags::PAGE_IS_READ)) {
            (false, _) => PageUse::None,
            (true, false) => PageUse::Unread,
            (true, true) => PageUse::Read,
        }
    }

    /// Sets how the agent uses a shared memory page.
    pub(in crate::domain::tracker) const fn set_page(&mut self, page: PageUse) {
        let (has_page, is_read) = (!matches!(page, PageUse::None), matches!(page, PageUse::Read));
        self.flags = self.flags.with(SlotFlags::PAGE, has_page).with(SlotFlags::PAGE_IS_READ, is_read);
    }

    /// Whether anything is stored of sessions other than the newest.
    #[inline]
    pub(in crate::domain::tracker) const fn has_others(&self) -> bool {
        self.flags.has(SlotFlags::SESSIONS)
    }

    const fn set_others(&mut self, has_others: bool) {
        self.flags = self.flags.with(SlotFlags::SESSIONS, has_others);
    }

    /// The same without other sessions, for another agent that continues the newest.
    pub(in crate::domain::tracker) const fn without_others(mut self) -> Self {
        self.set_others(false);
        self
    }

    /// The transport and address that it beats from.
    pub(in crate::domain::tracker) fn origin(&self, sources: &Sources) -> Origin {
        if self.is_notify() { Origin::Notify } else { sources.origin(self.key.source) }
    }

    /// The transport that it beats over.
    pub(in crate::domain::tracker) fn transport(&self, sources: &Sources) -> Transport {
        self.origin(sources).transport()
    }

    /// Whether it is known by sd_notify(3).
    pub(in crate::domain::tracker) const fn is_notify(&self) -> bool {
        self.flags.has(SlotFlags::NOTIFY)
    }

    /// The same agent, known by beats from `origin`.
    pub(in crate::domain::tracker) const fn from(mut self, origin: Origin) -> Self {
        self.flags = self.flags.with(SlotFlags::NOTIFY, matches!(origin, Origin::Notify));
        self
    }

    /// Whether no beat is awaited of it: it is watched by its process alone.
    #[inline]
    pub(in crate::domain::tracker) const fn is_unawaited(&self) -> bool {
        self.flags.has(SlotFlags::UNAWAITED)
    }

    /// Sets whether no beat is awaited of it.
    pub(in crate::domain::tracker) const fn set_unawaited(&mut self, is_unawaited: bool) {
        self.flags = self.flags.with(SlotFlags::UNAWAITED, is_unawaited);
    }

    /// Whether it is stalled because of what its run is to a job, which no beat ends: it takes too long, or overlaps.
    pub(in crate::domain::tracker) const fn is_held_by_job(&self) -> bool {
        self.flags.has(SlotFlags::HELD_BY_JOB)
    }

    /// Sets whether it is stalled because of its run.
    pub(in crate::domain::tracker) const fn set_held_by_job(&mut self, is_held: bool) {
        self.flags = self.flags.with(SlotFlags::HELD_BY_JOB, is_held);
    }

    /// Whether the agent is down or gone.
    pub(in crate::domain::tracker) fn has_departed(&self) -> bool {
        matches!(self.verdict, Some(Verdict::Down | Verdict::Gone))
    }

    /// Forgets all sessions and starts with this one.
    pub(in crate::domain::tracker) fn begin_anew(&mut self, rest: &mut AgentCold, session: Session) {
        self.session = session;
        self.set_others(false);
        if let Some(extra) = &mut rest.extra {
            extra.sessions = OtherSessions::default();
        }
    }

    /// Finds the frame's place among the sessions of the process; an accepted frame becomes the newest of its
    /// session.
    #[inline]
    pub(in crate::domain::tracker) fn place(
        &mut self,
        rest: &mut AgentCold,
        frame: &Frame,
        at: MonoTime,
    ) -> FramePosition {
        if !self.has_others()
            && let Some((lost, wrapped)) = self.session.followed_by(frame)
        {
            self.session = Session::of(frame);
            return FramePosition::Next { lost, wrapped };
        }
        let extra = rest.extra.get_or_insert_default();
        let handles = self.handles();
        let mut newest = self.newest();
        let place = extra.sessions.place(&mut newest, frame, at, handles);
        let has_others = !extra.sessions.is_empty();
        self.set_others(has_others);
        if extra.is_empty() {
            rest.extra = None;
        }
        place
    }

    /// Closes the session whose last beat was `last`. Returns whether it was the agent's only session that
    /// still beat.
    pub(in crate::domain::tracker) fn say_goodbye(
        &mut self,
        rest: &mut AgentCold,
        last: Session,
        at: MonoTime,
        stall_after: Duration,
    ) -> bool {
        let handles = self.handles();
        let extra = rest.extra.get_or_insert_default();
        let left = extra.sessions.close(&mut self.newest(), last, at, stall_after, handles);
        let has_others = !extra.sessions.is_empty();
        self.set_others(has_others);
        if extra.is_empty() {
            rest.extra = None;
        }
        left
    }

    /// Whether several sessions of the agent beat, as of its last beat.
    pub(in crate::domain::tracker) fn has_several(&self, rest: &AgentCold) -> bool {
        let others_beat =
            || rest.extra.as_ref().is_some_and(|extra| extra.sessions.have_beaten(self.last_beat));
        self.has_others() && self.handles() == Handles::Several && others_beat()
    }

    fn newest(&mut self) -> Newest<'_> {
        Newest { session: &mut self.session, heard_at: self.last_beat }
    }

    pub(in crate::domain::tracker) fn handles(&self) -> Handles {
        if self.key.source == SourceId::LOCAL { Handles::Several } else { Handles::OneAtATime }
    }

    /// Records a frame that was refused only for its rate. The frame did arrive, so it must not count as lost
    /// later; and it proves that the agent is alive, so its silence starts again. Returns whether it is the
    /// next of the agent's only session.
    pub(in crate::domain::tracker) fn note_limited(&mut self, frame: &Frame, at: MonoTime) -> bool {
        let follows = self.session.followed_by(frame).is_some();
        if follows || self.has_others() {
            self.last_beat = at;
        }
        let is_next = follows && !self.has_others();
        if is_next {
            self.session = Session::of(frame);
        }
        is_next
    }

    /// Records an accepted frame.
    #[inline]
    pub(in crate::domain::tracker) fn accept(&mut self, frame: &Frame, at: MonoTime) {
        self.last_beat = at;
        self.beats += 1;
        self.payload = frame.payload;
        self.status = frame.status;
        self.terminal = frame.is_terminal();
    }

    pub(in crate::domain::tracker) fn last_word(&self) -> LastReport {
        LastReport { status: self.status, payload: self.payload, terminal: self.terminal, beats: self.beats }
    }
}

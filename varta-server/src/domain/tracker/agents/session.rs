//! The sessions of a process: which of them a frame belongs to, and whether it is new there.
//!
//! The wire names no session: a process that opens a second handle, re-creates its handle or calls `exec`
//! simply starts again at nonce 1, and none of that is a replay. But nonce and timestamp only ever rise
//! within a session, and a session's clock starts when its handle connects, so that "received minus
//! timestamp" distinguishes the sessions of a process.
//!
//! Local and remote agents differ in two things. A process of this host may have many handles, and its
//! datagrams arrive in order. A port of another host has one handle at a time, and its datagrams may arrive
//! late, twice and in any order: a frame that is older than its session never opens another, unless it comes
//! too late for that.

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use varta_proto::{Frame, NONCE_TERMINAL};

use crate::base::time::MonoTime;

/// The number of nonces before and after the wrap between which a jump counts as a wrap, with the frames in
/// between lost.
const WRAP_WINDOW: u64 = 1 << 20;
/// The maximum number of sessions of one process besides the newest, as many as a program has threads with a
/// handle each; the one silent for longest makes room.
pub(crate) const MAX_OTHER_SESSIONS: usize = 255;
/// The maximum number of stray frames: frames that fit no session.
const MAX_STRAYS: usize = 16;
/// How long a stray frame is kept.
const STRAYS_KEPT: Duration = Duration::from_secs(600);
/// A first frame that is repeated within this time is a duplicate; later it is more likely that of a client
/// with a coarse clock, which makes a handle for each beat.
const OPENING_REPEATED_WITHIN: Duration = Duration::from_millis(20);
/// How far a sender's clock may seem to drift from ours between two frames that open a session together, and
/// how much longer than another a frame may take.
const CLOCK_SLACK_NANOS: u128 = 1_000_000_000;

/// The same from a port of another host: a repeated first frame is within this time a duplicate that the
/// network made.
const OPENING_DOUBLED_WITHIN: Duration = Duration::from_secs(1);
/// How much later than another a frame may come that a network delays; one that would be later is of another
/// session.
const LATE_NANOS: i128 = 3_000_000_000;
/// The maximum number of sessions of a port besides the newest, and how long they are kept. After that time
/// another session of a process counts as abandoned.
const MAX_FORMER_SESSIONS: usize = 8;
const FORMER_KEPT: Duration = Duration::from_secs(60);

/// How many handles a sender may have at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handles {
    /// A process of this host: any number, all of which may beat.
    Several,
    /// A port of another host: one.
    OneAtATime,
}

/// A session, by the newest frame that was accepted in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) nonce: u64,
    pub(crate) timestamp: u64,
}

/// A session that is not the newest.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Other {
    session: Session,
    heard_at: MonoTime,
}

/// The newest session: the one that beat last, in its place in the agent.
#[derive(Debug)]
pub(crate) struct Newest<'a> {
    pub(crate) session: &'a mut Session,
    pub(crate) heard_at: MonoTime,
}

impl Newest<'_> {
    fn as_other(&self) -> Other {
        Other { session: *self.session, heard_at: self.heard_at }
    }

    /// Whether this session had replaced the other before `frame` of that was sent.
    fn had_replaced(&self, other: &Other, frame: &Frame) -> bool {
        let (began, other_began) = (self.session.start(self.heard_at), other.session.start(other.heard_at));
        other_began < began && other_began + i128::from(frame.timestamp) <= began + LATE_NANOS
    }
}

/// The sessions of a process other than the newest. Most processes have none.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct OtherSessions {
    others: Vec<Other>,
    /// Frames that fit no session. When another frame follows a stray at the pace of real time, the two are
    /// of a session whose first frames were lost.
    strays: Vec<Other>,
    /// The goodbye of the newest session, if nothing of the session came after it.
    closed: Option<Closed>,
}

/// The goodbye of a session.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Closed {
    at: MonoTime,
    /// The newest frame before it. The clock of the goodbye has replaced it in the session, which would not
    /// recognise a duplicate of the frame.
    newest: Other,
}

/// The place of a frame among the known sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FramePosition {
    /// The next frame of a session, after `lost` frames that did not arrive.
    Next { lost: u64, wrapped: bool },
    /// The first frame of a session.
    Opens,
    /// A duplicate of the newest frame of a session.
    Duplicate,
    /// An old frame, or one that fits no session.
    OutOfOrder,
}

impl Session {
    /// A session of which no beat is known, such as that of an agent that has sent only a terminal frame; any
    /// frame follows it.
    pub(crate) const UNHEARD: Session = Session { nonce: NONCE_TERMINAL, timestamp: 0 };

    pub(crate) fn of(frame: &Frame) -> Self {
        Session { nonce: frame.nonce, timestamp: frame.timestamp }
    }

    /// Whether `frame` can be a later one of this session: the number of frames missing in between, and
    /// whether the nonce wrapped.
    #[inline]
    pub(crate) fn followed_by(&self, frame: &Frame) -> Option<(u64, bool)> {
        if frame.timestamp < self.timestamp {
            None
        } else if frame.nonce > self.nonce {
            Some((frame.nonce - self.nonce - 1, false))
        } else if *self == Session::UNHEARD {
            Some((0, false))
        } else if self.nonce >= NONCE_TERMINAL - WRAP_WINDOW && frame.nonce < WRAP_WINDOW {
            // The last ordinary nonce is NONCE_TERMINAL - 1; after it comes 0.
            Some((NONCE_TERMINAL - 1 - self.nonce + frame.nonce, true))
        } else {
            None
        }
    }

    /// Whether a goodbye after the beat `last` can be that of this session.
    pub(crate) fn ends_with(&self, last: Session) -> bool {
        *self == Session::UNHEARD || last.nonce >= self.nonce && last.timestamp >= self.timestamp
    }

    /// Whether `frame` is a duplicate of the newest frame. A timestamp of 0 proves nothing: a client that
    /// re-creates its handle for each beat may send the same bytes each time and yet be alive. So may one
    /// with a coarse clock.
    fn is_repeated_by(
        &self,
        heard_at: MonoTime,
        frame: &Frame,
        received_at: MonoTime,
        handles: Handles,
    ) -> bool {
        let within = match handles {
            Handles::Several => OPENING_REPEATED_WITHIN,
            Handles::OneAtATime => OPENING_DOUBLED_WITHIN,
        };
        let same = *self == Session::of(frame) && frame.timestamp != 0;
        same && (frame.nonce != 1 || received_at.since(heard_at) < within)
    }

    /// Whether `frame` is of this session, and older than its newest frame.
    fn was_before(&self, heard_at: MonoTime, frame: &Frame, received_at: MonoTime) -> bool {
        let is_older = frame.nonce <= self.nonce && frame.timestamp <= self.timestamp;
        // A session has one first frame. The same again, too late for a duplicate, is of another session.
        let is_another_first = frame.nonce == 1 && self.nonce == 1;
        let late = start(frame.timestamp, received_at) - self.start(heard_at);
        is_older && !is_another_first && late < LATE_NANOS
    }

    /// The start of its clock, by the newest frame.
    fn start(&self, heard_at: MonoTime) -> i128 {
        start(self.timestamp, heard_at)
    }

    /// The latest time at which `frame` was sent, if it is of this session, in nanoseconds: its timestamp
    /// after the start of the clock, which is the earlier of those by the newest frame and by this one.
    pub(crate) fn sent(&self, heard_at: MonoTime, frame: &Frame, received_at: MonoTime) -> i128 {
        self.start(heard_at).min(start(frame.timestamp, received_at)) + i128::from(frame.timestamp)
    }

    /// The difference between the start of this session and the start that `frame` suggests, in nanoseconds.
    pub(crate) fn distance(&self, heard_at: MonoTime, frame: &Frame, received_at: MonoTime) -> u128 {
        self.start(heard_at).abs_diff(start(frame.timestamp, received_at))
    }
}

/// The start of a clock that showed `timestamp` at `heard_at`, in nanoseconds; it may be negative.
fn start(timestamp: u64, heard_at: MonoTime) -> i128 {
    i128::from(heard_at.as_nanos()) - i128::from(timestamp)
}

impl OtherSessions {
    /// Whether nothing is stored.
    pub(crate) fn is_empty(&self) -> bool {
        self.others.is_empty() && self.strays.is_empty() && self.closed.is_none()
    }

    /// Whether a session other than the newest has beaten a short while before `at`.
    pub(crate) fn have_beaten(&self, at: MonoTime) -> bool {
        self.others.iter().any(|other| at.since(other.heard_at) < FORMER_KEPT)
    }

    /// When the newest session said goodbye; [`MonoTime::START`] if it did not.
    fn closed_at(&self) -> MonoTime {
        self.closed.map_or(MonoTime::START, |closed| closed.at)
    }

    /// Closes the session whose last beat was `last`, by a goodbye at `at`. Returns whether it was the only
    /// session that still beat: one that was silent for `stall_after` does not count, and neither does one
    /// that this session replaced.
    ///
    /// Frames of the session that come after it are late, and old.
    pub(crate) fn close(
        &mut self,
        current: &mut Newest<'_>,
        last: Session,
        at: MonoTime,
        stall_after: Duration,
        handles: Handles,
    ) -> bool {
        let newest = self.closed.map_or(current.as_other(), |closed| closed.newest);
        current.heard_at = current.heard_at.max(self.closed_at());
        let said = start(last.timestamp, at);
        let distance = |session: &Session, heard_at: MonoTime| {
            session.ends_with(last).then_some(session.start(heard_at).abs_diff(said))
        };
        let of_current = distance(current.session, current.heard_at);
        let nearest = (0..self.others.len())
            .filter_map(|index| {
                let Other { session, heard_at, .. } = &self.others[index];
                Some((distance(session, *heard_at)?, index))
            })
            .min();
        let is_sure = |distance: u128| handles == Handles::OneAtATime && distance < LATE_NANOS.unsigned_abs();
        let is_current = of_current.is_some_and(|of_current| {
            is_sure(of_current) || nearest.is_none_or(|(distance, _)| of_current <= distance)
        });
        let nearest = nearest.map(|(_, index)| index);
        match handles {
            Handles::OneAtATime => {
                let former = nearest.map(|index| &mut self.others[index].session);
                if let Some(session) = if is_current { Some(&mut *current.session) } else { former } {
                    *session = last;
                }
                if is_current {
                    self.closed = Some(Closed { at, newest });
                }
                is_current
            }
            Handles::Several if is_current => {
                let newest = (0..self.others.len()).max_by_key(|index| self.others[*index].heard_at);
                let Some(newest) = newest.map(|index| self.others.swap_remove(index)) else {
                    // Whatever the process sends next is of another handle.
                    *current.session = Session::UNHEARD;
                    return true;
                };
                *current.session = newest.session;
                at.since(newest.heard_at) >= stall_after
            }
            Handles::Several => {
                if let Some(index) = nearest {
                    self.others.swap_remove(index);
                }
                false
            }
        }
    }

    /// Finds the session of `frame` among `current` and the others. The session of an accepted frame becomes
    /// the current one; a refused frame changes no session.
    pub(crate) fn place(
        &mut self,
        current: &mut Newest<'_>,
        frame: &Frame,
        received_at: MonoTime,
        handles: Handles,
    ) -> FramePosition {
        let repeats = |Other { session, heard_at }: Other| {
            session.is_repeated_by(heard_at, frame, received_at, handles)
        };
        if self.closed.is_some_and(|closed| repeats(closed.newest)) {
            return FramePosition::Duplicate;
        }
        current.heard_at = current.heard_at.max(self.closed_at());
        self.strays.retain(|stray| received_at.since(stray.heard_at) < STRAYS_KEPT);
        if handles == Handles::OneAtATime {
            self.others.retain(|other| received_at.since(other.heard_at) < FORMER_KEPT);
        }
        match self.find(current, frame, received_at, handles) {
            None => {}
            Some((index, place @ FramePosition::Next { .. })) => {
                if let Some(other) = self.others.get_mut(index) {
                    if handles == Handles::OneAtATime && current.had_replaced(other, frame) {
                        return FramePosition::OutOfOrder;
                    }
                    *other = current.as_other();
                }
                *current.session = Session::of(frame);
                self.closed = None;
                return place;
            }
            Some((_, place)) => return place,
        }
        let fitting = self.strays.iter().enumerate().filter_map(|(index, stray)| {
            stray.session.followed_by(frame)?;
            let distance = stray.session.distance(stray.heard_at, frame, received_at);
            (distance <= CLOCK_SLACK_NANOS).then_some((distance, index))
        });
        let followed = fitting.min().map(|(_, index)| index);
        if let Some(index) = followed {
            self.strays.swap_remove(index);
        }
        if frame.nonce == 1 || followed.is_some() {
            let most = match handles {
                Handles::Several => MAX_OTHER_SESSIONS,
                Handles::OneAtATime => MAX_FORMER_SESSIONS,
            };
            replace_oldest(&mut self.others, most, current.as_other());
            *current.session = Session::of(frame);
            self.closed = None;
            return FramePosition::Opens;
        }
        let stray = Other { session: Session::of(frame), heard_at: received_at };
        replace_oldest(&mut self.strays, MAX_STRAYS, stray);
        FramePosition::OutOfOrder
    }

    /// The session that a frame is the next of, the time of its newest frame, and the number of frames
    /// missing in between.
    pub(crate) fn followed(
        &self,
        current: &Newest<'_>,
        frame: &Frame,
        received_at: MonoTime,
        handles: Handles,
    ) -> Option<(Session, MonoTime, u64)> {
        let (index, place) = self.find(current, frame, received_at, handles)?;
        let FramePosition::Next { lost, .. } = place else { return None };
        let Other { session, heard_at } = self.others.get(index).copied().unwrap_or(current.as_other());
        Some((session, heard_at, lost))
    }

    /// The index of a frame's session, by the clock of the frame, and the frame's place there. The current
    /// session comes after all others.
    fn find(
        &self,
        current: &Newest<'_>,
        frame: &Frame,
        received_at: MonoTime,
        handles: Handles,
    ) -> Option<(usize, FramePosition)> {
        let all = self.others.iter().copied().chain([current.as_other()]);
        let candidates = all.enumerate().filter_map(|(index, Other { session, heard_at })| {
            let place = if session.is_repeated_by(heard_at, frame, received_at, handles) {
                FramePosition::Duplicate
            } else if let Some((lost, wrapped)) = session.followed_by(frame) {
                FramePosition::Next { lost, wrapped }
            } else if handles == Handles::OneAtATime && session.was_before(heard_at, frame, received_at) {
                FramePosition::OutOfOrder
            } else {
                return None;
            };
            let distance = session.distance(heard_at, frame, received_at);
            Some((distance, matches!(place, FramePosition::Next { .. }), index, place))
        });
        // A coarse clock may show one handle what it showed another: on this host no datagram arrives twice,
        // and a port has left its previous handles behind.
        let is_sure = |distance: u128, is_next: bool, index: usize| match handles {
            Handles::Several => is_next,
            Handles::OneAtATime => index == self.others.len() && distance < LATE_NANOS.unsigned_abs(),
        };
        let nearest = candidates.min_by_key(|(distance, is_next, index, _)| {
            (!is_sure(*distance, *is_next, *index), *distance, *is_next)
        });
        nearest.map(|(_, _, index, place)| (index, place))
    }
}

/// Adds an entry, in place of the oldest one if there are `most` already.
fn replace_oldest(list: &mut Vec<Other>, most: usize, new: Other) {
    if list.len() >= most
        && let Some(oldest) = (0..list.len()).min_by_key(|index| list[*index].heard_at)
    {
        list.swap_remove(oldest);
    }
    list.push(new);
}

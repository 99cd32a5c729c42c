//! The schedule of a handle's control datagrams.
//!
//! Most handles send none, and their beats must not pay for them: a beat compares its timestamp with the one
//! at which the next Hello is due, which is [`NEVER`] for those handles.

use std::time::Duration;

use varta_proto::control::{EncodedControl, Goodbye, GoodbyeReason, Hello, MAX_CONTROL_LEN};

use crate::entropy;
use crate::outcome::{BeatOutcome, QUEUE_FULL};
use crate::profile::Profile;
#[cfg(feature = "tokio")]
use crate::profile::ProfileError;
use crate::time::nanoseconds;

/// The delay after a Hello until the next is due. The protocol requires one every 60 s, and it follows the
/// first beat after this delay: an agent that beats every 15 s or more often is in time.
const HELLO_INTERVAL: Duration = Duration::from_secs(45);

/// Later than every timestamp.
const NEVER: u64 = u64::MAX;

/// The header fields of a control datagram that the handle knows.
#[derive(Clone, Copy)]
pub(crate) struct ControlHeader {
    pub(crate) pid: u32,
    pub(crate) timestamp: u64,
    /// The nonce of the last beat.
    pub(crate) nonce: u64,
}

/// The content and the schedule of a handle's control datagrams. All times are timestamps of the session.
pub(crate) struct ControlSchedule {
    /// When a Hello is due. Early rather than late: a restarted server learns the agent's profile from it.
    hello_due: u64,
    /// Whether the Hello that is due precedes the beat, because the server has none of this connection.
    is_introduction: bool,
    /// The number of beats of this session that could not be sent.
    unsent: u64,
    /// The end of the time for which the program has declared itself busy, until a Hello has reported that
    /// end.
    busy_until: Option<u64>,
    /// Whether the program has said that the payload is a counter, other than by its profile.
    counts: bool,
    /// The session id, the same in all control datagrams of a session. It is drawn for the first of them,
    /// because most sessions send none.
    session: Option<[u8; 16]>,
    /// How often the connection was replaced by one that may lead to another server.
    #[cfg(feature = "tokio")]
    reconnects: u32,
    /// Boxed, because labels take memory that most handles do not need.
    profile: Option<Box<Profile>>,
}

impl ControlSchedule {
    /// Creates a schedule: Hellos for a profile, none without one.
    pub(crate) const fn new(profile: Option<Box<Profile>>) -> Self {
        let hello_due = if profile.is_some() { 0 } else { NEVER };
        let is_introduction = profile.is_some();
        Self {
            hello_due,
            is_introduction,
            unsent: 0,
            busy_until: None,
            counts: false,
            session: None,
            #[cfg(feature = "tokio")]
            reconnects: 0,
            profile,
        }
    }

    /// Returns how often the connection was replaced by one that may lead to another server.
    #[cfg(feature = "tokio")]
    pub(crate) const fn reconnects(&self) -> u32 {
        self.reconnects
    }

    #[inline]
    pub(crate) const fn is_hello_due(&self, timestamp: u64) -> bool {
        timestamp >= self.hello_due
    }

    /// Returns whether a Hello is due that precedes the beat.
    pub(crate) const fn is_introduction_due(&self) -> bool {
        self.is_introduction
    }

    /// Counts a beat that could not be sent.
    #[inline]
    pub(crate) const fn count_unsent(&mut self) {
        self.unsent = self.unsent.saturating_add(1);
    }

    /// Makes a Hello due, because the new connection may lead to another server.
    pub(crate) const fn handle_reconnect(&mut self) {
        #[cfg(feature = "tokio")]
        {
            self.reconnects = self.reconnects.wrapping_add(1);
        }
        if self.introduces() || self.busy_until.is_some() {
            self.hello_due = 0;
            self.is_introduction = true;
        }
    }

    /// Takes over the interval of a heartbeat into the profile, if there is one that it concerns, and makes a
    /// Hello due if that is a change.
    #[cfg(feature = "tokio")]
    pub(crate) fn set_heartbeat_interval(&mut self, interval: Duration) -> Result<(), ProfileError> {
        if let Some(profile) = &mut self.profile
            && profile.is_concerned_by_heartbeat(interval)
            && profile.set_interval(interval)?
        {
            profile.check()?;
            self.hello_due = 0;
        }
        Ok(())
    }

    /// Returns whether there is anything that a server must be told again and again.
    const fn introduces(&self) -> bool {
        self.profile.is_some() || self.counts
    }

    /// Makes a Hello due that says that the payload is a counter, unless one has said it.
    #[inline]
    pub(crate) const fn declare_progress(&mut self) {
        if !self.counts {
            self.counts = true;
            self.hello_due = 0;
            self.is_introduction = true;
        }
    }

    /// Sets the time until which the agent is busy.
    pub(crate) const fn set_busy_until(&mut self, timestamp: u64) {
        self.busy_until = Some(timestamp);
    }

    /// Resets the schedule for the session of a forked child, which inherits the profile and no busy time.
    pub(crate) fn handle_fork(&mut self) {
        let counts = self.counts;
        *self = Self::new(self.profile.take());
        if counts {
            self.declare_progress();
        }
    }

    /// Schedules the next Hello after one with this outcome: with the next beat if it was dropped, and after
    /// the interval if it was sent or if the transport does not carry control datagrams. After a full queue a
    /// beat gets the first place in it.
    pub(crate) fn handle_hello(&mut self, timestamp: u64, outcome: BeatOutcome) {
        self.is_introduction &= outcome.is_dropped() && outcome != QUEUE_FULL;
        if outcome.is_dropped() {
            self.hello_due = 0;
            return;
        }
        if self.busy_until.is_some_and(|until| until <= timestamp) {
            self.busy_until = None;
        }
        self.hello_due = match self.introduces() {
            true => timestamp.saturating_add(nanoseconds(HELLO_INTERVAL)).min(NEVER - 1),
            false => NEVER,
        };
    }

    /// Encodes a Hello.
    pub(crate) fn hello<'o>(
        &mut self,
        header: ControlHeader,
        out: &'o mut [u8; MAX_CONTROL_LEN],
    ) -> EncodedControl<'o> {
        let mut hello = Hello::new(header.pid, header.timestamp, header.nonce, self.session());
        if let Some(profile) = &self.profile {
            profile.fill(&mut hello);
        }
        if self.counts {
            // As long as the server thinks right.
            hello.no_progress_after_ms = hello.no_progress_after_ms.or(Some(0));
        }
        hello.unsent = Some(self.unsent);
        hello.busy_for_ms = self.busy_until.map(|until| milliseconds(until.saturating_sub(header.timestamp)));
        hello.encode(out)
    }

    /// Encodes a Goodbye.
    pub(crate) fn goodbye<'o>(
        &mut self,
        header: ControlHeader,
        reason: GoodbyeReason,
        out: &'o mut [u8; MAX_CONTROL_LEN],
    ) -> EncodedControl<'o> {
        let mut goodbye = Goodbye::new(header.pid, header.timestamp, header.nonce, self.session(), reason);
        goodbye.unsent = Some(self.unsent);
        goodbye.encode(out)
    }

    fn session(&mut self) -> [u8; 16] {
        *self.session.get_or_insert_with(entropy::random_id)
    }
}

/// Converts nanoseconds to milliseconds, rounded up; anything from 49 days on becomes `u32::MAX`.
fn milliseconds(nanoseconds: u64) -> u32 {
    u32::try_from(nanoseconds.div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

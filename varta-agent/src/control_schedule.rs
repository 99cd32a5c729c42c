//! When a handle says what beside its beats.
//!
//! Most handles say nothing, and a beat must not pay for what nobody asked: so all that a beat compares is the time
//! with the one at which the next Hello is due, which then never comes.

use std::time::Duration;

use varta_proto::control::{EncodedControl, Goodbye, GoodbyeReason, Hello, MAX_CONTROL_LEN};

use crate::entropy;
use crate::outcome::BeatOutcome;
use crate::profile::Profile;
#[cfg(feature = "tokio")]
use crate::profile::ProfileError;
use crate::time::nanoseconds;

/// How long after a Hello the next is due. The protocol wants one every 60 s, and it goes out behind the first beat
/// after this: an agent that beats every 15 s or more often is in time.
const HELLO_INTERVAL: Duration = Duration::from_secs(45);

/// Later than every timestamp.
const NEVER: u64 = u64::MAX;

/// What stands at the head of a control datagram.
#[derive(Clone, Copy)]
pub(crate) struct ControlHeader {
    pub(crate) pid: u32,
    pub(crate) timestamp: u64,
    /// The nonce of the last beat.
    pub(crate) nonce: u64,
}

/// What a handle says beside its beats, and when. All times are timestamps of the session.
pub(crate) struct ControlSchedule {
    /// From when on a Hello is due. Early rather than late: with it a restarted server learns of the agent anew.
    hello_due: u64,
    /// Beats of this session that the kernel did not take.
    unsent: u64,
    /// Until when the program has asked to be excused, as long as no Hello has said that this is over.
    busy_until: Option<u64>,
    /// The same in all control datagrams of a session, and drawn for the first of them: most sessions send none.
    session: Option<[u8; 16]>,
    /// Boxed, because labels take room that most handles have no use for.
    profile: Option<Box<Profile>>,
}

impl ControlSchedule {
    /// Says Hello for a profile and otherwise nothing.
    pub(crate) const fn new(profile: Option<Box<Profile>>) -> Self {
        let hello_due = if profile.is_some() { 0 } else { NEVER };
        Self { hello_due, unsent: 0, busy_until: None, session: None, profile }
    }

    #[inline]
    pub(crate) const fn is_hello_due(&self, timestamp: u64) -> bool {
        timestamp >= self.hello_due
    }

    /// Counts a beat that the kernel did not take.
    #[inline]
    pub(crate) const fn count_unsent(&mut self) {
        self.unsent = self.unsent.saturating_add(1);
    }

    /// Somebody else may be listening now, who has heard nothing yet.
    pub(crate) const fn handle_reconnect(&mut self) {
        if self.profile.is_some() || self.busy_until.is_some() {
            self.hello_due = 0;
        }
    }

    /// Has the Hellos of an agent that says them say this interval.
    #[cfg(feature = "tokio")]
    pub(crate) fn set_interval(&mut self, interval: Duration) -> Result<(), ProfileError> {
        if let Some(profile) = &mut self.profile
            && profile.set_interval(interval)?
        {
            profile.check()?;
            self.hello_due = 0;
        }
        Ok(())
    }

    /// Excuses the agent until then.
    pub(crate) const fn set_busy_until(&mut self, timestamp: u64) {
        self.busy_until = Some(timestamp);
    }

    /// Begins the session of a forked child, of which nobody has heard yet, and which is not busy with what its parent
    /// is busy with.
    pub(crate) fn handle_fork(&mut self) {
        *self = Self::new(self.profile.take());
    }

    /// Takes what became of a Hello. One that is lost is due with the next beat; one that this way does not carry is
    /// not tried again with every beat.
    pub(crate) fn handle_hello(&mut self, timestamp: u64, outcome: BeatOutcome) {
        if outcome.is_dropped() {
            self.hello_due = 0;
            return;
        }
        if self.busy_until.is_some_and(|until| until <= timestamp) {
            self.busy_until = None;
        }
        self.hello_due = match self.profile {
            Some(_) => timestamp.saturating_add(nanoseconds(HELLO_INTERVAL)).min(NEVER - 1),
            None => NEVER,
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

/// Turns nanoseconds into milliseconds begun; the last value stands for all beyond it, from 49 days on.
fn milliseconds(nanoseconds: u64) -> u32 {
    u32::try_from(nanoseconds.div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

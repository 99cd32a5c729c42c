//! The control datagrams of a handle.
//!
//! The first Hello of a connection precedes the beat, so that the first verdict of a server has the name. All
//! other control datagrams are sent after a beat or on their own: if the queue has one place left, the beat
//! gets it.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use varta_proto::Status;
use varta_proto::control::{EncodedControl, GoodbyeReason, MAX_CONTROL_LEN};

use super::handle::Varta;
use crate::control_schedule::{ControlHeader, ControlSchedule};
use crate::fork::ProcessLife;
use crate::outcome::{BeatError, BeatOutcome, DropReason, QUEUE_FULL, classify_send_error};
use crate::profile::Profile;
#[cfg(feature = "tokio")]
use crate::profile::ProfileError;
use crate::retry::retry_while_full;
use crate::time::nanoseconds;
use crate::transport::BeatTransport;

impl<T: BeatTransport> Varta<T> {
    /// Says goodbye and closes the handle: the silence from now on is intended.
    ///
    /// A server with support for goodbyes raises no alert when the beats end; another counts a malformed
    /// datagram. Every handle sends it, with or without a name. If the server has gone and the handle
    /// [reconnects](Self::set_reconnect_after), it is sent once more on a new connection. Because nothing
    /// follows it, this call waits up to 15 ms if the queue is full; no other call waits.
    ///
    /// Dropping a handle closes it too, and sends nothing: a handle is also dropped when a program fails and
    /// unwinds, which must not look like an orderly end.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("varta.sock");
    /// # let server = std::os::unix::net::UnixDatagram::bind(&path)?;
    /// use varta_agent::{Control, GoodbyeReason, Status, Varta};
    ///
    /// let mut agent = Varta::connect(&path)?;
    /// let _ = agent.beat(Status::Ok, 0);
    /// let _ = agent.close(GoodbyeReason::Restart);
    ///
    /// # server.recv(&mut [0; 32])?;
    /// let mut datagram = [0; 512];
    /// let length = server.recv(&mut datagram)?;
    /// let goodbye = Control::decode(&datagram[..length])?;
    /// assert_eq!((goodbye.nonce(), goodbye.reason()), (1, Some(GoodbyeReason::Restart)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(mut self, reason: GoodbyeReason) -> BeatOutcome {
        retry_while_full(thread::sleep, |outcome| *outcome == QUEUE_FULL, || self.send_goodbye(reason))
    }

    /// Asks the server to accept a silence of `span` from now on, before an operation that takes long. Zero
    /// withdraws the request.
    ///
    /// It is sent at once, as a Hello, by every handle. If the outcome is not `Sent`, it is sent again after
    /// the beats that follow. The span is rounded up to milliseconds and limited to 49 days.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("varta.sock");
    /// # let server = std::os::unix::net::UnixDatagram::bind(&path)?;
    /// use std::time::Duration;
    /// use varta_agent::{Control, Status, Varta};
    ///
    /// let mut agent = Varta::connect(&path)?;
    /// let _ = agent.busy_for(Duration::from_secs(90));
    /// // … rebuild the index …
    /// let _ = agent.beat(Status::Ok, 0);
    /// let _ = agent.busy_for(Duration::ZERO);
    ///
    /// let mut datagram = [0; 512];
    /// let length = server.recv(&mut datagram)?;
    /// assert_eq!(Control::decode(&datagram[..length])?.busy_for_ms(), Some(90_000));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn busy_for(&mut self, span: Duration) -> BeatOutcome {
        self.busy_for_at(Instant::now(), span)
    }

    /// Sends a beat with status ok that says how much work this process has done: a count that changes while it makes
    /// progress. An agent that beats and whose count stands for too long is stalled, because it makes no progress.
    ///
    /// The count is the payload of the beat, of which it has the lower 32 bits; any change of it is progress. The first
    /// call sends a Hello, which says that the payload is a counter from now on: a beat with another status has the
    /// same count as its payload. How long the count may stand is set by
    /// [`no_progress_after`](crate::Builder::no_progress_after), by a rule of the server, or by its default of a
    /// minute. All else is as by [`beat`](Self::beat): it never blocks, and allocates nothing.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("varta.sock");
    /// # let server = std::os::unix::net::UnixDatagram::bind(&path)?;
    /// use varta_agent::{Control, Varta};
    ///
    /// let mut agent = Varta::connect(&path)?;
    /// for message in 1..=3 {
    ///     // … handle it …
    ///     let _ = agent.progress(message);
    /// }
    ///
    /// let mut datagram = [0; 512];
    /// let length = server.recv(&mut datagram)?;
    /// assert_eq!(Control::decode(&datagram[..length])?.no_progress_after_ms(), Some(0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn progress(&mut self, count: u64) -> BeatOutcome {
        self.declare_progress();
        self.beat(Status::Ok, lower_bits(count))
    }

    /// Says that the payload is a counter, from the next beat on.
    #[inline]
    pub(crate) const fn declare_progress(&mut self) {
        if self.enabled {
            self.control_schedule.declare_progress();
        }
    }

    pub(super) fn busy_for_at(&mut self, now: Instant, span: Duration) -> BeatOutcome {
        if let Err(outcome) = self.prepare_control(now) {
            return outcome;
        }
        self.control_schedule.set_busy_until(self.last_timestamp.saturating_add(nanoseconds(span)));
        let mut buffer = [0; MAX_CONTROL_LEN];
        let hello = self.control_schedule.hello(self.control_header(), &mut buffer);
        let outcome = self.send_or_reconnect(hello);
        self.control_schedule.handle_hello(self.last_timestamp, outcome);
        outcome
    }

    /// Takes over the interval of a heartbeat into the Hellos, if the handle sends any.
    #[cfg(feature = "tokio")]
    pub(crate) fn set_heartbeat_interval(&mut self, interval: Duration) -> Result<(), ProfileError> {
        self.control_schedule.set_heartbeat_interval(interval)
    }

    /// Sends a goodbye without waiting, and leaves the handle unchanged.
    pub(crate) fn send_goodbye(&mut self, reason: GoodbyeReason) -> BeatOutcome {
        if let Err(outcome) = self.prepare_control(Instant::now()) {
            return outcome;
        }
        let mut buffer = [0; MAX_CONTROL_LEN];
        let goodbye = self.control_schedule.goodbye(self.control_header(), reason, &mut buffer);
        self.send_or_reconnect(goodbye)
    }

    /// Prepares a datagram as a beat does: it recovers from a fork and advances the timestamp.
    fn prepare_control(&mut self, now: Instant) -> Result<(), BeatOutcome> {
        if !self.enabled {
            return Err(BeatOutcome::Dropped(DropReason::NoObserver));
        }
        if !self.process_life.is_current() {
            self.recover_from_fork(now).map_err(BeatOutcome::Failed)?;
        }
        self.next_timestamp(now);
        Ok(())
    }

    /// Sends a control datagram, and once more on a new connection if the server has gone.
    fn send_or_reconnect(&mut self, datagram: EncodedControl<'_>) -> BeatOutcome {
        let outcome = self.send_control(datagram);
        let has_gone = outcome.is_dropped() && outcome != QUEUE_FULL;
        if !has_gone || self.reconnect_after == 0 || self.transport.reconnect().is_err() {
            return outcome;
        }
        self.counters.count_reconnect();
        self.control_schedule.handle_reconnect();
        self.send_control(datagram)
    }

    /// Creates a handle with a profile, and sends its first Hello `at_once` or with the first beat.
    pub(crate) fn with_profile(
        transport: T,
        reconnect_after: u32,
        profile: Option<Box<Profile>>,
        at_once: bool,
    ) -> Self {
        let control_schedule = ControlSchedule::new(profile);
        let mut agent =
            Self::with(transport, ProcessLife::current(), reconnect_after, control_schedule, true);
        if at_once && agent.control_schedule.is_hello_due(0) {
            agent.send_hello(0);
        }
        agent
    }

    /// Sends a Hello with `nonce` as that of the last beat. Its outcome only affects the schedule of the next
    /// Hello.
    ///
    /// Never inlined, so that the buffer is not on the stack of a beat.
    #[cold]
    #[inline(never)]
    pub(super) fn send_hello(&mut self, nonce: u64) {
        let mut buffer = [0; MAX_CONTROL_LEN];
        let header = ControlHeader { nonce, ..self.control_header() };
        let hello = self.control_schedule.hello(header, &mut buffer);
        let outcome = self.send_control(hello);
        self.control_schedule.handle_hello(self.last_timestamp, outcome);
    }

    const fn control_header(&self) -> ControlHeader {
        ControlHeader { pid: self.process_life.pid(), timestamp: self.last_timestamp, nonce: self.nonce }
    }

    fn send_control(&mut self, datagram: EncodedControl<'_>) -> BeatOutcome {
        match self.transport.send_control(datagram) {
            Ok(taken) if taken == datagram.len() => BeatOutcome::Sent,
            Ok(_) => BeatOutcome::Failed(BeatError::of_kind(io::ErrorKind::WriteZero)),
            Err(error) => classify_send_error(&error),
        }
    }
}

/// Returns the part of a count that fits a payload.
#[inline]
pub(crate) const fn lower_bits(count: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "that is what it is for")]
    let lower = count as u32;
    lower
}

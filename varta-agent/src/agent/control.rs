//! What a handle says beside its beats.
//!
//! Everything here goes out behind a beat or on its own, and never before one: a queue that has one place left takes the
//! beat.

use std::io;

use varta_proto::control::{EncodedControl, MAX_CONTROL_LEN};

use super::Varta;
use crate::fork::Incarnation;
use crate::outcome::{BeatError, BeatOutcome, classify_send_error};
use crate::presence::{Head, Presence};
use crate::profile::Profile;
use crate::transport::BeatTransport;

impl<T: BeatTransport> Varta<T> {
    /// Makes a handle that has something to say of itself, and says it `at_once` or with the first beat.
    pub(crate) fn introduced(
        transport: T,
        reconnect_after: u32,
        profile: Option<Box<Profile>>,
        at_once: bool,
    ) -> Self {
        let presence = Presence::new(profile);
        let mut agent = Self::with(transport, Incarnation::current(), reconnect_after, presence, true);
        if at_once && agent.presence.is_hello_due(0) {
            agent.say_hello();
        }
        agent
    }

    /// Says Hello with the time and the nonce of the last beat. What becomes of it concerns the next Hello alone.
    #[cold]
    pub(super) fn say_hello(&mut self) {
        let mut room = [0; MAX_CONTROL_LEN];
        let hello = self.presence.hello(self.head(), &mut room);
        let outcome = self.send_control(hello);
        self.presence.handle_hello(self.last_timestamp, outcome);
    }

    const fn head(&self) -> Head {
        Head { pid: self.incarnation.pid(), timestamp: self.last_timestamp, nonce: self.nonce }
    }

    fn send_control(&mut self, datagram: EncodedControl<'_>) -> BeatOutcome {
        match self.transport.send_control(datagram) {
            Ok(taken) if taken == datagram.len() => BeatOutcome::Sent,
            Ok(_) => BeatOutcome::Failed(BeatError::of_kind(io::ErrorKind::WriteZero)),
            Err(error) => classify_send_error(&error),
        }
    }
}

//! What a listener hands on: a decoded frame, who the kernel says sent it, and when it was read.
//!
//! It stands by itself because it is the border between the two rooms: listeners make these and know nothing of
//! agents, the tracker takes them and knows nothing of sockets.

use varta_proto::Frame;

use crate::time::MonoTime;

/// A frame that was well formed and whose sender was accepted, on its way to the tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedBeat {
    /// When the listener read it. One reading of the clock serves a whole batch.
    pub received_at: MonoTime,
    /// Who sent it.
    pub sender: Sender,
    /// What it says.
    pub frame: Frame,
}

/// Who sent a beat, as far as the transport can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    /// A process of this host whose pid the kernel vouches for.
    Local {
        /// The process id in the server's own PID namespace.
        pid: u32,
    },
}

impl Sender {
    /// How its beats arrive.
    #[must_use]
    pub const fn transport(self) -> Transport {
        match self {
            Sender::Local { .. } => Transport::Unix,
        }
    }

    /// The process id that it goes by.
    #[must_use]
    pub const fn pid(self) -> u32 {
        match self {
            Sender::Local { pid } => pid,
        }
    }
}

/// How beats arrive: the value of the metric label `transport`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A Unix datagram socket with kernel credentials.
    Unix,
}

impl Transport {
    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Transport::Unix => "unix",
        }
    }
}

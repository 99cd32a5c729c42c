//! The inputs of the tracker as values: a recording is a sequence of them, and a replay feeds them to another
//! tracker.

use crate::base::time::MonoTime;
use crate::domain::beat::{ReceivedBeat, ReceivedControl, Transport};
use crate::domain::process::identity::ProcessIdentity;
use crate::domain::process::{Death, ProcessId};

/// One input of the tracker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Beat(ReceivedBeat),
    Control(ReceivedControl),
    /// The result of an identity lookup; precedes the beat that caused it.
    Process {
        pid: u32,
        identity: Option<ProcessIdentity>,
    },
    /// The server did not run, and could not observe beats.
    Blind {
        from: MonoTime,
        to: MonoTime,
    },
    /// The kernel dropped datagrams of this transport.
    Loss {
        transport: Transport,
        at: MonoTime,
    },
    /// A process exited.
    Death {
        process: ProcessId,
        death: Death,
        noticed_at: MonoTime,
        at: MonoTime,
    },
    /// No process has this pid.
    Absence {
        pid: u32,
        at: MonoTime,
    },
    /// Records that did not fit the queue of the recording.
    Gap {
        from: MonoTime,
        to: MonoTime,
        records: u64,
    },
    /// The orderly end of the server.
    End {
        at: MonoTime,
    },
}

impl Record {
    /// The time of the input; [`MonoTime::START`] where it has none.
    pub(crate) fn at(&self) -> MonoTime {
        match self {
            Record::Beat(beat) => beat.received_at,
            Record::Control(control) => control.received_at,
            Record::Process { .. } => MonoTime::START,
            Record::Blind { to: at, .. }
            | Record::Loss { at, .. }
            | Record::Death { at, .. }
            | Record::Absence { at, .. }
            | Record::Gap { to: at, .. }
            | Record::End { at } => *at,
        }
    }
}

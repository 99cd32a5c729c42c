//! The inputs of the tracker as values: a recording is a sequence of them, and a replay feeds them to another
//! tracker.

use crate::base::time::MonoTime;
use crate::domain::beat::{ReceivedBeat, ReceivedControl, Transport};
use crate::domain::process::identity::ProcessIdentity;
use crate::domain::process::{ExitStatus, Lineage, ProcessId};
use crate::domain::tracker::AgentId;

/// One input of the tracker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InputRecord {
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
    Exit {
        pid: u32,
        /// The process that had it, unless `/proc` hides it.
        process: Option<ProcessId>,
        death: ExitStatus,
        lineage: Lineage,
        noticed_at: MonoTime,
        at: MonoTime,
    },
    /// A process ended that could not be watched, or not be identified.
    Absence {
        pid: u32,
        /// The process that had it, if it was identified.
        process: Option<ProcessId>,
        /// How the process that had it ended.
        death: ExitStatus,
        at: MonoTime,
    },
    /// A user asked for an agent to be forgotten, and it was.
    Forget {
        agent: AgentId,
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

impl InputRecord {
    /// The time of the input; [`MonoTime::START`] where it has none.
    pub(crate) fn at(&self) -> MonoTime {
        match self {
            InputRecord::Beat(beat) => beat.received_at,
            InputRecord::Control(control) => control.received_at,
            InputRecord::Process { .. } => MonoTime::START,
            InputRecord::Blind { to: at, .. }
            | InputRecord::Loss { at, .. }
            | InputRecord::Exit { at, .. }
            | InputRecord::Absence { at, .. }
            | InputRecord::Forget { at, .. }
            | InputRecord::Gap { to: at, .. }
            | InputRecord::End { at } => *at,
        }
    }
}

use crate::base::time::MonoTime;
use crate::domain::beat::{ReceivedBeat, ReceivedControl, Transport};
use crate::domain::process::identity::ProcessIdentity;
use crate::domain::process::{Death, ProcessId};

/// One thing that the tracker was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Beat(ReceivedBeat),
    Control(ReceivedControl),
    /// Who had a pid when that was asked; before the beat for which it was.
    Process {
        pid: u32,
        identity: Option<ProcessIdentity>,
    },
    /// The server could not see.
    Blind {
        from: MonoTime,
        to: MonoTime,
    },
    /// Datagrams were lost on the way.
    Loss {
        transport: Transport,
        at: MonoTime,
    },
    /// A process ended.
    Death {
        process: ProcessId,
        death: Death,
        noticed_at: MonoTime,
        at: MonoTime,
    },
    /// There was no process with this pid.
    Absence {
        pid: u32,
        at: MonoTime,
    },
    /// So many records found no place.
    Gap {
        from: MonoTime,
        to: MonoTime,
        records: u64,
    },
    /// The server was stopped in order.
    End {
        at: MonoTime,
    },
}

impl Record {
    /// When the tracker was told; the start where that makes no difference.
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

//! What tests of recovery share.

use std::num::NonZeroU64;
use std::time::Duration;

use varta_proto::Status;

use crate::base::time::MonoTime;
use crate::domain::beat::Origin;
use crate::domain::process::ProcessId;
use crate::domain::tracker::{AgentId, Cause, LastWord, Transition, Twin, Verdict};

/// That a worker of the team `payments` has come to a verdict.
pub(crate) fn transition(pid: u32, to: Verdict, cause: Cause) -> Transition {
    Transition {
        agent: AgentId { name: "worker".into(), origin: Origin::Local, pid, twin: Twin::FIRST },
        labels: [("team", "payments")].into_iter().collect(),
        unit: None,
        predecessor: None,
        process: Some(ProcessId { pid, start_time: NonZeroU64::MIN }),
        from: Some(Verdict::Up(Status::Ok)),
        to,
        cause,
        at: MonoTime::START,
        silence: Duration::from_secs(5),
        last: LastWord { status: Status::Ok, payload: 0, terminal: false, beats: 1 },
        stall_after: Duration::from_secs(5),
        detection_latency: None,
        mistake: None,
        dossier: None,
        incident: None,
    }
}

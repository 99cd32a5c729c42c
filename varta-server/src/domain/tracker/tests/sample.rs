//! A transition for the tests of everything that takes one: `transition("worker").pid(7).to(Verdict::Stalled)`.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use varta_proto::Status;

use crate::base::time::MonoTime;
use crate::domain::beat::Origin;
use crate::domain::labels::Labels;
use crate::domain::process::ProcessId;
use crate::domain::tracker::{AgentId, Cause, Incident, LastWord, Transition, Twin, Verdict};

/// The first transition of a local agent with pid 1: it was up, is stalled, and nothing else is known of it.
pub(crate) fn transition(name: &str) -> Transition {
    Transition {
        agent: AgentId { name: Arc::from(name), origin: Origin::Local, pid: 1, twin: Twin::FIRST },
        labels: Labels::default(),
        unit: None,
        predecessor: None,
        process: None,
        from: Some(Verdict::Up(Status::Ok)),
        to: Verdict::Stalled,
        cause: Cause::Silent,
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

impl Transition {
    pub(crate) fn pid(mut self, pid: u32) -> Self {
        self.agent.pid = pid;
        self
    }

    /// The process of the agent's pid, which is known with its start time then.
    pub(crate) fn started_at(mut self, start_time: NonZeroU64) -> Self {
        self.process = Some(ProcessId { pid: self.agent.pid, start_time });
        self
    }

    pub(crate) fn labels<const N: usize>(mut self, labels: [(&str, &str); N]) -> Self {
        self.labels = labels.into_iter().collect();
        self
    }

    pub(crate) fn from(mut self, from: Option<Verdict>) -> Self {
        self.from = from;
        self
    }

    pub(crate) fn to(mut self, to: Verdict, cause: Cause) -> Self {
        (self.to, self.cause) = (to, cause);
        self
    }

    pub(crate) fn at(mut self, at: MonoTime) -> Self {
        self.at = at;
        self
    }

    pub(crate) fn silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// The last report: its status, its payload, and how many beats there were.
    pub(crate) fn last(mut self, status: Status, payload: u32, beats: u64) -> Self {
        self.last = LastWord { status, payload, terminal: false, beats };
        self
    }

    pub(crate) fn incident(mut self, incident: Option<Incident>) -> Self {
        self.incident = incident;
        self
    }
}

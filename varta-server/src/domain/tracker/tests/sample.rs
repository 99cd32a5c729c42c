//! A transition for the tests of everything that takes one:
//! `transition("worker").pid(7).to(Verdict::Stalled)`.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use varta_proto::Status;
use varta_proto::control::GoodbyeReason;

use crate::base::time::MonoTime;
use crate::domain::beat::Origin;
use crate::domain::labels::Labels;
use crate::domain::process::{Dossier, ProcessId, ProcessSnapshot, State};
use crate::domain::tracker::{AgentId, Cause, Incident, LastReport, Transition, Twin, Verdict};

/// The first transition of a local agent with pid 1: it was up, is stalled, and nothing else is known of it.
pub(crate) fn transition(name: &str) -> Transition {
    Transition {
        agent: AgentId { name: Arc::from(name), origin: Origin::Local, pid: 1, twin: Twin::FIRST },
        labels: Labels::default(),
        unit: None,
        said: None,
        predecessor: None,
        successor: None,
        settles_at: MonoTime::START,
        process: None,
        from: Some(Verdict::Up(Status::Ok)),
        to: Verdict::Stalled,
        cause: Cause::Silent,
        at: MonoTime::START,
        silence: Duration::from_secs(5),
        silence_is_at_least: false,
        last: LastReport { status: Status::Ok, payload: 0, terminal: false, beats: 1 },
        stall_after: Duration::from_secs(5),
        detection_latency: None,
        mistake: None,
        dossier: None,
        oom_cgroup: None,
        incident: None,
    }
}

/// A transition that has everything that one can have.
pub(crate) fn complete() -> Transition {
    let start_time = NonZeroU64::MIN;
    let look = ProcessSnapshot {
        at: MonoTime::from_secs(30),
        pid: 7,
        start_time,
        command: "billing".into(),
        state: State::Sleeping,
        death: None,
        threads: 1,
        cpu: Duration::from_millis(1_200),
        details: None,
    };
    let address = "10.0.0.7".parse().expect("an address");
    let agent = AgentId {
        name: Arc::from("a\n\"b\\\u{7f}\u{2028}é"),
        origin: Origin::SecureUdp(address),
        pid: 7,
        twin: Twin::from_number(2).expect("there may be two"),
    };
    Transition {
        agent: agent.clone(),
        unit: Some(Arc::from("billing.service")),
        predecessor: Some(AgentId { twin: Twin::FIRST, ..agent }),
        process: Some(ProcessId::new(7, start_time)),
        detection_latency: Some(Duration::from_nanos(1_234_567)),
        mistake: Some(Duration::from_secs(2)),
        dossier: Some(Arc::new(Dossier::new(look, None))),
        oom_cgroup: Some(Arc::from("/batch")),
        incident: Some(Incident { number: NonZeroU64::MIN, agents: 12, open_until: MonoTime::NEVER }),
        ..transition("")
            .labels([("zone", "b"), ("team", "a\n\"b\\\u{7f}\u{2028}é")])
            .to(Verdict::Gone, Cause::Goodbye { reason: Some(GoodbyeReason::Restart) })
            .at(MonoTime::from_secs(30))
            .silence(Duration::from_millis(5_001))
            .last(Status::Degraded, 7, 812)
    }
}

impl Transition {
    pub(crate) fn pid(mut self, pid: u32) -> Self {
        self.agent.pid = pid;
        self
    }

    /// The process of the agent's pid, which is known with its start time then.
    pub(crate) fn started_at(mut self, start_time: NonZeroU64) -> Self {
        self.process = Some(ProcessId::new(self.agent.pid, start_time));
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
        self.last = LastReport { status, payload, terminal: false, beats };
        self
    }

    pub(crate) fn incident(mut self, incident: Option<Incident>) -> Self {
        self.incident = incident;
        self
    }
}

//! Sinks: what happens with a change of verdict. A sink knows changes and nothing of where they come from.

mod feed;
mod incidents;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

pub(crate) use self::feed::Feed;
use self::incidents::OpenIncidents;
use crate::beat::Transport;
use crate::time::{MonoTime, millis};
use crate::tracker::{Cause, Transition, Twin, Verdict};

/// Lines a second for what an agent can bring about as often as it likes: that it reports another status than before, or
/// that it panicked. One that cannot make up its mind could fill a disk otherwise.
const REPORTS_PER_SECOND: u32 = 100;
/// Lines a second for agents in plaintext, which anybody can make up.
const PLAIN_PER_SECOND: u32 = 100;

/// Writes one log line for each change, until nobody makes any more.
pub(crate) async fn log(mut transitions: mpsc::Receiver<Transition>) {
    let mut allowances = Allowances::new(
        "changes of reported status were not logged",
        "changes of agents in plaintext were not logged",
    );
    let mut incidents = OpenIncidents::default();
    loop {
        let transition = match incidents.over_at() {
            None => transitions.recv().await,
            Some(over_at) => match timeout_at(over_at, transitions.recv()).await {
                Ok(transition) => transition,
                Err(_) => {
                    incidents.close(Instant::now());
                    continue;
                }
            },
        };
        let Some(transition) = transition else { break };
        incidents.note(&transition, Instant::now());
        if allowances.take(&transition) {
            log_transition(&transition);
        }
    }
    incidents.close_all();
}

/// Whether an agent can bring about such a change as often as it likes.
pub(crate) fn is_report(transition: &Transition) -> bool {
    let Transition { to, cause, .. } = transition;
    *cause == Cause::Reported || *cause == Cause::Panicked && matches!(to, Verdict::Up(_))
}

/// What a sink takes of those changes that agents can bring about as often as they like, or make up.
#[derive(Debug)]
pub(crate) struct Allowances {
    reports: Allowance,
    plain: Allowance,
}

impl Allowances {
    /// With what is said in the log of either kind when some were not taken.
    pub(crate) fn new(reports: &'static str, plain: &'static str) -> Self {
        Allowances {
            reports: Allowance::new(REPORTS_PER_SECOND, reports),
            plain: Allowance::new(PLAIN_PER_SECOND, plain),
        }
    }

    /// Whether this one is to be taken.
    pub(crate) fn take(&mut self, transition: &Transition) -> bool {
        match (transition.agent.origin.transport(), is_report(transition)) {
            (Transport::Udp, _) => self.plain.take(transition.at),
            (Transport::Unix | Transport::Shm | Transport::SecureUdp, true) => {
                self.reports.take(transition.at)
            }
            (Transport::Unix | Transport::Shm | Transport::SecureUdp, false) => true,
        }
    }
}

/// How many lines of a kind were logged in the present second, and how many were not.
#[derive(Debug)]
struct Allowance {
    per_second: u32,
    /// What became of what, for the log.
    what_became: &'static str,
    since: MonoTime,
    logged: u32,
    skipped: u64,
}

impl Allowance {
    fn new(per_second: u32, what_became: &'static str) -> Self {
        Allowance { per_second, what_became, since: MonoTime::START, logged: 0, skipped: 0 }
    }

    /// Whether one more may be logged at `at`. A second in which some were not ends with a line that says how many.
    fn take(&mut self, at: MonoTime) -> bool {
        let Allowance { per_second, what_became, skipped, .. } = *self;
        if at.since(self.since) >= Duration::from_secs(1) {
            if skipped > 0 {
                tracing::warn!(
                    target: "varta::log",
                    skipped,
                    "{skipped} {what_became}: more than {per_second} came in a second"
                );
            }
            *self = Allowance { since: at, ..Allowance::new(per_second, what_became) };
        }
        let logs = self.logged < per_second;
        if logs {
            self.logged += 1;
        } else {
            self.skipped += 1;
        }
        logs
    }
}

fn log_transition(transition: &Transition) {
    let Transition { agent, from, to, cause, silence, last, .. } = transition;
    let from_label = from.map_or("none", Verdict::as_str);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: "varta::agent",
                agent = %agent.name.escape_debug(),
                pid = agent.pid,
                twin = (agent.twin != Twin::FIRST).then_some(agent.twin.number()),
                host = agent.origin.address().map(tracing::field::display),
                transport = agent.origin.transport().as_str(),
                from = from_label,
                to = to.as_str(),
                cause = cause.as_str(),
                silence_ms = millis(*silence),
                mistake_ms = transition.mistake.map(millis),
                status = last.status.as_str(),
                previous_status = from.and_then(Verdict::status).map(varta_proto::Status::as_str),
                payload = last.payload,
                beats = last.beats,
                exit_code = match cause {
                    Cause::Exited { code } => *code,
                    _ => None,
                },
                signal = match cause {
                    Cause::Killed { signal } => Some(*signal),
                    _ => None,
                },
                incident = transition.incident.map(|incident| incident.number),
                dossier = transition.dossier.as_deref().map(tracing::field::display),
                "{}",
                sentence(transition)
            )
        };
    }
    // One line speaks for all of an incident.
    if to.is_alarm() && transition.incident.is_none() {
        line!(warn);
    } else {
        line!(info);
    }
}

/// Says what happened so that a person can act on it: who, from what to what, after how long a silence, and what it
/// said last.
pub(crate) fn sentence(transition: &Transition) -> String {
    let Transition { agent, from, to, cause, silence, last, dossier, .. } = transition;
    let went = match from {
        Some(from) => format!("{agent} went from {from} to {to}"),
        None => format!("{agent} is {to}"),
    };
    let said = format!("{}, payload {}, after {} beats", last.status, last.payload, last.beats);
    let silent = format!("no beat for {silence:.3?}");
    let because = match cause {
        Cause::FirstBeat => format!("first beat ({}, payload {})", last.status, last.payload),
        Cause::Reported => format!("it reports {said}"),
        Cause::Recovered if *from == Some(Verdict::Gone) => {
            format!("it beats again, {silence:.3?} after its last beat")
        }
        Cause::Recovered if *from == Some(Verdict::Expected) => {
            format!("it beats; this server knows it from before, and its last beat was {silence:.3?} ago")
        }
        Cause::Recovered => match transition.mistake {
            Some(lasted) => format!(
                "it beats again after {silence:.3?}; the silence was this server's mistake: the agent was beating all along, \
                 its beats were late or lost, and it was called stalled for {lasted:.3?}"
            ),
            None => format!("it beats again after {silence:.3?} of silence"),
        },
        Cause::Restarted => "a new process has this pid".to_owned(),
        Cause::Panicked => match to {
            Verdict::Up(_) => "it says that it panicked".to_owned(),
            Verdict::Stalled => {
                format!("it panicked and no beat came for {silence:.3?}; {} beats in all", last.beats)
            }
            Verdict::Down | Verdict::Gone | Verdict::Unknown | Verdict::Expected => {
                format!("it panicked, and its process ended; {} beats in all", last.beats)
            }
        },
        Cause::Exited { code: Some(code) } => {
            format!("its process exited with status {code}; it last said {said}")
        }
        Cause::Exited { code: None } => {
            format!("its process ended, the kernel does not tell how; it last said {said}")
        }
        Cause::Killed { signal } => {
            format!("its process was killed by {}; it last said {said}", signal_name(*signal))
        }
        Cause::Goodbye { reason } => match reason {
            Some(reason) => format!("it said goodbye ({reason}); {} beats in all", last.beats),
            None => format!("it said goodbye; {} beats in all", last.beats),
        },
        Cause::Stopped => format!("its process is stopped; {silent}; it last said {said}"),
        Cause::Frozen => format!("its cgroup is frozen; {silent}; it last said {said}"),
        Cause::Blocked => format!("its process waits in the kernel; {silent}; it last said {said}"),
        Cause::Busy => format!("its process runs and does not beat; {silent}; it last said {said}"),
        Cause::Idle => format!("its process sleeps and does not beat; {silent}; it last said {said}"),
        Cause::Lossy if *to == Verdict::Unknown => {
            format!("{silent}, and beats were lost on the way meanwhile; it is given another chance")
        }
        Cause::Lossy => format!("{silent}, and beats were lost on the way meanwhile; it last said {said}"),
        Cause::Silent => format!("{silent}; it last said {said}"),
        Cause::Unreachable => format!(
            "no beat came over the network for {silence:.3?}, which may be its, its host's or the network's fault; it last \
             said {said}"
        ),
        Cause::NeverSeen => format!("it has not beaten in the {silence:.3?} since this server started"),
        Cause::ObserverBlind => {
            format!(
                "{silent}, and this server could not see meanwhile, or so many are silent at once that it doubts itself; \
                 it is given another chance"
            )
        }
    };
    match dossier {
        Some(dossier) => format!("{went}: {because}. {dossier}"),
        None => format!("{went}: {because}"),
    }
}

/// `SIGKILL` for 9; `signal 64` for one without a name.
fn signal_name(signal: u8) -> String {
    nix::sys::signal::Signal::try_from(i32::from(signal))
        .map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use varta_proto::Status;

    use super::*;
    use crate::beat::Origin;
    use crate::labels::Labels;
    use crate::tracker::{AgentId, LastWord};

    fn transition(from: Option<Verdict>, to: Verdict, cause: Cause) -> Transition {
        Transition {
            agent: AgentId { name: Arc::from("worker"), origin: Origin::Local, pid: 4242, twin: Twin::FIRST },
            labels: Labels::default(),
            unit: None,
            predecessor: None,
            process: None,
            from,
            to,
            cause,
            at: MonoTime::from_secs(30),
            silence: Duration::from_millis(5_001),
            last: LastWord { status: Status::Degraded, payload: 7, terminal: false, beats: 812 },
            stall_after: Duration::from_secs(5),
            detection_latency: None,
            mistake: None,
            dossier: None,
            incident: None,
        }
    }

    #[test]
    fn each_change_is_a_sentence_that_a_person_can_act_on() {
        let up = Verdict::Up(Status::Degraded);
        let cases = [
            (None, up, Cause::FirstBeat, "worker[4242] is up (degraded): first beat (degraded, payload 7)"),
            (
                Some(Verdict::Up(Status::Ok)),
                up,
                Cause::Reported,
                "worker[4242] went from up to up (degraded): it reports degraded, payload 7, after 812 beats",
            ),
            (
                Some(up),
                Verdict::Stalled,
                Cause::Silent,
                "worker[4242] went from up (degraded) to stalled: no beat for 5.001s; it last said degraded, payload 7, \
                 after 812 beats",
            ),
            (
                Some(up),
                Verdict::Stalled,
                Cause::Panicked,
                "worker[4242] went from up (degraded) to stalled: it panicked and no beat came for 5.001s; 812 beats in \
                 all",
            ),
            (
                Some(Verdict::Stalled),
                up,
                Cause::Recovered,
                "worker[4242] went from stalled to up (degraded): it beats again after 5.001s of silence",
            ),
        ];
        for (from, to, cause, expected) in cases {
            assert_eq!(sentence(&transition(from, to, cause)), expected);
        }
    }

    #[test]
    fn a_mistake_is_owned_up_to() {
        let mut mistaken = transition(Some(Verdict::Stalled), Verdict::Up(Status::Ok), Cause::Recovered);
        mistaken.mistake = Some(Duration::from_millis(1_200));
        let expected = "worker[4242] went from stalled to up: it beats again after 5.001s; the silence was this server's \
                        mistake: the agent was beating all along, its beats were late or lost, and it was called stalled \
                        for 1.200s";
        assert_eq!(sentence(&mistaken), expected);
    }

    #[test]
    fn an_agent_that_cannot_make_up_its_mind_does_not_fill_the_log() {
        let mut reports = Allowance::new(100, "changes");
        let logged = (0..10_000).filter(|_| reports.take(MonoTime::from_secs(5))).count();
        assert_eq!((logged, reports.skipped), (100, 9_900));
        assert!(reports.take(MonoTime::from_secs(6)));
    }

    #[test]
    fn a_name_cannot_forge_a_log_line() {
        let mut forged = transition(None, Verdict::Stalled, Cause::Silent);
        forged.agent.name = Arc::from("a\nWARN b");
        assert!(!sentence(&forged).contains('\n'));
    }
}

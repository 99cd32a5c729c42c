//! Sinks: what happens with a change of verdict. A sink knows changes and nothing of where they come from.

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::base::time::millis;
use crate::domain::describe::sentence;
use crate::domain::tracker::{Cause, Transition, Twin, Verdict};
use crate::engine::throttle::Allowances;
use crate::services::context::Context;
use crate::services::log::incidents::OpenIncidents;

/// Starts the sink.
pub(crate) fn start(context: &mut Context) {
    let transitions = context.subscribe("log");
    context.spawn("log sink", async {
        log(transitions).await;
        Ok(())
    });
}

/// Writes one log line for each change, until nobody makes any more.
async fn log(mut transitions: mpsc::Receiver<Transition>) {
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

#[cfg(test)]
mod tests {
    use crate::base::time::MonoTime;
    use crate::engine::throttle::Allowance;
    use std::sync::Arc;
    use std::time::Duration;

    use varta_proto::Status;

    use super::*;
    use crate::domain::beat::Origin;
    use crate::domain::labels::Labels;
    use crate::domain::tracker::{AgentId, LastWord};

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

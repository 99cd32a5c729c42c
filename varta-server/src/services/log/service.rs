//! Writes transitions to the log. Agents that change their status without end and agents in plaintext are
//! rate-limited.

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::domain::describe::describe;
use crate::domain::tracker::{Transition, Verdict};
use crate::engine::throttle::LogThrottle;
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

/// Writes one log line for each transition, until the queue is closed.
async fn log(mut transitions: mpsc::Receiver<Transition>) {
    let mut allowances = LogThrottle::new(
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
    let fields = transition.fields();
    let previous_status = transition.from.and_then(Verdict::status).map(varta_proto::Status::as_str);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: "varta::agent",
                agent = %fields.agent.escape_debug(),
                pid = fields.pid,
                twin = fields.twin,
                host = fields.host.as_deref().map(tracing::field::display),
                transport = fields.transport,
                from = fields.from.unwrap_or("none"),
                to = fields.to,
                cause = fields.cause,
                silence_ms = fields.silence_ms,
                mistake_ms = fields.mistake_ms,
                status = fields.status,
                previous_status,
                payload = fields.payload,
                beats = fields.beats,
                exit_code = fields.exit_code,
                signal = fields.signal,
                incident = fields.incident,
                oom_cgroup = fields.oom_cgroup,
                dossier = fields.dossier.map(tracing::field::display),
                "{}",
                describe(transition)
            )
        };
    }
    // An incident has a single warning for all of its agents.
    if transition.to.is_alarm() && transition.incident.is_none() {
        line!(warn);
    } else {
        line!(info);
    }
}

#[cfg(test)]
mod tests {
    use crate::base::time::MonoTime;
    use crate::engine::throttle::PerSecondLimit;
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use varta_proto::Status;

    use super::*;
    use crate::domain::tracker::Cause;
    use crate::domain::tracker::tests::sample;

    fn transition(from: Option<Verdict>, to: Verdict, cause: Cause) -> Transition {
        sample::transition("worker")
            .pid(4242)
            .from(from)
            .to(to, cause)
            .silence(Duration::from_millis(5_001))
            .last(Status::Degraded, 7, 812)
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
            assert_eq!(describe(&transition(from, to, cause)), expected);
        }
    }

    /// What the log has of a transition, as JSON and as text.
    fn logged(transition: &Transition) -> [String; 2] {
        [true, false].map(|is_json| {
            let lines = Lines::default();
            let writer = lines.clone();
            let format = tracing_subscriber::fmt().without_time().with_writer(move || writer.clone());
            let log = || log_transition(transition);
            if is_json {
                tracing::subscriber::with_default(format.json().finish(), log);
            } else {
                tracing::subscriber::with_default(format.with_ansi(false).finish(), log);
            }
            let bytes = lines.0.lock().unwrap().clone();
            String::from_utf8(bytes).unwrap()
        })
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_has_these_fields_and_leaves_out_what_there_is_not() {
        let killed = transition(None, Verdict::Down, Cause::Killed { signal: 9 });
        let [json, text] = logged(&killed);
        let message = "worker[4242] is down: its process was killed by SIGKILL; it last said degraded, payload 7, after 812 beats";
        let expected = format!(
            r#"{{"level":"WARN","fields":{{"message":"{message}","agent":"worker","pid":4242,"transport":"unix","from":"none","to":"down","cause":"killed","silence_ms":5001,"status":"degraded","payload":7,"beats":812,"signal":9}},"target":"varta::agent"}}"#
        );
        assert_eq!(json, expected + "\n");
        let expected = format!(
            r#" WARN varta::agent: {message} agent=worker pid=4242 transport="unix" from="none" to="down" cause="killed" silence_ms=5001 status="degraded" payload=7 beats=812 signal=9"#
        );
        assert_eq!(text, expected + "\n");
    }

    #[test]
    fn a_line_has_all_that_there_is() {
        let [json, text] = logged(&sample::complete());
        let dossier = "idle: it sleeps; main thread sleeping; 1 thread; 1.2 s of CPU since it started";
        let name = r#"a\\n\\\"b\\\\\\u{7f}\\u{2028}é"#;
        let expected = format!(
            r#"{{"level":"INFO","fields":{{"message":"{name}[7]#2 went from up to gone: it said goodbye (restart); 812 beats in all. {dossier}","agent":"{name}","pid":7,"twin":2,"host":"10.0.0.7","transport":"secure_udp","from":"up","to":"gone","cause":"goodbye","silence_ms":5001,"mistake_ms":2000,"status":"degraded","previous_status":"ok","payload":7,"beats":812,"incident":1,"oom_cgroup":"/batch","dossier":"{dossier}"}},"target":"varta::agent"}}"#
        );
        assert_eq!(json, expected + "\n");
        let name = r#"a\n\"b\\\u{7f}\u{2028}é"#;
        let expected = format!(
            r#" INFO varta::agent: {name}[7]#2 went from up to gone: it said goodbye (restart); 812 beats in all. {dossier} agent={name} pid=7 twin=2 host=10.0.0.7 transport="secure_udp" from="up" to="gone" cause="goodbye" silence_ms=5001 mistake_ms=2000 status="degraded" previous_status="ok" payload=7 beats=812 incident=1 oom_cgroup="/batch" dossier={dossier}"#
        );
        assert_eq!(text, expected + "\n");
    }

    #[test]
    fn a_mistake_is_owned_up_to() {
        let mut mistaken = transition(Some(Verdict::Stalled), Verdict::Up(Status::Ok), Cause::Recovered);
        mistaken.mistake = Some(Duration::from_millis(1_200));
        let expected = "worker[4242] went from stalled to up: it beats again after 5.001s; the silence was this server's \
                        mistake: the agent was beating all along, its beats were late or lost, and it was called stalled \
                        for 1.200s";
        assert_eq!(describe(&mistaken), expected);
    }

    #[test]
    fn an_agent_that_cannot_make_up_its_mind_does_not_fill_the_log() {
        let mut reports = PerSecondLimit::new(100, "changes");
        let logged = (0..10_000).filter(|_| reports.take(MonoTime::from_secs(5))).count();
        assert_eq!((logged, reports.skipped), (100, 9_900));
        assert!(reports.take(MonoTime::from_secs(6)));
    }

    #[test]
    fn a_name_cannot_forge_a_log_line() {
        let mut forged = transition(None, Verdict::Stalled, Cause::Silent);
        forged.agent.name = Arc::from("a\nWARN b");
        assert!(!describe(&forged).contains('\n'));
    }
}

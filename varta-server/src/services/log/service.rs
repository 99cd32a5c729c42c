//! Writes transitions to the log, within limits, and tells what was left out of it.

use metrics::Counter;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::base::clock::Clock;
use crate::base::log_limit::{AGENT_TARGET, AT_ONCE, OMITTED};
use crate::domain::describe::describe;
use crate::domain::tracker::{Transition, Verdict};
use crate::services::context::Context;
use crate::services::log::incidents::OpenIncidents;
use crate::services::log::limits::{LineKind, LineLimits, Omitted, TOLD_EVERY};
use crate::services::log::metrics::suppressed;

/// Starts the sink.
pub(crate) fn start(context: &mut Context) {
    let transitions = context.subscribe("log");
    let registry = &context.registry;
    let log = Log {
        clock: context.clock,
        incidents: OpenIncidents::default(),
        limits: LineLimits::new(),
        told_at: None,
        suppressed: LineKind::ALL.map(|kind| suppressed(registry, kind.as_str())),
        suppressed_others: suppressed(registry, "other"),
    };
    context.spawn("log sink", async {
        log.run(transitions).await;
        Ok(())
    });
}

/// The sink.
struct Log {
    clock: Clock,
    incidents: OpenIncidents,
    limits: LineLimits,
    /// When it is told how many other lines were left out.
    told_at: Option<Instant>,
    /// By kind.
    suppressed: [Counter; LineKind::ALL.len()],
    suppressed_others: Counter,
}

impl Log {
    /// Writes transitions until the queue is closed.
    async fn run(mut self, mut transitions: mpsc::Receiver<Transition>) {
        loop {
            let limits_at = self.limits.told_at().map(|at| self.clock.instant(at));
            let wake_at = [self.incidents.over_at(), limits_at, self.told_at].into_iter().flatten().min();
            tokio::select! {
                biased;
                () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {
                    self.tell_what_is_due();
                }
                transition = transitions.recv() => match transition {
                    Some(transition) => self.write(&transition),
                    None => break,
                },
                () = OMITTED.grew() => {
                    self.suppressed_others.absolute(OMITTED.count());
                    self.told_at.get_or_insert_with(|| Instant::now() + TOLD_EVERY);
                }
            }
        }
        self.incidents.close_all();
        if let Some(omitted) = self.limits.take_omitted() {
            tell_omitted(&omitted);
        }
        tell_others();
    }

    fn write(&mut self, transition: &Transition) {
        self.incidents.note(transition, Instant::now());
        // What nobody wants to read takes no room.
        if is_wanted(transition)
            && let Err(kind) = self.limits.try_take(transition, self.clock.now())
        {
            self.suppressed[kind as usize].increment(1);
            return;
        }
        log_transition(transition);
    }

    fn tell_what_is_due(&mut self) {
        let now = Instant::now();
        self.incidents.close(now);
        if let Some(omitted) = self.limits.poll_omitted(self.clock.now()) {
            tell_omitted(&omitted);
        }
        if self.told_at.take_if(|at| *at <= now).is_some() {
            tell_others();
        }
    }
}

fn tell_omitted(omitted: &Omitted) {
    tracing::warn!(target: "varta::log", lines = omitted.count(), "{omitted}");
}

/// Tells how many lines were left out that are not about agents.
fn tell_others() {
    let omitted = OMITTED.take_untold();
    let lines: u64 = omitted.values().sum();
    if lines == 0 {
        return;
    }
    let targets: Vec<_> = omitted.iter().map(|(target, count)| format!("{target} {count}")).collect();
    tracing::warn!(
        target: "varta::log",
        lines,
        "{lines} lines were left out, by target {}: a line comes {AT_ONCE} times at once and once a second from then on",
        targets.join(", ")
    );
}

/// Whether a transition is a warning. An incident has a single one for all of its agents.
fn is_warning(transition: &Transition) -> bool {
    transition.to.is_alarm() && transition.incident.is_none()
}

fn is_wanted(transition: &Transition) -> bool {
    if is_warning(transition) {
        tracing::enabled!(target: AGENT_TARGET, tracing::Level::WARN)
    } else {
        tracing::enabled!(target: AGENT_TARGET, tracing::Level::INFO)
    }
}

fn log_transition(transition: &Transition) {
    let fields = transition.fields();
    let previous_status = transition.from.and_then(Verdict::status).map(varta_proto::Status::as_str);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: AGENT_TARGET,
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
                said = fields.said,
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
    if is_warning(transition) {
        line!(warn);
    } else {
        line!(info);
    }
}

#[cfg(test)]
mod tests {
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
    fn a_name_cannot_forge_a_log_line() {
        let mut forged = transition(None, Verdict::Stalled, Cause::Silent);
        forged.agent.name = Arc::from("a\nWARN b");
        assert!(!describe(&forged).contains('\n'));
    }
}

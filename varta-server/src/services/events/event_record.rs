//! One line of the file: a change of verdict as a JSON object.

use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::base::time::{millis, rfc3339};
use crate::domain::tracker::{Cause, Transition, Twin, Verdict};

/// Adds the line for a change that was concluded at `at`. `host` is the name of this host.
pub(super) fn add_line(transition: &Transition, at: SystemTime, host: &str, lines: &mut Vec<u8>) {
    let Transition { agent, labels, unit, from, to, cause, silence, last, stall_after, .. } = transition;
    let mut object = Object { lines, has_fields: false };
    object.put("at", rfc3339(at));
    object.put("agent", &*agent.name);
    object.put("pid", agent.pid);
    object.put_some("twin", (agent.twin != Twin::FIRST).then_some(agent.twin.number()));
    object.put("host", agent.origin.host(host));
    object.put("transport", agent.origin.transport().as_str());
    object.put_some("from", from.map(Verdict::as_str));
    object.put("to", to.as_str());
    object.put("status", last.status.as_str());
    object.put("cause", cause.as_str());
    match cause {
        Cause::Exited { code } => object.put_some("exit_code", *code),
        Cause::Killed { signal } => object.put("signal", *signal),
        Cause::Goodbye { reason } => object.put_some("reason", reason.map(|reason| reason.as_str())),
        _ => {}
    }
    object.put("silence_ms", millis(*silence));
    object.put("stall_after_ms", millis(*stall_after));
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    object.put_some("latency_us", transition.detection_latency.map(micros));
    object.put_some("mistake_ms", transition.mistake.map(millis));
    object.put("payload", last.payload);
    object.put("beats", last.beats);
    if !labels.is_empty() {
        let labels = labels.iter().map(|(key, value)| (key.to_owned(), Value::from(value)));
        object.put("labels", labels.collect::<Map<_, _>>());
    }
    object.put_some("unit", unit.as_deref());
    object.put_some("incident", transition.incident.map(|incident| incident.number.get()));
    object.put_some("dossier", transition.dossier.as_ref().map(ToString::to_string));
    object.end();
}

/// An object that is being written, with its fields in the order in which they are put.
struct Object<'l> {
    lines: &'l mut Vec<u8>,
    has_fields: bool,
}

impl Object<'_> {
    fn put(&mut self, key: &'static str, value: impl Into<Value>) {
        self.lines.push(if self.has_fields { b',' } else { b'{' });
        self.has_fields = true;
        self.lines.extend_from_slice(Value::from(key).to_string().as_bytes());
        self.lines.push(b':');
        self.lines.extend_from_slice(value.into().to_string().as_bytes());
    }

    /// Leaves it out when there is none.
    fn put_some(&mut self, key: &'static str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn end(self) {
        self.lines.extend_from_slice(b"}\n");
    }
}

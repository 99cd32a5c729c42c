//! One line of the events file: a transition as a JSON object.

use std::time::SystemTime;

use serde::Serialize;

use crate::base::time::rfc3339;
use crate::domain::describe::TransitionFields;
use crate::domain::tracker::Transition;

#[derive(Serialize)]
struct EventRecord<'t> {
    at: String,
    #[serde(flatten)]
    fields: TransitionFields<'t>,
}

/// Appends the line of a transition that was concluded at `at`. `host` is the host name.
pub(super) fn add_line(transition: &Transition, at: SystemTime, host: &str, lines: &mut Vec<u8>) {
    let record = EventRecord { at: rfc3339(at), fields: transition.fields().on_host(host) };
    serde_json::to_writer(&mut *lines, &record)
        .expect("text, numbers and a map with text for keys have a form in JSON");
    lines.push(b'\n');
}

//! One line of the file: a change of verdict as a JSON object.

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

/// Adds the line for a change that was concluded at `at`. `host` is the name of this host.
pub(super) fn add_line(transition: &Transition, at: SystemTime, host: &str, lines: &mut Vec<u8>) {
    let record = EventRecord { at: rfc3339(at), fields: transition.fields().on_host(host) };
    serde_json::to_writer(&mut *lines, &record)
        .expect("text, numbers and a map with text for keys have a form in JSON");
    lines.push(b'\n');
}

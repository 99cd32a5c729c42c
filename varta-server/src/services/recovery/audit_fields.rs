//! The texts and fields that describe actions in the log and in the audit log.

use serde_json::json;
use serde_json::{Map, Value};

use crate::base::time::millis;
use crate::domain::tracker::{Transition, Verdict};
use crate::services::recovery::command::CommandLine;
use crate::services::recovery::job::Job;
use crate::services::recovery::metrics::ActionResult as Came;
use crate::services::recovery::rule::UnhealthyState;
use crate::services::recovery::runner::{CommandEnd, CommandResult};

/// The name of an agent's state: a critical one is more than `up`.
pub(super) fn state(verdict: Verdict) -> &'static str {
    UnhealthyState::of(verdict).map_or(verdict.as_str(), UnhealthyState::as_str)
}

/// The reason of an action as text.
pub(super) fn reason_text(job: &Job) -> String {
    let Transition { agent, to, cause, silence, .. } = &*job.transition;
    let (step, steps, attempt) = (job.step + 1, job.rule.steps.len(), job.attempt);
    format!(
        "{agent} is {to} ({cause}) after {silence:.3?} of silence; step {step} of {steps}, attempt {attempt}"
    )
}

/// The fields of an audit record about its agent.
pub(super) fn facts_of_agent(transition: &Transition, host: &str) -> Map<String, Value> {
    let fields = transition.fields().on_host(host);
    let mut facts = job_fields([
        ("agent", json!(fields.agent)),
        ("pid", json!(fields.pid)),
        ("host", json!(fields.host)),
        ("transport", json!(fields.transport)),
        ("state", json!(state(transition.to))),
        ("cause", json!(fields.cause)),
        ("silence_ms", json!(fields.silence_ms)),
    ]);
    let optional = [
        ("twin", fields.twin.map(Value::from)),
        ("start_time", transition.process.map(|process| json!(process.start_time))),
        ("unit", fields.unit.map(Value::from)),
        ("incident", fields.incident.map(Value::from)),
        ("labels", (!fields.labels.is_empty()).then(|| json!(fields.labels))),
    ];
    facts.extend(optional.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    facts
}

pub(super) fn facts_of(job: &Job, host: &str) -> Map<String, Value> {
    let mut all = facts_of_agent(&job.transition, host);
    all.extend(job_fields([
        ("action", json!(job.number)),
        ("rule", json!(job.rule.name.as_str())),
        ("step", json!(job.step + 1)),
        ("attempt", json!(job.attempt)),
    ]));
    all
}

pub(super) fn job_fields<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The result of an action, for the metrics, the audit record and the planner.
pub(super) struct ActionReport {
    pub(super) came: Came,
    pub(super) facts: Map<String, Value>,
    /// Whether what a command started ended with it.
    pub(super) did_not_stay: bool,
}

impl ActionReport {
    pub(super) fn new<const N: usize>(came: Came, facts: [(&str, Value); N]) -> Self {
        ActionReport { came, facts: job_fields(facts), did_not_stay: false }
    }
}

/// Logs the result of a command.
pub(super) fn log_command(
    job: &Job,
    command: &CommandLine,
    ran: std::io::Result<CommandResult>,
) -> ActionReport {
    let agent = &job.transition.agent;
    let CommandResult { end, lasted, output, killed } = match ran {
        Ok(ran) => ran,
        Err(error) => {
            tracing::error!(
                target: "varta::recovery",
                agent = %agent,
                "`{command}` for {agent} cannot be started: {error}"
            );
            return ActionReport::new(Came::Failed, [("error", json!(error.to_string()))]);
        }
    };
    let did_not_stay = end == CommandEnd::Exited(0) && killed > 0;
    let (came, how) = match end {
        CommandEnd::Exited(0) if did_not_stay => {
            (Came::Failed, "exited with status 0, and what it started did not stay".to_owned())
        }
        CommandEnd::Exited(0) => (Came::Done, "exited with status 0".to_owned()),
        CommandEnd::Exited(code) => (Came::Failed, format!("exited with status {code}")),
        CommandEnd::Signalled(signal) => (Came::Failed, format!("was killed by signal {signal}")),
        CommandEnd::TimedOut => (Came::TimedOut, "took too long and was ended".to_owned()),
        CommandEnd::Unkillable => {
            (Came::TimedOut, "took too long and cannot be killed: it waits in the kernel".to_owned())
        }
    };
    let text = output.text();
    let left = match killed {
        0 => String::new(),
        _ if did_not_stay => format!(
            "; {killed} processes of its group were ended with it: have a service manager start what is to stay, or \
             systemd-run, or setsid; it is not tried again"
        ),
        _ => format!("; {killed} processes that it left behind were ended"),
    };
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: "varta::recovery",
                agent = %agent,
                duration_ms = millis(lasted),
                output = %text.escape_debug(),
                "`{command}` {how} after {lasted:.3?}{left}: {}",
                reason_text(job)
            )
        };
    }
    if came == Came::Done {
        line!(warn);
    } else {
        line!(error);
    }
    let mut result = job_fields([
        ("duration_ms", json!(millis(lasted))),
        ("output", json!(text)),
        ("output_bytes", json!(output.length)),
        ("left_behind", json!(killed)),
    ]);
    let (key, value) = match end {
        CommandEnd::Exited(code) => ("exit_code", json!(code)),
        CommandEnd::Signalled(signal) => ("exit_signal", json!(signal)),
        CommandEnd::TimedOut | CommandEnd::Unkillable => ("ended", json!(how)),
    };
    result.insert(key.to_owned(), value);
    if did_not_stay {
        result.insert("reason".to_owned(), json!("left_behind"));
    }
    ActionReport { came, facts: result, did_not_stay }
}

#[cfg(test)]
mod tests {
    use varta_proto::Status;

    use super::*;
    use crate::domain::tracker::Cause;
    use crate::domain::tracker::tests::sample;

    #[test]
    fn a_record_says_this_of_an_agent() {
        let text = |transition: &Transition| Value::Object(facts_of_agent(transition, "db1")).to_string();
        let stalled = sample::transition("worker").to(Verdict::Up(Status::Critical), Cause::Reported);
        assert_eq!(
            text(&stalled),
            r#"{"agent":"worker","cause":"reported","host":"db1","pid":1,"silence_ms":5000,"state":"critical","transport":"unix"}"#
        );
        let complete = sample::complete();
        let name = serde_json::to_string(&*complete.agent.name).unwrap();
        assert_eq!(
            text(&complete),
            format!(
                r#"{{"agent":{name},"cause":"goodbye","host":"10.0.0.7","incident":1,"labels":{{"team":{name},"zone":"b"}},"pid":7,"silence_ms":5001,"start_time":1,"state":"gone","transport":"secure_udp","twin":2,"unit":"billing.service"}}"#
            )
        );
    }

    #[test]
    fn a_critical_agent_is_called_that() {
        assert_eq!(state(Verdict::Up(Status::Critical)), "critical");
        assert_eq!(state(Verdict::Down), "down");
    }
}

//! Expectations: what a test waits for at a server, in one sentence.
//!
//! ```text
//! server.expect(agent("billing").stalled().because("stopped").within(STALL_AFTER));
//! server.expect(line("the key files were read again").nth(2));
//! server.expect(metric("varta_notifications_total").with("outcome", "sent").is(3.0));
//! ```
//!
//! Verdicts are read from the server's log, where each change of verdict is a line of the target
//! `varta::agent`. Every server of a test writes that log, and the lines stand in the order in which the
//! tracker made the changes. A line that is already there counts: an expectation holds if the log has the
//! line or gets it in time. Whether an agent had other verdicts as well is a question for
//! [`Server::history`](crate::Server::history).
//!
//! An expectation that fails panics at the line of the test, with all changes of verdict in the order in
//! which they were seen. The lines of the agent in question are marked with `>`.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::agent_process::AgentProcess;
use crate::log::{Line, Log, Transition, transitions};
use crate::remote_agent::RemoteAgent;
use crate::retry::LIMIT;
use crate::scrape::Scrape;
use crate::server::Server;

/// What a test can wait for at a server.
pub trait Expectation {
    /// What is found when it holds.
    type Found;

    /// Waits until it holds.
    ///
    /// # Errors
    ///
    /// It did not hold in time. The text is for the person who reads the failure: what was expected, and what
    /// was seen.
    fn wait(self, server: &Server) -> Result<Self::Found, String>;
}

/// An agent, by its pid or its name.
#[must_use]
pub fn agent(which: impl Into<Agent>) -> Agent {
    which.into()
}

/// Any agent.
#[must_use]
pub fn any_agent() -> Agent {
    Agent::default()
}

/// Which agent is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agent {
    pid: Option<u32>,
    name: Option<String>,
    transport: Option<String>,
}

impl From<u32> for Agent {
    fn from(pid: u32) -> Self {
        Agent { pid: Some(pid), ..Agent::default() }
    }
}

impl From<&str> for Agent {
    fn from(name: &str) -> Self {
        Agent { name: Some(name.to_owned()), ..Agent::default() }
    }
}

impl From<&AgentProcess> for Agent {
    fn from(process: &AgentProcess) -> Self {
        process.pid().into()
    }
}

impl From<&RemoteAgent> for Agent {
    fn from(remote: &RemoteAgent) -> Self {
        remote.pid().into()
    }
}

impl Agent {
    /// Only the one with this name.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Agent { name: Some(name.to_owned()), ..self }
    }

    /// Only the one whose beats arrive by this transport.
    #[must_use]
    pub fn over(self, transport: &str) -> Self {
        Agent { transport: Some(transport.to_owned()), ..self }
    }

    /// It becomes `up`.
    #[must_use]
    pub fn up(self) -> Verdict {
        self.becomes("up")
    }

    /// It becomes `stalled`.
    #[must_use]
    pub fn stalled(self) -> Verdict {
        self.becomes("stalled")
    }

    /// It becomes `down`.
    #[must_use]
    pub fn down(self) -> Verdict {
        self.becomes("down")
    }

    /// It becomes `gone`.
    #[must_use]
    pub fn gone(self) -> Verdict {
        self.becomes("gone")
    }

    /// It becomes `unknown`.
    #[must_use]
    pub fn unknown(self) -> Verdict {
        self.becomes("unknown")
    }

    /// It becomes `to`, for tests that go through a table of verdicts.
    #[must_use]
    pub fn becomes(self, to: &str) -> Verdict {
        Verdict {
            agent: self,
            to: to.to_owned(),
            from: None,
            cause: None,
            may_have_no_look: false,
            status: None,
            silence: Duration::ZERO,
            exit_code: None,
            signal: None,
            takes: Duration::ZERO,
        }
    }

    pub(crate) fn is(&self, change: &Transition) -> bool {
        self.pid.is_none_or(|pid| change.pid == pid)
            && self.name.as_ref().is_none_or(|name| change.agent == *name)
            && self.transport.as_ref().is_none_or(|transport| change.transport == *transport)
    }
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.pid) {
            (Some(name), Some(pid)) => write!(f, "{name}[{pid}]")?,
            (Some(name), None) => f.write_str(name)?,
            (None, Some(pid)) => write!(f, "[{pid}]")?,
            (None, None) => f.write_str("any agent")?,
        }
        match &self.transport {
            Some(transport) => write!(f, " by {transport}"),
            None => Ok(()),
        }
    }
}

/// A change of verdict: the first in the log that has all that is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    agent: Agent,
    to: String,
    from: Option<String>,
    cause: Option<String>,
    may_have_no_look: bool,
    status: Option<String>,
    silence: Duration,
    exit_code: Option<u64>,
    signal: Option<u64>,
    takes: Duration,
}

impl Verdict {
    /// The cause of the change.
    #[must_use]
    pub fn because(self, cause: &str) -> Self {
        Verdict { cause: Some(cause.to_owned()), ..self }
    }

    /// The cause that a look at the process shows. That the look [came too late](Transition::has_no_look)
    /// counts as well, for tests that are about something else.
    #[must_use]
    pub fn seen_as(self, cause: &str) -> Self {
        Verdict { may_have_no_look: true, ..self.because(cause) }
    }

    /// The verdict before; `none` for an agent that was not known.
    #[must_use]
    pub fn from(self, from: &str) -> Self {
        Verdict { from: Some(from.to_owned()), ..self }
    }

    /// The status that the agent reported last.
    #[must_use]
    pub fn with_status(self, status: &str) -> Self {
        Verdict { status: Some(status.to_owned()), ..self }
    }

    /// The agent has been silent for this time at least.
    #[must_use]
    pub fn after_silence(self, silence: Duration) -> Self {
        Verdict { silence, ..self }
    }

    /// The exit status of its process.
    #[must_use]
    pub fn exit_code(self, code: u64) -> Self {
        Verdict { exit_code: Some(code), ..self }
    }

    /// The signal that killed its process.
    #[must_use]
    pub fn signal(self, signal: u64) -> Self {
        Verdict { signal: Some(signal), ..self }
    }

    /// How long the change takes by design, such as a stall-after. The expectation is given up when [`LIMIT`]
    /// more than this has passed since [`Server::expect`] was called: a limit that no healthy run comes near,
    /// however busy the machine is, and no assertion of speed. Without it a change is one that comes at once.
    #[must_use]
    pub fn within(self, takes: Duration) -> Self {
        Verdict { takes, ..self }
    }

    fn is(&self, change: &Transition) -> bool {
        let equals = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|text| text == found);
        self.agent.is(change)
            && change.to == self.to
            && equals(&self.from, &change.from)
            && (equals(&self.cause, &change.cause) || (self.may_have_no_look && change.has_no_look()))
            && equals(&self.status, &change.status)
            && u128::from(change.silence_ms) >= self.silence.as_millis()
            && (self.exit_code.is_none() || change.exit_code == self.exit_code)
            && (self.signal.is_none() || change.signal == self.signal)
    }

    fn wait_in(&self, log: &Log, limit: Duration) -> Result<Transition, String> {
        log.wait_for(
            limit,
            |lines| transitions(lines).find(|change| self.is(change)).cloned(),
            |lines| format!("not within {limit:?}: {self}\n{}", story(lines, &self.agent)),
        )
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} becomes {}", self.agent, self.to)?;
        let words = [(" from ", &self.from), (" because ", &self.cause), (" with status ", &self.status)];
        for (word, value) in words {
            if let Some(value) = value {
                write!(f, "{word}{value}")?;
            }
        }
        if !self.silence.is_zero() {
            write!(f, " after a silence of {:?} at least", self.silence)?;
        }
        for (name, value) in [("exit code", self.exit_code), ("signal", self.signal)] {
            if let Some(value) = value {
                write!(f, ", {name} {value}")?;
            }
        }
        Ok(())
    }
}

impl Expectation for Verdict {
    type Found = Transition;

    fn wait(self, server: &Server) -> Result<Transition, String> {
        self.wait_in(server.log(), self.takes + LIMIT)
    }
}

/// All changes of verdict in the order in which they were seen, with a mark at those of one agent.
pub(crate) fn story(lines: &[Line], agent: &Agent) -> String {
    let changes: Vec<_> = transitions(lines)
        .map(|change| format!("{} {change}", if agent.is(change) { '>' } else { ' ' }))
        .collect();
    if changes.is_empty() {
        return "no change of verdict was seen".to_owned();
    }
    format!("{} changes of verdict were seen, in this order:\n{}", changes.len(), changes.join("\n"))
}

/// A line of the log whose message begins with `start`.
#[must_use]
pub fn line(start: &str) -> LogLine {
    LogLine { start: start.to_owned(), parts: Vec::new(), number: 1 }
}

/// A line of the log whose message has `part` in it.
#[must_use]
pub fn line_with(part: &str) -> LogLine {
    line("").with(part)
}

/// A line of the log: the first that has all that is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    start: String,
    parts: Vec<String>,
    number: usize,
}

impl LogLine {
    /// The message has this in it, too.
    #[must_use]
    pub fn with(mut self, part: &str) -> Self {
        self.parts.push(part.to_owned());
        self
    }

    /// Not the first such line but the `number`th, counted from 1.
    #[must_use]
    pub fn nth(self, number: usize) -> Self {
        LogLine { number, ..self }
    }

    fn is(&self, line: &Line) -> bool {
        let message = line.message();
        message.starts_with(&self.start) && self.parts.iter().all(|part| message.contains(part))
    }

    fn wait_in(&self, log: &Log, limit: Duration) -> Result<Value, String> {
        log.wait_for(
            limit,
            |lines| {
                lines.iter().filter(|line| self.is(line)).nth(self.number - 1).map(|line| line.fields.clone())
            },
            |lines| {
                let lines: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
                format!("not within {limit:?}: {self}\nthe log is\n{}", lines.join("\n"))
            },
        )
    }
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a line of the log")?;
        if !self.start.is_empty() {
            write!(f, " that begins with {:?}", self.start)?;
        }
        for part in &self.parts {
            write!(f, " that has {part:?} in it")?;
        }
        match self.number {
            1 => Ok(()),
            number => write!(f, ", number {number}"),
        }
    }
}

impl Expectation for LogLine {
    type Found = Value;

    fn wait(self, server: &Server) -> Result<Value, String> {
        self.wait_in(server.log(), LIMIT)
    }
}

/// A sample of `/metrics`, of which there is one with the labels that are asked for.
#[must_use]
pub fn metric(name: &str) -> Metric {
    Metric { name: name.to_owned(), labels: Vec::new() }
}

/// Which sample is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    name: String,
    labels: Vec<(String, String)>,
}

impl Metric {
    /// It has this label.
    #[must_use]
    pub fn with(mut self, label: &str, value: impl fmt::Display) -> Self {
        self.labels.push((label.to_owned(), value.to_string()));
        self
    }

    /// Its value is this one.
    #[must_use]
    pub fn is(self, value: f64) -> MetricValue {
        MetricValue { metric: self, bounds: (value, value) }
    }

    /// Its value is this one or greater.
    #[must_use]
    pub fn at_least(self, value: f64) -> MetricValue {
        MetricValue { metric: self, bounds: (value, f64::INFINITY) }
    }
}

/// A value of a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricValue {
    metric: Metric,
    /// The least and the greatest value that it may have.
    bounds: (f64, f64),
}

impl fmt::Display for MetricValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Metric { name, labels } = &self.metric;
        let labels: Vec<_> = labels.iter().map(|(label, value)| format!("{label}={value:?}")).collect();
        let (least, greatest) = self.bounds;
        let relation = if least == greatest { "is" } else { "is at least" };
        write!(f, "{name}{{{}}} {relation} {least}", labels.join(","))
    }
}

impl Expectation for MetricValue {
    type Found = Scrape;

    fn wait(self, server: &Server) -> Result<Scrape, String> {
        let Metric { name, labels } = &self.metric;
        let labels: Vec<_> = labels.iter().map(|(label, value)| (label.as_str(), value.as_str())).collect();
        let (least, greatest) = self.bounds;
        server.wait_for_scrape(&self.to_string(), |scrape| {
            scrape.get(name, &labels).is_some_and(|value| (least..=greatest).contains(&value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_TIME: Duration = Duration::ZERO;

    /// A line as the server writes it.
    fn event(agent: &str, pid: u32, from: &str, to: &str, cause: &str, silence_ms: u64) -> String {
        format!(
            "{{\"timestamp\":\"2026-01-02T03:04:05.678Z\",\"target\":\"varta::agent\",\"agent\":\"{agent}\",\
             \"pid\":{pid},\"transport\":\"unix\",\"from\":\"{from}\",\"to\":\"{to}\",\"cause\":\"{cause}\",\
             \"silence_ms\":{silence_ms},\"status\":\"ok\",\"payload\":7,\"message\":\"{agent} is {to}\"}}\n"
        )
    }

    fn two_agents() -> Log {
        let lines = [
            "not JSON at all\n".to_owned(),
            event("billing", 7, "none", "up", "first_beat", 0),
            event("mail", 8, "none", "up", "first_beat", 0),
            "{\"target\":\"varta::incident\",\"message\":\"incident 1 is over\",\"agents\":2}\n".to_owned(),
            event("mail", 8, "up", "down", "killed", 12),
            event("billing", 7, "up", "stalled", "idle", 2_003),
        ];
        Log::of(&lines.concat(), false)
    }

    fn found(verdict: &Verdict) -> Result<Transition, String> {
        verdict.wait_in(&two_agents(), NO_TIME)
    }

    #[test]
    fn an_agent_is_found_by_its_name_and_by_its_pid() {
        for billing in [agent("billing"), agent(7), any_agent()] {
            let change = found(&billing.stalled()).unwrap();
            assert_eq!((change.pid, change.cause.as_str()), (7, "idle"));
        }
        assert!(found(&agent("mail").stalled()).is_err());
        assert!(found(&agent(9).up()).is_err());
    }

    #[test]
    fn a_change_has_all_that_is_asked_of_it() {
        let stalled = || agent("billing").stalled();
        let two_seconds = Duration::from_secs(2);
        for fits in [
            stalled().because("idle"),
            stalled().from("up").with_status("ok").after_silence(two_seconds),
            agent("mail").down().because("killed").from("up"),
            agent("mail").over("unix").up(),
        ] {
            assert!(found(&fits).is_ok(), "{fits}");
        }
        for differs in [
            stalled().seen_as("stopped"),
            stalled().because("stopped"),
            stalled().from("unknown"),
            stalled().with_status("critical"),
            stalled().after_silence(two_seconds * 2),
            agent("mail").down().signal(9),
            agent("mail").down().exit_code(3),
            agent("mail").over("udp").up(),
            agent("billing").gone(),
            agent("billing").unknown(),
        ] {
            assert!(found(&differs).is_err(), "{differs}");
        }
    }

    #[test]
    fn a_look_that_came_too_late_counts_only_where_the_test_is_not_about_it() {
        let log = Log::of(&event("billing", 7, "up", "stalled", "silent", 2_003), true);
        let stalled = || agent("billing").stalled();
        assert!(stalled().seen_as("stopped").wait_in(&log, NO_TIME).is_ok());
        assert!(stalled().because("stopped").wait_in(&log, NO_TIME).is_err());
        let dossier = ",\"dossier\":\"unknown: 1 thread\",\"message\"";
        let seen = event("billing", 7, "up", "stalled", "silent", 2_003).replace(",\"message\"", dossier);
        assert!(stalled().seen_as("stopped").wait_in(&Log::of(&seen, true), NO_TIME).is_err());
    }

    #[test]
    fn a_failure_names_what_was_expected_and_shows_all_events_in_their_order() {
        let failure = found(&agent("billing").stalled().because("stopped").from("up")).unwrap_err();
        let expected = "\
not within 0ns: billing becomes stalled from up because stopped
4 changes of verdict were seen, in this order:
> 03:04:05.678Z billing[7] by unix: none to up: first_beat; silent for 0 ms, ok, payload 7
  03:04:05.678Z mail[8] by unix: none to up: first_beat; silent for 0 ms, ok, payload 7
  03:04:05.678Z mail[8] by unix: up to down: killed; silent for 12 ms, ok, payload 7
> 03:04:05.678Z billing[7] by unix: up to stalled: idle; silent for 2003 ms, ok, payload 7";
        assert_eq!(failure, expected);
    }

    #[test]
    fn a_failure_of_a_log_without_events_says_so() {
        let failure = agent(7).down().signal(9).wait_in(&Log::of("", false), NO_TIME).unwrap_err();
        assert_eq!(failure, "not within 0ns: [7] becomes down, signal 9\nno change of verdict was seen");
    }

    #[test]
    fn a_log_that_is_complete_is_not_waited_for() {
        let log = Log::of(&event("billing", 7, "none", "up", "first_beat", 0), true);
        // The test would not end in time if it waited for these.
        let century = Duration::from_secs(100 * 365 * 24 * 3_600);
        assert!(agent("billing").down().wait_in(&log, century).is_err());
        assert!(line("stopping").wait_in(&log, century).is_err());
        assert!(agent("billing").up().wait_in(&log, century).is_ok());
    }

    #[test]
    fn what_a_change_takes_by_design_comes_on_top_of_the_limit() {
        let verdict = agent("billing").stalled();
        assert_eq!(verdict.takes, NO_TIME);
        assert_eq!(verdict.within(Duration::from_secs(2)).takes + LIMIT, LIMIT + Duration::from_secs(2));
    }

    #[test]
    fn a_line_is_found_by_how_it_begins_by_what_is_in_it_and_by_its_number() {
        let log = two_agents();
        let found = |line: LogLine| line.wait_in(&log, NO_TIME);
        assert_eq!(found(line("incident 1")).unwrap()["agents"], 2);
        assert_eq!(found(line_with("is over")).unwrap()["agents"], 2);
        assert_eq!(found(line("mail is ").nth(2)).unwrap()["to"], "down");
        assert_eq!(found(line("billing").with("stalled")).unwrap()["to"], "stalled");
        for absent in [line("is over"), line("mail is ").nth(3), line("billing").with("down")] {
            let failure = found(absent.clone()).unwrap_err();
            assert!(failure.starts_with(&format!("not within 0ns: {absent}\n")), "{failure}");
            assert!(failure.ends_with("billing is stalled\"}"), "{failure}");
        }
    }

    #[test]
    fn an_expectation_reads_as_a_sentence() {
        let sentences = [
            (
                agent("billing").over("udp").stalled().after_silence(Duration::from_secs(1)).to_string(),
                "billing by udp becomes stalled after a silence of 1s at least",
            ),
            (
                any_agent().up().with_status("critical").to_string(),
                "any agent becomes up with status critical",
            ),
            (
                line("a").with("b").nth(2).to_string(),
                "a line of the log that begins with \"a\" that has \"b\" in it, number 2",
            ),
            (metric("m").is(1.0).to_string(), "m{} is 1"),
            (metric("m").with("pid", 7).at_least(2.0).to_string(), "m{pid=\"7\"} is at least 2"),
        ];
        for (sentence, expected) in sentences {
            assert_eq!(sentence, expected);
        }
    }
}

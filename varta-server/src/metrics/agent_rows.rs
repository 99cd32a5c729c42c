//! Series of single agents, rendered into one buffer for each family.
//!
//! The text format wants all series of a family together, while the tracker yields agents only in slices, so
//! that a scrape does not delay beats. Each slice therefore adds to the buffer of every family, and the body
//! of the response consists of the buffers one after the other.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::base::time::millis;
use crate::base::visible::visible;
use crate::domain::beat::Origin;
use crate::domain::labels::Labels;
use crate::domain::tracker::{AgentView, Problem, Twin, Verdict};
use crate::metrics::family::{Family, families};

/// The most agents of which all have series of their own under [`AgentMetrics::Auto`], and the most names that
/// have a row before any process with them was restarted.
pub(crate) const AUTO_LIMIT: usize = 10_000;
/// The number of agents below which all of them have series again, after they were more than [`AUTO_LIMIT`].
const AUTO_AGAIN: usize = 9_000;
/// The most agents that are not well and have series while there are more than [`AUTO_LIMIT`] agents.
const AUTO_UNWELL_LIMIT: usize = 100_000;

/// For which agents there are rows of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, clap::ValueEnum)]
#[non_exhaustive]
pub enum AgentMetrics {
    /// Every agent.
    All,
    /// Agents that are not up and healthy; of the others only `varta_stalls_total`, at most 10 000 of them.
    Unhealthy,
    /// No agent.
    Off,
    /// Every agent while there are at most 10 000, else those that are not healthy, at most 100 000 of them.
    #[default]
    Auto,
}

/// Whether [`AgentMetrics::Auto`] leaves out agents that are well. It does so above [`AUTO_LIMIT`] agents until
/// there are fewer than [`AUTO_AGAIN`], so that a number of agents that varies about a limit does not make
/// their rows come and go.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AutoRows {
    only_unwell: bool,
}

impl AutoRows {
    /// Which agents have rows while there are so many.
    pub(crate) fn choose(&mut self, mode: AgentMetrics, agents: usize) -> AgentMetrics {
        self.only_unwell = agents > AUTO_LIMIT || (self.only_unwell && agents >= AUTO_AGAIN);
        match mode {
            AgentMetrics::Auto if !self.only_unwell => AgentMetrics::All,
            other => other,
        }
    }
}

families! {
    BEATS = "varta_beats_total", "Beats accepted from this agent.";
    STALLS = "varta_stalls_total", "How often this agent was called stalled.";
    AGENT_MISTAKES = "varta_agent_mistakes_total",
        "How often this agent was called stalled though it was beating all along, since this server started.";
    STATUS = "varta_status", "What this agent reports: 0 ok, 1 degraded, 2 critical; 3 when it is silent.";
    AGENT_UP = "varta_agent_up", "1 while this agent is well, 0 when it is cause for alarm.";
    ALARM = "varta_agent_alarm", "1 while this agent is cause for alarm, with what is wrong with it; no row while it is not.";
    LAST_BEAT = "varta_agent_last_beat_timestamp_seconds", "Unix time of this agent's last beat.";
    STALL_AFTER = "varta_agent_stall_after_seconds", "How long this agent may be silent.";
    PAYLOAD = "varta_agent_payload", "The number that this agent sent with its last beat.";
    RESTARTS = "varta_agent_restarts_total",
        "Processes that took the place of one with the same name that was down or gone.";
    BEATS_LOST = "varta_agent_beats_lost_total", "Beats that this agent sent, by its nonces, and that did not arrive.";
    INFO = "varta_agent_info",
        "1, with the unit, the cgroup and the container of this agent, and the labels that it gave itself.";
}

/// The families with a row for each agent, and the type of each.
const PER_AGENT: [(Family, &str); 9] = [
    (BEATS, "counter"),
    (STALLS, "counter"),
    (AGENT_MISTAKES, "counter"),
    (STATUS, "gauge"),
    (AGENT_UP, "gauge"),
    (LAST_BEAT, "gauge"),
    (STALL_AFTER, "gauge"),
    (PAYLOAD, "gauge"),
    (BEATS_LOST, "counter"),
];

/// The label of an agent that is the label `version` of its row of information.
const VERSION: &str = "version";

/// Places in [`PER_AGENT`].
const STALLS_ROW: usize = 1;
const MISTAKES_ROW: usize = 2;
const AGENT_UP_ROW: usize = 4;

/// The series of one scrape under construction.
#[derive(Debug)]
pub(crate) struct AgentRows {
    mode: AgentMetrics,
    /// The host name.
    host: String,
    /// Unix time of [`MonoTime::START`](crate::base::time::MonoTime::START), in milliseconds.
    wall_start_millis: u64,
    bodies: [BytesMut; PER_AGENT.len()],
    alarms: BytesMut,
    jobs: BytesMut,
    info: BytesMut,
    restarts: BytesMut,
    labels: BytesMut,
    /// The number of agents with all of their rows.
    rows: usize,
    /// The number of further agents that may have rows of their stalls only: of those that never stalled, and
    /// of those that did.
    room_for_stalls: [usize; 2],
    omitted: usize,
}

impl AgentRows {
    /// Begins a scrape on `host`, as [`AutoRows::choose`] has chosen.
    pub(crate) fn new(mode: AgentMetrics, host: &str, wall_start_seconds: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "milliseconds since 1970 fit"
        )]
        let wall_start_millis = (wall_start_seconds * 1000.0) as u64;
        AgentRows {
            mode,
            host: escape(host),
            wall_start_millis,
            bodies: PER_AGENT.map(|_| BytesMut::new()),
            alarms: BytesMut::new(),
            jobs: BytesMut::new(),
            info: BytesMut::new(),
            restarts: BytesMut::new(),
            labels: BytesMut::new(),
            rows: 0,
            room_for_stalls: [AUTO_LIMIT; 2],
            omitted: 0,
        }
    }

    /// Adds an agent's series, or counts it as omitted.
    pub(crate) fn add(&mut self, agent: &AgentView<'_>) {
        let well = agent.verdict == Verdict::Up(varta_proto::Status::Ok);
        if agent.verdict == Verdict::Gone {
            return;
        }
        let wanted = match self.mode {
            AgentMetrics::All => true,
            AgentMetrics::Unhealthy => !well,
            AgentMetrics::Off => false,
            AgentMetrics::Auto => !well && self.rows < AUTO_UNWELL_LIMIT,
        };
        if !wanted {
            self.omitted += 1;
            if well && self.mode != AgentMetrics::Off {
                self.add_stalls(agent);
            }
            return;
        }
        self.rows += 1;
        self.write_labels(agent);
        let status = match agent.verdict {
            Verdict::Up(status) => status as u64,
            Verdict::Stalled | Verdict::Down | Verdict::Gone => 3,
            Verdict::Unknown | Verdict::Expected => agent.last.status as u64,
        };
        // Known from before a restart of the server, the agent still has time; once that has passed it is
        // stalled.
        let has_time = agent.verdict == Verdict::Expected;
        let problem = Problem::of(agent.verdict).filter(|_| !has_time);
        let last_beat = self.wall_start_millis + agent.last_beat.as_nanos() / 1_000_000;
        let values = [
            Value::Whole(agent.last.beats),
            Value::Whole(u64::from(agent.stalls)),
            Value::Whole(u64::from(agent.false_positives)),
            Value::Whole(status),
            Value::Whole(u64::from(problem.is_none())),
            Value::Thousandths(last_beat.saturating_sub(millis(agent.silent_before))),
            Value::Thousandths(millis(agent.stall_after)),
            Value::Whole(u64::from(agent.last.payload)),
            Value::Whole(agent.lost),
        ];
        for (row, value) in values.into_iter().enumerate() {
            self.put(row, value);
        }
        if let Some(problem) = problem {
            self.put_alarm(problem);
        }
        self.put_info(agent);
    }

    /// Adds what is wrong with the present agent, as a label beside those of its other rows.
    fn put_alarm(&mut self, problem: Problem) {
        let body = begun(&mut self.alarms, (ALARM, "gauge"));
        body.put_slice(ALARM.name.as_bytes());
        body.put_slice(self.labels.strip_suffix(b"} ").unwrap_or(&self.labels));
        // Writing to memory cannot fail.
        let _ = writeln!(body, ",problem=\"{}\"}} 1", problem.as_str());
    }

    /// Adds what is known of an agent, as labels beside those of its other rows. What is not known is left out.
    fn put_info(&mut self, agent: &AgentView<'_>) {
        let body = begun(&mut self.info, (INFO, "gauge"));
        body.put_slice(INFO.name.as_bytes());
        body.put_slice(self.labels.strip_suffix(b"} ").unwrap_or(&self.labels));
        let known = [
            ("unit", agent.unit.map(|unit| &**unit)),
            ("cgroup", agent.place.map(|place| &*place.cgroup)),
            ("container", agent.place.and_then(|place| place.container.as_deref())),
            ("version", agent.labels.and_then(|labels| labels.get(VERSION))),
        ];
        let mut put = |prefix: &str, name: &str, value: &str| {
            // Writing to memory cannot fail.
            let _ = write!(body, ",{prefix}{name}=\"");
            put_escaped(body, value);
            body.put_u8(b'"');
        };
        for (name, value) in known {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                put("", name, value);
            }
        }
        let own = agent.labels.into_iter().flat_map(Labels::iter);
        for (key, value) in own.filter(|(key, value)| *key != VERSION && !value.is_empty()) {
            put("label_", key, value);
        }
        body.put_slice(b"} 1\n");
    }

    /// Adds the counters of stalls of an agent that is well and has no other rows, at 0 from its first beat on:
    /// `increase()` of a counter does not see the step with which its row begins.
    fn add_stalls(&mut self, agent: &AgentView<'_>) {
        let has_stalled = agent.stalls > 0;
        let room = &mut self.room_for_stalls[usize::from(has_stalled)];
        if *room == 0 {
            return;
        }
        *room -= 1;
        self.write_labels(agent);
        self.put(STALLS_ROW, Value::Whole(u64::from(agent.stalls)));
        if has_stalled {
            // A mistake is known once the agent is well again.
            self.put(MISTAKES_ROW, Value::Whole(u64::from(agent.false_positives)));
        }
    }

    /// Adds a row with the labels of the present agent.
    fn put(&mut self, row: usize, value: Value) {
        let body = begun(&mut self.bodies[row], PER_AGENT[row]);
        body.put_slice(PER_AGENT[row].0.name.as_bytes());
        body.put_slice(&self.labels);
        value.put(body);
        body.put_u8(b'\n');
    }

    /// Adds the series of jobs.
    pub(crate) fn add_jobs(&mut self, rows: BytesMut) {
        self.jobs = rows;
    }

    /// Adds the expected agents that are missing: without a pid, and not up.
    pub(crate) fn add_missing<'a>(&mut self, names: impl Iterator<Item = &'a Arc<str>>) {
        for name in names {
            self.labels.clear();
            self.labels.put_slice(b"{pid=\"\",agent=\"");
            put_escaped(&mut self.labels, name);
            // Writing to memory cannot fail.
            let _ = write!(self.labels, "\",host=\"{}\",transport=\"\"}} ", self.host);
            self.put(AGENT_UP_ROW, Value::Whole(0));
            self.put_alarm(Problem::Missing);
        }
    }

    /// Adds the number of restarts by name, for at most [`AUTO_LIMIT`] names without and as many with restarts.
    ///
    /// A name has its row at 0 from its first beat on: `increase()` of a counter does not see the step with
    /// which its row begins.
    pub(crate) fn add_restarts<'a>(&mut self, restarts: impl Iterator<Item = (&'a Arc<str>, u64)>) {
        let (mut unchanged, mut restarted) = (AUTO_LIMIT, AUTO_LIMIT);
        for (name, restarts) in restarts {
            let room = if restarts == 0 { &mut unchanged } else { &mut restarted };
            if *room == 0 {
                continue;
            }
            *room -= 1;
            let body = begun(&mut self.restarts, (RESTARTS, "counter"));
            // Writing to memory cannot fail.
            let _ = write!(body, "{}{{agent=\"", RESTARTS.name);
            put_escaped(body, name);
            let _ = writeln!(body, "\"}} {restarts}");
        }
    }

    /// The number of agents without rows, or with those of their stalls only.
    pub(crate) fn omitted(&self) -> usize {
        self.omitted
    }

    /// The body, in pieces.
    pub(crate) fn into_pieces(self) -> impl Iterator<Item = Bytes> {
        self.bodies
            .into_iter()
            .chain([self.alarms, self.info, self.restarts, self.jobs])
            .filter(|body| !body.is_empty())
            .map(BytesMut::freeze)
    }

    fn write_labels(&mut self, agent: &AgentView<'_>) {
        self.labels.clear();
        self.labels.put_slice(b"{pid=\"");
        if !matches!(agent.origin, Origin::Named { .. }) {
            self.labels.put_slice(itoa::Buffer::new().format(agent.pid).as_bytes());
        }
        self.labels.put_slice(b"\",agent=\"");
        put_escaped(&mut self.labels, agent.name);
        self.labels.put_slice(b"\",host=\"");
        match agent.origin.address() {
            None => self.labels.put_slice(self.host.as_bytes()),
            // Writing to memory cannot fail.
            Some(address) => _ = write!(self.labels, "{address}"),
        }
        self.labels.put_slice(b"\",transport=\"");
        self.labels.put_slice(agent.origin.transport().as_str().as_bytes());
        if agent.twin != Twin::FIRST {
            self.labels.put_slice(b"\",twin=\"");
            self.labels.put_slice(itoa::Buffer::new().format(agent.twin.number()).as_bytes());
        }
        self.labels.put_slice(b"\"} ");
    }
}

/// The buffer of a family, with the family's comments at its beginning.
pub(super) fn begun<'b>(body: &'b mut BytesMut, (family, kind): (Family, &str)) -> &'b mut BytesMut {
    if body.is_empty() {
        let Family { name, help, .. } = family;
        // Writing to memory cannot fail.
        let _ = write!(body, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }
    body
}

/// The value of a sample.
#[derive(Clone, Copy)]
enum Value {
    Whole(u64),
    /// In thousandths, which render as a decimal fraction.
    Thousandths(u64),
}

impl Value {
    fn put(self, body: &mut BytesMut) {
        let mut digits = itoa::Buffer::new();
        match self {
            Value::Whole(whole) => body.put_slice(digits.format(whole).as_bytes()),
            Value::Thousandths(thousandths) => {
                body.put_slice(digits.format(thousandths / 1000).as_bytes());
                // A leading 1 keeps the zeroes after the decimal point.
                let fraction = digits.format(1000 + thousandths % 1000);
                body.put_u8(b'.');
                body.put_slice(&fraction.as_bytes()[1..]);
            }
        }
    }
}

/// Escapes a label value as the text format requires: backslash, quote and line feed. Other control
/// characters become `?`.
pub(super) fn put_escaped(body: &mut BytesMut, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => body.put_slice(b"\\\\"),
            '"' => body.put_slice(b"\\\""),
            '\n' => body.put_slice(b"\\n"),
            other => body.put_slice(visible(other).encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

fn escape(value: &str) -> String {
    let mut escaped = BytesMut::new();
    put_escaped(&mut escaped, value);
    String::from_utf8_lossy(&escaped).into_owned()
}

#[cfg(test)]
mod tests;

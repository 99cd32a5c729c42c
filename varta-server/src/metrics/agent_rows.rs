//! Series of single agents, rendered into one buffer for each family.
//!
//! The text format wants all series of a family together, while the tracker yields agents only in slices, so
//! that a scrape does not delay beats. Each slice therefore adds to the buffer of every family, and the body
//! of the response consists of the buffers one after the other.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::base::time::millis;
use crate::domain::tracker::{AgentView, Twin, Verdict};
use crate::metrics::family::{Family, families};

/// The most agents of which all have series of their own under [`AgentMetrics::Auto`], and the most names that
/// have a row before any process with them was restarted.
pub(crate) const AUTO_LIMIT: usize = 10_000;
/// The number of agents below which all of them have series again, after they were more than [`AUTO_LIMIT`].
const AUTO_AGAIN: usize = 9_000;
/// The most agents that are not well and have series while there are more than [`AUTO_LIMIT`] agents.
const AUTO_UNWELL_LIMIT: usize = 100_000;

/// For which agents there are rows of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[non_exhaustive]
pub enum AgentMetrics {
    /// Every agent.
    All,
    /// Agents that are not up and healthy.
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
    LAST_BEAT = "varta_agent_last_beat_timestamp_seconds", "Unix time of this agent's last beat.";
    STALL_AFTER = "varta_agent_stall_after_seconds", "How long this agent may be silent.";
    PAYLOAD = "varta_agent_payload", "The number that this agent sent with its last beat.";
    RESTARTS = "varta_agent_restarts_total",
        "Processes that took the place of one with the same name that was down or gone.";
    BEATS_LOST = "varta_agent_beats_lost_total", "Beats that this agent sent, by its nonces, and that did not arrive.";
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

/// The series of one scrape under construction.
#[derive(Debug)]
pub(crate) struct AgentRows {
    mode: AgentMetrics,
    /// The host name.
    host: String,
    /// Unix time of [`MonoTime::START`](crate::base::time::MonoTime::START), in milliseconds.
    wall_start_millis: u64,
    bodies: [BytesMut; PER_AGENT.len()],
    restarts: BytesMut,
    labels: BytesMut,
    rows: usize,
    omitted: usize,
}

impl AgentRows {
    /// Begins a scrape on `host`, as [`AutoRows::choose`] has chosen.
    pub(crate) fn new(mode: AgentMetrics, host: &str, wall_start_seconds: f64) -> Self {
        let bodies = PER_AGENT.map(|(family, kind)| {
            let mut body = BytesMut::new();
            // Writing to memory cannot fail.
            let _ = write!(body, "# HELP {0} {1}\n# TYPE {0} {kind}\n", family.name, family.help);
            body
        });
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
            bodies,
            restarts: BytesMut::new(),
            labels: BytesMut::new(),
            rows: 0,
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
        let last_beat = self.wall_start_millis + agent.last_beat.as_nanos() / 1_000_000;
        let values = [
            Value::Whole(agent.last.beats),
            Value::Whole(u64::from(agent.stalls)),
            Value::Whole(u64::from(agent.false_positives)),
            Value::Whole(status),
            Value::Whole(u64::from(has_time || !agent.verdict.is_alarm())),
            Value::Thousandths(last_beat.saturating_sub(millis(agent.silent_before))),
            Value::Thousandths(millis(agent.stall_after)),
            Value::Whole(u64::from(agent.last.payload)),
            Value::Whole(agent.lost),
        ];
        for ((body, (family, _)), value) in self.bodies.iter_mut().zip(PER_AGENT).zip(values) {
            body.put_slice(family.name.as_bytes());
            body.put_slice(&self.labels);
            value.put(body);
            body.put_u8(b'\n');
        }
    }

    /// Adds the expected agents that are missing: without a pid, and not up.
    pub(crate) fn add_missing<'a>(&mut self, names: impl Iterator<Item = &'a Arc<str>>) {
        let Some((body, (family, _))) =
            self.bodies.iter_mut().zip(PER_AGENT).find(|(_, (family, _))| family.name == AGENT_UP.name)
        else {
            return;
        };
        for name in names {
            self.rows += 1;
            // Writing to memory cannot fail.
            let _ = write!(body, "{}{{pid=\"\",agent=\"", family.name);
            put_escaped(body, name);
            let _ = writeln!(body, "\",host=\"{}\",transport=\"\"}} 0", self.host);
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
            if self.restarts.is_empty() {
                let Family { name, help, .. } = RESTARTS;
                // Writing to memory cannot fail.
                let _ = write!(self.restarts, "# HELP {name} {help}\n# TYPE {name} counter\n");
            }
            let _ = write!(self.restarts, "{}{{agent=\"", RESTARTS.name);
            put_escaped(&mut self.restarts, name);
            let _ = writeln!(self.restarts, "\"}} {restarts}");
        }
    }

    /// The number of agents without series.
    pub(crate) fn omitted(&self) -> usize {
        self.omitted
    }

    /// The body, in pieces.
    pub(crate) fn into_pieces(self) -> impl Iterator<Item = Bytes> {
        let no_rows = self.rows == 0;
        let bodies = self.bodies.into_iter().filter(move |_| !no_rows);
        bodies.chain([self.restarts]).filter(|body| !body.is_empty()).map(BytesMut::freeze)
    }

    fn write_labels(&mut self, agent: &AgentView<'_>) {
        self.labels.clear();
        self.labels.put_slice(b"{pid=\"");
        self.labels.put_slice(itoa::Buffer::new().format(agent.pid).as_bytes());
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
fn put_escaped(body: &mut BytesMut, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => body.put_slice(b"\\\\"),
            '"' => body.put_slice(b"\\\""),
            '\n' => body.put_slice(b"\\n"),
            control if control.is_control() => body.put_u8(b'?'),
            other => body.put_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

fn escape(value: &str) -> String {
    let mut escaped = BytesMut::new();
    put_escaped(&mut escaped, value);
    String::from_utf8_lossy(&escaped).into_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use varta_proto::Status;

    use super::*;
    use crate::base::time::MonoTime;
    use crate::domain::beat::Origin;
    use crate::domain::tracker::LastReport;

    fn text(mode: AgentMetrics, agents: usize, verdict: Verdict) -> String {
        let mode = AutoRows::default().choose(mode, agents);
        let mut rows = AgentRows::new(mode, "db-\"1\"", 1_000_000.25);
        let name: Arc<str> = Arc::from("wor\\ker\n");
        rows.add(&AgentView {
            name: &name,
            origin: Origin::Local,
            pid: 4242,
            twin: Twin::FIRST,
            verdict,
            last: LastReport { status: Status::Degraded, payload: 7, terminal: false, beats: 12 },
            last_beat: MonoTime::from_millis(1_500),
            silent_before: Duration::ZERO,
            lost: 3,
            stalls: 2,
            false_positives: 1,
            stall_after: Duration::from_millis(2_500),
        });
        rows.into_pieces().map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect()
    }

    #[test]
    fn an_agent_has_a_row_in_each_family() {
        let text = text(AgentMetrics::All, 1, Verdict::Up(Status::Degraded));
        let labels = r#"{pid="4242",agent="wor\\ker\n",host="db-\"1\"",transport="unix"}"#;
        for row in [
            "varta_beats_total 12",
            "varta_stalls_total 2",
            "varta_agent_mistakes_total 1",
            "varta_status 1",
            "varta_agent_up 1",
            "varta_agent_last_beat_timestamp_seconds 1000001.750",
            "varta_agent_stall_after_seconds 2.500",
            "varta_agent_payload 7",
            "varta_agent_beats_lost_total 3",
        ] {
            let (name, value) = row.split_once(' ').unwrap();
            assert!(text.contains(&format!("\n{name}{labels} {value}\n")), "{row} in\n{text}");
            assert!(
                text.contains(&format!("# HELP {name} ")) && text.contains(&format!("# TYPE {name} ")),
                "{name}"
            );
        }
    }

    #[test]
    fn a_stalled_agent_is_not_up_and_its_status_is_3() {
        let text = text(AgentMetrics::All, 1, Verdict::Stalled);
        assert!(text.lines().any(|line| line.starts_with("varta_status{") && line.ends_with(" 3")));
        assert!(text.lines().any(|line| line.starts_with("varta_agent_up{") && line.ends_with(" 0")));
    }

    #[test]
    fn with_very_many_agents_only_those_that_are_not_well_have_rows() {
        assert!(text(AgentMetrics::Auto, AUTO_LIMIT, Verdict::Up(Status::Ok)).contains("4242"));
        assert_eq!(text(AgentMetrics::Auto, AUTO_LIMIT + 1, Verdict::Up(Status::Ok)), "");
        assert!(text(AgentMetrics::Auto, AUTO_LIMIT + 1, Verdict::Stalled).contains("4242"));
        assert_eq!(text(AgentMetrics::Off, 1, Verdict::Stalled), "");
    }

    #[test]
    fn a_number_of_agents_that_varies_about_the_limit_does_not_make_rows_come_and_go() {
        let mut auto = AutoRows::default();
        let mut has_all = |agents| auto.choose(AgentMetrics::Auto, agents) == AgentMetrics::All;
        assert!(has_all(AUTO_AGAIN) && has_all(AUTO_LIMIT));
        assert!(!has_all(AUTO_LIMIT + 1) && !has_all(AUTO_LIMIT) && !has_all(AUTO_AGAIN));
        assert!(has_all(AUTO_AGAIN - 1) && has_all(AUTO_LIMIT));
    }

    #[test]
    fn a_name_has_its_row_at_0_before_a_restart_and_a_restart_is_told_however_many_names_there_are() {
        let names: Vec<Arc<str>> = (0..=AUTO_LIMIT).map(|number| format!("worker-{number}").into()).collect();
        let last = names.len() - 1;
        let rows = |restarts_of_last| {
            let mut rows = AgentRows::new(AgentMetrics::All, "host", 0.0);
            let restarts = |(number, name)| (name, if number == last { restarts_of_last } else { 0 });
            rows.add_restarts(names.iter().enumerate().map(restarts));
            rows.into_pieces().map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect::<String>()
        };
        let row = |number: usize, restarts: u64| {
            format!("varta_agent_restarts_total{{agent=\"worker-{number}\"}} {restarts}\n")
        };
        assert!(rows(0).contains(&row(0, 0)) && !rows(0).contains(&row(last, 0)));
        assert!(rows(1).contains(&row(0, 0)) && rows(1).contains(&row(last, 1)));
    }
}

//! The numbers of docs/LIMITS.md are those of the code.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// How a row of the document begins, and its numbers in the order in which they are written, each with the
/// constant of the code: its file below `varta-server/src`, and a sum of its name and numbers.
type Row = (&'static str, &'static [(&'static str, &'static str, &'static str)]);

/// The rows that have numbers. One that comes to the document comes here, too.
const ROWS: &[Row] = &[
    ("sockets on which agents beat", &[("64", "ingest/options.rs", "MAX_LISTENERS")]),
    ("the kernel's queue of a Unix socket", &[("1", "", "1")]),
    (
        "a message of sd_notify(3)",
        &[
            ("64 KiB", "ingest/notify/receive.rs", "MAX_MESSAGE_LEN"),
            ("253", "ingest/notify/receive.rs", "MAX_DESCRIPTORS"),
        ],
    ),
    (
        "services that speak sd_notify(3)",
        &[
            ("8,192", "ingest/notify/bridge.rs", "MAX_SERVICES"),
            ("16", "ingest/notify/bridge.rs", "MAX_HEIRS"),
        ],
    ),
    (
        "processes that may be tools",
        &[
            ("1,024", "ingest/notify/bridge.rs", "MAX_UNSETTLED"),
            ("16", "ingest/notify/bridge.rs", "MAX_HELD"),
        ],
    ),
    ("processes whose ancestors", &[("4,096", "ingest/notify/bridge.rs", "MAX_LINEAGES")]),
    ("sockets of one path", &[("4", "ingest/socket_keeper.rs", "MAX_SOCKETS")]),
    (
        "pages of shared memory",
        &[
            ("4", "ingest/shm/table.rs", "MAX_PAGES_PER_PROCESS"),
            ("1,000", "ingest/shm/table.rs", "TAKEN_IN_A_SECOND"),
        ],
    ),
    ("descriptors that senders passed along", &[("256", "ingest/fd_reaper.rs", "WAITING")]),
    ("keys of each form", &[("16", "ingest/keyring.rs", "MAX_KEYS")]),
    (
        "sessions in the replay table",
        &[
            ("2", "ingest/keyring.rs", "SESSIONS_PER_AGENT"),
            ("65,536", "ingest/keyring.rs", "FEWEST_SESSIONS"),
        ],
    ),
    ("processes whose pids in other namespaces", &[("4,096", "ingest/namespaces.rs", "MAX_PROCESSES")]),
    (
        "processes whose supplementary groups",
        &[("16,384", "ingest/senders.rs", "MAX_PROCESSES"), ("16,384", "ingest/senders.rs", "MAX_PROCESSES")],
    ),
    (
        "refused senders that the log explained",
        &[("10", "ingest/refusals.rs", "EXPLANATIONS"), ("1,024", "ingest/refusals.rs", "MAX_EXPLAINED")],
    ),
    (
        "batches, listener to tracker",
        &[("32", "ingest/listener.rs", "INBOX_BATCHES"), ("64", "ingest/recvmmsg.rs", "VLEN")],
    ),
    ("agents of one address and pid", &[("64", "domain/tracker/verdicts/transition.rs", "MAX_TWINS")]),
    (
        "sessions of a process beside the newest",
        &[
            ("255", "domain/tracker/agents/session.rs", "MAX_OTHER_SESSIONS"),
            ("16", "domain/tracker/agents/session.rs", "MAX_STRAYS"),
        ],
    ),
    (
        "sessions of a port of another host",
        &[("8", "domain/tracker/agents/session.rs", "MAX_FORMER_SESSIONS")],
    ),
    (
        "ports that an agent left",
        &[
            ("16", "domain/tracker/agents/port_history.rs", "MAX_PREVIOUS_PORTS"),
            ("16,384", "domain/tracker/agents/port_history.rs", "MAX_HISTORIES"),
        ],
    ),
    ("Hellos that wait", &[("4,096", "domain/tracker/agents/pending_hellos.rs", "MAX_PENDING")]),
    // The wire has one byte for the length of a value.
    (
        "labels in a row of `varta_agent_info`",
        &[("255", "", "255"), ("256", "observe/cgroup.rs", "MAX_PATH_LEN")],
    ),
    ("inspections that wait", &[("256", "observe/sampler.rs", "REQUESTS")]),
    (
        "cgroups whose counts of kills",
        &[("8,192", "observe/oom.rs", "MAX_CGROUPS"), ("8", "observe/oom.rs", "MAX_LEVELS")],
    ),
    ("samples from half of a silence", &[("4,096", "engine/process_monitor.rs", "MAX_QUICK_SAMPLES")]),
    (
        "processes whose end is watched",
        &[
            ("512", "observe/descriptor_limit.rs", "MAX_RESERVED"),
            ("2,048", "observe/descriptor_limit.rs", "MAX_RESERVED * 4"),
            ("40", "observe/descriptor_limit.rs", "MIN_RESERVED"),
            ("6", "observe/descriptor_limit.rs", "PER_COMMAND"),
            // A share that has no name in the code.
            ("64th", "", "64"),
            ("128", "observe/descriptor_limit.rs", "MAX_KILL_COUNTS"),
        ],
    ),
    (
        "recovery commands at once",
        &[
            ("256", "observe/descriptor_limit.rs", "MAX_COMMANDS"),
            ("6,144", "observe/descriptor_limit.rs", "MAX_COMMANDS * PER_COMMAND * 4"),
        ],
    ),
    (
        "gaps in the server's own observation",
        &[("64", "domain/tracker/detection/observer_gaps.rs", "MAX_GAPS")],
    ),
    (
        "incidents that are open",
        &[
            ("64", "domain/tracker/detection/incidents.rs", "MAX_OPEN"),
            ("64", "services/log/incidents.rs", "MAX_OPEN_INCIDENTS"),
        ],
    ),
    (
        "agents with rows of their own",
        &[
            ("10,000", "metrics/agent_rows.rs", "AUTO_LIMIT"),
            ("100,000", "metrics/agent_rows.rs", "AUTO_UNWELL_LIMIT"),
            ("9,000", "metrics/agent_rows.rs", "AUTO_AGAIN"),
        ],
    ),
    (
        "rows of `varta_stalls_total`",
        &[
            ("10,000", "metrics/agent_rows.rs", "AUTO_LIMIT"),
            ("10,000", "metrics/agent_rows.rs", "AUTO_LIMIT"),
        ],
    ),
    (
        "rows of `varta_agent_restarts_total`",
        &[
            ("10,000", "metrics/agent_rows.rs", "AUTO_LIMIT"),
            ("10,000", "metrics/agent_rows.rs", "AUTO_LIMIT"),
        ],
    ),
    (
        "`[[rule]]` and `[[expected]]`",
        &[("1,024", "domain/rules.rs", "MAX_RULES"), ("10,000", "domain/expected.rs", "MAX_EXPECTED")],
    ),
    ("transitions, to each of", &[("65,536", "engine/feed.rs", "QUEUE")]),
    ("changes, to the state", &[("65,536", "engine/state_queue.rs", "STATE_QUEUE")]),
    ("batches and other input, to a recording", &[("1,024", "engine/tap.rs", "QUEUE")]),
    ("queries, to the tracker", &[("16", "engine/task.rs", "QUERIES")]),
    (
        "log lines about agents",
        &[
            ("20", "services/log/limits.rs", "OF_AGENT"),
            ("2", "services/log/limits.rs", "OF_AGENT * 60 / OF_AGENT_WITHIN"),
            ("4,096", "services/log/limits.rs", "PLACES"),
            ("1,000", "services/log/limits.rs", "OF_KIND"),
            ("10", "services/log/limits.rs", "OF_KIND / OF_KIND_WITHIN"),
        ],
    ),
    ("any other log line", &[("100", "base/log_limit.rs", "AT_ONCE")]),
    ("log lines, to standard error", &[("8,192", "base/logging.rs", "QUEUE")]),
    (
        "changes that the state's thread has taken",
        &[("4,096", "services/state/writer.rs", "BATCH"), ("1,000", "engine/task.rs", "ROWS_PER_TURN")],
    ),
    ("replay sessions written at once", &[("1,000", "services/state/replay_checkpoint.rs", "SEALS_AT_ONCE")]),
    (
        "rows of the history",
        &[
            ("100,000", "services/state/history.rs", "MAX_ROWS"),
            ("30 days", "services/state/history.rs", "KEPT"),
            ("100", "services/state/history_limit.rs", "REPORTS_PER_SECOND"),
        ],
    ),
    (
        "alerts",
        &[
            ("1,000", "services/alerts/lifecycle/state.rs", "MAX_SINGLES"),
            ("64", "services/alerts/lifecycle/state.rs", "MAX_GROUPS"),
        ],
    ),
    ("ended alerts", &[("4,096", "services/alerts/lifecycle/state.rs", "MAX_RESOLVED")]),
    (
        "healthy agents whose failures are remembered",
        &[("65,536", "services/alerts/lifecycle/state.rs", "MAX_WAITING")],
    ),
    (
        "notifications for the webhook",
        &[
            ("4,096", "services/alerts/courier.rs", "QUEUE"),
            ("4,096", "services/alerts/courier.rs", "QUEUE"),
            ("8", "services/alerts/courier.rs", "ON_THEIR_WAY"),
        ],
    ),
    (
        "messages on their way to `--heartbeat-url`",
        &[
            ("1", "", "1"),
            ("10 s", "services/alerts/http_client.rs", "ANSWER_WITHIN"),
            ("3 s", "services/heartbeat/url_target.rs", "FAIL_WITHIN"),
        ],
    ),
    (
        "a template",
        &[
            ("64 KiB", "services/alerts/templates.rs", "MAX_TEMPLATE_LEN"),
            ("100,000", "services/alerts/templates.rs", "MAX_STEPS"),
            ("64 KiB", "services/alerts/templates.rs", "MAX_TEXT_LEN"),
        ],
    ),
    (
        "`[[recovery]]` tables",
        &[
            ("256", "services/recovery/table.rs", "MAX_TABLES"),
            ("16", "services/recovery/table.rs", "MAX_STEPS"),
        ],
    ),
    ("agents in recovery", &[("65,536", "services/recovery/planner.rs", "MAX_EPISODES")]),
    (
        "processes of a cgroup that get a signal",
        &[
            ("1,024", "observe/own_cgroup.rs", "MAX_CGROUPS"),
            ("256 KiB", "observe/own_cgroup.rs", "LIST_ROOM"),
        ],
    ),
    ("recovery jobs at the same time", &[("256", "observe/descriptor_limit.rs", "MAX_COMMANDS")]),
    ("output of a command", &[("2 KiB", "services/recovery/runner.rs", "KEPT")]),
    ("names of which one user reports", &[("10,000", "domain/tracker/rules/named.rs", "MAX_NAMED_PER_USER")]),
    ("time in which `varta-server beat` waits", &[("5 s", "services/beat/sender.rs", "WITHIN")]),
    ("`[[job]]` in the file", &[("1,024", "domain/job.rs", "MAX_JOBS")]),
    (
        "declared jobs, and those of one user",
        &[
            ("1,024", "domain/tracker/agents/jobs.rs", "MAX_DECLARED"),
            ("256", "domain/tracker/agents/jobs.rs", "MAX_DECLARED_PER_USER"),
        ],
    ),
    (
        "runs of one job that are told apart",
        &[
            ("16", "domain/tracker/agents/job_state.rs", "MAX_RUNNING"),
            ("32", "domain/tracker/agents/job_state.rs", "MAX_DURATIONS"),
        ],
    ),
    (
        "last output of a command of `varta-server exec`",
        &[
            ("10,000", "services/exec/tail.rs", "KEPT"),
            ("240", "../../varta-proto/src/control/wire.rs", "MAX_SAID_LEN"),
        ],
    ),
    ("time in which what a stopped command", &[("1 s", "services/exec/terminal.rs", "SHOWN_WITHIN")]),
    ("lines of `varta-server exec`", &[("20", "services/exec/agent.rs", "MAX_LINES")]),
    (
        "messages of sd_notify that `varta-server exec`",
        &[
            ("64", "services/exec/supervisor/messages.rs", "MAX_MESSAGES"),
            ("64 KiB", "services/exec/notify.rs", "MAX_MESSAGE_LEN"),
            ("253", "services/exec/notify.rs", "MAX_DESCRIPTORS"),
        ],
    ),
    (
        "a schedule, whose times",
        &[
            ("255", "domain/schedule/mod.rs", "MAX_BYTES"),
            ("3650 days", "domain/schedule/mod.rs", "MAX_INTERVAL"),
        ],
    ),
    ("silence that a command can ask", &[("86,400 s", "services/exec/supervisor/messages.rs", "MAX_BUSY")]),
    ("ancestors of a process", &[("1,000", "observe/group.rs", "MAX_GENERATIONS")]),
    (
        "records that wait for the audit log",
        &[
            ("1,024", "services/audit/writer.rs", "QUEUE"),
            ("2 s", "services/audit/writer.rs", "DURABLE_WITHIN"),
        ],
    ),
    (
        "pauses",
        &[
            ("1,024", "services/maintenance/options.rs", "MAX_PLANNED"),
            ("1,024", "services/maintenance/schedule.rs", "MAX_PAUSES"),
        ],
    ),
    ("agents in alarm that the server keeps", &[("10,000", "services/alarms/board.rs", "MAX")]),
    (
        "jobs that `varta-server status` lists",
        &[
            ("500", "services/maintenance/status.rs", "MAX_LISTED_JOBS"),
            ("20", "services/maintenance/status_command.rs", "SHOWN_JOBS"),
        ],
    ),
    (
        "agents in alarm that `varta-server status` lists",
        &[
            ("500", "services/maintenance/status.rs", "MAX_LISTED"),
            ("3,072 KiB", "services/maintenance/status.rs", "MAX_LISTED_LEN"),
        ],
    ),
    ("acknowledged alarms", &[("1,024", "services/maintenance/acks.rs", "MAX_ACKS")]),
    ("names that complete a command line", &[("1,000", "services/maintenance/names.rs", "MAX_NAMES")]),
    ("agents of one request to forget", &[("256", "services/maintenance/trail.rs", "MAX_RECORDED")]),
    (
        "connections to a check socket",
        &[("32", "ingest/check.rs", "CONNECTIONS"), ("129", "ingest/check.rs", "BACKLOG + 1")],
    ),
    (
        "connections to the control socket",
        &[
            ("16", "services/maintenance/control.rs", "CONNECTIONS"),
            ("17", "services/maintenance/control.rs", "BACKLOG + 1"),
        ],
    ),
    ("HTTP connections, one request each", &[("320", "services/http/connections.rs", "connections")]),
    ("streams of changes", &[("256", "services/api/stream.rs", "MAX_STREAMS")]),
    (
        "changes that are kept for readers of streams who come back",
        &[("8,192", "services/api/changes.rs", "MAX_KEPT")],
    ),
    (
        "requests to the API that are answered at once, and how long another waits",
        &[("32", "services/api/shared.rs", "MAX_READS"), ("5 s", "services/api/routes.rs", "TURN_WITHIN")],
    ),
    ("reads of the history at once", &[("2", "services/api/shared.rs", "MAX_DISK_READS")]),
    ("how long a read of the history takes", &[("10 s", "services/state/reader.rs", "READ_WITHIN")]),
    (
        "the list of agents that readers of the API share, about 200 bytes an agent",
        &[("60 s", "services/api/directory.rs", "KEPT_UNUSED")],
    ),
    ("orders of agents that are kept for a list", &[("16", "services/api/directory.rs", "MAX_ORDERS")]),
    (
        "agents of one page of the API, and changes",
        &[("500", "services/api/list.rs", "MAX_PAGE"), ("500", "services/api/routes.rs", "MAX_CHANGES")],
    ),
    ("agents whose day is asked for at once", &[("60", "services/api/routes.rs", "MAX_DAYS")]),
    (
        "incidents that are kept for readers, agents of one, and falls that may become one",
        &[
            ("64", "services/api/incidents.rs", "MAX_KEPT"),
            ("1,000", "services/api/incidents.rs", "MAX_MEMBERS"),
            ("64", "services/api/incidents.rs", "MAX_FALLS"),
        ],
    ),
    (
        "what became of alerts at their receivers, for readers",
        &[("4,096", "services/alerts/board.rs", "MAX_ALERTS")],
    ),
    (
        "actions and refusals of recovery that are kept for readers, and the text of one",
        &[
            ("512", "services/recovery/journal.rs", "MAX_KEPT"),
            ("1 KiB", "services/recovery/journal.rs", "MAX_ACTION_LEN"),
        ],
    ),
    (
        "incidents, alerts or recoveries of one page of the API",
        &[("500", "services/api/doings.rs", "MAX_PAGE")],
    ),
    (
        "the query of a request to the API, and its parameters",
        &[
            ("8 KiB", "services/api/parameters.rs", "MAX_LEN"),
            ("100", "services/api/parameters.rs", "MAX_PAIRS"),
        ],
    ),
    ("the body of a request to the API", &[("8 KiB", "services/api/routes.rs", "MAX_BODY_LEN")]),
    (
        "requests by HTTP on the control socket that wait",
        &[("16", "services/http/mod.rs", "LOCAL_CONNECTIONS")],
    ),
    ("agents that `varta-server top` lists", &[("500", "services/top/feed.rs", "LIMIT")]),
    ("agents that `varta-server watch` watches", &[("1,000,000", "services/follow/watched.rs", "MAX")]),
    (
        "the answer of a server that a command reads by HTTP",
        &[
            ("65536 KiB", "services/follow/client.rs", "MAX_BODY_LEN"),
            ("1024 KiB", "services/follow/stream.rs", "MAX_LINE_LEN"),
        ],
    ),
    (
        "Alertmanagers that `varta-server doctor` tries",
        &[("16", "services/doctor/facts.rs", "MAX_RECEIVERS")],
    ),
    (
        "mistakes that a picture of a replay shows",
        &[("10,000", "services/recording/plot_data.rs", "MAX_MISTAKES")],
    ),
    (
        "how slowly an HTTP client reads",
        &[
            ("250", "services/http/readers.rs", "GRACE_MILLIS"),
            ("64 KiB", "services/http/readers.rs", "LEAST_PACE"),
        ],
    ),
    ("an HTTP client that takes nothing", &[("10 s", "services/http/connections.rs", "stalled_within")]),
    (
        "bytes of an answer that the kernel keeps",
        &[("128 KiB", "services/http/listener.rs", "SEND_BUFFER_LEN")],
    ),
    (
        "the head of an HTTP request",
        &[
            ("16 KiB", "services/http/service.rs", "MAX_HEAD_LEN"),
            ("5 s", "services/http/connections.rs", "head_within"),
        ],
    ),
    (
        "certificates of `--metrics-tls-cert`, and the file of its key",
        &[
            ("4096 KiB", "base/files/certificates.rs", "MAX_LEN"),
            ("64 KiB", "base/files/certificates.rs", "MAX_KEY_FILE_LEN"),
        ],
    ),
    (
        "users of `--metrics-basic-auth-file`, and its length",
        &[
            ("64", "services/http/users.rs", "MAX_USERS"),
            ("64 KiB", "services/http/users.rs", "MAX_FILE_LEN"),
            ("14", "services/http/users.rs", "MAX_COST"),
        ],
    ),
    (
        "passwords that wait to be checked, one at a time",
        &[
            ("16", "services/http/credentials.rs", "MAX_WAITING"),
            ("4", "services/http/credentials.rs", "MAX_WAITING_OF_ADDRESS"),
        ],
    ),
    (
        "the last answers of a server that has handed over",
        &[("10 s", "server/running.rs", "LAST_ANSWERS_WITHIN")],
    ),
    ("bodies of scrapes in memory", &[("4", "services/http/connections.rs", "scrapes")]),
];

/// The units of the document, in bytes and seconds.
const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("s", 1), ("days", 86_400)];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The numbers of a text, each with its unit if it has one. Names of options and families have none.
fn numbers(text: &str) -> Vec<String> {
    let prose: String = text.split('`').step_by(2).collect();
    let words: Vec<_> =
        prose.split_whitespace().map(|word| word.trim_end_matches([',', ';', '.', ')'])).collect();
    let mut found = Vec::new();
    for (index, word) in words.iter().map(|word| word.trim_start_matches('(')).enumerate() {
        if word.starts_with(|letter: char| letter.is_ascii_digit()) {
            let unit = words.get(index + 1).filter(|next| UNITS.iter().any(|(unit, _)| unit == *next));
            found.push(unit.map_or_else(|| word.to_owned(), |unit| format!("{word} {unit}")));
        }
    }
    found
}

/// The value of a number of the document.
fn shown(text: &str) -> u64 {
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map_or(1, |(_, factor)| *factor);
    number.replace(',', "").trim_end_matches("th").parse::<u64>().unwrap() * factor
}

/// The value of an expression of numbers and constants of a file, from the left to the right.
fn value(file: &str, expression: &str) -> u64 {
    let mut words = expression.split_whitespace();
    let mut sum = operand(file, words.next().unwrap());
    while let (Some(operator), Some(word)) = (words.next(), words.next()) {
        let operand = operand(file, word);
        sum = match operator {
            "+" => sum + operand,
            "*" => sum * operand,
            "/" => sum / operand,
            "<<" => sum << operand,
            _ => panic!("{expression}: {operator} is not known here"),
        };
    }
    sum
}

fn operand(file: &str, word: &str) -> u64 {
    if let Ok(number) = word.replace('_', "").parse() {
        return number;
    }
    // A constant that this file imports.
    if (file, word) == ("ingest/fd_reaper.rs", "BATCH") {
        return value("ingest/recvmmsg.rs", "VLEN");
    }
    value(file, &definition(file, word))
}

/// What stands behind the name of a constant, or of a field of one, without what makes a type of it.
fn definition(file: &str, name: &str) -> String {
    let path = top().join("varta-server/src").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let defined = text.lines().find_map(|line| {
        let line = line.trim();
        let constant =
            line.split_once(&format!("const {name}: ")).and_then(|(_, rest)| rest.split_once(" = "));
        let field = line.strip_prefix(&format!("{name}: ")).filter(|rest| !rest.contains("usize"));
        constant.map(|(_, value)| value).or(field).map(str::to_owned)
    });
    let defined = defined.unwrap_or_else(|| panic!("{file} has no {name} any more: which number is it now?"));
    let inner = |text: &str| {
        let (_, inner) = text.split_once('(')?;
        inner.split_once(')').map(|(inner, _)| inner.to_owned())
    };
    let is_made = ["Duration::from_secs(", "NonZeroU32::new("].iter().any(|start| defined.starts_with(start));
    if is_made { inner(&defined).unwrap() } else { defined.trim_end_matches([';', ',']).to_owned() }
}

#[test]
fn every_number_of_the_limits_is_that_of_the_code() {
    let document = fs::read_to_string(top().join("docs/LIMITS.md")).unwrap();
    let rows = document
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter(|row| !row.starts_with("queue or table"));
    let mut met = BTreeSet::new();
    for row in rows {
        let [subject, bound] = [0, 1].map(|cell| row.split(" | ").nth(cell).unwrap());
        let known = ROWS.iter().find(|(start, _)| subject.starts_with(start));
        let Some((start, limits)) = known else {
            assert_eq!(numbers(bound), [] as [&str; 0], "{subject}: which constants are these?");
            continue;
        };
        met.insert(*start);
        assert_eq!(
            numbers(bound),
            limits.iter().map(|(number, ..)| *number).collect::<Vec<_>>(),
            "{subject}"
        );
        for (number, file, expression) in *limits {
            assert_eq!(value(file, expression), shown(number), "{subject}: {file}: {expression}");
        }
    }
    let missing: Vec<_> = ROWS.iter().filter(|(start, _)| !met.contains(start)).collect();
    assert!(missing.is_empty(), "the document has no such row: {missing:#?}");
}

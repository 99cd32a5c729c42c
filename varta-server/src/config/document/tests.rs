//! The keys and values of the configuration file, and the errors about them.

use std::time::{Duration, SystemTime};

use super::*;
use crate::config::args;
use crate::services::recovery::{Action, RecoveryEntry, SignalScope};

fn parse(text: &str) -> Result<Document, ParseErrors> {
    let (document, faults) = Document::parse(text, &args::definition());
    if faults.is_empty() { Ok(document) } else { Err(faults) }
}

/// The lines and the texts of the faults, and how many more there are.
fn all_faults(text: &str) -> (Vec<(usize, String)>, usize) {
    let faults = parse(text).map(|content| format!("{content:?}")).unwrap_err();
    let (faults, more) = faults.in_order();
    (faults.into_iter().map(|fault| (line_at(text.as_bytes(), fault.offset), fault.text)).collect(), more)
}

/// The line and the text of the only fault.
fn refused(text: &str) -> (usize, String) {
    let (mut faults, more) = all_faults(text);
    assert_eq!((faults.len(), more), (1, 0), "{text:?}: {faults:?}");
    faults.remove(0)
}

fn arguments_of(text: &str) -> Vec<String> {
    parse(text).unwrap().options.into_iter().flat_map(|option| option.arguments).collect()
}

#[test]
fn every_option_of_the_command_line_but_its_own_is_a_key_and_nothing_else_is() {
    let definition = args::definition();
    let options: Vec<&str> = definition.get_arguments().filter_map(Arg::get_long).collect();
    assert!(options.len() > 20 && options.contains(&ITSELF), "{options:?}");
    for option in options {
        assert_eq!(
            find(&definition, option).is_ok(),
            option != ITSELF && option != FOR_ONE_START,
            "{option}"
        );
        assert!(Tables::names().all(|name| name != option), "{option} is two things");
    }
    // Flags without a value, the empty name, field names and complete arguments.
    for other in ["help", "version", "", "stall_after", "--stall-after", "socket none"] {
        assert!(find(&definition, other).is_err(), "{other}");
    }
}

#[test]
fn a_value_becomes_the_words_that_say_the_same_on_the_command_line() {
    assert_eq!(
        arguments_of("stall-after = \"2s\"\nmax-agents = 1_000"),
        ["--stall-after=2s", "--max-agents=1000"]
    );
    assert_eq!(arguments_of("socket = \"/a\""), ["--socket=/a"]);
    assert_eq!(arguments_of("socket = [\"/a\", \"--b=c\"]"), ["--socket=/a", "--socket=--b=c"]);
    assert_eq!(
        arguments_of("allow-uid = [0, 0x10, \"root\"]"),
        ["--allow-uid=0", "--allow-uid=16", "--allow-uid=root"]
    );
    assert_eq!(arguments_of("allow-plaintext-remote = true"), ["--allow-plaintext-remote"]);
    assert!(arguments_of("allow-plaintext-remote = false").is_empty());
    assert_eq!(arguments_of("metrics-addr = \"none\""), ["--metrics-addr=none"]);
    assert_eq!(arguments_of("\"socket-mode\" = \"0660\""), ["--socket-mode=0660"]);
    assert_eq!(
        arguments_of("audit-limit = 4_096\nevents-limit = \"64M\""),
        ["--audit-limit=4096", "--events-limit=64M"]
    );
    assert_eq!(arguments_of("phi-threshold = 9.5"), ["--phi-threshold=9.5"]);
    assert_eq!(arguments_of("phi-threshold = 8"), ["--phi-threshold=8"]);
}

#[test]
fn what_makes_no_sense_is_told_with_line_and_key() {
    for (text, line, words) in [
        ("\n\nstal-after = 1", 3, "stal-after: there is no such option; did you mean stall-after?"),
        ("stall_after = 1", 1, "stall_after: there is no such option; did you mean stall-after?"),
        ("[[rules]]", 1, "rules: there is no such option; did you mean rule?"),
        ("colour = 1", 1, "colour: there is no such option; `varta-server --help` has them all"),
        ("help = true", 1, "help: there is no such option"),
        ("config = \"x\"", 1, "config: a file cannot name another"),
        ("[stall-after]", 1, "stall-after: is a table, and a string is wanted, such as \"5s\""),
        ("stall-after = 5", 1, "stall-after: is an integer, and a string is wanted, such as \"5s\""),
        ("stall-after = \"soon\"", 1, "stall-after: `soon`: "),
        ("stall-after = [\"1s\"]", 1, "stall-after: takes one value, and not a list"),
        ("socket-mode = 0o600", 1, "socket-mode: is an integer, and a string is wanted, such as \"0600\""),
        ("socket-mode = \"0888\"", 1, "socket-mode: `0888`: is not an octal number"),
        ("socket = [\n\"a\",\n7]", 3, "socket: is an integer, and a string is wanted"),
        ("socket = []", 1, "socket: is an empty list; leave the key out"),
        ("socket = \"\"", 1, "socket: ``: "),
        ("udp = \"127.1:9844\"", 1, "udp: `127.1:9844`: is neither IP:PORT nor HOST:PORT"),
        ("max-agents = \"7\"", 1, "max-agents: is a string, and a number is wanted"),
        (
            "audit-limit = 1.5",
            1,
            "audit-limit: is a fraction, and a size such as 4096 or \"64MiB\" is wanted",
        ),
        ("max-agents = 7.5", 1, "max-agents: is a fraction, and a number is wanted"),
        ("phi-threshold = \"8\"", 1, "phi-threshold: is a string, and a number is wanted"),
        ("max-beat-rate = -1", 1, "max-beat-rate: `-1`: "),
        ("max-beat-rate = 4294967296", 1, "max-beat-rate: `4294967296`: "),
        ("agent-metrics = \"some\"", 1, "agent-metrics: `some`: is none of all, unhealthy, off, auto"),
        ("allow-plaintext-remote = \"yes\"", 1, "allow-plaintext-remote: is a string, and true or false is"),
        ("udp = 1979-05-27", 1, "udp: is a date or time, and a string is wanted"),
        ("\nmax-agents = 1\nmax-agents = 2", 3, "is not TOML: duplicate key"),
        ("stall-after = 5s", 1, "is not TOML: "),
        ("stall-after", 1, "is not TOML: "),
    ] {
        let (found, said) = refused(text);
        assert_eq!((found, said.starts_with(words)), (line, true), "{text:?}: {said}");
        assert!(!said.contains('\n'), "{said}");
    }
}

/// The faults, written as they stand behind the name of the file.
fn told(text: &str) -> Vec<String> {
    all_faults(text).0.into_iter().map(|(line, fault)| format!("{line}: {fault}")).collect()
}

#[test]
fn all_faults_of_options_are_told_in_the_order_of_the_file() {
    let text =
        "udp = 1\nmax-agents = \"a\"\nstal-after = \"1s\"\nsocket = \"/a\"\nallow-uid = true\nrule = 1";
    let said = told(text);
    let begin =
        ["1: udp: is an", "2: max-agents: is a", "3: stal-after: there", "5: allow-uid: is", "6: rule: st"];
    assert_eq!(said.len(), begin.len(), "{said:#?}");
    assert!(said.iter().zip(begin).all(|(said, begin)| said.starts_with(begin)), "{said:#?}");
}

#[test]
fn all_faults_of_tables_are_told_also_several_of_one() {
    let text = "[[rule]]\nstall-after = 1\ncolour = 1\n\n[[rule]]\nname = 1\nreplaced-within = 7\n\n\
                [[expected]]\nname = \"b\"\ngrace = 7\n[[pause]]\nname = \"\"\nuntil = \"soon\"\nfrom = 1\n\
                [[recovery]]\nexec = 7\nbudget = \"a\"\n[[rule]]\nname = \"good\"\n";
    let said = told(text);
    let begin = [
        "1: rule: a [[rule]] needs a name",
        "2: rule: stall-after: is an integer",
        "3: rule: colour: there is no such key",
        "6: rule: name: is an integer",
        "7: rule: replaced-within: is an integer",
        "11: expected: grace: is an integer",
        "13: pause: name: ",
        "14: pause: until: `soon`",
        "15: pause: from: is an integer",
        "17: recovery: exec: is an integer",
        "18: recovery: budget: is not",
    ];
    assert_eq!(said.len(), begin.len(), "{said:#?}");
    assert!(said.iter().zip(begin).all(|(said, begin)| said.starts_with(begin)), "{said:#?}");
}

#[test]
fn all_faults_inside_of_lists_and_tables_of_a_table_are_told_and_none_that_follows_from_another() {
    let text = "[[recovery]]\nname = \"a\"\nlabel = [\"a\",\n\"b=c\",\n7]\nsteps = [\n{ wait = 5, signal = \"STOPP\" },\n\
                { notify = true, waitt = \"1s\" },\n{ wait = \"1s\" },\n{ signal = { name = 7, to = \"all\" } },\n7,\n\
                { exec = \"{name}\", timeout = \"2days\" },\n]\nattempts = 0\n\
                [[rule]]\nname = \"r\"\nsuccess-exit = [0,\n\"SIGNOT\", 256]\nforget-after = { up = \"1s\",\ndown = 5 }\n\
                [[rule]]\nstall-after = 1\nname = \"r\"\n";
    let said = told(text);
    let begin = [
        "3: recovery: label: is not KEY=VALUE",
        "5: recovery: label: is an integer",
        "7: recovery: wait: is an integer",
        "7: recovery: signal: `STOPP`",
        "8: recovery: waitt: there is no such key",
        "9: recovery: a step has one of",
        "10: recovery: signal: is an integer",
        "10: recovery: to: `all` is none of",
        "11: recovery: steps: each is a table",
        "12: recovery: exec: `{name}`",
        "12: recovery: timeout: is more than 24h",
        "14: recovery: attempts: is not",
        "18: rule: success-exit: ",
        "18: rule: success-exit: ",
        "19: rule: forget-after: `up`",
        "20: rule: forget-after: is an integer",
        "22: rule: stall-after: is an integer",
    ];
    assert!(said.iter().zip(begin).all(|(said, begin)| said.starts_with(begin)), "{said:#?}");
    assert_eq!(said.len(), begin.len(), "{said:#?}");
}

#[test]
fn of_very_many_faults_the_first_are_told_and_the_others_counted() {
    let options: String = (0..100).map(|number| format!("a{number} = 1\n")).collect();
    let (faults, more) = all_faults(&options);
    assert_eq!((faults.len(), more), (ParseErrors::MAX, 100 - ParseErrors::MAX));
    assert!(faults[19].1.starts_with("a19: "), "{faults:?}");
    let (faults, more) = all_faults(&format!("[[rule]]\nname = \"a\"\n{options}"));
    assert_eq!((faults.len(), more), (ParseErrors::MAX, 0), "of one table not more are looked for");
}

#[test]
fn rules_and_expected_agents_are_tables() {
    let content = parse(
        "[[rule]]\nname = \"a-*\"\nstall-after = \"1m\"\n[[expected]]\nname = \"a-1\"\ngrace = \"5s\"\n\
         [[rule]]\nname = \"*\"\n[[expected]]\nname = \"b\"",
    )
    .unwrap();
    assert_eq!(content.tables.engine.rules.iter().len(), 2);
    assert_eq!(content.tables.engine.rules.stall_after_for("a-7"), Some(Duration::from_secs(60)));
    let expected: Vec<_> = content
        .tables
        .engine
        .expected
        .iter()
        .map(|agent| (agent.name.as_str(), agent.grace.as_secs()))
        .collect();
    assert_eq!(expected, [("a-1", 5), ("b", 60)]);
    assert!(content.options.is_empty());
    let inline = parse("rule = [{ name = \"x\", stall-after = \"1s\" }]").unwrap();
    assert_eq!(inline.tables.engine.rules.stall_after_for("x"), Some(Duration::from_secs(1)));
}

#[test]
fn pauses_are_tables_and_their_times_dates_of_toml_or_strings() {
    let content = parse(
        "[[pause]]\nname = \"a-*\"\nfrom = 1970-01-01T01:00:00+01:00\nuntil = \"1970-01-01T00:00:09.5Z\"\n\
         reason = \"update\"\n[[pause]]\nname = \"b\"",
    )
    .unwrap();
    let after = |at: Option<SystemTime>| at.map(|at| at.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    let pauses: Vec<_> = content
        .tables
        .services
        .maintenance
        .iter()
        .map(|pause| (pause.name.as_str(), after(pause.from), after(pause.until), pause.reason.is_some()))
        .collect();
    let times = [Duration::ZERO, Duration::from_millis(9_500)].map(Some);
    assert_eq!(pauses, [("a-*", times[0], times[1], true), ("b", None, None, false)]);
}

#[test]
fn a_table_that_makes_no_sense_is_told_with_line_and_key() {
    for (text, line, words) in [
        ("[rule]\nname = \"a\"", 1, "rule: stands for tables; write [[rule]] before each"),
        ("rule = [1]", 1, "rule: stands for tables"),
        ("[[rule]]\n[[rule]]\nname = \"a\"", 1, "rule: a [[rule]] needs a name"),
        (
            "[[rule]]\nname = \"a\"\nstall_after = \"1s\"",
            3,
            "rule: stall_after: there is no such key; did you mean",
        ),
        (
            "[[rule]]\nname = \"a\"\ncolour = 1",
            3,
            "rule: colour: there is no such key; there are name, stall-after",
        ),
        ("[[rule]]\nname = 7", 2, "rule: name: is an integer, and a string is wanted"),
        ("[[rule]]\nname = \"\"", 2, "rule: name: a pattern has 1 to 128 characters"),
        ("[[rule]]\nname = \"a\"\nstall-after = 5", 3, "rule: stall-after: is an integer"),
        ("[[rule]]\nname = \"a\"\nstall-after = \"5\"", 3, "rule: stall-after: `5`: "),
        ("[[rule]]\nname = \"a\"\nstall-after = \"1ms\"", 3, "rule: stall-after: 1ms is not between"),
        ("[[rule]]\nname = \"a\"\n[[rule]]\nname = \"a\"", 4, "rule: name: `a` stands in an earlier entry"),
        ("[[expected]]\nname = \"a b\"", 2, "expected: name: `a b`: "),
        ("[[expected]]\nname = \"a*\"", 2, "expected: name: `a*`: "),
        (
            "[[expected]]\nname = \"a\"\n[[expected]]\nname = \"a\"",
            4,
            "expected: name: `a` stands in an earlier",
        ),
        (
            "[[expected]]\nname = \"a\"\nstall-after = \"1s\"",
            3,
            "expected: stall-after: there is no such key",
        ),
        ("[[pause]]", 1, "pause: a [[pause]] needs a name"),
        (
            "[[pause]]\nname = \"a\"\nuntill = 1",
            3,
            "pause: untill: there is no such key; did you mean until?",
        ),
        ("[[pause]]\nname = \"a\"\nfrom = 2026-12-24", 3, "pause: from: `2026-12-24` is not a moment"),
        (
            "[[pause]]\nname = \"a\"\nuntil = 2026-12-24T22:00:00",
            3,
            "pause: until: `2026-12-24T22:00:00` is not",
        ),
        ("[[pause]]\nname = \"a\"\nuntil = \"soon\"", 3, "pause: until: `soon` is not a moment"),
        ("[[pause]]\nname = \"a\"\nuntil = 7", 3, "pause: until: is an integer"),
        ("[[pause]]\nname = \"a\"\nreason = \"\"", 3, "pause: reason: has 1 to 256 bytes"),
        (
            "[[pause]]\nname = \"a\"\nfrom = 2026-12-24T22:00:00Z\nuntil = 2026-12-24T22:00:00Z",
            2,
            "pause: until: is not after from",
        ),
        ("[[expected]]\nname = \"a\"\ngrace = \"0s\"", 3, "expected: grace: 0ns is not between"),
    ] {
        let (found, said) = refused(text);
        assert_eq!((found, said.starts_with(words)), (line, true), "{text:?}: {said}");
    }
}

#[test]
fn a_deep_nest_is_refused_and_not_followed() {
    assert!(parse(&format!("socket = {}", "[".repeat(100_000))).is_err());
    let dotted = "a.".repeat(100_000) + "a = 1";
    assert!(parse(&dotted).is_err());
}

#[test]
fn recovery_is_read_with_all_its_parts() {
    let text = r#"
[[recovery]]
exec = "restart {unit}"

[[recovery]]
name = "billing-*"
label = ["team=payments", "zone="]
state = ["stalled", "critical"]
cause = "stopped"
transport = "unix"
steps = [
  { notify = true },
  { wait = "5s", signal = "TERM" },
  { wait = "10s", signal = { name = "SIGKILL", to = "group" } },
  { exec = "restart {name}", timeout = "1m" },
]
debounce = "0s"
backoff = "2s"
attempts = 7
budget = "3/1h"
keep-up = 0
"#;
    let tables = parse(text).unwrap().tables.services.recovery;
    let entries: Vec<_> = tables.iter().collect();
    let [simple, whole] = entries[..] else { panic!("{entries:?}") };
    let seconds = |entry: &RecoveryEntry| -> Vec<_> {
        entry
            .steps(Duration::from_secs(30))
            .iter()
            .map(|step| (step.wait.as_secs(), step.action.kind()))
            .collect()
    };
    assert_eq!(seconds(simple), [(0, "command")]);
    assert_eq!((simple.states.len(), simple.debounce), (2, None));
    assert_eq!(seconds(whole), [(0, "notify"), (5, "signal"), (10, "signal"), (0, "command")]);
    let scopes = whole.steps(Duration::from_secs(30)).into_iter().filter_map(|step| match step.action {
        Action::Signal(signal, scope) => Some((signal.as_str(), scope)),
        Action::Notify | Action::Command(..) => None,
    });
    let scopes: Vec<_> = scopes.collect();
    assert_eq!(scopes, [("SIGTERM", SignalScope::Process), ("SIGKILL", SignalScope::Group)]);
    assert_eq!(
        whole.labels,
        [("team".to_owned(), "payments".to_owned()), ("zone".to_owned(), String::new())]
    );
    assert_eq!(
        (whole.attempts, whole.keep_up, whole.causes.as_slice()),
        (Some(7), Some(0), &["stopped"][..])
    );
    assert_eq!((whole.debounce, whole.backoff), (Some(Duration::ZERO), Some(Duration::from_secs(2))));
}

#[test]
fn recovery_that_makes_no_sense_is_told_with_its_line() {
    for (text, line, words) in [
        ("[[recovery]]", 1, "recovery: needs exec, or steps"),
        ("[[recovery]]\nexec = \"a\"\nsteps = [{notify = true}]", 2, "either exec or steps"),
        ("[[recovery]]\nexec = \"{name}\"", 2, "recovery: exec: `{name}`: what is known"),
        (
            "[[recovery]]\nexec = \"a\"\nstate = \"up\"",
            3,
            "state: `up` is none of stalled, down, critical, expected",
        ),
        ("[[recovery]]\nexec = \"a\"\ncause = [\"stuck\"]", 3, "cause: `stuck`: there is no such cause"),
        ("[[recovery]]\nexec = \"a\"\nlabel = \"team\"", 3, "label: is not KEY=VALUE"),
        (
            "[[recovery]]\nexec = \"a\"\ntransport = \"shm\"",
            3,
            "transport: `shm` is none of unix, udp, secure_udp",
        ),
        ("[[recovery]]\nexec = \"a\"\nbudget = \"3\"", 3, "budget: is not ACTIONS/DURATION"),
        ("[[recovery]]\nexec = \"a\"\nattempts = 0", 3, "attempts: is not a number from 1"),
        (
            "[[recovery]]\nexec = \"a\"\nbackof = \"1s\"",
            3,
            "backof: there is no such key; did you mean backoff?",
        ),
        ("[[recovery]]\nsteps = []", 2, "steps: there are 1 to 16"),
        ("[[recovery]]\nsteps = [{signal = \"STOPP\"}]", 2, "signal: `STOPP`: there is no such signal"),
        ("[[recovery]]\nsteps = [{signal = {to = \"group\"}}]", 2, "signal: needs a name"),
        (
            "[[recovery]]\nsteps = [{signal = {name = \"TERM\", to = \"all\"}}]",
            2,
            "`all` is none of process, group",
        ),
        (
            "[[recovery]]\nsteps = [{signal = {name = \"TERM\", whom = \"group\"}}]",
            2,
            "whom: there is no such key",
        ),
        ("[[recovery]]\nsteps = [{signal = \"TERM\", exec = \"a\"}]", 2, "one of notify, signal and exec"),
        (
            "[[recovery]]\nsteps = [{signal = \"TERM\", timeout = \"1s\"}]",
            2,
            "timeout: does nothing without exec",
        ),
        ("[[recovery]]\nsteps = [{notify = false}]", 2, "notify: is true, or left out"),
        ("[[recovery]]\nsteps = [{exec = \"a\", timeout = \"2days\"}]", 2, "timeout: is more than 24h"),
    ] {
        let (found, said) = refused(text);
        assert!(found == line && said.contains(words), "{text}: line {found}: {said}");
    }
}

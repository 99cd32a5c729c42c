//! The command line, and how the file supplements it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, Command, CommandFactory};

use crate::base::error::Error;
use crate::base::limits::MAX_DURATION;
use crate::base::options::values::{parse_address, parse_mode};
use crate::base::options::{Address, Id, LookUps, Mode};
use crate::base::{Glob, logging};
use crate::config::args::{Args, definition, without_variables};
use crate::config::bounds::EVERYTHING_ON;
use crate::config::option_kind::defaults;
use crate::config::{Config, ForgetAfter, Tables, Task};
use crate::domain::{Expected, Rule};
use crate::services;
use crate::services::maintenance::{ControlSocket, MaintenanceTask};
use crate::services::recording::{RecordOptions, RecordingTask};

#[test]
fn the_definition_is_sound() {
    Args::command().debug_assert();
}

#[test]
fn a_group_of_options_leaves_the_description_of_the_command_as_it_is() {
    let about = definition().get_about().map(ToString::to_string);
    assert!(about.is_some_and(|about| about.starts_with("Takes heartbeats")));
}

#[test]
fn every_option_has_an_environment_variable_of_its_name() {
    for option in Args::command().get_opts() {
        let long = option.get_long().unwrap();
        let expected = format!("VARTA_{}", long.replace('-', "_").to_uppercase());
        assert_eq!(option.get_env().and_then(|name| name.to_str()), Some(expected.as_str()), "--{long}");
    }
}

#[test]
fn none_turns_metrics_off() {
    assert_eq!(parse_address("none"), Ok(Address(None)));
    assert!(parse_address("localhost").unwrap_err().ends_with(", nor `none`"));
}

#[test]
fn a_mode_is_octal() {
    assert_eq!(parse_mode("0660"), Ok(Mode(0o660)));
    assert!(parse_mode("0888").is_err() && parse_mode("7777").is_err());
}

/// The environment of the test run may have variables for a server.
fn bare_definition() -> Command {
    without_variables(Args::command(), |_| true)
}

/// Parses these arguments together with a file of this text.
fn read(words: &[&str], text: &str) -> Result<Args, Error> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("varta.toml");
    std::fs::write(&path, text).unwrap();
    let before = ["varta-server", "--config", path.to_str().unwrap()];
    Args::read_by(bare_definition(), before.iter().chain(words).map(OsString::from))
}

#[test]
fn what_is_given_on_the_command_line_goes_before_the_file_and_that_before_the_default() {
    let text = "stall-after = \"2s\"\nmax-agents = 7\nallow-uid = [1, 2]\nudp = \"127.0.0.1:1\"";
    let args = read(&["--stall-after", "3s", "--allow-uid", "9"], text).unwrap();
    assert_eq!(args.engine.stall_after, Duration::from_secs(3));
    assert_eq!(args.engine.max_agents, 7);
    assert_eq!(args.ingest.allow_uid, [Id::Number(9)], "a list replaces the file's");
    assert_eq!(args.ingest.udp.len(), 1);
    assert_eq!(args.engine.forget_after, Duration::from_secs(86_400));
    // Also if the argument equals the default.
    assert_eq!(read(&["--stall-after=5s"], text).unwrap().engine.stall_after, Duration::from_secs(5));
}

#[test]
fn the_configuration_has_the_rules_the_expected_agents_and_the_file() {
    let text = "socket = \"/tmp/varta.sock\"\n[[rule]]\nname = \"a\"\n[[expected]]\nname = \"b\"";
    let config = read(&[], text).unwrap().into_config().unwrap();
    assert_eq!((config.policy.rules.iter().len(), config.policy.expected.iter().len()), (1, 1));
    assert!(config.file.is_some());
    assert_eq!(config.ingest.sockets[0].path.to_str(), Some("/tmp/varta.sock"));
    assert!(!config.ingest.sockets[0].is_default);
}

#[test]
fn a_rule_says_how_long_its_agents_are_kept_for_all_states_or_by_state() {
    let config = |value: &str| {
        let text = format!("[[rule]]\nname = \"a\"\nforget-after = {value}");
        read(&[], &text).and_then(Args::into_config).map_err(|error| error.to_string())
    };
    let kept = |value: &str| config(value).unwrap().policy.rules.forget_after_for("a");
    let minutes = |minutes: u64| Some(Duration::from_secs(60 * minutes));
    assert_eq!(kept("\"5m\""), ForgetAfter::all(Duration::from_secs(300)));
    assert_eq!(
        kept("{ down = \"1m\", gone = \"2m\" }"),
        ForgetAfter { stalled: None, down: minutes(1), gone: minutes(2) }
    );
    for (value, said) in [
        ("{ up = \"1m\" }", "forget-after: `up`: an agent is kept for a time while it is"),
        ("{ down = \"1ms\" }", "forget-after: 1ms is not between 10ms and 366 days"),
        ("{ down = 5 }", "forget-after"),
        ("\"4s\"", "4s of the rule for `a` is less than its 5s of silence"),
    ] {
        let error = config(value).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn an_option_that_makes_no_sense_beside_others_is_told_with_its_line_only_if_the_file_gave_it() {
    let refused = |words: &[&str], text| read(words, text).unwrap().into_config().unwrap_err().to_string();
    for (text, said) in [
        ("\nstall-after = \"1ms\"", "varta.toml:2: stall-after: 1ms is not between"),
        ("udp = \"0.0.0.0:1\"", "varta.toml:1: udp 0.0.0.0:1: is not a loopback address"),
        ("metrics-addr = \"0.0.0.0:1\"", "varta.toml:1: metrics-addr 0.0.0.0:1: is not a loopback"),
        ("socket = \"none\"", "varta.toml:1: socket none: leaves nothing to listen on"),
        ("socket-group = \"no-such-group\"", "varta.toml:1: socket-group no-such-group: there is no"),
        ("key-file = \"k\"", "varta.toml:1: key-file: keys do nothing without --secure-udp"),
    ] {
        assert!(refused(&[], text).contains(said), "{}", refused(&[], text));
    }
    let elsewhere = refused(&["--stall-after=1ms"], "stall-after = \"2s\"");
    assert!(elsewhere.starts_with("--stall-after: 1ms"), "{elsewhere}");
    let log_level = read(&[], "log-level = \"loud\"").unwrap();
    let error = logging::start(None, log_level.log_level.as_deref()).unwrap_err();
    assert!(log_level.locate(error).to_string().contains("varta.toml:1: log-level: `loud`"));
}

#[test]
fn all_options_that_make_no_sense_are_told_in_the_order_of_the_file_behind_those_of_the_command_line() {
    let text = "log-level = \"loud\"\nflap-limit = 2\nstall-after = \"1ms\"\nforget-after = \"1ms\"\nudp = \"0.0.0.0:1\"\n\
                key-file = \"k\"\nmetrics-addr = \"0.0.0.0:1\"\nrecord-limit = 1\nphi-threshold = 8.0\n\
                allow-uid = [\"no such user\", 1]\nwebhook = \"ftp://a\"\nwebhook-key-file = \"/no/such/file\"\n\
                recovery-attempts = 0\nrecovery-without-audit = true\nevents-limit = 1\nbeat-every = \"1s\"\n\
                socket-queue = 0\nsocket-group = \"no-such-group\"\nmail-relay = \"x\"\nmin-learned-stall-after = \"1s\"\n";
    let all = read(&["--audit-keep=1"], text).unwrap().into_config().unwrap_err();
    assert_eq!(all.exit_status(), 2);
    let said = all.to_string();
    let said: Vec<_> = said.lines().collect();
    let begin = [
        "--audit-keep: does nothing without --audit-log",
        "/no/such/file: ",
        "1: log-level: ",
        "3: stall-after: 1ms is not between",
        "5: udp 0.0.0.0:1: ",
        "6: key-file: keys do nothing",
        "7: metrics-addr 0.0.0.0:1: ",
        "8: record-limit: does nothing",
        "9: phi-threshold: does nothing",
        "10: allow-uid: `no such user`: ",
        "11: webhook: begins neither",
        "13: recovery-attempts: 0",
        "14: recovery-without-audit: does nothing",
        "15: events-limit: does nothing",
        "16: beat-every: does nothing",
        "17: socket-queue: ",
        "18: socket-group no-such-group: ",
        "19: mail-relay: ",
        "20: min-learned-stall-after: does nothing",
    ];
    let is_one = |said: &str, begin: &str| {
        said.split_once("varta.toml:").map_or(said, |(_, behind)| behind).starts_with(begin)
    };
    for begin in begin {
        assert!(said.iter().any(|said| is_one(said, begin)), "{begin}\n{said:#?}");
    }
    assert!(is_one(said[0], begin[0]) && is_one(said.last().unwrap(), begin[begin.len() - 1]), "{said:#?}");
    let elsewhere = read(&[], text).unwrap().into_config_by(LookUps::LeftOut).unwrap_err().to_string();
    for of_host in ["no such user", "no-such-group", "/no/such/file"] {
        assert!(!elsewhere.contains(of_host), "{elsewhere}");
    }
}

#[test]
fn what_is_asked_of_a_server_goes_where_its_file_says() {
    let control = |words: &[&str], text: &str| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("varta.toml");
        std::fs::write(&path, text).unwrap();
        let start = ["varta-server", "pauses", "--config", path.to_str().unwrap()];
        let words = start.iter().chain(words);
        let args =
            Args::read_by(bare_definition(), words.map(OsString::from)).map_err(|error| error.to_string())?;
        let Some(Task::Service(services::Task::Maintenance(MaintenanceTask::Pauses(pauses)))) = args.task
        else {
            unreachable!()
        };
        Ok::<_, String>((pauses.control.control_socket, pauses.control.socket))
    };
    let both =
        "stall-after = \"2s\"\ncontrol-socket = \"/c\"\nsocket = [\"/a\", \"/b\"]\n[[rule]]\nname = \"a\"";
    let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
    assert_eq!(control(&[], both), Ok((Some("/c".into()), paths(&["/a", "/b"]))));
    assert_eq!(control(&["--control-socket", "/d"], both), Ok((Some("/d".into()), paths(&["/a", "/b"]))));
    assert_eq!(control(&["--socket", "/d"], "socket = \"/a\""), Ok((None, paths(&["/d"]))));
    assert_eq!(control(&["--json"], "udp = \"127.0.0.1:1\""), Ok((None, Vec::new())));
    assert!(control(&[], "\nsockt = \"/a\"").unwrap_err().contains("varta.toml:2: sockt: "));
}

#[test]
fn a_task_has_options_of_its_own_and_none_of_the_server() {
    let read = |words: &[&str]| {
        let words = ["varta-server"].iter().chain(words).map(OsString::from);
        Args::read_by(bare_definition(), words)
    };
    assert!(read(&[]).unwrap().task.is_none());
    let words = ["replay", "FILE", "--stall-after", "2s", "--detector=phi", "--phi-threshold=9", "--json"];
    let Some(Task::Service(services::Task::Recording(RecordingTask::Replay(args)))) =
        read(&words).unwrap().task
    else {
        panic!("it is a replay")
    };
    assert_eq!(
        (args.file.to_str(), args.stall_after, args.json),
        (Some("FILE"), Some(Duration::from_secs(2)), true)
    );
    assert!(args.detector.policy().is_ok());
    for wrong in
        [&["--stall-after=2s", "replay", "FILE"][..], &["replay"], &["replay", "FILE", "--max-agents=1"]]
    {
        assert!(matches!(read(wrong), Err(Error::Usage(_))), "{wrong:?}");
    }
    let task_in_file = self::read(&[], "replay = \"FILE\"").unwrap_err().to_string();
    assert!(task_in_file.contains("replay: there is no such option"), "{task_in_file}");
}

#[test]
fn a_recording_has_a_limit_and_a_limit_a_recording() {
    let record = |text| read(&[], text).unwrap().into_config().map(|config| config.services.recording);
    assert_eq!(record("").unwrap(), None);
    let path = PathBuf::from("r");
    let options = RecordOptions { path: path.clone(), limit: 268_435_456 };
    assert_eq!(record("record = \"r\"").unwrap(), Some(options));
    let options = RecordOptions { path, limit: 4_096 };
    assert_eq!(record("record = \"r\"\nrecord-limit = 4096").unwrap(), Some(options));
    let said = |text| record(text).unwrap_err().to_string();
    assert!(
        said("record-limit = 4096").contains("varta.toml:1: record-limit: does nothing without --record")
    );
    assert!(
        said("record = \"r\"\nrecord-limit = 4_095")
            .contains("varta.toml:2: record-limit: 4095 is less than")
    );
}

#[test]
fn the_example_has_every_option_and_what_it_says_is_the_default() {
    const EXAMPLE: &str = include_str!("../../varta.example.toml");
    let as_it_is = format!("{:?}", Args { config: None, file: None, ..read(&[], EXAMPLE).unwrap() });
    let defaults = format!("{:?}", Args { config: None, file: None, ..read(&[], "").unwrap() });
    assert_eq!(as_it_is, defaults);

    // Commented-out settings are valid too: a `#` without a space before a key or a table.
    let whole: String = EXAMPLE
        .lines()
        .map(|line| {
            let bare = line
                .strip_prefix('#')
                .filter(|bare| bare.starts_with(|c: char| c.is_alphabetic() || c == '['));
            bare.unwrap_or(line).to_owned() + "\n"
        })
        .collect();
    let file = read(&[], &whole).unwrap().file.unwrap();
    let Tables { engine, services } = file.tables();
    let counts = [engine.rules.iter().len(), engine.expected.iter().len(), services.maintenance.iter().len()];
    assert_eq!(counts, [1, 1, 1]);
    // A rule has keys with the names of options.
    let (options, _) = whole.split_once("\n[[").unwrap();
    let is_key = |option: &&clap::Arg| option.get_id() != "config" && option.get_id() != "take_over";
    for option in definition().get_arguments().filter(is_key) {
        let key = option.get_long().unwrap();
        let is_key = |line: &str| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(" = "));
        let is_switch = !option.get_action().takes_values();
        let has_default = is_switch || !option.get_default_values().is_empty();
        assert_eq!(EXAMPLE.lines().filter(|line| is_key(line)).count(), usize::from(has_default), "{key}");
        assert_eq!(options.lines().filter(|line| is_key(line)).count(), 1, "{key}");
    }
}

#[test]
fn a_default_that_only_help_names_is_what_counts_without_the_option() {
    let config = |more: Option<&str>| {
        let words = EVERYTHING_ON.into_iter().chain(more);
        let args =
            Args::read_by(bare_definition(), ["varta-server"].into_iter().chain(words).map(OsString::from));
        format!("{:?}", args.unwrap().into_config_by(LookUps::LeftOut).unwrap())
    };
    let without = config(None);
    let mut found = 0;
    let has_none =
        |option: &&Arg| option.get_action().takes_values() && option.get_default_values().is_empty();
    for option in definition().get_opts().filter(has_none) {
        let (key, help) = (option.get_long().unwrap(), option.get_help().unwrap().to_string());
        if let [default] = &defaults(option)[..] {
            found += 1;
            assert_eq!(config(Some(&format!("--{key}={default}"))), without, "{key}");
        } else {
            let is_prose = help.contains("[default: ") && (key == "log-format" || key == "log-level");
            assert!(is_prose || !help.contains("[default: "), "{key}: {help}");
        }
    }
    assert!(found > 8, "{found}");
}

fn refused(change: impl FnOnce(&mut Config)) -> String {
    let mut config = Config::for_socket("/tmp/varta.sock".into());
    config.check().unwrap();
    change(&mut config);
    let error = config.check().unwrap_err();
    assert_eq!(error.exit_status(), 2, "{error}");
    error.to_string()
}

#[test]
fn values_that_make_no_sense_are_refused_by_name() {
    assert!(
        refused(|config| config.policy.stall_after = Duration::from_millis(9)).starts_with("--stall-after")
    );
    assert!(
        refused(|config| config.policy.forget_after = Duration::from_secs(1)).starts_with("--forget-after")
    );
    assert!(refused(|config| config.policy.max_agents = 0).starts_with("--max-agents"));
    assert!(refused(|config| config.ingest.sockets.clear()).starts_with("--socket"));
    assert!(
        refused(|config| config.ingest.sockets.push(config.ingest.sockets[0].clone()))
            .contains("given twice")
    );
    let said = refused(|config| {
        let path = config.ingest.sockets[0].path.clone();
        config.services.maintenance.control = Some(ControlSocket { path, is_default: false });
    });
    assert!(said.starts_with("--control-socket: /tmp/varta.sock is a --socket already"), "{said}");
    let from_anywhere = || "[::]:9844".parse().unwrap();
    assert!(refused(|config| config.ingest.udp.push(from_anywhere())).contains("--allow-plaintext-remote"));
    assert!(refused(|config| config.ingest.allow_plaintext_remote = true).contains("--udp"));
    assert!(refused(|config| config.ingest.secure_udp.push(from_anywhere())).contains("--key-file"));
    assert!(refused(|config| config.ingest.keys.key = Some("key".into())).contains("--secure-udp"));
    assert!(refused(|config| config.ingest.udp_receive_buffer = 0).starts_with("--udp-receive-buffer"));
    let patient = Rule { stall_after: Some(MAX_DURATION), ..Rule::of(Glob::parse("slow-*").unwrap()) };
    let said = refused(|config| config.policy.rules.add(patient).unwrap());
    assert!(said.starts_with("--forget-after") && said.contains("slow-*"), "{said}");
    let said = refused(|config| {
        config.policy.max_agents = 1;
        config.policy.expected.add(Expected::named("one").unwrap()).unwrap();
        config.policy.expected.add(Expected::named("two").unwrap()).unwrap();
    });
    assert!(said.starts_with("--max-agents"), "{said}");
    let everywhere = Some("0.0.0.0:9843".parse().unwrap());
    assert!(refused(|config| config.services.http.address = everywhere).contains("--metrics-token-file"));
}

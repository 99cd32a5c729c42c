//! `varta-server config show`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use varta_integration_tests::{Ended, Scratch, run_server, run_to_its_end, server_command};

fn command(words: &[&str], path: Option<&Path>, variables: &[(&str, &str)]) -> Command {
    let mut command = server_command();
    command.args(["config", "show"]).args(words).envs(variables.iter().copied());
    command.args(path.map(|path| format!("--config={}", path.display())));
    command
}

fn show(words: &[&str], path: Option<&Path>, variables: &[(&str, &str)]) -> String {
    let ended = run_to_its_end(command(words, path, variables));
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    ended.stdout
}

fn check(path: &Path) -> Ended {
    run_server([Path::new("config"), Path::new("check"), path])
}

const TEXT: &str = "max-agents = 0x7\n\nstall-after = \"7s\"\nudp = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n\
                    webhook = \"https://hooks.example/t0ken\"\nrecovery-env = [\"PASSWORD=t0ken\"]\n\
                    alert-give-up-after = \"2h\"\nallow-uid = 0\nlog-level = \"info\"\n\
                    [[rule]]\nname = \"a-*\"\nforget-after = { down = \"1h\" }\n\
                    [[pause]]\nname = \"b\"\nuntil = 2099-01-01T00:00:00Z\n";
const VARIABLES: [(&str, &str); 5] = [
    ("VARTA_STALL_AFTER", "8s"),
    ("VARTA_MAX_BEAT_RATE", "007"),
    ("VARTA_ALERTMANAGER", "http://u:t0ken@a.example:9093,http://b.example"),
    ("VARTA_UDP", ""),
    ("VARTA_RECOVERY_DRY_RUN", "no"),
];
const WORDS: [&str; 5] = [
    "--stall-after=9s",
    "--allow-plaintext-remote",
    "--socket=/run/varta\n.sock",
    "--udp-receive-buffer=1M",
    "--stall-after=9s",
];

#[test]
fn each_value_is_shown_with_its_origin_and_what_it_overrides_and_no_secret_is() {
    let scratch = Scratch::make();
    let path = scratch.write("varta.toml", TEXT);
    let shown = show(&WORDS, Some(&path), &VARIABLES);
    let file = path.display();
    for line in [
        format!(
            "stall-after = \"9s\"  # --stall-after, overrides VARTA_STALL_AFTER \"8s\", {file}:3 \"7s\", default \"5s\""
        ),
        format!("max-agents = 7  # {file}:1, overrides default 1000000"),
        format!("udp = [\"127.0.0.1:1\", \"127.0.0.1:2\"]  # {file}:4"),
        format!("webhook = \"https://hooks.example/hidden\"  # {file}:5"),
        format!("recovery-env = [\"PASSWORD=hidden\"]  # {file}:6"),
        format!("alert-give-up-after = \"2h\"  # {file}:7, overrides default \"1h\""),
        format!("allow-uid = [\"0\"]  # {file}:8"),
        "alertmanager = [\"http://hidden:hidden@a.example:9093/\", \"http://b.example\"]  # VARTA_ALERTMANAGER".to_owned(),
        "# Parts of these values are hidden: recovery-env, alertmanager, webhook.".to_owned(),
        "max-beat-rate = 7  # VARTA_MAX_BEAT_RATE, overrides default 1000".to_owned(),
        "allow-plaintext-remote = true  # --allow-plaintext-remote, overrides default false".to_owned(),
        "recovery-dry-run = false  # VARTA_RECOVERY_DRY_RUN, overrides default false".to_owned(),
        "udp-receive-buffer = \"1M\"  # --udp-receive-buffer, overrides default \"8MiB\"".to_owned(),
        "longest-silence = \"1h\"  # default".to_owned(),
        "# flap-limit = 3  # default".to_owned(),
        "# control-socket = \"/run/varta\\n.sock.control\"  # default".to_owned(),
        "# state-dir is not set".to_owned(),
        format!("[[rule]]  # {file}:10"),
        format!("forget-after = {{ down = \"1h\" }}  # {file}:12"),
        format!("until = 2099-01-01T00:00:00Z  # {file}:15"),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
    assert!(
        shown
            .lines()
            .any(|line| line.starts_with("socket = [\"/run/varta\\n.sock\"]  # --socket, overrides default"))
    );
    assert!(!shown.contains("t0ken"), "{shown}");
}

#[test]
fn json_has_the_same() {
    let scratch = Scratch::make();
    let path = scratch.write("varta.toml", TEXT);
    let shown = show(&[&WORDS[..], &["--json"]].concat(), Some(&path), &VARIABLES);
    assert!(!shown.contains("t0ken"), "{shown}");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["file"], path.to_str().unwrap());
    let overrides = json!([
        { "value": "8s", "source": "variable", "variable": "VARTA_STALL_AFTER" },
        { "value": "7s", "source": "file", "line": 3 },
        { "value": "5s", "source": "default" },
    ]);
    let options = &shown["options"];
    assert_eq!(options["stall-after"], json!({ "value": "9s", "source": "flag", "overrides": overrides }));
    let default = json!([{ "value": 1_000_000, "source": "default" }]);
    assert_eq!(
        options["max-agents"],
        json!({ "value": 7, "source": "file", "line": 1, "overrides": default })
    );
    assert_eq!(options["state-dir"], json!({ "value": null, "source": "default", "overrides": [] }));
    assert_eq!((&options["webhook"]["hidden"], &options["udp"]["hidden"]), (&json!(true), &Value::Null));
    assert_eq!(options["recovery-dry-run"]["value"], false);
    let keys = json!({ "name": { "value": "a-*", "line": 11 }, "forget-after": { "value": { "down": "1h" }, "line": 12 } });
    assert_eq!(shown["tables"][0], json!({ "table": "rule", "line": 10, "keys": keys }));
    assert_eq!(shown["tables"][1]["keys"]["until"]["value"], "2099-01-01T00:00:00Z");
}

/// What is shown without the places.
fn values(shown: &str) -> Vec<&str> {
    let lines = shown.lines().filter(|line| !line.starts_with("# Parts of these values"));
    lines.map(|line| line.split("  # ").next().unwrap()).collect()
}

#[test]
fn what_is_shown_is_itself_a_file_that_says_the_same() {
    let scratch = Scratch::make();
    let example =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../varta-server/varta.example.toml"))
            .unwrap();
    let path = scratch.write("varta.toml", TEXT);
    let example = scratch.write("example.toml", &example);
    for (words, path, variables) in [
        (&WORDS[..], Some(&path), &VARIABLES[..]),
        (&["--detector=phi", "--phi-threshold=9"], Some(&example), &[]),
        (&[], None, &[]),
    ] {
        let first = show(words, path.map(AsRef::as_ref), variables);
        let again = scratch.write("again.toml", &first);
        let ended = check(&again);
        assert!(ended.status.success(), "{}\n{first}", ended.stderr);
        let second = show(&[], Some(&again), &[]);
        assert_eq!(values(&first), values(&second));
    }
}

#[test]
fn faults_are_told_and_nothing_is_shown_of_them() {
    let scratch = Scratch::make();
    let path = scratch.write("varta.toml", "webhook = 7\nstal-after = 1\n");
    let ended = run_to_its_end(command(&[], Some(&path), &[]));
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(2), ""));
    assert_eq!(ended.stderr.lines().count(), 2, "{}", ended.stderr);
    for words in [&["--no-such-option"][..], &["file"], &["--stall-after=soon"], &["--config=/no/such/file"]]
    {
        let ended = run_to_its_end(command(words, None, &[]));
        assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(2), ""), "{words:?}");
    }
    let ended = run_to_its_end(command(&[], None, &[("VARTA_STAL_AFTER", "1s")]));
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.stderr.contains("did you mean VARTA_STALL_AFTER?"), "{}", ended.stderr);
}

#[test]
fn a_reader_that_wants_no_more_is_no_fault_and_a_full_disk_is_one() {
    let mut shown = command(&[], None, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(shown.stdout.take());
    assert_eq!(shown.wait().unwrap().code(), Some(0));
    let mut said = String::new();
    shown.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");

    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ended = command(&[], None, &[]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("No space left"), "{ended:?}");
}

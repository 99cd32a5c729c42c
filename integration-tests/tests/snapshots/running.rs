//! Log lines and answers of a running server: on SIGHUP, over HTTP, and for broken files in the state
//! directory.

use std::fs;

use serde_json::Value;
use varta_integration_tests::{
    ANOTHER_KEY, Options, SHARED_KEY, Server, Signal, http, wait_for, write_secret,
};

use super::sandbox::assert_unchanged;

/// JSON log lines as level, target, message and the names of all other fields.
pub(crate) fn readable(lines: &[String], redacted: &[(String, &str)]) -> String {
    let line = |line: &String| {
        let Value::Object(mut fields) = serde_json::from_str(line).unwrap() else { unreachable!("{line}") };
        let mut text = |name: &str| fields.remove(name).unwrap().as_str().unwrap().to_owned();
        text("timestamp");
        let (level, target, message) = (text("level"), text("target"), text("message"));
        let names: Vec<_> = fields.keys().map(String::as_str).collect();
        format!("{level} {target}: {message}\n    {{{}}}\n", names.join(", "))
    };
    let text: String = lines.iter().map(line).collect();
    redacted.iter().fold(text, |text, (redacted, word)| text.replace(redacted.as_str(), word))
}

/// A text log without its timestamps.
pub(crate) fn without_times(text: &str) -> String {
    let line = |line: &str| match line.split_once("Z  ") {
        Some((time, rest)) if time.starts_with("20") && !time.contains(' ') => format!("TIME  {rest}\n"),
        Some(_) | None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn files_that_sighup_reads_again() {
    let directory = tempfile::Builder::new().prefix("varta-it-").tempdir().unwrap();
    let config = directory.path().join("varta.toml");
    fs::write(&config, "max-agents = 3\n[[pause]]\nname = \"night-*\"\n").unwrap();
    let key = write_secret(directory.path(), "key", SHARED_KEY);
    let options = Options::new().secure_udp("127.0.0.1:0").args(["--udp-receive-buffer", "65536"]);
    let options =
        options.args(["--config".as_ref(), config.as_os_str(), "--key-file".as_ref(), key.as_os_str()]);
    let server = Server::start(options);
    // The last line of the start.
    wait_for(|| server.log().find("requests (pause, forget, ack, reload) are taken on ")).unwrap();
    let begun = server.log().lines().len();
    for (key_text, config_text, lines) in [
        (ANOTHER_KEY, "max-agents = 3\n[[rule]]\nname = \"a\"\n[[expected]]\nname = \"b\"\n", 3),
        ("no key", "max-agents = \"3\"\n", 1),
        (SHARED_KEY, "max-agents = 3\n[[rule]]\nname = \"a\"\nstall-after = \"30d\"\n", 1),
        (
            SHARED_KEY,
            "max-agents = 3\n[[expected]]\nname=\"a\"\n[[expected]]\nname=\"b\"\n[[expected]]\nname=\"c\"\n\
             [[expected]]\nname=\"d\"\n",
            1,
        ),
        (SHARED_KEY, "max-agents = 4\nstall-after = \"1s\"\n", 3),
        (SHARED_KEY, "max-agents = 3\n[[pause]]\nname = \"a\"\nuntil = 2001-01-01T00:00:00Z\n", 3),
    ] {
        let before = server.log().lines().len();
        fs::write(&key, format!("{key_text}\n")).unwrap();
        fs::write(&config, config_text).unwrap();
        server.signal(Signal::HangUp);
        wait_for(|| (server.log().lines().len() >= before + lines).then_some(()))
            .unwrap_or_else(|| unreachable!("{lines} lines of {config_text}: {:#?}", server.log().lines()));
    }
    let redacted = [(directory.path().display().to_string(), "DIR")];
    assert_unchanged("log_reload", &readable(&server.log().lines()[begun..], &redacted));
}

#[test]
fn answers_over_http() {
    let directory = tempfile::tempdir().unwrap();
    let token = write_secret(directory.path(), "token", "0123456789abcdef0123456789abcdef");
    let server = Server::start(Options::new().args(["--metrics-token-file".as_ref(), token.as_os_str()]));
    let mut text = String::new();
    for (path, headers) in [
        ("/healthz", &[][..]),
        ("/readyz", &[]),
        ("/metrics", &[]),
        ("/metrics", &[("Authorization", "Bearer 0123456789abcdef")]),
        ("/nowhere", &[]),
        ("/metrics/", &[]),
    ] {
        let answer = http::get(server.address(), path, headers).unwrap();
        text += &format!("GET {path} {headers:?}\n{}\n{}\n", answer.status, answer.body);
    }
    assert_unchanged("answers_over_http", &text);
}

#[test]
fn state_files_that_cannot_be_used() {
    let directory = tempfile::Builder::new().prefix("varta-it-").tempdir().unwrap();
    let state = directory.path().join("state");
    let state_dir = ["--state-dir".as_ref(), state.as_os_str()];
    let options = || {
        Options::from([
            "--max-agents",
            "10",
            "--webhook",
            "http://localhost:9/",
            "--recovery-exec",
            "/bin/true",
        ])
        .args(state_dir)
    };
    // Where no server was before, another kind of file is refused.
    let mut server = Server::start(options());
    server.signal(Signal::Terminate);
    assert_eq!(server.wait().code(), Some(0));
    let mut text = String::new();
    for (name, content) in [
        ("varta.db", "this is no database, and longer than the header of one: ".repeat(40)),
        ("alerts.json", "{".to_owned()),
        ("alerts.json", r#"{"version":0,"alerts":[]}"#.to_owned()),
        ("alerts.json", r#"{"version":1,"alerts":[{}]}"#.to_owned()),
        ("recovery.json", "{".to_owned()),
        ("pauses.json", "{".to_owned()),
        ("pauses.json", "[]".to_owned()),
        ("pauses.json", r#"{"v":0,"pauses":[]}"#.to_owned()),
        ("pauses.json", r#"{"v":1,"pauses":{}}"#.to_owned()),
        (
            "pauses.json",
            r#"{"v":1,"pauses":[{"pattern":"a","by":"configuration","since":"2026-01-01T00:00:00Z"}]}"#
                .to_owned(),
        ),
        ("pauses.json", r#"{"v":1,"pauses":[{"pattern":"a","by":"nobody"}]}"#.to_owned()),
        ("pauses.json", r#"{"v":1,"pauses":[{"pattern":"a","by":"user","uid":7}]}"#.to_owned()),
        ("pauses.json", r#"{"v":1,"pauses":[{"pattern":"a","by":"user","uid":7,"since":"now"}]}"#.to_owned()),
    ] {
        fs::create_dir_all(&state).unwrap();
        fs::write(state.join(name), &content).unwrap();
        let mut server = Server::start(options());
        let bad = |server: &Server| -> Vec<String> {
            let lines = server.log().lines().into_iter();
            lines.filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\"")).collect()
        };
        wait_for(|| (!bad(&server).is_empty()).then_some(())).unwrap();
        server.signal(Signal::Terminate);
        assert_eq!(server.wait().code(), Some(0));
        let shown: String = content.chars().take(100).collect();
        let redacted = [(directory.path().display().to_string(), "DIR")];
        text += &format!("{name}: {shown}\n{}\n", readable(&bad(&server), &redacted));
    }
    assert_unchanged("log_state_files", &text);
}

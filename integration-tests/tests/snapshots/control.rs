//! The control socket: answers to requests that are refused, and refusals of `pause`, `resume` and `pauses`.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use varta_integration_tests::foreign::skip;
use varta_integration_tests::{Options, Server, sys};

use super::sandbox::Sandbox;

/// The user `nobody`, which has no rights anywhere.
const NOBODY: u32 = 65_534;

/// Sends a request to a control socket and returns the answer.
fn ask(path: &Path, line: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(line).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn malformed_requests() {
    let server = Server::start(Options::new());
    let path = server.directory().join("varta.sock.control");
    let mut sandbox = Sandbox::new();
    for line in [
        "",
        "pause batch",
        "[1]",
        "{}",
        r#"{"v":"1"}"#,
        r#"{"v":2,"do":"pauses"}"#,
        r#"{"v":1}"#,
        r#"{"v":1,"do":1}"#,
        r#"{"v":1,"do":"stop"}"#,
        r#"{"v":1,"do":"pauses","all":true}"#,
        r#"{"v":1,"do":"resume"}"#,
        r#"{"v":1,"do":"resume","pattern":""}"#,
        r#"{"v":1,"do":"pause","pattern":"a"}"#,
        r#"{"v":1,"do":"pause","pattern":"a","for_ms":1.5}"#,
        r#"{"v":1,"do":"pause","pattern":"a","for_ms":999}"#,
        r#"{"v":1,"do":"pause","pattern":"a","for_ms":31622400001}"#,
        r#"{"v":1,"do":"pause","pattern":"a","for_ms":1000,"reason":1}"#,
        r#"{"v":1,"do":"pause","pattern":"a","for_ms":1000,"reason":"a\u0007"}"#,
        "{\"v\":1,\"do\":\"pauses\"}\n{",
    ] {
        sandbox.add(&format!("> {line}\n"));
        sandbox.add(&ask(&path, format!("{line}\n").as_bytes()));
    }
    sandbox.comment("a request that is too long");
    sandbox.add(&ask(&path, &[b' '; 8_193]));
    sandbox.assert_unchanged("control_requests");
}

#[test]
fn refused_requests() {
    let server = Server::start(Options::new());
    let mut sandbox = Sandbox::new();
    let socket = server.socket().display().to_string();
    sandbox.redact(server.directory().display(), "DIR");
    sandbox.comment("no pauses");
    sandbox.run(&["pauses", "--socket", &socket]);
    sandbox.run(&["resume", "batch-*", "--socket", &socket]);
    sandbox.run(&["resume", "two\u{e9} words", "--socket", &socket]);
    sandbox.run(&["pauses", "--json", "--socket", &socket]);

    let file = sandbox.write("varta.toml", "[[pause]]\nname = \"night-*\"\n");
    let server = Server::start(Options::new().args(["--config".as_ref(), file.as_os_str()]));
    sandbox.redact(server.directory().display(), "DIR");
    sandbox.comment("a pause of the configuration's file");
    sandbox.run(&["resume", "night-*", "--socket", &server.socket().display().to_string()]);

    let server = Server::start(Options::new());
    let (path, socket) =
        (server.directory().join("varta.sock.control"), server.socket().display().to_string());
    sandbox.redact(server.directory().display(), "DIR");
    for number in 0..1_024 {
        let line = format!("{{\"v\":1,\"do\":\"pause\",\"pattern\":\"a{number}\",\"for_ms\":31622400000}}\n");
        assert!(ask(&path, line.as_bytes()).contains("\"ok\""));
    }
    sandbox.comment("there are 1024 pauses");
    sandbox.run(&["pause", "batch-*", "--for", "1h", "--socket", &socket]);
    sandbox.assert_unchanged("control_refused");
}

#[test]
fn no_server() {
    let mut sandbox = Sandbox::new();
    sandbox.write("file", "");
    drop(UnixListener::bind(sandbox.path("left.sock.control")).unwrap());
    let _datagrams = std::os::unix::net::UnixDatagram::bind(sandbox.path("other.sock.control")).unwrap();
    sandbox.run_each(&[
        &["pauses"],
        &["pause", "batch-*", "--for", "1h"],
        &["resume", "batch-*"],
        &["pauses", "--socket", "left.sock"],
        &["pauses", "--socket", "other.sock"],
        &["pauses", "--control-socket", "file"],
        &["pauses", "--control-socket", "file/below"],
        &["pauses", "--control-socket", &"x".repeat(108)],
        &["pauses", "--control-socket", "none"],
        &["pauses", "--socket", "none"],
    ]);
    let run = sandbox.path("run").display().to_string();
    sandbox.redact(sandbox.path("").display(), "DIR/");
    sandbox.run_with(&[("VARTA_SOCKET", ""), ("RUNTIME_DIRECTORY", &run)], &["pauses"]);
    sandbox.assert_unchanged("control_no_server");
}

#[test]
fn malformed_answers() {
    let mut sandbox = Sandbox::new();
    let listener = UnixListener::bind(sandbox.path("varta.sock.control")).unwrap();
    let long = format!("{}\n", "x".repeat((4 << 20) + 1));
    let answers = [
        "",
        "{",
        "no answer\n",
        "[]\n",
        "{}\n",
        "{\"v\":2,\"outcome\":\"ok\"}\n",
        "{\"v\":1}\n",
        "{\"v\":1,\"outcome\":\"perhaps\"}\n",
        "{\"v\":1,\"outcome\":\"refused\"}\n",
        "{\"v\":1,\"outcome\":\"refused\",\"error\":\"red \\u001b[31m\\nbell \\u0007\"}\n",
        "{\"v\":1,\"outcome\":\"malformed\",\"error\":1}\n",
        "{\"v\":1,\"outcome\":\"ok\",\"pauses\":{}}\n",
        "{\"v\":1,\"outcome\":\"ok\",\"kept\":1}\n",
        "{\"v\":1,\"outcome\":\"ok\",\"pauses\":[1]}\n",
        "{\"v\":1,\"outcome\":\"ok\",\"pauses\":[{}]}\n",
        "{\"v\":1,\"outcome\":\"ok\",\"pauses\":[{\"pattern\":\"a\",\"by\":\"nobody\"}]}\n",
        "{\"v\":1,\"outcome\":\"ok\",\"pauses\":[{\"pattern\":\"a\",\"by\":\"user\",\"uid\":4294967296}]}\n",
        "{\"v\":1,\"outcome\":\"ok\",\"pauses\":[{\"pattern\":\"a\",\"by\":\"configuration\"}]}\n",
        "{\"v\":1,\"outcome\":\"ok\",\"pauses\":[{\"pattern\":\"a\",\"by\":\"configuration\",\"since\":\"now\"}]}\n",
    ];
    for answer in answers.into_iter().chain([&long[..]]) {
        thread::scope(|scope| {
            scope.spawn(|| {
                let (stream, _) = listener.accept().unwrap();
                BufReader::new(&stream).read_line(&mut String::new()).unwrap();
                // A client does not read an answer that is too long to its end.
                let written = (&stream).write_all(answer.as_bytes());
                assert!(written.is_ok() || answer.len() == long.len(), "{written:?}");
            });
            let shown = if answer.len() > 200 { "(more than 4 MiB)" } else { answer.trim_end() };
            sandbox.add(&format!("> {shown}\n"));
            sandbox.run(&["pauses"]);
        });
    }
    sandbox.assert_unchanged("control_answers");
}

#[test]
fn another_user() {
    if sys::user() != 0 {
        skip("only root can ask as another user");
        return;
    }
    let server = Server::start(Options::new().open_to_all());
    let path = server.directory().join("varta.sock.control");
    let mut sandbox = Sandbox::new();
    sandbox.chmod("", 0o755);
    sandbox.redact(server.directory().display(), "DIR");
    sandbox.run_as(NOBODY);
    if !sandbox.command(&["--version"]).output().is_ok_and(|output| output.status.success()) {
        skip("the program lies where only root can run it");
        return;
    }
    let socket = server.socket().display().to_string();
    sandbox.comment("the socket is its owner's alone");
    sandbox.run(&["pauses", "--socket", &socket]);
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    sandbox.comment("the socket was opened to all");
    sandbox.run(&["pauses", "--socket", &socket]);
    // The server answers without a request; one that it leaves unread would reset the connection.
    sandbox.add(&sys::as_user(NOBODY, || ask(&path, b"")).unwrap());
    sandbox.assert_unchanged("control_another_user");
}

//! Refusals of files: secrets, certificates, the state directory, the events file.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, chown, symlink};
use std::path::Path;

use varta_integration_tests::foreign::skip;
use varta_integration_tests::{
    ANOTHER_KEY, MASTER_KEY, Options, SHARED_KEY, Server, Signal, run_to_its_end, sys,
};

use super::sandbox::Sandbox;

/// The user `nobody`, which has no rights anywhere.
const NOBODY: u32 = 65_534;
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn secrets() {
    let mut sandbox = Sandbox::new();
    let key = |number: usize| format!("{number:064x}\n");
    for (name, content) in [
        ("sound", format!("{SHARED_KEY}\n")),
        ("open", format!("{SHARED_KEY}\n")),
        ("empty", "# no key yet\n".to_owned()),
        ("short", SHARED_KEY[1..].to_owned()),
        ("wrong", format!("# the key\n{}x\n", &SHARED_KEY[1..])),
        ("two", format!("{SHARED_KEY}\n{ANOTHER_KEY}\n")),
        ("seventeen", (0..17).map(key).collect()),
        ("hundred", (0..100).map(key).collect()),
        ("long", "# ".repeat(40_000)),
        ("token-short", "0123456789".to_owned()),
        ("token-two-lines", format!("{TOKEN}\n{TOKEN}\n")),
        ("token-20", "0123456789abcdef0123".to_owned()),
    ] {
        sandbox.write(name, content);
    }
    sandbox.write("binary", b"\xff\xfe");
    sandbox.chmod("open", 0o640);
    symlink("sound", sandbox.path("link")).unwrap();
    fs::create_dir(sandbox.path("directory")).unwrap();
    let secure = ["--secure-udp", "127.0.0.1:0"];
    let keys = ["absent", "open", "link", "directory", "empty", "short", "wrong", "long", "binary"];
    for name in keys.iter().chain(&["two"]) {
        sandbox.run(&[&secure[..], &["--key-file", name]].concat());
    }
    for option in ["--accepted-key-file", "--master-key-file"] {
        for name in keys.iter().chain(&["seventeen", "hundred"]) {
            sandbox.run(&[&secure[..], &[option, name]].concat());
        }
    }
    sandbox.comment("one key beside as many as there may be");
    sandbox.write("sixteen", (0..16).map(key).collect::<String>());
    sandbox.run(&[&secure[..], &["--key-file", "sound", "--accepted-key-file", "sixteen"]].concat());
    for name in ["absent", "open", "link", "directory", "long", "binary", "token-short", "token-two-lines"] {
        sandbox.run(&["--metrics-token-file", name]);
    }
    for name in ["absent", "open", "token-short"] {
        sandbox.run(&["--webhook", "http://localhost/", "--webhook-key-file", name]);
    }
    for name in ["absent", "open", "token-short", "token-20"] {
        sandbox.run(&["--recovery-exec", "true", "--audit-log", "audit.log", "--audit-key-file", name]);
    }
    let transcript = sandbox.transcript();
    for secret in [&SHARED_KEY[1..9], &MASTER_KEY[1..9], &TOKEN[..10]] {
        assert!(!transcript.contains(secret), "a secret is repeated in {transcript}");
    }
    sandbox.assert_unchanged("files_secrets");
}

#[test]
fn certificates() {
    let mut sandbox = Sandbox::new();
    sandbox.write("empty", "");
    sandbox.write("text", "no certificate\n");
    sandbox.write("torn", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    sandbox.write("no-base64", "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n");
    sandbox.write("no-certificate", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
    sandbox.write("key", "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n");
    sandbox.write("long", "# ".repeat(9 << 20));
    fs::create_dir(sandbox.path("directory")).unwrap();
    let names =
        ["absent", "directory", "empty", "text", "torn", "no-base64", "no-certificate", "key", "long"];
    for name in names {
        sandbox.run(&["--webhook", "https://localhost/", "--alert-ca-file", name]);
    }
    sandbox.assert_unchanged("files_certificates");
}

/// Starts a server that locks the file or directory at `path`.
fn start(option: &str, path: &Path) -> Server {
    Server::start(Options::new().args([option.as_ref(), path.as_os_str()]))
}

#[test]
fn state_directories() {
    let mut sandbox = Sandbox::new();
    sandbox.write("file", "");
    for name in ["open", "lock-is-a-link", "database-is-a-link", "database-is-a-directory"] {
        fs::create_dir(sandbox.path(name)).unwrap();
    }
    sandbox.chmod("open", 0o777);
    symlink("nowhere", sandbox.path("lock-is-a-link/varta.lock")).unwrap();
    symlink("nowhere", sandbox.path("database-is-a-link/varta.db")).unwrap();
    fs::create_dir(sandbox.path("database-is-a-directory/varta.db")).unwrap();
    let names =
        ["file", "file/below", "open", "lock-is-a-link", "database-is-a-link", "database-is-a-directory"];
    for name in names {
        sandbox.run(&["--state-dir", name]);
    }

    let server = start("--state-dir", &sandbox.path("used"));
    sandbox.redact(server.pid(), "PID");
    sandbox.comment("another server uses it");
    sandbox.run(&["--state-dir", "used"]);
    sandbox.comment("another server uses it, and does not say which");
    fs::write(sandbox.path("used/varta.lock"), "").unwrap();
    sandbox.run(&["--state-dir", "used"]);
    drop(server);

    let mut server = start("--state-dir", &sandbox.path("newer"));
    server.signal(Signal::Terminate);
    assert_eq!(server.wait().code(), Some(0));
    // `user_version` of SQLite's header.
    let database = File::options().write(true).open(sandbox.path("newer/varta.db")).unwrap();
    database.write_all_at(&99_u32.to_be_bytes(), 60).unwrap();
    sandbox.run(&["--state-dir", "newer"]);
    sandbox.assert_unchanged("files_state");
}

#[test]
fn events_files() {
    let mut sandbox = Sandbox::new();
    sandbox.write("file", "");
    fs::create_dir(sandbox.path("directory")).unwrap();
    symlink("file", sandbox.path("link")).unwrap();
    nix::unistd::mkfifo(&sandbox.path("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    for name in ["directory", "link", "pipe", "file/below", "link/there"] {
        sandbox.run(&["--events-file", name]);
    }
    let _server = start("--events-file", &sandbox.path("used"));
    sandbox.run(&["--events-file", "used"]);
    sandbox.assert_unchanged("files_events");
}

#[test]
fn files_without_permission() {
    let mut sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("closed")).unwrap();
    fs::create_dir(sandbox.path("closed/below")).unwrap();
    for name in ["varta.toml", "key", "recording", "audit.log", "audit.log.head"] {
        sandbox.write(name, "");
        sandbox.chmod(name, 0);
    }
    sandbox.chmod("closed", 0);
    if sys::user() == 0 {
        // Permissions do not bind root, so another user runs the program, in a directory of its own.
        for name in ["", "closed", "varta.toml", "key", "recording", "audit.log", "audit.log.head"] {
            chown(sandbox.path(name), Some(NOBODY), None).unwrap();
        }
        sandbox.run_as(NOBODY);
        let mut trial = sandbox.command(&["--version"]);
        if !trial.output().is_ok_and(|output| output.status.success()) {
            skip("the program lies where only root can run it");
            return;
        }
    }
    sandbox.run_each(&[
        &["--config", "varta.toml"],
        &["--socket", "closed/varta.sock"],
        &["--state-dir", "closed/state"],
        &["--events-file", "closed/events"],
        &["--record", "closed/recording"],
        &["--audit-log", "closed/audit.log", "--recovery-exec", "true"],
        &["--secure-udp", "127.0.0.1:0", "--key-file", "key"],
        &["--metrics-token-file", "key"],
        &["--webhook", "https://localhost/", "--alert-ca-file", "key"],
        &["replay", "recording"],
        &["audit", "verify", "audit.log"],
        &["pauses", "--control-socket", "closed/control.sock"],
    ]);
    sandbox.chmod("closed", 0o700);
    sandbox.assert_unchanged("files_without_permission");
}

#[test]
fn files_of_another_user() {
    if sys::user() != 0 {
        skip("only root can give files away");
        return;
    }
    let mut sandbox = Sandbox::new();
    for name in ["varta.toml", "key", "audit.log", "audit.log.head", "other.log"] {
        sandbox.write(name, format!("# {SHARED_KEY}\n"));
    }
    fs::create_dir(sandbox.path("state")).unwrap();
    sandbox.chmod("state", 0o700);
    sandbox.write("varta.toml", "[[rule]]\nname = \"\"");
    for name in ["varta.toml", "key", "audit.log", "audit.log.head", "other.log", "state"] {
        chown(sandbox.path(name), Some(7), None).unwrap();
    }
    sandbox.run_each(&[
        &["--secure-udp", "127.0.0.1:0", "--key-file", "key"],
        &["--metrics-token-file", "key"],
        &["--state-dir", "state"],
        // Such a log is told and keeps no server from starting: the recording, which is there, does.
        &["--audit-log", "audit.log", "--recovery-exec", "true", "--record", "key"],
        &["--audit-log", "other.log", "--recovery-exec", "true", "--record", "key"],
    ]);
    sandbox.write("varta.toml", "max-agents = 0");
    sandbox.run(&["--log-format", "text", "--config", "varta.toml"]);
    sandbox.comment("and of what everybody may write to");
    sandbox.chmod("varta.toml", 0o666);
    sandbox.run(&["--log-format", "text", "--config", "varta.toml"]);
    let transcript = super::running::without_times(&sandbox.transcript());
    super::sandbox::assert_unchanged("files_of_another_user", &transcript);
}

#[test]
fn a_full_standard_output() {
    let mut sandbox = Sandbox::new();
    sandbox.write("audit.log", "");
    let arguments = ["audit", "verify", "audit.log", "--without-head"];
    let mut command = sandbox.command(&arguments);
    command.stdout(File::options().write(true).open("/dev/full").unwrap());
    let output = command.output().unwrap();
    sandbox.add_prompt("", &arguments);
    sandbox.add(&String::from_utf8(output.stderr).unwrap());
    sandbox.add(&format!("[exit status {}]\n", output.status.code().unwrap()));
    let ended = run_to_its_end(sandbox.command(&arguments));
    assert_eq!(ended.status.code(), Some(1));
    sandbox.assert_unchanged("standard_output");
}

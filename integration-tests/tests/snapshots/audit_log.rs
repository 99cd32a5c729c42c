//! Refusals of audit logs by a server and by `varta-server audit verify`.

use std::fmt::Write as _;
use std::fs;

use ring::digest;
use varta_integration_tests::{Options, Server};

use super::sandbox::Sandbox;

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn seal(body: &str) -> String {
    let hash = digest::digest(&digest::SHA256, body.as_bytes());
    hash.as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Records of a log without a key, one a line, as docs/AUDIT.md has them. Logs of different years are
/// different logs. The third record begins a file.
fn records(year: u32, count: u32) -> Vec<String> {
    let mut prev = "0".repeat(64);
    let record = |seq| {
        let event = match seq {
            1 => "\"log_started\",\"format\":1,\"seal\":\"sha256\"".to_owned(),
            3 => "\"log_continued\",\"format\":1,\"seal\":\"sha256\"".to_owned(),
            _ => format!("\"command_ended\",\"exit_code\":{seq}"),
        };
        let body = format!(
            "{{\"seq\":{seq},\"at\":\"{year}-01-01T00:00:00.000Z\",\"event\":{event},\"prev\":\"{prev}\""
        );
        let hash = seal(&body);
        prev.clone_from(&hash);
        format!("{body},\"hash\":\"{hash}\"}}\n")
    };
    (1..=count).map(record).collect()
}

/// The head of a log that ends with this record.
fn head(seq: u32, record: &str) -> String {
    let hash = &record[record.len() - 67..record.len() - 3];
    let body = format!("{{\"seq\":{seq},\"last\":\"{hash}\"");
    let line = format!("{body},\"hash\":\"{}\"}}", seal(&body));
    format!("{line:191}\n")
}

/// Options with which a server reads its audit log and then ends: it writes no recording over a file. A log that
/// cannot be continued is told before, and does not keep it from starting.
const ENDS_AFTERWARDS: [&str; 2] = ["--record", "there"];

/// Verifies `audit.log`, and starts a server that is to continue it.
fn verify_and_serve(sandbox: &mut Sandbox, what: &str, log: &str, head: &str) {
    sandbox.comment(what);
    sandbox.write("audit.log", log);
    sandbox.write("audit.log.head", head);
    sandbox.run(&["audit", "verify", "audit.log"]);
    sandbox.write("there", "");
    sandbox.run(&[&["--audit-log", "audit.log", "--recovery-exec", "true"][..], &ENDS_AFTERWARDS].concat());
}

#[test]
fn broken_logs() {
    let mut sandbox = Sandbox::new();
    let (ours, theirs) = (records(2026, 4), records(2025, 4));
    let (log, end) = (ours.concat(), head(4, &ours[3]));
    let changed = log.replace("\"exit_code\":2", "\"exit_code\":0");
    let without_third = [&ours[0][..], &ours[1], &ours[3]].concat();
    let repeated = [&log[..], &ours[1]].concat();
    let two_logs = [&ours[0][..], &theirs[1], &ours[2], &ours[3]].concat();
    let noise_inside = [&ours[0][..], "noise\n", &ours[1]].concat();
    let long_line = [&log[..], &"x".repeat(70_000), "\n"].concat();
    for (what, log, end) in [
        ("a record was changed", &changed[..], &end[..]),
        ("a record was removed", &without_third, &end),
        (
            "a record comes again, and one more behind it",
            &[&repeated[..], &ours[2]].concat(),
            &head(5, &ours[3]),
        ),
        ("a record of another log", &two_logs, &end),
        ("a line that is no record", &noise_inside, &end),
        ("a line that is too long", &long_line, &head(5, &ours[3])),
        ("the beginning was cut off", &log[ours[0].len()..], &end),
        ("the end was cut off", &log[..log.len() - ours[3].len()], &end),
        ("the end was cut off within a record", &log[..log.len() - 9], &end),
        ("all was cut off", "", &end),
        ("the head was emptied", &log, ""),
        ("the head was changed", &log, &end.replace("\"seq\":4", "\"seq\":3")),
        ("the head is of another log", &log, &head(4, &theirs[3])),
        ("the head is of an older record", &log, &head(4, &ours[2])),
        ("the file never was a log", "127.0.0.1 localhost\n", ""),
    ] {
        verify_and_serve(&mut sandbox, what, log, end);
    }
    sandbox.assert_unchanged("audit_broken");
}

#[test]
fn findings_of_verify() {
    let mut sandbox = Sandbox::new();
    let ours = records(2026, 4);
    let (log, end) = (ours.concat(), head(4, &ours[3]));
    sandbox.write("audit.log", &log);
    sandbox.write("audit.log.head", &end);
    sandbox.write("key", KEY);
    sandbox.write("alone.log", &log);
    sandbox.write("empty.log", "");
    fs::create_dir(sandbox.path("directory")).unwrap();
    let last = format!("4:{}", &ours[3][ours[3].len() - 67..ours[3].len() - 3]);
    let no_hash = "0".repeat(64);
    sandbox.run_each(&[
        &["audit", "verify", "audit.log"],
        &["audit", "verify", "audit.log", "--json"],
        &["audit", "verify", "audit.log", "--expect-last", &last, "--from-start"],
        &["audit", "verify", "audit.log", "--expect-last", &format!("4:{no_hash}")],
        &["audit", "verify", "audit.log", "--expect-last", &format!("9:{no_hash}")],
        &["audit", "verify", "audit.log", "--key-file", "key"],
        &["audit", "verify", "alone.log"],
        &["audit", "verify", "alone.log", "--without-head"],
        &["audit", "verify", "empty.log", "--without-head"],
        &["audit", "verify", "absent.log"],
        &["audit", "verify", "absent.log", "--without-head"],
        &["audit", "verify", "directory", "--without-head"],
        &["audit", "verify", "audit.log", "--key-file", "absent"],
        &["audit", "verify", "audit.log", "alone.log"],
    ]);
    sandbox.comment("a log of which only the later files are there");
    let (first, later) = ours.split_at(2);
    let continued = later.concat();
    sandbox.write("later.log", continued);
    sandbox.run_each(&[
        &["audit", "verify", "later.log", "--without-head"],
        &["audit", "verify", "later.log", "--without-head", "--from-start"],
        &["audit", "verify", "later.log", "--without-head", "--expect-last", &format!("1:{no_hash}")],
        &["audit", "verify", "alone.log", "--without-head", "--key-file", "key"],
    ]);
    let mut body = first[1].clone();
    body.truncate(body.len() - 1);
    sandbox.write("unfinished.log", [&first[0][..], &body].concat());
    sandbox.run(&["audit", "verify", "unfinished.log", "--without-head", "--json"]);
    sandbox.assert_unchanged("audit_verify");
}

#[test]
fn files_that_cannot_be_used() {
    let mut sandbox = Sandbox::new();
    let ours = records(2026, 1);
    fs::create_dir(sandbox.path("directory")).unwrap();
    fs::create_dir(sandbox.path("head-is-a-directory.head")).unwrap();
    std::os::unix::fs::symlink("nowhere", sandbox.path("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", sandbox.path("head-is-a-link.head")).unwrap();
    for name in ["open", "head-is-open"] {
        sandbox.write(name, &ours[0]);
        sandbox.write(&format!("{name}.head"), head(1, &ours[0]));
    }
    sandbox.chmod("open", 0o666);
    sandbox.chmod("head-is-open.head", 0o666);
    sandbox.write("file", "");
    sandbox.write("there", "");
    let log = |name| [&["--recovery-exec", "true", "--audit-log", name][..], &ENDS_AFTERWARDS].concat();
    for name in [
        "directory",
        "link",
        "head-is-a-directory",
        "head-is-a-link",
        "open",
        "head-is-open",
        "file/below",
        "link/there",
    ] {
        sandbox.run(&log(name));
    }
    let path = sandbox.path("used");
    let options = Options::from(["--recovery-exec", "true"]);
    let _server = Server::start(options.args(["--audit-log".as_ref(), path.as_os_str()]));
    sandbox.run(&log("used"));
    sandbox.assert_unchanged("audit_not_usable");
}

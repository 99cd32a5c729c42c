//! `varta-server audit verify`, on logs that were written here in the form of docs/AUDIT.md.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ring::{digest, hmac};
use serde_json::Value;
use tempfile::TempDir;
use varta_integration_tests::{Ended, run_to_its_end, server_command};

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A log that this test wrote.
struct Log {
    directory: TempDir,
    is_keyed: bool,
    seq: u64,
    last: String,
}

impl Log {
    /// A log of two files: five records in `audit.log.1` and five in `audit.log`.
    fn new(is_keyed: bool) -> Self {
        let directory = tempfile::Builder::new().prefix("varta-it-").tempdir().unwrap();
        let mut log = Log { directory, is_keyed, seq: 0, last: "0".repeat(64) };
        let key = log.key();
        fs::write(&key, format!("{KEY}\n")).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        for (file, first) in [("audit.log.1", "log_started"), ("audit.log", "log_continued")] {
            let mut text = log.record(first, ",\"format\":1");
            for number in 0..4 {
                text +=
                    &log.record("command_ended", &format!(",\"agent\":\"billing\",\"exit_code\":{number}"));
            }
            fs::write(log.directory.path().join(file), text).unwrap();
        }
        let body = format!("{{\"seq\":{},\"last\":\"{}\"", log.seq, log.last);
        let head = format!("{body},\"hash\":\"{}\"}}", log.seal(&body));
        fs::write(log.directory.path().join("audit.log.head"), format!("{head:191}\n")).unwrap();
        log
    }

    fn seal(&self, body: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
        let hash = match self.is_keyed {
            true => hmac::sign(&key, body.as_bytes()).as_ref().to_vec(),
            false => digest::digest(&digest::SHA256, body.as_bytes()).as_ref().to_vec(),
        };
        hash.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    fn record(&mut self, event: &str, fields: &str) -> String {
        self.seq += 1;
        let at = format!("2026-11-23T16:00:{:02}.000Z", self.seq);
        let (seq, prev) = (self.seq, &self.last);
        let body =
            format!("{{\"seq\":{seq},\"at\":\"{at}\",\"event\":\"{event}\"{fields},\"prev\":\"{prev}\"");
        self.last = self.seal(&body);
        format!("{body},\"hash\":\"{}\"}}\n", self.last)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("audit.log")
    }

    fn key(&self) -> PathBuf {
        self.directory.path().join("audit.key")
    }

    fn change(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.path()).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(self.path(), text.replace(from, to)).unwrap();
    }

    /// Runs the program. It does not read the variables that are for a server.
    fn verify(&self, paths: &[&Path], arguments: &[&str]) -> Ended {
        let mut command = server_command();
        command
            .env("VARTA_CONFIG", "/nowhere")
            .env("VARTA_AUDIT_LOG", "/nowhere")
            .env("VARTA_AUDIT_KEY_FILE", "/nowhere");
        command.args(["audit", "verify"]).args(paths).args(arguments);
        if self.is_keyed {
            command.arg("--key-file").arg(self.key());
        }
        run_to_its_end(command)
    }

    #[track_caller]
    fn json(&self, arguments: &[&str], status: i32) -> Value {
        let ended = self.verify(&[&self.path()], &[&["--json"], arguments].concat());
        assert_eq!(ended.status.code(), Some(status), "{}", ended.stderr);
        assert_eq!(ended.stdout.lines().count(), 1, "{}", ended.stdout);
        serde_json::from_str(&ended.stdout).unwrap()
    }
}

#[test]
fn a_log_that_is_as_it_was_written_is_verified_and_its_last_hash_printed() {
    for is_keyed in [false, true] {
        let log = Log::new(is_keyed);
        let path = log.path();
        let older = log.directory.path().join("audit.log.1");
        let alone = log.verify(&[&path], &["--from-start"]);
        assert!(alone.status.success(), "{}", alone.stderr);
        assert!(alone.stdout.ends_with(&format!("\nlast        10:{}\n", log.last)), "{}", alone.stdout);
        assert!(
            alone.stdout.contains("10: 1 to 10, from 2026-11-23T16:00:01.000Z to 2026-11-23T16:00:10.000Z")
        );
        assert_eq!(alone.stdout.contains("without a key"), !is_keyed, "{}", alone.stdout);
        assert_eq!(log.verify(&[&older, &path], &[]).stdout, alone.stdout);

        let noted = format!("10:{}", log.last);
        let json = log.json(&["--expect-last", &noted], 0);
        assert_eq!(
            (&json["ok"], &json["records"], &json["expected_seq"]),
            (&true.into(), &10.into(), &10.into())
        );
        assert_eq!(json["last"]["hash"], log.last.as_str());

        // A part of it, when that is all that is wanted.
        fs::remove_file(&older).unwrap();
        let rest = log.verify(&[&path], &[]);
        assert!(
            rest.status.success() && rest.stdout.contains("begins at record 6; older records are not among")
        );
        assert_eq!(log.json(&["--from-start"], 1)["broken"]["fault"], "not_from_start");
        fs::remove_file(log.directory.path().join("audit.log.head")).unwrap();
        assert_eq!(log.json(&[], 1)["broken"]["fault"], "no_head");
        assert_eq!(log.json(&["--without-head"], 0)["head_seq"], Value::Null);
    }
}

#[test]
fn what_is_wrong_is_reported_with_file_line_and_record() {
    for is_keyed in [false, true] {
        let log = Log::new(is_keyed);
        log.change("\"exit_code\":2", "\"exit_code\":0");
        let ended = log.verify(&[&log.path()], &[]);
        assert_eq!(ended.status.code(), Some(1));
        let place = format!("{}: line 4, record 9: it was changed", log.path().display());
        assert!(ended.stderr.contains(&place), "{}", ended.stderr);
        assert!(
            ended.stdout.contains("\nbroken      ") && !ended.stdout.contains("\nlast "),
            "{}",
            ended.stdout
        );
        let json = log.json(&[], 1);
        let broken = &json["broken"];
        assert_eq!(
            (&broken["line"], &broken["seq"], &broken["fault"]),
            (&4.into(), &9.into(), &"changed".into())
        );
        assert_eq!((&json["ok"], &json["records"]), (&false.into(), &8.into()));
    }
    let log = Log::new(true);
    let text = fs::read_to_string(log.path()).unwrap();
    let cut = text.trim_end().rsplit_once('\n').unwrap().0;
    fs::write(log.path(), format!("{cut}\n")).unwrap();
    assert_eq!(log.json(&[], 1)["broken"]["fault"], "cut_off");
    fs::write(log.path(), cut).unwrap();
    assert_eq!(log.json(&[], 1)["broken"]["fault"], "torn");
    fs::write(log.path(), vec![b'x'; 1 << 20]).unwrap();
    assert_eq!(log.json(&[], 1)["broken"]["fault"], "too_long");
}

#[test]
fn what_cannot_be_verified_is_refused_by_name() {
    let log = Log::new(true);
    let nowhere = Path::new("/nowhere/audit.log");
    for path in [nowhere, log.directory.path()] {
        let ended = log.verify(&[path], &["--without-head"]);
        assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(1), ""), "{}", ended.stderr);
        assert!(ended.stderr.contains(path.to_str().unwrap()), "{}", ended.stderr);
    }
    // Something else that was taken for a log has no head either, and that is not what is wrong with it.
    let other = log.directory.path().join("other");
    for (text, fault) in
        [("log: a line\n", "this is no audit log"), ("no end", "no audit log"), ("", "no records")]
    {
        fs::write(&other, text).unwrap();
        let ended = log.verify(&[&other], &[]);
        assert_eq!(ended.status.code(), Some(1));
        assert!(ended.stderr.contains(fault) && !ended.stderr.contains(".head"), "{}", ended.stderr);
    }
    fs::remove_file(&other).unwrap();
    let ended = log.verify(&[&other], &[]);
    assert!(ended.stderr.contains("other: cannot be read: No such file"), "{}", ended.stderr);
    fs::set_permissions(log.key(), fs::Permissions::from_mode(0o644)).unwrap();
    let ended = log.verify(&[&log.path()], &[]);
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.stderr.contains("chmod 600"), "{}", ended.stderr);
    for arguments in [&["--expect-last", "10"][..], &["--expect-last", "x:y"]] {
        let ended = log.verify(&[&log.path()], arguments);
        assert_eq!(ended.status.code(), Some(2));
        assert!(ended.stderr.contains("SEQ:HASH"), "{}", ended.stderr);
    }
    assert_eq!(log.verify(&[], &[]).status.code(), Some(2), "without a file");
}

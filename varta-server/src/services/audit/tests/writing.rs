//! The audit log after a crash, on a full disk, and with a second server.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};

use crate::services::audit::options::AuditOptions;
use crate::services::audit::tests::*;

fn add(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// Cuts so many bytes off the end of a file.
fn cut(path: &Path, bytes: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - bytes).unwrap();
}

#[test]
fn the_chain_goes_on_through_restarts_and_from_file_to_file() {
    for is_keyed in [false, true] {
        let mut place = Place::new(is_keyed);
        place.options.keep = 2;
        let mut expected = 2;
        for _ in 0..3 {
            let mut log = place.open();
            for number in 0..20 {
                let seq = append(&mut log, number);
                // The record that begins a file has a number of its own.
                assert!(seq == expected || seq == expected + 1, "{seq}");
                expected = seq + 1;
            }
            log.sync().unwrap();
        }
        assert!(numbered(place.path(), 2).exists() && !numbered(place.path(), 3).exists());
        for path in [place.path().to_path_buf(), numbered(place.path(), 1), numbered(place.path(), 2)] {
            assert!(fs::metadata(&path).unwrap().len() <= AuditOptions::SMALLEST_LIMIT);
            assert_eq!(place.records(&path)[0]["event"], "log_continued");
        }
        let found = verify(&Files { from_start: false, ..place.files() }).unwrap();
        assert!(found.broken.is_none() && found.files.len() == 3, "{found}");
        assert_eq!(place.fault(), Some(ChainError::NotFromStart));
    }
}

#[test]
fn a_last_line_that_was_cut_off_anywhere_is_repaired_and_that_is_recorded() {
    let original = Place::new(true);
    let mut log = original.open();
    append(&mut log, 1);
    log.sync().unwrap();
    let whole = fs::metadata(original.path()).unwrap().len();
    append(&mut log, 2);
    drop(log);
    let (bytes, head) = (fs::read(original.path()).unwrap(), fs::read(original.head()).unwrap());
    let whole = usize::try_from(whole).unwrap();
    for length in whole..bytes.len() {
        let place = Place::new(true);
        fs::write(place.path(), &bytes[..length]).unwrap();
        fs::write(place.head(), &head).unwrap();
        let mut log = place.open();
        let torn = length - whole;
        let records = place.records(place.path());
        match torn {
            0 => assert_eq!(records.len(), 2),
            _ => assert_eq!(
                (&records[2]["event"], &records[2]["cut_bytes"]),
                (&"repaired".into(), &torn.into())
            ),
        }
        assert_eq!(append(&mut log, 3), if torn == 0 { 3 } else { 4 });
        log.sync().unwrap();
        place.assert_whole();
    }
}

#[test]
fn lines_that_are_no_records_are_cut_off_unless_the_head_knows_them() {
    let place = Place::new(false);
    let mut log = place.open();
    append(&mut log, 1);
    log.sync().unwrap();
    drop(log);
    for garbage in ["garbage\n", "\n", "{\"seq\":3,\"at\":\"", "\0\0\0\0", "two\nlines\n"] {
        add(place.path(), garbage.as_bytes());
        drop(place.open());
        let records = place.records(place.path());
        assert_eq!(records.last().unwrap()["cut_bytes"], garbage.len());
        place.assert_whole();
    }
    cut(place.path(), 1);
    let said = place.refused();
    assert!(said.contains("records are missing at the end: there were 7"), "{said}");
    add(place.path(), b"\0\nmore\n");
    let said = place.refused();
    assert!(said.contains("audit.log: line 7: this is no record") && said.contains("aside"), "{said}");
}

#[test]
fn whatever_a_crash_leaves_of_records_that_were_not_synced_is_cut_off_and_that_is_recorded() {
    let original = Place::new(true);
    let mut log = original.open();
    append(&mut log, 1);
    log.sync().unwrap();
    let synced = usize::try_from(log.file().length()).unwrap();
    for number in 2..6 {
        append(&mut log, number);
    }
    drop(log);
    let (bytes, head) = (fs::read(original.path()).unwrap(), fs::read(original.head()).unwrap());
    let line = (bytes.len() - synced) / 4;
    // Zeros in the middle of a line, across lines, and up to the end.
    for zeros in [synced + 10..synced + 90, synced + line + 50..synced + 3 * line, synced + 1..bytes.len()] {
        let place = Place::new(true);
        let mut crashed = bytes.clone();
        crashed[zeros.clone()].fill(0);
        fs::write(place.path(), &crashed).unwrap();
        fs::write(place.head(), &head).unwrap();
        let mut log = place.open();
        let whole = if zeros.start < synced + line { synced } else { synced + line };
        let records = place.records(place.path());
        let repaired = records.last().unwrap();
        assert_eq!(
            (&repaired["event"], &repaired["cut_bytes"]),
            (&"repaired".into(), &(bytes.len() - whole).into())
        );
        append(&mut log, 6);
        log.sync().unwrap();
        drop(log);
        place.assert_whole();
        // A change before the synced end is no effect of a crash.
        let mut changed = fs::read(place.path()).unwrap();
        changed[synced - 40..synced].fill(0);
        fs::write(place.path(), &changed).unwrap();
        assert!(place.refused().contains("audit.log: line 2"));
        assert_eq!(fs::read(place.path()).unwrap(), changed);
    }
}

#[test]
fn a_file_that_begins_with_something_else_is_left_as_it_is() {
    let place = Place::new(true);
    let mut log = place.open();
    append(&mut log, 1);
    log.sync().unwrap();
    drop(log);
    fs::rename(place.path(), numbered(place.path(), 1)).unwrap();
    fs::write(place.path(), "somebody\nelse's\n").unwrap();
    let said = place.refused();
    assert!(said.contains("audit.log: line 1: this is no record"), "{said}");
    assert_eq!(fs::read_to_string(place.path()).unwrap(), "somebody\nelse's\n");
}

#[test]
fn a_log_that_is_not_what_was_written_keeps_the_server_from_starting() {
    let place = Place::new(true);
    let mut log = place.open();
    for number in 0..5 {
        append(&mut log, number);
    }
    log.sync().unwrap();
    drop(log);
    let (text, head) = (fs::read_to_string(place.path()).unwrap(), fs::read(place.head()).unwrap());
    let lines: Vec<_> = text.lines().collect();
    fs::write(place.path(), text.replace("\"number\":3", "\"number\":4")).unwrap();
    let said = place.refused();
    assert!(said.contains("audit.log: line 5, record 5: it was changed") && said.contains("aside"), "{said}");
    fs::write(place.path(), format!("{}\n", lines[..4].join("\n"))).unwrap();
    assert!(place.refused().contains("there were 6"), "{}", place.refused());
    fs::write(place.path(), [&lines[..2], &lines[3..]].concat().join("\n") + "\n").unwrap();
    assert!(place.refused().contains("line 3, record 4: records are missing before it: record 3"));
    fs::remove_file(place.path()).unwrap();
    assert!(place.refused().contains("there were 6"));
    assert!(!place.path().exists(), "nothing is written where a log was");

    fs::write(place.path(), &text).unwrap();
    fs::write(place.head(), "").unwrap();
    assert!(place.refused().contains("audit.log.head: is missing or empty"));
    assert_eq!(place.fault(), Some(ChainError::NoHead));
    fs::write(place.head(), "{}").unwrap();
    assert!(place.refused().contains("audit.log.head: was changed"));
    fs::write(place.head(), &head).unwrap();
    let keyless = AuditOptions { key_file: None, ..place.options.clone() };
    let said = AuditLog::open(&keyless).unwrap_err().to_string();
    assert!(said.contains("sealed with another key"), "{said}");
    assert_eq!(append(&mut place.open(), 7), 7);
}

#[test]
fn wherever_a_server_ends_while_it_begins_a_file_the_next_goes_on() {
    let original = Place::new(true);
    let mut log = original.open();
    append(&mut log, 1);
    log.sync().unwrap();
    let (bytes, head) = (fs::read(original.path()).unwrap(), fs::read(original.head()).unwrap());
    for present in [None, Some(""), Some("{\"seq\":3,\"at")] {
        let place = Place::new(true);
        fs::write(numbered(place.path(), 1), &bytes).unwrap();
        fs::write(place.head(), &head).unwrap();
        if let Some(text) = present {
            fs::write(place.path(), text).unwrap();
        }
        let mut log = place.open();
        append(&mut log, 2);
        log.sync().unwrap();
        assert_eq!(place.records(place.path())[0]["event"], "log_continued");
        assert_eq!(place.assert_whole().files.len(), 2);
    }
}

#[test]
fn two_servers_cannot_write_one_log() {
    let place = Place::new(false);
    let first = place.open();
    let said = place.refused();
    assert!(said.contains("another server writes to this audit log"), "{said}");
    drop(first);
    place.open();
}

#[test]
fn what_is_no_file_of_ours_is_refused_by_name() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    for name in ["audit.log", "audit.log.head"] {
        let place = Place::new(false);
        let path = place.directory.path().join(name);
        symlink(place.directory.path().join("elsewhere"), &path).unwrap();
        assert!(place.refused().starts_with(path.to_str().unwrap()));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(place.refused().starts_with(path.to_str().unwrap()));
        assert!(!place.directory.path().join("elsewhere").exists());
    }
    for text in ["db1\n", "db1", "one\ntwo\n"] {
        let place = Place::new(false);
        fs::write(place.path(), text).unwrap();
        place.refused();
        assert!(place.refused().starts_with(place.path().to_str().unwrap()));
        assert_eq!(fs::read_to_string(place.path()).unwrap(), text);
    }
    for name in ["audit.log", "audit.log.head"] {
        let place = Place::new(false);
        drop(place.open());
        let path = place.directory.path().join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
        let said = place.refused();
        assert!(said.starts_with(path.to_str().unwrap()) && said.contains("chmod go-w"), "{said}");
    }
}

#[test]
fn while_the_next_file_cannot_be_begun_the_present_one_goes_on() {
    let mut place = Place::new(false);
    place.options.keep = 1;
    let obstacle = numbered(place.path(), 1);
    let mut log = place.open();
    fs::create_dir(&obstacle).unwrap();
    for number in 0..30 {
        append(&mut log, number);
    }
    log.sync().unwrap();
    assert!(fs::metadata(place.path()).unwrap().len() > AuditOptions::SMALLEST_LIMIT);
    fs::remove_dir(&obstacle).unwrap();
    place.assert_whole();
    append(&mut log, 30);
    log.sync().unwrap();
    assert!(fs::metadata(place.path()).unwrap().len() < AuditOptions::SMALLEST_LIMIT);
    assert_eq!(place.assert_whole().files.len(), 2);
}

/// Set in a child process, because the limit holds for a whole process.
const CHILD: &str = "VARTA_TEST_AUDIT_LIMIT";

#[test]
fn a_disk_that_is_full_in_the_middle_of_a_line_leaves_whole_lines_and_the_chain_goes_on() {
    if env::var_os(CHILD).is_none() {
        let name = "services::audit::tests::writing::a_disk_that_is_full_in_the_middle_of_a_line_leaves_whole_lines_and_the_chain_goes_on";
        let child =
            Command::new(env::current_exe().unwrap()).args(["--exact", name]).env(CHILD, "1").output();
        let child = child.unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let mut ignored = SigSet::empty();
    ignored.add(Signal::SIGXFSZ);
    ignored.thread_block().unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    let place = Place::new(true);
    let mut log = place.open();
    append(&mut log, 1);
    log.sync().unwrap();
    let length = fs::metadata(place.path()).unwrap().len();
    // The disk is full after none, one and nearly all bytes of the next line.
    for room in [0, 1, 100, 200] {
        setrlimit(Resource::RLIMIT_FSIZE, length + room, hard).unwrap();
        let refused = log.append(at(2), "command_ended", fields(2)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EFBIG));
        assert_eq!(fs::metadata(place.path()).unwrap().len(), length);
    }
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    assert_eq!(append(&mut log, 3), 3);
    // The next file has no room either.
    while fs::metadata(place.path()).unwrap().len() + 300 < AuditOptions::SMALLEST_LIMIT {
        append(&mut log, 4);
    }
    setrlimit(Resource::RLIMIT_FSIZE, 100, hard).unwrap();
    for _ in 0..2 {
        log.append(at(5), "command_ended", fields(5)).unwrap_err();
        assert!(!numbered(place.path(), 1).exists());
    }
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    append(&mut log, 6);
    append(&mut log, 7);
    log.sync().unwrap();
    assert!(numbered(place.path(), 1).exists());
    place.assert_whole();
}

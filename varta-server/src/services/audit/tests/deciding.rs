//! An audit log that cannot be continued, and the decision to begin another.

use crate::base::error::Error;
use crate::metrics::Registry;
use crate::metrics::faults::Faults;
use crate::services::audit::guarded::GuardedLog;
use crate::services::audit::restart::{parse_reason, restart};
use crate::services::audit::tests::*;
use crate::services::audit::writer::RecordSink;

/// A log whose records were all removed.
fn emptied() -> Place {
    let place = Place::new(true);
    let mut log = place.open();
    append(&mut log, 1);
    log.sync().unwrap();
    fs::write(place.path(), "").unwrap();
    place
}

#[test]
fn a_log_that_was_emptied_is_a_fault_and_no_error_and_records_nothing_until_it_was_decided_to_begin_another()
{
    let place = emptied();
    let faults = Faults::new(&Registry::for_test());
    let mut log = GuardedLog::open(&place.options, &faults).unwrap();
    let (is_ready, said) = faults.report(true);
    assert!(is_ready && said.starts_with("audit: ") && said.contains("there were 2"), "{said}");
    assert!(said.contains("`varta-server audit restart`"), "{said}");
    for _ in 0..2 {
        let refused = log.append(at(2), "fine", Map::new()).unwrap_err().to_string();
        assert!(refused.contains("there were 2"), "{refused}");
        assert!(log.sync().is_err());
    }
    assert_eq!(fs::read(place.path()).unwrap(), b"");
    let key = place.options.key_file.as_deref();
    let aside = restart(place.path(), key, "logrotate has emptied it").unwrap();
    // The running server goes on with it.
    log.append(at(3), "fine", Map::new()).unwrap();
    log.sync().unwrap();
    assert_eq!(faults.report(true), (true, String::new()));
    let records = place.records(place.path());
    let events: Vec<_> = records.iter().map(|record| record["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["log_started", "restarted", "fine"]);
    assert_eq!(records[1]["why"], "logrotate has emptied it");
    assert_eq!(records[1]["uid"], nix::unistd::getuid().as_raw());
    assert_eq!(records[1]["moved_to"], aside.to_str().unwrap());
    assert!(records[1]["found"].as_str().unwrap().contains("there were 2"), "{}", records[1]);
    place.assert_whole();
}

#[test]
fn a_log_is_moved_aside_with_all_that_belongs_to_it() {
    let mut place = Place::new(true);
    place.options.keep = 0;
    let mut log = place.open();
    for number in 0..40 {
        append(&mut log, number);
    }
    log.sync().unwrap();
    let refused = restart(place.path(), None, "why not").unwrap_err().to_string();
    assert!(refused.contains("stop it first"), "{refused}");
    drop(log);
    let whole = place.assert_whole();
    let key = place.options.key_file.as_deref();
    let aside = restart(place.path(), key, "a new key").unwrap();
    let moved = verify(&Files { paths: vec![aside], ..place.files() }).unwrap();
    assert!(moved.broken.is_none(), "{moved}");
    assert_eq!((moved.records, moved.files.len()), (whole.records, whole.files.len()));
    assert_eq!(place.assert_whole().records, 2);
    let records = place.records(place.path());
    assert_eq!(records[1]["found"], "nothing is wrong with it");
    append(&mut place.open(), 1);
}

#[test]
fn what_was_interrupted_is_completed_by_the_next_call() {
    let place = emptied();
    let [new, new_head] =
        ["audit.log.new", "audit.log.new.head"].map(|name| place.directory.path().join(name));
    fs::write(&new, "half a record").unwrap();
    fs::write(&new_head, "").unwrap();
    // The log was moved aside, and the head not yet.
    fs::remove_file(place.path()).unwrap();
    restart(place.path(), place.options.key_file.as_deref(), "again").unwrap();
    append(&mut place.open(), 1);
    place.assert_whole();
    assert!(!new.exists() && !new_head.exists());
}

#[test]
fn there_must_be_a_log_and_a_reason() {
    let place = Place::new(false);
    let refused = restart(place.path(), None, "why").unwrap_err().to_string();
    assert!(refused.contains("there is no audit log"), "{refused}");
    assert_eq!(fs::read_dir(place.directory.path()).unwrap().count(), 0);
    assert_eq!(parse_reason("  because ").as_deref(), Ok("because"));
    for wrong in ["", "  ", "a\nb", &"x".repeat(501)] {
        assert!(parse_reason(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_mistake_in_the_options_and_another_server_are_still_errors() {
    let place = Place::new(false);
    let faults = Faults::new(&Registry::for_test());
    let _log = place.open();
    let refused = GuardedLog::open(&place.options, &faults).unwrap_err();
    assert!(matches!(refused, Error::File { .. }), "{refused}");
    let below = place.path().join("below");
    let refused = GuardedLog::open(&AuditOptions { path: below, ..place.options.clone() }, &faults);
    assert!(matches!(refused, Err(Error::File { .. })));
    assert_eq!(faults.report(true), (true, String::new()));
}

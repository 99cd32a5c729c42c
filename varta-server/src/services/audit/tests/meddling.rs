//! The audit log under interference: other programs move its files, and its disk fails.

use crate::base::files::append_log::testing::Disk;
use crate::services::audit::options::AuditOptions;
use crate::services::audit::tests::*;

#[test]
fn a_file_with_half_a_line_at_its_end_is_not_renamed() {
    let mut place = Place::new(false);
    place.options.keep = 2;
    let mut log = place.open();
    while log.file().length() + 300 < AuditOptions::SMALLEST_LIMIT {
        append(&mut log, 1);
    }
    (log.file().disk.takes, log.file().disk.refuses_cuts) = (Some(9), true);
    log.append(at(2), "fine", Map::new()).unwrap_err();
    log.file().disk.takes = None;
    for _ in 0..2 {
        log.append(at(2), "command_ended", fields(2)).unwrap_err();
        assert!(!numbered(place.path(), 1).exists());
    }
    log.file().disk.refuses_cuts = false;
    append(&mut log, 3);
    append(&mut log, 4);
    log.sync().unwrap();
    assert_eq!(place.assert_whole().files.len(), 2);
}

#[test]
fn a_file_that_was_moved_away_is_followed_by_another() {
    let place = Place::new(true);
    let mut log = place.open();
    append(&mut log, 1);
    let moved = place.directory.path().join("moved");
    fs::rename(place.path(), &moved).unwrap();
    append(&mut log, 2);
    log.sync().unwrap();
    append(&mut log, 3);
    log.sync().unwrap();
    assert_eq!(place.records(&moved).len(), 2);
    assert_eq!(place.records(place.path())[0]["event"], "log_continued");
    let paths = vec![moved, place.path().to_path_buf()];
    let found = verify(&Files { paths, ..place.files() }).unwrap();
    assert!(found.broken.is_none(), "{found}");
    assert_eq!(place.fault(), Some(ChainError::NotFromStart));
}

#[test]
fn an_empty_file_that_was_put_in_the_place_of_the_one_that_was_moved_is_used_and_no_other_is() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new(true);
    let mut log = place.open();
    append(&mut log, 1);
    fs::rename(place.path(), numbered(place.path(), 1)).unwrap();
    fs::write(place.path(), "somebody else's\n").unwrap();
    let said = log.sync().unwrap_err().to_string();
    assert!(said.contains("audit.log: was put in the place") && said.contains("not empty"), "{said}");
    assert_eq!(fs::read_to_string(place.path()).unwrap(), "somebody else's\n");
    fs::write(place.path(), "").unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o666)).unwrap();
    let said = log.sync().unwrap_err().to_string();
    assert!(said.contains("audit.log: others than") && said.contains("chmod go-w"), "{said}");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o640)).unwrap();
    log.sync().unwrap();
    append(&mut log, 2);
    log.sync().unwrap();
    assert_eq!(place.records(place.path()).len(), 2);
    assert_eq!(place.assert_whole().files.len(), 2);
}

#[test]
fn a_record_whose_file_was_removed_is_refused_and_the_next_is_in_a_file() {
    let place = Place::new(true);
    let mut log = place.open();
    let remove = || fs::remove_file(place.path()).unwrap();
    // Removal after a sync loses nothing that was not on the disk.
    remove();
    append(&mut log, 1);
    log.sync().unwrap();
    // Removal before a sync.
    append(&mut log, 2);
    remove();
    let said = log.sync().unwrap_err().to_string();
    assert!(said.contains("file was removed"), "{said}");
    // Removal between two records of one sync.
    append(&mut log, 3);
    remove();
    append(&mut log, 4);
    log.sync().unwrap_err();
    append(&mut log, 5);
    log.sync().unwrap();
    let records = place.records(place.path());
    assert_eq!((&records[0]["event"], records.len()), (&"log_continued".into(), 3));
    assert_eq!((&records[1]["number"], &records[2]["number"]), (&4.into(), &5.into()));
    drop(log);
    append(&mut place.open(), 6);
    assert_eq!(place.fault(), Some(ChainError::NotFromStart), "and nothing else");
    // The loss is also reported if no new file can be created.
    let mut log = place.open();
    append(&mut log, 7);
    remove();
    fs::create_dir(place.path()).unwrap();
    log.sync().unwrap_err();
    log.append(at(8), "fine", Map::new()).unwrap_err();
    fs::remove_dir(place.path()).unwrap();
    append(&mut log, 9);
    log.sync().unwrap();
}

#[test]
fn what_a_disk_has_refused_once_is_taken_back_and_never_vouched_for() {
    let place = Place::new(true);
    let mut log = place.open();
    append(&mut log, 1);
    log.sync().unwrap();
    for refuses_cuts in [false, true] {
        append(&mut log, 2);
        append(&mut log, 3);
        log.file().disk = Disk { refuses_syncs: true, refuses_cuts, ..Disk::default() };
        assert_eq!(log.sync().unwrap_err().raw_os_error(), Some(libc::EIO));
        // The kernel does not report the same failure twice.
        log.file().disk = Disk::default();
        log.sync().unwrap();
        let head: Value = serde_json::from_str(&fs::read_to_string(place.head()).unwrap()).unwrap();
        assert_eq!(head["seq"], 2);
    }
    assert_eq!(append(&mut log, 4), 3);
    log.sync().unwrap();
    let records = place.records(place.path());
    assert_eq!((records.len(), &records[2]["number"]), (3, &4.into()));
    place.assert_whole();
}

#[test]
fn what_a_disk_has_refused_while_the_next_file_was_begun_is_told_by_the_next_sync() {
    let place = Place::new(true);
    let mut log = place.open();
    while log.file().length() + 600 < AuditOptions::SMALLEST_LIMIT {
        append(&mut log, 1);
    }
    log.sync().unwrap();
    append(&mut log, 2);
    log.file().disk.refuses_syncs = true;
    append(&mut log, 3);
    log.file().disk.refuses_syncs = false;
    let said = log.sync().unwrap_err().to_string();
    assert!(said.contains("the disk did not take them"), "{said}");
    append(&mut log, 4);
    log.sync().unwrap();
    assert_eq!(place.assert_whole().files.len(), 2);
    let numbers: Vec<_> = [numbered(place.path(), 1), place.path().to_path_buf()]
        .iter()
        .flat_map(|path| place.records(path))
        .filter_map(|record| record["number"].as_u64())
        .filter(|number| *number > 1)
        .collect();
    assert_eq!(numbers, [3, 4]);
}

#[test]
fn a_head_that_was_moved_or_removed_is_made_anew_and_locked() {
    let place = Place::new(true);
    let mut log = place.open();
    append(&mut log, 1);
    log.sync().unwrap();
    fs::remove_file(place.head()).unwrap();
    log.sync().unwrap();
    place.assert_whole();
    let moved = place.directory.path().join("moved");
    fs::rename(place.head(), &moved).unwrap();
    append(&mut log, 2);
    log.sync().unwrap();
    assert_eq!(place.assert_whole().records, 3);
    assert!(place.refused().contains("another server writes to this audit log"));
    fs::rename(&moved, place.head()).unwrap();
    append(&mut log, 3);
    let said = log.sync().unwrap_err().to_string();
    assert!(said.contains("audit.log.head: was put in the place") && said.contains("not empty"), "{said}");
    fs::remove_file(place.head()).unwrap();
    std::os::unix::fs::symlink(&moved, place.head()).unwrap();
    let said = log.sync().unwrap_err().to_string();
    assert!(said.contains("audit.log.head: cannot be opened"), "{said}");
    // The state after a second server, which found no head and did not start.
    fs::remove_file(place.head()).unwrap();
    assert!(place.refused().contains("is missing or empty"));
    log.sync().unwrap();
    drop(log);
    append(&mut place.open(), 4);
    assert_eq!(place.assert_whole().records, 5);
}

#[test]
fn a_file_that_is_cut_off_to_nothing_is_gone_on_with_and_the_copy_before_it_completes_the_log() {
    let place = Place::new(true);
    let mut log = place.open();
    append(&mut log, 1);
    log.sync().unwrap();
    // As logrotate does it by `copytruncate`.
    fs::copy(place.path(), numbered(place.path(), 1)).unwrap();
    fs::OpenOptions::new().write(true).truncate(true).open(place.path()).unwrap();
    append(&mut log, 2);
    log.sync().unwrap();
    let records = place.records(place.path());
    let events: Vec<_> = records.iter().map(|record| record["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["log_continued", "cut_off", "command_ended"]);
    assert!(records[1]["bytes_before"].as_u64() > Some(0) && records[1]["bytes_left"] == 0);
    assert_eq!(place.assert_whole().files.len(), 2);
    drop(log);
    append(&mut place.open(), 3);
    place.assert_whole();
}

#[test]
fn a_file_that_is_cut_off_in_the_middle_is_kept_as_it_is_and_the_log_goes_on_in_the_next() {
    let place = Place::new(true);
    let mut log = place.open();
    append(&mut log, 1);
    log.sync().unwrap();
    append(&mut log, 2);
    let left = log.file().length() - 5;
    fs::OpenOptions::new().write(true).open(place.path()).unwrap().set_len(left).unwrap();
    let said = log.sync().unwrap_err().to_string();
    assert!(said.contains("records were lost"), "{said}");
    append(&mut log, 3);
    log.sync().unwrap();
    let older = numbered(place.path(), 1);
    assert_eq!(fs::metadata(&older).unwrap().len(), left);
    let events: Vec<_> = place.records(place.path()).iter().map(|record| record["event"].clone()).collect();
    assert_eq!(events, ["log_continued", "cut_off", "command_ended"]);
    assert!(matches!(place.fault(), Some(ChainError::Torn { .. })), "the rest of it is evidence");
    drop(log);
    append(&mut place.open(), 4);
}

//! Claims about the log that is being written: what others and a failing disk do to its files.

use super::*;

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
    assert_eq!(place.records(&moved).len(), 3);
    assert_eq!(place.records(place.path())[0]["event"], "log_continued");
    let paths = vec![moved, place.path().to_path_buf()];
    let found = verify(&Files { paths, ..place.files() }).unwrap();
    assert!(found.broken.is_none(), "{found}");
    assert_eq!(place.fault(), Some(Fault::NotFromStart));
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

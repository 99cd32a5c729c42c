//! Tests of append-only files: rotation, truncation, and failing writes.

use std::os::unix::fs::symlink;

use super::testing;
use super::*;

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn files_move_up_by_one_fill_a_gap_and_those_beyond_the_last_go() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    let other = ["f.01", "f.x", "f.0", "f.4294967296", "g.1"];
    for name in other {
        fs::write(directory.path().join(name), "").unwrap();
    }
    for text in ["a", "b", "c"] {
        fs::write(&path, text).unwrap();
        rotate(&path, 2).unwrap();
    }
    let read = |number| fs::read_to_string(numbered(&path, number)).unwrap();
    assert_eq!((read(1), read(2)), ("c".to_owned(), "b".to_owned()));
    assert_eq!(rotated(&path).unwrap(), [(1, numbered(&path, 1)), (2, numbered(&path, 2))]);
    fs::remove_file(numbered(&path, 1)).unwrap();
    fs::write(&path, "d").unwrap();
    rotate(&path, 0).unwrap();
    assert_eq!((read(1), read(2)), ("d".to_owned(), "b".to_owned()));
    fs::write(&path, "e").unwrap();
    rotate(&path, 1).unwrap();
    assert_eq!(read(1), "e");
    let mut expected = Vec::from(other.map(str::to_owned));
    expected.push("f.1".to_owned());
    expected.sort_unstable();
    assert_eq!(names(directory.path()), expected);
    assert!(rotate(&path, 1).is_err(), "there is nothing to be renamed");
}

#[test]
fn what_is_no_file_of_its_own_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("link");
    symlink(directory.path().join("elsewhere"), &link).unwrap();
    assert!(AppendFile::open(&link, 0o600).unwrap_err().to_string().contains("symlink"));
    assert!(AppendFile::open(Path::new("/dev/full"), 0o600).unwrap_err().to_string().contains("regular"));
    assert_eq!(names(directory.path()), ["link"]);
    assert!(AppendFile::open_existing(&directory.path().join("none")).unwrap().is_none());
}

#[test]
fn it_knows_when_it_was_moved_away_or_cut() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    let mut file = AppendFile::open(&path, 0o600).unwrap();
    file.append(b"one\ntwo\n").unwrap();
    assert_eq!((file.length(), file.is_at(&path).unwrap()), (8, true));
    OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    assert_eq!((file.is_at(&path).unwrap(), file.length()), (true, 0));
    fs::rename(&path, numbered(&path, 1)).unwrap();
    assert!(!file.is_at(&path).unwrap());
    fs::write(&path, "").unwrap();
    assert!(!file.is_at(&path).unwrap());
}

#[test]
fn what_is_left_of_a_line_is_cut_off_before_anything_else_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    let mut file = AppendFile::open(&path, 0o600).unwrap();
    file.append(b"one\n").unwrap();
    (file.disk.takes, file.disk.refuses_cuts) = (Some(2), true);
    file.append(b"two\n").unwrap_err();
    file.disk.takes = None;
    file.append(b"three\n").unwrap_err();
    file.mend().unwrap_err();
    assert_eq!((fs::read(&path).unwrap(), file.length()), (b"one\ntw".to_vec(), 4));
    file.disk.refuses_cuts = false;
    file.append(b"three\n").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"one\nthree\n");
}

#[test]
fn a_file_that_was_cut_just_now_is_not_filled_up_when_a_write_fails() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    let mut file = AppendFile::open(&path, 0o600).unwrap();
    file.append(b"one\ntwo\n").unwrap();
    let cut = || OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    cut();
    file.disk.takes = Some(2);
    file.append(b"three\n").unwrap_err();
    assert_eq!((fs::read(&path).unwrap(), file.length()), (Vec::new(), 0));
    file.disk = testing::Disk { takes: Some(2), refuses_cuts: true, ..testing::Disk::default() };
    file.append(b"three\n").unwrap_err();
    cut();
    file.disk = testing::Disk::default();
    file.append(b"four\n").unwrap();
    assert_eq!((fs::read(&path).unwrap(), file.length()), (b"four\n".to_vec(), 5));
}

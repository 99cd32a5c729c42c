//! Bounded reads of the kernel's small text files.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Reads at most `room.len()` bytes from the beginning of a file; `None` when it cannot be read.
///
/// Also `None` if the process exits meanwhile, which makes the read of its file fail.
pub(crate) fn read_some(path: impl AsRef<Path>, room: &mut [u8]) -> Option<&[u8]> {
    let mut file = File::open(path).ok()?;
    let mut length = 0;
    while length < room.len() {
        match file.read(&mut room[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some(&room[..length])
}

/// Reads an open file anew from its beginning, with a single call, which returns all of a file of less than a
/// page; `None` when it cannot be read, as after the removal of its cgroup.
pub(crate) fn read_again<'r>(file: &File, room: &'r mut [u8]) -> Option<&'r [u8]> {
    loop {
        match file.read_at(room, 0) {
            Ok(length) => return Some(&room[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_is_read_from_its_beginning_each_time() {
        let file = File::open("/proc/self/stat").unwrap();
        let mut room = [0; 2048];
        for _ in 0..2 {
            assert!(
                read_again(&file, &mut room)
                    .unwrap()
                    .starts_with(format!("{} ", std::process::id()).as_bytes())
            );
        }
    }

    #[test]
    fn no_more_is_taken_than_there_is_room_for() {
        let mut room = [0; 5];
        assert_eq!(read_some("/dev/zero", &mut room), Some(&[0; 5][..]));
        assert_eq!(read_some("/dev/null", &mut room), Some(&[][..]));
        assert_eq!(read_some("/proc/none", &mut room), None);
    }
}

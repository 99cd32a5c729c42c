//! Reads files with private keys of other programs and with passwords, by the rule of PostgreSQL: what others can
//! read, or a group that root did not choose, is no secret.
//!
//! A symlink is followed, because programs that renew certificates, and secrets of containers, are used through
//! one; what counts is the file at its end.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::base::files::bounded_read::{self, ReadError, Symlink, is_ours_or_roots};

/// Reads a file of at most `max_len` bytes, which belongs to this server's user or root, and which nobody else can
/// read but a group if it is root's. What was read is wiped when it is dropped.
///
/// # Errors
///
/// What is wrong with the file, and what to do. It says no word of what is in it.
pub(crate) fn read(path: &Path, max_len: usize) -> Result<Zeroizing<Vec<u8>>, String> {
    let (file, metadata) = bounded_read::open(path, Symlink::Followed).map_err(|error| error.to_string())?;
    if !is_ours_or_roots(&metadata) {
        return Err(ReadError::ForeignOwner { uid: metadata.uid() }.to_string());
    }
    let others = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    let mode = metadata.mode() & 0o7777;
    if mode & others != 0 {
        return Err(format!("is open to others (mode {mode:04o}); chmod 600 it"));
    }
    // One byte more than there may be, at once: a buffer that grows leaves copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(max_len + 1));
    let read = file.take(max_len as u64 + 1).read_to_end(&mut content);
    read.map_err(|error| ReadError::Io(error).to_string())?;
    if content.len() > max_len {
        return Err(ReadError::TooLong { max_len: max_len as u64 }.to_string());
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    const MAX_LEN: usize = 10;

    fn file(text: &str, mode: u32) -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    #[test]
    fn a_file_that_is_closed_to_others_is_read_also_through_a_link() {
        let (directory, path) = file("0123456789", 0o400);
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        for path in [path, link] {
            assert_eq!(read(&path, MAX_LEN).unwrap().as_slice(), b"0123456789");
        }
    }

    #[test]
    fn a_file_that_others_can_read_or_write_is_refused() {
        for mode in [0o604, 0o602, 0o620, 0o644, 0o660] {
            let (_directory, path) = file("x", mode);
            let fault = read(&path, MAX_LEN).unwrap_err();
            assert_eq!(fault, format!("is open to others (mode {mode:04o}); chmod 600 it"));
        }
    }

    #[test]
    fn a_group_may_read_what_belongs_to_root_and_nothing_else() {
        let (_directory, path) = file("x", 0o640);
        assert_eq!(read(&path, MAX_LEN).is_ok(), nix::unistd::geteuid().is_root());
        // Only root can give a file away.
        if chown(&path, Some(4_321), None).is_ok() && nix::unistd::geteuid().is_root() {
            assert!(read(&path, MAX_LEN).unwrap_err().starts_with("belongs to uid 4321, "));
        }
    }

    #[test]
    fn what_is_too_long_or_no_file_is_refused() {
        let (directory, path) = file("01234567890", 0o600);
        assert_eq!(read(&path, MAX_LEN).unwrap_err(), "is longer than 10 bytes");
        assert_eq!(read(directory.path(), MAX_LEN).unwrap_err(), "is not a regular file");
        let none = read(&directory.path().join("none"), MAX_LEN).unwrap_err();
        assert!(none.starts_with("cannot be read: No such file"), "{none}");
    }
}

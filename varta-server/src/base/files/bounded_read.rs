//! Files of a bounded length that people and other programs write: each is read only when it is what it
//! should be.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::base::files::regular_file::{self, OpenFault};
pub(crate) use crate::base::files::regular_file::{Symlink, is_ours_or_roots};

/// What a regular file must be like to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checks {
    /// Its greatest length, in bytes.
    pub(crate) max_len: u64,
    pub(crate) symlink: Symlink,
    pub(crate) owner: Owner,
}

/// Whose file it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Anybody,
    /// This server's user or root.
    OursOrRoot,
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("is a symlink")]
    Symlink,
    #[error("is not a regular file")]
    NotAFile,
    #[error("belongs to uid {uid}, which is neither this server's nor root")]
    ForeignOwner { uid: u32 },
    #[error("is longer than {max_len} bytes")]
    TooLong { max_len: u64 },
}

/// Reads a whole file.
///
/// # Errors
///
/// The first check that it fails; or what the kernel says.
pub(crate) fn read(path: &Path, checks: Checks) -> Result<(Vec<u8>, Metadata), ReadError> {
    let Checks { max_len, symlink, owner } = checks;
    let (file, metadata) = open(path, symlink)?;
    if owner == Owner::OursOrRoot && !is_ours_or_roots(&metadata) {
        return Err(ReadError::ForeignOwner { uid: metadata.uid() });
    }
    let mut content = Vec::new();
    // One byte more than there may be: the length that it had a moment ago says nothing.
    file.take(max_len + 1).read_to_end(&mut content)?;
    if content.len() as u64 > max_len {
        return Err(ReadError::TooLong { max_len });
    }
    Ok((content, metadata))
}

/// Opens a regular file, for reading at leisure.
///
/// # Errors
///
/// When it is no regular file, or a symlink and those are refused; or what the kernel says.
pub(crate) fn open(path: &Path, symlink: Symlink) -> Result<(File, Metadata), ReadError> {
    regular_file::open(OpenOptions::new().read(true), path, symlink).map_err(|fault| match fault {
        OpenFault::Io(error) => ReadError::Io(error),
        OpenFault::Symlink => ReadError::Symlink,
        OpenFault::NotAFile => ReadError::NotAFile,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const CHECKS: Checks = Checks { max_len: 5, symlink: Symlink::Refused, owner: Owner::OursOrRoot };

    fn fault(path: &Path, checks: Checks) -> String {
        read(path, checks).unwrap_err().to_string()
    }

    #[test]
    fn a_file_is_read_up_to_its_greatest_length() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, CHECKS).unwrap().0, b"12345");
        fs::write(&path, "123456").unwrap();
        assert_eq!(fault(&path, CHECKS), "is longer than 5 bytes");
    }

    #[test]
    fn a_symlink_is_followed_only_where_it_may_be() {
        let directory = tempfile::tempdir().unwrap();
        let [path, link] = ["file", "link"].map(|name| directory.path().join(name));
        fs::write(&path, "123").unwrap();
        symlink(&path, &link).unwrap();
        assert_eq!(fault(&link, CHECKS), "is a symlink");
        assert_eq!(read(&link, Checks { symlink: Symlink::Followed, ..CHECKS }).unwrap().0, b"123");
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        for path in [pipe.as_path(), directory.path(), Path::new("/dev/zero")] {
            assert_eq!(fault(path, CHECKS), "is not a regular file", "{}", path.display());
        }
        let absent = read(&directory.path().join("absent"), CHECKS).unwrap_err();
        assert!(matches!(absent, ReadError::Io(error) if error.kind() == io::ErrorKind::NotFound));
    }

    #[test]
    fn a_file_of_another_user_is_refused_where_it_must_be_ours() {
        if !nix::unistd::geteuid().is_root() {
            // Only root can give a file away. What is ours passes.
            let file = tempfile::NamedTempFile::new().unwrap();
            assert!(read(file.path(), CHECKS).is_ok());
            return;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::os::unix::fs::chown(file.path(), Some(4_321), None).unwrap();
        assert!(fault(file.path(), CHECKS).starts_with("belongs to uid 4321, which is neither"));
        assert!(read(file.path(), Checks { owner: Owner::Anybody, ..CHECKS }).is_ok());
    }
}

//! Keys from private files.
//!
//! A key that other users can read or replace is not secret. So a file is rejected unless it is private, and
//! an error names the file, the line and the fault, but never the content.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::vec::Vec;

use zeroize::Zeroizing;

use super::{Key, KeyLineError, parse_keys};

/// The maximum length of a key file, in bytes: some 250 keys.
pub const MAX_KEY_FILE_LEN: usize = 16 * 1024;

impl Key {
    /// Reads the only key of a file, in the format of [`parse_keys`].
    ///
    /// The file must be a regular file and not a symlink, have no permissions for group and others, and
    /// belong to the effective user of this process or to root. The effective user is the owner of
    /// `/proc/self`. On a system without `/proc/self` any owner is accepted, because only its owner and root
    /// can read a file without permissions for others. A file of root directly below `$CREDENTIALS_DIRECTORY` may
    /// have mode 0440 too, as systemd makes it.
    ///
    /// ```
    /// use std::os::unix::fs::PermissionsExt;
    /// use varta_proto::secure::Key;
    ///
    /// let directory = tempfile::tempdir()?;
    /// let path = directory.path().join("varta.key");
    /// std::fs::write(&path, "# of this host\n".to_owned() + &"8f".repeat(32) + "\n")?;
    ///
    /// std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644))?;
    /// let error = Key::from_file(&path).unwrap_err();
    /// assert!(error.to_string().ends_with("others than its owner can use it (mode 0644); chmod 600 it"));
    ///
    /// std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
    /// assert_eq!(Key::from_file(&path)?, Key::from_bytes([0x8f; 32]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`KeyFileError`] with the first fault.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        let mut keys = Self::all_from_file(path.as_ref())?;
        match (keys.pop(), keys.len()) {
            (Some(key), 0) => Ok(key),
            (_, others) => {
                Err(KeyFileError::new(path.as_ref(), KeyFileFault::SeveralKeys { actual: others + 1 }))
            }
        }
    }

    /// Reads all keys of a file with one or more keys, in their order, for a rotation of keys.
    ///
    /// The requirements on the file are those of [`from_file`](Self::from_file).
    ///
    /// ```
    /// use std::os::unix::fs::PermissionsExt;
    /// use varta_proto::secure::Key;
    ///
    /// let directory = tempfile::tempdir()?;
    /// let path = directory.path().join("accepted.keys");
    /// std::fs::write(&path, "8f".repeat(32) + "\n" + &"e0".repeat(32) + "\n")?;
    /// std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
    ///
    /// let keys = Key::all_from_file(&path)?;
    /// assert_eq!(keys, [Key::from_bytes([0x8f; 32]), Key::from_bytes([0xe0; 32])]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`KeyFileError`] with the first fault.
    pub fn all_from_file(path: impl AsRef<Path>) -> Result<Vec<Self>, KeyFileError> {
        let path = path.as_ref();
        read_keys(path).map_err(|fault| KeyFileError::new(path, fault))
    }
}

/// Passes the text of a private file to `read`, and wipes the text afterwards. The requirements on the file
/// are those of [`Key::from_file`].
///
/// ```
/// use std::os::unix::fs::PermissionsExt;
/// use varta_proto::secure::read_private;
///
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("token");
/// std::fs::write(&path, "swordfish")?;
/// std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
/// assert_eq!(read_private(&path, str::len)?, 9);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`KeyFileError`] with the first fault. `read` was not called then.
pub fn read_private<T>(path: impl AsRef<Path>, read: impl FnOnce(&str) -> T) -> Result<T, KeyFileError> {
    let path = path.as_ref();
    read_private_text(path, read).map_err(|fault| KeyFileError::new(path, fault))
}

fn read_keys(path: &Path) -> Result<Vec<Key>, KeyFileFault> {
    let keys = read_private_text(path, parse_keys)?.map_err(KeyFileFault::BadLine)?;
    if keys.is_empty() { Err(KeyFileFault::NoKey) } else { Ok(keys) }
}

fn read_private_text<T>(path: &Path, read: impl FnOnce(&str) -> T) -> Result<T, KeyFileFault> {
    let mut file = open_private(path)?;
    // On the stack and of a fixed size, so that there is one place to wipe. The extra byte distinguishes a
    // file that fits from a longer one.
    let mut content = Zeroizing::new([0; MAX_KEY_FILE_LEN + 1]);
    let mut len = 0;
    while len < content.len() {
        match file.read(&mut content[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(KeyFileFault::Io(error)),
        }
    }
    if len > MAX_KEY_FILE_LEN {
        return Err(KeyFileFault::TooLong);
    }
    str::from_utf8(&content[..len]).map(read).map_err(|_| KeyFileFault::NotText)
}

/// Opens a file and checks that it is private.
///
/// The path is checked before it is opened, without following a symlink: opening a pipe would block. The
/// opened file must be the one that was checked, so that a symlink put there in between has no effect; owner
/// and mode are read from the open file, so that another file put there has no effect either.
fn open_private(path: &Path) -> Result<File, KeyFileFault> {
    let seen = fs::symlink_metadata(path).map_err(KeyFileFault::Io)?;
    if seen.is_symlink() {
        return Err(KeyFileFault::Symlink);
    }
    if !seen.is_file() {
        return Err(KeyFileFault::NotAFile);
    }
    let file = File::open(path).map_err(KeyFileFault::Io)?;
    let found = file.metadata().map_err(KeyFileFault::Io)?;
    if (found.dev(), found.ino()) != (seen.dev(), seen.ino()) {
        return Err(KeyFileFault::Replaced);
    }
    let us = fs::metadata("/proc/self").ok().map(|ours| ours.uid());
    let credentials = env::var_os("CREDENTIALS_DIRECTORY");
    if !is_credential(path, &found, credentials.as_deref()) {
        check_private(&found, us)?;
    }
    Ok(file)
}

/// The mode of a credential that systemd has opened to the user of a service by an access list, whose mask is
/// where the permissions of the group would be.
const CREDENTIAL_MODE: u32 = 0o440;

/// Whether a file is one that root has put directly into this directory of credentials, which the environment
/// names.
fn is_credential(path: &Path, found: &Metadata, credentials: Option<&OsStr>) -> bool {
    found.uid() == 0 && found.mode() & 0o7777 == CREDENTIAL_MODE && is_below(path, credentials)
}

fn is_below(path: &Path, credentials: Option<&OsStr>) -> bool {
    let Some(directory) = credentials.map(Path::new).filter(|directory| directory.is_absolute()) else {
        return false;
    };
    let mut below = path.strip_prefix(directory).into_iter().flat_map(Path::components);
    matches!((below.next(), below.next()), (Some(Component::Normal(_)), None))
}

/// Checks owner and mode of the file. `us` is the effective user of this process, if known.
fn check_private(found: &Metadata, us: Option<u32>) -> Result<(), KeyFileFault> {
    let owner = found.uid();
    if owner != 0 && us.is_some_and(|us| us != owner) {
        return Err(KeyFileFault::ForeignOwner { uid: owner });
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileFault::OpenToOthers { mode });
    }
    Ok(())
}

/// Why a key file was rejected: its path and the fault.
///
/// ```
/// use varta_proto::secure::{Key, KeyFileFault};
///
/// let error = Key::from_file("/nonexistent/varta.key").unwrap_err();
/// assert!(error.to_string().starts_with("key file /nonexistent/varta.key: "));
/// assert!(matches!(error.fault(), KeyFileFault::Io(_)));
/// ```
#[derive(Debug)]
pub struct KeyFileError {
    path: PathBuf,
    fault: KeyFileFault,
}

impl KeyFileError {
    fn new(path: &Path, fault: KeyFileFault) -> Self {
        Self { path: path.to_path_buf(), fault }
    }

    /// Returns the path that was given.
    ///
    /// ```
    /// let error = varta_proto::secure::Key::from_file("/nonexistent").unwrap_err();
    /// assert_eq!(error.path().to_str(), Some("/nonexistent"));
    /// ```
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the fault.
    ///
    /// ```
    /// use varta_proto::secure::{Key, KeyFileFault};
    ///
    /// let error = Key::from_file("/dev/null").unwrap_err();
    /// assert!(matches!(error.fault(), KeyFileFault::NotAFile));
    /// ```
    pub fn fault(&self) -> &KeyFileFault {
        &self.fault
    }
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, fault } = self;
        write!(f, "key file {}: {fault}", path.display())
    }
}

/// The text includes that of the fault, which is therefore not the source.
impl core::error::Error for KeyFileError {}

/// A fault of a key file, in the order of the checks.
///
/// ```
/// use varta_proto::secure::KeyFileFault;
///
/// let fault = KeyFileFault::OpenToOthers { mode: 0o640 };
/// assert_eq!(fault.to_string(), "others than its owner can use it (mode 0640); chmod 600 it");
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum KeyFileFault {
    /// The file cannot be found, opened or read.
    Io(io::Error),
    /// The path is a symlink: the user who can change the link decides what the keys are.
    Symlink,
    /// The path is a directory, a pipe, a device or a socket.
    NotAFile,
    /// Another file replaced it while it was being opened.
    Replaced,
    /// The owner is neither the effective user of this process nor root.
    ForeignOwner {
        /// The owner of the file.
        uid: u32,
    },
    /// The group or other users have a permission for the file.
    OpenToOthers {
        /// The permission bits of the file.
        mode: u32,
    },
    /// The file is longer than [`MAX_KEY_FILE_LEN`].
    TooLong,
    /// The file is not UTF-8.
    NotText,
    /// A line is neither a key nor a comment.
    BadLine(KeyLineError),
    /// The file holds no key.
    NoKey,
    /// The file holds several keys where one is expected.
    SeveralKeys {
        /// The number of keys in the file.
        actual: usize,
    },
}

impl fmt::Display for KeyFileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot be read: {error}"),
            Self::Symlink => f.write_str("is a symlink; name the file itself"),
            Self::NotAFile => f.write_str("is not a regular file"),
            Self::Replaced => f.write_str("was replaced while it was being opened; try again"),
            Self::ForeignOwner { uid } => {
                write!(f, "belongs to user {uid}, and to neither this process's user nor root")
            }
            Self::OpenToOthers { mode } => {
                write!(f, "others than its owner can use it (mode {mode:04o}); chmod 600 it")
            }
            Self::TooLong => write!(f, "is longer than {MAX_KEY_FILE_LEN} bytes"),
            Self::NotText => f.write_str("is not text"),
            Self::BadLine(error) => error.fmt(f),
            Self::NoKey => f.write_str("holds no key; `openssl rand -hex 32` makes one"),
            Self::SeveralKeys { actual } => write!(f, "holds {actual} keys, and one is wanted"),
        }
    }
}

#[cfg(test)]
mod tests;

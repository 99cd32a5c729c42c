//! Secrets from files: read only from files that nobody else can read, and never shown.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use subtle::ConstantTimeEq;

use crate::error::Error;

/// A longer file is no secret file.
const LARGEST_FILE: u64 = 4096;
/// Shorter ones can be guessed.
const SHORTEST_TOKEN: usize = 16;

/// A bearer token. `Debug` does not show it.
pub struct Secret(String);

impl Secret {
    /// Reads a token from the only line of a file.
    ///
    /// # Errors
    ///
    /// When the file is a symlink, belongs to another user, can be read by others, or does not hold one line of 16 or
    /// more visible ASCII characters.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let refused = |fault: String| Error::SecretFile { path: path.to_path_buf(), fault };
        let text = read_private(path).map_err(refused)?;
        let token = text.trim_end_matches(['\n', '\r']);
        if token.len() < SHORTEST_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refused(format!(
                "must hold a token of at least {SHORTEST_TOKEN} visible ASCII characters on one line; \
                 `openssl rand -hex 32` makes one"
            )));
        }
        Ok(Secret(token.to_owned()))
    }

    /// Whether `candidate` is this secret, in a time that does not tell how much of it is right.
    #[must_use]
    pub fn matches(&self, candidate: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(candidate).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Reads a file that only its owner, who must be us or root, can read; or says what is wrong with it.
fn read_private(path: &Path) -> Result<String, String> {
    // Opened first and looked at afterwards: what is checked is what is read. Not blocking, for it may be a pipe.
    let open = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let file: File = open.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => "is a symlink; give the file itself".to_owned(),
        _ => format!("cannot be opened: {error}"),
    })?;
    let found = file.metadata().map_err(|error| format!("cannot be looked at: {error}"))?;
    let us = nix::unistd::geteuid().as_raw();
    if !found.is_file() {
        return Err("is not a regular file".to_owned());
    }
    if found.uid() != us && found.uid() != 0 {
        return Err(format!("belongs to user {}; it must belong to user {us} or root", found.uid()));
    }
    if found.mode() & 0o077 != 0 {
        return Err(format!("can be used by others (mode {:04o}); chmod 600 it", found.mode() & 0o7777));
    }
    if found.len() > LARGEST_FILE {
        return Err(format!("has {} bytes; a secret has at most {LARGEST_FILE}", found.len()));
    }
    let mut text = String::new();
    file.take(LARGEST_FILE)
        .read_to_string(&mut text)
        .map_err(|error: io::Error| format!("cannot be read: {error}"))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(text: &str, mode: u32) -> Result<Secret, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Secret::from_file(&path)
    }

    #[test]
    fn a_private_file_with_one_line_gives_the_secret() {
        let secret = read("0123456789abcdef\n", 0o600).unwrap();
        assert!(secret.matches(b"0123456789abcdef"));
        assert!(!secret.matches(b"0123456789abcdeF"));
        assert!(!secret.matches(b"0123456789abcdef0"));
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }

    #[test]
    fn each_fault_is_named() {
        let fault = |text: &str, mode| read(text, mode).unwrap_err().to_string();
        assert!(fault("0123456789abcdef", 0o640).contains("chmod 600"));
        assert!(fault("short", 0o600).contains("at least 16"));
        assert!(fault("two lines of\nsecrets here", 0o600).contains("one line"));
        assert!(fault(&"x".repeat(5000), 0o600).contains("at most 4096"));
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        assert!(Secret::from_file(&dir.path().join("link")).unwrap_err().to_string().contains("symlink"));
        assert!(Secret::from_file(dir.path()).unwrap_err().to_string().contains("regular file"));
        assert!(
            Secret::from_file(&dir.path().join("none")).unwrap_err().to_string().contains("cannot be opened")
        );
    }
}

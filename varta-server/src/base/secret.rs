//! Secrets from files: only from files that no other user can read, and never displayed.

use std::fmt;
use std::path::Path;

use subtle::ConstantTimeEq;
use varta_proto::secure::read_private;

use crate::base::error::Error;

/// The fewest characters of a token: shorter ones can be guessed.
const MIN_TOKEN_LEN: usize = 16;

/// A bearer token. `Debug` does not show it.
pub struct Secret(String);

impl Secret {
    /// Reads a token from the only line of a file.
    ///
    /// # Errors
    ///
    /// The file is a symlink, belongs to another user, is readable by others, or does not hold exactly one
    /// line of 16 or more visible ASCII characters.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let refused = |fault: String| Error::configuration_file(path, fault);
        let token = read_private(path, token_in).map_err(|error| refused(error.fault().to_string()))?;
        token.map(Secret).ok_or_else(|| {
            refused(format!(
                "must hold a token of at least {MIN_TOKEN_LEN} visible ASCII characters on one line; \
                 `openssl rand -hex 32` makes one"
            ))
        })
    }

    /// The stand-in for a token that is not read.
    pub(crate) const fn stand_in() -> Self {
        Secret(String::new())
    }

    /// What is secret.
    pub(crate) const fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether `candidate` equals this secret, in constant time.
    #[must_use]
    pub fn matches(&self, candidate: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(candidate).into()
    }
}

fn token_in(text: &str) -> Option<String> {
    let token = text.trim_end_matches(['\n', '\r']);
    let is_token = token.len() >= MIN_TOKEN_LEN && token.bytes().all(|byte| byte.is_ascii_graphic());
    is_token.then(|| token.to_owned())
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
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
        assert!(fault(&"x".repeat(20_000), 0o600).contains("is longer than"));
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        assert!(Secret::from_file(&dir.path().join("link")).unwrap_err().to_string().contains("symlink"));
        assert!(Secret::from_file(dir.path()).unwrap_err().to_string().contains("regular file"));
        assert!(
            Secret::from_file(&dir.path().join("none")).unwrap_err().to_string().contains("cannot be read")
        );
    }
}

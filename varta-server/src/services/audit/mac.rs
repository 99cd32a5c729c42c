//! The hash of a record: SHA-256 (FIPS 180-4), which needs no secret, or HMAC-SHA-256 (RFC 2104), which needs
//! the key.

use std::fmt;
use std::path::Path;

use ring::digest;
use ring::hmac;

use crate::base::error::Error;
use crate::base::secret::Secret;

/// The shortest key in characters. It is longer than a token, because a copy of the log allows an offline
/// search for the key.
const MIN_KEY_LEN: usize = 32;

/// The hash of a record: SHA-256 or HMAC-SHA-256 of its bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 32]);

impl Hash {
    /// `prev` of the first record of a log.
    pub(super) const NONE: Hash = Hash([0; 32]);
    /// The length of its text in bytes.
    pub(super) const TEXT: usize = 64;

    /// Parses 64 lower-case hexadecimal digits, the only form that is written.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let (pairs, []) = text.as_chunks::<2>() else { return None };
        let pairs: &[[u8; 2]; 32] = pairs.try_into().ok()?;
        let mut hash = [0; 32];
        for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
            *byte = nibble(*high)? << 4 | nibble(*low)?;
        }
        Some(Hash(hash))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Writes 64 hexadecimal digits.
impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Computes the hashes of records.
#[derive(Debug)]
pub(super) enum Authenticator {
    Plain,
    Keyed(hmac::Key),
}

impl Authenticator {
    /// Reads the key, if there is one.
    ///
    /// # Errors
    ///
    /// The file cannot be used, or the key is too short.
    pub(super) fn read(key_file: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = key_file else { return Ok(Authenticator::Plain) };
        let key = Secret::from_file(path)?;
        if key.as_bytes().len() < MIN_KEY_LEN {
            let fault = format!(
                "must hold a key of at least {MIN_KEY_LEN} characters for the audit log; `openssl rand -hex 32` makes one"
            );
            return Err(Error::configuration_file(path, fault));
        }
        Ok(Authenticator::Keyed(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes())))
    }

    pub(super) fn mac(&self, bytes: &[u8]) -> Hash {
        let sealed = match self {
            Authenticator::Plain => digest::digest(&digest::SHA256, bytes).as_ref().try_into(),
            Authenticator::Keyed(key) => hmac::sign(key, bytes).as_ref().try_into(),
        };
        Hash(sealed.expect("SHA-256 has 32 bytes"))
    }

    /// The name of the algorithm in the first record of a file.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Authenticator::Plain => "sha256",
            Authenticator::Keyed(_) => "hmac-sha256",
        }
    }
}

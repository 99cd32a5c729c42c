//! Keys: 32 bytes that are wiped on drop and never shown.

use core::fmt;
use core::hint::black_box;

use zeroize::Zeroize;

use super::crypto::{self, KEY_LEN};

/// A key: one shared by agents and server, a master key, or the key of one agent, derived from a master key.
///
/// A key cannot be cloned, `Debug` does not show it, and its memory is wiped on drop. A move copies the bytes
/// and does not wipe the old place: create a key where it stays, or move it into a `Box` or `Vec` early.
/// Comparing two keys takes constant time.
///
/// ```
/// use varta_proto::secure::Key;
///
/// let key = Key::from_bytes([0xab; 32]);
/// assert_eq!(format!("{key:?}"), "Key(..)");
/// assert_eq!(key, Key::from_hex(&"aB".repeat(32))?);
/// # Ok::<(), varta_proto::secure::KeyError>(())
/// ```
///
/// ```compile_fail,E0599
/// let key = varta_proto::secure::Key::from_bytes([0xab; 32]);
/// let copy = key.clone();
/// ```
///
/// ```compile_fail,E0382
/// let key = varta_proto::secure::Key::from_bytes([0xab; 32]);
/// let moved = key;
/// key.agent_key(4242);
/// ```
pub struct Key([u8; KEY_LEN]);

impl Key {
    /// The length of a key, in bytes.
    pub const LEN: usize = KEY_LEN;

    /// Creates a key from its bytes. Wiping the caller's copy is up to the caller.
    ///
    /// ```
    /// let key = varta_proto::secure::Key::from_bytes(*b"these 32 bytes are far from it..");
    /// ```
    #[inline]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Parses a key of 64 hexadecimal characters, in either case, without surrounding characters.
    ///
    /// ```
    /// use varta_proto::secure::{Key, KeyError};
    ///
    /// let text = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";
    /// assert!(Key::from_hex(text).is_ok());
    ///
    /// assert_eq!(Key::from_hex(&text[2..]), Err(KeyError::BadLength { actual: 62 }));
    /// assert_eq!(Key::from_hex(&text.replace('A', "x")), Err(KeyError::NotHex { position: 53 }));
    /// ```
    ///
    /// # Errors
    ///
    /// [`KeyError`], which holds nothing of the text.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let actual = text.chars().count();
        if actual != 2 * Self::LEN {
            return Err(KeyError::BadLength { actual });
        }
        let mut key = Self([0; Self::LEN]);
        for (position, digit) in text.chars().enumerate() {
            let nibble = digit.to_digit(16).and_then(|nibble| u8::try_from(nibble).ok());
            let byte = &mut key.0[position / 2];
            *byte = *byte << 4 | nibble.ok_or(KeyError::NotHex { position })?;
        }
        Ok(key)
    }

    /// Derives the key of the agent with process id `pid`; `self` is the master key.
    ///
    /// An agent that forks derives its child's key from the master key too. Neither the master key nor
    /// another agent's key can be computed from an agent's key.
    ///
    /// ```
    /// use varta_proto::secure::Key;
    ///
    /// let master = Key::from_bytes([7; 32]);
    /// assert_eq!(master.agent_key(4242), master.agent_key(4242));
    /// assert_ne!(master.agent_key(4242), master.agent_key(4243));
    /// ```
    pub fn agent_key(&self, pid: u32) -> Key {
        AgentKeys::new(self).of(pid)
    }

    /// Returns a number that identifies the key, for example across restarts. The key cannot be computed from
    /// it, but equal keys have equal fingerprints.
    ///
    /// ```
    /// use varta_proto::secure::Key;
    ///
    /// let key = Key::from_bytes([7; 32]);
    /// assert_eq!(key.fingerprint(), Key::from_bytes([7; 32]).fingerprint());
    /// assert_ne!(key.fingerprint(), Key::from_bytes([8; 32]).fingerprint());
    /// ```
    pub fn fingerprint(&self) -> u64 {
        let mut fingerprint = [0; 8];
        crypto::derive(&self.0, &[b"varta-fingerprint-v1\0"], &mut fingerprint);
        u64::from_le_bytes(fingerprint)
    }

    /// Returns the bytes for ring, and for nothing else.
    #[inline]
    pub(super) const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

/// A master key, prepared to derive the keys of its agents: the part that all derivations have in common is
/// already computed, which saves a receiver half of the work for each datagram. It is as secret as the master
/// key, and wiped in the same way.
///
/// ```
/// use varta_proto::secure::{AgentKeys, Key};
///
/// let master = Key::from_bytes([7; 32]);
/// assert_eq!(AgentKeys::new(&master).of(4242), master.agent_key(4242));
/// ```
#[derive(Debug)]
pub struct AgentKeys(Key);

impl AgentKeys {
    /// Prepares a master key.
    pub fn new(master: &Key) -> Self {
        Self(Key(crypto::extract(&master.0)))
    }

    /// Derives the key of the agent with process id `pid`.
    #[inline]
    pub fn of(&self, pid: u32) -> Key {
        let mut key = Key([0; Key::LEN]);
        crypto::expand(&self.0.0, &[b"varta-agent-v1\0", &pid.to_le_bytes()], &mut key.0);
        key
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Takes the same time wherever the keys differ.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let pairs = self.0.iter().zip(&other.0);
        // `black_box` keeps the compiler from stopping at the first difference.
        pairs.fold(0, |difference, (a, b)| black_box(difference | (a ^ b))) == 0
    }
}

impl Eq for Key {}

/// Shows nothing of the key.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Why a text is not a key. It holds nothing of the text.
///
/// ```
/// use varta_proto::secure::Key;
///
/// let error = Key::from_hex("hunter2").unwrap_err();
/// assert_eq!(error.to_string(), "a key has 64 hexadecimal characters, this has 7");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// The text is not 64 characters long. Nothing else was checked.
    BadLength {
        /// The length of the text in characters.
        actual: usize,
    },
    /// A character is none of `0-9 a-f A-F`.
    NotHex {
        /// The index of the character in the text, counted in characters from 0.
        position: usize,
    },
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BadLength { actual } => {
                write!(f, "a key has {} hexadecimal characters, this has {actual}", 2 * Key::LEN)
            }
            Self::NotHex { position } => {
                write!(f, "character {} of the key is not hexadecimal", position + 1)
            }
        }
    }
}

impl core::error::Error for KeyError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    const TEXT: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn both_cases_are_the_same_key() {
        let key = Key::from_hex(TEXT).unwrap();
        for (byte, expected) in key.as_bytes().iter().zip(0..) {
            assert_eq!(*byte, expected);
        }
        assert_eq!(key, Key::from_hex(&TEXT.to_uppercase()).unwrap());
    }

    #[test]
    fn a_difference_anywhere_is_a_difference() {
        for offset in 0..Key::LEN {
            let mut bytes = [0x5a; Key::LEN];
            bytes[offset] ^= 0x80;
            assert_ne!(Key::from_bytes(bytes), Key::from_bytes([0x5a; Key::LEN]));
        }
    }

    #[test]
    fn a_character_is_a_character_however_many_bytes_it_has() {
        assert_eq!(Key::from_hex(&TEXT.replace('f', "é")), Err(KeyError::NotHex { position: 31 }));
        assert_eq!(Key::from_hex(&"é".repeat(32)), Err(KeyError::BadLength { actual: 32 }));
        assert_eq!(Key::from_hex(&std::format!(" {TEXT}")), Err(KeyError::BadLength { actual: 65 }));
        // A number may have a sign, a key may not.
        assert_eq!(Key::from_hex(&TEXT.replacen('0', "+", 1)), Err(KeyError::NotHex { position: 0 }));
    }

    #[test]
    fn an_error_tells_the_place_and_not_what_is_there() {
        let error = Key::from_hex(&TEXT.replace('a', "q")).unwrap_err();
        assert_eq!(error.to_string(), "character 22 of the key is not hexadecimal");
    }
}

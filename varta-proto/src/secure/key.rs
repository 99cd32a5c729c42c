//! Keys: 32 bytes that are wiped when they are dropped, and never shown.

use core::fmt;
use core::hint::black_box;

use zeroize::Zeroize;

use super::crypto::{self, KEY_LEN};

/// A key: one that agents and server share, a master key, or the key of one agent that was derived from it.
///
/// It cannot be copied, `Debug` does not show it, and its memory is wiped when it is dropped. A move is a copy
/// all the same, of which the first place is not wiped: make a key where it stays, or move it into a `Box` or
/// `Vec` early. Two keys are compared in a time that does not depend on what they are.
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

    /// Makes a key of its bytes. The caller's own copy of them is the caller's to wipe.
    ///
    /// ```
    /// let key = varta_proto::secure::Key::from_bytes(*b"these 32 bytes are far from it..");
    /// ```
    #[inline]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Reads a key of 64 hexadecimal characters, in either case and with nothing around them.
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
    /// [`KeyError`], which tells what is wrong and nothing of what the text holds.
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
    /// An agent that forks derives its child's key from the master key too. From an agent's key neither the
    /// master key nor another agent's can be had.
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

    /// Gives a number by which the same key is known again, also when it has been away in between. The key cannot be had
    /// from it, but it tells who has two keys whether they are the same.
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

    /// What ring is given. It goes no further.
    #[inline]
    pub(super) const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

/// The keys of all agents of one master key: what is the same in each derivation has been done, which saves a receiver
/// half of the work for each datagram. It is as secret as the master key, and wiped in the same way.
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

/// Takes the same time wherever the first difference is.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let pairs = self.0.iter().zip(&other.0);
        // The compiler must not learn that a difference is never taken back, and stop at the first.
        pairs.fold(0, |difference, (a, b)| black_box(difference | (a ^ b))) == 0
    }
}

impl Eq for Key {}

/// Shows that it is a key, and nothing of it.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Why a text is no key. It holds nothing of the text.
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
    /// The text is not 64 characters long. Nothing else was looked at.
    BadLength {
        /// Its length in characters.
        actual: usize,
    },
    /// A character is none of `0-9 a-f A-F`.
    NotHex {
        /// Its place in the text, counted in characters from 0.
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
        // A sign is what a number may have, and a key may not.
        assert_eq!(Key::from_hex(&TEXT.replacen('0', "+", 1)), Err(KeyError::NotHex { position: 0 }));
    }

    #[test]
    fn an_error_tells_the_place_and_not_what_is_there() {
        let error = Key::from_hex(&TEXT.replace('a', "q")).unwrap_err();
        assert_eq!(error.to_string(), "character 22 of the key is not hexadecimal");
    }
}

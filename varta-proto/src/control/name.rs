//! The name of an agent.

use core::fmt;
use core::str::FromStr;

/// The name of an agent: 1 to 64 characters of `A-Z a-z 0-9 . _ - : / @`.
///
/// A name is checked once, when it is created, and holds its characters itself, so that storing it needs no
/// allocation and it outlives the text or the datagram it was read from.
///
/// ```
/// use varta_proto::control::AgentName;
///
/// let name: AgentName = "billing/worker@eu:3".parse()?;
/// assert_eq!(name.as_str(), "billing/worker@eu:3");
/// # Ok::<(), varta_proto::control::NameError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentName {
    /// The characters, padded with zeros: a zero sorts before every character, as the end of a text does.
    bytes: [u8; Self::MAX_LEN],
    len: u8,
}

impl AgentName {
    /// The length of the longest name, in characters and in bytes.
    pub const MAX_LEN: usize = 64;

    /// Checks a text and converts it to a name.
    ///
    /// ```
    /// use varta_proto::control::{AgentName, NameError};
    ///
    /// assert!(AgentName::parse("billing-worker").is_ok());
    /// assert_eq!(AgentName::parse(""), Err(NameError::BadLength { actual: 0 }));
    /// assert_eq!(AgentName::parse("billing worker"), Err(NameError::BadCharacter { position: 7 }));
    /// ```
    ///
    /// # Errors
    ///
    /// [`NameError`] with the first character that is not allowed, else with the length.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if let Some(position) = text.chars().position(|character| !is_allowed(character)) {
            return Err(NameError::BadCharacter { position });
        }
        let too_long = NameError::BadLength { actual: text.len() };
        let len = u8::try_from(text.len()).map_err(|_| too_long)?;
        let mut bytes = [0; Self::MAX_LEN];
        match bytes.get_mut(..text.len()) {
            Some(slot) if len > 0 => slot.copy_from_slice(text.as_bytes()),
            _ => return Err(too_long),
        }
        Ok(Self { bytes, len })
    }

    /// Reads a name from a datagram.
    pub(super) fn from_wire(bytes: &[u8]) -> Option<Self> {
        Self::parse(str::from_utf8(bytes).ok()?).ok()
    }

    /// Returns the name as text.
    ///
    /// ```
    /// use varta_proto::control::AgentName;
    ///
    /// assert_eq!(AgentName::parse("worker-3")?.as_str(), "worker-3");
    /// # Ok::<(), varta_proto::control::NameError>(())
    /// ```
    #[inline]
    #[expect(clippy::missing_panics_doc, reason = "the characters of a name are ASCII")]
    pub fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).expect("a name was checked when it was made")
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

const fn is_allowed(character: char) -> bool {
    matches!(character, 'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '_' | '-' | ':' | '/' | '@')
}

impl FromStr for AgentName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl AsRef<str> for AgentName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// Formats as [`as_str`](AgentName::as_str), with width and alignment.
impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// Why a text is not a name.
///
/// ```
/// use varta_proto::control::AgentName;
///
/// let error = AgentName::parse("büro").unwrap_err();
/// assert_eq!(error.to_string(), "character 2 of the name is none of A-Z a-z 0-9 . _ - : / @");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// The text is empty, or has more than [`AgentName::MAX_LEN`] characters.
    BadLength {
        /// The length of the text in characters.
        actual: usize,
    },
    /// A character is not allowed in a name.
    BadCharacter {
        /// The index of the character in the text, counted in characters from 0.
        position: usize,
    },
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BadLength { actual } => {
                write!(f, "a name has 1 to {} characters, this has {actual}", AgentName::MAX_LEN)
            }
            Self::BadCharacter { position } => {
                write!(f, "character {} of the name is none of A-Z a-z 0-9 . _ - : / @", position + 1)
            }
        }
    }
}

impl core::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::ToString;

    #[test]
    fn one_to_sixty_four_characters_are_a_name() {
        for len in [1, 2, 63, 64] {
            let text = "x".repeat(len);
            assert_eq!(AgentName::parse(&text).unwrap().as_str(), text);
        }
        for actual in [0, 65, 255, 256, 257, 320] {
            let error = AgentName::parse(&"x".repeat(actual)).unwrap_err();
            assert_eq!(error, NameError::BadLength { actual });
        }
        assert_eq!(
            AgentName::parse("").unwrap_err().to_string(),
            "a name has 1 to 64 characters, this has 0"
        );
    }

    #[test]
    fn exactly_the_listed_characters_are_allowed() {
        let allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:/@";
        for byte in 0..=u8::MAX {
            let character = char::from(byte);
            assert_eq!(AgentName::parse(&format!("{character}")).is_ok(), allowed.contains(character));
            assert_eq!(AgentName::from_wire(&[byte]).is_some(), allowed.contains(character));
        }
    }

    #[test]
    fn names_sort_as_their_texts_do() {
        let texts = ["a", "a-", "a-b", "a.b", "a0", "aa", "b", "B", "Z9"];
        for one in texts {
            for other in texts {
                let names = [one, other].map(|text| AgentName::parse(text).unwrap());
                assert_eq!(names[0].cmp(&names[1]), one.cmp(other));
            }
        }
    }
}

//! Keys as text: one a line, with comments.

use std::fmt;
use std::vec::Vec;

use super::{Key, KeyError};

/// Parses keys from text: one a line, in the format of [`Key::from_hex`]. Blank lines, spaces around a key,
/// and comments after a `#` are skipped.
///
/// ```
/// use varta_proto::secure::{KeyError, parse_keys};
///
/// let text = format!("# since May\n{}\n\n  {}  # the old one\n", "8f".repeat(32), "E0".repeat(32));
/// assert_eq!(parse_keys(&text).unwrap().len(), 2);
/// assert_eq!(parse_keys("# none yet\n").unwrap().len(), 0);
///
/// let error = parse_keys("\nhunter2\n").unwrap_err();
/// assert_eq!((error.line, error.fault), (2, KeyError::BadLength { actual: 7 }));
/// ```
///
/// # Errors
///
/// [`KeyLineError`] with the first line that is neither a key nor a comment.
pub fn parse_keys(text: &str) -> Result<Vec<Key>, KeyLineError> {
    // Capacity for the maximum: a vector that grows leaves copies of its keys in the memory that it frees.
    let mut keys = Vec::with_capacity(text.lines().count());
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.split_once('#').map_or(content, |(before, _)| before).trim();
        if !content.is_empty() {
            keys.push(Key::from_hex(content).map_err(|fault| KeyLineError { line, fault })?);
        }
    }
    Ok(keys)
}

/// Which line of a text is not a key, and why. It holds nothing of the text.
///
/// ```
/// let error = varta_proto::secure::parse_keys("hunter2").unwrap_err();
/// assert_eq!(error.to_string(), "line 1: a key has 64 hexadecimal characters, this has 7");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLineError {
    /// The number of the line, from 1.
    pub line: usize,
    /// The fault of the line.
    pub fault: KeyError,
}

impl fmt::Display for KeyLineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, fault } = self;
        write!(f, "line {line}: {fault}")
    }
}

/// The text includes that of the fault, which is therefore not the source.
impl core::error::Error for KeyLineError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::ToString;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn comments_blank_lines_and_either_line_ending_are_passed_over() {
        let text = format!("# a rotation\r\n\r\n{KEY}\r\n\t{KEY} # again\n   # more\n\n{KEY}");
        assert_eq!(parse_keys(&text).unwrap().len(), 3);
    }

    #[test]
    fn the_first_bad_line_is_named_and_not_shown() {
        let error = parse_keys(&format!("{KEY}\n# next\n{KEY}0\nnonsense")).unwrap_err();
        assert_eq!(error.to_string(), "line 3: a key has 64 hexadecimal characters, this has 65");
        let error = parse_keys(&format!("{} {}", &KEY[..31], &KEY[..32])).unwrap_err();
        assert_eq!(error.fault, KeyError::NotHex { position: 31 });
    }
}

//! The last bytes of what a command printed.

use std::collections::VecDeque;

/// The bytes that are kept.
pub(super) const KEPT: usize = 10_000;
/// The most characters of a line that are shown.
const SHOWN: usize = 200;

/// A ring of the last [`KEPT`] bytes.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: VecDeque<u8>,
}

impl Tail {
    /// Adds what was printed; of more than [`KEPT`] bytes only the last count.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(KEPT)..];
        let too_many = (self.bytes.len() + bytes.len()).saturating_sub(KEPT);
        self.bytes.drain(..too_many);
        self.bytes.extend(bytes);
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// The last line that is not blank, without what a terminal would obey, and cut to its first characters.
    pub(super) fn last_line(&self) -> Option<String> {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        let visible =
            |character: char| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character };
        let mut shown: String = line.chars().take(SHOWN).map(visible).collect();
        if line.chars().nth(SHOWN).is_some() {
            shown.push_str("...");
        }
        Some(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_are_kept_whatever_the_pieces() {
        let mut tail = Tail::default();
        for piece in 0..3_000_u32 {
            tail.add(format!("{piece:04}").as_bytes());
        }
        assert_eq!(tail.bytes.len(), KEPT);
        let kept: Vec<u8> = tail.bytes.iter().copied().collect();
        assert!(kept.starts_with(b"0500") && kept.ends_with(b"2999"));
        tail.add(&[b'x'; KEPT + 7]);
        assert!(tail.bytes.iter().all(|byte| *byte == b'x') && tail.bytes.len() == KEPT);
    }

    #[test]
    fn the_last_line_is_shown_without_what_a_terminal_would_obey() {
        let mut tail = Tail::default();
        assert_eq!(tail.last_line(), None);
        tail.add(b"one\ntwo \x1b[2J\xff\n \n");
        assert_eq!(tail.last_line().unwrap(), "two \u{fffd}[2J\u{fffd}");
        tail.add("é".repeat(SHOWN + 1).as_bytes());
        assert_eq!(tail.last_line().unwrap(), "é".repeat(SHOWN) + "...");
        tail.clear();
        assert_eq!(tail.last_line(), None);
    }
}

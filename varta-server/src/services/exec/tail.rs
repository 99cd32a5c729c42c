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

    /// The last lines that are not blank, in their order, without what a terminal would obey: as many as have at most so
    /// many bytes together, the last one cut if it alone has more. `None` if nothing was printed.
    pub(super) fn last_words(&self, most: usize) -> Option<String> {
        const BETWEEN: &str = " | ";
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines().rev().map(str::trim).filter(|line| !line.is_empty());
        let mut words: String = visible(lines.next()?);
        let end = (0..=most.min(words.len())).rev().find(|end| words.is_char_boundary(*end));
        words.truncate(end.unwrap_or(0));
        for line in lines.map(visible) {
            if line.len() + BETWEEN.len() + words.len() > most {
                break;
            }
            words = format!("{line}{BETWEEN}{words}");
        }
        Some(words)
    }

    /// The last line that is not blank, without what a terminal would obey, and cut to its first characters.
    pub(super) fn last_line(&self) -> Option<String> {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        let mut shown: String = visible(line).chars().take(SHOWN).collect();
        if line.chars().nth(SHOWN).is_some() {
            shown.push_str("...");
        }
        Some(shown)
    }
}

/// A line without what a terminal would obey.
fn visible(line: &str) -> String {
    let visible =
        |character: char| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character };
    line.chars().map(visible).collect()
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

    #[test]
    fn the_last_lines_are_told_as_far_as_there_is_room_for_whole_ones() {
        let mut tail = Tail::default();
        assert_eq!(tail.last_words(9), None);
        tail.add(b"one\n\ntwo\n  three\x07 \n");
        assert_eq!(tail.last_words(100).unwrap(), "one | two | three\u{fffd}");
        assert_eq!(tail.last_words(14).unwrap(), "two | three\u{fffd}");
        assert_eq!(tail.last_words(13).unwrap(), "three\u{fffd}");
        assert_eq!(tail.last_words(7).unwrap(), "three", "no half of a character");
    }
}

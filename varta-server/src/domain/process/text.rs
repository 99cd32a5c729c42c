//! Text from outside: cut to a length, and escaped so that it cannot pass for anything else.

use std::fmt::{self, Write};

/// Decodes text of at most `most` bytes: replaces what is not UTF-8, and cuts what is too long.
pub(crate) fn truncated(bytes: &[u8], most: usize) -> Box<str> {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(most)]);
    // A replaced byte takes more room than it had.
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].into()
}

/// Displays text as it is if it consists of letters, digits and the characters of paths, otherwise quoted and
/// escaped: it can neither end a line of a log nor look like the words around it.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:@+".contains(&byte);
        if !self.0.is_empty() && self.0.bytes().all(is_plain) {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for character in self.0.chars() {
            match character {
                // Not `escape_debug`, which leaves letters of every script as they are, some of which look
                // alike.
                ' '..='~' if character != '"' && character != '\\' => f.write_char(character)?,
                _ => write!(f, "{}", character.escape_default())?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_plain_is_shown_as_it_is_and_the_rest_is_quoted() {
        let table = [
            ("/system.slice/a-b@1.service", "/system.slice/a-b@1.service"),
            ("", r#""""#),
            ("a b", r#""a b""#),
            ("a\nERROR b", r#""a\nERROR b""#),
            ("\"\\", r#""\"\\""#),
            ("\u{1b}[31m", r#""\u{1b}[31m""#),
            ("\u{202e}x", r#""\u{202e}x""#),
        ];
        for (text, shown) in table {
            assert_eq!(Escaped(text).to_string(), shown);
        }
    }

    #[test]
    fn text_is_cut_between_characters_and_never_longer_than_asked() {
        assert_eq!(&*truncated("aä".as_bytes(), 2), "a");
        assert_eq!(&*truncated("aä".as_bytes(), 3), "aä");
        assert_eq!(&*truncated(b"\xff\xff\xff", 4), "\u{fffd}");
        assert_eq!(&*truncated(b"abc", 0), "");
    }
}

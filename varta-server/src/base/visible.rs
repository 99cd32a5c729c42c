//! Text of others in what people and programs read.

/// The character, or `?` in the place of a control character, which a terminal would obey.
pub(crate) fn visible(character: char) -> char {
    if character.is_control() { '?' } else { character }
}

/// The text with `?` in the place of each control character.
pub(crate) fn visible_text(text: &str) -> String {
    text.chars().map(visible).collect()
}

/// The same for a text of several lines, which stay apart.
pub(crate) fn visible_lines(text: &str) -> String {
    text.chars().map(|character| if character == '\n' { character } else { visible(character) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_as_it_is_but_for_what_a_terminal_would_obey() {
        assert_eq!(visible_lines("the server's log: \"\u{e9}\\\""), "the server's log: \"\u{e9}\\\"");
        assert_eq!(visible_lines("a\u{1b}[2Jb\nc\u{9b}d\r"), "a?[2Jb\nc?d?");
        assert_eq!(visible_text("a\tb\nc\u{7f}"), "a?b?c?");
    }
}

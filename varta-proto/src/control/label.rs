//! A label: a key and a value by which operators sort agents.

use core::fmt;

/// A valid label: a key that is allowed as a Prometheus label name, and a value.
///
/// A key starts with a letter or `_`, continues with letters, digits and `_`, and does not start with `__`,
/// which Prometheus reserves. A value is any text without control characters, or empty. Key, `=` and value
/// together have at most [`MAX_LEN`](Self::MAX_LEN) bytes.
///
/// ```
/// use varta_proto::control::Label;
///
/// let label = Label::new("team", "payments")?;
/// assert_eq!((label.key(), label.value()), ("team", "payments"));
/// assert_eq!(label.to_string(), "team=payments");
/// # Ok::<(), varta_proto::control::LabelError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Label<'a> {
    key: &'a str,
    value: &'a str,
}

impl<'a> Label<'a> {
    /// The length of the longest label, in bytes.
    pub const MAX_LEN: usize = 255;

    /// Creates a label from a key and a value.
    ///
    /// ```
    /// use varta_proto::control::{Label, LabelError};
    ///
    /// assert!(Label::new("zone", "a").is_ok());
    /// assert_eq!(Label::new("2nd-zone", "a"), Err(LabelError::BadKey));
    /// assert_eq!(Label::new("__name__", "a"), Err(LabelError::BadKey));
    /// assert_eq!(Label::new("zone", "a\n"), Err(LabelError::BadValue));
    /// ```
    ///
    /// # Errors
    ///
    /// [`LabelError`] with the first rule that they break.
    pub fn new(key: &'a str, value: &'a str) -> Result<Self, LabelError> {
        let actual = key.len() + "=".len() + value.len();
        if !is_key(key) {
            Err(LabelError::BadKey)
        } else if value.chars().any(char::is_control) {
            Err(LabelError::BadValue)
        } else if actual > Self::MAX_LEN {
            Err(LabelError::TooLong { actual })
        } else {
            Ok(Self { key, value })
        }
    }

    /// Parses a label of the form `key=value`. The first `=` ends the key, further ones belong to the value.
    ///
    /// ```
    /// use varta_proto::control::{Label, LabelError};
    ///
    /// assert_eq!(Label::parse("rule=a=b"), Label::new("rule", "a=b"));
    /// assert_eq!(Label::parse("rule"), Err(LabelError::NoEquals));
    /// ```
    ///
    /// # Errors
    ///
    /// [`LabelError`] with the first rule that the text breaks.
    pub fn parse(text: &'a str) -> Result<Self, LabelError> {
        let (key, value) = text.split_once('=').ok_or(LabelError::NoEquals)?;
        Self::new(key, value)
    }

    /// Reads a label from a datagram.
    pub(super) fn from_wire(bytes: &'a [u8]) -> Option<Self> {
        Self::parse(str::from_utf8(bytes).ok()?).ok()
    }

    /// Returns the key.
    ///
    /// ```
    /// assert_eq!(varta_proto::control::Label::parse("zone=a")?.key(), "zone");
    /// # Ok::<(), varta_proto::control::LabelError>(())
    /// ```
    #[inline]
    pub const fn key(&self) -> &'a str {
        self.key
    }

    /// Returns the value.
    ///
    /// ```
    /// assert_eq!(varta_proto::control::Label::parse("zone=a")?.value(), "a");
    /// # Ok::<(), varta_proto::control::LabelError>(())
    /// ```
    #[inline]
    pub const fn value(&self) -> &'a str {
        self.value
    }
}

/// Returns whether a text is allowed as the key of a label.
fn is_key(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !text.starts_with("__")
}

/// Formats as `key=value`.
impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value } = self;
        write!(f, "{key}={value}")
    }
}

/// Why a text is not a label.
///
/// ```
/// use varta_proto::control::Label;
///
/// let error = Label::parse("my team=payments").unwrap_err();
/// assert_eq!(error.to_string(), "the key of a label is a letter or _, then letters, digits and _, without __ ahead");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LabelError {
    /// There is no `=` in the text.
    NoEquals,
    /// The key is not a Prometheus label name, or Prometheus reserves it.
    BadKey,
    /// There is a control character in the value.
    BadValue,
    /// The label is longer than [`Label::MAX_LEN`].
    TooLong {
        /// Its length in bytes, with the `=`.
        actual: usize,
    },
}

impl fmt::Display for LabelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoEquals => f.write_str("a label has the form key=value"),
            Self::BadKey => f.write_str(
                "the key of a label is a letter or _, then letters, digits and _, without __ ahead",
            ),
            Self::BadValue => f.write_str("the value of a label has no control characters"),
            Self::TooLong { actual } => {
                write!(f, "a label has at most {} bytes, this has {actual}", Label::MAX_LEN)
            }
        }
    }
}

impl core::error::Error for LabelError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::ToString;

    #[test]
    fn a_key_is_what_prometheus_takes() {
        for key in ["a", "_", "_a", "a_", "A9", "zone_2", "a__b"] {
            assert!(Label::new(key, "").is_ok(), "{key}");
        }
        for key in ["", "9", "a-b", "a.b", "a b", "__", "__name__", "é", "a\0", "a=b"] {
            assert_eq!(Label::new(key, ""), Err(LabelError::BadKey), "{key}");
        }
    }

    #[test]
    fn a_value_is_any_text_without_control_characters() {
        for value in ["", " ", "=", "a=b=c", "\"\\", "été", "日本"] {
            let text = format!("k={value}");
            assert_eq!(Label::parse(&text).unwrap().value(), value);
            assert_eq!(Label::parse(&text).unwrap().to_string(), text);
        }
        for value in ["\0", "a\nb", "\u{7f}", "\u{85}"] {
            assert_eq!(Label::new("k", value), Err(LabelError::BadValue));
        }
        assert_eq!(Label::from_wire(b"k=\xff"), None);
    }

    #[test]
    fn a_label_has_at_most_what_its_length_byte_can_say() {
        assert!(Label::new("k", &"x".repeat(253)).is_ok());
        assert_eq!(Label::new("k", &"x".repeat(254)), Err(LabelError::TooLong { actual: 256 }));
        assert_eq!(
            Label::new(&"k".repeat(300), "").unwrap_err().to_string(),
            "a label has at most 255 bytes, this has 301"
        );
    }
}

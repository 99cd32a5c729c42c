//! The text of a URL as it is given, before it is parsed for its use.

use std::fmt;
use std::str::FromStr;

/// The text of a URL, which may contain secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct UrlText(String);

impl UrlText {
    /// The text, for a parser that does not repeat it.
    pub(in crate::services) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UrlText {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(UrlText(text.to_owned()))
    }
}

impl fmt::Debug for UrlText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UrlText(..)")
    }
}

//! The text of a URL as it is given, before it is parsed for its use.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;

/// The text of a URL, which may contain secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct UrlText(String);

impl UrlText {
    /// What stands in the place of a secret.
    pub(crate) const HIDDEN: &str = "hidden";

    /// A URL as it may be shown: user, password, path and query are replaced. So is all of what is no URL.
    pub(crate) fn without_secrets(text: &str) -> String {
        let parsed = Url::parse(text).ok().filter(|url| !url.cannot_be_a_base());
        let Some(mut url) = parsed else { return Self::HIDDEN.to_owned() };
        let has_path = !url.path().trim_matches('/').is_empty();
        let has_user = !url.username().is_empty() || url.password().is_some();
        let has_more = url.query().is_some() || url.fragment().is_some();
        if !has_path && !has_user && !has_more {
            return text.to_owned();
        }
        let hidden = Some(Self::HIDDEN);
        if has_user && (url.set_username(Self::HIDDEN).is_err() || url.set_password(hidden).is_err()) {
            return Self::HIDDEN.to_owned();
        }
        if has_path {
            url.set_path(Self::HIDDEN);
        }
        url.set_query(hidden.filter(|_| url.query().is_some()));
        url.set_fragment(None);
        url.into()
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_is_shown_has_none_of_its_secrets_and_is_still_one() {
        for (text, shown) in [
            ("http://localhost:9093", "http://localhost:9093"),
            ("smtp://[::1]:25/", "smtp://[::1]:25/"),
            ("https://u:p@a.example/b/c?d=e#f", "https://hidden:hidden@a.example/hidden?hidden"),
            ("https://u@a.example", "https://hidden:hidden@a.example/"),
            ("https://a.example/services/T0/B0", "https://a.example/hidden"),
            ("https://a.example/?key=1", "https://a.example/?hidden"),
            ("u:p@a.example", "hidden"),
            ("data:secret", "hidden"),
            ("", "hidden"),
        ] {
            assert_eq!(UrlText::without_secrets(text), shown, "{text}");
            assert_eq!(UrlText::without_secrets(shown), shown, "{text}");
        }
    }
}

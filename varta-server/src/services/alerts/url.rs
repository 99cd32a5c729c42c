//! The URL of a receiver, which never shows its secrets.

use std::fmt;

use reqwest::Url;

use crate::base::host_check::HostCheck;

/// An `http` or `https` URL. Shown without user, password and query, and for a webhook without its path.
#[derive(Clone, PartialEq, Eq)]
pub struct AlertUrl {
    url: Url,
    /// Whether its path is shown: that of a webhook is often its only secret.
    shows_path: bool,
}

impl AlertUrl {
    /// The API endpoint of the Alertmanager at `text`: the path of API v2 is appended.
    ///
    /// # Errors
    ///
    /// The fault, without the text itself.
    pub fn of_alertmanager(text: &str) -> Result<Self, String> {
        let mut url = parse(text)?;
        if url.query().is_some() {
            return Err("an Alertmanager's URL has no query".to_owned());
        }
        let path = format!("{}/api/v2/alerts", url.path().trim_end_matches('/'));
        url.set_path(&path);
        Ok(AlertUrl { url, shows_path: true })
    }

    /// The URL of a webhook.
    ///
    /// # Errors
    ///
    /// The fault, without the text itself.
    pub fn of_webhook(text: &str) -> Result<Self, String> {
        Ok(AlertUrl { url: parse(text)?, shows_path: false })
    }

    /// The stand-in for one that is wrong.
    pub(in crate::services) fn stand_in() -> Self {
        Self::of_webhook("https://stand-in.invalid/").expect("is a URL")
    }

    /// The URL with a segment more in its path, before its query.
    pub(in crate::services) fn below(&self, segment: &str) -> Self {
        let mut url = self.url.clone();
        let path = format!("{}/{segment}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        AlertUrl { url, shows_path: self.shows_path }
    }

    /// Its host and port.
    pub(super) fn authority(&self) -> String {
        let port = self.url.port_or_known_default().unwrap_or_default();
        format!("{}:{port}", self.url.host_str().unwrap_or_default())
    }

    /// Checks that the host has an address.
    pub(in crate::services) fn check_host(&self, option: &'static str, host: &mut HostCheck) {
        let name = self.url.host_str().unwrap_or_default();
        let name = name.trim_start_matches('[').trim_end_matches(']');
        host.host(option, name, self.url.port_or_known_default().unwrap_or_default());
    }

    pub(super) fn get(&self) -> &Url {
        &self.url
    }

    /// Whether requests are encrypted.
    pub(in crate::services) fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }
}

fn parse(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
    match url.scheme() {
        "http" | "https" => {}
        _ => return Err("begins neither with http:// nor with https://".to_owned()),
    }
    if url.fragment().is_some() {
        return Err("has a fragment, behind #, which no server gets to see".to_owned());
    }
    Ok(url)
}

impl fmt::Display for AlertUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.url.scheme(), self.url.host_str().unwrap_or_default())?;
        if let Some(port) = self.url.port() {
            write!(f, ":{port}")?;
        }
        if self.shows_path {
            f.write_str(self.url.path())
        } else if self.url.path() == "/" && self.url.query().is_none() {
            f.write_str("/")
        } else {
            f.write_str("/…")
        }
    }
}

impl fmt::Debug for AlertUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlertUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alertmanager_is_asked_below_its_own_path() {
        let of = |text| AlertUrl::of_alertmanager(text).unwrap().to_string();
        assert_eq!(of("http://localhost:9093"), "http://localhost:9093/api/v2/alerts");
        assert_eq!(of("https://am.example/prefix/"), "https://am.example/prefix/api/v2/alerts");
        assert_eq!(of("http://[::1]:9093"), "http://[::1]:9093/api/v2/alerts");
    }

    #[test]
    fn a_segment_is_appended_to_the_path_and_the_query_stays() {
        for (text, wanted) in [
            ("https://hc.example/key", "https://hc.example/key/start"),
            ("https://hc.example/key/?a=b", "https://hc.example/key/start?a=b"),
            ("https://hc.example", "https://hc.example/start"),
        ] {
            assert_eq!(AlertUrl::of_webhook(text).unwrap().below("start").get().as_str(), wanted);
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let hook =
            AlertUrl::of_webhook("https://user:password@hooks.example:8443/T0/secret?token=secret").unwrap();
        for shown in [hook.to_string(), format!("{hook:?}")] {
            assert!(shown.contains("https://hooks.example:8443/…"), "{shown}");
            assert!(
                !shown.contains("secret") && !shown.contains("user") && !shown.contains("password"),
                "{shown}"
            );
        }
        let alertmanager = AlertUrl::of_alertmanager("http://user:password@am.example").unwrap();
        assert_eq!(alertmanager.to_string(), "http://am.example/api/v2/alerts");
        assert_eq!(AlertUrl::of_webhook("http://localhost").unwrap().to_string(), "http://localhost/");
    }

    #[test]
    fn what_cannot_be_asked_is_refused_without_repeating_it() {
        for text in
            ["", "secret", "//secret", "ftp://secret/", "http://", "http://secret/#secret", "file:///secret"]
        {
            let fault = AlertUrl::of_webhook(text).unwrap_err();
            assert!(!fault.contains("secret"), "{fault}");
        }
        assert!(AlertUrl::of_alertmanager("http://secret/?a=b").is_err());
    }
}

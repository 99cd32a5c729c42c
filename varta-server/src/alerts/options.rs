//! What is to be told, to whom and how: checked with the rest of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use super::url::AlertUrl;
use crate::config::LONGEST_DURATION;
use crate::error::Error;
use crate::secret::Secret;

/// Alertmanagers at once.
const MOST_ALERTMANAGERS: usize = 8;
/// The most falls that can be asked for: they are remembered for each agent that is not well.
const MOST_FALLS: usize = 1_000;
const SHORTEST_RESEND: Duration = Duration::from_millis(100);
const LONGEST_RESEND: Duration = Duration::from_secs(3_600);
const SHORTEST: Duration = Duration::from_secs(1);

/// Who is told of agents in alarm; nobody, if nothing else is said.
#[derive(Debug)]
pub struct AlertOptions {
    /// Alertmanagers; each is told everything.
    pub alertmanagers: Vec<AlertUrl>,
    /// Where every notice is sent, once.
    pub webhook: Option<AlertUrl>,
    /// What notices are signed with.
    pub webhook_key: Option<Secret>,
    /// Certificates of authorities that are trusted beside those of the host.
    pub ca_file: Option<PathBuf>,
    /// How often Alertmanagers are told what lasts.
    pub resend_every: Duration,
    /// How long a notice, or the end of an alert, is tried to be told.
    pub give_up_after: Duration,
    /// So many falls within the window are flapping; 0 for never.
    pub flap_limit: usize,
    /// See [`AlertOptions::flap_limit`]; and for how long an agent that flaps is to be well before it is told so.
    pub flap_window: Duration,
}

impl Default for AlertOptions {
    fn default() -> Self {
        AlertOptions {
            alertmanagers: Vec::new(),
            webhook: None,
            webhook_key: None,
            ca_file: None,
            resend_every: Duration::from_secs(60),
            give_up_after: Duration::from_secs(3_600),
            flap_limit: 3,
            flap_window: Duration::from_secs(600),
        }
    }
}

impl AlertOptions {
    /// Whether anybody is to be told.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.alertmanagers.is_empty() || self.webhook.is_some()
    }

    pub(super) fn urls(&self) -> impl Iterator<Item = &AlertUrl> {
        self.alertmanagers.iter().chain(&self.webhook)
    }

    /// Checks what the types leave open.
    ///
    /// # Errors
    ///
    /// The first option whose value makes no sense, or would do nothing.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |option, fault: String| Err(Error::Option { option, fault });
        let AlertOptions { alertmanagers, .. } = self;
        if alertmanagers.len() > MOST_ALERTMANAGERS {
            let fault =
                format!("is given {} times, and there may be {MOST_ALERTMANAGERS}", alertmanagers.len());
            return wrong("--alertmanager", fault);
        }
        if let Some(index) =
            (1..alertmanagers.len()).find(|index| alertmanagers[..*index].contains(&alertmanagers[*index]))
        {
            return wrong("--alertmanager", format!("{} is given twice", alertmanagers[index]));
        }
        if self.webhook_key.is_some() && self.webhook.is_none() {
            return wrong("--webhook-key-file", "does nothing without --webhook".to_owned());
        }
        if self.ca_file.is_some() && !self.urls().any(AlertUrl::is_https) {
            let fault = "does nothing without an https:// URL for --alertmanager or --webhook".to_owned();
            return wrong("--alert-ca-file", fault);
        }
        if !(SHORTEST_RESEND..=LONGEST_RESEND).contains(&self.resend_every) {
            let fault = format!("{:?} is not between 100ms and 1h", self.resend_every);
            return wrong("--alert-resend-every", fault);
        }
        if !(SHORTEST..=LONGEST_DURATION).contains(&self.give_up_after) {
            let fault = format!("{:?} is not between 1s and 366 days", self.give_up_after);
            return wrong("--alert-give-up-after", fault);
        }
        if self.flap_limit > MOST_FALLS {
            return wrong("--flap-limit", format!("{} is more than {MOST_FALLS}", self.flap_limit));
        }
        if !(SHORTEST..=LONGEST_DURATION).contains(&self.flap_window) {
            let fault = format!("{:?} is not between 1s and 366 days", self.flap_window);
            return wrong("--flap-window", fault);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut AlertOptions)) -> String {
        let mut options = AlertOptions::default();
        options.check().unwrap();
        options.alertmanagers.push(AlertUrl::of_alertmanager("http://localhost:9093").unwrap());
        options.check().unwrap();
        change(&mut options);
        let error = options.check().unwrap_err();
        assert_eq!(error.exit_status(), 2, "{error}");
        error.to_string()
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        let twice = refused(|options| options.alertmanagers.push(options.alertmanagers[0].clone()));
        assert!(twice.starts_with("--alertmanager") && twice.contains("given twice"), "{twice}");
        let many =
            |number| AlertUrl::of_alertmanager(&format!("http://localhost:{}", 9_094 + number)).unwrap();
        assert!(refused(|options| options.alertmanagers.extend((0..8).map(many))).contains("9 times"));
        assert!(refused(|options| options.ca_file = Some("ca.pem".into())).starts_with("--alert-ca-file"));
        assert!(refused(|options| options.resend_every = Duration::ZERO).starts_with("--alert-resend-every"));
        assert!(
            refused(|options| options.give_up_after = Duration::ZERO).starts_with("--alert-give-up-after")
        );
        assert!(refused(|options| options.flap_limit = 1_001).starts_with("--flap-limit"));
        assert!(refused(|options| options.flap_window = Duration::MAX).starts_with("--flap-window"));
    }
}

//! Sends notifications as mails, each to all addresses, through one relay.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use reqwest::Url;
use serde_json::Value;
use varta_proto::secure::read_private;

use crate::base::error::Error;
use crate::base::host_check::HostCheck;
use crate::services::alerts::http_client::{DeliveryResult, authorities};
use crate::services::alerts::notification::Delivery;
use crate::services::alerts::templates::{Template, title};

/// The timeout of each step of the exchange with the relay.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The most addresses.
pub(super) const MAX_ADDRESSES: usize = 16;
/// The most characters of a reason in the log.
const MAX_REASON_LEN: usize = 200;
/// The ports that a URL need not name.
const PORT_OF_STARTTLS: u16 = 587;
const PORT_OF_TLS: u16 = 465;
const PORT_OF_PLAINTEXT: u16 = 25;

/// The settings of mails.
#[derive(Debug)]
pub struct MailOptions {
    /// The relay that takes the mails.
    pub relay: Relay,
    /// The sender.
    pub from: MailAddress,
    /// The receivers; each mail goes to all of them.
    pub to: Vec<MailAddress>,
    /// By what the relay knows this server.
    pub login: Option<Login>,
    /// What writes the text of a mail.
    pub template: Template,
}

/// A mail address, with a name or without: `varta@example.test`, `Varta <varta@example.test>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailAddress(Mailbox);

impl FromStr for MailAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(MailAddress).map_err(|error| format!("is no mail address: {error}"))
    }
}

/// How the connection to a relay is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protection {
    /// TLS from the first byte on: `smtps://`.
    Tls,
    /// STARTTLS, without which nothing is sent: `smtp://`.
    StartTls,
    /// None: `smtp://` with a loopback address.
    Loopback,
}

/// A relay by its URL, without a user and a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    host: String,
    port: u16,
    protection: Protection,
}

impl Relay {
    /// Checks that the host has an address.
    pub(super) fn check_host(&self, host: &mut HostCheck) {
        host.host("--mail-relay", &self.host, self.port);
    }

    /// Whether the certificate of the relay is checked.
    pub(super) fn is_encrypted(&self) -> bool {
        self.protection != Protection::Loopback
    }
}

impl FromStr for Relay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("has a user or a password; put them into --mail-credentials-file".to_owned());
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err("has more than a scheme, a host and a port".to_owned());
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("has no host")?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_loopback =
            host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        let (protection, usual) = match url.scheme() {
            "smtps" => (Protection::Tls, PORT_OF_TLS),
            "smtp" if is_loopback => (Protection::Loopback, PORT_OF_PLAINTEXT),
            "smtp" => (Protection::StartTls, PORT_OF_STARTTLS),
            _ => return Err("begins neither with smtp:// nor with smtps://".to_owned()),
        };
        Ok(Relay { host, port: url.port().unwrap_or(usual), protection })
    }
}

impl fmt::Display for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.protection == Protection::Tls { "smtps" } else { "smtp" };
        let Relay { host, port, .. } = self;
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

/// A user and a password. `Debug` does not show them.
pub struct Login(Credentials);

impl Login {
    /// The stand-in for one that is not read.
    pub(super) fn stand_in() -> Self {
        Login(Credentials::new(String::new(), String::new()))
    }

    /// Reads `USER:PASSWORD` from the only line of a file.
    ///
    /// # Errors
    ///
    /// The file is a symlink, belongs to another user, is readable by others, or does not hold such a line.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let refused = |fault: String| Error::configuration_file(path, fault);
        let login = read_private(path, |text| {
            let line = text.trim_end_matches(['\n', '\r']);
            let (user, password) = line.split_once(':')?;
            let is_login = !user.is_empty() && !password.is_empty() && !line.chars().any(char::is_control);
            is_login.then(|| Login(Credentials::new(user.to_owned(), password.to_owned())))
        });
        let login = login.map_err(|error| refused(error.fault().to_string()))?;
        login.ok_or_else(|| refused("must hold USER:PASSWORD on one line".to_owned()))
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(..)")
    }
}

/// Mail as a receiver of notifications.
pub(super) struct Mail {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: MailAddress,
    to: Vec<MailAddress>,
    template: Template,
    host: String,
    name: String,
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mail").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Mail {
    /// Prepares it; nothing is sent. `host` is the name of this host.
    ///
    /// # Errors
    ///
    /// A file of certificates that cannot be used, or TLS that cannot be set up.
    pub(super) fn open(options: MailOptions, ca_file: Option<&Path>, host: &str) -> Result<Self, Error> {
        let MailOptions { relay, from, to, login, template } = options;
        let failed = |error: lettre::transport::smtp::Error| Error::Runtime {
            action: "set up the client for mails",
            source: std::io::Error::other(error),
        };
        let tls = || {
            // Those of the host are trusted by default.
            let mut parameters = TlsParameters::builder(relay.host.clone());
            for certificate in ca_file.map(authorities).transpose()?.unwrap_or_default() {
                let certificate = Certificate::from_der(certificate.to_vec()).map_err(failed)?;
                parameters = parameters.add_root_certificate(certificate);
            }
            parameters.build_rustls().map_err(failed)
        };
        let tls = match relay.protection {
            Protection::Tls => Tls::Wrapper(tls()?),
            Protection::StartTls => Tls::Required(tls()?),
            Protection::Loopback => Tls::None,
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(relay.host.clone())
            .port(relay.port)
            .tls(tls)
            .timeout(Some(ANSWER_WITHIN))
            .hello_name(ClientId::Domain(domain(host)));
        if let Some(Login(credentials)) = login {
            builder = builder.credentials(credentials);
        }
        let name = relay.to_string();
        Ok(Mail { transport: builder.build(), from, to, template, host: domain(host), name })
    }

    /// Who gets the mails, and by which relay.
    pub(super) fn target(&self) -> String {
        let to: Vec<_> = self.to.iter().map(|MailAddress(address)| address.to_string()).collect();
        format!("{} {}", self.name, to.join(" "))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Sends one notification.
    pub(super) async fn send(&self, delivery: &Delivery) -> DeliveryResult {
        let message = match self.message(delivery) {
            Ok(message) => message,
            Err(fault) => return DeliveryResult::Refused(fault),
        };
        // The library has a timeout for each step, and this one is for all of them.
        match tokio::time::timeout(ANSWER_WITHIN * 3, self.transport.send(message)).await {
            Err(_) => DeliveryResult::Failed(
                format!("it has not taken a mail within {:?}", ANSWER_WITHIN * 3),
                None,
            ),
            Ok(Ok(_)) => DeliveryResult::Taken,
            Ok(Err(error)) => {
                let reason = reason(&error);
                if error.is_permanent() {
                    DeliveryResult::Refused(reason)
                } else {
                    DeliveryResult::Failed(reason, None)
                }
            }
        }
    }

    fn message(&self, delivery: &Delivery) -> Result<Message, String> {
        let notice: Value = serde_json::from_str(&delivery.body).map_err(|error| error.to_string())?;
        let text = self.template.render(&notice)?;
        let builder = Message::builder().from(self.from.0.clone());
        let builder = self.to.iter().fold(builder, |builder: MessageBuilder, to| builder.to(to.0.clone()));
        builder
            .subject(title(&notice))
            // The same for each attempt, so that a mail that comes twice can be recognised.
            .message_id(Some(format!("<{}@{}>", delivery.id, self.host)))
            .header(AutoSubmitted)
            .header(ContentType::TEXT_PLAIN)
            .body(text)
            .map_err(|error| format!("is no mail: {error}"))
    }
}

/// The host name as a domain: what else it may hold becomes `-`.
fn domain(host: &str) -> String {
    let is_plain = |character: &char| character.is_ascii_alphanumeric() || matches!(character, '.' | '-');
    let text: String =
        host.chars().map(|character| if is_plain(&character) { character } else { '-' }).collect();
    if text.is_empty() { "localhost".to_owned() } else { text }
}

/// An error with all its sources, as one line for the log.
fn reason(error: &lettre::transport::smtp::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    let line: String = text.chars().take(MAX_REASON_LEN).collect();
    line.escape_debug().to_string()
}

/// Tells programs that no person wrote the mail (RFC 3834), so that they do not answer it.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(AutoSubmitted)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_relay_is_encrypted_unless_it_is_this_host() {
        let of = |text: &str| text.parse::<Relay>().map(|relay| (relay.to_string(), relay.is_encrypted()));
        let relay = |text: &str, is_encrypted| Ok((text.to_owned(), is_encrypted));
        assert_eq!(of("smtp://mail.example.test"), relay("smtp://mail.example.test:587", true));
        assert_eq!(of("smtps://mail.example.test"), relay("smtps://mail.example.test:465", true));
        assert_eq!(of("smtps://127.0.0.1:4650"), relay("smtps://127.0.0.1:4650", true));
        assert_eq!(of("smtp://localhost/"), relay("smtp://localhost:25", false));
        assert_eq!(of("smtp://[::1]:2525"), relay("smtp://[::1]:2525", false));
        assert_eq!(of("smtp://10.0.0.1:25"), relay("smtp://10.0.0.1:25", true));
        for wrong in [
            "",
            "mail.example.test",
            "http://a",
            "smtp://",
            "smtp://user:secret@a",
            "smtp://a/b",
            "smtp://a?b",
        ] {
            let fault = of(wrong).unwrap_err();
            assert!(!fault.contains("secret"), "{fault}");
        }
    }

    #[test]
    fn a_login_is_one_line_of_a_private_file_and_is_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("login");
        let read = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Login::from_file(&path)
        };
        let login = read("varta:pass:word\n", 0o600).unwrap();
        assert_eq!(login.0, Credentials::new("varta".to_owned(), "pass:word".to_owned()));
        assert_eq!(format!("{login:?}"), "Login(..)");
        for wrong in ["", "varta", ":password", "varta:", "varta:a\nb:c"] {
            assert!(read(wrong, 0o600).is_err(), "{wrong}");
        }
        assert!(read("varta:password", 0o644).unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn a_host_name_is_a_domain_whatever_it_holds() {
        assert_eq!(
            (domain("web-1.example"), domain("a b\r\nc"), domain("")),
            ("web-1.example".into(), "a-b--c".into(), "localhost".into())
        );
    }
}

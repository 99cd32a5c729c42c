//! The certificate with which the metrics address answers over TLS, and its key.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::{InconsistentKeys, ServerConfig};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::base::error::Error;
use crate::base::files::certificates;
use crate::base::time::rfc3339;

/// What is spoken inside TLS.
const HTTP_1: &[u8] = b"http/1.1";

/// A certificate with its chain and its key. They belong together, and have been read whole. Clones share them.
#[derive(Clone)]
pub struct TlsIdentity {
    config: Arc<ServerConfig>,
    path: PathBuf,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl TlsIdentity {
    /// Reads a certificate, followed by those of its chain, and its private key, both in PEM. They may be in one file.
    ///
    /// # Errors
    ///
    /// Either file cannot be read or is not in PEM, the key is open to others, or it does not belong to the first
    /// certificate.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let refused = |fault: String| {
            Error::configuration_file(certificate, format!("{fault}; see --metrics-tls-cert"))
        };
        let key_refused =
            |fault: String| Error::configuration_file(key, format!("{fault}; see --metrics-tls-key"));
        let chain = certificates::read(certificate).map_err(refused)?;
        let (not_before, not_after) = validity(&chain).map_err(refused)?;
        let private_key = certificates::read_key(key).map_err(key_refused)?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| refused(format!("cannot be used for TLS: {error}")))?
            .with_no_client_auth()
            .with_single_cert(chain, private_key);
        let mut config = config.map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => key_refused(format!(
                "does not belong to the first certificate of {}, which must be that of this server",
                certificate.display()
            )),
            rustls::Error::InvalidCertificate(error) => {
                refused(format!("its first certificate cannot be used for TLS: {error}"))
            }
            _ => key_refused(
                "cannot be used for TLS: RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 and Ed25519 can"
                    .to_owned(),
            ),
        })?;
        config.alpn_protocols = vec![HTTP_1.to_vec()];
        Ok(TlsIdentity { config: Arc::new(config), path: certificate.to_path_buf(), not_before, not_after })
    }

    /// What a connection is opened with.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// When the first certificate of the chain expires, in seconds of Unix time.
    pub(super) fn expiry(&self) -> f64 {
        self.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
    }

    /// What clients will object to at this time, as a sentence.
    pub(super) fn complaint(&self, now: SystemTime) -> Option<String> {
        let path = self.path.display();
        if now > self.not_after {
            let since = rfc3339(self.not_after);
            return Some(format!(
                "{path}: a certificate has expired at {since}: clients will refuse it; renew it"
            ));
        }
        (now < self.not_before).then(|| {
            let from = rfc3339(self.not_before);
            format!(
                "{path}: a certificate is valid from {from} on: clients will refuse it; is the clock right?"
            )
        })
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The time in which all certificates of a chain are valid.
fn validity(chain: &[CertificateDer<'_>]) -> Result<(SystemTime, SystemTime), String> {
    let mut whole = (UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX)) * 64);
    for (index, der) in chain.iter().enumerate() {
        let certificate = Certificate::from_der(der)
            .map_err(|error| format!("certificate {} in it is none of X.509: {error}", index + 1))?;
        let validity = certificate.tbs_certificate().validity();
        whole.0 = whole.0.max(UNIX_EPOCH + validity.not_before.to_unix_duration());
        whole.1 = whole.1.min(UNIX_EPOCH + validity.not_after.to_unix_duration());
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use tempfile::TempDir;

    use super::*;

    /// Certificates and keys in files.
    struct Files(TempDir);

    impl Files {
        fn new() -> Self {
            Files(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.path(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            path
        }

        /// A certificate that is valid through these years, and its key.
        fn issue(&self, name: &str, years: [i32; 2]) -> [PathBuf; 2] {
            let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
            [params.not_before, params.not_after] = years.map(|year| date_time_ymd(year, 1, 1));
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap().pem();
            [
                self.write(&format!("{name}.pem"), &certificate),
                self.write(&format!("{name}.key"), &key.serialize_pem()),
            ]
        }
    }

    fn fault(certificate: &Path, key: &Path) -> String {
        let error = TlsIdentity::read(certificate, key).unwrap_err();
        assert_eq!(error.exit_status(), 2);
        error.to_string()
    }

    #[test]
    fn a_chain_is_valid_for_as_long_as_each_of_its_certificates() {
        let files = Files::new();
        let [first, key] = files.issue("first", [2010, 2040]);
        let [second, _] = files.issue("second", [2015, 2030]);
        let both = fs::read_to_string(first).unwrap() + &fs::read_to_string(second).unwrap();
        let identity = TlsIdentity::read(&files.write("chain.pem", &both), &key).unwrap();
        assert_eq!(rfc3339(identity.not_after), "2030-01-01T00:00:00.000Z");
        assert_eq!(identity.expiry(), 1_893_456_000.0);
        let at = |seconds| identity.complaint(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(1_700_000_000), None);
        let early = at(1_300_000_000).unwrap();
        assert!(
            early.contains("chain.pem: a certificate is valid from 2015-01-01T00:00:00.000Z on"),
            "{early}"
        );
        let late = at(1_900_000_000).unwrap();
        assert!(late.contains("has expired at 2030-01-01T00:00:00.000Z"), "{late}");
    }

    #[test]
    fn one_file_may_hold_both_and_a_link_may_lead_to_it() {
        let files = Files::new();
        let [certificate, key] = files.issue("both", [2010, 2040]);
        let both = fs::read_to_string(key).unwrap() + &fs::read_to_string(certificate).unwrap();
        let path = files.write("both.pem", &both);
        let link = files.path("link");
        symlink(&path, &link).unwrap();
        TlsIdentity::read(&path, &path).unwrap();
        let identity = TlsIdentity::read(&link, &link).unwrap();
        assert!(!format!("{identity:?}").contains("PRIVATE"), "{identity:?}");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_by_both_names() {
        let files = Files::new();
        let [certificate, _] = files.issue("a", [2010, 2040]);
        let [_, other_key] = files.issue("b", [2010, 2040]);
        let said = fault(&certificate, &other_key);
        let expected = format!(
            "{}: does not belong to the first certificate of {}, which must be that of this server; see --metrics-tls-key",
            other_key.display(),
            certificate.display()
        );
        assert_eq!(said, expected);
    }

    #[test]
    fn what_is_no_certificate_or_no_key_is_refused_by_name() {
        let files = Files::new();
        let [certificate, key] = files.issue("sound", [2010, 2040]);
        let secret = fs::read_to_string(&key).unwrap();
        let empty = files.write("empty", "");
        let of_certificate = |name: &Path| fault(name, &key);
        let of_key = |text: &str| fault(&certificate, &files.write("key", text));
        let section =
            |name: &str, text: &str| format!("-----BEGIN {name}-----\n{text}\n-----END {name}-----\n");
        for (said, expected) in [
            (of_certificate(&files.path("none")), "none: cannot be read: No such file"),
            (of_certificate(&empty), "empty: has no certificate in PEM in it; see --metrics-tls-cert"),
            (of_certificate(&key), "has no certificate in PEM in it"),
            (
                of_certificate(&files.write("x", &section("CERTIFICATE", "MAA="))),
                "x: certificate 1 in it is none of X.509: ",
            ),
            (of_key(""), "key: has no private key in PEM in it that is not encrypted; see --metrics-tls-key"),
            (of_key(&section("ENCRYPTED PRIVATE KEY", "MAA=")), "that is not encrypted"),
            (of_key(&section("PRIVATE KEY", "MAA=")), "key: cannot be used for TLS: "),
            (of_key(&secret[..secret.len() / 2]), "key: is no private key in PEM: a section has no line"),
            (
                of_key(&section("PRIVATE KEY", "!!!!")),
                "key: is no private key in PEM: a section is not in base64",
            ),
        ] {
            assert!(said.contains(expected), "{expected:?} is not in {said:?}");
        }
        fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
        let open = fault(&certificate, &key);
        assert!(
            open.contains("is open to others (mode 0644); chmod 600 it; see --metrics-tls-key"),
            "{open}"
        );
    }
}

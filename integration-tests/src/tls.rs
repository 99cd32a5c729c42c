//! Certificates of an authority of their own, and a client that trusts it.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use crate::http::{self, Response};
use crate::route::write_secret;

const WORKS: &str = "a certificate can be made";

/// An authority, which a test makes and clients of the test trust.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    directory: PathBuf,
    /// Its own certificate, in PEM.
    pub path: PathBuf,
}

/// The files of a certificate and of its key.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The certificate in PEM.
    pub certificate: PathBuf,
    /// The key in PEM, closed to others.
    pub key: PathBuf,
}

impl CertificateFiles {
    /// The options of a server that answers with it.
    #[must_use]
    pub fn options(&self) -> [String; 4] {
        let [certificate, key] = [&self.certificate, &self.key].map(|path| path.display().to_string());
        ["--metrics-tls-cert".to_owned(), certificate, "--metrics-tls-key".to_owned(), key]
    }
}

impl Authority {
    /// A new one, whose files are in this directory.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        let mut params = CertificateParams::new([]).expect(WORKS);
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect(WORKS);
        let certificate = params.self_signed(&key).expect(WORKS);
        let path = directory.join("authority.pem");
        fs::write(&path, certificate.pem()).expect("the directory of a test can be written to");
        Authority {
            issuer: Issuer::new(params, key),
            certificate: certificate.der().clone(),
            directory: directory.to_path_buf(),
            path,
        }
    }

    /// A certificate for this host that expires at the end of a year, in files named after `name`, which are
    /// replaced if they are there.
    #[must_use]
    pub fn issue(&self, name: &str, year: i32) -> CertificateFiles {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).expect(WORKS);
        params.distinguished_name.push(DnType::CommonName, "localhost");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().expect(WORKS);
        let issued = params.signed_by(&key, &self.issuer).expect(WORKS);
        let certificate = self.directory.join(format!("{name}.pem"));
        fs::write(&certificate, issued.pem()).expect("the directory of a test can be written to");
        let name_of_key = format!("{name}.key");
        match fs::remove_file(self.directory.join(&name_of_key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{name_of_key}: {error}"),
            _ => {}
        }
        let key = write_secret(&self.directory, &name_of_key, &key.serialize_pem());
        CertificateFiles { certificate, key }
    }

    /// A connection whose handshake has not begun, of a client that speaks these versions and trusts the authority.
    ///
    /// # Errors
    ///
    /// The error of the kernel.
    pub fn connect(
        &self,
        address: SocketAddr,
        versions: &[&'static SupportedProtocolVersion],
    ) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("it is a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("the provider has all versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::from(address.ip());
        let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        Ok(StreamOwned::new(connection, http::connect(address)?))
    }

    /// As [`http::get`], over TLS.
    ///
    /// # Errors
    ///
    /// As of [`http::get`], and `InvalidData` for a server that is not trusted.
    pub fn get(&self, address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> io::Result<Response> {
        let mut stream = self.connect(address, rustls::ALL_VERSIONS)?;
        http::get_over(&mut stream, address, path, headers)
    }
}

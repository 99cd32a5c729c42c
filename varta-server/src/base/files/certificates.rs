//! Files of certificates and keys in PEM.

use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::base::files::bounded_read::{self, Checks, Owner, Symlink};
use crate::base::files::private_file;

/// The certificates of all authorities of a host take less.
const MAX_LEN: u64 = 4 << 20;
/// A key of 16,384 bits takes less, also with certificates beside it.
const MAX_KEY_FILE_LEN: usize = 64 << 10;

/// Reads the certificates of a file, of which there is at least one.
///
/// # Errors
///
/// What is wrong with the file.
pub(crate) fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let checks = Checks { max_len: MAX_LEN, symlink: Symlink::Followed, owner: Owner::Anybody };
    let (content, _) = bounded_read::read(path, checks).map_err(|error| error.to_string())?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    let certificates =
        certificates.map_err(|error| format!("is no file of certificates in PEM: {}", fault(&error)))?;
    if certificates.is_empty() {
        return Err("has no certificate in PEM in it".to_owned());
    }
    Ok(certificates)
}

/// Reads the first private key of a file, which must be closed to others.
///
/// # Errors
///
/// What is wrong with the file.
pub(crate) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let content = private_file::read(path, MAX_KEY_FILE_LEN)?;
    PrivateKeyDer::from_pem_slice(&content).map_err(|error| match error {
        pem::Error::NoItemsFound => "has no private key in PEM in it that is not encrypted".to_owned(),
        error => format!("is no private key in PEM: {}", fault(&error)),
    })
}

/// What is wrong with PEM. Nothing of the text is in it.
fn fault(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no line `-----END ...-----`".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a line `-----BEGIN` has no end".to_owned(),
        pem::Error::Base64Decode(_) => "a section is not in base64".to_owned(),
        other => other.to_string(),
    }
}

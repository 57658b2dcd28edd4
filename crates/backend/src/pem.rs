//! Certificates and keys from files in PEM, for either end of TLS.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A file that cannot be read, or holds something else.
#[derive(Debug, thiserror::Error)]
#[error("{path} holds no {what} in PEM: {reason}")]
pub struct PemError {
    /// Which.
    pub path: PathBuf,
    /// What is expected there.
    pub what: &'static str,
    /// What is wrong.
    pub reason: String,
}

/// Whose certificate comes first, and those that vouch for it.
///
/// # Errors
/// [`PemError`], also where there is none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let bad = |reason: String| PemError {
        path: path.to_owned(),
        what: "certificate",
        reason,
    };
    let read = CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))?;
    let read: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| bad(error.to_string()))?;
    if read.is_empty() {
        return Err(bad("there is none".to_owned()));
    }
    Ok(read)
}

/// The first private key of a file.
///
/// # Errors
/// [`PemError`], also where there is none.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| PemError {
        path: path.to_owned(),
        what: "private key",
        reason: error.to_string(),
    })
}

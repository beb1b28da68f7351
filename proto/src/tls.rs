//! The TLS profile of the whole system: TLS 1.3 only, both sides, aws-lc-rs, hybrid post-quantum key exchange
//! preferred (DESIGN §6; IEC 62443-3-3 SR 3.1, SR 4.1, SR 4.3).
//!
//! Both ends of a connection are verified against the plant's own root and *named* by their URI (see
//! [`crate::peer`]); DNS names and IP addresses play no part, so a coordinator can move. (They do for ordinary TLS
//! clients and brokers on the [`data_path`]: see [`names`].) Validity in time is
//! enforced on both sides, and an expired certificate is said to be expired. Sessions are never resumed: each
//! connection proves possession of its key again, so that nobody outlives their certificate.
//!
//! Between gateways, operators and coordinators [`server`] accepts and [`client`] connects; devices and brokers meet
//! the gateway by [`data_path`]; receivers of logs are met by [`foreign`]. Strangers are met by [`handshakes`], on threads of their own; how much a certificate may
//! cost before it is believed stands in `verifier`, by whose key it is issued in `chains`. This file holds what all share.

mod chains;
pub mod client;
pub mod crowd;
pub mod data_path;
pub mod foreign;
pub mod handshakes;
pub mod names;
pub(crate) mod refused;
pub mod server;
pub mod socket;
pub mod times;
pub mod tunnel;
mod verifier;

pub use crate::peer::validity_ms;
pub use chains::{WrongChain, issuers};
pub use verifier::{CERTIFICATES_BYTES_MAX, CERTIFICATES_MAX, FOREIGN_CERTIFICATES_MAX, TooLong, WrongPeer};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;

use self::names::ServerNames;
use crate::keys::{FileKey, Key, KeyError};
use crate::peer::{PeerError, PeerIdentity};

/// Application protocol of every connection: HTTP/2, for gRPC.
pub const ALPN: &[u8] = b"h2";

/// Why a TLS profile cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A PEM file holds something else.
    #[error("{what} is not PEM that can be used")]
    Pem {
        /// Certificate chain or key, and where it came from.
        what: String,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A chain with no certificate.
    #[error("{0} holds no certificate")]
    Empty(String),
    /// No root to verify a peer against.
    #[error("there is no root certificate to verify the peer against")]
    NoRoot,
    /// The private key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate names nobody.
    #[error("the certificate does not name its holder")]
    Identity(#[from] PeerError),
    /// A part is not acceptable to the TLS library (key does not fit the certificate, malformed root …).
    #[error("the certificate, key or root cannot be used for TLS")]
    Rustls(#[from] rustls::Error),
    /// No verifier can be made from the roots.
    #[error("the roots cannot be used to verify peers")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// A certificate chain, and who signs for it.
#[derive(Debug, Clone)]
pub struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: Key,
}

impl Credentials {
    /// From DER, leaf first.
    ///
    /// # Errors
    /// The chain is empty.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: impl Into<Key>) -> Result<Self, TlsError> {
        if chain.is_empty() {
            return Err(TlsError::Empty("the certificate chain".to_owned()));
        }
        let key = key.into();
        Ok(Self { chain, key })
    }

    /// From PEM texts, leaf first.
    ///
    /// # Errors
    /// The text is not PEM, holds no certificate or key, or they cannot be used.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain = certificates_from_pem(chain, "the certificate chain")?;
        Self::new(chain, FileKey::from_pem(key, "the private key")?)
    }

    /// From PEM files, leaf first.
    ///
    /// # Errors
    /// A file cannot be read, or as [`Credentials::from_pem`].
    pub fn from_files(chain: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain_pem = read(chain)?;
        let certificates = certificates_from_pem(&chain_pem, &chain.display().to_string())?;
        let held = FileKey::find(key)?.ok_or_else(|| TlsError::Read {
            path: key.to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        Self::new(certificates, held)
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Who signs.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Both, for either side of the TLS library.
    ///
    /// # Errors
    /// Key and certificate do not fit, or the certificate cannot be used for TLS.
    pub fn certified(&self) -> Result<Arc<CertifiedKey>, TlsError> {
        let certified = CertifiedKey::new(self.chain.clone(), Arc::new(self.key.clone()));
        certified.keys_match()?;
        Ok(Arc::new(certified))
    }

    /// Who holds them, by their leaf.
    ///
    /// # Errors
    /// The leaf names no identity.
    pub fn identity(&self) -> Result<PeerIdentity, TlsError> {
        let leaf = self
            .chain
            .first()
            .ok_or_else(|| TlsError::Empty("the certificate chain".to_owned()))?;
        Ok(PeerIdentity::from_certificate(leaf)?)
    }

    /// The servers that they are good for.
    ///
    /// # Errors
    /// The leaf cannot be read.
    pub fn server_names(&self) -> Result<ServerNames, TlsError> {
        let leaf = self
            .chain
            .first()
            .ok_or_else(|| TlsError::Empty("the certificate chain".to_owned()))?;
        Ok(ServerNames::of_certificate(leaf)?)
    }

    /// When they were issued and when they expire; milliseconds since 1970.
    ///
    /// # Errors
    /// The leaf cannot be read.
    pub fn validity_ms(&self) -> Result<(u64, u64), TlsError> {
        let leaf = self
            .chain
            .first()
            .ok_or_else(|| TlsError::Empty("the certificate chain".to_owned()))?;
        Ok(validity_ms(leaf)?)
    }
}

/// Reads all certificates of a PEM text; `what` names it in errors.
///
/// # Errors
/// The text is not PEM, or holds no certificate.
pub fn certificates_from_pem(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::Pem {
            what: what.to_owned(),
            source,
        })?;
    if certificates.is_empty() {
        return Err(TlsError::Empty(what.to_owned()));
    }
    Ok(certificates)
}

/// Certificates as PEM, in their order.
pub fn certificates_to_pem<C: AsRef<[u8]>>(certificates: &[C]) -> String {
    use base64::Engine as _;
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = base64::engine::general_purpose::STANDARD.encode(certificate);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, more) = rest.split_at_checked(64).unwrap_or((rest, ""));
            text.push_str(line);
            text.push('\n');
            rest = more;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

/// The cryptography that both sides use: aws-lc-rs, TLS 1.3 suites, X25519MLKEM768 before the classic groups.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

pub(crate) fn root_store(roots: &[CertificateDer<'static>]) -> Result<Arc<rustls::RootCertStore>, TlsError> {
    if roots.is_empty() {
        return Err(TlsError::NoRoot);
    }
    let mut store = rustls::RootCertStore::empty();
    for root in roots {
        store.add(root.clone())?;
    }
    Ok(Arc::new(store))
}

/// A reason of our own inside the TLS library's error, so that it reaches whoever reads the error.
pub(crate) fn certificate_error(reason: impl std::error::Error + Send + Sync + 'static) -> rustls::Error {
    rustls::Error::InvalidCertificate(rustls::CertificateError::Other(rustls::OtherError(Arc::new(
        reason,
    ))))
}

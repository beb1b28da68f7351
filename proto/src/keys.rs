//! Who signs: a private key that never leaves its holder, for TLS and for certificate requests alike (IEC 62443-3-3 SR 1.9 RE 1).
//!
//! ```text
//! KeyHolder (a file; at a gateway on demand its TPM, `agent/tpm`)
//!    └─ Key ─┬─ rustls: either side's certificate        (`tls::Credentials`)
//!            └─ rcgen:  certificate requests, the authority (`certificate_request`, the coordinator's CA)
//! ```
//!
//! Whoever needs a signature asks the holder for it, and sees the public key and signatures only. Three kinds of keys are held,
//! those that the authority certifies; each makes signatures of one form, so that nobody has to choose.

mod file;
mod locked;

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::PublicKeyData as _;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::sign::Signer;
use rustls::{SignatureAlgorithm, SignatureScheme};

pub use self::file::{FileKey, copy};
pub use self::locked::{Passphrase, copy_locked, passphrase_in, unlock};
use crate::peer::PeerIdentity;

/// Holds one private key.
pub trait KeyHolder: fmt::Debug + Send + Sync {
    /// What kind of key it is.
    fn kind(&self) -> KeyKind;

    /// Its public half: the uncompressed point of ECDSA, the 32 bytes of Ed25519.
    fn public_key(&self) -> &[u8];

    /// Signs `message`, which is not hashed yet: ECDSA with the hash of [`KeyKind`], in DER, or Ed25519's 64 bytes.
    ///
    /// # Errors
    /// The holder cannot sign now ([`KeyError::Sign`]).
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError>;
}

/// The kinds of keys that are held, each with its only form of signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA P-256 with SHA-256.
    EcdsaP256,
    /// ECDSA P-384 with SHA-384.
    EcdsaP384,
    /// Ed25519.
    Ed25519,
}

impl KeyKind {
    /// Its name in TLS.
    fn scheme(self) -> SignatureScheme {
        match self {
            Self::EcdsaP256 => SignatureScheme::ECDSA_NISTP256_SHA256,
            Self::EcdsaP384 => SignatureScheme::ECDSA_NISTP384_SHA384,
            Self::Ed25519 => SignatureScheme::ED25519,
        }
    }

    /// Its name in certificates.
    fn named(self) -> &'static rcgen::SignatureAlgorithm {
        match self {
            Self::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::EcdsaP384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Self::Ed25519 => &rcgen::PKCS_ED25519,
        }
    }

    const ALL: [Self; 3] = [Self::EcdsaP256, Self::EcdsaP384, Self::Ed25519];

    fn of(named: &rcgen::SignatureAlgorithm) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.named() == named)
    }
}

/// Why a key cannot be had or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key's file cannot be read or written.
    #[error("cannot {verb} {}", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Others may read the key's file.
    #[error(
        "{} can be read by others (mode {mode:o}); it holds a secret: run chmod 600 on it, and consider who may have read it",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// What was read is not a key.
    #[error("{0} is not a private key in PEM that can be used")]
    Form(String),
    /// A passphrase locks it.
    #[error("{0} is locked by a passphrase; a key from a backup is opened with: penstock-coordinator unlock")]
    Locked(String),
    /// It is a key of another kind.
    #[error("{0} is a key of a kind that is not accepted; use ECDSA P-256, P-384 or Ed25519")]
    Kind(String),
    /// Another passphrase, or not what was written.
    #[error("the passphrase does not open {0}, or the file is damaged")]
    WrongPassphrase(String),
    /// There is no passphrase where one has to be.
    #[error("{0} holds no passphrase: {1}")]
    NoPassphrase(String, &'static str),
    /// A key or a request cannot be made.
    #[error("the key or the certificate request cannot be made")]
    Make(#[from] rcgen::Error),
    /// The holder does not sign.
    #[error("the key's holder cannot sign: {0}")]
    Sign(String),
}

/// A key to sign with, wherever it is held. Clones share the holder.
#[derive(Debug, Clone)]
pub struct Key(Arc<dyn KeyHolder>);

impl Key {
    /// The one that `holder` holds.
    pub fn new(holder: impl KeyHolder + 'static) -> Self {
        Self(Arc::new(holder))
    }

    /// Signs `message`, as [`KeyHolder::sign`] does.
    ///
    /// # Errors
    /// The holder cannot sign now.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.0.sign(message)
    }
}

impl<H: KeyHolder + 'static> From<H> for Key {
    fn from(holder: H) -> Self {
        Self::new(holder)
    }
}

impl<H: KeyHolder + 'static> From<Arc<H>> for Key {
    fn from(holder: Arc<H>) -> Self {
        Self(holder)
    }
}

impl rcgen::PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.0.kind().named()
    }
}

impl rcgen::SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        // The certificate library has no room for the reason.
        self.0.sign(message).map_err(|error| {
            tracing::error!(%error, "no signature for a certificate or a request");
            rcgen::Error::RemoteKeyError
        })
    }
}

impl rustls::sign::SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&self.0.kind().scheme())
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.subject_public_key_info().into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.0.kind() {
            KeyKind::EcdsaP256 | KeyKind::EcdsaP384 => SignatureAlgorithm::ECDSA,
            KeyKind::Ed25519 => SignatureAlgorithm::ED25519,
        }
    }
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.0
            .sign(message)
            .map_err(|error| rustls::Error::Other(rustls::OtherError(Arc::new(error))))
    }

    fn scheme(&self) -> SignatureScheme {
        self.0.kind().scheme()
    }
}

/// A certificate request (PKCS #10, DER) that `key` signed; it names `identity`, if there is one to name.
///
/// # Errors
/// The holder does not sign, or the name cannot be written into a request.
pub fn certificate_request(key: &Key, identity: Option<&PeerIdentity>) -> Result<Vec<u8>, KeyError> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(identity) = identity {
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, identity.subject.name());
        params
            .subject_alt_names
            .push(rcgen::SanType::URI(identity.to_string().try_into()?));
    }
    let asking = Asking {
        key,
        refused: RefCell::default(),
    };
    let made = params.serialize_request(&asking);
    match asking.refused.into_inner() {
        Some(refused) => Err(refused),
        None => Ok(made?.der().to_vec()),
    }
}

/// Keeps why the holder did not sign, for which the certificate library has no room.
struct Asking<'a> {
    key: &'a Key,
    refused: RefCell<Option<KeyError>>,
}

impl rcgen::PublicKeyData for Asking<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.key.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        rcgen::PublicKeyData::algorithm(self.key)
    }
}

impl rcgen::SigningKey for Asking<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.sign(message).map_err(|error| {
            self.refused.replace(Some(error));
            rcgen::Error::RemoteKeyError
        })
    }
}

/// Whether the key of `certificate`, of one of the three kinds, made `signature` over `message`, as [`KeyHolder::sign`] does.
pub fn has_signed(certificate: &CertificateDer<'_>, message: &[u8], signature: &[u8]) -> bool {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
        return false;
    };
    let public_key = &parsed.public_key().subject_public_key.data;
    let known = rustls::crypto::aws_lc_rs::default_provider()
        .signature_verification_algorithms
        .mapping;
    // The kinds differ in the length of their public keys: none is taken for another.
    KeyKind::ALL.into_iter().any(|kind| {
        let algorithm = known
            .iter()
            .find(|(scheme, _)| *scheme == kind.scheme())
            // The first is the one for keys of the kind itself.
            .and_then(|(_, algorithms)| algorithms.first());
        algorithm.is_some_and(|algorithm| algorithm.verify_signature(public_key, message, signature).is_ok())
    })
}

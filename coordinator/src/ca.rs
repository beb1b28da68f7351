//! The plant's certificate authority as its coordinator has it: a key that issues leaves, which name who holds them (DESIGN §6;
//! IEC 62443-3-3 SR 1.8).
//!
//! ```text
//! root.pem, root.key                     a root that issues itself: all on one machine
//! root.pem, issuing.pem, issuing.key     a root whose key is elsewhere (`root`) certified this key
//! root.pem, issuing.pem                  the same, of a key on a token (`authority.keys`, `crate::pkcs11`)
//! trust.json                             the trust bundles so far, if there are any (`trust`): then their roots count
//! next.key                               the key of the next issuing certificate, until that is installed (`install`)
//! ```
//!
//! A certificate's name comes from whoever *decided* it (the token's record, the verified peer), never from what
//! a certificate request wishes. Of a request only the public key is used, and only after its signature proved
//! possession of the private one. Keys: ECDSA P-256 or P-384, or Ed25519.
//!
//! The one URI says who somebody is. Addresses and DNS names beside it ([`ServerNames`], from the approved release, the
//! coordinator's own from its configuration) are what ordinary TLS clients look for where a gateway ends their TLS, at a device
//! that serves, or at the coordinator; no program of Penstock takes a peer for anything because of them.
//!
//! Keys are files with mode 0600, or on a token, which is one more holder (`penstock_proto::keys`).

mod install;
mod issue;
mod request;
mod root;
mod trust;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::{Digest, PlantId};
use penstock_proto::bundle::{BundleError, SignedBundle, Trusted};
use penstock_proto::issuing::NotIssuing;
use penstock_proto::keys::{FileKey, Key, KeyError, KeyKind};
use penstock_proto::tls::{TlsError, certificates_from_pem, validity_ms};
use penstock_proto::v1::TrustHeld;
use penstock_proto::withdrawn::{Held, List, SignedHeld, SignedList, WithdrawnView};
use rcgen::Issuer;
use rustls::pki_types::CertificateDer;

pub use self::issue::IssuedCertificate;
pub use self::request::{ProvenKey, REQUEST_BYTES_MAX};
pub(crate) use self::request::{bad_request, internal};
pub use self::root::{IssuingTerms, OfflineRoot};
use crate::files;
use crate::pkcs11::{KeyUri, TokenError, TokenKey};

/// How long certificates are valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of gateways.
    pub gateway: Duration,
    /// Of operators.
    pub operator: Duration,
    /// Of coordinators.
    pub coordinator: Duration,
    /// Of devices.
    pub device: Duration,
}

#[cfg(test)]
impl Lifetimes {
    /// The same for all.
    pub(crate) fn all(lifetime: Duration) -> Self {
        Self {
            gateway: lifetime,
            operator: lifetime,
            coordinator: lifetime,
            device: lifetime,
        }
    }
}

/// The authority.
pub struct Authority {
    /// Where it is kept.
    dir: PathBuf,
    plant: PlantId,
    /// The one below which is issued.
    root: CertificateDer<'static>,
    trusted: Trusted,
    bundles: Vec<SignedBundle>,
    /// Of the key that issues; `None`: it is the root's own.
    issuing: Option<CertificateDer<'static>>,
    issuer: Issuer<'static, Key>,
    /// Its key, where that is on a token.
    token: Option<Arc<TokenKey>>,
    /// When that ends, milliseconds since 1970: nothing that it issues does later. A root that issues itself has no end here.
    ends_ms: u64,
    lifetimes: Lifetimes,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("plant", &self.plant)
            .finish_non_exhaustive()
    }
}

/// Who holds the key by which is issued.
enum IssuingKey {
    File(FileKey),
    Token(Arc<TokenKey>),
}

/// Why the authority cannot do what it should.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file of the authority.
    #[error(transparent)]
    File(#[from] files::FileError),
    /// There is one already.
    #[error("{0} exists already; a plant has one authority, and a second one would lock all gateways out")]
    Exists(PathBuf),
    /// A key cannot be had or used.
    #[error(transparent)]
    Key(KeyError),
    /// The certificate library refused.
    #[error("the certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
    /// The stored certificate or key cannot be used.
    #[error("the stored certificate or key of the authority cannot be used")]
    Stored(#[from] TlsError),
    /// The certificate is there, and its key is not.
    #[error(
        "no key here belongs to the issuing certificate {0}: run `penstock-coordinator authority request`, have the plant's root sign that, and install what it signed"
    )]
    NoIssuingKey(PathBuf),
    /// The key is on a token that does not sign now.
    #[error("the key by which this coordinator issues cannot be used: {0}")]
    Token(String),
    /// A certificate that this coordinator cannot issue with.
    #[error("the issuing certificate cannot be used: {0}")]
    Issuing(NotIssuing),
    /// The same, for another reason.
    #[error("{0}")]
    NotInstalled(String),
    /// A trust bundle.
    #[error(transparent)]
    Trust(#[from] BundleError),
    /// No randomness.
    #[error("the system provides no random numbers")]
    Random(#[from] getrandom::Error),
    /// A request that is too long, unreadable, or not signed by its own key.
    #[error("the certificate request cannot be used: {0}")]
    Request(String),
    /// A key of a kind that is not accepted.
    #[error("the certificate request has {0}, which is not accepted; use ECDSA P-256, P-384 or Ed25519")]
    KeyKind(String),
    /// An identity that cannot be written into a certificate.
    #[error("`{0}` cannot be written into a certificate")]
    Name(String),
}

impl From<TokenError> for CaError {
    fn from(error: TokenError) -> Self {
        Self::Token(error.to_string())
    }
}

impl From<KeyError> for CaError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::File { verb, path, source } => Self::File(files::FileError::Io { verb, path, source }),
            KeyError::Exposed { path, mode } => Self::File(files::FileError::Exposed { path, mode }),
            KeyError::Make(error) => Self::Certificate(error),
            error => Self::Key(error),
        }
    }
}

impl Authority {
    /// Makes a new authority for `plant` in the folder `dir`.
    ///
    /// # Errors
    /// There is an authority in `dir` already, key or certificate cannot be made, or a file cannot be written.
    pub fn create(dir: &Path, plant: PlantId, lifetimes: Lifetimes, now_ms: u64) -> Result<Self, CaError> {
        let (certificate_file, key_file) = (dir.join("root.pem"), dir.join("root.key"));
        if certificate_file.exists() || key_file.exists() {
            return Err(CaError::Exists(dir.to_owned()));
        }
        // It issues leaves itself, and nobody else does.
        let params = root::params(&plant, 0, now_ms)?;
        let key = FileKey::generate(KeyKind::EcdsaP384)?;
        key.create(&key_file)?;
        let certificate = params.self_signed(&Key::new(key))?;
        files::write_new(&certificate_file, certificate.pem().as_bytes())?;
        Self::load(dir, plant, lifetimes)
    }

    /// Opens the authority in `dir`, whose key is a file.
    ///
    /// # Errors
    /// A file is missing, unreadable or damaged, or the key can be read by others.
    pub fn load(dir: &Path, plant: PlantId, lifetimes: Lifetimes) -> Result<Self, CaError> {
        Self::load_with(dir, plant, lifetimes, &[])
    }

    /// Opens the authority in `dir`, whose key is a file, or on one of these tokens. No token is asked yet.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with(
        dir: &Path,
        plant: PlantId,
        lifetimes: Lifetimes,
        keys: &[KeyUri],
    ) -> Result<Self, CaError> {
        let bundles = trust::bundles(dir)?;
        let trusted = trust::trusted(dir, &bundles)?;
        let (root, issuing, key) = match install::installed(dir, &plant, &trusted, keys)? {
            Some((root, issuing, key)) => (root, Some(issuing), key),
            None => {
                let root = certificate(&dir.join("root.pem"))?;
                let key = FileKey::open_private(&dir.join("root.key"))?;
                (root, None, IssuingKey::File(key))
            }
        };
        let of_issuer = issuing.as_ref().unwrap_or(&root);
        let (key, token) = match key {
            IssuingKey::File(key) => (Key::new(key), None),
            IssuingKey::Token(key) => (Key::from(key.clone()), Some(key)),
        };
        let issuer = Issuer::from_ca_cert_der(of_issuer, key)?;
        let ends_ms = match &issuing {
            Some(issuing) => validity_ms(issuing).map_err(TlsError::from)?.1,
            None => u64::MAX,
        };
        Ok(Self {
            dir: dir.to_owned(),
            plant,
            root,
            trusted,
            bundles,
            issuing,
            issuer,
            token,
            ends_ms,
            lifetimes,
        })
    }

    /// The plant.
    pub fn plant(&self) -> &PlantId {
        &self.plant
    }

    /// What follows a leaf in its chain: the issuing certificate, if there is one, and the root.
    pub fn issuers(&self) -> Vec<CertificateDer<'static>> {
        self.issuing.iter().chain([&self.root]).cloned().collect()
    }

    /// The token that holds the key by which is issued; `None`: a file does.
    pub fn token(&self) -> Option<&Arc<TokenKey>> {
        self.token.as_ref()
    }

    /// Which key issues, and where it is, for people.
    pub fn key_in_words(&self) -> String {
        match (&self.token, &self.issuing) {
            (Some(token), _) => format!("{}, public key {}", token.in_words(), token.digest()),
            (None, Some(_)) => "a file in the data folder".to_owned(),
            (None, None) => "the root's own, a file in the data folder".to_owned(),
        }
    }

    /// Why nothing could be signed: the certificate library has no room for the reason.
    fn unsigned(&self, error: rcgen::Error) -> CaError {
        match (error, &self.token) {
            (rcgen::Error::RemoteKeyError, Some(token)) => {
                // A token that signs, for others, has no fault.
                let fault = token.fault().borrow().clone();
                let busy = || "the token has more to sign than it does in time".to_owned();
                CaError::Token(fault.unwrap_or_else(busy))
            }
            (error, _) => error.into(),
        }
    }

    /// When the certificate that issues ends, milliseconds since 1970.
    pub fn ends_ms(&self) -> u64 {
        self.ends_ms
    }

    /// The roots to trust, DER. (One; two while it is being changed for another.)
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.trusted.certificates()
    }

    /// All that anybody needs to verify what is issued here: the roots, and the issuing certificate, if there is one, DER.
    pub fn authorities(&self) -> Vec<CertificateDer<'static>> {
        self.roots().into_iter().chain(self.issuing.clone()).collect()
    }

    /// The root below which is issued, DER.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// What is trusted, by the newest trust bundle.
    pub fn trusted(&self) -> &Trusted {
        &self.trusted
    }

    /// The trust bundles that whoever holds this one lacks.
    pub fn bundles_since(&self, held: &TrustHeld) -> &[SignedBundle] {
        let is_newest = held.number == self.trusted.number && held.digest == self.trusted.digest.0.as_slice();
        if is_newest || held.number > self.trusted.number {
            return &[];
        }
        let later = |bundle: &SignedBundle| {
            bundle
                .unverified()
                .is_ok_and(|bundle| bundle.number > held.number)
        };
        let from = self.bundles.iter().position(later).unwrap_or(self.bundles.len());
        // Of another bundle of the same number the gateway is shown ours: that is an alarm there.
        let from = match self.trusted.number == held.number {
            true => from.saturating_sub(1),
            false => from,
        };
        self.bundles.get(from..).unwrap_or_default()
    }

    /// Whose issuing certificates no longer count.
    pub fn withdrawn_issuers(&self) -> WithdrawnView {
        WithdrawnView::default().without_issuers(&self.trusted.withdrawn)
    }

    /// Signs a list of lives that are over.
    ///
    /// # Errors
    /// The authority's key cannot sign.
    pub fn sign_list(&self, list: &List) -> Result<SignedList, CaError> {
        Ok(SignedList {
            issuing: self.issuing.as_ref().map(|issuing| issuing.to_vec()),
            ..SignedList::sign(list, self.issuer.key())?
        })
    }

    /// Signs how far whoever takes a list holds it then.
    ///
    /// # Errors
    /// The key's holder does not sign.
    pub fn sign_held(&self, held: Held) -> Result<SignedHeld, CaError> {
        Ok(SignedHeld {
            issuing: self.issuing.as_ref().map(|issuing| issuing.to_vec()),
            ..SignedHeld::sign(held, &self.plant, self.issuer.key())?
        })
    }

    /// As [`Self::trusted_since`], by what is in `dir`, also where its key is lost or its certificate counts no longer.
    ///
    /// # Errors
    /// The bundles cannot be read.
    pub fn trusted_since_in(dir: &Path, root: Digest) -> Result<u64, CaError> {
        let bundles = trust::bundles(dir)?;
        let trusted = bundles.iter().rev().filter_map(|bundle| bundle.trusted().ok());
        let since = trusted
            .take_while(|then| then.roots.iter().any(|(known, _)| Digest::of(known) == root))
            .last();
        Ok(since.map_or(0, |then| then.number))
    }

    /// SHA-256 of the root's DER, as it stands in tokens.
    pub fn root_digest(&self) -> Digest {
        Digest::of(&self.root)
    }
}

/// The first certificate in a PEM file.
fn certificate(file: &Path) -> Result<CertificateDer<'static>, CaError> {
    let what = file.display().to_string();
    let found = certificates_from_pem(&files::read(file)?, &what)?;
    Ok(found.into_iter().next().ok_or(TlsError::Empty(what))?)
}

#[cfg(test)]
mod tests;

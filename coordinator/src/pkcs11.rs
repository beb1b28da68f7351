//! The key by which the coordinator issues, on a token: a smart card, an HSM, or whatever else speaks PKCS #11. It is made there and never
//! leaves it, so that whoever copies the machine's disk or its backup cannot issue anything (IEC 62443-3-3 SR 1.9 RE 1).
//!
//! ```text
//! authority.keys (KeyUri) ─▶ TokenKey ─ a question, answered in time or refused ─▶ module: its one thread ─▶ tokens ─▶ objects
//! ```
//!
//! The certificate says which key it is, the URIs where to look for it: a token is asked when something is to be signed, and nothing of the
//! coordinator but issuing needs one. A token that was taken away, a module that hangs, a PIN that was changed: each refuses what is to be
//! issued, with the reason, and the next question finds the token again. Sessions, policy and health go on, and gateways have their
//! certificates.
//!
//! It is here, and not beside the files in `penstock_proto::keys`, so that no gateway's program carries a module's loader.

mod error;
mod module;
mod objects;
mod tokens;
mod uri;

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use penstock_policy::ids::Digest;
use penstock_proto::keys::{KeyError, KeyHolder, KeyKind, has_signed};
use rcgen::PublicKeyData as _;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

pub use self::error::TokenError;
pub use self::objects::TokenPublicKey;
pub use self::uri::{KeyUri, UriError};

/// After a failure, whoever asks next gets the same answer for this long: a token that is not there is not looked for once for each gateway.
const AGAIN: Duration = Duration::from_secs(1);

/// A key on a token.
pub struct TokenKey {
    /// Where to look for it.
    uris: Vec<KeyUri>,
    public: TokenPublicKey,
    failed: Mutex<Option<(Instant, TokenError)>>,
    /// Why it does not sign now.
    fault: watch::Sender<Option<String>>,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey")
            .field("uris", &self.uris)
            .finish_non_exhaustive()
    }
}

/// The digest of a public key (subjectPublicKeyInfo).
fn digest(public: &TokenPublicKey) -> Digest {
    Digest::of(&Public(public).subject_public_key_info())
}

fn exportable(uri: &KeyUri) -> TokenError {
    TokenError::Exportable {
        token: uri.token_in_words(),
        key: uri.key_in_words(),
    }
}

/// A public key as certificates have it.
struct Public<'a>(&'a TokenPublicKey);

impl rcgen::PublicKeyData for Public<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self.0.kind {
            KeyKind::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyKind::EcdsaP384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            KeyKind::Ed25519 => &rcgen::PKCS_ED25519,
        }
    }
}

/// The public key in a certificate.
fn certified(certificate: &CertificateDer<'_>) -> Option<TokenPublicKey> {
    use rcgen::SubjectPublicKeyInfo;
    let spki = penstock_proto::peer::certified_key(certificate)?;
    let key = SubjectPublicKeyInfo::from_der(&spki).ok()?;
    let kind = [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Ed25519]
        .into_iter()
        .find(|kind| {
            let same = TokenPublicKey {
                kind: *kind,
                bytes: Vec::new(),
                is_exportable: false,
            };
            Public(&same).algorithm() == key.algorithm()
        })?;
    Some(TokenPublicKey {
        kind,
        bytes: key.der_bytes().to_vec(),
        is_exportable: false,
    })
}

impl TokenKey {
    fn new(uris: Vec<KeyUri>, public: TokenPublicKey) -> Self {
        Self {
            uris,
            public,
            failed: Mutex::default(),
            fault: watch::Sender::new(None),
        }
    }

    /// The key that `certificate` is for, wherever these URIs lead to it. No token is asked yet. `None`: the certificate has a key of another kind.
    pub fn of_certificate(certificate: &CertificateDer<'_>, uris: Vec<KeyUri>) -> Option<Self> {
        Some(Self::new(uris, certified(certificate)?))
    }

    /// The key that is there now.
    ///
    /// # Errors
    /// Token or key is not there, or cannot be used; or the key can be taken off its token.
    pub fn open(uri: &KeyUri) -> Result<Self, TokenError> {
        let public = Self::look(uri)?;
        if public.is_exportable {
            return Err(exportable(uri));
        }
        Ok(Self::new(vec![uri.clone()], public))
    }

    /// The key that is there, or else one that the token makes now; and whether it did.
    ///
    /// # Errors
    /// As [`Self::open`]; or the token cannot make one.
    pub fn open_or_make(uri: &KeyUri) -> Result<(Self, bool), TokenError> {
        match Self::open(uri) {
            Err(TokenError::NoKey { .. }) => {}
            other => return Ok((other?, false)),
        }
        let wanted = uri.clone();
        module::ask_patiently(&uri.module, move |tokens| tokens.make(&wanted))?;
        Ok((Self::open(uri)?, true))
    }

    fn look(uri: &KeyUri) -> Result<TokenPublicKey, TokenError> {
        let wanted = uri.clone();
        module::ask(&uri.module, move |tokens| tokens.public(&wanted))
    }

    /// Where to look for it, for people.
    pub fn in_words(&self) -> String {
        let places: Vec<String> = self
            .uris
            .iter()
            .map(|uri| {
                format!(
                    "{} on the {} ({})",
                    uri.key_in_words(),
                    uri.token_in_words(),
                    uri.module.display()
                )
            })
            .collect();
        places.join(", or ")
    }

    /// SHA-256 of its public key (subjectPublicKeyInfo).
    pub fn digest(&self) -> Digest {
        digest(&self.public)
    }

    /// Why it does not sign now; `None`: it does, as far as is known.
    pub fn fault(&self) -> watch::Receiver<Option<String>> {
        self.fault.subscribe()
    }

    /// Whether the key is there now. Nothing is signed.
    ///
    /// # Errors
    /// Token or key is not there, or cannot be used; or what is there is another key.
    pub fn look_for(&self) -> Result<(), TokenError> {
        self.settled(self.found().map(|_| ()))
    }

    /// Where the key is. Of the reasons why it is nowhere, the first counts, but for one that says more.
    fn found(&self) -> Result<&KeyUri, TokenError> {
        let mut why = None;
        for uri in &self.uris {
            match Self::look(uri) {
                Ok(public) if (public.kind, &public.bytes) == (self.public.kind, &self.public.bytes) => {
                    return Ok(uri);
                }
                Ok(public) => {
                    why.get_or_insert(TokenError::OtherKey {
                        token: uri.token_in_words(),
                        key: uri.key_in_words(),
                        certified: self.digest(),
                        found: digest(&public),
                    });
                }
                // A key that is not made yet is no reason why the one that is in use is nowhere.
                Err(error @ TokenError::NoKey { .. }) => {
                    why.get_or_insert(error);
                }
                Err(error) => why = Some(error),
            }
        }
        Err(why.unwrap_or_else(|| TokenError::Failed {
            token: "authority".to_owned(),
            what: "find its key",
            why: "`authority.keys` names none".to_owned(),
        }))
    }

    /// Signs something that nobody uses, and verifies it by `certificate`.
    ///
    /// # Errors
    /// The token does not sign, or not by the certificate's key; or the key can be taken off it.
    pub fn prove(&self, certificate: &CertificateDer<'_>) -> Result<(), TokenError> {
        let uri = self.found()?;
        if Self::look(uri)?.is_exportable {
            return Err(exportable(uri));
        }
        let message = b"a proof that this token holds this key";
        let signature = self.signed(message)?;
        if !has_signed(certificate, message, &signature) {
            return Err(TokenError::WrongSignature {
                token: uri.token_in_words(),
                key: uri.key_in_words(),
            });
        }
        Ok(())
    }

    fn signed(&self, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let only = match self.uris.as_slice() {
            [only] => Some(only),
            _ => None,
        };
        // One that is open answers at once; the thread asks once more where it had gone.
        let uri = match only {
            Some(uri) => uri,
            None => self.found()?,
        };
        let (wanted, public, message) = (uri.clone(), self.public.clone(), message.to_vec());
        let (token, key) = (uri.token_in_words(), uri.key_in_words());
        module::ask(&uri.module, move |tokens| {
            let there = tokens.key(&wanted)?;
            if (there.kind, &there.bytes) != (public.kind, &public.bytes) {
                return Err(TokenError::OtherKey {
                    token,
                    key,
                    certified: digest(&public),
                    found: digest(&there),
                });
            }
            tokens.sign(&wanted, &message)
        })
    }

    /// Remembers how it went.
    fn settled<T>(&self, done: Result<T, TokenError>) -> Result<T, TokenError> {
        if let Err(TokenError::Busy(_)) = done {
            // It signs, for others.
            return done;
        }
        let now = done.as_ref().err().map(ToString::to_string);
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        *failed = done.as_ref().err().map(|error| (Instant::now(), error.clone()));
        self.fault.send_if_modified(|before| {
            let changed = *before != now;
            match (&now, changed) {
                (Some(why), true) => tracing::error!("nothing can be issued: {why}"),
                (None, true) => tracing::info!("the token is there, and issues again"),
                _ => {}
            }
            *before = now;
            changed
        });
        done
    }
}

impl KeyHolder for TokenKey {
    fn kind(&self) -> KeyKind {
        self.public.kind
    }

    fn public_key(&self) -> &[u8] {
        &self.public.bytes
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, error)) = failed
            && at.elapsed() < AGAIN
        {
            return Err(error.into());
        }
        Ok(self.settled(self.signed(message))?)
    }
}

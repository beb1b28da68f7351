//! One signature of a person, and whether it counts: the one verification that people's machines, coordinator and gateways share.
//!
//! What is signed is not the JSON alone but its *pre-authentication encoding*, which binds the payload's type
//! and lengths: `DSSEv1 SP LEN(type) SP type SP LEN(body) SP body`. So a signature over a release can never be
//! one over anything else.

use ed25519_dalek::VerifyingKey;

use super::algorithm::Algorithm;
use super::sshsig;
use crate::ids::ApproverId;
use crate::model::{KeyForm, PublicKey};

/// The type of the payload.
pub const PAYLOAD_TYPE: &str = "application/vnd.penstock.release+json";

/// The most signatures that are looked at, so that an offer's cost is bounded.
pub const SIGNATURES_MAX: usize = 64;

/// The exact bytes that an approver's key signs for this statement.
pub fn pre_authentication_encoding(statement: &[u8]) -> Vec<u8> {
    encoding(PAYLOAD_TYPE, statement)
}

/// The exact bytes that a key signs for a payload of this type.
pub fn encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut encoded = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    encoded.extend_from_slice(payload);
    encoded
}

/// The longest signature of any algorithm, bytes.
pub const SIGNATURE_BYTES_MAX: usize = 69;
/// In what FIDO2 hardware states: somebody touched it.
const USER_PRESENT: u8 = 0x01;
/// It asked for a PIN or a fingerprint.
const USER_VERIFIED: u8 = 0x04;

/// Why a file is not an envelope.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Not the standard's JSON.
    #[error("the signed envelope cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// An envelope around something else.
    #[error("the envelope holds `{found}`, expected is `{expected}`")]
    PayloadType {
        /// What it holds.
        found: String,
        /// What it was to hold.
        expected: &'static str,
    },
    /// A field that is not base64 or hexadecimal.
    #[error("{field} is not {expected}: the file was altered or cut")]
    Encoding {
        /// Which.
        field: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
    /// Made by other software.
    #[error(
        "the signature of `{approver}` is of the algorithm `{algorithm}`, which this software does not know: update it first"
    )]
    Algorithm {
        /// Whose.
        approver: ApproverId,
        /// How it was made.
        algorithm: String,
    },
    /// Not as many bytes as its algorithm has.
    #[error("the signature of `{approver}` has {length} bytes, one of the algorithm `{algorithm}` has {}", .algorithm.length())]
    SignatureLength {
        /// Whose.
        approver: ApproverId,
        /// How it says that it was made.
        algorithm: Algorithm,
        /// How long it is.
        length: usize,
    },
    /// More than is looked at.
    #[error("the envelope holds more than is read: at most {0} bytes and {SIGNATURES_MAX} signatures")]
    TooLarge(usize),
}

/// What is signed: bytes, and what they are.
#[derive(Debug, Clone, Copy)]
pub struct Signable<'a> {
    payload_type: &'static str,
    payload: &'a [u8],
}

impl<'a> Signable<'a> {
    /// A payload of this type.
    pub fn new(payload_type: &'static str, payload: &'a [u8]) -> Self {
        Self {
            payload_type,
            payload,
        }
    }

    /// A release's statement.
    pub fn release(statement: &'a [u8]) -> Self {
        Self::new(PAYLOAD_TYPE, statement)
    }

    /// What a key in Penstock's own form signs.
    pub fn dsse(&self) -> Vec<u8> {
        encoding(self.payload_type, self.payload)
    }

    /// The exact bytes that `ssh-keygen -Y sign` is given.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The namespace that it is given with them (`-n`), such as `penstock-release`.
    pub fn namespace(&self) -> String {
        let kind = self.payload_type.strip_prefix("application/vnd.penstock.");
        let kind = kind.and_then(|kind| kind.strip_suffix("+json"));
        format!("penstock-{}", kind.unwrap_or(self.payload_type))
    }

    fn sshsig(&self) -> Vec<u8> {
        sshsig::message(&self.namespace(), self.payload)
    }
}

/// A person's signature.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    /// Who says to have signed; whether it is so, only the key tells.
    pub approver: ApproverId,
    algorithm: Algorithm,
    /// As many as the algorithm has.
    pub(super) bytes: Vec<u8>,
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signature({}, {})", self.approver, self.to_text())
    }
}

/// Why a signature does not count; read after "the signature of NAME".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Another key or other bytes.
    #[error("does not fit it")]
    Forged,
    /// Made in a way that this key does not sign in.
    #[error(
        "is of the algorithm `{made}`, and a key as the plant document has it for them signs with `{expected}`"
    )]
    Algorithm {
        /// How it was made.
        made: Algorithm,
        /// How the key signs.
        expected: Algorithm,
    },
    /// Nobody touched the hardware.
    #[error(
        "was made without a touch of the hardware key (`no-touch-required`), so that a program alone can have made it"
    )]
    NotTouched,
    /// The hardware asked for nothing.
    #[error("was made without the PIN or fingerprint that the plant document demands (`verify-required`)")]
    NotVerified,
}

impl Signature {
    /// A signature as it came from the wire or a file; no name of an algorithm is `ed25519`.
    ///
    /// # Errors
    /// The algorithm is unknown, or the signature does not have its length.
    pub fn new(approver: ApproverId, algorithm: &str, bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let Some(algorithm) = Algorithm::named(algorithm) else {
            return Err(EnvelopeError::Algorithm {
                approver,
                algorithm: shortened(algorithm),
            });
        };
        if bytes.len() != algorithm.length() {
            return Err(EnvelopeError::SignatureLength {
                approver,
                algorithm,
                length: bytes.len(),
            });
        }
        Ok(Self {
            approver,
            algorithm,
            bytes: bytes.to_vec(),
        })
    }

    /// A signature made here.
    pub(super) fn ed25519(approver: ApproverId, bytes: [u8; 64]) -> Self {
        Self {
            approver,
            algorithm: Algorithm::Ed25519,
            bytes: bytes.to_vec(),
        }
    }

    /// How it was made.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its algorithm and bytes as one word: hexadecimal, and the algorithm before a colon where it is not `ed25519`.
    pub fn to_text(&self) -> String {
        match self.algorithm {
            Algorithm::Ed25519 => hex::encode(&self.bytes),
            other => format!("{other}:{}", hex::encode(&self.bytes)),
        }
    }

    /// Reads what [`Self::to_text`] wrote.
    ///
    /// # Errors
    /// As [`Self::new`], and where it is not hexadecimal.
    pub fn from_text(approver: ApproverId, text: &str) -> Result<Self, EnvelopeError> {
        let (algorithm, digits) = text.split_once(':').unwrap_or(("", text));
        let bytes = hex::decode(digits).map_err(|_| EnvelopeError::Encoding {
            field: "a signature",
            expected: "hexadecimal",
        })?;
        Self::new(approver, algorithm, &bytes)
    }

    /// Whether `key` made it over these bytes. Strict: no weak keys, no second spelling of a signature, and no algorithm but those
    /// that a key of this form signs with.
    ///
    /// # Errors
    /// It does not count, and why.
    pub fn check(&self, signed: &Signable<'_>, key: &PublicKey) -> Result<(), Misfit> {
        let algorithm = self.algorithm;
        if !algorithm.is_of(key) {
            let expected = Algorithm::all_of(key).last().copied().unwrap_or(algorithm);
            return Err(Misfit::Algorithm {
                made: algorithm,
                expected,
            });
        }
        let (signature, stated) = self.bytes.split_first_chunk().ok_or(Misfit::Forged)?;
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        let message = match (algorithm, key.form()) {
            (Algorithm::Ed25519, _) => signed.dsse(),
            (Algorithm::SshEd25519, _) => signed.sshsig(),
            (Algorithm::SkSshEd25519, KeyForm::Hardware { application, .. }) => {
                use sha2::{Digest as _, Sha256};
                let digest = |bytes: &[u8]| Sha256::digest(bytes);
                let (whose, what) = (digest(application.as_bytes()), digest(&signed.sshsig()));
                [whose.as_slice(), stated, what.as_slice()].concat()
            }
            (Algorithm::SkSshEd25519, KeyForm::Plain | KeyForm::Ssh) => return Err(Misfit::Forged),
        };
        VerifyingKey::from_bytes(key.point())
            .and_then(|point| point.verify_strict(&message, &signature))
            .map_err(|_| Misfit::Forged)?;
        // Only now is it the hardware that states this.
        let flags = stated.first().copied().unwrap_or_default();
        match key.form() {
            KeyForm::Hardware { .. } if flags & USER_PRESENT == 0 => Err(Misfit::NotTouched),
            KeyForm::Hardware { verify: true, .. } if flags & USER_VERIFIED == 0 => Err(Misfit::NotVerified),
            KeyForm::Plain | KeyForm::Ssh | KeyForm::Hardware { .. } => Ok(()),
        }
    }

    /// Whether it counts; see [`Self::check`].
    pub fn verifies(&self, signed: &Signable<'_>, key: &PublicKey) -> bool {
        self.check(signed, key).is_ok()
    }
}

/// What a stranger wrote, as much of it as is shown.
fn shortened(word: &str) -> String {
    word.chars().filter(char::is_ascii_graphic).take(64).collect()
}

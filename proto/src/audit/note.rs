//! Signed notes (<https://c2sp.org/signed-note>): a text, an empty line, and a line for each signature.
//!
//! ```text
//! text …
//!
//! — name base64( key id (4) | signature )
//! ```
//!
//! Two kinds of keys sign here: Ed25519 over the text (type 1), and ECDSA over its SHA-256 (type 2), whose key id is the digest of its
//! `subjectPublicKeyInfo`. One form of a note counts: what is read and written again is the same, byte for byte.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use rcgen::PublicKeyData as _;
use rustls::pki_types::CertificateDer;
use sha2::Digest as _;

use crate::keys::{Key, KeyError, has_signed};

/// The largest note, in bytes.
pub const BYTES_MAX: usize = 8 * 1024;
/// Signatures on one note: as many as the specification asks for.
pub const SIGNATURES_MAX: usize = 16;

const DASH: &str = "\u{2014} ";
const ED25519: u8 = 1;

/// Why bytes are not a note, or a note does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It has another form, or more than [`BYTES_MAX`].
    #[error("it is not a signed note")]
    Form,
    /// The key whose signature is asked for did not sign it.
    #[error("the key did not sign it")]
    Unsigned,
    /// It carries that key's name and number, and another signature.
    #[error("its signature is wrong")]
    Signature,
}

/// A line below a note's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    /// The key's name.
    pub name: String,
    /// Tells keys of one name apart.
    pub key_id: [u8; 4],
    /// What the key made.
    pub bytes: Vec<u8>,
}

/// A text and who signed it. Nothing of it is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// With its last line's end.
    pub text: String,
    /// In the order in which they stand there.
    pub signatures: Vec<NoteSignature>,
}

impl Note {
    /// Reads a note in its only form.
    ///
    /// # Errors
    /// The bytes are something else.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > BYTES_MAX {
            return Err(NoteError::Form);
        }
        let whole = std::str::from_utf8(bytes).map_err(|_| NoteError::Form)?;
        let (text, lines) = whole.rsplit_once("\n\n").ok_or(NoteError::Form)?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Form)?;
        let signatures = lines.split('\n').map(NoteSignature::parse);
        let note = Self {
            text: format!("{text}\n"),
            signatures: signatures.collect::<Option<_>>().ok_or(NoteError::Form)?,
        };
        let has_control = whole.chars().any(|one| one < ' ' && one != '\n');
        if has_control || note.signatures.len() > SIGNATURES_MAX || note.to_bytes() != bytes {
            return Err(NoteError::Form);
        }
        Ok(note)
    }

    /// As it stands in files and events.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = format!("{}\n", self.text);
        for one in &self.signatures {
            let signature = [one.key_id.as_slice(), &one.bytes].concat();
            // A string takes whatever is written into it.
            let _ = writeln!(out, "{DASH}{} {}", one.name, BASE64_STANDARD.encode(signature));
        }
        out.into_bytes()
    }

    /// Whether this Ed25519 key signed the text under `name`.
    ///
    /// # Errors
    /// It did not, or its signature is wrong.
    pub fn verify_ed25519(&self, name: &str, public: &[u8; 32]) -> Result<(), NoteError> {
        let signature = self.signature_of(name, ed25519_id(name, public))?;
        let key = VerifyingKey::from_bytes(public).map_err(|_| NoteError::Signature)?;
        let signature = Signature::from_slice(signature).map_err(|_| NoteError::Signature)?;
        key.verify_strict(self.text.as_bytes(), &signature)
            .map_err(|_| NoteError::Signature)
    }

    /// Whether the key of this certificate signed the text under `name`.
    ///
    /// # Errors
    /// It did not, its signature is wrong, or the certificate cannot be read.
    pub fn verify_certified(&self, name: &str, certificate: &CertificateDer<'_>) -> Result<(), NoteError> {
        let id = certified_id(name, certificate).ok_or(NoteError::Signature)?;
        let signature = self.signature_of(name, id)?;
        has_signed(certificate, self.text.as_bytes(), signature)
            .then_some(())
            .ok_or(NoteError::Signature)
    }

    fn signature_of(&self, name: &str, id: [u8; 4]) -> Result<&[u8], NoteError> {
        let mut all = self.signatures.iter();
        let found = all.find(|one| one.name == name && one.key_id == id);
        found.map(|one| one.bytes.as_slice()).ok_or(NoteError::Unsigned)
    }
}

impl NoteSignature {
    /// What the key of `certificate`, which `key` is, makes of `text` under `name`.
    ///
    /// # Errors
    /// The key's holder cannot sign now, or the certificate cannot be read.
    pub fn certified(
        name: &str,
        key: &Key,
        certificate: &CertificateDer<'_>,
        text: &str,
    ) -> Result<Self, KeyError> {
        let unread = || KeyError::Form("the certificate of the key that signs".to_owned());
        Ok(Self {
            name: name.to_owned(),
            key_id: certified_id(name, certificate).ok_or_else(unread)?,
            bytes: key.sign(text.as_bytes())?,
        })
    }

    /// What this Ed25519 key makes of `text` under `name` (type 1).
    ///
    /// # Errors
    /// The key is of another kind, or its holder cannot sign now.
    pub fn ed25519(name: &str, key: &Key, text: &str) -> Result<Self, KeyError> {
        let kind = || KeyError::Kind("the key that signs a note by Ed25519".to_owned());
        let public = Self::ed25519_public(key).ok_or_else(kind)?;
        Ok(Self {
            name: name.to_owned(),
            key_id: ed25519_id(name, &public),
            bytes: key.sign(text.as_bytes())?,
        })
    }

    /// The public half of an Ed25519 key; `None`: it is of another kind.
    pub fn ed25519_public(key: &Key) -> Option<[u8; 32]> {
        // Of the kinds that count, its public keys alone are so short.
        key.der_bytes().try_into().ok()
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        let (name, signature) = line.strip_prefix(DASH)?.split_once(' ')?;
        let is_name = !name.is_empty() && !name.contains(|one: char| one.is_whitespace() || one == '+');
        let signature = BASE64_STANDARD.decode(signature).ok()?;
        let (key_id, bytes) = signature.split_first_chunk::<4>()?;
        (is_name && !bytes.is_empty()).then(|| Self {
            name: name.to_owned(),
            key_id: *key_id,
            bytes: bytes.to_vec(),
        })
    }
}

/// The number of an Ed25519 key under this name.
pub fn ed25519_id(name: &str, public: &[u8; 32]) -> [u8; 4] {
    let named = [name.as_bytes(), b"\n", &[ED25519], public].concat();
    first_four(sha2::Sha256::digest(named).into())
}

/// The number of a certificate's key under this name; `None`: the certificate cannot be read.
fn certified_id(name: &str, certificate: &CertificateDer<'_>) -> Option<[u8; 4]> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let key = parsed.public_key();
    let public: Result<&[u8; 32], _> = key.subject_public_key.data.as_ref().try_into();
    // Of the kinds that count, Ed25519's public keys alone are so short.
    Some(match public {
        Ok(public) => ed25519_id(name, public),
        Err(_) => first_four(sha2::Sha256::digest(key.raw).into()),
    })
}

fn first_four([a, b, c, d, ..]: [u8; 32]) -> [u8; 4] {
    [a, b, c, d]
}

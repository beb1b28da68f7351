//! What the seals in a block say by themselves: their form, whose they are, what they were made for, and who signed them. That costs signatures, and
//! needs nothing of what came before; so it is done apart from where trails are written.

use prost::bytes::Bytes;
use rustls::pki_types::CertificateDer;
use sha2::Digest as _;

use super::super::note::{Note, NoteError};
use super::super::seal::{SealText, signer_name};
use super::{Place, SEALS_MAX, SealFinding, SealTrust, place_of, seals};
use crate::peer::{PeerIdentity, Subject};
use crate::tls::issuers;
use crate::v1::{AuditBlock, AuditBlockBody, SealEvent};

/// The seals of one block, each looked at by itself.
#[derive(Debug, Clone)]
pub struct CheckedSeals {
    pub(super) at: Place,
    pub(super) seals: Vec<Result<CheckedSeal, SealFinding>>,
}

/// One that is what it says.
#[derive(Debug, Clone)]
pub(super) enum CheckedSeal {
    /// A seal of the block's own place, signed by the key that it names.
    Seal(SealText),
    /// The identity key's word for the seal of this text.
    Word { named: Place, text_digest: [u8; 32] },
}

impl CheckedSeals {
    /// Those of a block with this body.
    pub fn of(trust: &SealTrust<'_>, block: &AuditBlock, body: &AuditBlockBody) -> Self {
        let at = Place {
            epoch: block.epoch,
            sequence: block.sequence,
        };
        let looked = seals(body).take(SEALS_MAX);
        let looked = looked.filter_map(|seal| checked(trust, at, &block.previous_digest, seal).transpose());
        let mut all: Vec<_> = looked.collect();
        let count = seals(body).count();
        if count > SEALS_MAX {
            all.push(Err(SealFinding::TooMany { at, count }));
        }
        Self { at, seals: all }
    }

    /// What the last seal among them says that is what it says.
    pub fn newest(&self) -> Option<&SealText> {
        self.seals.iter().rev().find_map(|seal| match seal {
            Ok(CheckedSeal::Seal(text)) => Some(text),
            Ok(CheckedSeal::Word { .. }) | Err(_) => None,
        })
    }

    /// Of the block.
    pub fn at(&self) -> Place {
        self.at
    }
}

/// `None`: it says nothing of what is here.
fn checked(
    trust: &SealTrust<'_>,
    at: Place,
    previous: &Bytes,
    seal: &SealEvent,
) -> Result<Option<CheckedSeal>, SealFinding> {
    let read = Note::parse(&seal.note).ok();
    let read = read.and_then(|note| Some((SealText::parse(&note.text)?, note)));
    let (text, note) = read.ok_or(SealFinding::Unreadable { at })?;
    if text.name != signer_name(trust.plant.as_str(), &trust.source) {
        return Err(SealFinding::Foreign { at, named: text.name });
    }
    let named = place_of(&text.head);
    if !seal.certificates.is_empty() {
        has_vouched(trust, &note, &text, &seal.certificates)
            .map_err(|why| SealFinding::WrongWord { at, why })?;
        let text_digest = sha2::Sha256::digest(&note.text).into();
        return Ok(Some(CheckedSeal::Word { named, text_digest }));
    }
    note.verify_ed25519(&text.name, &text.key)
        .map_err(|error| match error {
            NoteError::Form => SealFinding::Unreadable { at },
            NoteError::Unsigned | NoteError::Signature => SealFinding::Forged { at },
        })?;
    if named.epoch < at.epoch {
        // Its block moved to this epoch from one that another trail took the places of. It seals nothing here.
        return Ok(None);
    }
    if named != at || text.head.digest != **previous {
        return Err(SealFinding::Misplaced { at, named });
    }
    Ok(Some(CheckedSeal::Seal(text)))
}

/// Whether the source's identity key signed the text.
fn has_vouched(
    trust: &SealTrust<'_>,
    note: &Note,
    text: &SealText,
    certificates: &[Bytes],
) -> Result<(), &'static str> {
    let chain: Vec<_> = certificates
        .iter()
        .map(|der| CertificateDer::from(der.to_vec()))
        .collect();
    let leaf = chain.first().ok_or("it has no certificate")?;
    let named = PeerIdentity::from_certificate(leaf).map_err(|_| "its certificate cannot be read")?;
    let subject = match &named.subject {
        Subject::Gateway(name) => name.to_string(),
        Subject::Coordinator(_) => named.subject.to_string(),
        Subject::Operator(_) | Subject::Device(_) => {
            return Err("its certificate is neither a gateway's nor a coordinator's");
        }
    };
    if named.plant != *trust.plant || subject != *trust.source {
        return Err("its certificate names somebody else");
    }
    issuers(trust.plant, &chain, trust.roots).ok_or("none of the plant's roots issued its certificate")?;
    note.verify_certified(&text.name, leaf)
        .map_err(|_| "the certificate's key did not sign it")
}

//! The coordinator's word for a seal that it stored: the seal's text with a signature by the coordinator's own key.
//!
//! It comes with an acknowledgement ([`AuditAck::witness`](crate::v1::AuditAck)), and the gateway keeps it beside its trail. So a coordinator that lost or rewrote
//! what it had acknowledged is found out by what the gateway holds, and a gateway whose trail was cut off or set back, by the coordinator's word.

use rustls::pki_types::CertificateDer;

use super::chain::SealTrust;
use super::note::Note;
use super::seal::{SealText, signer_name};
use crate::peer::{PeerIdentity, Subject};
use crate::tls::{certificates_from_pem, certificates_to_pem, issuers};
use crate::v1::SealEvent;

/// The largest file of a word, in bytes.
pub const FILE_BYTES_MAX: u64 = 64 * 1024;

const PEM: &str = "-----BEGIN ";

/// Why a word proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrongWitness {
    /// It is no note about a seal.
    #[error("it cannot be read")]
    Form,
    /// Another gateway's.
    #[error("it is about another trail")]
    Foreign,
    /// Not a coordinator of this plant.
    #[error(
        "its certificate is not that of a coordinator of this plant, or none of the plant's roots issued it"
    )]
    Certificate,
    /// The key did not sign it.
    #[error("the certificate's key did not sign it")]
    Signature,
}

/// What a coordinator of the plant witnessed of this trail.
///
/// # Errors
/// It is not what a coordinator signed.
pub fn witnessed(trust: &SealTrust<'_>, word: &SealEvent) -> Result<SealText, WrongWitness> {
    let note = Note::parse(&word.note).map_err(|_| WrongWitness::Form)?;
    let text = SealText::parse(&note.text).ok_or(WrongWitness::Form)?;
    let plant = trust.plant.as_str();
    if text.name != signer_name(plant, &trust.source) {
        return Err(WrongWitness::Foreign);
    }
    let chain = word.certificates.iter();
    let chain: Vec<_> = chain.map(|der| CertificateDer::from(der.to_vec())).collect();
    let leaf = chain.first().ok_or(WrongWitness::Certificate)?;
    let named = PeerIdentity::from_certificate(leaf).map_err(|_| WrongWitness::Certificate)?;
    if named.plant != *trust.plant || !matches!(named.subject, Subject::Coordinator(_)) {
        return Err(WrongWitness::Certificate);
    }
    issuers(trust.plant, &chain, trust.roots).ok_or(WrongWitness::Certificate)?;
    note.verify_certified(&signer_name(plant, &named.subject.to_string()), leaf)
        .map_err(|_| WrongWitness::Signature)?;
    Ok(text)
}

/// As it stands in a file: the note, and the certificates as PEM.
pub fn to_file(word: &SealEvent) -> Vec<u8> {
    [
        word.note.as_ref(),
        certificates_to_pem(&word.certificates).as_bytes(),
    ]
    .concat()
}

/// The one in a file; `None`: it is something else.
pub fn from_file(bytes: &[u8]) -> Option<SealEvent> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (note, pem) = text.split_at_checked(text.find(PEM)?)?;
    let certificates = certificates_from_pem(pem.as_bytes(), "a witness's word").ok()?;
    Some(SealEvent {
        note: note.as_bytes().to_vec().into(),
        certificates: certificates.iter().map(|der| der.to_vec().into()).collect(),
    })
}

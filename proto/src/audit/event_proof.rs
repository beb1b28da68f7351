//! The proof of one event, in a file of a few KiB however large the trails are: that it is in the tree whose head a coordinator signed, for somebody who
//! has nothing but the plant's root certificates.
//!
//! ```text
//! "penstock event 1" 0a | EventEvidence
//! event ─ path ─▶ root of its block's events ─ in the block's leaf ─ path ─▶ root of the tree ─ in the signed head
//! ```
//!
//! Beside the event it has at most [`PROOF_BYTES_MAX`]. One spelling of a file counts: what is read and written again is the same, byte for byte; so
//! nothing in it can be changed unseen. Not here: the trail around the event, which [`evidence`](super::evidence) proves.

use penstock_policy::ids::PlantId;
use penstock_policy::merkle::Hash;
use penstock_policy::merkle::growing::TreeState;
use prost::Message as _;
use prost::bytes::Bytes;
use rustls::pki_types::CertificateDer;
use sha2::Digest as _;

use super::BODY_BYTES_MAX;
use super::leaf::{BlockLeaf, EventProof, InTree};
use super::note::Note;
use super::seal::{SealText, signer_name};
use super::tree_head::{TreeHead, TreeHeadError, VerifiedHead};
use crate::tls::issuers;
use crate::v1::{AuditEvent, EventEvidence};

/// The first bytes of a file that proves an event.
pub const MAGIC: &[u8] = b"penstock event 1\n";
/// What the proof has at most beside the event, in a tree of up to 2^27 blocks, with names and certificates as a plant has them.
pub const PROOF_BYTES_MAX: usize = 4096;
/// The largest file, in bytes: an event may be as large as a block.
pub const FILE_BYTES_MAX: u64 = BODY_BYTES_MAX as u64 + 16 * 1024;
/// Where the digests would make the proof larger than this, no seal is put in that needs them.
pub const SEALED_WITH_MAX: usize = 16;

/// Why a file proves no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventProofError {
    /// It has another form.
    #[error("it is not a whole proof of an event: it was cut off or altered")]
    Form,
    /// The head does not count.
    #[error("the head of the tree does not count")]
    Head(#[from] TreeHeadError),
    /// The event is not in the tree.
    #[error(
        "the event is not where it says in the tree whose head the coordinator signed: it was altered, or is another's"
    )]
    NotInTree,
    /// What proves it is there, and nobody can read it.
    #[error("the event cannot be read: a newer version may know its kind")]
    Event,
    /// The seal is another's.
    #[error("the seal in it does not cover the event's block: it was altered")]
    Seal,
}

/// An event that is proved.
#[derive(Debug, Clone, PartialEq)]
pub struct ProvedEvent {
    /// The head of the tree, and whose key signed it.
    pub head: VerifiedHead,
    /// Its block.
    pub block: BlockLeaf,
    /// Which of the block's events it is.
    pub index: u64,
    /// The place of the block in the tree: so many came before it.
    pub leaf: u64,
    /// What it says.
    pub event: AuditEvent,
    /// The seal that covers its block, by whatever key it names.
    pub seal: Option<SealText>,
}

/// What stands in a file for a proved event: the head's note, with its certificates but the last, the root, which whoever verifies it has.
pub fn evidence_of(head: Bytes, certificates: &[CertificateDer<'_>], proof: EventProof) -> EventEvidence {
    let EventProof {
        event,
        in_block,
        block,
        in_tree,
    } = proof;
    EventEvidence {
        head,
        certificates: certificates
            .iter()
            .rev()
            .skip(1)
            .rev()
            .map(|der| der.to_vec().into())
            .collect(),
        source: block.source,
        epoch: block.epoch,
        sequence: block.sequence,
        block_digest: block.digest.to_vec().into(),
        events: block.events.size,
        events_root: block.events.root.to_vec().into(),
        event: event.into(),
        index: in_block.index,
        event_path: in_block.path.concat().into(),
        leaf: in_tree.index,
        path: in_tree.path.concat().into(),
        ..EventEvidence::default()
    }
}

/// As it stands in a file.
pub fn to_file(evidence: &EventEvidence) -> Vec<u8> {
    [MAGIC, &evidence.encode_to_vec()].concat()
}

/// The one in a file, of which nothing is verified yet.
///
/// # Errors
/// It is something else, or spelt in another way than [`to_file`] does.
pub fn from_file(bytes: &[u8]) -> Result<EventEvidence, EventProofError> {
    let encoded = bytes.strip_prefix(MAGIC).ok_or(EventProofError::Form)?;
    let read = EventEvidence::decode(encoded).map_err(|_| EventProofError::Form)?;
    if read.encode_to_vec() != encoded {
        return Err(EventProofError::Form);
    }
    Ok(read)
}

/// What is proved by the plant's roots alone.
///
/// # Errors
/// Something in it contradicts something else, or nobody who is trusted signed it: then nothing is proved.
pub fn verify(
    evidence: &EventEvidence,
    plant: &PlantId,
    roots: &[CertificateDer<'static>],
) -> Result<ProvedEvent, EventProofError> {
    let hash = |bytes: &Bytes| Hash::try_from(bytes.as_ref()).map_err(|_| EventProofError::Form);
    let certificates = evidence.certificates.iter();
    let certificates: Vec<_> = certificates
        .map(|der| CertificateDer::from(der.to_vec()))
        .collect();
    let stranger = || TreeHeadError::Stranger(plant.clone());
    let below = issuers(plant, &certificates, roots).ok_or_else(stranger)?;
    let (leaf, sent) = certificates.split_first().ok_or_else(stranger)?;
    if below
        .split_last()
        .is_none_or(|(_, sent_below)| sent != sent_below)
    {
        return Err(stranger().into());
    }
    let chain = [std::slice::from_ref(leaf), &below].concat();
    let head = TreeHead::verify(&evidence.head, &chain, plant, roots)?;
    let proof = EventProof {
        event: evidence.event.to_vec(),
        in_block: InTree {
            index: evidence.index,
            path: hashes(&evidence.event_path)?,
        },
        block: BlockLeaf {
            source: evidence.source.clone(),
            epoch: evidence.epoch,
            sequence: evidence.sequence,
            digest: hash(&evidence.block_digest)?,
            events: TreeState {
                size: evidence.events,
                root: hash(&evidence.events_root)?,
            },
        },
        in_tree: InTree {
            index: evidence.leaf,
            path: hashes(&evidence.path)?,
        },
    };
    if !proof.holds(&head.head.tree) {
        return Err(EventProofError::NotInTree);
    }
    let seal = match evidence.seal.is_empty() {
        true if evidence.sealed_with.is_empty() => None,
        true => return Err(EventProofError::Form),
        false => Some(
            covering(
                plant,
                &proof.block,
                &evidence.seal,
                &hashes(&evidence.sealed_with)?,
            )
            .ok_or(EventProofError::Seal)?,
        ),
    };
    Ok(ProvedEvent {
        head,
        index: proof.in_block.index,
        leaf: proof.in_tree.index,
        event: AuditEvent::decode(proof.event.as_slice()).map_err(|_| EventProofError::Event)?,
        block: proof.block,
        seal,
    })
}

/// What the seal says, if its key signed it and it covers the block: as the one directly before it, or among those that it names for one severity,
/// which have these digests.
pub fn covering(plant: &PlantId, block: &BlockLeaf, seal: &[u8], named: &[Hash]) -> Option<SealText> {
    let note = Note::parse(seal).ok()?;
    let text = SealText::parse(&note.text)?;
    if text.name != signer_name(plant.as_str(), &block.source) || text.head.epoch != block.epoch {
        return None;
    }
    note.verify_ed25519(&text.name, &text.key).ok()?;
    let covers = if named.is_empty() {
        text.head.next_sequence == block.sequence.checked_add(1)? && text.head.digest == block.digest
    } else {
        let digest: Hash = sha2::Sha256::digest(named.concat()).into();
        let among = |(_, count, of): &(u8, u64, Hash)| *count == named.len() as u64 && *of == digest;
        (text.blocks.since..text.head.next_sequence).contains(&block.sequence)
            && named.contains(&block.digest)
            && text.blocks.classes.iter().any(among)
    };
    covers.then_some(text)
}

fn hashes(bytes: &Bytes) -> Result<Vec<Hash>, EventProofError> {
    let (hashes, rest) = bytes.as_chunks();
    match rest.is_empty() {
        true => Ok(hashes.to_vec()),
        false => Err(EventProofError::Form),
    }
}

#[cfg(test)]
mod tests;

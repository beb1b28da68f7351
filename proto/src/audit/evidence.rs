//! Evidence: a file that proves what it holds of the trails, to somebody who has nothing but the plant's root certificates.
//!
//! ```text
//! "penstock evidence 1" 0a | piece … each behind its length (varint): the head of the tree, blocks in the order in which they came, their end,
//!                            releases with the heads that they name, proofs that the tree begins with those, and with the heads in gateways' trails
//! ```
//!
//! Three things vouch, each of which the others do not need: a block's way to the head of the tree (by the coordinator's key, and
//! by everybody who holds an earlier head: `anchors`), the chain of its source, and the seals in that chain (by the source's keys). Pure: pieces in,
//! an account out.

mod anchors;
mod seen;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use penstock_policy::ids::PlantId;
use penstock_policy::merkle::Hash;
use penstock_policy::merkle::growing::TreeState;
use prost::Message as _;
use rustls::pki_types::CertificateDer;

use self::anchors::Anchors;
pub use self::anchors::{AnchoringRelease, AnchorsReport, CosignedHead, History, Vouched};
use super::chain::SealTrust;
use super::cosignature::WitnessKey;
use super::leaf::{BlockLeaf, InTree};
use super::tree_head::{TreeHead, TreeHeadError, VerifiedHead};
use super::verify::{TrailReport, TrailVerifier};
use super::{BODY_BYTES_MAX, block_digest};
use crate::v1::evidence_piece::Piece;
use crate::v1::{AuditBlock, EvidenceBlock, EvidencePiece};

/// The first bytes of a file of evidence.
pub const MAGIC: &[u8] = b"penstock evidence 1\n";

/// The largest piece, in bytes: a block's body and what stands beside it.
pub const PIECE_BYTES_MAX: usize = BODY_BYTES_MAX + 16 * 1024;

/// Writes a piece behind [`MAGIC`], or behind another one.
///
/// # Errors
/// What is written to does not take it.
pub fn write_piece(out: &mut impl Write, piece: &EvidencePiece) -> io::Result<()> {
    out.write_all(&piece.encode_length_delimited_to_vec())
}

/// The pieces of a file.
#[derive(Debug)]
pub struct Pieces<R>(R);

impl<R: Read> Pieces<R> {
    /// Of what begins with [`MAGIC`].
    ///
    /// # Errors
    /// It does not ([`io::ErrorKind::InvalidData`]), or cannot be read.
    pub fn of(mut file: R) -> io::Result<Self> {
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic)?;
        match magic == *MAGIC {
            true => Ok(Self(file)),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// The next one; `None`: that was all.
    ///
    /// # Errors
    /// It is something else, or larger than [`PIECE_BYTES_MAX`] ([`io::ErrorKind::InvalidData`]); the file ends amid it; it cannot be read.
    pub fn read(&mut self) -> io::Result<Option<EvidencePiece>> {
        let wrong = || io::Error::from(io::ErrorKind::InvalidData);
        let mut length = 0_usize;
        for shift in [0, 7, 14, 21] {
            let mut byte = [0];
            if shift == 0 && self.0.read(&mut byte)? == 0 {
                return Ok(None);
            } else if shift > 0 {
                self.0.read_exact(&mut byte)?;
            }
            let [byte] = byte;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        if length > PIECE_BYTES_MAX {
            return Err(wrong());
        }
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes)?;
        EvidencePiece::decode(bytes.as_slice())
            .map(Some)
            .map_err(|_| wrong())
    }
}

/// Sources of one plant that are read from one file.
const SOURCES_MAX: usize = 200_000;

/// Why evidence is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// It has another form.
    #[error("piece {0} is none of evidence: the file was cut off or altered")]
    Form(u64),
    /// The head does not count.
    #[error("the head of the tree does not count")]
    Head(#[from] TreeHeadError),
    /// A block is not in the tree.
    #[error(
        "block {epoch}/{sequence} of {source_name} (piece {piece}) is not in the tree whose head the coordinator signed: it was altered, or put in"
    )]
    NotInTree {
        /// Whose block.
        source_name: String,
        /// Chain number.
        epoch: u64,
        /// Place in the chain.
        sequence: u64,
        /// Where it stands in the file.
        piece: u64,
    },
    /// The end that the head promises is not there.
    #[error("it ends behind piece {0} without the end that its head promises: the file was cut off")]
    CutOff(u64),
    /// A block does not stand behind the one before it.
    #[error(
        "piece {0} does not come after the one before it: blocks were put into another order, or are there twice"
    )]
    Order(u64),
    /// More sources than any plant has.
    #[error("the file has blocks of more than {SOURCES_MAX} sources")]
    Sources,
    /// A release does not follow the one before it.
    #[error("release {revision} in the file does not follow the one before it: {why}")]
    History {
        /// By its own statement; 0: that cannot be read.
        revision: u64,
        /// In words.
        why: String,
    },
}

/// Reads evidence piece by piece.
#[derive(Debug)]
pub struct EvidenceReader<'a> {
    plant: &'a PlantId,
    roots: &'a [CertificateDer<'static>],
    pieces: u64,
    head: VerifiedHead,
    /// The certificate of the key that signed it.
    coordinator: Option<CertificateDer<'static>>,
    consistency: Vec<Hash>,
    trails: BTreeMap<String, TrailVerifier<'a>>,
    /// The first and the last leaf.
    leaves: Option<(u64, u64)>,
    /// Blocks from before the tree, source by source, that no block of the tree follows yet.
    untied: BTreeMap<String, Untied>,
    blocks: u64,
    before_tree: u64,
    /// Who else holds heads of the tree; what comes behind the blocks.
    anchors: Anchors,
    /// The head promises an end; ...
    has_end: bool,
    /// ... and here it is.
    is_ended: bool,
}

/// Blocks of a source from before there was a tree. They are proved once the source's next block, which is in the tree, names the last of them
/// as the one before it.
#[derive(Debug, Default)]
struct Untied {
    /// The place behind the last one, and its digest.
    next: (u64, u64),
    digest: [u8; 32],
    /// As many follow one another up to there.
    linked: u64,
    /// Others, which nothing proves any more.
    lost: u64,
}

/// What evidence proves.
#[derive(Debug)]
pub struct EvidenceReport {
    /// The head of the tree, and whose key signed it.
    pub head: VerifiedHead,
    /// Each trail of which there are blocks.
    pub trails: BTreeMap<String, TrailReport>,
    /// All blocks.
    pub blocks: u64,
    /// Of those, blocks from before there was a tree, which the chains of their sources tie to blocks in it.
    pub before_tree: u64,
    /// Of those, blocks that nothing ties to the tree: they may be anybody's.
    pub unproved: u64,
    /// The first and the last leaf of the tree that is in the file; `None`: none is.
    pub leaves: Option<(u64, u64)>,
    /// Blocks between these two that are not in the file.
    pub left_out: u64,
    /// What the tree was held against: the heads that releases name, and those in gateways' trails.
    pub anchors: AnchorsReport,
    /// Whether the file says where it ends: else nothing shows if it was cut off there.
    pub has_end: bool,
}

impl EvidenceReport {
    /// Whether nothing in it contradicts anything, and everything in it is proved to be the coordinator's.
    pub fn is_sound(&self) -> bool {
        self.unproved == 0 && self.trails.values().all(TrailReport::is_whole) && self.anchors.is_sound()
    }
}

fn hashes(bytes: &[prost::bytes::Bytes]) -> Option<Vec<Hash>> {
    bytes.iter().map(|hash| hash.as_ref().try_into().ok()).collect()
}

impl<'a> EvidenceReader<'a> {
    /// Begins with the head, which has to be signed by a coordinator of `plant`.
    ///
    /// # Errors
    /// It is no head, or does not count.
    pub fn begin(
        first: EvidencePiece,
        plant: &'a PlantId,
        roots: &'a [CertificateDer<'static>],
    ) -> Result<Self, EvidenceError> {
        let Some(Piece::Head(head)) = first.piece else {
            return Err(EvidenceError::Form(0));
        };
        let certificates: Vec<CertificateDer<'static>> = head
            .certificates
            .iter()
            .map(|certificate| CertificateDer::from(certificate.to_vec()))
            .collect();
        Ok(Self {
            plant,
            roots,
            pieces: 1,
            head: TreeHead::verify(&head.note, &certificates, plant, roots)?,
            coordinator: certificates.into_iter().next(),
            consistency: hashes(&head.consistency).ok_or(EvidenceError::Form(0))?,
            trails: BTreeMap::new(),
            leaves: None,
            untied: BTreeMap::new(),
            blocks: 0,
            before_tree: 0,
            anchors: Anchors::default(),
            has_end: head.has_end,
            is_ended: false,
        })
    }

    /// Holds the releases in the file to these approvers, or to this release, which the caller knows from elsewhere.
    pub fn believe(&mut self, vouched: Vouched) {
        self.anchors.believe(vouched);
    }

    /// Holds the file to these external witnesses, whose keys the caller knows from elsewhere: each has to have cosigned a head in it.
    pub fn believe_witnesses(&mut self, witnesses: Vec<WitnessKey>) {
        self.anchors.believe_witnesses(witnesses);
    }

    /// The sizes of the tree that want a proof: of the heads that were named so far.
    pub fn named_sizes(&self) -> Vec<u64> {
        self.anchors.sizes()
    }

    /// The head, which counts.
    pub fn head(&self) -> &VerifiedHead {
        &self.head
    }

    /// Whether the tree begins with all of the one that was seen before.
    pub fn continues(&self, seen: &TreeState) -> bool {
        self.head.head.tree.continues(seen, &self.consistency)
    }

    /// Takes the next piece behind the head.
    ///
    /// # Errors
    /// It is none, or is not where it says; or a release that does not follow the one before it.
    pub fn take(&mut self, piece: EvidencePiece) -> Result<(), EvidenceError> {
        let number = self.pieces;
        self.pieces += 1;
        let form = || EvidenceError::Form(number);
        let block = match piece.piece {
            Some(Piece::Block(_) | Piece::End(_)) if self.is_ended => return Err(form()),
            Some(Piece::Block(block)) if !self.anchors.have_begun() => block,
            Some(Piece::Block(_)) => return Err(EvidenceError::Order(number)),
            Some(Piece::Release(release)) => return self.anchors.release(&release, self.plant),
            Some(Piece::Proof(proof)) => {
                let path = hashes(&proof.path).ok_or_else(form)?;
                self.anchors.proof(proof.earlier, &path, &self.head.head.tree);
                return Ok(());
            }
            Some(Piece::Cosigned(note)) => {
                return self.anchors.cosigned(&note).then_some(()).ok_or_else(form);
            }
            Some(Piece::End(end)) => {
                self.is_ended = true;
                return (self.has_end && end.blocks == self.blocks)
                    .then_some(())
                    .ok_or_else(form);
            }
            Some(Piece::Head(_)) | None => return Err(form()),
        };
        self.take_block(block, number)
    }

    fn take_block(&mut self, block: EvidenceBlock, number: u64) -> Result<(), EvidenceError> {
        let form = || EvidenceError::Form(number);
        let EvidenceBlock {
            source,
            block: Some(block),
            index,
            path,
            ..
        } = block
        else {
            return Err(form());
        };
        match (self.leaves, index) {
            (Some((_, last)), Some(index)) if index <= last => return Err(EvidenceError::Order(number)),
            (Some(_), None) => return Err(EvidenceError::Order(number)),
            _ => {}
        }
        let leaf = leaf_of(&source, &block).ok_or_else(form)?;
        match index {
            Some(index) => {
                let in_tree = InTree {
                    index,
                    path: hashes(&path).ok_or_else(form)?,
                };
                if !in_tree.proves(&leaf.hash(), &self.head.head.tree) {
                    return Err(EvidenceError::NotInTree {
                        source_name: source,
                        epoch: block.epoch,
                        sequence: block.sequence,
                        piece: number,
                    });
                }
            }
            None => self.before_tree += 1,
        }
        if let Some(index) = index {
            self.leaves = Some((self.leaves.map_or(index, |(first, _)| first), index));
        }
        self.tie(&source, &block, &leaf, index.is_some());
        self.blocks += 1;
        if self.trails.len() >= SOURCES_MAX && !self.trails.contains_key(&source) {
            return Err(EvidenceError::Sources);
        }
        let (plant, roots) = (self.plant, self.roots);
        let trail = self.trails.entry(source.clone()).or_insert_with_key(|source| {
            TrailVerifier::new(SealTrust {
                plant,
                source: source.clone().into(),
                roots,
            })
        });
        trail.take(&block, None);
        self.anchors.seen(&source, trail.trails_heads());
        Ok(())
    }

    /// Follows the chain of a source from blocks of before the tree into it.
    fn tie(&mut self, source: &str, block: &AuditBlock, leaf: &BlockLeaf, in_tree: bool) {
        let at = (block.epoch, block.sequence);
        if in_tree {
            if let Some(untied) = self.untied.get_mut(source).filter(|untied| untied.linked > 0) {
                let follows = untied.next == at && block.previous_digest == untied.digest.as_slice();
                let linked = std::mem::take(&mut untied.linked);
                untied.lost += if follows { 0 } else { linked };
            }
            return;
        }
        let untied = self.untied.entry(source.to_owned()).or_default();
        if untied.linked > 0 && (untied.next != at || block.previous_digest != untied.digest.as_slice()) {
            untied.lost += std::mem::take(&mut untied.linked);
        }
        untied.linked += 1;
        (untied.next, untied.digest) = ((at.0, at.1.saturating_add(1)), leaf.digest);
    }

    /// What all of it proves.
    ///
    /// # Errors
    /// The end that the head promises is missing.
    pub fn report(self) -> Result<EvidenceReport, EvidenceError> {
        if self.has_end && !self.is_ended {
            return Err(EvidenceError::CutOff(self.pieces - 1));
        }
        let unproved = self
            .untied
            .values()
            .map(|untied| untied.linked + untied.lost)
            .sum();
        let held = self.blocks - self.before_tree;
        Ok(EvidenceReport {
            has_end: self.has_end,
            unproved,
            leaves: self.leaves,
            left_out: self
                .leaves
                .map_or(0, |(first, last)| (last - first + 1).saturating_sub(held)),
            head: self.head,
            trails: self
                .trails
                .into_iter()
                .map(|(source, trail)| (source, trail.report()))
                .collect(),
            blocks: self.blocks,
            before_tree: self.before_tree,
            anchors: self.anchors.report(self.coordinator.as_ref()),
        })
    }
}

/// A block as the tree has it; `None`: its digest before it is none.
fn leaf_of(source: &str, block: &AuditBlock) -> Option<BlockLeaf> {
    let previous: [u8; 32] = block.previous_digest.as_ref().try_into().ok()?;
    let digest = block_digest(&previous, block.epoch, block.sequence, &block.body);
    Some(BlockLeaf::new(
        source,
        (block.epoch, block.sequence),
        digest,
        &block.body,
    ))
}

//! The chain of a source's audit trail: one definition of the digest and of what may follow what.
//!
//! A trail is blocks at (epoch, sequence). The digest of a block covers the digest before it, its position and
//! its exact body, so that altering, reordering or inserting a block is seen by whoever holds a later digest:
//!
//! ```text
//! digest = SHA-256( "penstock audit block 1" 00 | previous (32) | epoch (8, BE) | sequence (8, BE) | body )
//! ```
//!
//! A gateway that runs out of room sheds whole blocks. The block after a gap still names the digest of its true
//! predecessor, and a later `LossEvent` says how many blocks and events are missing; so a gap is legal on the
//! chain, and [`AcceptedBlock::missing`] is what a reader holds against the loss records.
//!
//! Heads are signed in the trail itself ([`seal`]), and what that proves is judged in one place ([`chain`], [`verify`]). Over all trails
//! that a coordinator holds stands a tree ([`leaf`], [`tree_head`]), and [`evidence`] is a file that proves by all of these.
//! Not here: storing (agent and coordinator, each its own way).

pub mod chain;
pub mod cosignature;
pub mod event_proof;
pub mod evidence;
pub mod key_file;
pub mod keys;
pub mod leaf;
pub mod note;
pub mod seal;
pub mod tree_head;
pub mod verify;
pub mod vouching;
pub mod witness;

use prost::Message as _;
use sha2::Digest as _;

use crate::v1::{AuditBlock, AuditBlockBody};

/// The digest that stands before the first block of an epoch.
pub const GENESIS: [u8; 32] = [0; 32];

/// The largest body a source writes and a reader accepts, in bytes.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// How many epochs what is held of a trail may be ahead of its source, for the source to go on after it. What is held
/// further ahead was written by somebody else under the source's identity.
pub const EPOCH_FOLLOWED_MAX: u64 = 1_000_000;

/// How many epochs a source may be ahead of what is held of its trail: as far as it goes to follow what was held. A
/// coordinator that is restored from before that takes the trail up again. Numbers that are used up would end the trail for
/// ever; at this pace nobody comes to their end.
pub const EPOCH_LEAD_MAX: u64 = EPOCH_FOLLOWED_MAX + 1;

const DOMAIN: &[u8] = b"penstock audit block 1\0";

/// The digest of the block at (`epoch`, `sequence`) with exactly this `body`.
pub fn block_digest(previous: &[u8; 32], epoch: u64, sequence: u64, body: &[u8]) -> [u8; 32] {
    let mut hash = sha2::Sha256::new();
    hash.update(DOMAIN);
    hash.update(previous);
    hash.update(epoch.to_be_bytes());
    hash.update(sequence.to_be_bytes());
    hash.update(body);
    hash.finalize().into()
}

/// Where a trail stands: the position after its last block, and that block's digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Chain number.
    pub epoch: u64,
    /// The first sequence not yet held.
    pub next_sequence: u64,
    /// Digest of the last block.
    pub digest: [u8; 32],
}

/// A block that belongs where it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptedBlock {
    /// The trail's head with this block on it.
    pub head: Head,
    /// How many sequences between the old head and this block were not delivered: shed by the source. At the
    /// start of an epoch, those below the first block.
    pub missing: u64,
}

/// Why a block does not continue a trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The position is already held: harmless, acknowledge again.
    #[error("block {epoch}/{sequence} is already held")]
    Held {
        /// Epoch of the block.
        epoch: u64,
        /// Sequence of the block.
        sequence: u64,
    },
    /// It names another predecessor than the one that is held: the source was rolled back, or the trail altered.
    #[error("block {epoch}/{sequence} does not follow the block before it: the trail was altered or forked")]
    Forked {
        /// Epoch of the block.
        epoch: u64,
        /// Sequence of the block.
        sequence: u64,
    },
    /// Its epoch lies further ahead than [`EPOCH_LEAD_MAX`]: taken, it would leave no numbers for the blocks to come.
    #[error(
        "block {epoch}/{sequence} lies more than {EPOCH_LEAD_MAX} epochs ahead of the trail: it is not stored, and the trail stays \
         where it was"
    )]
    FarAhead {
        /// Epoch of the block.
        epoch: u64,
        /// Sequence of the block.
        sequence: u64,
    },
    /// Its form is wrong: a digest that is not 32 bytes, a body over [`BODY_BYTES_MAX`], or a sequence at the end
    /// of all numbers.
    #[error("block {epoch}/{sequence} is malformed")]
    Malformed {
        /// Epoch of the block.
        epoch: u64,
        /// Sequence of the block.
        sequence: u64,
    },
}

impl ChainError {
    /// Epoch and sequence of the block.
    pub fn position(self) -> (u64, u64) {
        match self {
            Self::Held { epoch, sequence }
            | Self::Forked { epoch, sequence }
            | Self::FarAhead { epoch, sequence }
            | Self::Malformed { epoch, sequence } => (epoch, sequence),
        }
    }
}

impl Head {
    /// Judges `block` as the next of the trail whose head is `head` (`None`: nothing is held yet).
    ///
    /// A higher epoch begins a new chain, if it is not too far ahead. A jump in the sequence is accepted and reported as `missing`.
    ///
    /// # Errors
    /// The block is held already, does not follow, lies too far ahead, or is malformed.
    pub fn accept(head: Option<&Self>, block: &AuditBlock) -> Result<AcceptedBlock, ChainError> {
        let (epoch, sequence) = (block.epoch, block.sequence);
        let malformed = ChainError::Malformed { epoch, sequence };
        let previous: [u8; 32] = block.previous_digest.as_ref().try_into().map_err(|_| malformed)?;
        if block.body.len() > BODY_BYTES_MAX {
            return Err(malformed);
        }
        let next_sequence = sequence.checked_add(1).ok_or(malformed)?;
        let missing = match head {
            Some(head) if (epoch, sequence) < (head.epoch, head.next_sequence) => {
                return Err(ChainError::Held { epoch, sequence });
            }
            Some(head) if epoch == head.epoch => {
                if sequence == head.next_sequence && previous != head.digest {
                    return Err(ChainError::Forked { epoch, sequence });
                }
                sequence - head.next_sequence
            }
            _ if epoch > head.map_or(0, |head| head.epoch).saturating_add(EPOCH_LEAD_MAX) => {
                return Err(ChainError::FarAhead { epoch, sequence });
            }
            _ if sequence == 0 && previous != GENESIS => {
                return Err(ChainError::Forked { epoch, sequence });
            }
            _ => sequence,
        };
        Ok(AcceptedBlock {
            head: Self {
                epoch,
                next_sequence,
                digest: block_digest(&previous, epoch, sequence, &block.body),
            },
            missing,
        })
    }
}

/// Reads a block's body.
///
/// # Errors
/// The bytes are not an encoded body.
pub fn read_body(body: &[u8]) -> Result<AuditBlockBody, prost::DecodeError> {
    AuditBlockBody::decode(body)
}

#[cfg(test)]
mod kept;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    fn chain(bodies: &[&'static [u8]]) -> Vec<AuditBlock> {
        let mut previous = GENESIS;
        bodies
            .iter()
            .zip(0..)
            .map(|(body, sequence)| {
                let block = AuditBlock {
                    epoch: 3,
                    sequence,
                    previous_digest: previous.to_vec().into(),
                    body: (*body).into(),
                };
                previous = block_digest(&previous, 3, sequence, body);
                block
            })
            .collect()
    }

    fn follow(blocks: &[AuditBlock]) -> Result<Option<Head>, ChainError> {
        blocks.iter().try_fold(None, |head: Option<Head>, block| {
            Ok(Some(Head::accept(head.as_ref(), block)?.head))
        })
    }

    #[test]
    fn an_untouched_chain_is_accepted_and_any_altered_body_or_order_is_refused() {
        let blocks = chain(&[b"a", b"b", b"c"]);
        assert_eq!(follow(&blocks).unwrap().unwrap().next_sequence, 3);
        let mut altered = blocks.clone();
        altered[1].body = b"B".as_slice().into();
        assert!(matches!(
            follow(&altered),
            Err(ChainError::Forked { sequence: 2, .. })
        ));
        let mut swapped = blocks.clone();
        swapped.swap(1, 2);
        swapped[1].sequence = 1;
        swapped[2].sequence = 2;
        assert!(follow(&swapped).is_err());
    }

    #[test]
    fn a_gap_is_accepted_and_counted_and_a_repeated_block_is_told_apart_from_a_fork() {
        let blocks = chain(&[b"a", b"b", b"c"]);
        let head = Head::accept(None, &blocks[0]).unwrap().head;
        let jumped = Head::accept(Some(&head), &blocks[2]).unwrap();
        assert_eq!(jumped.missing, 1);
        assert!(matches!(
            Head::accept(Some(&jumped.head), &blocks[1]),
            Err(ChainError::Held { sequence: 1, .. })
        ));
    }

    #[test]
    fn a_higher_epoch_begins_anew_and_a_lower_one_is_already_held() {
        let head = Head {
            epoch: 4,
            next_sequence: 9,
            digest: [7; 32],
        };
        let blocks = chain(&[b"a"]);
        assert!(matches!(
            Head::accept(Some(&head), &blocks[0]),
            Err(ChainError::Held { .. })
        ));
        let mut later = blocks[0].clone();
        later.epoch = 5;
        assert_eq!(Head::accept(Some(&head), &later).unwrap().head.next_sequence, 1);
    }

    #[test]
    fn an_epoch_far_ahead_is_refused_so_that_no_block_uses_up_the_numbers_of_a_trail() {
        let head = Head {
            epoch: 4,
            next_sequence: 9,
            digest: [7; 32],
        };
        for (held, last) in [(Some(&head), 4 + EPOCH_LEAD_MAX), (None, EPOCH_LEAD_MAX)] {
            let mut block = chain(&[b"a"])[0].clone();
            block.epoch = last;
            assert_eq!(Head::accept(held, &block).unwrap().head.epoch, last);
            for far in [last + 1, i64::MAX as u64, u64::MAX] {
                block.epoch = far;
                assert!(matches!(
                    Head::accept(held, &block),
                    Err(ChainError::FarAhead { .. })
                ));
            }
        }
    }
}

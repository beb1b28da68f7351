//! What the spool wrote into a database before it had a log of its own, byte for byte; read, and never written any more.
//!
//! ```text
//! "m"                                  → the head of the chain and the accounts
//! "b" epoch (8, BE) sequence (8, BE)   → a block: its facts, the digest before it, its body
//! "i" severity (1) epoch sequence      → the facts again
//! ```
//!
//! Every value ends in the first 8 bytes of the SHA-256 of its key and content.

use penstock_proto::audit::Head;
use sha2::Digest as _;

use crate::audit::accounts::{SEVERITIES, SEVERITY_MAX};
use crate::audit::layout::{BlockFacts, Loss, Position, Reader};
use crate::database;

/// The key of the accounts.
pub(super) const META_KEY: &[u8] = b"m";
/// The keys of all blocks.
pub(super) const BLOCKS: (&[u8], &[u8]) = (b"b", b"c");

const META_VERSION: u8 = 1;

/// The accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) head: Head,
    /// What all blocks took, in bytes.
    pub(super) bytes: u64,
    pub(super) acked: Position,
    pub(super) lost_events: u64,
    pub(super) untold: [Loss; 4],
    pub(super) moving_from: Option<Position>,
}

/// A block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EarlierBlock {
    pub(super) facts: BlockFacts,
    pub(super) previous: [u8; 32],
    pub(super) body: Vec<u8>,
}

fn key(prefix: &[u8], at: Position) -> Vec<u8> {
    [prefix, &at.epoch.to_be_bytes(), &at.sequence.to_be_bytes()].concat()
}

/// The place of the block with this key.
pub(super) fn read_block_key(key: &[u8]) -> Option<Position> {
    let mut read = Reader(key.strip_prefix(b"b")?);
    let at = read.position()?;
    read.end(at)
}

fn read_facts(read: &mut Reader<'_>) -> Option<BlockFacts> {
    let severity = read.u8()?.min(SEVERITY_MAX);
    let _cost = read.u64()?;
    Some(BlockFacts {
        severity,
        events: read.u64()?,
        carried_events: read.u64()?,
        carried_blocks: read.u64()?,
        first_ms: read.u64()?,
        last_ms: read.u64()?,
    })
}

impl EarlierBlock {
    pub(super) fn from_bytes(at: Position, bytes: &[u8]) -> Option<Self> {
        let mut read = Reader(guarded(&key(b"b", at), bytes)?);
        Some(Self {
            facts: read_facts(&mut read)?,
            previous: read.digest()?,
            body: read.0.to_vec(),
        })
    }
}

/// The facts of a block whose own record cannot be read.
pub(super) fn indexed_facts(tree: &database::Tree, at: Position) -> Option<BlockFacts> {
    SEVERITIES.into_iter().find_map(|severity| {
        let key = key(&[b'i', severity], at);
        let value = tree.get(&key).ok()??;
        let mut read = Reader(guarded(&key, &value)?);
        let facts = read_facts(&mut read)?;
        read.end(facts)
    })
}

impl Meta {
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut read = Reader(guarded(META_KEY, bytes)?);
        if read.u8()? != META_VERSION {
            return None;
        }
        let (epoch, next_sequence, bytes) = (read.u64()?, read.u64()?, read.u64()?);
        let acked = read.position()?;
        let lost_events = read.u64()?;
        let mut untold = [Loss::default(); 4];
        for loss in &mut untold {
            *loss = Loss::read(&mut read)?;
        }
        let moving = read.position()?;
        let digest = read.digest()?;
        read.end(Self {
            head: Head {
                epoch,
                next_sequence,
                digest,
            },
            bytes,
            acked,
            lost_events,
            untold,
            moving_from: (moving.epoch != u64::MAX).then_some(moving),
        })
    }
}

fn guarded<'a>(key: &[u8], bytes: &'a [u8]) -> Option<&'a [u8]> {
    let (content, sum) = bytes.split_last_chunk::<8>()?;
    let mut hash = sha2::Sha256::new();
    hash.update(key);
    hash.update(content);
    let digest: [u8; 32] = hash.finalize().into();
    digest.starts_with(sum).then_some(content)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_spool_that_was_written_when_the_form_was_made_is_read_today() {
        let at = Position {
            epoch: 2,
            sequence: 5,
        };
        let facts = BlockFacts {
            severity: 3,
            events: 4,
            carried_events: 1,
            carried_blocks: 2,
            first_ms: 1_790_000_000_000,
            last_ms: 1_790_000_000_100,
        };
        let kept = crate::fixture::read;
        assert_eq!(kept("spool-key.hex"), key(b"b", at));
        assert_eq!(read_block_key(&kept("spool-key.hex")), Some(at));
        let block = EarlierBlock::from_bytes(at, &kept("spool-block.hex")).unwrap();
        assert_eq!((block.facts, block.previous), (facts, [7; 32]));
        assert_eq!(block.body, b"a block");
        let folder = tempfile::tempdir().unwrap();
        let opened = database::open(folder.path(), 1 << 20, 1 << 16).unwrap();
        let tree = opened.open_tree("trail").unwrap();
        tree.insert(key(b"i\x03", at), kept("spool-index.hex")).unwrap();
        assert_eq!(indexed_facts(&tree, at), Some(facts));
        for (name, moving_from) in [("spool-meta-1.hex", None), ("spool-meta-1-moving.hex", Some(at))] {
            let loss = Loss {
                events: 1,
                blocks: 1,
                first_ms: 5,
                last_ms: 6,
            };
            let meta = Meta {
                head: Head {
                    epoch: 2,
                    next_sequence: 6,
                    digest: [9; 32],
                },
                bytes: 400,
                acked: at,
                lost_events: 3,
                untold: [loss; 4],
                moving_from,
            };
            assert_eq!(Meta::from_bytes(&kept(name)), Some(meta));
        }
    }
}

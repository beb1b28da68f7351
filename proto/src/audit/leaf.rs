//! What stands for a block in the tree over all trails of a coordinator, and the proof that one event is in it.
//!
//! ```text
//! leaf  = RFC 6962 leaf hash of ( "penstock trail leaf 1" 00 | name length (4, BE) | name of the source | epoch (8) | sequence (8)
//!                                 | digest of the block (32) | events (8) | root of its events (32) )
//! ```
//!
//! The digest binds the block into its source's chain. The root over its events (a tree of their encoded bytes, in the order of the body)
//! is there so that one event is proved without the others: by two short paths, whatever the block and the trails hold beside it.

use penstock_policy::merkle::growing::TreeState;
use penstock_policy::merkle::{Hash, Tree, leaf_hash, verify_inclusion};

const DOMAIN: &[u8] = b"penstock trail leaf 1\0";

/// The events of a body as they are encoded there, in order. A body that does not hold events alone is one event.
pub fn events(body: &[u8]) -> Vec<&[u8]> {
    let mut events = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        match event(rest) {
            Some((event, behind)) => {
                events.push(event);
                rest = behind;
            }
            None => return vec![body],
        }
    }
    events
}

/// The first event (field 1, length-delimited), and what is behind it.
fn event(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    const EVENT: u8 = 1 << 3 | 2;
    let (&EVENT, mut rest) = bytes.split_first()? else {
        return None;
    };
    let mut length = 0_usize;
    for shift in [0, 7, 14, 21] {
        let (byte, behind) = rest.split_first()?;
        rest = behind;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return rest.split_at_checked(length);
        }
    }
    None
}

/// A block, as the tree has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockLeaf {
    /// Whose trail.
    pub source: String,
    /// Chain number.
    pub epoch: u64,
    /// Place in the chain.
    pub sequence: u64,
    /// Of the block, in its chain ([`super::block_digest`]).
    pub digest: Hash,
    /// The tree over its events.
    pub events: TreeState,
}

impl BlockLeaf {
    /// Of the block with this body.
    pub fn new(source: &str, (epoch, sequence): (u64, u64), digest: Hash, body: &[u8]) -> Self {
        let events = tree(body);
        Self {
            source: source.to_owned(),
            epoch,
            sequence,
            digest,
            events: TreeState {
                size: events.size(),
                root: events.root(),
            },
        }
    }

    /// Its hash in the tree.
    pub fn hash(&self) -> Hash {
        let length = u32::try_from(self.source.len()).unwrap_or(u32::MAX);
        let content = [
            DOMAIN,
            &length.to_be_bytes(),
            self.source.as_bytes(),
            &self.epoch.to_be_bytes(),
            &self.sequence.to_be_bytes(),
            &self.digest,
            &self.events.size.to_be_bytes(),
            &self.events.root,
        ];
        leaf_hash(&content.concat())
    }
}

fn tree(body: &[u8]) -> Tree {
    Tree::new(events(body).into_iter().map(leaf_hash).collect())
}

/// The way from something to the root of its tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InTree {
    /// Which leaf it is.
    pub index: u64,
    /// The sibling hashes.
    pub path: Vec<Hash>,
}

impl InTree {
    /// The event of this index in a body; `None`: it has not so many.
    pub fn of_event(body: &[u8], index: u64) -> Option<Self> {
        let path = tree(body).proof(index)?;
        Some(Self { index, path })
    }

    /// Whether what has this leaf hash stands there in the tree of this state.
    pub fn proves(&self, leaf: &Hash, tree: &TreeState) -> bool {
        verify_inclusion(leaf, self.index, tree.size, &self.path, &tree.root)
    }
}

/// One event, with what leads from it to a tree over all trails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventProof {
    /// Its encoded bytes.
    pub event: Vec<u8>,
    /// Where in its block it stands.
    pub in_block: InTree,
    /// Its block.
    pub block: BlockLeaf,
    /// Where in the tree over all trails that stands.
    pub in_tree: InTree,
}

impl EventProof {
    /// Whether the event is in the tree of this state.
    pub fn holds(&self, tree: &TreeState) -> bool {
        self.in_block.proves(&leaf_hash(&self.event), &self.block.events)
            && self.in_tree.proves(&self.block.hash(), tree)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::v1::{AgentEvent, AuditBlockBody, AuditEvent, audit_event::Kind};

    fn body(times: &[u64]) -> AuditBlockBody {
        let event = |time_ms: &u64| AuditEvent {
            time_ms: *time_ms,
            kind: Some(Kind::Agent(AgentEvent {
                message: "x".repeat(usize::try_from(*time_ms % 300).unwrap()),
                ..AgentEvent::default()
            })),
            ..AuditEvent::default()
        };
        AuditBlockBody {
            events: times.iter().map(event).collect(),
        }
    }

    proptest! {
        #[test]
        fn the_events_of_a_body_are_those_that_it_was_encoded_from(times in prop::collection::vec(any::<u64>(), 0..20)) {
            let body = body(&times);
            let encoded = body.encode_to_vec();
            let each: Vec<Vec<u8>> = body.events.iter().map(|event| event.encode_to_vec()).collect();
            prop_assert_eq!(events(&encoded), each);
        }

        #[test]
        fn any_bytes_are_cut_into_events_that_are_all_of_them_or_are_one(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let found = events(&bytes);
            let whole: Vec<&[u8]> = vec![&bytes];
            let held: usize = found.iter().map(|event| event.len()).sum();
            prop_assert!(found == whole || held + 2 * found.len() <= bytes.len());
        }

        #[test]
        fn an_event_is_proved_by_its_own_two_paths_and_by_nothing_that_was_changed(
            times in prop::collection::vec(0_u64..1000, 1..20), at in any::<prop::sample::Index>(),
            leaves in 1_u64..40, place in any::<prop::sample::Index>(), change in 0..7_u8,
        ) {
            let encoded = body(&times).encode_to_vec();
            let block = BlockLeaf::new("gw-1", (3, 7), [9; 32], &encoded);
            let index = at.index(times.len()) as u64;
            let mut others: Vec<Hash> = (0..leaves).map(|n| leaf_hash(&n.to_be_bytes())).collect();
            let block_at = place.index(others.len());
            others[block_at] = block.hash();
            let tree = Tree::new(others);
            let mut proof = EventProof {
                event: events(&encoded)[at.index(times.len())].to_vec(),
                in_block: InTree::of_event(&encoded, index).unwrap(),
                block,
                in_tree: InTree { index: block_at as u64, path: tree.proof(block_at as u64).unwrap() },
            };
            let state = TreeState { size: tree.size(), root: tree.root() };
            prop_assert!(proof.holds(&state));
            prop_assert_eq!(InTree::of_event(&encoded, times.len() as u64), None);
            match change {
                0 => proof.event.push(0),
                1 => proof.in_block.index += 1,
                2 => proof.in_tree.index += 1,
                3 => proof.block.source.push('x'),
                4 => proof.block.sequence += 1,
                5 => proof.block.digest[4] ^= 1,
                _ => proof.block.events.size += 1,
            }
            prop_assert!(!proof.holds(&state));
        }
    }
}

//! The tree over all blocks, written down directly: each part of it from its leaves.

use std::convert::Infallible;

use penstock_policy::merkle::growing::{self, NodeAt, TreeState};
use penstock_policy::merkle::{Hash, Tree};

use super::{Kept, Memory, stored};
use crate::store::Pending;
use crate::store::tree::{BlockInTree, TrailTree};

impl Kept {
    fn first(&self, size: u64) -> Option<Tree> {
        let leaves = self.leaves.get(..usize::try_from(size).ok()?)?;
        Some(Tree::new(leaves.to_vec()))
    }

    fn node(&self, at: NodeAt) -> Hash {
        let first = usize::try_from(at.position << at.level).unwrap();
        Tree::new(
            self.leaves
                .iter()
                .skip(first)
                .take(1 << at.level)
                .copied()
                .collect(),
        )
        .root()
    }
}

impl TrailTree for Memory {
    fn tree(&self) -> Pending<'_, TreeState> {
        self.read(|kept| {
            let tree = Tree::new(kept.leaves.clone());
            Ok(TreeState {
                size: tree.size(),
                root: tree.root(),
            })
        })
    }

    fn tree_at(&self, size: u64) -> Pending<'_, Option<TreeState>> {
        self.read(|kept| {
            let root = kept.first(size).map(|tree| tree.root());
            Ok(root.map(|root| TreeState { size, root }))
        })
    }

    fn inclusion(&self, index: u64, size: u64) -> Pending<'_, Option<Vec<Hash>>> {
        self.read(|kept| Ok(kept.first(size).and_then(|tree| tree.proof(index))))
    }

    fn consistency(&self, earlier: u64, size: u64) -> Pending<'_, Option<Vec<Hash>>> {
        self.read(|kept| {
            let is_there = size <= kept.leaves.len() as u64;
            let proof = growing::consistency(earlier, size, |at| Ok::<_, Infallible>(kept.node(at)));
            Ok(proof.unwrap().filter(|_| is_there))
        })
    }

    fn block_at<'a>(
        &'a self,
        source: &'a str,
        epoch: u64,
        sequence: u64,
    ) -> Pending<'a, Option<BlockInTree>> {
        self.read(|kept| {
            let is_it = |(_, (name, new)): &(&u64, &(String, super::NewBlock))| {
                name == source && (new.block.epoch, new.block.sequence) == (epoch, sequence)
            };
            Ok(kept
                .blocks
                .iter()
                .find(is_it)
                .map(|(number, (_, new))| BlockInTree {
                    block: stored(*number, source, new),
                    previous: new.block.previous_digest.as_ref().try_into().unwrap(),
                    index: Some(number - 1),
                }))
        })
    }
}

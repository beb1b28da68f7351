//! The tree over all blocks of all trails (RFC 6962), in the order in which they came: the interface that an engine implements.
//!
//! A block's leaf (`penstock_proto::audit::leaf`) is written with the block, and stays when the block goes: what was proved can be proved for ever,
//! and a tree of a later day begins with all of an earlier one. Blocks that were stored before there was a tree are in it by the chain of
//! their source alone: a later block's digest covers them.

use penstock_policy::merkle::Hash;
use penstock_policy::merkle::growing::TreeState;

use super::Pending;
use super::trail::StoredBlock;

/// A block with what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockInTree {
    /// As it is stored.
    pub block: StoredBlock,
    /// The digest before it, in its source's chain.
    pub previous: Hash,
    /// Its place in the tree; `None`: it came before there was one.
    pub index: Option<u64>,
}

/// A tree that grows with the trails.
pub trait TrailTree {
    /// How far it goes.
    fn tree(&self) -> Pending<'_, TreeState>;

    /// Its first `size` leaves; `None`: it has not so many.
    fn tree_at(&self, size: u64) -> Pending<'_, Option<TreeState>>;

    /// The path from leaf `index` to the root of the first `size` leaves; `None`: it is not among them.
    fn inclusion(&self, index: u64, size: u64) -> Pending<'_, Option<Vec<Hash>>>;

    /// The proof that the first `size` leaves begin with the first `earlier`; `None`: there are not so many.
    fn consistency(&self, earlier: u64, size: u64) -> Pending<'_, Option<Vec<Hash>>>;

    /// A stored block by its place in the chain of its source; `None`: it is not there, or not any more.
    fn block_at<'a>(&'a self, source: &'a str, epoch: u64, sequence: u64)
    -> Pending<'a, Option<BlockInTree>>;
}

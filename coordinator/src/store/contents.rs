//! What a store holds, counted: so that two places that should hold the same are compared.

use std::fmt;

use penstock_policy::merkle::growing::TreeState;

/// What a store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Records.
    pub records: u64,
    /// Documents, plans and what else is large.
    pub blobs: u64,
    /// Trails.
    pub trails: u64,
    /// Blocks in them.
    pub blocks: u64,
    /// The tree over all blocks that there ever were.
    pub tree: TreeState,
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} records, {} documents and plans, {} trails with {} blocks; tree of {} blocks, root {}",
            self.records,
            self.blobs,
            self.trails,
            self.blocks,
            self.tree.size,
            hex::encode(self.tree.root)
        )
    }
}

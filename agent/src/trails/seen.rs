//! Whether a head of the coordinator's trails begins with the one that was seen before. Pure.

use penstock_policy::ids::Digest;
use penstock_policy::merkle::Hash;
use penstock_policy::merkle::growing::TreeState;
use penstock_proto::audit::tree_head::TreeHead;
use penstock_proto::tls::times::instant;
use prost::bytes::Bytes;
use serde::{Deserialize, Serialize};

/// How far the trails went, when the coordinator signed that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SeenTrails {
    /// Blocks.
    pub(super) size: u64,
    /// The root of the tree over them.
    pub(super) root: Digest,
    /// By the coordinator's clock, milliseconds since 1970.
    pub(super) time_ms: u64,
    /// The newest release whose approvers' word was taken that the trails begin again; 0: none.
    #[serde(default)]
    pub(super) again: u64,
}

/// How a head stands to the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stands {
    /// It is the same tree.
    Same,
    /// It is the first, or begins with it.
    Continues,
    /// It does not, or nothing proves that it does.
    Rewritten(SeenTrails),
}

impl From<&TreeHead> for SeenTrails {
    fn from(head: &TreeHead) -> Self {
        Self {
            size: head.tree.size,
            root: Digest(head.tree.root),
            time_ms: head.time_ms,
            again: 0,
        }
    }
}

impl SeenTrails {
    fn tree(&self) -> TreeState {
        TreeState {
            size: self.size,
            root: self.root.0,
        }
    }
}

/// Judges a head by its proof.
pub(super) fn judge(seen: Option<&SeenTrails>, new: &SeenTrails, proof: &[Bytes]) -> Stands {
    let Some(seen) = seen else {
        return Stands::Continues;
    };
    if seen.tree() == new.tree() {
        return Stands::Same;
    }
    let proof = proof.iter().map(|hash| <Hash>::try_from(hash.as_ref()).ok());
    let proof: Option<Vec<Hash>> = proof.collect();
    match proof.is_some_and(|proof| new.tree().continues(&seen.tree(), &proof)) {
        true => Stands::Continues,
        false => Stands::Rewritten(*seen),
    }
}

/// What that means, and what to do.
pub(super) fn rewritten_in_words(origin: &str, seen: &SeenTrails, new: &SeenTrails) -> String {
    format!(
        "the coordinator's trails, {} blocks that {origin} signed for at {}, do not begin with the {} blocks that this gateway saw at {}: blocks were taken out \
         or altered there, or the coordinator was restored from an older backup. What is enforced stays as it is. If it was restored, the next release says so \
         (`penstock release propose --again`); if not, keep everything as it is: this gateway's own trail proves it",
        new.size,
        instant(new.time_ms),
        seen.size,
        instant(seen.time_ms)
    )
}

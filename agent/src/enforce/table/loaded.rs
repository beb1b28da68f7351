//! What was loaded, and how the kernel may differ from it.

use std::sync::Arc;

use penstock_policy::ids::Digest;
use penstock_policy::plan::Plan;
use penstock_policy::terms::GatewayMode;

use crate::enforce::nft::names::TABLE;
use crate::enforce::nft::readback::{KernelRuleset, content, meant};
use crate::enforce::shape::lower::Elements;
use crate::enforce::shape::structure::Structure;

/// What the kernel was brought to.
#[derive(Debug)]
pub(in crate::enforce) struct LoadedPolicy {
    pub(in crate::enforce) plan: Arc<Plan>,
    pub(in crate::enforce) structure: Structure,
    pub(in crate::enforce) elements: Elements,
    /// Digest of the structure as the kernel describes it.
    pub(in crate::enforce) described: Digest,
    /// Digest of the handles that the kernel gave to its parts.
    pub(in crate::enforce) handles: Digest,
}

impl LoadedPolicy {
    /// The families that have a table of ours.
    pub(in crate::enforce) fn families(structure: &Structure) -> &'static [u8] {
        match structure.mode {
            GatewayMode::Routed => &[1],
            GatewayMode::Bridged => &[1, 7],
        }
    }

    /// Whether a table of ours is not in the kernel, so that what it judged passes.
    pub(in crate::enforce) fn lacks_table(&self, held: &KernelRuleset) -> bool {
        let wanted = Self::families(&self.structure);
        wanted.iter().any(|family| !held.tables.contains(family))
    }

    /// Digest of what the kernel holds while it holds this.
    pub(in crate::enforce) fn content(&self) -> Digest {
        content(
            Self::families(&self.structure),
            self.described,
            &meant(&self.elements),
        )
    }

    /// What differs between this and what the kernel holds, in words.
    pub(in crate::enforce) fn differs(&self, held: &KernelRuleset) -> Option<String> {
        if held.tables != Self::families(&self.structure) {
            return Some(if self.lacks_table(held) {
                format!("the table {} is gone", TABLE)
            } else {
                format!("there is a table bridge {} that the agent did not load", TABLE)
            });
        }
        if held.structure != self.described {
            return Some(format!(
                "chains, rules or sets of the table {} were changed",
                TABLE
            ));
        }
        let meant = meant(&self.elements);
        let maps: Vec<&str> = meant
            .iter()
            .filter(|(name, sum)| held.maps.get(*name) != Some(*sum))
            .map(|(name, _)| name.as_str())
            .collect();
        (!maps.is_empty()).then(|| format!("entries of {} were changed", maps.join(", ")))
    }
}

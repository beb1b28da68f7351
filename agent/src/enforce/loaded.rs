//! What was loaded, and how the kernel may differ from it.

use std::sync::Arc;

use penstock_policy::ids::Digest;
use penstock_policy::model::GatewayMode;
use penstock_policy::plan::Plan;

use super::lower::Elements;
use super::readback::{Held, content, meant};
use super::render;
use super::structure::Structure;

/// What the kernel was brought to.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) plan: Arc<Plan>,
    pub(super) structure: Structure,
    pub(super) elements: Elements,
    /// Digest of the structure as the kernel describes it.
    pub(super) described: Digest,
    /// Digest of the handles that the kernel gave to its parts.
    pub(super) handles: Digest,
}

impl Loaded {
    /// The families that have a table of ours.
    pub(super) fn families(structure: &Structure) -> &'static [u8] {
        match structure.mode {
            GatewayMode::Routed => &[1],
            GatewayMode::Bridged => &[1, 7],
        }
    }

    /// Whether a table of ours is not in the kernel, so that what it judged passes.
    pub(super) fn lacks_table(&self, held: &Held) -> bool {
        let wanted = Self::families(&self.structure);
        wanted.iter().any(|family| !held.tables.contains(family))
    }

    /// Digest of what the kernel holds while it holds this.
    pub(super) fn content(&self) -> Digest {
        content(
            Self::families(&self.structure),
            self.described,
            &meant(&self.elements),
        )
    }

    /// What differs between this and what the kernel holds, in words.
    pub(super) fn differs(&self, held: &Held) -> Option<String> {
        if held.tables != Self::families(&self.structure) {
            return Some(if self.lacks_table(held) {
                format!("the table {} is gone", render::TABLE)
            } else {
                format!(
                    "there is a table bridge {} that the agent did not load",
                    render::TABLE
                )
            });
        }
        if held.structure != self.described {
            return Some(format!(
                "chains, rules or sets of the table {} were changed",
                render::TABLE
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

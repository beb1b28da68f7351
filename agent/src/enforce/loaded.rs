//! What was loaded, and how the kernel may differ from it.

use std::sync::Arc;

use penstock_policy::ids::Digest;
use penstock_policy::model::GatewayMode;
use penstock_policy::plan::Plan;

use super::lower::Elements;
use super::readback::{Held, meant};
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
}

impl Loaded {
    /// What differs between this and what the kernel holds, in words.
    pub(super) fn differs(&self, held: &Held) -> Option<String> {
        let wanted: &[u8] = match self.structure.mode {
            GatewayMode::Routed => &[1],
            GatewayMode::Bridged => &[1, 7],
        };
        if held.tables != wanted {
            return Some(if wanted.iter().all(|family| held.tables.contains(family)) {
                format!(
                    "there is a table bridge {} that nobody of us loaded",
                    render::TABLE
                )
            } else {
                format!("the table {} is gone", render::TABLE)
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

//! What stands before the first policy of a gateway, so that it can be brought back where that policy is reverted: the rules, the file
//! of the base rules, and what an agent sets beside them (routes of inspected packets, parameters and tables of bridges).
//!
//! It is a text that the reconciler keeps in its journal, since another agent may have to bring it back.
//!
//! Not here: who changes the kernel's tables (`table/withdraw`).

use std::sync::Arc;

use penstock_policy::plan::Plan;
use serde::{Deserialize, Serialize};

use super::base::Base;
use super::forwarding::{self, BridgeTable};
use super::{routing, sysctl};
use crate::enforce::EnforceError;
use crate::enforce::nft::readback::KernelRuleset;

/// What stood before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::enforce) struct Ground {
    /// The tables under our name.
    pub(in crate::enforce) rules: RulesBefore,
    /// What the base rules of the next boot were to guard; `None`: there were to be none.
    pub(in crate::enforce) base: Option<Base>,
    /// Families whose marked packets did not come to this machine.
    unrouted: Vec<String>,
    /// Parameters that were off.
    hiding: Vec<String>,
    bridges: Vec<BridgeTable>,
}

/// The tables under our name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::enforce) enum RulesBefore {
    /// There were none.
    Nothing,
    /// The base rules.
    Base,
    /// Those of a policy that the gateway no longer knows. They cannot be made again: the base rules take their place.
    Others,
}

impl Ground {
    /// What stands now, where `plan` is to come and the kernel holds this.
    pub(in crate::enforce) async fn of(
        held: &KernelRuleset,
        base: Option<Base>,
        plan: Arc<Plan>,
    ) -> Result<Self, EnforceError> {
        let rules = if held.tables.is_empty() {
            RulesBefore::Nothing
        } else if held.is_base() {
            RulesBefore::Base
        } else {
            RulesBefore::Others
        };
        let hiding = if sysctl::can_filter_bridged() {
            sysctl::hiding_bridged().map_err(EnforceError::BridgeParameter)?
        } else {
            Vec::new()
        };
        let unrouted = routing::missing().await?;
        Ok(Self {
            rules,
            base,
            unrouted: unrouted.into_iter().map(str::to_owned).collect(),
            hiding: hiding.into_iter().map(str::to_owned).collect(),
            bridges: forwarding::tables(plan).await?,
        })
    }

    /// Brings back what stood beside the rules.
    pub(in crate::enforce) async fn restore_beside(&self) -> Result<(), EnforceError> {
        routing::remove(self.unrouted.clone()).await?;
        if sysctl::can_filter_bridged() {
            sysctl::hide_bridged(&self.hiding).map_err(EnforceError::BridgeParameter)?;
        }
        forwarding::restore(self.bridges.clone()).await
    }
}

//! A plan made ready for the kernel, and the way there from what the kernel holds.
//!
//! Pure. Making ready is most of the agent's own work for a
//! plan, so it is done once: [`crate::enforce::table`] keeps what a check made for the loading that follows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::FlowId;
use penstock_policy::plan::Plan;

use crate::enforce::EnforceError;
use crate::enforce::nft::batch::ElementBatch;
use crate::enforce::nft::render::{self, TableElements};
use crate::enforce::shape::lower::{Elements, lower};
use crate::enforce::shape::structure::{Finding, OwnServices, Structure, structure};
use crate::intercept::InspectorPorts;

/// A plan made ready for the kernel.
#[derive(Debug)]
pub(in crate::enforce) struct PreparedPlan {
    pub(in crate::enforce) plan: Arc<Plan>,
    pub(in crate::enforce) structure: Structure,
    pub(in crate::enforce) elements: Elements,
    pub(in crate::enforce) findings: Vec<Finding>,
}

/// A change from what the kernel holds.
#[derive(Debug)]
pub(in crate::enforce) enum Update {
    /// A few elements are taken away and added.
    Few(ElementBatch),
    /// Many are.
    Elements(String),
    /// The rules are rewritten around the maps.
    Rules(String),
}

impl PreparedPlan {
    /// Makes `plan` ready, on a blocking thread.
    pub(in crate::enforce) async fn of(
        plan: Arc<Plan>,
        inspector: Option<InspectorPorts>,
        own: OwnServices,
    ) -> Result<Self, EnforceError> {
        let work = move || -> Result<Self, EnforceError> {
            // First what is bounded: of a plan that comes to too many elements nothing else is computed.
            let elements = lower(&plan)?;
            let (mut structure, findings) = structure(&plan, inspector)?;
            structure.own = own;
            Ok(Self {
                elements,
                plan,
                structure,
                findings,
            })
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(EnforceError::Interrupted)?
    }

    /// Its elements, with what is left of grants.
    pub(in crate::enforce) fn elements_with<'a>(
        &'a self,
        left: &'a BTreeMap<FlowId, Duration>,
    ) -> TableElements<'a> {
        TableElements {
            flows: &self.elements,
            left,
        }
    }

    /// The way from an old structure and its elements; `None` if only replacing the tables leads from one mode to the
    /// other.
    pub(in crate::enforce) fn way_from(
        &self,
        old: &Structure,
        elements: &Elements,
        (left, log_group): (&BTreeMap<FlowId, Duration>, u16),
    ) -> Option<Update> {
        if *old == self.structure {
            return Some(match ElementBatch::between(elements, &self.elements) {
                Some(batch) => Update::Few(batch),
                None => Update::Elements(render::difference(elements, &self.elements)),
            });
        }
        (old.mode == self.structure.mode).then(|| {
            Update::Rules(render::restructure(
                (old, elements),
                (&self.structure, self.elements_with(left)),
                log_group,
            ))
        })
    }
}

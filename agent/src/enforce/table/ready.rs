//! A plan made ready for the kernel, and the way there from what the kernel holds.
//!
//! Pure. Making ready is most of the agent's own work for a
//! plan, so it is done once: [`crate::enforce::table`] keeps what a check made for the loading that follows.

use std::sync::Arc;

use penstock_policy::plan::Plan;

use crate::enforce::EnforceError;
use crate::enforce::nft::batch::Batch;
use crate::enforce::nft::render;
use crate::enforce::shape::lower::{Elements, lower};
use crate::enforce::shape::structure::{Finding, Structure, structure};
use crate::intercept::InspectorPorts;

/// A plan made ready for the kernel.
#[derive(Debug)]
pub(in crate::enforce) struct Ready {
    pub(in crate::enforce) plan: Arc<Plan>,
    pub(in crate::enforce) structure: Structure,
    pub(in crate::enforce) elements: Elements,
    pub(in crate::enforce) findings: Vec<Finding>,
}

/// A change from what the kernel holds.
#[derive(Debug)]
pub(in crate::enforce) enum Way {
    /// A few elements are taken away and added.
    Few(Batch),
    /// Many are.
    Elements(String),
    /// The rules are written anew around the maps.
    Rules(String),
}

impl Ready {
    /// Makes `plan` ready, on a blocking thread.
    pub(in crate::enforce) async fn of(
        plan: Arc<Plan>,
        inspector: Option<InspectorPorts>,
    ) -> Result<Self, EnforceError> {
        let work = move || -> Result<Self, EnforceError> {
            // First what is bounded: of a plan that comes to too many elements nothing else is computed.
            let elements = lower(&plan)?;
            let (structure, findings) = structure(&plan, inspector)?;
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

    /// The way from an old structure and its elements; `None` if only replacing the tables leads from one mode to the
    /// other.
    pub(in crate::enforce) fn way_from(
        &self,
        old: &Structure,
        elements: &Elements,
        log_group: u16,
    ) -> Option<Way> {
        if *old == self.structure {
            return Some(match Batch::between(elements, &self.elements) {
                Some(batch) => Way::Few(batch),
                None => Way::Elements(render::difference(elements, &self.elements)),
            });
        }
        (old.mode == self.structure.mode).then(|| {
            Way::Rules(render::restructure(
                (old, elements),
                (&self.structure, &self.elements),
                log_group,
            ))
        })
    }
}

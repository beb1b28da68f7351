//! How long conduits that hang on grants of remote access may pass, as the kernel is told.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use penstock_policy::ids::{ConduitId, FlowId};
use penstock_policy::plan::Plan;

use super::{Table, TableState, generation};
use crate::enforce::EnforceError;
use crate::enforce::nft::render;

impl Table {
    /// Lets conduits that hang on grants pass until then, and no longer, whether an agent lives or not.
    pub(in crate::enforce) async fn hold(
        &self,
        ends: BTreeMap<ConduitId, Instant>,
    ) -> Result<(), EnforceError> {
        let mut state = self.state.lock().await;
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = ends;
        self.renew(&mut state).await
    }

    /// Until when conduits of the plan that is applied next are open, so that its tables have it before they judge.
    pub(in crate::enforce) fn foretell(&self, ends: BTreeMap<ConduitId, Instant>) {
        *self.foretold.lock().unwrap_or_else(PoisonError::into_inner) = Some(ends);
    }

    /// Puts what was foretold in the place of what holds, which is given back; `None`: nothing was foretold.
    pub(super) fn take_foretold(&self) -> Option<BTreeMap<ConduitId, Instant>> {
        let mut foretold = self.foretold.lock().unwrap_or_else(PoisonError::into_inner);
        let next = foretold.take()?;
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        Some(std::mem::replace(&mut *ends, next))
    }

    /// The plan is not in force: what held before holds.
    pub(super) fn take_back(&self, before: Option<BTreeMap<ConduitId, Instant>>) {
        if let Some(before) = before {
            *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = before;
        }
    }

    /// What is left of grants for each flow of a plan.
    pub(super) fn left_of(&self, plan: &Plan) -> BTreeMap<FlowId, Duration> {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let left = plan.rules.iter().filter_map(|rule| {
            let end = ends.get(&rule.conduit)?;
            Some((rule.id, end.saturating_duration_since(now)))
        });
        left.collect()
    }

    /// Tells the kernel how long is left of each grant.
    pub(super) async fn renew(&self, state: &mut TableState) -> Result<(), EnforceError> {
        let Some(loaded) = state
            .loaded
            .as_ref()
            .filter(|loaded| !loaded.structure.limited.is_empty())
        else {
            return Ok(());
        };
        let before = generation().await?;
        // As late as can be: the kernel counts the time that is left from when it takes the transaction.
        let script = render::hold(&self.left_of(&loaded.plan));
        self.nft.load(&script).await?;
        Box::pin(self.after_own(state, before)).await
    }
}

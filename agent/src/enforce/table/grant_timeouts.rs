//! How long conduits that hang on grants of remote access may pass, as the kernel is told.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Instant;

use penstock_policy::ids::ConduitId;

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
        let script = {
            let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let left = loaded.plan.rules.iter().filter_map(|rule| {
                let end = ends.get(&rule.conduit)?;
                Some((rule.id, end.saturating_duration_since(now)))
            });
            render::hold(&left.collect())
        };
        self.nft.load(&script).await?;
        Box::pin(self.after_own(state, before)).await
    }
}

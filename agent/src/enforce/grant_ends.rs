//! Ends what the inspector carries for a grant of remote access at the moment when the grant ends, as the kernel ends by itself what it
//! forwards (`render/granted.rs`): no plan has to be made or loaded first, and a slow one holds nothing up.
//!
//! The inspector is under the policy that was applied, without the conduits whose grant is known to be over. Only a conduit whose end is
//! known here ([`GrantEnds::hold`]) ends here; what the kernel does while no agent lives is not this module's business.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use penstock_policy::ids::ConduitId;
use tokio::sync::{Mutex, Notify};

use super::nft::render::LEFT_MAX;
use super::{EnforceError, make_policy};
use crate::inspector::{InspectionPolicy, Inspector};

/// What is known of the ends.
#[derive(Debug, Default)]
pub(super) struct GrantEnds {
    state: Mutex<GrantEndsState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct GrantEndsState {
    /// The policy that was applied last.
    applied: Option<Arc<InspectionPolicy>>,
    /// The conduits that it opens and that are over for the inspector.
    over: BTreeSet<ConduitId>,
    /// When the grants of conduits end.
    ends: BTreeMap<ConduitId, Instant>,
}

impl GrantEndsState {
    /// The policy that holds now, if it is not the one that the inspector has.
    async fn due(&mut self) -> Result<Option<Arc<InspectionPolicy>>, EnforceError> {
        let Some(applied) = &self.applied else {
            return Ok(None);
        };
        let now = Instant::now();
        let is_over = |conduit: &&ConduitId| self.ends.get(*conduit).is_some_and(|end| *end <= now);
        let over: BTreeSet<ConduitId> = applied.plan.open.iter().filter(is_over).cloned().collect();
        if over == self.over {
            return Ok(None);
        }
        let due = if over.is_empty() {
            Arc::clone(applied)
        } else {
            let open = applied.plan.open.difference(&over).cloned().collect();
            make_policy(Arc::new(applied.plan.opening(open)), applied.revision).await?
        };
        self.over = over;
        Ok(Some(due))
    }
}

impl GrantEnds {
    /// When what is left now is over.
    pub(super) fn of(left: BTreeMap<ConduitId, Duration>) -> BTreeMap<ConduitId, Instant> {
        let now = Instant::now();
        let ends = left.into_iter().map(|(conduit, left)| {
            let end = now.checked_add(left.min(LEFT_MAX));
            (conduit, end.unwrap_or(now))
        });
        ends.collect()
    }

    /// The kernel holds this policy now: so does the inspector, but for what is over.
    pub(super) async fn put(
        &self,
        inspector: &Inspector,
        policy: Arc<InspectionPolicy>,
    ) -> Result<(), EnforceError> {
        let mut state = self.state.lock().await;
        state.applied = Some(Arc::clone(&policy));
        state.over.clear();
        let due = state.due().await?;
        inspector.put(due.unwrap_or(policy)).await;
        Ok(())
    }

    /// When grants end from now on.
    pub(super) async fn hold(
        &self,
        inspector: &Inspector,
        ends: BTreeMap<ConduitId, Instant>,
    ) -> Result<(), EnforceError> {
        self.state.lock().await.ends = ends;
        self.changed.notify_one();
        self.follow(inspector).await
    }

    async fn follow(&self, inspector: &Inspector) -> Result<(), EnforceError> {
        let mut state = self.state.lock().await;
        if let Some(due) = state.due().await? {
            inspector.replace(due).await;
        }
        Ok(())
    }

    /// When the next grant ends, of those that have not.
    async fn next(&self) -> Option<Instant> {
        let state = self.state.lock().await;
        let now = Instant::now();
        state.ends.values().filter(|end| **end > now).min().copied()
    }
}

/// Waits for one end after another, for as long as there is an inspector.
pub(super) async fn watch(ending: Arc<GrantEnds>, inspector: Weak<Inspector>) {
    loop {
        let next = ending.next().await;
        let end = async {
            match next {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ending.changed.notified() => {}
            () = end => {}
        }
        let Some(inspector) = inspector.upgrade() else {
            return;
        };
        if let Err(error) = ending.follow(&inspector).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "inspected connections of a grant that is over go on until its conduit is closed"
            );
        }
    }
}

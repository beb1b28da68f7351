//! The table of a plan in its shadow: made beside the tables in force, made again where these changed, read, removed.
//!
//! It takes no part in what is kept in force: a foreign change of it is no drift, and is mended when it is read next. An agent that
//! is killed leaves it behind; the next one removes it when it is asked for a shadow, or for none.

use std::sync::Arc;
use std::time::Duration;

use penstock_policy::plan::Plan;
use penstock_policy::terms::GatewayMode;

use super::generation::generation;
use super::{Table, TableState, blocking};
use crate::enforce::EnforceError;
use crate::enforce::nft::readback::shadow::ShadowCounts;
use crate::enforce::nft::render;
use crate::enforce::shape::lower::lower;
use crate::enforce::shape::shadow::{kept, opened};
use crate::enforce::shape::structure::structure;
use crate::{clock, timepiece};

/// The shadow that was asked for.
#[derive(Debug)]
pub(in crate::enforce) struct LoadedShadow {
    next: Arc<Plan>,
    /// The same as it is judged by: with the conduits open that grants open.
    judged: Arc<Plan>,
    /// What it is compared with: in force when it was made; nothing: no policy.
    in_force: Option<Arc<Plan>>,
    since_ms: u64,
    since_boot: Duration,
    /// On a bridged gateway: addresses or zones are elsewhere than in force, which only the bridge's own table could judge.
    moves_sides: bool,
}

/// What it came to.
#[derive(Debug, Clone)]
pub(in crate::enforce) struct ShadowReading {
    /// `None`: it was begun just now.
    pub(in crate::enforce) counts: Option<ShadowCounts>,
    pub(in crate::enforce) judged: Arc<Plan>,
    pub(in crate::enforce) in_force: Option<Arc<Plan>>,
    pub(in crate::enforce) since_ms: u64,
    pub(in crate::enforce) since_boot: Duration,
    pub(in crate::enforce) moves_sides: bool,
}

impl Table {
    /// Has the kernel judge by `next` beside the plan in force; `None`: by no other plan. Gives the plan as it is judged by.
    ///
    /// # Errors
    /// The plan does not fit the kernel's tables, or the kernel (or `nft`) rejects it: then there is no shadow. Or the shadow that is there
    /// could not be removed. What is in force is as before.
    pub(in crate::enforce) async fn shadow(
        &self,
        next: Option<Arc<Plan>>,
    ) -> Result<Option<Arc<Plan>>, EnforceError> {
        let mut state = self.state.lock().await;
        match next {
            Some(next) => self.make_shadow(&mut state, next).await?,
            None => self.remove_shadow(&mut state).await?,
        }
        Ok(state.shadow.as_ref().map(|shadow| Arc::clone(&shadow.judged)))
    }

    /// What it came to. Where what is in force changed, or somebody removed the shadow, it is begun again. `None`: none was asked for.
    ///
    /// # Errors
    /// The kernel could not be asked, or it could not be begun again.
    pub(in crate::enforce) async fn shadowed(&self) -> Result<Option<ShadowReading>, EnforceError> {
        let mut state = self.state.lock().await;
        let in_force = state.loaded.as_ref().map(|loaded| Arc::clone(&loaded.plan));
        let Some(shadow) = &mut state.shadow else {
            return Ok(None);
        };
        let mut counts = None;
        if is_same(shadow.in_force.as_ref(), in_force.as_ref()) {
            shadow.in_force = in_force;
            counts = blocking(|reader| reader.shadow_counts()).await?;
        }
        let next = Arc::clone(&shadow.next);
        if counts.is_none() {
            self.make_shadow(&mut state, next).await?;
        }
        Ok(state.shadow.as_ref().map(|shadow| ShadowReading {
            counts,
            judged: Arc::clone(&shadow.judged),
            in_force: shadow.in_force.clone(),
            since_ms: shadow.since_ms,
            since_boot: shadow.since_boot,
            moves_sides: shadow.moves_sides,
        }))
    }

    async fn make_shadow(&self, state: &mut TableState, next: Arc<Plan>) -> Result<(), EnforceError> {
        let loaded = state.loaded.as_ref();
        let in_force = loaded.map(|loaded| (Arc::clone(&loaded.plan), loaded.structure.clone()));
        let plan = Arc::clone(&next);
        let own = self.settings.own.clone();
        let made = move || -> Result<_, EnforceError> {
            let in_force = in_force.as_ref();
            let plan = match plan.grants.is_empty() {
                true => plan,
                false => Arc::new(opened(&plan, in_force.map(|(plan, _)| &**plan))),
            };
            let elements = lower(&plan)?;
            let (mut structure, _) = structure(&plan, None)?;
            // What hangs on grants is judged by whether they open it now.
            structure.limited.clear();
            structure.own = own;
            let kept = in_force.map(|(old, places)| kept((old, places), (&plan, &structure)));
            let moves_sides = structure.mode == GatewayMode::Bridged
                && in_force.is_some_and(|(_, old)| {
                    (&old.sides4, &old.sides6, &old.same_zone)
                        != (&structure.sides4, &structure.sides6, &structure.same_zone)
                });
            let scripts = render::shadow(&structure, &elements, &kept.unwrap_or_default());
            Ok((plan, scripts, moves_sides))
        };
        let made = tokio::task::spawn_blocking(made)
            .await
            .map_err(EnforceError::Interrupted)?;
        let (judged, scripts, moves_sides) = match made {
            Ok(made) => made,
            Err(error) => {
                self.remove_shadow(state).await?;
                return Err(error);
            }
        };
        for script in &scripts {
            if let Err(error) = self.load_beside(state, script).await {
                // Half of it judges nothing; the reason is what counts.
                let _ = self.remove_shadow(state).await;
                return Err(error);
            }
        }
        state.shadow = Some(LoadedShadow {
            next,
            judged,
            in_force: state.loaded.as_ref().map(|loaded| Arc::clone(&loaded.plan)),
            since_ms: clock::now_ms(),
            since_boot: timepiece::since_boot(),
            moves_sides,
        });
        Ok(())
    }

    /// Removes it, whoever left it.
    async fn remove_shadow(&self, state: &mut TableState) -> Result<(), EnforceError> {
        state.shadow = None;
        if blocking(|reader| reader.has_shadow()).await? {
            self.load_beside(state, &render::remove_shadow()).await?;
        }
        Ok(())
    }

    /// A transaction of ours that leaves the tables in force as they are: that it is not taken for another's, its generation is known.
    pub(super) async fn load_beside(&self, state: &mut TableState, script: &str) -> Result<(), EnforceError> {
        let before = generation().await?;
        self.nft.load(script).await?;
        state.unnoted = true;
        self.after_own(state, before).await
    }
}

/// Whether both are the same plan, whatever grants open of it now.
fn is_same(one: Option<&Arc<Plan>>, other: Option<&Arc<Plan>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one.opening(other.open.clone()) == **other,
        _ => false,
    }
}

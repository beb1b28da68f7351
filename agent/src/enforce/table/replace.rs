//! How our tables take the place of others: those of another version of the agent, of another mode, or that somebody changed.

use std::sync::Arc;

use penstock_policy::plan::Plan;

use super::{Table, TableState, blocking, read_held};
use crate::enforce::EnforceError;
use crate::enforce::nft::render::{self, TableElements};
use crate::enforce::nft::run::NftError;
use crate::enforce::shape::lower::Elements;
use crate::enforce::shape::structure::Structure;
use crate::enforce::standing::Continuity;

impl Table {
    /// Takes away what an agent that was killed left beside the tables that were taken over.
    pub(super) async fn clear_up(&self) {
        let cleared = match blocking(|reader| reader.judging()).await {
            Ok(judging) => {
                let removed = self.remove_beside(&judging.families_beside).await;
                removed.map_err(EnforceError::from)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = cleared {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "tables that an earlier agent left beside the rules were not removed"
            );
        }
    }

    /// Replaces our tables.
    pub(super) async fn replace(
        &self,
        state: &mut TableState,
        plan: Arc<Plan>,
        structure: Structure,
        elements: Elements,
    ) -> Result<(), EnforceError> {
        // What was found and is not reported yet must not pass for this agent's own change, if it is killed amid it.
        if !matches!(state.found, Some(Continuity::Opened { .. })) {
            self.note_change();
        }
        let counted = self.counters_of(state).await.unwrap_or(state.counted);
        let (held, _) = read_held().await?;
        let judging = blocking(|reader| reader.judging()).await?;
        let group = self.settings.log_group;
        let left = self.left_of(&plan);
        let all = TableElements {
            flows: &elements,
            left: &left,
        };
        let beside = &judging.families_beside;
        let steps = match (judging.own, judging.beside) {
            // Nothing passes that could be lost.
            _ if held.is_base() => Vec::new(),
            (0, 0) => Vec::new(),
            (0, _) => render::succession_goes_on(&structure, all, group, beside).to_vec(),
            // An agent was killed before they judged, while they judged as ours do, or when they no longer did.
            (own, others) if others == 0 || others == own => {
                self.remove_beside(beside).await?;
                render::succession(&structure, all, group, &held.family_names()).to_vec()
            }
            // Somebody else changed the rules of one of them: which of them judge is not known, and one must at each moment.
            _ => Vec::new(),
        };
        if steps.is_empty() || !self.nft.load_in_turn(&steps).await? {
            let script = render::whole(&structure, all, group);
            self.nft.load(&script).await?;
        }
        state.counted = counted;
        self.settle(state, plan, structure, elements).await
    }

    /// Takes away the tables beside, of these families, while those under our own name judge.
    async fn remove_beside(&self, families: &[&str]) -> Result<(), NftError> {
        if families.is_empty() {
            return Ok(());
        }
        self.nft.load(&render::empty_beside(families)).await?;
        self.nft.load(&render::remove_beside()).await
    }
}

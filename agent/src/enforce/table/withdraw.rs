//! The way back from a first policy: the kernel's tables, and the notes of them, as they stood before it.

use std::sync::{Arc, PoisonError};

use penstock_policy::plan::Plan;

use super::{Table, TableState, read_held};
use crate::enforce::EnforceError;
use crate::enforce::ground::base::Base;
use crate::enforce::ground::before::{Ground, RulesBefore};
use crate::enforce::nft::render;

impl Table {
    /// What stands before `plan`, which is the first.
    pub(in crate::enforce) async fn ground(&self, plan: Arc<Plan>) -> Result<Ground, EnforceError> {
        let _state = self.state.lock().await;
        let (held, _) = read_held().await?;
        let base = self.settings.base_path.as_deref().map(Base::read).transpose()?;
        Ground::of(&held, base.flatten(), plan).await
    }

    /// Brings back what stood before the first plan.
    pub(in crate::enforce) async fn withdraw(&self, ground: &Ground) -> Result<(), EnforceError> {
        let mut state = self.state.lock().await;
        let base = match ground.rules {
            RulesBefore::Nothing => None,
            RulesBefore::Base => ground.base.clone(),
            RulesBefore::Others => ground.base.clone().or_else(|| self.base_of(&state)),
        };
        let counted = self.counters_of(&state).await.unwrap_or(state.counted);
        // Removal and base rules in one transaction: nothing passes in between that neither lets through.
        let base_rules = base.as_ref().map(Base::script).unwrap_or_default();
        if let Err(error) = self
            .nft
            .load(&(render::remove() + &render::remove_witness() + &base_rules))
            .await
        {
            let error = EnforceError::from(error);
            state.in_doubt |= error.is_open_ended();
            return Err(error);
        }
        *state = TableState {
            started: true,
            counted,
            ..TableState::default()
        };
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.differs_by(None);
        self.verdicts.follow_none();
        if base.is_some() {
            Base::seal(&self.nft).await?;
        }
        if let Some(path) = &self.settings.base_path {
            match &base {
                Some(base) => base.write(path)?,
                None => Base::remove(path)?,
            }
        }
        if let Some(path) = &self.settings.note_path {
            // Nobody is to miss rules that went with their policy.
            let _ = std::fs::remove_file(path);
        }
        ground.restore_beside().await
    }

    /// The base rules of the plan that is loaded; of one that an agent before loaded, those that it left for the next boot.
    pub(super) fn base_of(&self, state: &TableState) -> Option<Base> {
        let loaded = state.loaded.as_ref().map(|loaded| Base {
            mode: loaded.structure.mode,
            interfaces: loaded.structure.guarded.clone(),
            input: Some(loaded.structure.input.clone()),
        });
        loaded.or_else(|| Base::read(self.settings.base_path.as_deref()?).ok()?)
    }
}

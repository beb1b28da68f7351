//! Comparing the kernel with what was loaded, and putting it back.

use std::sync::{Arc, PoisonError};

use penstock_policy::terms::OnDrift;

use super::generation::is_newer;
use super::{Table, TableState, read_held};
use crate::enforce::nft::readback::KernelRuleset;
use crate::enforce::shape::structure::Finding;
use crate::enforce::table::loaded::LoadedPolicy;
use crate::enforce::{DriftState, EnforceError};
use crate::observed::{DriftStep, Observation};

impl Table {
    /// Compares the kernel with what was loaded. `noticed` is the generation and process of a foreign transaction.
    pub(in crate::enforce) async fn verify(
        &self,
        noticed: Option<(u32, String)>,
    ) -> Result<DriftState, EnforceError> {
        let mut state = self.state.lock().await;
        let Some(loaded) = &state.loaded else {
            return Ok(DriftState::NoPlan);
        };
        if let Some((generation, _)) = &noticed
            && !is_newer(*generation, state.seen)
        {
            return Ok(DriftState::None);
        }
        let hiding = self.keep_shown(&loaded.plan)?;
        let (held, generation) = read_held().await?;
        state.seen = generation;
        let process = noticed.map(|(_, process)| process);
        let differs = state.loaded.as_ref().and_then(|loaded| loaded.differs(&held));
        let Some(message) = differs else {
            if state.reloaded(&held) || process.is_some() {
                let message = "the tables of penstock were changed, and now hold what the plan says again";
                self.say(DriftStep::Found, message, process);
            }
            if std::mem::take(&mut state.differs) {
                state.unnoted = true;
            }
            self.differs_by(None);
            return Ok(hiding.map_or(DriftState::None, DriftState::Present));
        };
        Ok(self.drifted(&mut state, &held, message, process).await)
    }

    /// The kernel differs: says so, and repairs it if that is wanted.
    pub(super) async fn drifted(
        &self,
        state: &mut TableState,
        held: &KernelRuleset,
        message: String,
        process: Option<String>,
    ) -> DriftState {
        self.say(DriftStep::Found, &message, process.clone());
        let lacking = state
            .loaded
            .as_ref()
            .is_some_and(|loaded| loaded.lacks_table(held));
        self.differs_by(Some((&message, lacking)));
        let wanted = state
            .loaded
            .take_if(|loaded| loaded.plan.on_drift == OnDrift::Repair);
        let Some(LoadedPolicy {
            plan,
            structure,
            elements,
            described,
            handles,
        }) = wanted
        else {
            state.differs = true;
            state.left = Some((held.content(), held.handles));
            state.unnoted = true;
            return DriftState::Present(message);
        };
        let again = LoadedPolicy {
            plan: Arc::clone(&plan),
            structure: structure.clone(),
            elements: elements.clone(),
            described,
            handles,
        };
        match Box::pin(self.replace(state, plan, structure, elements)).await {
            Ok(()) => {
                self.differs_by(None);
                self.say(DriftStep::Repaired, &message, process);
                DriftState::Repaired(message)
            }
            Err(error) => {
                state.loaded = Some(again);
                state.differs = true;
                let cause = std::error::Error::source(&error)
                    .map(|e| format!(": {e}"))
                    .unwrap_or_default();
                self.say(
                    DriftStep::RepairFailed,
                    &format!("{message}; {error}{cause}"),
                    process,
                );
                DriftState::Present(message)
            }
        }
    }

    /// Keeps for health how the kernel differs, and whether a table of ours is gone; `None`: it does not.
    pub(super) fn differs_by(&self, difference: Option<(&str, bool)>) {
        let fault = difference.map(|(message, gone)| Finding {
            code: if gone { "rules-gone" } else { "rules-changed" },
            message: format!("{message}; the kernel does not hold the policy"),
        });
        *self.differs.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    pub(in crate::enforce) fn say(&self, step: DriftStep, message: &str, process: Option<String>) {
        tracing::warn!(?step, message, process, "the kernel's rules differ from the plan");
        self.drift.send_replace(Some(step));
        self.outbox.put(Observation::Drift {
            step,
            message: message.to_owned(),
            process,
        });
    }
}

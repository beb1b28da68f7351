//! Keeps bridged packets shown to the rules: whoever switches `net.bridge.bridge-nf-call-*` off is noticed within a second.
//!
//! The kernel tells nobody of a changed parameter, so they are read twice a second. While one is off, bridged packets of its
//! family are dropped (`render::bridge`), so this is about how long declared flows stand still.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use penstock_policy::plan::Plan;
use penstock_policy::terms::{GatewayMode, OnDrift};

use super::Table;
use crate::enforce::EnforceError;
use crate::enforce::ground::sysctl;
use crate::observed::DriftStep;

/// How often the parameters are read.
const LOOK: Duration = Duration::from_millis(500);

/// Reads the parameters for as long as the agent runs.
pub(in crate::enforce) async fn watch(table: Arc<Table>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(current) = table.verdicts.current() else {
            continue;
        };
        if let Err(error) = table.keep_shown(&current.plan) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "bridged packets may be hidden from the rules"
            );
        }
    }
}

impl Table {
    /// Switches the parameters on again where the plan says so; gives what stays wrong, in words. Each change is said once.
    pub(in crate::enforce) fn keep_shown(&self, plan: &Plan) -> Result<Option<String>, EnforceError> {
        if plan.mode != GatewayMode::Bridged || !sysctl::can_filter_bridged() {
            return Ok(None);
        }
        let off = sysctl::hiding_bridged().map_err(EnforceError::BridgeParameter)?;
        let mut known = self.hiding.lock().unwrap_or_else(PoisonError::into_inner);
        let message = |parameter| {
            format!("bridged packets were dropped without being judged: net.bridge.{parameter} was off")
        };
        for parameter in off.iter().filter(|parameter| !known.contains(parameter)) {
            self.say(DriftStep::Found, &message(parameter), None);
        }
        if plan.on_drift == OnDrift::Repair && !off.is_empty() {
            match sysctl::show_bridged() {
                Ok(()) => {
                    for parameter in &off {
                        self.say(DriftStep::Repaired, &message(parameter), None);
                    }
                    known.clear();
                    return Ok(None);
                }
                Err(error) => {
                    for parameter in off.iter().filter(|parameter| !known.contains(parameter)) {
                        self.say(
                            DriftStep::RepairFailed,
                            &format!("{}: {error}", message(parameter)),
                            None,
                        );
                    }
                }
            }
        }
        known.clone_from(&off);
        Ok((!off.is_empty()).then(|| {
            let names: Vec<String> = off
                .iter()
                .map(|parameter| format!("net.bridge.{parameter}"))
                .collect();
            format!(
                "bridged packets are dropped without being judged: {} is off",
                names.join(" and ")
            )
        }))
    }
}

//! What this machine knows of itself, from files alone: it works while the agent runs, and when it does not.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::bridge::{self, tell::BridgeState, tell::SideState};
use crate::identity::IdentityFolder;
use crate::store::{self, LockError};
use crate::{audit, policy_store};

/// This machine is no gateway yet.
#[derive(Debug, thiserror::Error)]
#[error("this machine is not enrolled: get a token and run `penstock-agent enrol --token FILE`")]
pub struct NotEnrolled;

/// The state of a gateway as its disk shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// `spiffe://…`, once enrolled.
    pub identity: Option<String>,
    /// When the certificate expires, milliseconds since 1970.
    pub certificate_expires_ms: Option<u64>,
    /// Whether an agent runs on this state.
    pub running: bool,
    /// The policy last put in force.
    pub effective: Option<Policy>,
    /// A newer one that was verified and stored, but not put in force.
    pub staged: Option<Policy>,
    /// The audit trail's position as last noted: epoch and next sequence.
    pub trail: Option<(u64, u64)>,
    /// The bridges between brokers, as a running agent last left their state.
    pub bridges: Vec<BridgeState>,
    /// What cannot be used.
    pub faults: Vec<String>,
}

/// A policy in a word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// Its revision.
    pub revision: u64,
    /// Its plan.
    pub plan_digest: String,
    /// How many flows it permits.
    pub rules: usize,
}

impl Status {
    /// Fails on a machine that is no gateway yet.
    pub fn enrolled(&self) -> Result<(), NotEnrolled> {
        self.identity.as_ref().map(|_| ()).ok_or(NotEnrolled)
    }
}

/// Reads the state below `state_folder`.
pub fn read(state_folder: &Path) -> Status {
    let held = policy_store::peek(state_folder);
    let policy = |policy: policy_store::StoredPolicy| Policy {
        revision: policy.mark.revision.0,
        plan_digest: policy.mark.plan.to_string(),
        rules: policy.plan.rules.len(),
    };
    let mut faults = held.faults;
    let (mut identity, mut certificate_expires_ms) = (None, None);
    if let Ok(enrolment) = IdentityFolder::peek_enrolment(state_folder) {
        identity = Some(format!(
            "spiffe://{}/gateway/{}",
            enrolment.plant, enrolment.gateway
        ));
        match IdentityFolder::new(state_folder).load(enrolment) {
            Ok(loaded) => certificate_expires_ms = loaded.validity_ms().ok().map(|(_, until)| until),
            Err(error) => faults.push(error.to_string()),
        }
    }
    Status {
        identity,
        certificate_expires_ms,
        running: state_folder.exists() && matches!(store::lock(state_folder), Err(LockError::Taken(_))),
        effective: held.effective.map(policy),
        staged: held.staged.map(policy),
        bridges: bridge::supervisor::read_states(&state_folder.join(bridge::FOLDER)),
        trail: audit::mark::marked(state_folder).map(|at| (at.epoch, at.sequence)),
        faults,
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = |policy: &Option<Policy>| match policy {
            Some(policy) => format!(
                "r{}, {} flows, {}",
                policy.revision, policy.rules, policy.plan_digest
            ),
            None => "none".to_owned(),
        };
        writeln!(
            f,
            "identity     {}",
            self.identity.as_deref().unwrap_or("not enrolled")
        )?;
        if let Some(expires) = self.certificate_expires_ms {
            let until = i64::try_from(expires)
                .ok()
                .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
            if let Some(until) = until {
                writeln!(f, "certificate  until {until:.0}")?;
            }
        }
        writeln!(
            f,
            "agent        {}",
            if self.running { "running" } else { "not running" }
        )?;
        writeln!(f, "in force     {}", policy(&self.effective))?;
        if self.staged.is_some() {
            writeln!(f, "staged       {}", policy(&self.staged))?;
        }
        match self.trail {
            Some((epoch, next)) => writeln!(f, "audit        epoch {epoch}, about {next} blocks written")?,
            None => writeln!(f, "audit        nothing yet")?,
        }
        for bridge in &self.bridges {
            let side = |side: &SideState| match (&side.problem, side.connected) {
                (_, true) => format!("{} connected", side.broker),
                (Some(problem), false) => format!("{} not connected ({problem})", side.broker),
                (None, false) => format!("{} not connected", side.broker),
            };
            writeln!(
                f,
                "bridge       {}: from {}, to {}, {} messages wait",
                bridge.flow,
                side(&bridge.from),
                side(&bridge.to),
                bridge.backlog
            )?;
        }
        for fault in &self.faults {
            writeln!(f, "fault        {fault}")?;
        }
        Ok(())
    }
}

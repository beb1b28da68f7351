//! The policy as it rests on the gateway: the exact bytes of the offer, what the gateway believes with it, and which
//! of the two slots is in force.
//!
//! ```text
//! record "policy-a", "policy-b":  length of trust (4, BE) | trust (JSON) | offer (protobuf, the exact bytes inside)
//! record "effective":             digest of the statement in force (32)
//! record "trust":                 what the gateway believes now (JSON), also when both slots are lost
//! ```
//!
//! What the gateway believes (the floor of revisions, the approvers) moves when a policy is in the kernel, not when it is
//! staged: a release that never took hold does not decide which others may.
//!
//! A new policy is staged into the slot that is not in force, so that the last good one is never overwritten
//! before its successor is in the kernel. Gateways keep only what they verified; reading it back checks integrity
//! and ownership, not signatures, since the approvers may have changed with that very release.

use std::sync::Arc;

use penstock_policy::ids::Digest;
use penstock_policy::plan::Plan;
use penstock_policy::release::Trust;
use penstock_proto::convert::PolicyMark;
use penstock_proto::v1::PolicyOffer;
use prost::Message as _;

use crate::store::{Store, StoreError};

const SLOTS: [&str; 2] = ["policy-a", "policy-b"];
const EFFECTIVE: &str = "effective";
const TRUST: &str = "trust";

/// A policy that was verified once, ready to be enforced.
#[derive(Debug, Clone)]
pub struct StoredPolicy {
    /// What the gateway believes once it has accepted it.
    pub trust: Trust,
    /// Revision and plan digest.
    pub mark: PolicyMark,
    /// Digest of the statement.
    pub statement: Digest,
    /// The plan.
    pub plan: Arc<Plan>,
}

/// What the store holds of policies.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// In the kernel when the agent last ran.
    pub effective: Option<StoredPolicy>,
    /// Verified and stored, newer than `effective`, perhaps never enforced.
    pub staged: Option<StoredPolicy>,
    /// What the gateway believes: the newest of all records that say so.
    pub trust: Option<Trust>,
    /// Faults of records that could not be used, for people.
    pub faults: Vec<String>,
    /// Whether `effective` is what was in force, or it could not be seen from here.
    pub known: bool,
}

impl Held {
    /// What should be in the kernel.
    pub fn desired(&self) -> Option<&StoredPolicy> {
        self.staged.as_ref().or(self.effective.as_ref())
    }
}

/// Why a stored policy is not used.
#[derive(Debug, thiserror::Error)]
pub enum StoredPolicyError {
    /// Its form is wrong.
    #[error("the stored policy is damaged")]
    Damaged,
    /// Its trust cannot be read.
    #[error("the stored policy's trust cannot be read")]
    Trust(#[source] serde_json::Error),
    /// Its plan cannot be read, perhaps since the agent was downgraded.
    #[error("the stored plan cannot be read")]
    Plan(#[from] penstock_policy::plan::PlanError),
    /// It is another gateway's.
    #[error("the stored policy belongs to another gateway or statement")]
    Foreign,
}

/// Reads both slots.
pub fn load(store: &mut Store) -> Held {
    let in_force = store
        .load(EFFECTIVE)
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .map(Digest);
    let mut held = Held {
        trust: store
            .load(TRUST)
            .and_then(|bytes| serde_json::from_slice(&bytes).ok()),
        known: true,
        ..Held::default()
    };
    let mut found = Vec::new();
    for slot in SLOTS {
        match store.load(slot).map(|bytes| decode(&bytes)) {
            Some(Ok(policy)) => found.push(policy),
            Some(Err(error)) => held.faults.push(format!("{slot}: {error}")),
            None => {}
        }
    }
    found.sort_by_key(|policy| policy.mark.revision);
    for policy in found {
        // Where the mark of what is in force is lost, each slot counts: the floor must not sink.
        let was_in_force = in_force.is_none_or(|statement| statement == policy.statement);
        if was_in_force
            && held
                .trust
                .as_ref()
                .is_none_or(|trust| trust.floor < policy.trust.floor)
        {
            held.trust = Some(policy.trust.clone());
        }
        if Some(policy.statement) == in_force {
            held.effective = Some(policy);
            held.staged = None;
        } else {
            held.staged = Some(policy);
        }
    }
    // A slot older than the one in force is what was there before; one without any mark was in force or about to be.
    if let (Some(effective), Some(staged)) = (&held.effective, &held.staged)
        && staged.mark.revision < effective.mark.revision
    {
        held.staged = None;
    }
    held
}

/// Stores a verified offer in the slot that is not in force; durable when this returns.
pub fn stage(store: &mut Store, trust: &Trust, offer: &PolicyOffer) -> Result<(), StoreError> {
    let in_force = store.load(EFFECTIVE);
    let [first, second] = SLOTS;
    let first_in_force = store
        .load(first)
        .and_then(|bytes| statement_of(&bytes))
        .is_some_and(|statement| Some(statement.0.as_slice()) == in_force.as_deref());
    let slot = if first_in_force { second } else { first };
    store.save(slot, &encode(trust, offer))
}

/// Notes that the policy of this statement is the one in the kernel, and what the gateway believes from now on.
pub fn set_effective(store: &mut Store, statement: Digest, trust: &Trust) -> Result<(), StoreError> {
    store.save(EFFECTIVE, &statement.0)?;
    // Names, numbers and keys cannot fail to be JSON.
    store.save(TRUST, &serde_json::to_vec(trust).unwrap_or_default())
}

/// The policy that was last in force, from the copies in files alone (while the agent holds the database). Where a copy that
/// would say it cannot be used, nothing is guessed: [`Held::known`] is false then.
pub fn peek(folder: &std::path::Path) -> Held {
    let mut held = Held {
        known: true,
        ..Held::default()
    };
    let mut read = |record| {
        let copy = crate::store::read_copy(folder, record);
        if let Some(fault) = copy.fault {
            held.known &= copy.found.is_some();
            held.faults.push(fault);
        }
        copy.found.map(|(_, bytes)| bytes)
    };
    let in_force = read(EFFECTIVE)
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .map(Digest);
    let slots = SLOTS.map(|slot| (slot, read(slot)));
    let trust = read(TRUST);
    held.trust = trust.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    // What the gateway believes moves together with what is in force.
    let in_force = in_force.or_else(|| held.trust.as_ref().and_then(|trust| trust.current));
    for (slot, bytes) in slots {
        match bytes.map(|bytes| decode(&bytes)) {
            Some(Ok(policy)) if in_force == Some(policy.statement) => held.effective = Some(policy),
            Some(Ok(policy)) => held.staged = Some(policy),
            Some(Err(error)) => {
                held.known = false;
                held.faults.push(format!("{slot}: {error}"));
            }
            None => {}
        }
    }
    if held.effective.is_some() {
        // Whatever else cannot be read, this one is in force.
        held.known = true;
    }
    let newer = |staged: &StoredPolicy| match &held.effective {
        Some(effective) => staged.mark.revision >= effective.mark.revision,
        None => held.known,
    };
    held.staged = held.staged.filter(newer);
    held
}

fn encode(trust: &Trust, offer: &PolicyOffer) -> Vec<u8> {
    // Names, numbers and keys cannot fail to be JSON; an empty trust is refused when it is read.
    let trust = serde_json::to_vec(trust).unwrap_or_default();
    // How it was reached is proved, and not needed again.
    let offer = PolicyOffer {
        chain: Vec::new(),
        ..offer.clone()
    };
    let mut out = Vec::with_capacity(4 + trust.len() + offer.encoded_len());
    out.extend_from_slice(&u32::try_from(trust.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(&trust);
    out.extend_from_slice(&offer.encode_to_vec());
    out
}

/// The bytes of the trust, and the offer.
fn parts(bytes: &[u8]) -> Option<(&[u8], PolicyOffer)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (trust, offer) = rest.split_at_checked(length)?;
    Some((trust, PolicyOffer::decode(offer).ok()?))
}

/// Whose policy a record is, without reading its plan: that takes long.
fn statement_of(bytes: &[u8]) -> Option<Digest> {
    let (_, offer) = parts(bytes)?;
    Some(Digest::of(&offer.release?.statement))
}

fn decode(bytes: &[u8]) -> Result<StoredPolicy, StoredPolicyError> {
    let (trust, offer) = parts(bytes).ok_or(StoredPolicyError::Damaged)?;
    let trust: Trust = serde_json::from_slice(trust).map_err(StoredPolicyError::Trust)?;
    let release = offer.release.as_ref().ok_or(StoredPolicyError::Damaged)?;
    let statement = Digest::of(&release.statement);
    let plan = Plan::from_bytes(&offer.plan)?;
    if trust.current != Some(statement) || plan.gateway != trust.gateway || plan.plant != trust.plant {
        return Err(StoredPolicyError::Foreign);
    }
    Ok(StoredPolicy {
        mark: PolicyMark {
            revision: trust.floor,
            plan: Digest::of(&offer.plan),
            statement: Some(statement),
        },
        trust,
        statement,
        plan: Arc::new(plan),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use penstock_policy::compile::compile;
    use penstock_policy::diagnostics::SourceFile;
    use penstock_policy::ids::Revision;
    use penstock_proto::v1::SignedRelease;

    use super::*;

    const WORKS: &str = include_str!("../../deploy/examples/waterworks/plant.yaml");

    /// A policy as it is offered as this revision, with what the gateway believes then.
    pub(crate) fn offered(revision: u64) -> (Trust, PolicyOffer, Digest) {
        let day = jiff::civil::date(2026, 1, 1);
        let plant = penstock_policy::load(&[SourceFile::new("plant.yaml", WORKS)], day)
            .plant
            .unwrap();
        let gateway = plant.gateways.keys().next().unwrap().clone();
        let statement = format!("statement of r{revision}").into_bytes();
        let digest = Digest::of(&statement);
        let trust = Trust {
            plant: plant.id.clone(),
            gateway: gateway.clone(),
            approvers: plant.approvers.clone(),
            floor: Revision(revision),
            current: Some(digest),
        };
        let offer = PolicyOffer {
            plan: compile(&plant, &gateway).unwrap().to_bytes().into(),
            release: Some(SignedRelease {
                statement: statement.into(),
                ..SignedRelease::default()
            }),
            ..PolicyOffer::default()
        };
        (trust, offer, digest)
    }
}

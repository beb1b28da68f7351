//! The policy as it rests on the gateway: the exact bytes of the offer, what the gateway believes with it, and which of the two slots is in force.
//!
//! ```text
//! record "policy-a", "policy-b":  length of trust (4, BE) | trust, order (JSON) | offer (protobuf, the exact bytes inside)
//! record "effective":             digest of the statement in force (32)
//! record "trust":                 what the gateway believes now (JSON), also when both slots are lost
//! record "trial":                 the journal of changes (JSON): what it will believe with the newest policy that the kernel
//!                                 may hold, the trial that this one is on, what was reverted
//! ```
//!
//! What the gateway believes (the floor of revisions, the approvers) moves when a policy is in the kernel and on no trial, not when it
//! is staged: a release that never took hold, or was reverted, does not decide which others may.
//!
//! A policy is named in the journal before the kernel is asked to hold it, and stays so until another one is, or the kernel
//! rejected it. An agent that ends between the kernel's change and its note of it leaves the newer name there: where that policy
//! cannot be used at the next start, nothing older takes its place, and what is believed is its floor. On trial it is otherwise: what
//! is in force for good is the one before, and so it is that one's mark and floor which stand beside the journal.
//!
//! A new policy is staged into the slot that is not in force, so that the last good one is never overwritten
//! before its successor is in the kernel; where it is not known which that is, into the older one, and never into one that
//! cannot be read. An older policy is never taken for the one in force because that one cannot be used: it would open what
//! was revoked. Gateways keep only what they verified; reading it back checks integrity
//! and ownership, not signatures, since the approvers may have changed with that very release.

use std::cmp::Reverse;
use std::sync::Arc;

use penstock_policy::ids::Digest;
use penstock_policy::plan::Plan;
use penstock_policy::release::{Statement, Trust};
use penstock_proto::convert::PolicyMark;
use penstock_proto::v1::PolicyOffer;
use prost::Message as _;

use self::journal::{Journal, Order, Upto};
use crate::store::{Records, StoreError};

pub mod journal;
pub mod overrides;
mod peek;

pub use self::peek::peek;

const SLOTS: [&str; 2] = ["policy-a", "policy-b"];
const EFFECTIVE: &str = "effective";
const TRUST: &str = "trust";
const JOURNAL: &str = "trial";

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
    /// How far it goes.
    pub order: Order,
    /// Signed as an emergency: it waits for no window.
    pub emergency: bool,
    /// When it was made, by its author's clock, milliseconds since 1970; 0: not known.
    pub made_ms: u64,
}

/// What the store holds of policies.
#[derive(Debug, Clone, Default)]
pub struct StoredPolicies {
    /// In the kernel when the agent last ran.
    pub effective: Option<StoredPolicy>,
    /// Verified and stored, newer than `effective`, perhaps never enforced.
    pub staged: Option<StoredPolicy>,
    /// What the gateway believes: the newest of all records that say so.
    pub trust: Option<Trust>,
    /// Records that could not be used.
    pub faults: Vec<RecordFault>,
    /// Whether `effective` is what was in force, or it could not be seen from here.
    pub known: bool,
    /// The journal of changes; `None`: it cannot be read at the moment.
    pub journal: Option<Journal>,
    /// The mark can be read and does not say that `effective` is in force: the journal knew better.
    pub mark_is_older: bool,
}

/// A record that there is, and why it is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFault {
    /// Which.
    pub record: &'static str,
    /// For people.
    pub message: String,
    /// It could not be read, and may be whole: it is worth another look, and is not overwritten.
    pub unread: bool,
}

impl RecordFault {
    fn unusable(record: &'static str, why: &dyn std::fmt::Display) -> Self {
        Self {
            record,
            message: format!("the record `{record}` cannot be used: {why}"),
            unread: false,
        }
    }

    /// Why a record was not found, if it is not that there never was one.
    fn of_missing(store: &dyn Records, record: &'static str) -> Option<Self> {
        if let Some(why) = store.unread(record) {
            return Some(Self {
                record,
                message: format!(
                    "the record `{record}` cannot be read; it may be whole, and is not written over: {why}"
                ),
                unread: true,
            });
        }
        Some(Self::unusable(record, &store.unusable(record)?))
    }
}

impl StoredPolicies {
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
pub fn load(store: &mut dyn Records) -> StoredPolicies {
    let marked = digest_in(store.load(EFFECTIVE));
    let mut held = StoredPolicies {
        known: true,
        ..StoredPolicies::default()
    };
    held.faults.extend(RecordFault::of_missing(&*store, EFFECTIVE));
    match store.load(TRUST).map(|bytes| serde_json::from_slice(&bytes)) {
        Some(Ok(trust)) => held.trust = Some(trust),
        Some(Err(error)) => held.faults.push(RecordFault::unusable(TRUST, &error)),
        None => held.faults.extend(RecordFault::of_missing(&*store, TRUST)),
    }
    let journal = match store
        .load(JOURNAL)
        .map(|bytes| serde_json::from_slice::<Journal>(&bytes))
    {
        Some(Ok(journal)) => journal,
        Some(Err(error)) => {
            held.faults.push(RecordFault::unusable(JOURNAL, &error));
            Journal::default()
        }
        None => {
            held.faults.extend(RecordFault::of_missing(&*store, JOURNAL));
            Journal::default()
        }
    };
    let is_unread = |held: &StoredPolicies, record| {
        let mut faults = held.faults.iter();
        faults.any(|fault| fault.unread && fault.record == record)
    };
    let journal_is_unread = is_unread(&held, JOURNAL);
    let mut found = Vec::new();
    for slot in SLOTS {
        match store.load(slot).map(|bytes| decode(&bytes)) {
            Some(Ok(policy)) => found.push(policy),
            Some(Err(error)) => held.faults.push(RecordFault::unusable(slot, &error)),
            None => held.faults.extend(RecordFault::of_missing(&*store, slot)),
        }
    }
    let slot_is_lost = held.faults.iter().any(|fault| SLOTS.contains(&fault.record));
    // Of one release in both slots, nobody knows which order is the later one: the lesser is obeyed.
    found.sort_by_key(|policy| (policy.mark.revision, Reverse(policy.order.upto)));
    let believed = held.trust.clone();
    let is_ours = |other: &Trust| {
        believed
            .as_ref()
            .is_none_or(|believed| believed.plant == other.plant && believed.gateway == other.gateway)
    };
    // One of another plant or gateway is left over from before a new enrolment.
    let is_of_another = journal
        .applying
        .as_ref()
        .is_some_and(|applying| !is_ours(applying));
    let journal = if is_of_another {
        Journal::default()
    } else {
        journal
    };
    held.journal = (!journal_is_unread).then(|| journal.clone());
    // What was being put in force and is in neither slot.
    let is_found = |applying: &Trust| {
        found
            .iter()
            .any(|policy| Some(policy.statement) == applying.current)
    };
    let lost = journal
        .applying
        .as_ref()
        .filter(|applying| journal.trial.is_none() && !is_found(applying))
        .cloned();
    found.retain(|policy| !journal.is_reverted(policy.statement));
    let read_mark = marked;
    let is_stored = |statement: &Digest| found.iter().any(|policy| policy.statement == *statement);
    // The journal is written before the marks are: what was in force before a trial, it knows better.
    let before_trial = || Some(journal.trial.as_ref()?.previous.as_ref()?.statement);
    let marked = before_trial().or(journal.confirmed()).or(marked);
    let named = || journal.trial.is_none().then(|| journal.names()).flatten();
    let in_force = match marked {
        // Unless it is perhaps in a slot that cannot be used, another one took its place since, which the mark does not know.
        Some(marked) if !is_stored(&marked) && !slot_is_lost => named().filter(is_stored).or(Some(marked)),
        Some(marked) => Some(marked),
        // What the gateway believes moves together with what is in force.
        None => believed.as_ref().and_then(|trust| trust.current).or_else(named),
    };
    // Nothing was ever named as being put in force, but perhaps on a first trial, and no record that would say so is lost: what is stored
    // was only staged or tried.
    let marks = [EFFECTIVE, TRUST, JOURNAL];
    let first_trial = journal.trial.as_ref().map(|trial| trial.previous.is_none());
    let is_first = first_trial.unwrap_or(journal.applying.is_none())
        && marked.is_none()
        && believed.is_none()
        && !held.faults.iter().any(|fault| marks.contains(&fault.record));
    // Only a slot that is not in force is taken: where what was in force before is in neither, what is named was it since.
    let gave_way = journal.confirmed.is_none_or(|confirmed| !is_stored(&confirmed));
    for policy in found {
        // Where the mark of what is in force is lost, each slot counts that was perhaps put in force: the floor must not sink.
        let was_in_force = match marked {
            // What was confirmed was in force for good, though a newer one is named since and no mark was written.
            _ if journal.confirmed == Some(policy.statement) => true,
            Some(statement) => {
                statement == policy.statement || (gave_way && in_force == Some(policy.statement))
            }
            None => !is_first && !was_never_in_force(&journal, &policy),
        };
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
    // A slot older than the one in force is what was there before, also where that one cannot be used; one without any mark was
    // in force or about to be.
    let older = |staged: &StoredPolicy| {
        let in_force = held.effective.as_ref().map(|effective| effective.mark.revision);
        let ours = believed
            .as_ref()
            .filter(|trust| trust.plant == staged.trust.plant && trust.gateway == staged.trust.gateway);
        in_force.max(ours.map(|trust| trust.floor)) >= Some(staged.mark.revision)
    };
    if held.staged.as_ref().is_some_and(older) {
        held.staged = None;
    }
    // What was in force is perhaps in what cannot be read, and no record says how far the floor was then: the other slot neither
    // takes its place nor is the measure of what may follow.
    let current = believed.and_then(|trust| trust.current);
    let is_believed = current.is_some() && marked.is_none_or(|statement| Some(statement) == current);
    let any_is_unread = held.faults.iter().any(|fault| fault.unread);
    if held.effective.is_none() && !is_believed && slot_is_lost && any_is_unread {
        (held.staged, held.trust) = (None, None);
    }
    if let Some(lost) = lost {
        // The kernel perhaps holds it: nothing older takes its place, and what may follow is what may follow it.
        let is_older = |policy: &StoredPolicy| policy.mark.revision < lost.floor;
        held.effective.take_if(|policy| is_older(policy));
        held.staged.take_if(|policy| is_older(policy));
        let trust_is_unread = is_unread(&held, TRUST);
        // What is believed and cannot be read stays unknown.
        if held
            .trust
            .as_ref()
            .map_or(!trust_is_unread, |trust| trust.floor < lost.floor)
        {
            held.trust = Some(lost);
        }
    }
    if journal_is_unread {
        // What is staged, or in a slot that cannot be used, was perhaps put in force; or it was on trial, and nobody knows what came of
        // that: it is neither taken for confirmed nor for reverted.
        let staged = held.staged.as_ref().map(|staged| &staged.order);
        if slot_is_lost || staged.is_some_and(|order| order.trial_ms.is_some()) {
            (held.effective, held.staged, held.trust) = (None, None, None);
        } else if staged.is_some_and(|order| order.upto == Upto::Active) {
            held.effective = None;
        }
    }
    let in_force = held.effective.as_ref().map(|effective| effective.statement);
    let mark_is_lost = held.faults.iter().any(|fault| fault.record == EFFECTIVE);
    held.mark_is_older = in_force.is_some() && in_force != read_mark && !mark_is_lost;
    held
}

/// Whether the journal says that a policy was at most on trial.
fn was_never_in_force(journal: &Journal, policy: &StoredPolicy) -> bool {
    let is_newer = |named: &Trust| named.floor < policy.mark.revision;
    let on_trial = journal.trial.is_some() && journal.names() == Some(policy.statement);
    on_trial || journal.applying.as_ref().is_some_and(is_newer)
}

fn digest_in(bytes: Option<Vec<u8>>) -> Option<Digest> {
    bytes
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .map(Digest)
}

/// Stores a verified offer in the slot that is not in force, or where it stands already, and says which that is; durable when this
/// returns.
///
/// `in_force` is the statement in the kernel, as far as the caller knows: the disk may not say it yet.
///
/// # Errors
/// The slot's file cannot be written, or what is in it cannot be read at the moment and might be in force. The policy
/// in force is untouched.
pub fn stage(
    store: &mut dyn Records,
    in_force: Option<Digest>,
    (trust, order): (&Trust, &Order),
    offer: &PolicyOffer,
) -> Result<&'static str, StoreError> {
    // In both slots it would have two orders.
    let held = trust.current.and_then(|statement| slot_of(store, statement));
    let slot = held.unwrap_or_else(|| slot_to_replace(store, in_force));
    store.save(slot, &encode((trust, order), offer))?;
    Ok(slot)
}

/// Stores another order beside the policy of this statement, wherever it is stored; durable when this returns.
///
/// # Errors
/// A slot's file cannot be written. The order that was stored there before stands.
pub fn reorder(store: &mut dyn Records, statement: Digest, order: &Order) -> Result<(), StoreError> {
    // It is in both where one could not be read when it was staged.
    for slot in SLOTS {
        let stored = store.load(slot).unwrap_or_default();
        let Some((trust, offer)) = parts(&stored) else {
            continue;
        };
        let is_meant = offer
            .release
            .as_ref()
            .is_some_and(|release| Digest::of(&release.statement) == statement);
        if let Ok((trust, before)) = journal::read_with_order(trust)
            && is_meant
            && !before.asks_the_same_as(order)
        {
            store.save(slot, &encode((&trust, order), &offer))?;
        }
    }
    Ok(())
}

/// Where the policy of this statement is stored.
pub fn slot_of(store: &mut dyn Records, statement: Digest) -> Option<&'static str> {
    SLOTS.into_iter().find(|slot| {
        let facts = store.load(slot).and_then(|bytes| facts_of(&bytes));
        facts.is_some_and(|(stored, _)| stored == statement)
    })
}

/// The slot that a new policy takes the place of. Where that would be one which cannot be read, storing in it fails.
fn slot_to_replace(store: &mut dyn Records, in_force: Option<Digest>) -> &'static str {
    let [first, second] = SLOTS;
    let noted = |store: &mut dyn Records| digest_in(store.load(EFFECTIVE));
    let in_force = in_force.or_else(|| noted(store)).or_else(|| {
        let trust: Trust = serde_json::from_slice(&store.load(TRUST)?).ok()?;
        trust.current
    });
    let mut facts = |slot| store.load(slot).and_then(|bytes| facts_of(&bytes));
    let held = facts(first);
    if in_force.is_some() && held.as_ref().map(|(statement, _)| *statement) == in_force {
        return second;
    }
    let other = facts(second);
    if in_force.is_some() && other.as_ref().map(|(statement, _)| *statement) == in_force {
        return first;
    }
    if store.unread(first).is_some() {
        return second;
    }
    if store.unread(second).is_some() {
        // What cannot be read is perhaps what is in force; if it is known that the first one is not, that one can go.
        return if in_force.is_some() { first } else { second };
    }
    let revision = |facts: Option<(Digest, u64)>| facts.map(|(_, revision)| revision);
    if revision(held) <= revision(other) {
        first
    } else {
        second
    }
}

/// Notes that the policy of this statement is the one in the kernel, and what the gateway believes from now on; says which
/// records that wrote.
///
/// # Errors
/// One of the two records cannot be written; the first may be written then.
pub fn set_effective(
    store: &mut dyn Records,
    statement: Digest,
    trust: &Trust,
) -> Result<[&'static str; 2], StoreError> {
    store.save(EFFECTIVE, &statement.0)?;
    // Names, numbers and keys cannot fail to be JSON.
    store.save(TRUST, &serde_json::to_vec(trust).unwrap_or_default())?;
    Ok([EFFECTIVE, TRUST])
}

/// Writes the journal, durable when this returns well; says which record that wrote.
///
/// # Errors
/// The record cannot be written, or what is in it cannot be read at the moment.
pub fn set_journal(store: &mut dyn Records, journal: &Journal) -> Result<[&'static str; 1], StoreError> {
    // Names, numbers and keys cannot fail to be JSON.
    store.save(JOURNAL, &serde_json::to_vec(journal).unwrap_or_default())?;
    Ok([JOURNAL])
}

fn encode((trust, order): (&Trust, &Order), offer: &PolicyOffer) -> Vec<u8> {
    let trust = journal::with_order(trust, order);
    // How it was reached is proved, and what it carries was taken: neither is needed again.
    let offer = PolicyOffer {
        chain: Vec::new(),
        withdrawn: prost::bytes::Bytes::new(),
        trust: None,
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

/// Whose policy a record is and its revision, without reading its plan: that takes long.
fn facts_of(bytes: &[u8]) -> Option<(Digest, u64)> {
    let (trust, offer) = parts(bytes)?;
    let trust = journal::read_with_order(trust).ok();
    let revision = trust.map_or(0, |(trust, _)| trust.floor.0);
    Some((Digest::of(&offer.release?.statement), revision))
}

fn decode(bytes: &[u8]) -> Result<StoredPolicy, StoredPolicyError> {
    let (trust, offer) = parts(bytes).ok_or(StoredPolicyError::Damaged)?;
    let (trust, order) = journal::read_with_order(trust).map_err(StoredPolicyError::Trust)?;
    let release = offer.release.as_ref().ok_or(StoredPolicyError::Damaged)?;
    let statement = Digest::of(&release.statement);
    let plan = Plan::from_bytes(&offer.plan)?;
    if trust.current != Some(statement) || plan.gateway != trust.gateway || plan.plant != trust.plant {
        return Err(StoredPolicyError::Foreign);
    }
    let said = Statement::from_bytes(&release.statement).ok();
    Ok(StoredPolicy {
        emergency: said.as_ref().is_some_and(|said| said.emergency),
        made_ms: said.map_or(0, |said| said.created_ms),
        mark: PolicyMark {
            revision: trust.floor,
            plan: Digest::of(&offer.plan),
            statement: Some(statement),
        },
        trust,
        statement,
        plan: Arc::new(plan),
        order,
    })
}

#[cfg(test)]
pub(crate) mod tests;

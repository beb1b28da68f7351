//! The gateway's verification: one pure function from what it trusts and what it is offered to what it may obey.
//!
//! Order of judgement: sizes, the statements between the one that is held and the one that is offered (`chain`),
//! the statement's form, the plant, the age, the signatures, then the plan's place in the tree, its form, whose it is,
//! and what it needs. Nothing of the plan is parsed before its digest is proved to be under the signed root (but to name
//! the fault better).
//!
//! An emergency needs the emergency threshold of the approvers in force before it, and is refused where they have none.
//! Signatures count by person *and* by key (in whatever form) among the approvers that the gateway trusts now. One invalid signature
//! of a known approver refuses the offer: something on the way is at fault or hostile. Signatures of people whom
//! the gateway does not know are passed over; they may be the next set's.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::chain::{Link, follow};
use super::refusal::{OfferRefused, in_words};
use super::signature::{Misfit, SIGNATURES_MAX, Signable, Signature};
use super::statement::{STATEMENT_BYTES_MAX, Statement, leaf_bytes};
use crate::ids::{ApproverId, Digest, GatewayId, PlantId, Revision};
use crate::merkle::{Hash, PROOF_LENGTH_MAX, leaf_hash, verify_inclusion};
use crate::model::ApproverSet;
use crate::plan::{Capability, Plan, PlanError};

/// The longest plan that is read, bytes: about 100,000 flows take a quarter of it.
pub const PLAN_BYTES_MAX: usize = 128 * 1024 * 1024;

/// What a gateway believes before an offer, and keeps over restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Its plant.
    pub plant: PlantId,
    /// Its own name.
    pub gateway: GatewayId,
    /// Whose signatures it obeys: those it was enrolled with, then those of the last release it accepted.
    pub approvers: ApproverSet,
    /// The highest revision it has accepted; 0 before the first.
    pub floor: Revision,
    /// Digest of that release's statement; `None` before the first.
    pub current: Option<Digest>,
}

/// What a coordinator offers, as it came.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// The statement's exact bytes.
    pub statement: &'a [u8],
    /// Signatures over it.
    pub signatures: &'a [Signature],
    /// The releases between the one that the gateway holds and this one, the oldest first. Older ones beside them, and
    /// the gateway's own, are passed over.
    pub chain: &'a [Link<'a>],
    /// The plan's exact bytes.
    pub plan: &'a [u8],
    /// Position of this gateway's leaf.
    pub leaf_index: u64,
    /// Sibling hashes from the leaf to the root.
    pub proof: &'a [Hash],
}

/// A release that the gateway's approvers have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRelease {
    /// What it says.
    pub statement: Statement,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Whose signatures counted.
    pub signers: Vec<ApproverId>,
    /// What the gateway believes once it has accepted the release.
    pub next: Trust,
}

/// An offer that may be obeyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedOffer {
    /// The release.
    pub release: VerifiedRelease,
    /// The gateway's plan.
    pub plan: Plan,
    /// Digest of the plan's bytes.
    pub plan_digest: Digest,
}

/// Verifies a whole offer. `capabilities` is what this agent can enforce.
///
/// # Errors
/// The offer may not be obeyed: the variant says why (signatures, chain, revision, plant, gateway, capability).
pub fn verify_offer(
    trust: &Trust,
    capabilities: &BTreeSet<Capability>,
    offer: &Offer<'_>,
) -> Result<VerifiedOffer, OfferRefused> {
    at_most("plan", offer.plan.len(), PLAN_BYTES_MAX)?;
    at_most("inclusion proof", offer.proof.len(), PROOF_LENGTH_MAX)?;
    let reached = follow(trust, offer.chain, offer.statement)?;
    let release = verify_release(&reached, offer.statement, offer.signatures)?;
    let revision = release.statement.revision;

    let plan_digest = Digest::of(offer.plan);
    let leaf = leaf_hash(&leaf_bytes(&trust.gateway, revision, plan_digest));
    let statement = &release.statement;
    if !verify_inclusion(
        &leaf,
        offer.leaf_index,
        statement.gateways,
        offer.proof,
        &statement.plans_root.0,
    ) {
        return Err(not_in_release(trust, revision, offer.plan));
    }

    let plan = Plan::from_bytes(offer.plan).map_err(|source| match source {
        PlanError::Format(format) => OfferRefused::UnknownFormat(format),
        source => OfferRefused::PlanUnreadable { revision, source },
    })?;
    if plan.plant != trust.plant {
        return Err(OfferRefused::WrongPlant {
            offered: plan.plant,
            own: trust.plant.clone(),
        });
    }
    if plan.gateway != trust.gateway {
        return Err(OfferRefused::WrongGateway {
            offered: plan.gateway,
            own: trust.gateway.clone(),
        });
    }
    let missing: Vec<_> = plan
        .requires
        .difference(capabilities)
        .map(|capability| capability.0.as_str())
        .collect();
    if !missing.is_empty() {
        return Err(OfferRefused::UnknownCapability {
            missing: missing.join(", "),
        });
    }
    Ok(VerifiedOffer {
        release,
        plan,
        plan_digest,
    })
}

/// Verifies a release alone, which has to follow the one in `trust` directly: one link of a chain, and an approver's or
/// coordinator's own check.
///
/// # Errors
/// The statement cannot be read, is of another plant or too old, or too few of the trusted approvers signed it.
pub fn verify_release(
    trust: &Trust,
    statement_bytes: &[u8],
    signatures: &[Signature],
) -> Result<VerifiedRelease, OfferRefused> {
    at_most("statement", statement_bytes.len(), STATEMENT_BYTES_MAX)?;
    at_most("list of signatures", signatures.len(), SIGNATURES_MAX)?;
    let statement = Statement::from_bytes(statement_bytes)?;
    if statement.plant != trust.plant {
        return Err(OfferRefused::WrongPlant {
            offered: statement.plant,
            own: trust.plant.clone(),
        });
    }
    let digest = Digest::of(statement_bytes);
    // Before the signatures: those of an older release, or of another history, are by other approvers.
    check_age(trust, &statement, digest)?;
    let signers = count_signatures(&trust.approvers, &statement, statement_bytes, signatures)?;
    let next = Trust {
        plant: trust.plant.clone(),
        gateway: trust.gateway.clone(),
        approvers: statement.approvers.clone(),
        floor: statement.revision,
        current: Some(digest),
    };
    Ok(VerifiedRelease {
        statement,
        digest,
        signers,
        next,
    })
}

/// Whose signatures count, if they suffice.
fn count_signatures(
    approvers: &ApproverSet,
    statement: &Statement,
    bytes: &[u8],
    signatures: &[Signature],
) -> Result<Vec<ApproverId>, OfferRefused> {
    let revision = statement.revision;
    let needed = approvers
        .needed(statement.emergency)
        .ok_or(OfferRefused::NoEmergencies { revision })?;
    if signatures.is_empty() {
        return Err(OfferRefused::Unsigned { revision, needed });
    }
    let author_key = approvers
        .people
        .iter()
        .find(|(person, _)| is_author(statement, person))
        .map(|(_, approver)| *approver.key.point());
    let signed = Signable::release(bytes);
    let mut counted: BTreeMap<[u8; 32], ApproverId> = BTreeMap::new();
    let mut by_author = false;
    for signature in signatures {
        let Some(approver) = approvers.people.get(&signature.approver) else {
            continue;
        };
        match signature.check(&signed, &approver.key) {
            Ok(()) => {}
            Err(misfit @ Misfit::Forged) => {
                return Err(OfferRefused::Altered(format!(
                    "the signature of {} {misfit}",
                    signature.approver
                )));
            }
            Err(misfit) => {
                return Err(OfferRefused::Unfit {
                    revision,
                    approver: signature.approver.clone(),
                    misfit,
                });
            }
        }
        let point = *approver.key.point();
        // The author's key under a second name is still the author's.
        if is_author(statement, &signature.approver) || Some(point) == author_key {
            by_author = true;
        } else {
            counted.entry(point).or_insert_with(|| signature.approver.clone());
        }
    }
    let mut signers: Vec<_> = counted.into_values().collect();
    signers.sort();
    if signers.len() >= usize::from(needed) {
        return Ok(signers);
    }
    let counted = signers.len();
    Err(if by_author {
        OfferRefused::SelfApproved {
            revision,
            author: statement.author.to_string(),
            counted,
            needed,
        }
    } else {
        OfferRefused::UnderSigned {
            revision,
            counted,
            needed,
            signers: in_words(&signers),
        }
    })
}

fn is_author(statement: &Statement, person: &ApproverId) -> bool {
    statement.author.as_str() == person.as_str()
}

/// Revisions never go backwards, no number names two releases, and each release follows the one that is held.
fn check_age(trust: &Trust, statement: &Statement, digest: Digest) -> Result<(), OfferRefused> {
    let (revision, floor) = (statement.revision, trust.floor);
    let Some(current) = trust.current else {
        // Before the first one, whatever its approvers signed.
        return if revision < floor {
            Err(OfferRefused::Older { revision, floor })
        } else {
            Ok(())
        };
    };
    // The same release again (after a reconnect) is no step back.
    if digest == current {
        return Ok(());
    }
    if revision == floor {
        return Err(OfferRefused::NumberReused { revision });
    }
    if revision < floor {
        return Err(OfferRefused::Older { revision, floor });
    }
    if statement.follows(current) {
        return Ok(());
    }
    // The next number on top of another release proves another history; a later one may just lack what lies between.
    if floor.0.checked_add(1) == Some(revision.0) {
        return Err(OfferRefused::Forked { revision, floor });
    }
    Err(OfferRefused::ChainMissing { revision, floor })
}

/// Names the fault of a plan that is not under the root: another gateway's, or altered.
fn not_in_release(trust: &Trust, revision: Revision, plan: &[u8]) -> OfferRefused {
    match Plan::from_bytes(plan) {
        Ok(plan) if plan.gateway != trust.gateway => OfferRefused::WrongGateway {
            offered: plan.gateway,
            own: trust.gateway.clone(),
        },
        _ => OfferRefused::PlanNotInRelease { revision },
    }
}

pub(super) fn at_most(part: &'static str, size: usize, max: usize) -> Result<(), OfferRefused> {
    if size > max {
        return Err(OfferRefused::TooLarge { part, max });
    }
    Ok(())
}

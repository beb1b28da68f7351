//! From an offer on the wire to one that may be obeyed: the form first, then `penstock_policy::release`.

use std::collections::BTreeSet;

use penstock_policy::ids::ApproverId;
use penstock_policy::plan::Capability;
use penstock_policy::release::{
    CHAIN_LINKS_MAX, Link, Offer, OfferRefused, SIGNATURES_MAX, Signature, Trust, VerifiedOffer, verify_offer,
};
use penstock_proto::v1::{PolicyOffer, SignedRelease};

/// Judges `offer` by what the gateway believes and can do.
pub(crate) fn judge(
    trust: &Trust,
    capabilities: &BTreeSet<Capability>,
    offer: &PolicyOffer,
) -> Result<VerifiedOffer, OfferRefused> {
    let release = offer
        .release
        .as_ref()
        .ok_or_else(|| OfferRefused::Altered("it holds no release".to_owned()))?;
    if offer.chain.len() > CHAIN_LINKS_MAX {
        return Err(OfferRefused::TooLarge {
            part: "chain of statements",
            max: CHAIN_LINKS_MAX,
        });
    }
    let signatures = signatures_of(release)?;
    let before = offer
        .chain
        .iter()
        .map(|release| Ok((release.statement.as_ref(), signatures_of(release)?)))
        .collect::<Result<Vec<_>, OfferRefused>>()?;
    let chain: Vec<_> = before
        .iter()
        .map(|(statement, signatures)| Link {
            statement,
            signatures,
        })
        .collect();
    let proof = offer
        .inclusion_proof
        .iter()
        .map(|hash| hash.as_ref().try_into())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| OfferRefused::Altered("a hash in its proof does not have 32 bytes".to_owned()))?;
    verify_offer(
        trust,
        capabilities,
        &Offer {
            statement: &release.statement,
            signatures: &signatures,
            chain: &chain,
            plan: &offer.plan,
            leaf_index: offer.leaf_index,
            proof: &proof,
        },
    )
}

/// The signatures of a release as they came.
fn signatures_of(release: &SignedRelease) -> Result<Vec<Signature>, OfferRefused> {
    if release.signatures.len() > SIGNATURES_MAX {
        return Err(OfferRefused::TooLarge {
            part: "list of signatures",
            max: SIGNATURES_MAX,
        });
    }
    release
        .signatures
        .iter()
        .map(|wire| {
            let approver = ApproverId::new(wire.approver.as_str())
                .map_err(|error| OfferRefused::Altered(format!("a signature's approver: {error}")))?;
            Signature::new(approver, &wire.signature)
                .map_err(|error| OfferRefused::Altered(format!("a signature: {error}")))
        })
        .collect()
}

/// The revision that an offer claims, without believing it: for the trail and the answer.
pub fn claimed_revision(offer: &PolicyOffer) -> u64 {
    offer
        .release
        .as_ref()
        .and_then(|release| penstock_policy::release::Statement::from_bytes(&release.statement).ok())
        .map_or(0, |statement| statement.revision.0)
}

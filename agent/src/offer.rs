//! From an offer on the wire to one that may be obeyed: the form first, then `penstock_policy::release`. And the order that comes with
//! it, or alone.

use std::collections::BTreeSet;
use std::time::Duration;

use penstock_policy::ids::{ApproverId, Digest};
use penstock_policy::plan::Capability;
use penstock_policy::release::{
    CHAIN_LINKS_MAX, Link, Offer, OfferRefused, SIGNATURES_MAX, Signature, Trust, VerifiedOffer, verify_offer,
};
use penstock_policy::text;
use penstock_proto::v1::{Order as WireOrder, PolicyOffer, SignedRelease, Upto as WireUpto};

use crate::audit::record;
use crate::policy_store::journal::{Order, OrderNumber, Upto};

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
            Ok(Signature::new(approver, &wire.algorithm, &wire.signature)?)
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

/// Why an order, or what is asked of a trial, cannot be understood as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderFault {
    /// It names nothing.
    #[error("it does not name a release: the digest of a statement has 32 bytes, not {0}")]
    NoRelease(usize),
    /// It came with another release.
    #[error("it is about another release than the one that it comes with; that one is staged")]
    OtherRelease,
    /// It asks for what this agent does not know.
    #[error("this agent does not know how far it goes ({0}); the release is staged")]
    Upto(i32),
}

/// The release that a digest on the wire names.
///
/// # Errors
/// It is not a digest.
pub fn release_named(digest: &[u8]) -> Result<Digest, OrderFault> {
    let digest = <[u8; 32]>::try_from(digest).map_err(|_| OrderFault::NoRelease(digest.len()))?;
    Ok(Digest(digest))
}

/// The order that came with an offer, in the session that was opened then (boot's clock), taken out of it; and what is wrong with it. An
/// offer without one is from a coordinator that knows none. One that cannot be understood widens nothing.
pub fn order_with(offer: &mut PolicyOffer, session: Duration) -> (Order, Option<OrderFault>) {
    let Some(wire) = offer.order.take() else {
        return (Order::default(), None);
    };
    let (order, fault) = read_order(&wire, session);
    let statement = offer
        .release
        .as_ref()
        .map(|release| Digest::of(&release.statement));
    let fault = match release_named(&wire.statement_digest) {
        Err(fault) => Some(fault),
        Ok(named) if Some(named) != statement => Some(OrderFault::OtherRelease),
        Ok(_) => fault,
    };
    let upto = if fault.is_some() { Upto::Staged } else { order.upto };
    (Order { upto, ..order }, fault)
}

/// An order, in the session that was opened then, but for the release that it is about; and what is wrong with it.
pub fn read_order(wire: &WireOrder, session: Duration) -> (Order, Option<OrderFault>) {
    let (upto, fault) = match wire.upto() {
        WireUpto::Staged => (Upto::Staged, None),
        WireUpto::Shadow => (Upto::Shadow, None),
        WireUpto::Active => (Upto::Active, None),
        WireUpto::Unspecified => (Upto::Staged, Some(OrderFault::Upto(wire.upto))),
    };
    let order = Order {
        upto,
        trial_ms: (wire.trial_seconds > 0).then(|| u64::from(wire.trial_seconds) * 1000),
        why: record::bounded(&text::printable(&wire.why)),
        number: OrderNumber {
            session,
            number: wire.number,
        },
    };
    (order, fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Duration = Duration::from_secs(5);

    fn wire(upto: i32) -> WireOrder {
        WireOrder {
            statement_digest: Digest::of(b"one").0.to_vec().into(),
            upto,
            trial_seconds: 60,
            number: 3,
            why: "wave 1".to_owned(),
        }
    }

    fn offer(order: Option<WireOrder>) -> PolicyOffer {
        let release = SignedRelease {
            statement: b"one".to_vec().into(),
            ..SignedRelease::default()
        };
        PolicyOffer {
            release: Some(release),
            order,
            ..PolicyOffer::default()
        }
    }

    #[test]
    fn an_offer_without_an_order_is_in_force_at_once_and_one_with_it_goes_as_far_as_that() {
        assert_eq!(order_with(&mut offer(None), SESSION), (Order::default(), None));
        let mut ordered = offer(Some(wire(WireUpto::Active.into())));
        let expected = Order {
            upto: Upto::Active,
            trial_ms: Some(60_000),
            why: "wave 1".to_owned(),
            number: OrderNumber {
                session: SESSION,
                number: 3,
            },
        };
        assert_eq!(order_with(&mut ordered, SESSION), (expected, None));
        // So that the same release is the same offer, whatever is ordered.
        assert_eq!(ordered, offer(None));
    }

    #[test]
    fn what_cannot_be_understood_of_an_order_widens_nothing() {
        let active = wire(WireUpto::Active.into());
        let short = WireOrder {
            statement_digest: vec![1; 31].into(),
            ..active.clone()
        };
        let other = WireOrder {
            statement_digest: Digest::of(b"two").0.to_vec().into(),
            ..active
        };
        for (order, why) in [
            (short, OrderFault::NoRelease(31)),
            (other, OrderFault::OtherRelease),
            (wire(0), OrderFault::Upto(0)),
            (wire(4), OrderFault::Upto(4)),
            (wire(-1), OrderFault::Upto(-1)),
        ] {
            let (order, fault) = order_with(&mut offer(Some(order)), SESSION);
            assert_eq!((order.upto, fault), (Upto::Staged, Some(why)));
        }
    }
}

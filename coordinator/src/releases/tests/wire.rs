//! What one gateway of a large fleet is sent, counted.

use penstock_policy::merkle::{Tree, leaf_hash};
use penstock_policy::plan::Plan;
use penstock_policy::release::{self as policy, leaf_bytes};

use super::*;

/// Others in the fleet, ...
const OTHERS: u32 = 100_000;
/// ... and what comes with a plan and the statements that a gateway lacks, at most.
const BESIDE_BYTES_MAX: usize = 1024;
const SIGNERS: [&str; 2] = ["bob", "carol"];

/// The signatures of a release as it came, for who verifies them.
pub(super) fn signatures(signed: &v1::SignedRelease) -> Vec<Signature> {
    let signatures = signed.signatures.iter();
    signatures
        .map(|one| {
            Signature::new(
                ApproverId::new(one.approver.as_str()).unwrap(),
                &one.algorithm,
                &one.signature,
            )
            .unwrap()
        })
        .collect()
}

fn proposal(revision: u64, parent: Option<Digest>) -> Proposal {
    Proposal::new(document(2, &SIGNERS, &format!("W{revision}")), revision, parent)
}

/// The current release as it would be if the fleet had so many more gateways, half of them before this one.
async fn enlarged(releases: &Releases) -> CurrentRelease {
    let current = releases.now().unwrap();
    let mut large = releases.load(current.recorded.clone()).await.unwrap();
    let mut plans = current.release.plans.clone();
    plans.extend((0..OTHERS).map(|n| {
        let side = if n < OTHERS / 2 { "aa" } else { "zz" };
        let name = GatewayId::new(format!("{side}-{n:06}")).unwrap();
        // Of another gateway's plan, nothing but its digest is seen.
        (name, n.to_string().into_bytes())
    }));
    let revision = current.revision();
    let leaves = plans
        .iter()
        .map(|(gateway, plan)| leaf_hash(&leaf_bytes(gateway, revision, Digest::of(plan))));
    let tree = Tree::new(leaves.collect());
    let statement = Statement {
        plans_root: Digest(tree.root()),
        gateways: tree.size(),
        ..current.recorded.statement.clone()
    };
    let bytes = statement.to_bytes();
    let sign = |person: &str| {
        let approver = ApproverId::new(person).unwrap();
        let signature = key(person).sign(approver.clone(), &bytes).unwrap();
        (approver, signature.to_text())
    };
    large.recorded.record.signatures = SIGNERS.map(sign).into();
    large.recorded.record.statement = String::from_utf8(bytes.clone()).unwrap();
    large.recorded.digest = Digest::of(&bytes);
    large.recorded.statement = statement.clone();
    large.release = Release::from_parts(statement, plans).unwrap();
    large
}

#[tokio::test]
async fn one_gateway_of_a_hundred_thousand_is_sent_its_plan_the_statements_that_it_lacks_and_less_than_a_kilobyte()
 {
    let (_folder, _store, releases) = begin().await;
    let mut held = None;
    for revision in 1..=4 {
        let proposal = proposal(revision, releases.now().map(|current| current.recorded.digest));
        proposal.propose(&releases).await.unwrap();
        for person in SIGNERS {
            proposal.approve(&releases, person).await.unwrap();
        }
        // The gateway was away from the second one on.
        held.get_or_insert_with(|| proposal.digest());
    }
    let current = Arc::new(enlarged(&releases).await);
    let gateway = GatewayId::new("gw-a").unwrap();
    let order = v1::Order {
        statement_digest: current.recorded.digest.0.to_vec().into(),
        upto: v1::Upto::Active.into(),
        trial_seconds: 300,
        number: u64::MAX,
        why: "rollout of r4, wave 3 (all but the largest works of the region)".to_owned(),
    };
    let offer = Offer::new(current.clone(), gateway.clone(), held).with_order(Some(order.clone()));
    let sent: Vec<u8> = offer.pieces().unwrap().flatten().collect();
    let message = v1::CoordinatorMessage::decode(&sent[5..]).unwrap();
    let Some(v1::coordinator_message::Message::Offer(offer)) = message.message else {
        panic!("{message:?}");
    };
    assert_eq!((offer.chain.len(), offer.inclusion_proof.len()), (2, 17));
    let release = offer.release.unwrap();
    let lacked = offer.chain.iter().chain([&release]);
    let statements: usize = lacked.map(prost::Message::encoded_len).sum();
    let beside = sent.len() - offer.plan.len() - statements;
    println!(
        "{} bytes: plan {}, three statements with their signatures {statements}, all else {beside}",
        sent.len(),
        offer.plan.len(),
    );
    assert!(beside <= BESIDE_BYTES_MAX, "{beside}");
    // The gateway takes it: nothing is missing in it.
    let trust = Trust {
        floor: Revision(1),
        current: held,
        ..trust(current.recorded.statement.approvers.clone())
    };
    let signatures: Vec<_> = offer.chain.iter().map(signatures).collect();
    let links: Vec<_> = offer
        .chain
        .iter()
        .zip(&signatures)
        .map(|(signed, signatures)| Link {
            statement: &signed.statement,
            signatures,
        })
        .collect();
    let proof = offer.inclusion_proof.iter();
    let proof: Vec<[u8; 32]> = proof.map(|hash| hash[..].try_into().unwrap()).collect();
    let offered = policy::Offer {
        statement: &release.statement,
        signatures: &current.recorded.signatures(),
        chain: &links,
        plan: &offer.plan,
        leaf_index: offer.leaf_index,
        proof: &proof,
    };
    let capabilities = Plan::from_bytes(&offer.plan).unwrap().requires;
    let taken = policy::verify_offer(&trust, &capabilities, &offered).unwrap();
    assert_eq!(taken.release.digest, current.recorded.digest);
}

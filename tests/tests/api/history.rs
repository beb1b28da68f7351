//! What gateways and people are given to follow from the release that they verified last, and coordinators that know
//! another history than they do.

use penstock_coordinator::store::Expect;
use penstock_policy::ids::{Digest, GatewayId, Revision};
use penstock_policy::plan::Capability;
use penstock_policy::release::{Link, Offer, OfferRefused, Signature, Trust, VerifiedOffer, verify_offer};
use penstock_proto::refusal::Reason;
use penstock_proto::v1;

use crate::world::{
    Built, PATIENCE, World, built, built_replacing, document, mark, people, refused, release, store_of,
};

fn signatures(signed: &v1::SignedRelease) -> Vec<Signature> {
    signed
        .signatures
        .iter()
        .map(|s| Signature::new(s.approver.parse().unwrap(), &s.algorithm, &s.signature).unwrap())
        .collect()
}

/// What the gateway `gw-a` says to an offer that verified `held` last; approvers are those that `held` names.
fn judged(offer: &v1::PolicyOffer, held: &Built) -> Result<VerifiedOffer, OfferRefused> {
    let statement = &held.release.statement;
    let trust = Trust {
        plant: "riverside".parse().unwrap(),
        gateway: GatewayId::new("gw-a").unwrap(),
        approvers: statement.approvers.clone(),
        floor: statement.revision,
        current: Some(held.digest()),
    };
    let capabilities = ["kernel", "inspect:modbus-tcp"]
        .map(|c| Capability(c.to_owned()))
        .into();
    let release = offer.release.as_ref().unwrap();
    let before: Vec<_> = offer
        .chain
        .iter()
        .map(|signed| (signed.statement.to_vec(), signatures(signed)))
        .collect();
    let chain: Vec<_> = before
        .iter()
        .map(|(statement, signatures)| Link {
            statement,
            signatures,
        })
        .collect();
    let proof: Vec<[u8; 32]> = offer
        .inclusion_proof
        .iter()
        .map(|h| h.as_ref().try_into().unwrap())
        .collect();
    let offer = Offer {
        statement: &release.statement,
        signatures: &signatures(release),
        chain: &chain,
        plan: &offer.plan,
        leaf_index: offer.leaf_index,
        proof: &proof,
    };
    verify_offer(&trust, &capabilities, &offer)
}

/// What a gateway says that has `held` in its kernel.
fn holding(held: &Built) -> v1::PolicyState {
    let own = mark(held, "gw-a");
    v1::PolicyState {
        trusted: Some(v1::TrustedRelease {
            revision: own.revision,
            statement_digest: own.statement_digest.clone(),
        }),
        effective: Some(own),
        ..v1::PolicyState::default()
    }
}

fn statements(chain: &[v1::SignedRelease]) -> Vec<Digest> {
    chain.iter().map(|signed| Digest::of(&signed.statement)).collect()
}

/// Three releases; after the second one person is enough.
async fn three(world: &World) -> [Built; 3] {
    let mut people = people(world).await;
    let one = built(&document(2, 100), 1, None, "anna");
    release(&mut people, &one).await;
    let two = built(&document(1, 100), 2, Some(one.digest()), "anna");
    release(&mut people, &two).await;
    let three = built(&document(1, 101), 3, Some(two.digest()), "anna");
    people
        .engineer
        .propose_release(three.request.clone())
        .await
        .unwrap();
    people.bob.approve_release(three.approval("bob")).await.unwrap();
    [one, two, three]
}

#[tokio::test]
async fn a_gateway_is_offered_the_statements_that_it_lacks_also_after_the_coordinator_restarted() {
    let mut world = World::start().await;
    let [one, two, three] = three(&world).await;
    for _ in 0..2 {
        let offer = world.session("gw-a", holding(&one)).await.offer().await;
        assert_eq!(statements(&offer.chain), [two.digest()]);
        assert_eq!(judged(&offer, &one).unwrap().release.digest, three.digest());
        let offer = world.session("gw-a", holding(&two)).await.offer().await;
        assert!(offer.chain.is_empty());
        judged(&offer, &two).unwrap();
        // One fresh from enrolment may have been told the approvers of before the change.
        let offer = world
            .session("gw-a", v1::PolicyState::default())
            .await
            .offer()
            .await;
        assert_eq!(statements(&offer.chain), [two.digest()]);
        world.session("gw-a", holding(&three)).await.silence().await;
        world.restart().await;
    }
}

#[tokio::test]
async fn a_store_made_before_there_was_a_history_gets_one() {
    let mut world = World::start().await;
    let [one, two, three] = three(&world).await;
    world.running.take().unwrap().stop().await;
    let store = store_of(&world.config).await;
    for (key, record) in store.list("link/").await.unwrap() {
        store.delete_if(&key, record.revision).await.unwrap();
    }
    // A record as it was written then: plans and boundaries inside.
    for (key, record) in store.list("release/").await.unwrap() {
        let mut value: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
        let detail = value.as_object_mut().unwrap().remove("detail").unwrap();
        let digest: Digest = serde_json::from_value(detail).unwrap();
        // That of what is no longer current was removed.
        if let Some(detail) = store.blob(digest).await.unwrap() {
            let detail: serde_json::Value = serde_json::from_slice(&detail).unwrap();
            for part in ["plans", "zones"] {
                value[part] = detail[part].clone();
            }
        }
        let bytes = serde_json::to_vec(&value).unwrap();
        store
            .put_if(&key, Expect::Revision(record.revision), bytes)
            .await
            .unwrap();
    }
    drop(store);
    world.start_again().await;
    let offer = world.session("gw-a", holding(&one)).await.offer().await;
    assert_eq!(statements(&offer.chain), [two.digest()]);
    assert_eq!(judged(&offer, &one).unwrap().release.digest, three.digest());
}

#[tokio::test]
async fn people_get_the_releases_from_the_one_that_they_know_and_the_one_that_they_name() {
    let world = World::start().await;
    let [one, two, three] = three(&world).await;
    let mut viewer = world.operator("vic", v1::Role::Viewer).await;
    let mut get = async |revision, statement: Option<&Built>, since: Option<Digest>| {
        let digest = |digest: Digest| digest.0.to_vec().into();
        let request = v1::GetReleaseRequest {
            revision,
            statement_digest: statement.map(|built| digest(built.digest())).unwrap_or_default(),
            since_digest: since.map(digest).unwrap_or_default(),
        };
        viewer
            .get_release(request)
            .await
            .map(|answer| answer.into_inner())
    };
    let chain = get(0, None, Some(one.digest())).await.unwrap().chain;
    assert_eq!(statements(&chain), [two.digest()]);
    let chain = get(3, Some(&three), None).await.unwrap().chain;
    assert_eq!(statements(&chain), [one.digest(), two.digest()]);
    // A stranger's digest, and a number that names another release.
    let chain = get(0, None, Some(Digest::of(b"elsewhere"))).await.unwrap().chain;
    assert_eq!(chain.len(), 2);
    refused(get(2, Some(&three), None).await, Reason::DigestMismatch);
    let proposal = built(&document(1, 9), 4, Some(three.digest()), "anna");
    let mut engineer = world.operator("anna", v1::Role::Engineer).await;
    engineer.propose_release(proposal.request.clone()).await.unwrap();
    let chain = get(4, Some(&proposal), Some(two.digest())).await.unwrap().chain;
    assert_eq!(statements(&chain), [three.digest()]);
}

#[tokio::test]
async fn another_release_under_a_known_number_counts_for_nothing_and_what_replaces_it_leads_the_gateway_on() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let one = built(&document(2, 100), 1, None, "anna");
    release(&mut people, &one).await;
    // The gateway holds a second release that this coordinator, restored from a backup, does not know; here the number
    // goes to another one, with the same plan.
    let mut held = built(&document(2, 101), 2, Some(one.digest()), "anna");
    held.release.statement.reason = "made before the backup was restored".to_owned();
    held.statement = held.release.statement.to_bytes();
    let other = built(&document(2, 101), 2, Some(one.digest()), "anna");
    release(&mut people, &other).await;
    let mut session = world.session("gw-a", holding(&held)).await;
    let offer = session.offer().await;
    assert!(offer.chain.is_empty());
    assert_eq!(judged(&offer, &held).unwrap_err().code(), "number-reused");
    let seen = |revision| v1::GetReleaseRequest {
        revision,
        ..v1::GetReleaseRequest::default()
    };
    let shown = people.bob.get_release(seen(2)).await.unwrap().into_inner();
    assert_eq!(shown.release.unwrap().effective, 0, "by digest, not by number");
    let mut health = people
        .bob
        .watch_health(v1::WatchHealthRequest {
            once: false,
            beats: false,
        })
        .await
        .unwrap()
        .into_inner();
    let told = async {
        while let Some(plant) = health.message().await.unwrap() {
            let mut reasons = plant.zones.iter().flat_map(|zone| &zone.reasons);
            if reasons.any(|reason| reason.contains("a different r2")) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();

    let document = document(2, 102);
    let lonely = built(&document, 3, Some(other.digest()), "anna");
    release(&mut people, &lonely).await;
    let offer = session.offer().await;
    assert_eq!(judged(&offer, &held).unwrap_err().code(), "forked");
    let joined = built_replacing(&document, 4, Some(lonely.digest()), vec![held.digest()], "anna");
    release(&mut people, &joined).await;
    let offer = session.offer().await;
    let verified = judged(&offer, &held).unwrap();
    assert_eq!(verified.release.statement.revision, Revision(4));
    // And whoever slept since before that follows it there, too.
    let next = built(&document, 5, Some(joined.digest()), "anna");
    release(&mut people, &next).await;
    let offer = session.offer().await;
    assert_eq!(statements(&offer.chain), [joined.digest()]);
    judged(&offer, &held).unwrap();
}

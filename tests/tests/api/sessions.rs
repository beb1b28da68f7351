//! Gateways' sessions: offers at once, states kept apart, one session per gateway, health that follows.

use std::time::Duration;

use penstock_coordinator::config::Config;
use penstock_policy::ids::{Digest, GatewayId};
use penstock_policy::plan::Capability;
use penstock_policy::release::{Offer, Signature, Trust, verify_offer};
use penstock_proto::refusal::{Reason, explain};
use penstock_proto::v1;
use penstock_proto::v1::gateway_message::Message as Up;

use crate::bounds::until;
use crate::world::{PATIENCE, World, built, document, mark, message, people, release};

/// How often is looked for what a gateway's session changes, every 20 ms.
const LOOKS: u32 = 3000;

fn effective(mark: v1::RevisionDigest) -> v1::PolicyState {
    v1::PolicyState {
        effective: Some(mark),
        ..v1::PolicyState::default()
    }
}

/// What the gateway's own verifier says of an offer.
pub fn verified(offer: &v1::PolicyOffer, gateway: &str, approvers: &crate::world::Built) -> u64 {
    let signed = offer.release.as_ref().unwrap();
    let signatures: Vec<_> = signed
        .signatures
        .iter()
        .map(|s| Signature::new(s.approver.parse().unwrap(), &s.algorithm, &s.signature).unwrap())
        .collect();
    let proof: Vec<[u8; 32]> = offer
        .inclusion_proof
        .iter()
        .map(|h| h.as_ref().try_into().unwrap())
        .collect();
    let trust = Trust {
        plant: "riverside".parse().unwrap(),
        gateway: GatewayId::new(gateway).unwrap(),
        approvers: approvers.release.statement.approvers.clone(),
        floor: penstock_policy::ids::Revision(0),
        current: None,
    };
    let capabilities = ["kernel", "inspect:modbus-tcp"]
        .map(|c| Capability(c.to_owned()))
        .into();
    let verified = verify_offer(
        &trust,
        &capabilities,
        &Offer {
            statement: &signed.statement,
            signatures: &signatures,
            chain: &[],
            plan: &offer.plan,
            leaf_index: offer.leaf_index,
            proof: &proof,
        },
    )
    .unwrap();
    verified.release.statement.revision.0
}

#[tokio::test]
async fn a_new_release_reaches_every_connected_gateway_at_once_and_passes_its_verifier() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let mut a = world.session("gw-a", v1::PolicyState::default()).await;
    let mut b = world.session("gw-b", v1::PolicyState::default()).await;
    let mut stranger = world.session("gw-x", v1::PolicyState::default()).await;
    let first = built(&document(2, 100), 1, None, "anna");
    release(&mut people, &first).await;
    for (session, gateway) in [(&mut a, "gw-a"), (&mut b, "gw-b")] {
        let offer = session.offer().await;
        assert_eq!(verified(&offer, gateway, &first), 1);
        assert_eq!(
            Digest::of(&offer.plan).0.to_vec(),
            mark(&first, gateway).plan_digest.to_vec()
        );
    }
    stranger.silence().await;
}

#[tokio::test]
async fn offered_staged_effective_and_refused_are_told_apart() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let first = built(&document(2, 100), 1, None, "anna");
    release(&mut people, &first).await;
    let mut a = world.session("gw-a", v1::PolicyState::default()).await;
    let mut b = world.session("gw-b", v1::PolicyState::default()).await;
    a.offer().await;
    b.offer().await;
    let mut counts = async |expected: (u32, u32, u32, u32)| {
        for _ in 0..LOOKS {
            let release = people
                .engineer
                .get_release(v1::GetReleaseRequest {
                    revision: 1,
                    ..Default::default()
                })
                .await
                .unwrap()
                .into_inner()
                .release
                .unwrap();
            let found = (
                release.offered,
                release.staged,
                release.effective,
                release.refused,
            );
            if found == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never {expected:?}");
    };
    counts((2, 0, 0, 0)).await;
    let staged = v1::PolicyState {
        staged: Some(mark(&first, "gw-a")),
        ..v1::PolicyState::default()
    };
    a.send(Up::Policy(staged)).await;
    counts((2, 1, 0, 0)).await;
    a.send(Up::Policy(effective(mark(&first, "gw-a")))).await;
    counts((2, 1, 1, 0)).await;
    let refused = v1::PolicyState {
        refused: Some(v1::Refusal {
            revision: 1,
            code: "under-signed".into(),
            message: "…".into(),
            statement_digest: first.digest().0.to_vec().into(),
        }),
        ..v1::PolicyState::default()
    };
    b.send(Up::Policy(refused)).await;
    counts((2, 1, 1, 1)).await;
}

#[tokio::test]
async fn a_gateway_that_is_behind_is_offered_at_its_hello_and_one_that_is_not_is_left_alone() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let first = built(&document(2, 100), 1, None, "anna");
    release(&mut people, &first).await;
    let second = built(&document(2, 101), 2, Some(first.digest()), "anna");
    release(&mut people, &second).await;
    let mut behind = world.session("gw-a", effective(mark(&first, "gw-a"))).await;
    assert_eq!(verified(&behind.offer().await, "gw-a", &first), 2);
    let mut up_to_date = world.session("gw-b", effective(mark(&second, "gw-b"))).await;
    up_to_date.silence().await;
}

#[tokio::test]
async fn a_second_session_of_the_same_gateway_ends_the_first() {
    let world = World::start().await;
    let mut first = world.session("gw-a", v1::PolicyState::default()).await;
    let second = world.session("gw-a", v1::PolicyState::default()).await;
    let status = first.next().await.unwrap_err();
    assert!(explain(&status).is(Reason::SessionReplaced), "{status:?}");
    // Its end does not end the second.
    drop(first);
    let known = world
        .admin()
        .list_gateways(v1::ListGatewaysRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(known.gateways.iter().any(|g| g.name == "gw-a" && g.connected));
    drop(second);
    for _ in 0..LOOKS {
        let known = world
            .admin()
            .list_gateways(v1::ListGatewaysRequest {})
            .await
            .unwrap()
            .into_inner();
        if known
            .gateways
            .iter()
            .any(|g| g.name == "gw-a" && !g.connected && g.last_seen_ms > 0)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the gateway counts as connected for ever");
}

/// What is remembered of a gateway when its session ended was the certificate with which that had begun.
#[tokio::test]
async fn a_session_that_ends_puts_no_older_certificates_end_over_that_of_the_one_renewed_in_it() {
    let mut world = World::start().await;
    let an_hour_ago = crate::world::now_ms() - 3_600_000;
    let own = world.certificate_at("gateway/gw-a", an_hour_ago);
    let channel = world.channel(world.roots(), Some(own)).await.unwrap();
    let session = world
        .session_over(channel.clone(), v1::PolicyState::default())
        .await;
    let request = world.renewal("gateway/gw-a");
    let mut link = v1::gateway_link_client::GatewayLinkClient::new(channel);
    let renewed = link.renew(request).await.unwrap().into_inner();
    let leaf = renewed.certificate_chain[0].to_vec().into();
    let (_, expires_ms) = penstock_proto::tls::validity_ms(&leaf).unwrap();
    drop(session);
    let seen = async |world: &World| {
        let gateways = world.admin().list_gateways(v1::ListGatewaysRequest {}).await;
        let gateways = gateways.unwrap().into_inner().gateways;
        gateways
            .into_iter()
            .find(|gateway| gateway.name == "gw-a")
            .unwrap()
    };
    until(async || Some(seen(&world).await).filter(|gateway| !gateway.connected)).await;
    world.restart().await;
    assert_eq!(seen(&world).await.certificate_expires_ms, expires_ms);
}

#[tokio::test]
async fn a_session_that_breaks_its_protocol_is_ended() {
    use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
    let world = World::start().await;
    for opening in [
        message(Up::Health(v1::HealthReport::default())),
        v1::GatewayMessage { message: None },
    ] {
        let credentials = world.certificate("gateway/gw-a");
        let channel = world.channel(world.roots(), Some(credentials)).await.unwrap();
        let opened = GatewayLinkClient::new(channel)
            .session(tokio_stream::once(opening))
            .await;
        let mut stream = opened.unwrap().into_inner();
        let status = stream.message().await.unwrap_err();
        assert!(explain(&status).is(Reason::SessionProtocol), "{status:?}");
    }
    let mut session = world.session("gw-a", v1::PolicyState::default()).await;
    session.send(Up::Hello(v1::Hello::default())).await;
    let status = session.next().await.unwrap_err();
    assert!(explain(&status).is(Reason::SessionProtocol), "{status:?}");
}

#[tokio::test]
async fn zone_health_follows_what_gateways_tell_and_goes_stale_without_them() {
    let soon = |config: &mut Config| {
        config.sessions.health_interval = Duration::from_millis(500);
        config.sessions.report_late = Duration::from_millis(500);
    };
    let world = World::start_with(soon).await;
    let mut people = people(&world).await;
    let first = built(&document(2, 100), 1, None, "anna");
    release(&mut people, &first).await;
    let mut health = people
        .engineer
        .watch_health(v1::WatchHealthRequest {
            once: false,
            beats: false,
        })
        .await
        .unwrap()
        .into_inner();
    let mut becomes = async |zone: &str, state: v1::ZoneState| {
        tokio::time::timeout(PATIENCE, async {
            loop {
                let plant = health.message().await.unwrap().expect("the stream goes on");
                let found = plant.zones.iter().find(|z| z.zone == zone);
                if let Some(found) = found {
                    assert!(!found.reasons.is_empty());
                    if found.state() == state {
                        return;
                    }
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{zone} never became {state:?}"));
    };
    becomes("control", v1::ZoneState::Unknown).await;
    let a = world.session("gw-a", effective(mark(&first, "gw-a"))).await;
    becomes("control", v1::ZoneState::Enforcing).await;
    a.send(Up::Health(v1::HealthReport {
        policy: Some(effective(mark(&first, "gw-a"))),
        drift: v1::Drift::Present.into(),
        ..v1::HealthReport::default()
    }))
    .await;
    becomes("control", v1::ZoneState::Degraded).await;
    a.send(Up::Health(v1::HealthReport {
        policy: Some(v1::PolicyState::default()),
        ..v1::HealthReport::default()
    }))
    .await;
    becomes("control", v1::ZoneState::Unprotected).await;
    a.send(Up::Policy(effective(mark(&first, "gw-a")))).await;
    becomes("control", v1::ZoneState::Enforcing).await;
    // The link stands, but nothing is told any more: three intervals later that is not evidence.
    becomes("control", v1::ZoneState::Stale).await;
}

#[tokio::test]
async fn a_gateway_that_takes_nothing_is_cut_off_and_does_not_hold_up_the_others() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let mut good = world.session("gw-b", v1::PolicyState::default()).await;
    let deaf = world.narrow_session("gw-a").await;
    // Acknowledgements pile up for a gateway that reads nothing, until the windows and the queue are full.
    let flood = tokio::spawn(async move {
        let block = v1::AuditBlock {
            epoch: 1,
            sequence: 0,
            previous_digest: vec![0; 32].into(),
            body: v1::AuditBlockBody::default().encode_to_vec().into(),
        };
        use prost::Message as _;
        while deaf.up.send(message(Up::Audit(block.clone()))).await.is_ok() {}
        // It reads nothing, and does not go by itself.
        std::future::pending::<()>().await;
        drop(deaf);
    });
    let first = built(&document(2, 100), 1, None, "anna");
    release(&mut people, &first).await;
    assert_eq!(verified(&good.offer().await, "gw-b", &first), 1);
    until(async || {
        let known = world.admin().list_gateways(v1::ListGatewaysRequest {}).await;
        let known = known.unwrap().into_inner().gateways;
        known
            .iter()
            .any(|g| g.name == "gw-a" && !g.connected)
            .then_some(())
    })
    .await;
    flood.abort();
    good.silence().await;
}

//! Two users of one key: a thief with a copy of a real agent's state folder, in both orders; and a gateway alone that breaks off at each
//! step, which is never taken for two.

use std::path::Path;

use penstock_agent::identity::IdentityFolder;
use penstock_agent::link::enrol::enrol;
use penstock_proto::keys::certificate_request;
use penstock_proto::refusal::Reason;
use penstock_proto::v1;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
use penstock_proto::v1::gateway_message::Message as Up;
use prost::bytes::Bytes;
use tonic::Status;

use crate::bounds::until;
use crate::dark::gateway::{Running, within};
use crate::dark::token;
use crate::identities::{decide, enrolled, kept_out};
use crate::stolen::{copy, is_connected};
use crate::world::{Session, World, built, document, mark, people, refused, release};

/// The number of the ticket that a gateway is known to hold.
async fn held(world: &World, gateway: &str) -> u64 {
    let store = world.running.as_ref().unwrap().store();
    match store.get(&format!("ticket/{gateway}")).await.unwrap() {
        None => 0,
        Some(record) => {
            let record: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
            record["held"]["number"].as_u64().unwrap()
        }
    }
}

/// Waits until a gateway is known to hold a ticket of that number.
pub async fn holds(world: &World, gateway: &str, number: u64) {
    until(async || (held(world, gateway).await >= number).then_some(())).await;
}

/// Waits until an agent shows the fault, or no longer does.
async fn shows_two(agent: &Running, is_shown: bool) {
    let mut faults = agent.views.withdrawn.faults();
    let wanted = faults.wait_for(|faults| faults.iter().any(|fault| fault.code == "two-users") == is_shown);
    within(wanted).await.unwrap();
}

async fn listed(world: &World, name: &str) -> v1::Gateway {
    let answer = world
        .admin()
        .list_gateways(v1::ListGatewaysRequest {})
        .await
        .unwrap();
    let mut gateways = answer.into_inner().gateways.into_iter();
    gateways.find(|gateway| gateway.name == name).unwrap()
}

fn is_two(gateway: &v1::Gateway) -> bool {
    let fault = gateway.faults.iter().any(|fault| fault.code == "two-users");
    let twin = gateway
        .identity
        .as_ref()
        .is_some_and(|identity| identity.twin.is_some());
    assert_eq!(fault, twin, "{gateway:?}");
    fault
}

/// Asks for another certificate by the identity in this state folder.
async fn renews(world: &World, state: &Path) -> Result<(), Status> {
    let folder = IdentityFolder::new(state);
    let enrolment = IdentityFolder::peek_enrolment(state).unwrap();
    let identity = folder.load(enrolment).unwrap();
    let own = identity.credentials().clone();
    let channel = world.channel(world.roots(), Some(own)).await.unwrap();
    let request = v1::RenewRequest {
        certificate_request: certificate_request(&folder.key().unwrap(), None).unwrap().into(),
        ..v1::RenewRequest::default()
    };
    GatewayLinkClient::new(channel).renew(request).await.map(|_| ())
}

/// The alarms in the coordinator's trail: their addresses and words.
async fn alarms(world: &World) -> Vec<(String, String)> {
    let trail = world.trail("coordinator/c1").await;
    let alarms = trail.into_iter().filter_map(|record| {
        let event = record.event?;
        match event.kind.clone()? {
            Kind::Identity(identity) if identity.step == "two-users" => {
                assert_eq!(event.severity(), v1::Severity::Alarm);
                Some((identity.address, identity.message))
            }
            _ => None,
        }
    });
    alarms.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_gateway_is_noticed_whichever_of_both_comes_first_and_the_certificate_is_renewed_for_neither()
 {
    for thief_first in [true, false] {
        let mut world = World::start().await;
        let (state, stolen) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        enrol(state.path(), &token(&world).await).await.unwrap();
        let agent = Running::start(state.path()).await;
        is_connected(&agent).await;
        holds(&world, "gw-1", 1).await;
        agent.stop().await;
        copy(state.path(), stolen.path());
        renews(&world, state.path()).await.unwrap();

        // One of both goes on alone, and nothing tells them apart.
        let (first, second) = match thief_first {
            true => (stolen.path(), state.path()),
            false => (state.path(), stolen.path()),
        };
        let one = Running::start(first).await;
        is_connected(&one).await;
        holds(&world, "gw-1", 2).await;
        assert!(!is_two(&listed(&world, "gw-1").await));
        // Then the other comes.
        let other = Running::start(second).await;
        shows_two(&other, true).await;
        shows_two(&one, true).await;
        until(async || is_two(&listed(&world, "gw-1").await).then_some(())).await;
        for folder in [first, second] {
            let words = refused(renews(&world, folder).await, Reason::TwoUsers);
            assert!(words.contains("from 127.0.0.1 at 20"), "{words}");
        }
        let said = alarms(&world).await;
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(said[0].0, "127.0.0.1");
        assert!(
            said[0].1.contains("showed a ticket from before the last one"),
            "{said:?}"
        );
        one.stop().await;
        other.stop().await;

        // It is on the disk.
        world.restart().await;
        assert!(is_two(&listed(&world, "gw-1").await));
        refused(renews(&world, first).await, Reason::TwoUsers);
        decide(&mut world.admin(), "gateway/gw-1", v1::StandingChange::Revoke)
            .await
            .unwrap();
        assert!(!is_two(&listed(&world, "gw-1").await));
        for folder in [first, second] {
            refused(renews(&world, folder).await, Reason::IdentityWithdrawn);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_was_set_back_to_an_image_is_resumed_and_a_copy_of_it_is_noticed_all_the_same() {
    let world = World::start().await;
    let (state, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    enrol(state.path(), &token(&world).await).await.unwrap();
    for number in 1..=2 {
        let agent = Running::start(state.path()).await;
        holds(&world, "gw-1", number).await;
        agent.stop().await;
        if number == 1 {
            copy(state.path(), image.path());
        }
    }
    let agent = Running::start(image.path()).await;
    shows_two(&agent, true).await;
    let mut admin = world.admin();
    decide(&mut admin, "gateway/gw-1", v1::StandingChange::Resume)
        .await
        .unwrap();
    // It comes back by itself, as the one.
    shows_two(&agent, false).await;
    holds(&world, "gw-1", 3).await;
    assert!(!is_two(&listed(&world, "gw-1").await));
    renews(&world, image.path()).await.unwrap();
    let again = decide(&mut admin, "gateway/gw-1", v1::StandingChange::Resume).await;
    refused(again, Reason::WrongStanding);
    let other = Running::start(state.path()).await;
    shows_two(&other, true).await;
    assert_eq!(alarms(&world).await.len(), 2);
    other.stop().await;
    agent.stop().await;
}

/// A session of `gw-a` that shows this ticket, and what it was welcomed with.
async fn greeted(world: &World, ticket: Option<Bytes>) -> Session {
    greeted_as(world, "gw-a", ticket).await
}

/// The same of any gateway.
pub async fn greeted_as(world: &World, name: &str, ticket: Option<Bytes>) -> Session {
    let own = world.certificate(&format!("gateway/{name}"));
    let channel = world.channel(world.roots(), Some(own)).await.unwrap();
    let hello = v1::Hello {
        ticket,
        ..v1::Hello::default()
    };
    world.greeting(channel, hello).await
}

#[tokio::test]
async fn a_gateway_that_is_killed_before_it_stores_its_ticket_or_before_it_says_so_is_one() {
    let mut world = World::start().await;
    enrolled(&world, "gw-a").await;
    // Killed before it stored anything, more than once.
    for _ in 0..3 {
        let session = greeted(&world, Some(Bytes::new())).await;
        assert!(!session.welcome.ticket.is_empty() && session.welcome.twin.is_none());
    }
    assert_eq!(held(&world, "gw-a").await, 0);
    // Killed with the ticket on its disk, before it said so; and the coordinator was restarted meanwhile.
    let stored = greeted(&world, Some(Bytes::new())).await.welcome.ticket;
    world.restart().await;
    let session = greeted(&world, Some(stored.clone())).await;
    assert_eq!(session.welcome.twin, None);
    assert_eq!(held(&world, "gw-a").await, 1, "what it shows is what it holds");
    let next = session.welcome.ticket.clone();
    session.send(Up::TicketHeld(next.clone())).await;
    holds(&world, "gw-a", 2).await;
    // Its disk takes nothing from now on: it shows the same again and again.
    for _ in 0..3 {
        let session = greeted(&world, Some(next.clone())).await;
        assert_eq!(session.welcome.twin, None);
    }
    // What it says to hold and was not given is not believed, and breaks nothing.
    let mut session = greeted(&world, Some(next.clone())).await;
    session.send(Up::TicketHeld(Bytes::from_static(&[7; 32]))).await;
    session.send(Up::TicketHeld(Bytes::new())).await;
    session.silence().await;
    assert_eq!(held(&world, "gw-a").await, 2);
    assert!(!is_two(&listed(&world, "gw-a").await));
    // With the ticket before, it is another.
    let session = greeted(&world, Some(stored)).await;
    assert!(session.welcome.twin.is_some() && session.welcome.ticket.is_empty());
    assert!(
        kept_out(&world, world.certificate("gateway/gw-a"))
            .await
            .is_none(),
        "nobody is kept out for it"
    );
}

#[tokio::test]
async fn software_before_tickets_goes_on_as_it_did() {
    let world = World::start().await;
    enrolled(&world, "gw-a").await;
    for _ in 0..3 {
        let mut session = greeted(&world, None).await;
        assert!(session.welcome.ticket.is_empty() && session.welcome.twin.is_none());
        session.silence().await;
    }
    assert_eq!(held(&world, "gw-a").await, 0);
}

#[tokio::test]
async fn the_zones_of_a_gateway_with_two_users_are_degraded_and_say_why_until_it_is_resumed() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let first = built(&document(2, 99), 1, None, "anna");
    release(&mut people, &first).await;
    enrolled(&world, "gw-a").await;
    let session = async |ticket: &Bytes| {
        let own = world.certificate("gateway/gw-a");
        let channel = world.channel(world.roots(), Some(own)).await.unwrap();
        let hello = v1::Hello {
            ticket: Some(ticket.clone()),
            policy: Some(v1::PolicyState {
                effective: Some(mark(&first, "gw-a")),
                ..v1::PolicyState::default()
            }),
            ..v1::Hello::default()
        };
        world.greeting(channel, hello).await
    };
    let is_degraded = async |wanted: bool| {
        until(async || {
            let watch = v1::WatchHealthRequest {
                once: true,
                beats: false,
            };
            let health = world.admin().watch_health(watch).await.unwrap();
            let health = health.into_inner().message().await.unwrap().unwrap();
            let control = health.zones.into_iter().find(|zone| zone.zone == "control");
            let control = control?;
            let says = |reason: &String| {
                reason.contains("two machines use this gateway's key, from 127.0.0.1 at 20")
            };
            let found = control.state() == v1::ZoneState::Degraded && control.reasons.iter().any(says);
            (found == wanted).then_some(())
        })
        .await;
    };
    let one = session(&Bytes::new()).await;
    one.send(Up::TicketHeld(one.welcome.ticket.clone())).await;
    holds(&world, "gw-a", 1).await;
    is_degraded(false).await;
    let _other = session(&Bytes::new()).await;
    is_degraded(true).await;
    decide(&mut world.admin(), "gateway/gw-a", v1::StandingChange::Resume)
        .await
        .unwrap();
    is_degraded(false).await;
}

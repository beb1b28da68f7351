//! Who counts: decisions of admins, and what becomes at once of those whom they concern.

use std::time::Duration;

use penstock_proto::keys::certificate_request;
use penstock_proto::peer::{Certified, Epoch};
use penstock_proto::refusal::{Reason, explain};
use penstock_proto::tls::Credentials;
use penstock_proto::v1;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::create_token_request::Subject as TokenFor;
use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
use penstock_proto::v1::gateway_message::Message as Up;
use tonic::Status;

use crate::bounds::until;
use crate::world::{Control, PATIENCE, Session, World, file_key, message, refused};

/// What an admin asks for.
pub fn asked(subject: &str, change: v1::StandingChange) -> v1::ChangeStandingRequest {
    v1::ChangeStandingRequest {
        subject: subject.to_owned(),
        change: change.into(),
        reason: "a test of it".to_owned(),
        ticket: "INC-7".to_owned(),
    }
}

pub async fn decide(
    admin: &mut Control,
    subject: &str,
    change: v1::StandingChange,
) -> Result<v1::SubjectState, Status> {
    let answer = admin.change_standing(asked(subject, change)).await?;
    Ok(answer.into_inner())
}

/// A gateway that enrolled by token.
pub async fn enrolled(world: &World, name: &str) -> Credentials {
    let secret = world
        .token(TokenFor::Gateway(name.to_owned()), v1::Role::Unspecified)
        .await;
    world.enrol(name, &secret).await.unwrap()
}

/// Why a gateway with this certificate gets no session; `None`: it gets one.
///
/// A handshake that is cut says nothing yet: a withdrawal ends all connections of its key, also those that are just being opened.
pub async fn kept_out(world: &World, credentials: Credentials) -> Option<Status> {
    let connect = async || world.channel(world.roots(), Some(credentials.clone())).await.ok();
    let channel = until(connect).await;
    let hello = message(Up::Hello(v1::Hello::default()));
    let messages = tokio_stream::iter([hello]);
    let messages = tokio_stream::StreamExt::chain(messages, tokio_stream::pending());
    match GatewayLinkClient::new(channel).session(messages).await {
        Ok(opened) => opened.into_inner().message().await.err(),
        Err(status) => Some(status),
    }
}

/// Waits until a session ends.
pub async fn ends(session: &mut Session) -> Status {
    loop {
        if let Err(status) = session.next().await {
            return status;
        }
    }
}

#[tokio::test]
async fn a_revoked_gateway_is_cut_off_at_once_hears_why_and_disturbs_no_other() {
    let mut world = World::start().await;
    let stolen = enrolled(&world, "gw-a").await;
    enrolled(&world, "gw-b").await;
    let mut session = world.session("gw-a", v1::PolicyState::default()).await;
    let mut other = world.session("gw-b", v1::PolicyState::default()).await;
    // A connection that asks for nothing is one, too.
    let idle = world.channel(world.roots(), Some(stolen.clone())).await.unwrap();
    let mut idle = GatewayLinkClient::new(idle);
    idle.renew(world.renewal("gateway/gw-a")).await.unwrap();

    let state = decide(&mut world.admin(), "gateway/gw-a", v1::StandingChange::Revoke)
        .await
        .unwrap();
    assert_eq!((state.standing(), state.epoch), (v1::Standing::Revoked, 2));
    assert!(state.key.is_empty());
    ends(&mut session).await;
    other.silence().await;
    let why = kept_out(&world, stolen.clone()).await.unwrap();
    let told = refused(Err::<(), _>(why), Reason::IdentityWithdrawn);
    assert!(told.contains("gateway/gw-a was revoked on "), "{told}");
    assert!(told.contains("it goes on enforcing what it has"), "{told}");
    refused(
        idle.renew(world.renewal("gateway/gw-a")).await,
        Reason::IdentityWithdrawn,
    );
    let known = world.admin().list_gateways(v1::ListGatewaysRequest {}).await;
    let known = known.unwrap().into_inner().gateways;
    let of = |name: &str| known.iter().find(|gateway| gateway.name == name).unwrap();
    assert_eq!(
        of("gw-a").identity.as_ref().unwrap().standing(),
        v1::Standing::Revoked
    );
    let identity = of("gw-b").identity.as_ref().unwrap();
    assert_eq!((identity.standing(), identity.epoch), (v1::Standing::Active, 1));
    assert_eq!(identity.key.len(), 32);
    let trail = world.trail("coordinator/c1").await;
    let written = trail.iter().any(|record| {
        matches!(&record.event.as_ref().unwrap().kind, Some(Kind::Operator(event))
            if event.operator == "admin" && event.action == "revoke" && event.allowed
                && event.target == "gateway/gw-a" && event.message == "a test of it (INC-7)")
    });
    assert!(written, "{trail:?}");

    world.restart().await;
    let why = kept_out(&world, stolen.clone()).await.unwrap();
    refused(Err::<(), _>(why), Reason::IdentityWithdrawn);
    // A new key under the same name; the thief's never again.
    let new = enrolled(&world, "gw-a").await;
    assert!(kept_out(&world, new).await.is_none());
    assert!(kept_out(&world, stolen).await.is_some());
}

#[tokio::test]
async fn another_key_of_the_same_gateway_ends_the_connections_of_the_one_before() {
    let world = World::start().await;
    let first = enrolled(&world, "gw-a").await;
    let mut session = world.session("gw-a", v1::PolicyState::default()).await;
    let second = enrolled(&world, "gw-a").await;
    ends(&mut session).await;
    refused(
        Err::<(), _>(kept_out(&world, first).await.unwrap()),
        Reason::IdentityWithdrawn,
    );
    assert!(kept_out(&world, second).await.is_none());
}

#[tokio::test]
async fn a_thief_with_a_key_that_counts_cannot_renew_it_for_one_of_their_own() {
    let world = World::start().await;
    let own = enrolled(&world, "gw-a").await;
    let mut session = world.session("gw-a", v1::PolicyState::default()).await;
    let channel = world.channel(world.roots(), Some(own.clone())).await.unwrap();
    let mut link = GatewayLinkClient::new(channel);
    let request = v1::RenewRequest {
        certificate_request: certificate_request(&file_key(), None).unwrap().into(),
        ..v1::RenewRequest::default()
    };
    let words = refused(link.renew(request).await, Reason::OtherKey);
    assert!(
        words.contains("a new key needs a new token: `penstock-agent enrol --new-key --token FILE`"),
        "{words}"
    );
    // Nothing came of it: the gateway's session stands, and its key is the one that is renewed.
    session.silence().await;
    let renewed = link.renew(world.renewal("gateway/gw-a")).await.unwrap();
    let leaf = renewed.into_inner().certificate_chain[0].to_vec().into();
    let certified = Certified::from_certificate(&leaf).unwrap();
    assert_eq!(certified.epoch, Epoch(1));
    let said: Vec<_> = world
        .trail("coordinator/c1")
        .await
        .into_iter()
        .filter_map(|record| match record.event.unwrap().kind {
            Some(Kind::Identity(event)) if event.subject == "gateway/gw-a" => Some(event),
            _ => None,
        })
        .collect();
    let key = format!("key {}", certified.key);
    for step in ["enrolled", "renewed"] {
        let event = said.iter().find(|event| event.step == step).unwrap();
        assert_eq!((&*event.address, &event.message), ("127.0.0.1", &key), "{step}");
    }
    assert!(
        said.iter()
            .any(|event| event.step == "refused" && event.message == words)
    );
}

#[tokio::test]
async fn a_suspended_gateway_is_out_until_it_is_resumed_with_the_key_that_it_has() {
    let world = World::start().await;
    let own = enrolled(&world, "gw-a").await;
    let mut session = world.session("gw-a", v1::PolicyState::default()).await;
    let mut admin = world.admin();
    decide(&mut admin, "gateway/gw-a", v1::StandingChange::Suspend)
        .await
        .unwrap();
    ends(&mut session).await;
    let why = kept_out(&world, own.clone()).await.unwrap();
    refused(Err::<(), _>(why), Reason::IdentitySuspended);
    // Not with another key either.
    let secret = world
        .token(TokenFor::Gateway("gw-a".to_owned()), v1::Role::Unspecified)
        .await;
    refused(world.enrol("gw-a", &secret).await, Reason::IdentitySuspended);
    decide(&mut admin, "gateway/gw-a", v1::StandingChange::Resume)
        .await
        .unwrap();
    assert!(kept_out(&world, own).await.is_none());
    let again = decide(&mut admin, "gateway/gw-a", v1::StandingChange::Resume).await;
    refused(again, Reason::WrongStanding);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_that_opens_while_its_gateway_is_revoked_stands_afterwards() {
    let world = World::start().await;
    for number in 0..12_u64 {
        let name = format!("gw-{number}");
        let own = enrolled(&world, &name).await;
        let (roots, address) = (world.roots(), world.address.clone());
        let plant = world.config.plant.clone();
        // Opens one session after the other, and lets none go: what stands at the end of it all does for ever.
        let opening = tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                let profile = penstock_proto::tls::client::ClientProfile {
                    plant: plant.clone(),
                    trust: roots.clone(),
                    credentials: Some(own.clone()),
                };
                let line = vec![address.clone()];
                let line = penstock_proto::channel::connect(line, profile.config().unwrap());
                let Ok(channel) = line.await else { continue };
                let hello = message(Up::Hello(v1::Hello::default()));
                let messages = tokio_stream::iter([hello]);
                let messages = tokio_stream::StreamExt::chain(messages, tokio_stream::pending());
                match GatewayLinkClient::new(channel).session(messages).await {
                    Ok(opened) => open.push(opened.into_inner()),
                    Err(status) if explain(&status).is(Reason::IdentityWithdrawn) => return open,
                    // Cut while it was opening.
                    Err(_) => {}
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(7 * number)).await;
        decide(
            &mut world.admin(),
            &format!("gateway/{name}"),
            v1::StandingChange::Revoke,
        )
        .await
        .unwrap();
        for mut stream in opening.await.unwrap() {
            let over = async { while let Ok(Some(_)) = stream.message().await {} };
            tokio::time::timeout(PATIENCE, over).await.expect("it was cut");
        }
        until(async || {
            let known = world.admin().list_gateways(v1::ListGatewaysRequest {}).await;
            let known = known.unwrap().into_inner().gateways;
            let gateway = known.into_iter().find(|gateway| gateway.name == name).unwrap();
            (!gateway.connected).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_token_that_a_hundred_clients_use_at_once_serves_one_key() {
    let world = std::sync::Arc::new(World::start().await);
    let secret = world
        .token(TokenFor::Gateway("gw-a".to_owned()), v1::Role::Unspecified)
        .await;
    let clients: Vec<_> = (0..100)
        .map(|_| {
            let (world, secret) = (world.clone(), secret.clone());
            tokio::spawn(async move { world.enrol("gw-a", &secret).await })
        })
        .collect();
    let mut won = Vec::new();
    for client in clients {
        match client.await.unwrap() {
            Ok(credentials) => won.push(credentials),
            Err(status) => {
                let explained = explain(&status);
                let expected = [Reason::TokenUsed, Reason::TooManyAttempts, Reason::TooManyActions];
                assert!(
                    expected.into_iter().any(|reason| explained.is(reason)),
                    "{status:?}"
                );
            }
        }
    }
    assert_eq!(won.len(), 1);
    assert!(kept_out(&world, won.remove(0)).await.is_none());
}

#[tokio::test]
async fn an_operator_who_is_revoked_loses_what_they_have_open_and_comes_back_with_a_new_token_only() {
    let world = World::start().await;
    let mut anna = world.operator("anna", v1::Role::Engineer).await;
    let watch = v1::WatchHealthRequest {
        once: false,
        beats: false,
    };
    let mut health = anna.watch_health(watch).await.unwrap().into_inner();
    health.message().await.unwrap().unwrap();
    let unused = world
        .token(TokenFor::Operator("anna".to_owned()), v1::Role::Engineer)
        .await;
    let mut admin = world.admin();
    decide(&mut admin, "operator/anna", v1::StandingChange::Revoke)
        .await
        .unwrap();
    let over = async { while let Ok(Some(_)) = health.message().await {} };
    tokio::time::timeout(PATIENCE, over).await.expect("it was cut");
    refused(
        anna.who_am_i(v1::WhoAmIRequest {}).await,
        Reason::IdentityWithdrawn,
    );
    refused(world.enrol("anna", &unused).await, Reason::TokenUnknown);
    let mut anna = world.operator("anna", v1::Role::Viewer).await;
    let who = anna.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(who.role(), v1::Role::Viewer);
    // Removed, they are no operator any more.
    decide(&mut admin, "operator/anna", v1::StandingChange::Retire)
        .await
        .unwrap();
    refused(
        anna.who_am_i(v1::WhoAmIRequest {}).await,
        Reason::IdentityWithdrawn,
    );
    let listed = admin.list_operators(v1::ListOperatorsRequest {}).await.unwrap();
    let names: Vec<_> = listed
        .into_inner()
        .operators
        .into_iter()
        .map(|one| one.name)
        .collect();
    assert_eq!(names, ["admin"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_decides_about_themselves_and_of_two_admins_who_want_each_other_out_one_stays() {
    let world = World::start().await;
    let mut admin = world.admin();
    for change in [
        v1::StandingChange::Suspend,
        v1::StandingChange::Revoke,
        v1::StandingChange::Retire,
    ] {
        refused(
            decide(&mut admin, "operator/admin", change).await,
            Reason::OwnStanding,
        );
    }
    for _ in 0..5 {
        let world = World::start().await;
        let mut one = world.operator("anna", v1::Role::Admin).await;
        let mut other = world.operator("bob", v1::Role::Admin).await;
        // The first admin leaves, so that these two are the last.
        decide(&mut one, "operator/admin", v1::StandingChange::Suspend)
            .await
            .unwrap();
        let (first, second) = tokio::join!(
            decide(&mut one, "operator/bob", v1::StandingChange::Revoke),
            decide(&mut other, "operator/anna", v1::StandingChange::Revoke),
        );
        assert!(
            first.is_ok() != second.is_ok(),
            "one of both: {first:?}, {second:?}"
        );
        let mut stays = if first.is_ok() { one } else { other };
        decide(&mut stays, "operator/admin", v1::StandingChange::Resume)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn what_makes_no_sense_changes_nothing_and_says_why() {
    let world = World::start().await;
    let mut admin = world.admin();
    enrolled(&world, "gw-a").await;
    use v1::StandingChange as Change;
    for (subject, change, reason) in [
        ("gateway/gw-b", Change::Revoke, Reason::NotFound),
        ("operator/nobody", Change::Suspend, Reason::NotFound),
        ("device/plc", Change::Revoke, Reason::NotFound),
        ("coordinator/c1", Change::Revoke, Reason::BadRequest),
        ("gateway/GW", Change::Revoke, Reason::BadRequest),
        ("gateway/gw-a", Change::RevokeEarlier, Reason::BadRequest),
        ("gateway/gw-a", Change::Unspecified, Reason::BadRequest),
        ("device/plc", Change::Suspend, Reason::BadRequest),
        ("gateway/gw-a", Change::Resume, Reason::WrongStanding),
    ] {
        refused(decide(&mut admin, subject, change).await, reason);
    }
    let silent = v1::ChangeStandingRequest {
        reason: " ".to_owned(),
        ..asked("gateway/gw-a", Change::Revoke)
    };
    refused(admin.change_standing(silent).await, Reason::BadRequest);
    let endless = v1::ChangeStandingRequest {
        ticket: "x".repeat(501),
        ..asked("gateway/gw-a", Change::Revoke)
    };
    refused(admin.change_standing(endless).await, Reason::BadRequest);
    assert!(
        kept_out(&world, world.certificate("gateway/gw-a"))
            .await
            .is_none()
    );
}

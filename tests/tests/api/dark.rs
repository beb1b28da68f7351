//! Certificates that have ended: gateways that were dark for months and come back, and connections that end with the certificate that
//! opened them.

#[path = "../../../agent/tests/link/world.rs"]
pub mod gateway;

use std::path::Path;
use std::time::Duration;

use penstock_agent::identity::IdentityFolder;
use penstock_agent::link::enrol::enrol;
use penstock_agent::link::session::LinkState;
use penstock_coordinator::ca::ProvenKey;
use penstock_proto::keys::certificate_request;
use penstock_proto::peer::{Certified, Epoch, Subject};
use penstock_proto::refusal::Reason;
use penstock_proto::tls::names::ServerNames;
use penstock_proto::tls::{Credentials, certificates_from_pem, certificates_to_pem};
use penstock_proto::token::{Secret, Token};
use penstock_proto::v1;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::enrolment_client::EnrolmentClient;
use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
use tonic::Code;

use self::gateway::{Running, within};
use crate::world::{PATIENCE, World, approvers, file_key, now_ms, refused};

const DAY_MS: u64 = 86_400_000;

/// A gateway that is enrolled, in this state folder.
async fn enrolled(world: &World, state: &Path) {
    enrol(state, &token(world).await).await.unwrap();
}

/// A token for it.
pub async fn token(world: &World) -> Token {
    let secret = world
        .token(
            v1::create_token_request::Subject::Gateway("gw-1".to_owned()),
            v1::Role::Unspecified,
        )
        .await;
    token_with(world, secret.try_into().unwrap())
}

/// The same with this secret.
pub fn token_with(world: &World, secret: [u8; 32]) -> Token {
    Token {
        plant: world.config.plant.clone(),
        subject: "gateway/gw-1".parse().unwrap(),
        coordinators: vec![world.address.clone()],
        secret: Secret(secret),
        root_digest: world.authority.root_digest(),
        approvers: Some(approvers()),
        expires_ms: now_ms() + DAY_MS,
    }
}

/// The certificates of the gateway in this folder are those that it was given at these times, the last of them last.
fn certified_at(world: &World, state: &Path, times_ms: &[u64]) {
    let folder = IdentityFolder::new(state);
    let key = folder.key().unwrap();
    let request = certificate_request(&key, None).unwrap();
    let proven = ProvenKey::of_request(&request).unwrap();
    let subject: Subject = "gateway/gw-1".parse().unwrap();
    let identity = state.join("identity");
    let enrolled = certificates_from_pem(&chain(state), "the certificate").unwrap();
    let Certified { epoch, .. } = Certified::from_certificate(&enrolled[0]).unwrap();
    let _ = std::fs::create_dir(identity.join("kept"));
    for (number, at_ms) in times_ms.iter().enumerate() {
        let names = ServerNames::default();
        let issued = world
            .authority
            .issue((&subject, epoch), &names, &proven, *at_ms)
            .unwrap();
        let pem = certificates_to_pem(&issued.chain);
        std::fs::write(identity.join(format!("kept/{number}.pem")), &pem).unwrap();
        std::fs::write(identity.join("chain.pem"), &pem).unwrap();
    }
}

fn chain(state: &Path) -> Vec<u8> {
    std::fs::read(state.join("identity/chain.pem")).unwrap()
}

/// What the coordinator's trail says of its certificates: step and message.
async fn identities(world: &World) -> Vec<(String, String)> {
    let trail = world.trail("coordinator/c1").await;
    let identity = trail.into_iter().filter_map(|record| match record.event?.kind? {
        Kind::Identity(event) if event.subject == "gateway/gw-1" => Some((event.step, event.message)),
        _ => None,
    });
    identity.collect()
}

#[tokio::test]
async fn a_gateway_that_was_dark_for_longer_than_its_certificate_comes_back_by_itself() {
    let world = World::start().await;
    for dark_days in [1, 90, 399] {
        let state = tempfile::tempdir().unwrap();
        enrolled(&world, state.path()).await;
        // Renewed twice while it could be, as gateways are.
        let ended_ms = now_ms() - dark_days * DAY_MS;
        let issued = [250, 170, 90].map(|days| ended_ms - days * DAY_MS);
        certified_at(&world, state.path(), &issued);
        let before = chain(state.path());
        let agent = Running::start(state.path()).await;
        let mut link = agent.views.link.clone();
        within(link.wait_for(|link| link.coordinator.is_some()))
            .await
            .unwrap();
        assert_ne!(chain(state.path()), before, "{dark_days}");
        agent.stop().await;
        let all = identities(&world).await;
        let (step, message) = all.last().unwrap();
        assert!(
            step == "renewed" && message.contains("the one before ended at 20"),
            "{all:?}"
        );
        let refusals = all.iter().filter(|(step, _)| step == "refused").count();
        assert_eq!(refusals, 0, "{all:?}");
    }
}

#[tokio::test]
async fn a_gateway_that_was_dark_for_too_long_is_refused_with_what_to_do_and_enforces_on() {
    let world = World::start().await;
    let state = tempfile::tempdir().unwrap();
    enrolled(&world, state.path()).await;
    certified_at(&world, state.path(), &[now_ms() - (90 + 401) * DAY_MS]);
    let before = chain(state.path());
    let agent = Running::start(state.path()).await;
    let mut link = agent.views.link.clone();
    let said = |link: &LinkState| {
        let problem = link.problem.as_deref().unwrap_or_default();
        problem.contains("has expired (valid until 20")
            && problem.contains("401 days after that")
            && problem.contains("enrol again")
    };
    within(link.wait_for(said)).await.unwrap();
    agent.stop().await;
    assert_eq!(chain(state.path()), before);
    // Enrolled again, with the same key, it is back.
    enrolled(&world, state.path()).await;
    let agent = Running::start(state.path()).await;
    let mut link = agent.views.link.clone();
    within(link.wait_for(|link| link.coordinator.is_some()))
        .await
        .unwrap();
    agent.stop().await;
}

#[tokio::test]
async fn a_coordinator_whose_clock_was_ahead_finds_the_gateway_again_whatever_certificates_came_of_it() {
    // As the gateway has it, by its own clock: one that is good, and one whose time has not come.
    let world = World::start().await;
    let state = tempfile::tempdir().unwrap();
    enrolled(&world, state.path()).await;
    // To this coordinator the first has ended yesterday, and the second is good. By the gateway's clock, 20 days behind, it is the other way round.
    let issued = [now_ms() - 91 * DAY_MS, now_ms() - 10 * DAY_MS];
    certified_at(&world, state.path(), &issued);
    let identity = IdentityFolder::new(state.path());
    let enrolment = IdentityFolder::peek_enrolment(state.path()).unwrap();
    let loaded = identity.load_at(enrolment, now_ms() - 20 * DAY_MS).unwrap();
    assert_eq!(loaded.validity_ms().unwrap().1 / 1000, (now_ms() - DAY_MS) / 1000);
    let shown = penstock_agent::link::connect::Shown::default();
    let addresses = || vec![world.address.clone()];
    let first = penstock_agent::link::connect::connect(addresses(), &loaded, shown)
        .await
        .unwrap();
    let refusal = GatewayLinkClient::new(first.channel)
        .session(tokio_stream::pending())
        .await;
    refused(refusal, Reason::CertificateEnded);
    let later = shown.later_of(&loaded).unwrap();
    let second = penstock_agent::link::connect::connect(addresses(), &loaded, later)
        .await
        .unwrap();
    world
        .session_over(second.channel, v1::PolicyState::default())
        .await;
    assert_eq!(later.later_of(&loaded), None);
}

#[tokio::test]
async fn a_session_that_ends_with_its_certificate_is_followed_by_the_next_at_once_and_the_trail_has_no_gap() {
    let world = World::start().await;
    let state = tempfile::tempdir().unwrap();
    enrolled(&world, state.path()).await;
    certified_at(&world, state.path(), &[now_ms() + 5_000 - 90 * DAY_MS]);
    let agent = Running::start(state.path()).await;
    let mut link = agent.views.link.clone();
    let opened = |link: &LinkState| link.coordinator.as_ref().and(link.opened);
    let first = opened(
        &within(link.wait_for(|link| opened(link).is_some()))
            .await
            .unwrap()
            .clone(),
    );
    within(link.wait_for(|link| opened(link).is_some_and(|then| Some(then) > first)))
        .await
        .unwrap();
    let steps = async {
        loop {
            let trail = world.trail("gw-1").await;
            let steps: Vec<_> = trail
                .into_iter()
                .filter_map(|record| match record.event?.kind? {
                    // Heads of the coordinator's trails come when they come.
                    Kind::Agent(event) if event.step != "trails-seen" => Some((event.step, event.message)),
                    _ => None,
                })
                .collect();
            if steps.iter().filter(|(step, _)| step == "connected").count() == 2 {
                break steps;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let steps = tokio::time::timeout(PATIENCE, steps).await.unwrap();
    let order: Vec<_> = steps.iter().map(|(step, _)| step.as_str()).collect();
    assert_eq!(
        order,
        [
            "trail-begun",
            "started",
            "connected",
            "disconnected",
            "renewed",
            "connected"
        ],
        "{steps:?}"
    );
    assert!(
        steps[3]
            .1
            .contains("the certificate that the session was opened with has ended")
    );
    // What is enforced was not touched, and nothing was lost on the way.
    assert!(agent.kernel.applied.lock().unwrap().is_empty());
    let own = world.trail("coordinator/c1").await;
    let faults = own.iter().filter(|record| {
        matches!(
            record.event.as_ref().and_then(|event| event.kind.as_ref()),
            Some(Kind::Trail(event)) if event.step != "sealed"
        )
    });
    assert_eq!(faults.count(), 0);
    agent.stop().await;
}

/// Somebody's certificate that ended so long ago, or ends in so long.
fn ending(world: &World, subject: &str, lifetime_days: u64, end_ms: u64) -> Credentials {
    world.certificate_at(subject, end_ms - lifetime_days * DAY_MS)
}

#[tokio::test]
async fn a_certificate_that_has_ended_is_good_for_its_own_renewal_and_nothing_else() {
    let world = World::start().await;
    let key = file_key();
    let ended = world
        .authority
        .issue_own(
            (&"gateway/gw-1".parse().unwrap(), Epoch::default()),
            &ServerNames::default(),
            key.clone(),
            now_ms() - 100 * DAY_MS,
        )
        .unwrap();
    let channel = world.channel(world.roots(), Some(ended)).await.unwrap();
    let session = GatewayLinkClient::new(channel.clone())
        .session(tokio_stream::pending())
        .await;
    let words = refused(session, Reason::CertificateEnded);
    assert!(
        words.starts_with("the certificate of gateway/gw-1 ended at 20"),
        "{words}"
    );
    let mut control = world.control(None).await.unwrap();
    refused(
        control.who_am_i(v1::WhoAmIRequest {}).await,
        Reason::NoCertificate,
    );
    let mut control = penstock_proto::v1::control_client::ControlClient::new(channel.clone());
    refused(
        control.who_am_i(v1::WhoAmIRequest {}).await,
        Reason::CertificateEnded,
    );
    let renewal = |request: Vec<u8>| v1::RenewRequest {
        certificate_request: request.into(),
        ..v1::RenewRequest::default()
    };
    let other = certificate_request(&file_key(), None).unwrap();
    let words = refused(
        GatewayLinkClient::new(channel.clone())
            .renew(renewal(other))
            .await,
        Reason::OtherKey,
    );
    assert!(words.contains("a new key needs a new token"), "{words}");
    let own = certificate_request(&key, None).unwrap();
    let renewed = GatewayLinkClient::new(channel)
        .renew(renewal(own))
        .await
        .unwrap()
        .into_inner();
    let chain = renewed.certificate_chain.iter().map(|der| der.to_vec().into());
    let credentials = Credentials::new(chain.collect(), key).unwrap();
    let channel = world.channel(world.roots(), Some(credentials)).await.unwrap();
    world.session_over(channel, v1::PolicyState::default()).await;
    // To enrol it takes a token, as for anybody.
    let stranger = world.channel(world.roots(), None).await.unwrap();
    let outcome = EnrolmentClient::new(stranger)
        .enrol(v1::EnrolRequest::default())
        .await;
    assert_ne!(outcome.unwrap_err().code(), Code::Ok);
}

#[tokio::test]
async fn nobody_but_a_gateway_is_let_in_with_a_certificate_that_has_ended_and_no_gateway_before_its_time() {
    let world = World::start().await;
    let yesterday = now_ms() - DAY_MS;
    for (subject, lifetime_days) in [
        ("operator/admin", 30),
        ("coordinator/c2", 60),
        ("device/plc", 365),
    ] {
        let ended = ending(&world, subject, lifetime_days, yesterday);
        let told = world.channel(world.roots(), Some(ended)).await.unwrap_err();
        assert!(
            told.contains("it has expired (valid until 20"),
            "{subject}: {told}"
        );
    }
    let ended = ending(&world, "gateway/gw-1", 90, yesterday);
    world.channel(world.roots(), Some(ended)).await.unwrap();
    // One that the authority gives from tomorrow on.
    let key = file_key();
    let request = certificate_request(&key, None).unwrap();
    let early = world
        .authority
        .issue(
            (&"gateway/gw-1".parse().unwrap(), Epoch::default()),
            &ServerNames::default(),
            &ProvenKey::of_request(&request).unwrap(),
            now_ms() + 2 * DAY_MS,
        )
        .unwrap();
    let early = Credentials::new(early.chain, key).unwrap();
    let told = world.channel(world.roots(), Some(early)).await.unwrap_err();
    assert!(told.contains("it is not valid yet (from 20"), "{told}");
    // Where the plant wants no grace, none is given.
    let strict = World::start_with(|config| config.grace = Duration::ZERO).await;
    let ended = ending(&strict, "gateway/gw-1", 90, yesterday);
    let told = strict.channel(strict.roots(), Some(ended)).await.unwrap_err();
    assert!(told.contains("it has expired (valid until 20"), "{told}");
}

#[tokio::test]
async fn a_session_ends_with_its_certificate_in_order_and_says_why() {
    let world = World::start().await;
    let short = ending(&world, "gateway/gw-1", 90, now_ms() + 5_000);
    let channel = world.channel(world.roots(), Some(short)).await.unwrap();
    let mut session = world
        .session_over(channel.clone(), v1::PolicyState::default())
        .await;
    let ended = loop {
        if let Err(status) = session.next().await {
            break status;
        }
    };
    refused(Err::<(), _>(ended), Reason::CertificateEnded);
    // The connection is good for a renewal a little longer.
    let again = GatewayLinkClient::new(channel)
        .session(tokio_stream::pending())
        .await;
    refused(again, Reason::CertificateEnded);
}

#[tokio::test]
async fn what_an_operator_watches_ends_with_their_certificate_and_their_connection_after_it() {
    let world = World::start().await;
    let short = ending(&world, "operator/admin", 30, now_ms() + 5_000);
    let mut control = world.control(Some(short)).await.unwrap();
    let mut health = control
        .watch_health(v1::WatchHealthRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mut tail = control
        .tail_audit(v1::TailAuditRequest::default())
        .await
        .unwrap()
        .into_inner();
    let end = async {
        loop {
            if let Err(status) = health.message().await {
                break status;
            }
        }
    };
    let ended = tokio::time::timeout(PATIENCE, end).await.unwrap();
    let words = refused(Err::<(), _>(ended), Reason::CertificateEnded);
    assert!(words.contains("penstock login"), "{words}");
    let end = async {
        loop {
            if let Err(status) = tail.message().await {
                break status;
            }
        }
    };
    let ended = tokio::time::timeout(PATIENCE, end).await.unwrap();
    refused(Err::<(), _>(ended), Reason::CertificateEnded);
    // Asked over the same connection, it is refused; when that is cut, the handshake refuses.
    let cut = async {
        loop {
            let answer = control.who_am_i(v1::WhoAmIRequest {}).await;
            let refusal = penstock_proto::refusal::explain(&answer.unwrap_err());
            if !refusal.is(Reason::CertificateEnded) {
                break refusal.message;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, cut).await.unwrap();
}

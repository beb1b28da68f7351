//! A person's login over time: its certificate is renewed for its own key, by itself, and never after its end.

use std::time::Duration;

use penstock_proto::keys::certificate_request;
use penstock_proto::peer::Certified;
use penstock_proto::refusal::Reason;
use penstock_proto::tls::{certificates_from_pem, certificates_to_pem, validity_ms};
use penstock_proto::v1;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::gateway_link_client::GatewayLinkClient;

use crate::identities::decide;
use crate::person::Person;
use crate::world::{PATIENCE, World, file_key, now_ms, refused};

const DAY_MS: u64 = 86_400_000;

#[tokio::test]
async fn a_login_is_renewed_for_its_own_key_and_not_while_it_is_suspended() {
    let world = World::start().await;
    world.operator("anna", v1::Role::Engineer).await;
    // With a certificate that has less than a day left.
    let old = world.certificate_at("operator/anna", now_ms() - 29 * DAY_MS - DAY_MS / 2);
    let mut anna = world.control(Some(old.clone())).await.unwrap();
    let answer = anna.renew_operator(world.renewal("operator/anna")).await;
    let leaf = answer.unwrap().into_inner().certificate_chain[0].to_vec().into();
    let (before, after) = (
        Certified::from_certificate(&old.chain()[0]).unwrap(),
        Certified::from_certificate(&leaf).unwrap(),
    );
    assert_eq!(
        (&before.identity, before.epoch, before.key),
        (&after.identity, after.epoch, after.key),
        "the same life goes on"
    );
    assert!(after.valid_ms.1 > now_ms() + 29 * DAY_MS);
    let trail = world.trail("coordinator/c1").await;
    let written = trail.iter().any(|record| {
        matches!(&record.event.as_ref().unwrap().kind, Some(Kind::Identity(event))
            if event.step == "renewed" && event.subject == "operator/anna" && event.address == "127.0.0.1")
    });
    assert!(written, "{trail:?}");

    let other = v1::RenewRequest {
        certificate_request: certificate_request(&file_key(), None).unwrap().into(),
        ..v1::RenewRequest::default()
    };
    refused(anna.renew_operator(other).await, Reason::OtherKey);
    let channel = world.channel(world.roots(), Some(old.clone())).await.unwrap();
    let by_the_gateways_way = GatewayLinkClient::new(channel)
        .renew(world.renewal("operator/anna"))
        .await;
    refused(by_the_gateways_way, Reason::WrongKindOfPeer);

    let mut admin = world.admin();
    decide(&mut admin, "operator/anna", v1::StandingChange::Suspend)
        .await
        .unwrap();
    let mut anna = world.control(Some(old)).await.unwrap();
    let suspended = anna.renew_operator(world.renewal("operator/anna")).await;
    refused(suspended, Reason::IdentitySuspended);
    decide(&mut admin, "operator/anna", v1::StandingChange::Resume)
        .await
        .unwrap();
    anna.renew_operator(world.renewal("operator/anna")).await.unwrap();
}

#[tokio::test]
async fn a_login_that_is_renewed_for_ever_costs_a_bounded_number_of_certificates() {
    let world = World::start().await;
    let mut anna = world.operator("anna", v1::Role::Viewer).await;
    let mut renewed = 0;
    let why = loop {
        match anna.renew_operator(world.renewal("operator/anna")).await {
            Ok(_) => renewed += 1,
            Err(status) => break status,
        }
        assert!(renewed < 100);
    };
    refused(Err::<(), _>(why), Reason::TooManyAttempts);
    anna.who_am_i(v1::WhoAmIRequest {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_in_the_last_third_of_a_logins_life_renews_it_and_one_after_its_end_says_what_to_do() {
    let world = World::start().await;
    let ito = Person::new(&world, "k.ito", "k.ito", v1::Role::Engineer).await;
    let folder = ito.home.join("penstock/contexts");
    let (crt, before) = (
        folder.join("riverside.k.ito.crt"),
        folder.join("riverside.k.ito.before.crt"),
    );
    let ends = || {
        let chain = certificates_from_pem(&std::fs::read(&crt).unwrap(), "crt").unwrap();
        validity_ms(&chain[0]).unwrap().1
    };
    let aged = |days: u64| {
        let old = world.certificate_at("operator/k.ito", now_ms() - days * DAY_MS);
        std::fs::write(&crt, certificates_to_pem(old.chain())).unwrap();
        ends()
    };
    // A certificate holds for 30 days: not before two thirds of them.
    let young = aged(18);
    ito.done(&["whoami"]).await;
    assert_eq!(ends(), young);
    let old = aged(22);
    let output = ito.run(&["whoami"]).await;
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "without a word: {output:?}"
    );
    assert!(ends() > old + 20 * DAY_MS);
    let kept = certificates_from_pem(&std::fs::read(&before).unwrap(), "crt").unwrap();
    assert_eq!(
        validity_ms(&kept[0]).unwrap().1,
        old,
        "the one before stays beside it"
    );
    aged(22);
    let said = ito.says(&["whoami", "--verbose"]).await;
    assert!(
        said.contains("the certificate of the login `riverside.k.ito` was renewed"),
        "{said}"
    );
    // When somebody asks for it.
    let young = aged(1);
    ito.done(&["login", "--renew"]).await;
    assert!(ends() > young);

    aged(31);
    std::fs::copy(&crt, &before).unwrap();
    assert_eq!(ito.fails(&["whoami"]).await, "login-ended");
    assert_eq!(ito.fails(&["login", "--renew"]).await, "login-ended");
}

#[tokio::test]
async fn health_notes_that_the_last_admins_certificate_ends_soon_until_another_holds_longer() {
    let soon = |config: &mut penstock_coordinator::config::Config| {
        config.lifetimes.operator = Duration::from_secs(10 * 86_400);
    };
    let mut world = World::start_with(soon).await;
    let noted = async |world: &World, wanted: bool| {
        let watch = v1::WatchHealthRequest {
            once: false,
            beats: false,
        };
        let mut health = world.admin().watch_health(watch).await.unwrap().into_inner();
        let seen = async {
            loop {
                let now = health.message().await.unwrap().unwrap();
                let has = now
                    .notes
                    .iter()
                    .any(|note| note.contains("the certificate of the last admin, admin, ends at"));
                if has == wanted {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.expect("it is said");
    };
    noted(&world, true).await;
    world.config.lifetimes.operator = Duration::from_secs(30 * 86_400);
    world.restart().await;
    noted(&world, true).await;
    world
        .admin()
        .renew_operator(world.renewal("operator/admin"))
        .await
        .unwrap();
    noted(&world, false).await;
}

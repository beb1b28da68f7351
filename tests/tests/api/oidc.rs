//! Operators sign in through an identity provider that others wrote (`oidc-provider` of npm), by the real `penstock`: whole sign-ins, whose account is whose,
//! and what a provider that is down, replaced or hostile can do. The tokens that a provider would never make: `coordinator/src/oidc/token/tests.rs`.

mod provider;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use penstock_coordinator::config::Config;
use penstock_coordinator::oidc::OidcFile;
use penstock_policy::ids::Digest;
use penstock_proto::keys::{Key, certificate_request};
use penstock_proto::refusal::Reason;
use penstock_proto::tls::{certificates_from_pem, validity_ms};
use penstock_proto::v1;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::enrolment_client::EnrolmentClient;
use rcgen::PublicKeyData as _;
use serde_json::Value;
use tonic::transport::Channel;

use self::provider::{Browser, Outcome, Provider};
use crate::identities::decide;
use crate::person::Person;
use crate::world::{World, file_key, now_ms, refused};

const HOUR_MS: u64 = 3_600_000;

/// A coordinator whose people sign in through this provider.
async fn world(provider: &Provider, change: impl FnOnce(&mut OidcFile)) -> World {
    let mut file = OidcFile {
        issuer: provider.issuer.clone(),
        client_id: "penstock".to_owned(),
        roots: provider.certificate.display().to_string(),
        ..OidcFile::default()
    };
    change(&mut file);
    World::start_with(|config: &mut Config| config.oidc = file.check().unwrap()).await
}

/// Somebody on a machine that knows nothing of the plant yet.
fn newcomer(world: &World, name: &str) -> Person {
    let home = world.dir.path().join(format!("home-{name}"));
    std::fs::create_dir_all(&home).unwrap();
    Person { home }
}

fn first_time(world: &World) -> Vec<String> {
    let address = world.address.to_string();
    let root = world.authority.root_digest().to_string();
    [
        "login",
        "--oidc",
        "--no-browser",
        "--plant",
        "riverside",
        "--coordinator",
        &address,
        "--root",
        &root,
    ]
    .map(str::to_owned)
    .to_vec()
}

fn again() -> Vec<String> {
    ["login", "--oidc", "--no-browser"].map(str::to_owned).to_vec()
}

/// An ID token as this provider gives it to whoever logs in, bound to this key.
async fn token_for(provider: &Provider, person: &str, key: &Key) -> String {
    let nonce = URL_SAFE_NO_PAD.encode(Digest::of(&key.subject_public_key_info()).0);
    Browser::new(provider)
        .token(person, true, "penstock", &nonce)
        .await
}

async fn enrolment(world: &World) -> EnrolmentClient<Channel> {
    EnrolmentClient::new(world.channel(world.roots(), None).await.unwrap())
}

async fn sign_in(world: &World, id_token: String, key: &Key) -> Result<v1::SignInResponse, tonic::Status> {
    let request = v1::SignInRequest {
        id_token,
        certificate_request: certificate_request(key, None).unwrap().into(),
        operator: String::new(),
    };
    Ok(enrolment(world).await.sign_in(request).await?.into_inner())
}

async fn link(
    world: &World,
    id: &str,
    operator: &str,
    role: v1::Role,
) -> Result<v1::LinkAccountResponse, tonic::Status> {
    let request = v1::LinkAccountRequest {
        id: id.to_owned(),
        operator: operator.to_owned(),
        role: role.into(),
    };
    Ok(world.admin().link_account(request).await?.into_inner())
}

/// Somebody signs in once and is linked.
async fn linked(world: &World, provider: &Provider, person: &str, role: v1::Role) -> String {
    let key = file_key();
    let waits = sign_in(world, token_for(provider, person, &key).await, &key)
        .await
        .unwrap();
    assert!(waits.certificate_chain.is_empty() && !waits.account.is_empty());
    link(world, &waits.account, person, role).await.unwrap();
    waits.account
}

fn reason<T>(outcome: Result<T, tonic::Status>) -> String {
    let status = outcome.err().expect("it is refused");
    penstock_proto::refusal::explain(&status)
        .reason
        .unwrap_or_default()
}

fn identity_events(trail: &[v1::AuditRecord], step: &str) -> Vec<v1::IdentityEvent> {
    let events = trail
        .iter()
        .filter_map(|record| match &record.event.as_ref()?.kind {
            Some(Kind::Identity(event)) if event.step == step => Some(event.clone()),
            _ => None,
        });
    events.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_signs_in_is_linked_by_two_people_and_gets_a_certificate_for_half_a_day() {
    let provider = Provider::start("ES256").await;
    let world = world(&provider, |_| ()).await;
    let (ada, bob) = (
        Person::new(&world, "ada", "ada", v1::Role::Admin).await,
        Person::new(&world, "bob", "bob", v1::Role::Approver).await,
    );
    let silva = newcomer(&world, "silva");
    let browser = Browser::new(&provider);
    let waits = browser.signs_in(&silva, &first_time(&world), "silva").await;
    assert_eq!(waits.code, 1, "{waits:?}");
    let account = waits.json["account"].as_str().unwrap().to_owned();

    // What the provider says of the name is shown, and nothing in it moves a terminal.
    let shown = ada.done(&["operators", "accounts"]).await;
    let waiting = &shown["accounts"][0];
    assert_eq!(
        (waiting["id"].as_str(), waiting["subject"].as_str()),
        (Some(&*account), Some("silva"))
    );
    assert_eq!(waiting["shown"], "silva \u{fffd} of the works");
    assert!(waiting.get("operator").is_none());

    // As an approver it takes two.
    let asked = ["operators", "link", &account, "a.silva", "--role", "approver"];
    let output = ada.run(&asked).await;
    let request: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &request["account"]["subject"]),
        (Some(1), &Value::from("silva"))
    );
    let id = request["id"].as_str().unwrap();
    assert_eq!(
        ada.fails(&["requests", "confirm", id, "--yes"]).await,
        "SAME_PERSON"
    );
    assert!(
        bob.reads(&["requests", "show", id])
            .await
            .contains("`silva` of https://127.0.0.1")
    );
    bob.done(&["requests", "confirm", id, "--yes"]).await;
    ada.done(&asked).await;

    let done = browser.signs_in(&silva, &first_time(&world), "silva").await;
    assert_eq!(
        (done.code, &done.json["operator"]),
        (0, &Value::from("a.silva")),
        "{done:?}"
    );
    let hours = done.json["expires_ms"].as_u64().unwrap().saturating_sub(now_ms()) / HOUR_MS;
    assert!((11..=12).contains(&hours), "{hours} h");
    let who = silva.done(&["whoami"]).await;
    assert_eq!(
        (&who["operator"], &who["role"]),
        (&Value::from("a.silva"), &Value::from("approver"))
    );

    // It is renewed without the provider, and no longer than that.
    provider.stop();
    silva.done(&["login", "--renew"]).await;
    let crt = silva.home.join("penstock/contexts/riverside.a.silva.crt");
    let chain = certificates_from_pem(&std::fs::read(crt).unwrap(), "crt").unwrap();
    assert!(validity_ms(&chain[0]).unwrap().1 < now_ms() + 13 * HOUR_MS);

    let trail = world.trail("coordinator/c1").await;
    let (first, issued) = (
        identity_events(&trail, "unlinked"),
        identity_events(&trail, "authenticated"),
    );
    assert_eq!((first.len(), issued.len()), (1, 1));
    assert_eq!(issued[0].subject, "operator/a.silva");
    for words in [
        "`silva` of https://127.0.0.1",
        "pwd otp mfa (amr)",
        "authenticated at",
        "key sha256:",
    ] {
        assert!(issued[0].message.contains(words), "{}", issued[0].message);
    }
}

#[tokio::test]
async fn a_stolen_token_is_worth_nothing_for_another_key_and_one_of_another_client_nothing_at_all() {
    let provider = Provider::start("ES256").await;
    let world = world(&provider, |_| ()).await;
    linked(&world, &provider, "silva", v1::Role::Engineer).await;
    let (own, thief) = (file_key(), file_key());
    let stolen = token_for(&provider, "silva", &own).await;
    let why = refused(
        sign_in(&world, stolen.clone(), &thief).await,
        Reason::SignInRefused,
    );
    assert!(why.contains("another key"), "{why}");
    // Where it belongs it counts, and again: an answer that was lost is asked for a second time.
    for _ in 0..2 {
        let answer = sign_in(&world, stolen.clone(), &own).await.unwrap();
        assert_eq!(answer.operator, "silva");
    }
    let nonce = URL_SAFE_NO_PAD.encode(Digest::of(&thief.subject_public_key_info()).0);
    let other = Browser::new(&provider)
        .token("silva", true, "other", &nonce)
        .await;
    let why = refused(sign_in(&world, other, &thief).await, Reason::SignInRefused);
    assert!(why.contains("another client"), "{why}");

    let trail = world.trail("coordinator/c1").await;
    let refusals = identity_events(&trail, "refused");
    assert!(
        refusals.iter().any(|event| event.message.contains("another key")),
        "{refusals:?}"
    );
    // Whoever tries on and on is asked to wait; what is right passes all the same.
    let mut tried = 0;
    while reason(sign_in(&world, "x.y.z".to_owned(), &thief).await) == "SIGN_IN_REFUSED" {
        tried += 1;
        assert!(tried < 20);
    }
    refused(
        sign_in(&world, "x.y.z".to_owned(), &thief).await,
        Reason::TooManyAttempts,
    );
    sign_in(&world, stolen, &own).await.unwrap();
}

#[tokio::test]
async fn a_provider_that_changes_its_key_or_its_algorithm_is_believed_and_its_old_key_is_not() {
    let provider = Provider::start("ES256").await;
    let world = world(&provider, |_| ()).await;
    linked(&world, &provider, "silva", v1::Role::Engineer).await;
    let key = file_key();
    let before = token_for(&provider, "silva", &key).await;
    sign_in(&world, before.clone(), &key).await.unwrap();
    for algorithm in ["RS256", "PS256", "EdDSA"] {
        provider.restart(algorithm).await;
        // Its keys are asked for at most once a second.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let token = token_for(&provider, "silva", &key).await;
        sign_in(&world, token, &key)
            .await
            .unwrap_or_else(|why| panic!("{algorithm}: {why}"));
    }
    let why = refused(sign_in(&world, before, &key).await, Reason::SignInRefused);
    assert!(why.contains("no key of the provider is called `ES256`"), "{why}");
}

#[tokio::test]
async fn whoever_is_suspended_revoked_removed_or_unlinked_gets_nothing_until_an_admin_says_so() {
    let provider = Provider::start("ES256").await;
    let world = world(&provider, |file| file.renewal_hours = 24).await;
    let account = linked(&world, &provider, "silva", v1::Role::Engineer).await;
    let mut admin = world.admin();
    let key = file_key();
    let token = token_for(&provider, "silva", &key).await;
    let again = || sign_in(&world, token.clone(), &key);
    let first = again().await.unwrap();
    let chain = first
        .certificate_chain
        .iter()
        .map(|der| der.to_vec().into())
        .collect();
    let shown = penstock_proto::tls::Credentials::new(chain, key.clone()).unwrap();

    decide(&mut admin, "operator/silva", v1::StandingChange::Suspend)
        .await
        .unwrap();
    refused(again().await, Reason::IdentitySuspended);
    decide(&mut admin, "operator/silva", v1::StandingChange::Resume)
        .await
        .unwrap();
    again().await.unwrap();

    // An account that is linked no longer ends the renewal of what came by it.
    let unlink = v1::UnlinkAccountRequest {
        id: account.clone(),
        reason: "another person".to_owned(),
    };
    admin.unlink_account(unlink).await.unwrap();
    let mut silva = world.control(Some(shown)).await.unwrap();
    let renewal = v1::RenewRequest {
        certificate_request: certificate_request(&key, None).unwrap().into(),
        ..v1::RenewRequest::default()
    };
    refused(silva.renew_operator(renewal.clone()).await, Reason::SignInNeeded);
    assert!(
        again().await.unwrap().certificate_chain.is_empty(),
        "it waits again"
    );
    link(&world, &account, "silva", v1::Role::Engineer).await.unwrap();
    again().await.unwrap();
    silva.renew_operator(renewal).await.unwrap();

    for change in [v1::StandingChange::Revoke, v1::StandingChange::Retire] {
        decide(&mut admin, "operator/silva", change).await.unwrap();
        refused(again().await, Reason::IdentityWithdrawn);
    }
    // A new link says that they are back; the key that was withdrawn stays so.
    link(&world, &account, "silva", v1::Role::Viewer).await.unwrap();
    refused(again().await, Reason::KeyWithdrawn);
    let key = file_key();
    let token = token_for(&provider, "silva", &key).await;
    sign_in(&world, token, &key).await.unwrap();
}

#[tokio::test]
async fn the_provider_takes_no_login_by_token_away_no_role_over_and_no_name_twice() {
    let provider = Provider::start("ES256").await;
    let world = world(&provider, |_| ()).await;
    world.operator("silva", v1::Role::Engineer).await;
    let key = file_key();
    let waits = sign_in(&world, token_for(&provider, "silva", &key).await, &key)
        .await
        .unwrap();
    let why = refused(
        link(&world, &waits.account, "silva", v1::Role::Viewer).await,
        Reason::AlreadyExists,
    );
    assert!(why.contains("--role engineer"), "{why}");
    link(&world, &waits.account, "silva", v1::Role::Engineer)
        .await
        .unwrap();
    // Another account is not the same person.
    let other = sign_in(&world, token_for(&provider, "other", &key).await, &key)
        .await
        .unwrap();
    refused(
        link(&world, &other.account, "silva", v1::Role::Engineer).await,
        Reason::AlreadyExists,
    );
    refused(
        link(&world, &waits.account, "ito", v1::Role::Engineer).await,
        Reason::AlreadyExists,
    );

    // Whoever holds the provider holds no key that came by a token.
    let token = token_for(&provider, "silva", &key).await;
    let why = refused(sign_in(&world, token.clone(), &key).await, Reason::LoginByToken);
    assert!(why.contains("came by a token"), "{why}");
    let mut silva = world
        .control(Some(world.certificate("operator/silva")))
        .await
        .unwrap();
    silva.who_am_i(v1::WhoAmIRequest {}).await.unwrap();
    // With that very key a sign-in is one, and the key still counts as one that came by a token.
    let own = world.key("operator/silva");
    let answer = sign_in(&world, token_for(&provider, "silva", &own).await, &own)
        .await
        .unwrap();
    assert_eq!(answer.operator, "silva");
    let leaf = answer.certificate_chain[0].to_vec().into();
    assert!(
        validity_ms(&leaf).unwrap().1 > now_ms() + 13 * HOUR_MS,
        "as long as the token's"
    );
    silva
        .renew_operator(world.renewal("operator/silva"))
        .await
        .unwrap();
    refused(sign_in(&world, token, &key).await, Reason::LoginByToken);

    // One key has one name.
    link(&world, &other.account, "other", v1::Role::Viewer)
        .await
        .unwrap();
    let token = token_for(&provider, "other", &own).await;
    refused(sign_in(&world, token, &own).await, Reason::KeyTaken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_factor_is_asked_for_and_a_sign_in_that_is_given_up_says_so() {
    let provider = Provider::start("ES256").await;
    let world = world(&provider, |file| {
        file.required_amr = vec!["mfa".to_owned(), "hwk".to_owned()]
    })
    .await;
    linked(&world, &provider, "silva", v1::Role::Engineer).await;
    let silva = newcomer(&world, "silva");
    let mut browser = Browser::new(&provider);
    browser.factor = false;
    let without = browser.signs_in(&silva, &first_time(&world), "silva").await;
    assert_eq!(without.failure(), "SIGN_IN_REFUSED");
    let nobody = Browser::new(&provider)
        .signs_in(&silva, &first_time(&world), "")
        .await;
    assert_eq!(nobody.failure(), "provider-refused", "{nobody:?}");
    let with = Browser::new(&provider)
        .signs_in(&silva, &first_time(&world), "silva")
        .await;
    assert_eq!(with.code, 0, "{with:?}");
    // The login's own key signs in again; somebody else's account does not become it.
    let with = Browser::new(&provider).signs_in(&silva, &again(), "silva").await;
    assert_eq!(with.code, 0, "{with:?}");
    linked(&world, &provider, "ito", v1::Role::Engineer).await;
    let other = Browser::new(&provider).signs_in(&silva, &again(), "ito").await;
    assert_eq!(other.failure(), "SIGN_IN_REFUSED", "{other:?}");
}

/// What comes of a sign-in by a device code.
async fn by_device_code(provider: &Provider) -> Outcome {
    let world = world(provider, |file| file.device_code = true).await;
    linked(&world, provider, "silva", v1::Role::Engineer).await;
    let silva = newcomer(&world, "silva");
    let mut arguments = first_time(&world);
    arguments.retain(|argument| argument != "--no-browser");
    arguments.push("--device".to_owned());
    let outcome = Browser::new(provider).signs_in(&silva, &arguments, "silva").await;
    if outcome.code == 0 {
        silva.done(&["whoami"]).await;
    }
    outcome
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_without_a_browser_signs_in_by_a_code_if_the_provider_binds_that_to_the_key() {
    let (binds, does_not) = (
        Provider::that_binds_device_codes().await,
        Provider::start("ES256").await,
    );
    let (done, unbound) = tokio::join!(by_device_code(&binds), by_device_code(&does_not));
    assert_eq!(
        (done.code, &done.json["operator"]),
        (0, &Value::from("silva")),
        "{done:?}"
    );
    assert_eq!(unbound.failure(), "SIGN_IN_REFUSED");
    assert!(unbound.said.contains("it is bound to no key"), "{unbound:?}");
}

#[tokio::test]
async fn without_a_provider_or_with_one_that_is_another_nobody_signs_in_and_all_else_goes_on() {
    let none = World::start().await;
    let (key, request) = (file_key(), v1::GetProviderRequest {});
    refused(
        enrolment(&none).await.get_provider(request).await,
        Reason::NoProvider,
    );
    refused(sign_in(&none, "x.y.z".to_owned(), &key).await, Reason::NoProvider);

    let provider = Provider::start("ES256").await;
    let strange = [
        // It calls itself something else, or is vouched for by nobody whom the configuration names.
        world(&provider, |file| file.issuer = format!("{}/", provider.issuer)).await,
        world(&provider, |file| {
            file.roots = provider.other_certificate().display().to_string()
        })
        .await,
        world(&provider, |file| file.roots = "/nowhere.pem".to_owned()).await,
    ];
    for (world, words) in strange
        .iter()
        .zip(["calls itself", "cannot connect", "cannot be used"])
    {
        let why = refused(
            enrolment(world).await.get_provider(request).await,
            Reason::ProviderUnreachable,
        );
        assert!(why.contains(words), "{why}");
        world.operator("anna", v1::Role::Engineer).await;
    }
    let mut world = world(&provider, |_| ()).await;
    provider.stop();
    world.restart().await;
    let away = enrolment(&world).await.get_provider(request).await;
    refused(away, Reason::ProviderUnreachable);
}

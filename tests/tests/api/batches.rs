//! Batches of gateways: what two approvers signed becomes a token for each, all of them or none; and the runbook's page for it.

use penstock_agent::link::enrol::{EnrolError, KeyChoice, enrol, key_digest};
use penstock_policy::batch::{Batch, BatchGateway, SignedBatch};
use penstock_policy::ids::{ApproverId, Digest, PlantId};
use penstock_policy::model::ApproverSet;
use penstock_proto::refusal::Reason;
use penstock_proto::token::{Secret, Token};
use penstock_proto::v1;
use penstock_proto::v1::audit_event::Kind;

use crate::identities::{decide, enrolled};
use crate::lost::Shell;
use crate::world::{Control, World, built, document, file_key, key, now_ms, people, refused, release};

fn batch(id: &str, gateways: &[(&str, Option<Digest>)]) -> Batch {
    let plant = PlantId::new("riverside").unwrap();
    let gateways = gateways.iter().map(|(name, key)| BatchGateway {
        gateway: name.parse().unwrap(),
        key: *key,
    });
    let span = (now_ms(), now_ms() + 86_400_000);
    Batch::new(plant, id.to_owned(), span, gateways.collect()).unwrap()
}

fn signed(batch: &Batch, people: &[&str]) -> v1::SubmitBatchRequest {
    let mut signed = SignedBatch {
        payload: batch.to_bytes(),
        signatures: Vec::new(),
    };
    for person in people {
        signed
            .sign(ApproverId::new(*person).unwrap(), &key(person))
            .unwrap();
    }
    v1::SubmitBatchRequest {
        batch: signed.payload.clone().into(),
        signatures: signed.signatures.iter().map(v1::Signature::from).collect(),
        approvers_digest: in_force().digest().0.to_vec().into(),
    }
}

async fn submitted(admin: &mut Control, request: v1::SubmitBatchRequest) -> Vec<(String, [u8; 32])> {
    let answer = admin.submit_batch(request).await.unwrap().into_inner();
    let tokens = answer.tokens.into_iter();
    tokens
        .map(|token| (token.gateway, token.secret.as_ref().try_into().unwrap()))
        .collect()
}

/// The approvers of the release in force.
fn in_force() -> ApproverSet {
    built(&document(2, 99), 1, None, "anna")
        .release
        .statement
        .approvers
}

async fn released(world: &World) {
    let mut people = people(world).await;
    let built = built(&document(2, 99), 1, None, "anna");
    release(&mut people, &built).await;
}

#[tokio::test]
async fn a_batch_that_two_approvers_signed_is_a_token_for_each_gateway_and_real_agents_enrol_with_them() {
    let world = World::start().await;
    let mut admin = world.admin();
    let machine = tempfile::tempdir().unwrap();
    let bound = key_digest(machine.path(), KeyChoice::Held).unwrap();
    let both = batch("b-1", &[("gw-a", Some(bound)), ("gw-b", None)]);
    let request = signed(&both, &["bob", "carol"]);
    refused(admin.submit_batch(request.clone()).await, Reason::NotFound);
    released(&world).await;
    let first = submitted(&mut admin, request.clone()).await;
    assert_eq!(first.len(), 2);
    let token = |(name, secret): &(String, [u8; 32])| Token {
        subject: format!("gateway/{name}").parse().unwrap(),
        secret: Secret(*secret),
        approvers: Some(in_force()),
        ..crate::dark::token_with(&world, [0; 32])
    };
    let other = tempfile::tempdir().unwrap();
    let thief = enrol(other.path(), &token(&first[0])).await.unwrap_err();
    assert!(matches!(thief, EnrolError::OtherKey(_)), "{thief}");
    enrol(machine.path(), &token(&first[0])).await.unwrap();

    // Its answer was lost: who has enrolled is left alone, and the other gets another token.
    let again = submitted(&mut admin, request).await;
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].0, "gw-b");
    let old = enrol(other.path(), &token(&first[1])).await.unwrap_err();
    assert!(matches!(old, EnrolError::Unknown(_)), "{old}");
    let third = tempfile::tempdir().unwrap();
    enrol(third.path(), &token(&again[0])).await.unwrap();

    let trail = world.trail("coordinator/c1").await;
    let said: Vec<_> = trail
        .into_iter()
        .filter_map(|record| match record.event?.kind? {
            Kind::Operator(event) if event.allowed => Some((event.action, event.target, event.message)),
            _ => None,
        })
        .collect();
    let digest = Digest::of(&both.to_bytes());
    let whole = said.iter().filter(|(action, _, _)| action == "submit-batch");
    let whole: Vec<_> = whole.collect();
    assert_eq!(whole.len(), 2, "{said:?}");
    assert_eq!(whole[0].1, "batch/b-1");
    assert_eq!(
        whole[0].2,
        format!("{digest}, 2 gateways, signed by bob and carol")
    );
    let made = |gateway: &str| {
        let target = format!("gateway/{gateway}");
        let of_it = said
            .iter()
            .filter(|(action, to, _)| action == "create-token" && *to == target);
        of_it.count()
    };
    assert_eq!((made("gw-a"), made("gw-b")), (1, 2));
}

#[tokio::test]
async fn a_batch_with_anything_wrong_makes_no_token_and_all_of_it_is_named() {
    let world = World::start().await;
    released(&world).await;
    let mut admin = world.admin();
    enrolled(&world, "gw-a").await;
    enrolled(&world, "gw-b").await;
    decide(&mut admin, "gateway/gw-b", v1::StandingChange::Revoke)
        .await
        .unwrap();
    let wrong = batch("b-1", &[("gw-a", None), ("gw-b", None), ("gw-c", None)]);
    let words = refused(
        admin.submit_batch(signed(&wrong, &["bob", "carol"])).await,
        Reason::BadRequest,
    );
    for said in [
        "gw-a is enrolled",
        "gw-b is revoked",
        "gw-c is not in the release in force",
    ] {
        assert!(words.contains(said), "{said}: {words}");
    }
    decide(&mut admin, "gateway/gw-a", v1::StandingChange::Retire)
        .await
        .unwrap();
    let store = world.running.as_ref().unwrap().store();
    let unused = || async {
        let tokens = store.list("token/gateway/").await.unwrap();
        tokens.len()
    };
    let before = unused().await;
    let words = refused(
        admin.submit_batch(signed(&wrong, &["bob", "carol"])).await,
        Reason::BadRequest,
    );
    assert!(words.contains("gw-a is retired"), "{words}");
    assert_eq!(unused().await, before);
}

#[tokio::test]
async fn a_batch_takes_two_approvers_its_plant_its_time_and_an_admin_and_its_id_is_used_once() {
    let world = World::start().await;
    released(&world).await;
    let mut admin = world.admin();
    let one = batch("b-1", &[("gw-a", None)]);
    for people in [&[][..], &["bob"], &["bob", "mallory"]] {
        let words = refused(
            admin.submit_batch(signed(&one, people)).await,
            Reason::BadSignature,
        );
        assert!(words.contains("the signatures of 2 approvers"), "{words}");
    }
    let mut altered = signed(&one, &["bob", "carol"]);
    altered.batch = batch("b-1", &[("gw-b", None)]).to_bytes().into();
    refused(admin.submit_batch(altered).await, Reason::BadSignature);
    let mut other = one.clone();
    other.plant = PlantId::new("elsewhere").unwrap();
    let request = signed(&other, &["bob", "carol"]);
    refused(admin.submit_batch(request).await, Reason::BadRequest);
    let mut ended = one.clone();
    (ended.made_at_ms, ended.until_ms) = (1_000, 2_000);
    let request = signed(&ended, &["bob", "carol"]);
    let words = refused(admin.submit_batch(request).await, Reason::BadRequest);
    assert!(words.contains("the batch ended at 1970"), "{words}");
    let garbage = v1::SubmitBatchRequest {
        approvers_digest: in_force().digest().0.to_vec().into(),
        batch: b"{}".to_vec().into(),
        signatures: Vec::new(),
    };
    refused(admin.submit_batch(garbage).await, Reason::BadRequest);
    let mut engineer = world.operator("dave", v1::Role::Engineer).await;
    let request = signed(&one, &["bob", "carol"]);
    refused(engineer.submit_batch(request.clone()).await, Reason::WrongRole);
    assert_eq!(submitted(&mut admin, request).await.len(), 1);
    let another = batch("b-1", &[("gw-b", None)]);
    let request = signed(&another, &["bob", "carol"]);
    refused(admin.submit_batch(request).await, Reason::AlreadyExists);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_the_page_commission_hundreds_of_gateways_gets_a_token_for_each() {
    let world = World::start().await;
    let mut shell = Shell::on(&world, "Commission hundreds of gateways", &document(2, 99)).await;
    released(&world).await;
    let home = shell.home();
    std::fs::write(
        home.join("list.csv"),
        "gateway,key\ngw-a\n# the other one\ngw-b\n",
    )
    .unwrap();
    for person in ["bob", "carol"] {
        let file = home.join(format!("{person}.key"));
        std::fs::write(&file, crate::person::key_pem(person)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, mode).unwrap();
    }
    let said = shell.types("penstock gateways batch new ").await;
    assert!(said.contains("2 gateways"), "{said}");
    let said = shell.types("penstock gateways batch show ").await;
    assert!(said.contains("signed by nobody"), "{said}");
    shell.types("penstock gateways batch sign ").await;
    let said = shell.types("penstock gateways batch sign ").await;
    assert!(said.contains("signed by bob, carol"), "{said}");
    let said = shell.types("penstock gateways batch submit ").await;
    assert!(said.contains("2 tokens"), "{said}");
    for gateway in ["gw-a", "gw-b"] {
        let token = shell.token(&format!("tokens/{gateway}.token"));
        assert_eq!(token.subject.to_string(), format!("gateway/{gateway}"));
        let approvers = token.approvers.unwrap();
        assert_eq!(approvers.people.len(), 3);
        let key = file_key();
        let enrolled = world.enrol_believing(gateway, &token.secret.0, &key, approvers.digest());
        enrolled.await.unwrap();
    }
    shell.ends_here();
}

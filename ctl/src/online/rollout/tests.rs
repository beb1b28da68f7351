//! Commands against a coordinator that does what it is asked, or does not: what is sent, and what is made of the answer.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod coordinator;
mod pages;

use penstock_policy::ids::{Digest, Revision};
use penstock_policy::record::{Believed, Claim, Grade, SignedRecord, verify};
use penstock_policy::release::{Draft, build, signing::ApproverKey};
use penstock_policy::rollout::RolloutPlan;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::steer_rollout_request::Command;
use penstock_proto::v1::{self, PolicyEvent};

use self::coordinator::Fake;
use super::*;
use crate::args::{Color, Format};
use crate::contexts::{Context, Contexts, NamedContext};
use crate::online::fixture::{loaded, record, riverside};

const PLANT: &str = riverside!(
    "assets:
  hmi: { zone: operations, address: 10.20.1.21 }
  plc: { zone: control, address: 10.20.4.7 }
conduits:
  watch:
    from: operations
    to: control
    flows:
      poll: { source: hmi, destination: plc, service: tcp/502 }
"
);

/// The key of bob, the plant's approver.
fn bob() -> ApproverKey {
    ApproverKey::from_seed(&[7; 32])
}

/// A release's document: bob signs with the key of these tests.
fn document(asset: &str) -> String {
    let stranger = "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let own = String::from(bob().public());
    PLANT.replace(stranger, &own).replace("hmi", asset)
}

struct Desk {
    fake: Fake,
    online: Online,
    /// What is known here of releases.
    _home: tempfile::TempDir,
}

/// A person who is logged in to a coordinator with these answers.
async fn desk(fake: Fake) -> Desk {
    crate::times::choose(jiff::tz::TimeZone::UTC);
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("contexts");
    std::fs::create_dir(&folder).unwrap();
    let roots = rcgen::generate_simple_self_signed(vec!["roots".to_owned()]).unwrap();
    std::fs::write(folder.join("riverside.roots"), roots.cert.pem()).unwrap();
    let login = NamedContext {
        name: "riverside".to_owned(),
        context: Context {
            plant: "riverside".parse().unwrap(),
            operator: "anna".parse().unwrap(),
            coordinators: Vec::new(),
        },
    };
    let channel = fake.serve().await;
    Desk {
        fake,
        online: Online::over(Contexts::at(home.path()), login, channel),
        _home: home,
    }
}

fn out() -> Output {
    Output::new(Format::Json, Color::Never)
}

fn why() -> Because {
    Because {
        reason: "line 2 stopped".to_owned(),
        ticket: "INC-9".to_owned(),
    }
}

fn with_rollouts(rollouts: Vec<v1::Rollout>) -> Fake {
    let fake = Fake::default();
    fake.with(|script| script.rollouts = rollouts);
    fake
}

#[tokio::test]
async fn what_stops_is_sent_at_once_for_the_rollout_that_was_shown() {
    let mut desk = desk(with_rollouts(vec![fixture::sent()])).await;
    let done = steer(&out(), &mut desk.online, None, Command::Halt(true), why(), None).await;
    assert_eq!(done.unwrap(), Exit::Done);
    let sent = desk.fake.with(|script| script.steered.clone());
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].revision, sent[0].because.clone()), (5, Some(why())));
    assert_eq!(sent[0].command, Some(Command::Halt(true)));
}

#[tokio::test]
async fn what_opens_more_is_asked_about_and_nothing_is_sent_where_nobody_can_be_asked() {
    let mut desk = desk(with_rollouts(vec![fixture::sent()])).await;
    let asked = steer(
        &out(),
        &mut desk.online,
        Some(5),
        Command::Resume(true),
        why(),
        Some(false),
    )
    .await;
    assert_eq!(asked.unwrap_err().exit, Exit::Usage);
    assert!(desk.fake.with(|script| script.steered.is_empty()));
    let said = steer(
        &out(),
        &mut desk.online,
        Some(5),
        Command::Resume(true),
        why(),
        Some(true),
    )
    .await;
    assert_eq!(said.unwrap(), Exit::Done);
    assert_eq!(desk.fake.with(|script| script.steered.len()), 1);
}

#[tokio::test]
async fn an_answer_about_another_rollout_or_a_freeze_that_does_not_hold_is_not_taken_for_done() {
    let mut desk = desk(with_rollouts(vec![fixture::sent()])).await;
    desk.fake.with(|script| script.mistakes = Some(4));
    let other = steer(
        &out(),
        &mut desk.online,
        Some(5),
        Command::Halt(true),
        why(),
        None,
    )
    .await;
    assert_eq!(other.unwrap_err().exit, Exit::Altered);
    assert!(
        desk.fake.with(|script| script.steered.is_empty()),
        "nothing is steered by what was not shown"
    );
    desk.fake.with(|script| {
        script.mistakes = None;
        script.forgets = true;
    });
    let forgotten = freeze(&out(), &mut desk.online, true, why()).await;
    assert_eq!(forgotten.unwrap_err().exit, Exit::Altered);
    desk.fake.with(|script| script.forgets = false);
    assert_eq!(
        freeze(&out(), &mut desk.online, true, why()).await.unwrap(),
        Exit::Done
    );
    let asked = desk.fake.with(|script| script.frozen.clone());
    assert!(
        asked
            .iter()
            .all(|asked| asked.frozen && asked.because == Some(why()))
    );
}

#[test]
fn nobody_steers_without_a_reason() {
    let args = |reason: &str| args::Because {
        reason: reason.to_owned(),
        ticket: None,
    };
    assert_eq!(because(&args("  ")).unwrap_err().exit, Exit::Usage);
    assert_eq!(because(&args(&"x".repeat(1_025))).unwrap_err().exit, Exit::Usage);
    assert_eq!(because(&args(" a ")).unwrap().reason, "a");
}

/// r2 on top of r1, both signed, as a coordinator has them.
fn releases() -> Vec<v1::GetReleaseResponse> {
    let mut chain: Vec<v1::SignedRelease> = Vec::new();
    let mut answers = Vec::new();
    for (revision, asset) in [(1, "hmi"), (2, "panel")] {
        let plant = loaded(&document(asset));
        let draft = Draft {
            revision: Revision(revision),
            parent: chain.last().map(|before| Digest::of(&before.statement)),
            replaces: Vec::new(),
            emergency: false,
            withdrawn: None,
            trust: None,
            trails: None,
            document_digest: plant.digest,
            author: "anna".parse().unwrap(),
            ticket: Some("CHG-1".to_owned()),
            reason: "a panel".to_owned(),
            created_ms: 10,
        };
        let statement = build(&plant.plant, draft).unwrap().statement.to_bytes();
        let signature = bob().sign("bob".parse().unwrap(), &statement).unwrap();
        let signed = v1::SignedRelease {
            statement: statement.clone().into(),
            signatures: vec![v1::Signature {
                approver: "bob".to_owned(),
                signature: signature.bytes().to_vec().into(),
                ..Default::default()
            }],
        };
        answers.push(v1::GetReleaseResponse {
            release: Some(v1::Release {
                revision,
                statement_digest: Digest::of(&statement).0.to_vec().into(),
                state: v1::ReleaseState::Current.into(),
                approved_ms: 20,
                ..v1::Release::default()
            }),
            signed: Some(signed.clone()),
            documents: vec![v1::DocumentFile {
                name: "plant.yaml".to_owned(),
                content: document(asset).into_bytes().into(),
            }],
            chain: chain.clone(),
        });
        chain.push(signed);
    }
    answers
}

fn with_releases() -> Fake {
    let fake = Fake::default();
    let releases = releases().into_iter();
    fake.with(|script| {
        script.releases = releases
            .map(|answer| (answer.release.as_ref().unwrap().revision, answer))
            .collect();
    });
    fake
}

fn asked(plan: Option<&std::path::Path>) -> start::StartRequest<'_> {
    start::StartRequest {
        revision: 2,
        plan,
        because: why(),
        yes: true,
    }
}

#[tokio::test]
async fn the_plan_that_is_sent_is_the_default_of_the_releases_documents_or_the_one_that_was_judged() {
    let mut desk = desk(with_releases()).await;
    let started = start::start(&out(), &mut desk.online, asked(None)).await;
    assert_eq!(started.unwrap(), Exit::Done);
    let sent = desk.fake.with(|script| script.started.remove(0));
    let plan: RolloutPlan = serde_json::from_slice(&sent.plan).unwrap();
    let own = loaded(&document("panel"));
    let fleet = plans::fleet(&own.plant).unwrap();
    let default = penstock_policy::rollout::default_plan(&fleet, plans::seed_of(&own.digest));
    assert_eq!((plan, sent.because), (default.clone(), Some(why())));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plan.yaml");
    let text = penstock_policy::rollout::commented(&default, &fleet, "a test");
    std::fs::write(&file, text.replace("trial: 10m", "trial: 20m")).unwrap();
    start::start(&out(), &mut desk.online, asked(Some(&file)))
        .await
        .unwrap();
    let sent = desk.fake.with(|script| script.started.remove(0));
    let plan: RolloutPlan = serde_json::from_slice(&sent.plan).unwrap();
    assert_eq!(plan.trial.as_seconds(), 1_200);
    // Nothing is started with a plan that cannot be carried out.
    std::fs::write(&file, text.replace("trial: 10m", "trial: 5s")).unwrap();
    let refused = start::start(&out(), &mut desk.online, asked(Some(&file))).await;
    assert_eq!(refused.unwrap(), Exit::Findings);
    // Nor of a release whose documents are not its own.
    desk.fake.with(|script| {
        let documents = &mut script.releases.get_mut(&2).unwrap().documents;
        documents[0].content = document("hmi").into_bytes().into();
    });
    let altered = start::start(&out(), &mut desk.online, asked(None)).await;
    assert_eq!(altered.unwrap_err().exit, Exit::Altered);
    assert!(desk.fake.with(|script| script.started.is_empty()));
}

#[tokio::test]
async fn a_coordinator_that_starts_another_release_is_found_out() {
    let mut desk = desk(with_releases()).await;
    desk.fake.with(|script| script.mistakes = Some(1));
    let started = start::start(&out(), &mut desk.online, asked(None)).await;
    assert_eq!(started.unwrap_err().exit, Exit::Altered);
}

/// The rollout of r2, completed; that of r1 before it.
fn completed(fake: &Fake) {
    let releases = releases();
    let stated: Vec<_> = releases
        .iter()
        .map(|answer| answer.release.clone().unwrap().statement_digest)
        .collect();
    let own = loaded(&document("panel"));
    let fleet = plans::fleet(&own.plant).unwrap();
    let plan = penstock_policy::rollout::default_plan(&fleet, 3);
    let statement =
        penstock_policy::release::Statement::from_bytes(&releases[1].signed.as_ref().unwrap().statement);
    let built = build(&own.plant, Draft::of(&statement.unwrap())).unwrap();
    let gateway = built.plans.keys().next().unwrap().clone();
    let plan_digest = Digest::of(&built.plans[&gateway]);
    let rollout = |revision: u64, digest: &tonic::codegen::Bytes| v1::Rollout {
        revision,
        statement_digest: digest.clone(),
        stage: "completed".to_owned(),
        started_by: "anna".to_owned(),
        because: Some(why()),
        started_ms: 1_000,
        ended_ms: 5_000,
        counts: [("confirmed".to_owned(), 1)].into_iter().collect(),
        activated: 1,
        gateways: vec![v1::RolloutGateway {
            name: gateway.to_string(),
            state: "confirmed".to_owned(),
            wave: 1,
            connected: true,
            ..v1::RolloutGateway::default()
        }],
        plan: serde_json::to_vec(&plan).unwrap().into(),
        time_ms: 6_000,
        events: fixture::sent().events,
        ..v1::Rollout::default()
    };
    fake.with(|script| {
        script.rollouts = vec![rollout(2, &stated[1]), rollout(1, &stated[0])];
        script.gateways = vec![v1::Gateway {
            name: gateway.to_string(),
            connected: true,
            policy: Some(v1::PolicyState {
                effective: Some(v1::RevisionDigest {
                    revision: 2,
                    plan_digest: plan_digest.0.to_vec().into(),
                    statement_digest: stated[1].clone(),
                }),
                ..v1::PolicyState::default()
            }),
            ..v1::Gateway::default()
        }];
        script.health = v1::PlantHealth {
            time_ms: 6_000,
            zones: vec![v1::ZoneHealth {
                zone: "control".to_owned(),
                state: v1::ZoneState::Enforcing.into(),
                ..v1::ZoneHealth::default()
            }],
            ..v1::PlantHealth::default()
        };
        let said = |source: &str, revision: u64| {
            let kind = Kind::Policy(PolicyEvent {
                step: "effective".to_owned(),
                revision,
                ..PolicyEvent::default()
            });
            record(source, revision, kind)
        };
        script.records = vec![said("gw-a", 2), said("gw-a", 1), said("coordinator/c1", 2)];
    });
}

fn graded(claims: &[Claim], grade: Grade) -> Vec<&str> {
    let own = claims.iter().filter(|claim| claim.grade == grade);
    own.map(|claim| claim.code).collect()
}

#[tokio::test]
async fn a_record_that_was_gathered_proves_offline_what_was_approved_and_what_each_gateway_had_to_get() {
    let fake = with_releases();
    completed(&fake);
    let mut desk = desk(fake).await;
    let record = gather::gather(&out(), &mut desk.online, 2).await.unwrap();
    assert_eq!(record.baseline.as_ref().unwrap().digest(), {
        let one = releases()[0].signed.clone().unwrap();
        Digest::of(&one.statement)
    });
    assert_eq!(record.new_baseline, Some(record.authorisation.release.digest()));
    let preview = &record.authorisation.preview;
    assert!(preview.contains("panel"), "{preview}");
    let trail: Vec<_> = record
        .implementation
        .trail
        .iter()
        .map(|entry| entry.source.as_str())
        .collect();
    assert_eq!(trail, ["gw-a"], "what gateways said of this release");
    let mut signed = SignedRecord::new(&record).unwrap();
    signed.sign("anna".parse().unwrap(), &ApproverKey::from_seed(&[9; 32]));
    let before = loaded(&document("hmi")).plant;
    let fleet = plans::fleet(&loaded(&document("panel")).plant).unwrap();
    let claims = verify(
        &record,
        &signed,
        Believed {
            approvers: Some(&before.approvers),
            maker: Some(ApproverKey::from_seed(&[9; 32]).public()),
            fleet: Some(&fleet),
        },
    );
    assert_eq!(
        graded(&claims, Grade::Contradicted),
        Vec::<&str>::new(),
        "{claims:#?}"
    );
    assert_eq!(
        graded(&claims, Grade::Proved),
        [
            "approved",
            "baseline",
            "reason",
            "plans",
            "documents",
            "waves",
            "signed"
        ]
    );
}

#[tokio::test]
async fn a_watch_ends_with_its_rollout_and_goes_on_where_the_coordinator_went_away() {
    let ends = |stage: &str| {
        let mut last = fixture::sent();
        last.stage = stage.to_owned();
        last.time_ms += 1;
        vec![fixture::sent(), last]
    };
    for (then, expected) in [
        (ends("completed"), Ok(Exit::Done)),
        (ends("rolled-back"), Ok(Exit::Findings)),
        (vec![fixture::sent()], Err(Exit::Unreachable)),
    ] {
        let fake = with_rollouts(vec![fixture::sent()]);
        fake.with(|script| script.then = then);
        let mut desk = desk(fake).await;
        let ended = watch::follow_once(&out(), &mut desk.online, Some(5)).await;
        assert_eq!(ended.map_err(|failure| failure.exit), expected);
    }
}

//! What the coordinator does, and what its own trail says that it did: one is never there without the other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use penstock_coordinator::store::{BlockFilter, Store};
use penstock_policy::ids::Digest;
use penstock_proto::keys::certificate_request;
use penstock_proto::tls::Credentials;
use penstock_proto::tls::times::instant;
use penstock_proto::v1;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::create_token_request::Subject;
use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
use proptest::prelude::ProptestConfig;
use prost::Message as _;
use serde_json::Value;
use tonic::Status;

use crate::world::{
    Built, Control, Program, World, approvers, believing, built, confirmation, document, file_key, store_of,
};

/// How often each thing was done, in words.
type Deeds = BTreeMap<String, usize>;

fn count(deeds: &mut Deeds, deed: String) {
    *deeds.entry(deed).or_default() += 1;
}

/// What the records say was done.
async fn effects(store: &Store) -> Deeds {
    let mut deeds = Deeds::new();
    let mut enrolled = BTreeSet::new();
    let listed = store.list("").await.unwrap();
    let keys: BTreeSet<&str> = listed.iter().map(|(key, _)| key.as_str()).collect();
    for (key, record) in &listed {
        let value: Value = serde_json::from_slice(&record.value).unwrap_or_default();
        if let Some(number) = key.strip_prefix("release/") {
            let digest = Digest::of(value["statement"].as_str().unwrap().as_bytes());
            let name = format!("r{} {digest}", number.parse::<u64>().unwrap());
            count(&mut deeds, format!("propose-release {name}"));
            let linked = keys.contains(format!("link/{number}").as_str());
            assert_eq!(value["approved_ms"].is_u64(), linked, "{name}");
            for approver in value["signatures"].as_object().unwrap().keys() {
                count(&mut deeds, format!("approve-release {name} by {approver}"));
            }
            if linked {
                count(&mut deeds, format!("current {name}"));
            }
            if let Some(how) = value["ended"]["how"].as_str() {
                count(&mut deeds, format!("{how} {name}"));
            }
        } else if let Some(subject) = key.strip_prefix("token/") {
            count(&mut deeds, format!("create-token {subject}"));
            if value["used"].is_object() {
                count(&mut deeds, format!("enrolled {subject}"));
                assert!(
                    keys.contains(subject),
                    "{subject} is remembered where its token is used"
                );
            }
        } else if key.starts_with("gateway/") || key.starts_with("operator/") {
            assert!(value["enrolled_ms"].as_u64().unwrap() > 0);
            enrolled.insert(key.as_str());
        }
    }
    for subject in enrolled {
        assert!(deeds.contains_key(&format!("enrolled {subject}")), "{subject}");
    }
    deeds
}

/// What the coordinator's own trail says was done, and what it says of the coordinator's own certificates.
async fn events(store: &Store) -> (Deeds, Vec<String>) {
    let own = BlockFilter {
        source: Some("coordinator/c1".to_owned()),
        ..BlockFilter::default()
    };
    let blocks = store.blocks(own, 1_000_000).await.unwrap();
    let (mut deeds, mut certificates) = (Deeds::new(), Vec::new());
    for (block, sequence) in blocks.into_iter().zip(0..) {
        assert_eq!(block.sequence, sequence, "the chain is whole");
        for event in v1::AuditBlockBody::decode(block.body).unwrap().events {
            match event.kind.unwrap() {
                // A request is gone once it was fetched: the token's event says who confirmed it. A turn is one record for all of them.
                Kind::Operator(event)
                    if ["request", "confirm-request", "take-over", "hand-over"].contains(&&*event.action) => {
                }
                Kind::Operator(event) if event.allowed => {
                    let mut words = event.target.split(' ');
                    let name: Vec<_> = match event.action.as_str() {
                        "create-token" => words.by_ref().take(1).collect(),
                        _ => words.by_ref().take(2).collect(),
                    };
                    let name = name.join(" ");
                    let name = name.trim_end_matches([',', ':']);
                    let deed = match event.action.as_str() {
                        "approve-release" => format!("approve-release {name} by {}", event.operator),
                        "reject-release" => format!("rejected {name}"),
                        "withdraw-release" => format!("withdrawn {name}"),
                        other => format!("{other} {name}"),
                    };
                    count(&mut deeds, deed);
                    if event.target.ends_with(", now current") {
                        count(&mut deeds, format!("current {name}"));
                    }
                }
                Kind::Identity(event) if event.subject == "coordinator/c1" => {
                    certificates.push(event.message)
                }
                Kind::Identity(event) if event.step == "enrolled" => {
                    count(&mut deeds, format!("enrolled {}", event.subject));
                }
                _ => {}
            }
        }
    }
    (deeds, certificates)
}

/// Releases one after another: most become current, some are rejected or withdrawn.
async fn releases(mut people: [Control; 3], start: u64, done: Arc<AtomicU64>) -> Result<(), Status> {
    let listed = people[0]
        .list_releases(v1::ListReleasesRequest::default())
        .await?;
    let listed = listed.into_inner().releases;
    let mut revision = listed.iter().map(|release| release.revision).max().unwrap_or(0);
    let current = listed
        .iter()
        .find(|release| release.state() == v1::ReleaseState::Current);
    let mut parent = current.map(|release| {
        let digest: [u8; 32] = release.statement_digest.as_ref().try_into().unwrap();
        Digest(digest)
    });
    loop {
        revision += 1;
        let next: Built = built(
            &document(2, u32::try_from(revision).unwrap()),
            revision,
            parent,
            "anna",
        );
        let [anna, bob, carol] = &mut people;
        anna.propose_release(next.request.clone()).await?;
        match (start + revision) % 4 {
            0 => drop(anna.withdraw_release(next.end("a typo")).await?),
            1 => drop(bob.reject_release(next.end("too much")).await?),
            _ => {
                bob.approve_release(next.approval("bob")).await?;
                carol.approve_release(next.approval("carol")).await?;
                parent = Some(next.digest());
            }
        }
        done.fetch_add(1, Relaxed);
    }
}

/// Gateways one after another: a token that a second person confirms, an enrolment, a renewal.
async fn gateways(
    world: &World,
    (mut admin, mut second): (Control, Control),
    round: u64,
    done: &AtomicU64,
) -> Result<(), Status> {
    for number in 0.. {
        let name = format!("gw-{round}-{number}");
        let request = v1::CreateTokenRequest {
            role: v1::Role::Unspecified.into(),
            valid_seconds: 600,
            subject: Some(Subject::Gateway(name.clone())),
            ..v1::CreateTokenRequest::default()
        };
        let request = believing(request);
        let answer = admin.create_token(request.clone()).await?.into_inner();
        let waits = answer.waits.expect("approvers have logged in");
        second.decide_request(confirmation(&waits.id)).await?;
        let secret = admin.create_token(request).await?.into_inner().secret;
        let key = file_key();
        let unreached = |_| Status::unavailable("it was killed");
        let pin = penstock_proto::tls::client::Trust::Pin(world.authority.root_digest());
        let channel = world.channel(pin, None).await.map_err(unreached)?;
        let answer = v1::enrolment_client::EnrolmentClient::new(channel)
            .enrol(v1::EnrolRequest {
                name,
                secret,
                certificate_request: certificate_request(&key, None).unwrap().into(),
                approvers_digest: approvers().digest().0.to_vec().into(),
            })
            .await?;
        let chain = answer.into_inner().certificate_chain;
        let chain = chain.iter().map(|der| der.to_vec().into()).collect();
        let credentials = Credentials::new(chain, key.clone()).unwrap();
        let channel = world.channel(world.roots(), Some(credentials)).await;
        let request = v1::RenewRequest {
            certificate_request: certificate_request(&key, None).unwrap().into(),
            ..v1::RenewRequest::default()
        };
        let mut link = GatewayLinkClient::new(channel.map_err(unreached)?);
        link.renew(request).await?;
        done.fetch_add(1, Relaxed);
    }
    Ok(())
}

/// A moment below `below_ms`, another one each time.
async fn moment(below_ms: u64) {
    let drawn = u64::from_be_bytes(drawn());
    tokio::time::sleep(Duration::from_millis(drawn % below_ms)).await;
}

fn drawn() -> [u8; 8] {
    let digest = Digest::of(format!("{:?}", std::time::Instant::now()).as_bytes());
    let mut drawn = [0; 8];
    drawn.copy_from_slice(&digest.0[..8]);
    drawn
}

/// The certificate that the next start serves is one that the trail speaks of.
fn own_certificate_is_said(data: &Path, said: &[String]) {
    let (chain, key) = (data.join("coordinator.pem"), data.join("coordinator.key"));
    if chain.exists() && key.exists() {
        let (from, until) = Credentials::from_files(&chain, &key)
            .unwrap()
            .validity_ms()
            .unwrap();
        let span = format!("is valid from {} until {}", instant(from), instant(until));
        assert!(said.iter().any(|said| said.ends_with(&span)), "{span}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_the_coordinator_is_killed_each_effect_has_its_event_and_each_event_its_effect() {
    let rounds = u64::from(ProptestConfig::default().cases / 16);
    let mut world = World::start().await;
    for (name, role) in [
        ("anna", v1::Role::Engineer),
        ("bob", v1::Role::Approver),
        ("carol", v1::Role::Approver),
    ] {
        world.operator(name, role).await;
    }
    let file = Program::takes_over(&mut world, "127.0.83.2").await;
    let (file, data) = (file.to_str().unwrap(), world.config.data.clone());
    let mut done = Deeds::new();
    let mut certificates = 0;
    for round in 0..rounds {
        // The local command, while no coordinator runs.
        let (name, address) = (format!("local-{round}"), world.address.to_string());
        let arguments = [
            "token",
            "--config",
            file,
            "--operator",
            &name,
            "--address",
            &address,
        ];
        let local = Program::run(&arguments);
        if round == 0 {
            local.ends();
        } else {
            moment(60).await;
            local.kill();
        }
        for file in ["coordinator.pem", "coordinator.key"] {
            let _ = std::fs::remove_file(data.join(file));
        }
        let program = Program::start(Path::new(file));
        if round % 5 == 4 {
            moment(120).await;
            program.kill();
        } else {
            program.serves(&world).await;
            let people =
                ["admin", "anna", "bob", "carol"].map(|name| world.certificate(&format!("operator/{name}")));
            let mut controls = Vec::new();
            for credentials in people {
                controls.push(world.control(Some(credentials)).await.unwrap());
            }
            let admin = controls.remove(0);
            let people: [Control; 3] = controls.try_into().unwrap();
            let second = people[1].clone();
            let (released, joined) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
            let proposing = tokio::spawn(releases(people, round, released.clone()));
            let killed_at = async {
                moment(400).await;
                // The first time something of each kind comes of it, however slow the machine is.
                while round == 0 && (released.load(Relaxed) < 4 || joined.load(Relaxed) < 1) {
                    moment(50).await;
                }
            };
            tokio::select! {
                () = killed_at => {}
                end = gateways(&world, (admin, second), round, &joined) => panic!("{end:?}"),
            }
            program.kill();
            assert!(proposing.await.unwrap().is_err(), "it goes on until it is killed");
        }
        let store = store_of(&world.config).await;
        let (said, own) = events(&store).await;
        let effects = effects(&store).await;
        assert_eq!(said, effects, "round {round}");
        assert!(done.keys().all(|deed| effects.contains_key(deed)));
        own_certificate_is_said(&data, &own);
        done = effects;
        certificates = own.len();
    }
    for action in [
        "propose-release",
        "approve-release",
        "current",
        "withdrawn",
        "rejected",
        "create-token gateway/",
        "enrolled gateway/",
        "create-token operator/local-",
    ] {
        assert!(
            done.keys().any(|deed| deed.starts_with(action)),
            "{action}: {done:?}"
        );
    }
    assert!(certificates > 1);
}

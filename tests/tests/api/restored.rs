//! What was withdrawn and is not forgotten: by a coordinator that was restored from a backup, and by one that is killed while it withdraws.

use std::time::Duration;

use penstock_proto::refusal::{Reason, explain};
use penstock_proto::tls::Credentials;
use penstock_proto::v1;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::coordinator_message::Message as Down;
use penstock_proto::v1::gateway_message::Message as Up;
use penstock_proto::withdrawn::{SignedHeld, SignedList, Withdrawn};

use crate::bounds::until;
use crate::identities::{asked, decide, enrolled, kept_out};
use crate::world::{Program, Session, World};

/// A gateway's list, and how far it was signed.
#[derive(Default)]
struct Kept {
    list: Withdrawn,
    proof: Option<SignedHeld>,
}

impl Kept {
    async fn session(&self, world: &World, own: &Credentials) -> Session {
        let held = self.list.held();
        let hello = v1::Hello {
            withdrawn: Some(v1::WithdrawnHeld {
                number: held.number,
                digest: held.digest.0.to_vec().into(),
                unproven: !self.list.is_empty() && self.proof.is_none(),
            }),
            ..v1::Hello::default()
        };
        let channel = world.channel(world.roots(), Some(own.clone())).await.unwrap();
        world.greeting(channel, hello).await
    }

    /// Takes what the session brings next.
    async fn take(&mut self, world: &World, session: &mut Session) {
        let Down::Withdrawn(list) = session.next().await.unwrap() else {
            panic!("a list was expected");
        };
        let signed = SignedList::from(list);
        let (plant, roots) = (&world.config.plant, world.authority.roots());
        self.list.take(&signed.verify(plant, &roots).unwrap()).unwrap();
        let proof = signed.held.unwrap();
        assert_eq!(proof.verify(plant, &roots).unwrap(), self.list.held());
        self.proof = Some(proof);
    }

    fn gives(&self) -> Up {
        Up::Withdrawn((self.list.snapshot(), self.proof.clone().unwrap()).into())
    }
}

#[tokio::test]
async fn a_coordinator_that_is_restored_asks_a_gateway_for_its_list_and_whoever_was_withdrawn_is_out_again() {
    let mut world = World::start_alone().await;
    let stolen = enrolled(&world, "gw-a").await;
    let own = enrolled(&world, "gw-b").await;
    let backup = world.dir.path().join("backup");
    penstock_coordinator::app::backup(&world.config, &backup, None).unwrap();
    decide(&mut world.admin(), "gateway/gw-a", v1::StandingChange::Revoke)
        .await
        .unwrap();
    let mut kept = Kept::default();
    let mut session = kept.session(&world, &own).await;
    assert!(!session.welcome.asks_withdrawn && !session.welcome.asks_trust);
    kept.take(&world, &mut session).await;
    // A gateway without a proof, as older software leaves it, is sent all of it once more.
    kept.proof = None;
    let mut session = kept.session(&world, &own).await;
    kept.take(&world, &mut session).await;
    session.silence().await;
    drop(session);

    world.running.take().unwrap().stop().await;
    let store = world.config.data.join("penstock.db");
    for lost in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{lost}", store.display()));
    }
    std::fs::copy(backup.join("penstock.db"), &store).unwrap();
    world.start_again().await;
    assert!(
        kept_out(&world, stolen.clone()).await.is_none(),
        "nobody here knows better"
    );
    let session = kept.session(&world, &own).await;
    assert!(session.welcome.asks_withdrawn);
    session.send(kept.gives()).await;
    // Whoever is just being cut off may see only that.
    until(async || {
        let why = kept_out(&world, stolen.clone()).await?;
        explain(&why).is(Reason::IdentityWithdrawn).then_some(())
    })
    .await;
    let watch = v1::WatchHealthRequest {
        once: true,
        beats: false,
    };
    until(async || {
        let health = world.admin().watch_health(watch).await.unwrap();
        let health = health.into_inner().message().await.unwrap().unwrap();
        let codes: Vec<_> = health
            .coordinator
            .iter()
            .map(|fault| fault.code.as_str())
            .collect();
        (codes.contains(&"restored") && !codes.contains(&"withdrawn-behind")).then_some(())
    })
    .await;
    let told = |trail: &[v1::AuditRecord]| {
        let events = trail.iter().filter(|record| {
            matches!(&record.event.as_ref().unwrap().kind, Some(Kind::Identity(event))
                if event.step == "restored" && event.subject == "gateway/gw-b" && event.message.contains("gateway/gw-a (only life 2"))
        });
        events.count()
    };
    assert_eq!(told(&world.trail("coordinator/c1").await), 1);
    // What it gives is known by then, and is not asked for again.
    let session = kept.session(&world, &own).await;
    assert!(!session.welcome.asks_withdrawn);
    world.restart().await;
    assert!(kept_out(&world, stolen).await.is_some());
    assert!(kept_out(&world, own).await.is_none());
}

#[tokio::test]
async fn a_gateway_that_gives_no_trust_bundle_of_this_plant_is_noted_and_nobody_is_told_that_a_backup_was_restored()
 {
    let world = World::start().await;
    let own = enrolled(&world, "gw-a").await;
    let hello = v1::Hello {
        trust: Some(v1::TrustHeld {
            number: u64::MAX,
            ..v1::TrustHeld::default()
        }),
        ..v1::Hello::default()
    };
    let channel = world.channel(world.roots(), Some(own)).await.unwrap();
    let session = world.greeting(channel, hello).await;
    assert!(session.welcome.asks_trust);
    let payload = serde_json::json!({
        "format": "x".repeat(60_000), "plant": world.config.plant.to_string(), "number": u64::MAX, "made_ms": 1, "roots": [], "withdrawn": []
    });
    let bundle = v1::TrustBundle {
        payload: payload.to_string().into_bytes().into(),
        ..v1::TrustBundle::default()
    };
    let bundles = vec![bundle];
    session.send(Up::Trust(v1::TrustBundles { bundles })).await;
    let noted = until(async || {
        let trail = world.trail("coordinator/c1").await;
        trail.into_iter().find_map(|record| match record.event?.kind? {
            Kind::Identity(event) if event.message.contains("is not taken back") => Some(event),
            _ => None,
        })
    })
    .await;
    assert_eq!(noted.subject, "gateway/gw-a");
    assert!(
        noted.message.contains("has the format `xxx") && noted.message.len() < 1024,
        "{}",
        noted.message.len()
    );
    let watch = v1::WatchHealthRequest {
        once: true,
        beats: false,
    };
    let health = world.admin().watch_health(watch).await.unwrap();
    let health = health.into_inner().message().await.unwrap().unwrap();
    assert!(health.coordinator.iter().all(|fault| fault.code != "restored"));
}

/// What is so of a gateway whose revocation was asked for: its key is refused, the list says so, the trail does.
async fn so_far(world: &World, name: &str, credentials: Credentials) -> [bool; 3] {
    let mut admin = world
        .control(Some(world.certificate("operator/admin")))
        .await
        .unwrap();
    let answer = admin
        .get_withdrawn(v1::GetWithdrawnRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut list = Withdrawn::default();
    if !answer.payload.is_empty() {
        let signed = SignedList::from(answer);
        let all = signed
            .verify(&world.config.plant, &world.authority.roots())
            .unwrap();
        list.take(&all).unwrap();
    }
    let subject = format!("gateway/{name}");
    let request = v1::SearchAuditRequest {
        source: "coordinator/c1".to_owned(),
        limit: 10_000,
        ..v1::SearchAuditRequest::default()
    };
    let mut found = admin.search_audit(request).await.unwrap().into_inner();
    let mut noted = false;
    while let Some(record) = found.message().await.unwrap() {
        noted |= matches!(&record.event.as_ref().unwrap().kind, Some(Kind::Operator(event))
            if event.action == "revoke" && event.allowed && event.target == subject);
    }
    [
        kept_out(world, credentials).await.is_some(),
        list.from(&subject.parse().unwrap()).is_some(),
        noted,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_killed_while_it_revokes_has_withdrawn_the_key_everywhere_or_nowhere() {
    let mut world = World::start().await;
    // Of each, when it is killed after the call went out: from before it arrives until it is answered.
    let moments = [0, 2, 4, 6, 8, 12, 40];
    let mut gateways = Vec::new();
    for number in 0..moments.len() {
        let name = format!("gw-{number}");
        gateways.push((enrolled(&world, &name).await, name));
    }
    let file = Program::takes_over(&mut world, "127.0.83.9").await;
    let (mut answered, mut done) = (0, 0);
    for ((credentials, name), moment) in gateways.into_iter().zip(moments) {
        let program = Program::start(&file);
        program.serves(&world).await;
        let own = Some(world.certificate("operator/admin"));
        let mut admin = world.control(own).await.unwrap();
        admin.who_am_i(v1::WhoAmIRequest {}).await.unwrap();
        let request = asked(&format!("gateway/{name}"), v1::StandingChange::Revoke);
        let call = tokio::spawn(async move { admin.change_standing(request).await });
        tokio::time::sleep(Duration::from_millis(moment)).await;
        program.kill();
        let is_answered = call.await.unwrap().is_ok();
        let program = Program::start(&file);
        program.serves(&world).await;
        let so = so_far(&world, &name, credentials).await;
        assert!(so == [so[0]; 3], "{name} after {moment} ms: {so:?}");
        assert!(
            so[0] || !is_answered,
            "{name} after {moment} ms: it was said to be revoked"
        );
        answered += u32::from(is_answered);
        done += u32::from(so[0]);
        program.kill();
    }
    println!(
        "{answered} were answered, {done} of {} are withdrawn",
        moments.len()
    );
}

//! The list of withdrawn keys, as a gateway's session brings it.

use std::time::{Duration, Instant};

use penstock_policy::ids::Digest;
use penstock_proto::keys::certificate_request;
use penstock_proto::peer::{Certified, Epoch, Subject};
use penstock_proto::v1;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::coordinator_message::Message as Down;
use penstock_proto::withdrawn::{SignedList, Withdrawn};

use crate::bounds::until;
use crate::devices::issue as issue_device;
use crate::identities::{decide, enrolled};
use crate::person::Person;
use crate::pkcs11::hsm::{Hsm, watched_module};
use crate::pkcs11::on_token;
use crate::world::{Control, Session, World, built, document, file_key, people, release};

/// A gateway's list of withdrawn keys.
struct ListKept(Withdrawn);

impl ListKept {
    fn held(&self) -> v1::WithdrawnHeld {
        let held = self.0.held();
        v1::WithdrawnHeld {
            number: held.number,
            digest: held.digest.0.to_vec().into(),
            unproven: false,
        }
    }

    /// Takes what the session brings next.
    async fn take(&mut self, world: &World, session: &mut Session) {
        let Down::Withdrawn(list) = session.next().await.unwrap() else {
            panic!("a list was expected");
        };
        let signed = SignedList::from(list);
        let list = signed
            .verify(&world.config.plant, &world.authority.roots())
            .unwrap();
        self.0.take(&list).unwrap();
    }

    async fn session(&self, world: &World) -> Session {
        self.session_of(world, "gw-b").await
    }

    async fn session_of(&self, world: &World, gateway: &str) -> Session {
        let own = world.certificate(&format!("gateway/{gateway}"));
        let channel = world.channel(world.roots(), Some(own)).await.unwrap();
        let hello = v1::Hello {
            withdrawn: Some(self.held()),
            ..v1::Hello::default()
        };
        world.greeting(channel, hello).await
    }
}

#[tokio::test]
async fn gateways_learn_within_their_session_whose_keys_no_longer_count() {
    let world = World::start().await;
    let mut people = people(&world).await;
    release(&mut people, &built(&document(2, 99), 1, None, "anna")).await;
    let mut admin = world.admin();
    let issue = async |admin: &mut Control| {
        let request = certificate_request(&file_key(), None).unwrap();
        let leaf = issue_device(&world, admin, "plc", &request).await.unwrap();
        Certified::from_certificate(&leaf).unwrap()
    };
    let first = issue(&mut admin).await;
    let second = issue(&mut admin).await;
    assert_eq!((first.epoch, second.epoch), (Epoch(1), Epoch(2)));
    let plc: Subject = "device/plc".parse().unwrap();
    let mut kept = ListKept(Withdrawn::default());
    let mut session = kept.session(&world).await;
    session.offer().await;
    // Software that keeps no list is sent none, and ours is in order.
    let mut old = world.session("gw-a", v1::PolicyState::default()).await;
    old.offer().await;

    decide(&mut admin, "device/plc", v1::StandingChange::RevokeEarlier)
        .await
        .unwrap();
    kept.take(&world, &mut session).await;
    assert!(kept.0.is_over(&plc, first.epoch) && !kept.0.is_over(&plc, second.epoch));
    drop(session);
    decide(&mut admin, "device/plc", v1::StandingChange::Revoke)
        .await
        .unwrap();
    // What was withdrawn while it was away comes first of all.
    let mut session = kept.session(&world).await;
    kept.take(&world, &mut session).await;
    assert!(kept.0.is_over(&plc, second.epoch));
    session.offer().await;
    session.silence().await;
    old.silence().await;
    let devices = admin.list_devices(v1::ListDevicesRequest {}).await.unwrap();
    let devices = devices.into_inner().devices;
    assert_eq!(devices.len(), 1);
    assert_eq!(
        (devices[0].subject.as_str(), devices[0].standing()),
        ("device/plc", v1::Standing::Revoked)
    );
    // The next key begins a life that counts.
    let third = issue(&mut admin).await;
    assert!(!kept.0.is_over(&plc, third.epoch));
}

/// Threads of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_slow_token_signs_a_list_for_a_hundred_gateways_one_thread_waits_and_people_are_answered() {
    let hsm = Hsm::new("slow");
    let module = watched_module(hsm.folder.path());
    let world = on_token(&hsm.uri_by("issuing", &module), "127.0.96.9").await;
    let mut gateways = Vec::new();
    for number in 0..100 {
        let kept = ListKept(Withdrawn::default());
        let session = kept.session_of(&world, &format!("gw-{number}")).await;
        gateways.push((kept, session));
    }
    let stolen: Subject = "gateway/stolen".parse().unwrap();
    drop(ListKept(Withdrawn::default()).session_of(&world, "stolen").await);
    let mut admin = world.admin();
    let answered = async |admin: &mut Control| {
        let asked = Instant::now();
        admin.list_devices(v1::ListDevicesRequest {}).await.unwrap();
        asked.elapsed()
    };
    answered(&mut admin).await;
    let before = threads();
    std::fs::write(hsm.folder.path().join("slow"), "").unwrap();
    decide(&mut admin, "gateway/stolen", v1::StandingChange::Revoke)
        .await
        .unwrap();
    let begun = Instant::now();
    let lists = async {
        for (kept, session) in &mut gateways {
            kept.take(&world, session).await;
            assert!(kept.0.is_over(&stolen, Epoch(0)));
        }
        begun.elapsed()
    };
    tokio::pin!(lists);
    let (mut slowest, mut most) = (Duration::ZERO, before);
    let all = loop {
        tokio::select! {
            all = &mut lists => break all,
            took = answered(&mut admin) => slowest = slowest.max(took),
        }
        most = most.max(threads());
    };
    // The list, and how far it goes: once for all of them.
    let signed = std::fs::read(hsm.folder.path().join("signed")).unwrap();
    assert_eq!(signed.len(), 2);
    assert!(all >= Duration::from_secs(1), "the token took its time: {all:?}");
    assert!(
        slowest < Duration::from_millis(500),
        "somebody waited for {slowest:?}"
    );
    assert!(most <= before + 8, "{before} threads, then {most}");
}

#[tokio::test]
async fn a_coordinator_that_lost_what_it_withdrew_says_so_in_its_health_and_trail() {
    let world = World::start().await;
    let mut kept = ListKept(Withdrawn::default());
    for number in 0..3 {
        let subject = format!("device/plc-{number}").parse().unwrap();
        kept.0.withdraw(&subject, Epoch(1));
    }
    enrolled(&world, "gw-a").await;
    let digest: Digest = kept.0.held().digest;
    let mut session = kept.session(&world).await;
    // What it gets in return takes nothing back.
    kept.take(&world, &mut session).await;
    assert_eq!(kept.0.held().digest, digest);
    // What is withdrawn from then on it takes in this very session, whatever it held before.
    decide(&mut world.admin(), "gateway/gw-a", v1::StandingChange::Revoke)
        .await
        .unwrap();
    let revoked: Subject = "gateway/gw-a".parse().unwrap();
    while !kept.0.is_over(&revoked, Epoch(1)) {
        kept.take(&world, &mut session).await;
    }
    let watch = v1::WatchHealthRequest {
        once: true,
        beats: false,
    };
    until(async || {
        let health = world.admin().watch_health(watch).await.unwrap();
        let health = health.into_inner().message().await.unwrap().unwrap();
        health
            .coordinator
            .iter()
            .any(|fault| fault.code == "withdrawn-behind" && fault.message.contains("gateway gw-b"))
            .then_some(())
    })
    .await;
    let trail = world.trail("coordinator/c1").await;
    assert!(trail.iter().any(|record| {
        matches!(&record.event.as_ref().unwrap().kind, Some(Kind::Identity(event))
            if event.step == "ahead" && event.subject == "gateway/gw-b")
    }));
}

#[tokio::test]
async fn the_list_in_a_file_for_a_site_without_a_link_is_all_of_it_and_signed_by_the_authority() {
    let world = World::start().await;
    let viewer = Person::new(&world, "vera", "vera", v1::Role::Viewer).await;
    let file = viewer.home.join("list.json");
    let arguments = ["gateways", "withdrawn", "-o", file.to_str().unwrap()];
    let nothing = viewer.reads(&arguments).await;
    assert!(
        nothing.contains("no key was withdrawn yet") && !file.exists(),
        "{nothing}"
    );

    for name in ["gw-a", "gw-b"] {
        enrolled(&world, name).await;
        let subject = format!("gateway/{name}");
        decide(&mut world.admin(), &subject, v1::StandingChange::Revoke)
            .await
            .unwrap();
        let said = viewer.reads(&arguments).await;
        assert!(said.contains("penstock-agent withdrawn take"), "{said}");
    }
    let written = std::fs::read_to_string(&file).unwrap();
    let list = SignedList::from_json(&written)
        .unwrap()
        .verify(&world.config.plant, &world.authority.roots())
        .unwrap();
    let mut kept = Withdrawn::default();
    let over = kept.take(&list).unwrap();
    assert_eq!(over.len(), 2);
    assert!(
        over.iter().all(|subject| kept.is_over(subject, Epoch(1))),
        "{over:?}"
    );
}

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;
use std::time::Duration;

use penstock_policy::ids::CoordinatorId;
use penstock_proto::refusal::Reason;
use penstock_proto::v1;
use penstock_proto::withdrawn::Withdrawn;

use super::*;
use crate::ca::Lifetimes;
use crate::store::BlockFilter;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

struct World {
    store: Store,
    authority: Arc<Authority>,
    journal: Journal,
    subjects: Subjects,
}

async fn world(dir: &Path) -> World {
    let lifetimes = Lifetimes::all(Duration::from_secs(86_400));
    let store = Store::open(&dir.join("s.db")).unwrap();
    let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
    let plant = PlantId::new("water").unwrap();
    let authority = Arc::new(Authority::create(dir, plant, lifetimes, clock::now_ms()).unwrap());
    let subjects = Subjects::open(store.clone(), journal.clone(), authority.clone());
    World {
        subjects: subjects.await.unwrap(),
        store,
        authority,
        journal,
    }
}

fn subject(text: &str) -> Subject {
    text.parse().unwrap()
}

fn key(number: u8) -> Digest {
    Digest::of(&[number])
}

fn certified(name: &str, epoch: u32, number: u8) -> Certified {
    Certified {
        identity: format!("spiffe://water/{name}").parse().unwrap(),
        epoch: Epoch(epoch),
        key: key(number),
        valid_ms: (0, u64::MAX),
        role: None,
    }
}

fn now() -> Decision<'static> {
    Decision {
        at_ms: clock::now_ms(),
        by: "anna",
        reason: "because",
    }
}

impl World {
    /// What a coordinator reads that starts on the same store.
    async fn restarted(&self) -> Subjects {
        Subjects::open(self.store.clone(), self.journal.clone(), self.authority.clone())
            .await
            .unwrap()
    }

    async fn events(&self) -> usize {
        self.store
            .blocks(BlockFilter::default(), 1000)
            .await
            .unwrap()
            .len()
    }

    async fn decide(&self, name: &str, change: StandingChange) {
        let subject = subject(name);
        let step = self.subjects.changed(&subject, change, now()).unwrap();
        let event = self.journal.own_event("test", name, "");
        self.subjects
            .apply(Change::noted(event), Some(step))
            .await
            .unwrap();
    }

    /// A key gets a certificate.
    async fn enrol(&self, name: &str, number: u8) -> Result<Epoch, Reason> {
        let subject = subject(name);
        let life = self.subjects.with_key(&subject, key(number), now(), false);
        let life = life.map_err(|refusal| refusal.reason)?;
        let event = self.journal.identity_event("enrolled", &subject, None, "");
        self.subjects
            .apply(Change::noted(event), life.step)
            .await
            .unwrap();
        Ok(life.epoch)
    }

    async fn admitted(&self, name: &str, epoch: u32, number: u8) -> Result<(), Reason> {
        let certified = certified(name, epoch, number);
        let admitted = self.subjects.admit(&certified, HERE).await;
        admitted.map_err(|refusal| refusal.reason)
    }
}

#[tokio::test]
async fn a_certificate_from_before_there_were_records_counts_and_is_held_to_its_key_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    world.admitted("gateway/gw-1", 0, 1).await.unwrap();
    assert_eq!(world.events().await, 1, "the trail says that it was adopted");
    world.admitted("gateway/gw-1", 0, 1).await.unwrap();
    assert_eq!(world.events().await, 1, "once");
    let other = world.admitted("gateway/gw-1", 0, 2).await;
    assert_eq!(other, Err(Reason::IdentityWithdrawn));
    let restarted = world.restarted().await;
    let record = restarted.record(&subject("gateway/gw-1")).unwrap();
    assert_eq!((record.epoch, record.key), (Epoch(0), Some(key(1))));
}

#[tokio::test]
async fn of_many_keys_that_nobody_recorded_one_is_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(world(dir.path()).await);
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let world = world.clone();
            tokio::spawn(async move { world.admitted("gateway/gw-1", 0, number).await })
        })
        .collect();
    let mut admitted = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => admitted += 1,
            Err(reason) => assert_eq!(reason, Reason::IdentityWithdrawn),
        }
    }
    assert_eq!(admitted, 1);
}

#[tokio::test]
async fn what_is_decided_holds_at_once_and_after_a_restart_and_stands_in_the_list() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    assert_eq!(world.enrol("gateway/gw-1", 1).await, Ok(Epoch(1)));
    world.admitted("gateway/gw-1", 1, 1).await.unwrap();
    assert_eq!(world.subjects.list().borrow().held.number, 0);
    world.decide("gateway/gw-1", StandingChange::Revoke).await;
    assert_eq!(
        world.admitted("gateway/gw-1", 1, 1).await,
        Err(Reason::IdentityWithdrawn)
    );
    assert_eq!(world.enrol("gateway/gw-1", 1).await, Err(Reason::KeyWithdrawn));
    for subjects in [world.subjects.clone(), world.restarted().await] {
        let refused = subjects.judge(&certified("gateway/gw-1", 1, 1)).unwrap_err();
        assert!(refused.message.contains("was revoked on "), "{refused}");
        assert_eq!(subjects.list().borrow().held.number, 1);
        let signed = subjects.lacking(Withdrawn::default().held()).await.unwrap();
        let roots = world.authority.roots();
        let list = signed.verify(world.authority.plant(), &roots).unwrap();
        let mut gateway = Withdrawn::default();
        gateway.take(&list).unwrap();
        assert!(gateway.is_over(&subject("gateway/gw-1"), Epoch(1)));
        assert!(subjects.lacking(gateway.held()).await.is_none());
        // Signed once for all that hold the same.
        let again = subjects.lacking(Withdrawn::default().held()).await.unwrap();
        assert!(Arc::ptr_eq(&signed, &again));
    }
    let next = world.enrol("gateway/gw-1", 2).await.unwrap();
    world.admitted("gateway/gw-1", next.0, 2).await.unwrap();
}

#[tokio::test]
async fn a_device_that_gets_another_key_goes_on_with_the_first_until_an_admin_ends_that() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    let plc = subject("device/plc-7");
    assert_eq!(world.enrol("device/plc-7", 1).await, Ok(Epoch(1)));
    assert_eq!(world.enrol("device/plc-7", 2).await, Ok(Epoch(2)));
    let over = async |epoch| {
        let mut gateway = Withdrawn::default();
        if let Some(signed) = world.subjects.lacking(gateway.held()).await {
            let roots = world.authority.roots();
            let list = signed.verify(world.authority.plant(), &roots).unwrap();
            gateway.take(&list).unwrap();
        }
        gateway.is_over(&plc, Epoch(epoch))
    };
    assert!(!over(1).await);
    world.decide("device/plc-7", StandingChange::RevokeEarlier).await;
    assert!(over(1).await && !over(2).await);
    assert_eq!(world.enrol("device/plc-7", 1).await, Err(Reason::KeyWithdrawn));
    assert_eq!(world.enrol("device/plc-7", 2).await, Ok(Epoch(2)), "renewed");
    world.decide("device/plc-7", StandingChange::Revoke).await;
    assert!(over(2).await);
}

#[tokio::test]
async fn a_certificate_is_renewed_for_the_key_that_it_has_and_while_that_counts() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    world.enrol("gateway/gw-1", 1).await.unwrap();
    let renewed = |epoch, from, to| {
        let held = certified("gateway/gw-1", epoch, from);
        let life = world.subjects.renewed(&held, key(to), 0);
        life.map(|life| (life.epoch, life.step.is_some()))
            .map_err(|refusal| refusal.reason)
    };
    assert_eq!(renewed(1, 1, 1), Ok((Epoch(1), false)), "the same life");
    assert_eq!(renewed(1, 1, 2), Err(Reason::OtherKey));
    // One that began at another coordinator goes on in its own life.
    assert_eq!(renewed(4, 7, 7), Ok((Epoch(4), true)));
    assert_eq!(renewed(4, 7, 2), Err(Reason::OtherKey));
    world.enrol("gateway/gw-1", 2).await.unwrap();
    assert_eq!(renewed(1, 1, 1), Err(Reason::IdentityWithdrawn));
    // Also not for the key that counts by now.
    assert_eq!(renewed(1, 1, 2), Err(Reason::IdentityWithdrawn));
    assert_eq!(renewed(2, 2, 2), Ok((Epoch(2), false)));
    world.decide("gateway/gw-1", StandingChange::Suspend).await;
    for number in [2, 3] {
        assert_eq!(renewed(2, 2, number), Err(Reason::IdentitySuspended));
    }
    world.decide("gateway/gw-1", StandingChange::Revoke).await;
    for number in [1, 2, 3] {
        assert_eq!(renewed(2, 2, number), Err(Reason::IdentityWithdrawn));
    }
}

#[tokio::test]
async fn an_enrolment_that_was_judged_before_a_revocation_writes_nothing_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    world.enrol("gateway/gw-1", 1).await.unwrap();
    let name = subject("gateway/gw-1");
    let life = world.subjects.with_key(&name, key(2), now(), false).unwrap();
    world.decide("gateway/gw-1", StandingChange::Revoke).await;
    let event = world.journal.own_event("test", "", "");
    let late = world.subjects.apply(Change::noted(event), life.step).await;
    assert!(matches!(late, Err(StoreError::Conflict { .. })), "{late:?}");
    let held = certified("gateway/gw-1", 1, 1);
    let again = world.subjects.renewed(&held, key(1), 0).unwrap_err();
    assert_eq!(again.reason, Reason::IdentityWithdrawn);
}

#[tokio::test]
async fn a_gateway_that_holds_a_longer_list_is_noted_and_gets_what_is_said_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    let mut gateway = Withdrawn::default();
    for number in 0..9 {
        gateway.withdraw(&subject(&format!("device/plc-{number}")), Epoch(2));
    }
    let name = GatewayId::new("gw-1").unwrap();
    assert_eq!(*world.subjects.behind().borrow(), None);
    world.subjects.heard(&name, gateway.held()).await;
    let events = world.events().await;
    assert_eq!(events, 1);
    let behind = world.subjects.behind().borrow().clone().unwrap();
    assert!(behind.contains("gw-1") && behind.contains("number 9"), "{behind}");
    world.subjects.heard(&name, gateway.held()).await;
    assert_eq!(world.events().await, events, "once");

    world.enrol("device/plc-77", 1).await.unwrap();
    world.decide("device/plc-77", StandingChange::Revoke).await;
    let signed = world.subjects.lacking(gateway.held()).await.unwrap();
    let list = signed
        .verify(world.authority.plant(), &world.authority.roots())
        .unwrap();
    gateway.take(&list).unwrap();
    assert!(gateway.is_over(&subject("device/plc-77"), Epoch(1)));
    assert!(gateway.is_over(&subject("device/plc-3"), Epoch(1)));
    // What begins from now on lies beyond whatever was lost, also after a restart.
    for subjects in [&world.subjects, &world.restarted().await] {
        let life = subjects
            .with_key(&subject("device/plc-3"), key(9), now(), false)
            .unwrap();
        assert!(
            !gateway.is_over(&subject("device/plc-3"), life.epoch),
            "{}",
            life.epoch
        );
    }
    // Who renews goes on in their own life.
    let held = certified("gateway/gw-9", 4, 1);
    let life = world.subjects.renewed(&held, key(1), 0).unwrap();
    assert_eq!(life.epoch, Epoch(4));
    // A number that nobody can have is not believed: there would be none left.
    let liar = Held {
        number: u64::MAX,
        ..gateway.held()
    };
    world.subjects.heard(&name, liar).await;
    assert!(world.restarted().await.list().borrow().held.number < 100);
}

/// What a gateway holds that was brought all of the list, and how it proves that.
async fn gateway_of(subjects: &Subjects, authority: &Authority) -> (Withdrawn, v1::WithdrawnProof) {
    let signed = subjects.lacking(Withdrawn::default().held()).await.unwrap();
    let list = signed.verify(authority.plant(), &authority.roots()).unwrap();
    let mut gateway = Withdrawn::default();
    gateway.take(&list).unwrap();
    let proof = (gateway.snapshot(), signed.held.clone().unwrap()).into();
    (gateway, proof)
}

#[tokio::test]
async fn a_coordinator_that_was_restored_from_a_backup_learns_from_a_gateway_whose_keys_were_withdrawn_since()
{
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    for (name, number) in [("gateway/gw-1", 1), ("gateway/gw-2", 2), ("operator/carla", 3)] {
        world.enrol(name, number).await.unwrap();
    }
    let backup = dir.path().join("backup.db");
    crate::store::backup_file(&dir.path().join("s.db"), &backup).unwrap();
    world.decide("gateway/gw-1", StandingChange::Revoke).await;
    world.decide("operator/carla", StandingChange::Retire).await;
    // A new key took the place of another: that life goes on.
    assert_eq!(world.enrol("gateway/gw-2", 4).await, Ok(Epoch(2)));
    let (gateway, proof) = gateway_of(&world.subjects, &world.authority).await;

    let store = Store::open(&backup).unwrap();
    let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
    let subjects = Subjects::open(store.clone(), journal.clone(), world.authority.clone());
    let restored = World {
        subjects: subjects.await.unwrap(),
        store,
        authority: world.authority.clone(),
        journal,
    };
    restored.admitted("gateway/gw-1", 1, 1).await.unwrap();
    let name = GatewayId::new("gw-9").unwrap();
    assert!(restored.subjects.asks(&name, gateway.held()));
    // What is not proved is not believed.
    let mut forged = proof.clone();
    forged.list = [forged.list.as_ref(), b"operator/anna\0\0\0\0\x09"]
        .concat()
        .into();
    let unsigned = v1::WithdrawnProof {
        list: proof.list.clone(),
        ..v1::WithdrawnProof::default()
    };
    for bad in [forged, unsigned] {
        restored.subjects.learn(&name, &bad).await;
        assert_eq!(restored.subjects.list().borrow().held.number, 0);
        assert_eq!(*restored.subjects.restored().borrow(), None);
    }
    restored.subjects.heard(&name, gateway.held()).await;
    assert!(restored.subjects.behind().borrow().is_some());
    let events = restored.events().await;
    restored.subjects.learn(&name, &proof).await;
    assert_eq!(restored.events().await, events + 1);
    restored.subjects.learn(&name, &proof).await;
    assert_eq!(restored.events().await, events + 1, "once");
    assert_eq!(*restored.subjects.behind().borrow(), None);
    let said = restored.subjects.restored().borrow().clone().unwrap();
    for named in [
        "gateway gw-9",
        "gateway/gw-1 (only life 2",
        "operator/carla (only life 2",
    ] {
        assert!(said.contains(named), "{said}");
    }
    for subjects in [restored.subjects.clone(), restored.restarted().await] {
        let counts = |name: &str, epoch, number| subjects.judge(&certified(name, epoch, number)).is_ok();
        assert!(
            !counts("gateway/gw-1", 1, 1) && !counts("operator/carla", 1, 3) && !counts("gateway/gw-2", 1, 2)
        );
        assert!(counts("gateway/gw-2", 2, 4), "the key that took its place counts");
        assert!(!subjects.asks(&name, gateway_of(&subjects, &world.authority).await.0.held()));
        // Whoever held what the backup knew hears of all of it.
        assert!(says_all(
            &gateway_of(&subjects, &world.authority).await.0,
            &gateway
        ));
    }
    assert_eq!(restored.enrol("gateway/gw-1", 1).await, Err(Reason::KeyWithdrawn));
    restored.admitted("gateway/gw-2", 2, 4).await.unwrap();
    let held = certified("gateway/gw-1", 1, 1);
    let renewed = restored.subjects.renewed(&held, key(1), 0).unwrap_err();
    assert_eq!(renewed.reason, Reason::IdentityWithdrawn);
    // A new life lies beyond what any list says.
    let life = restored.enrol("gateway/gw-1", 5).await.unwrap();
    assert!(!gateway.is_over(&subject("gateway/gw-1"), life));
}

fn says_all(one: &Withdrawn, other: &Withdrawn) -> bool {
    other
        .entries()
        .all(|(subject, from)| one.from(subject) >= Some(from))
}

#[tokio::test]
async fn an_older_list_leaves_the_warning_that_a_longer_one_was_heard_of() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    let mut list = Withdrawn::default();
    list.withdraw(&subject("device/plc-1"), Epoch(2));
    let older = (list.held(), list.clone());
    list.withdraw(&subject("device/plc-2"), Epoch(2));
    let newer = (list.held(), list);
    let name = GatewayId::new("gw-1").unwrap();
    let merge = async |(held, theirs): &(Held, Withdrawn)| {
        let change = |_: &[(Subject, Epoch)]| Ok(Change::noted(world.journal.own_event("test", "list", "")));
        let merged = world
            .subjects
            .0
            .lists
            .merge(&world.store, (*held, theirs), change);
        merged.await.unwrap();
        world.subjects.behind().borrow().is_some()
    };
    world.subjects.heard(&name, newer.0).await;
    assert!(merge(&older).await, "it proves nothing of number 2");
    let liar = Held {
        number: u64::MAX,
        ..newer.0
    };
    world.subjects.heard(&GatewayId::new("liar").unwrap(), liar).await;
    let behind = world.subjects.behind().borrow().clone().unwrap();
    assert!(behind.contains("gw-1"), "{behind}");
    assert!(!merge(&newer).await);
}

#[tokio::test]
async fn a_gateway_that_comes_again_and_again_keeps_no_other_from_being_asked_for_its_list() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    let mut list = Withdrawn::default();
    list.withdraw(&subject("device/plc-1"), Epoch(2));
    let asks = |name: &str| world.subjects.asks(&GatewayId::new(name).unwrap(), list.held());
    let asked: Vec<bool> = (0..50).map(|_| asks("stolen")).collect();
    assert_eq!(asked.iter().filter(|asked| **asked).count(), 1);
    let others: Vec<bool> = (0..20).map(|number| asks(&format!("gw-{number}"))).collect();
    assert_eq!(
        others.iter().filter(|asked| **asked).count(),
        15,
        "of all within 10 s"
    );
    assert!(others[..15].iter().all(|asked| *asked));
}

#[tokio::test]
async fn what_was_learnt_back_is_said_once_and_never_at_any_length() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    let mut told = world.subjects.restored();
    let is_told = |told: &mut watch::Receiver<Option<String>>| {
        let is_told = told.has_changed().unwrap();
        told.mark_unchanged();
        is_told
    };
    for (words, is_new) in [("one", true), ("one", false), ("two", true)] {
        world.subjects.note_restored(words);
        assert_eq!(is_told(&mut told), is_new, "{words}");
    }
    for number in 0..9 {
        world
            .subjects
            .note_restored(&format!("{number}{}", "ä".repeat(1000)));
    }
    let said = told.borrow_and_update().clone().unwrap();
    assert!(
        said.starts_with("one; two; 0") && said.len() <= 4096,
        "{}",
        said.len()
    );
    world.subjects.note_restored(&"x".repeat(65_536));
    assert!(!is_told(&mut told));
}

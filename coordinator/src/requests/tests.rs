#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use penstock_policy::ids::{CoordinatorId, PlantId};
use penstock_policy::model::ApproverSet;

use super::*;
use crate::ca::{Authority, Lifetimes};
use crate::identities::Identities;
use crate::journal::Journal;
use crate::operators::Role;
use crate::releases::Releases;
use crate::store::Silent;
use crate::subjects::Decision;
use crate::tickets::Tickets;

const NOW_MS: u64 = 1_800_000_000_000;
const DAY_MS: u64 = 86_400_000;

struct World {
    store: Store,
    journal: Journal,
    subjects: Subjects,
    requests: Requests,
    identities: Identities,
}

fn name(name: &str) -> OperatorId {
    OperatorId::new(name).unwrap()
}

async fn world(dir: &Path) -> World {
    let plant = PlantId::new("water").unwrap();
    let lifetimes = Lifetimes::all(std::time::Duration::from_secs(86_400));
    let store = Store::open(&dir.join("s.db")).unwrap();
    let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
    let authority = Arc::new(Authority::create(dir, plant.clone(), lifetimes, NOW_MS).unwrap());
    let subjects = Subjects::open(store.clone(), journal.clone(), authority);
    let subjects = subjects.await.unwrap();
    let releases = Releases::open(store.clone(), plant).await.unwrap();
    let world = World {
        requests: Requests::new(store.clone(), subjects.clone()),
        identities: Identities::new(
            store.clone(),
            subjects.clone(),
            (Tickets::new(store.clone(), journal.clone()), Arc::default()),
            releases,
        ),
        store,
        journal,
        subjects,
    };
    world.logs_in("ada", Role::Admin, "ada's", u64::MAX).await;
    world
}

fn approvers(threshold: u8) -> ApproverSet {
    ApproverSet {
        threshold,
        emergency_threshold: None,
        people: BTreeMap::new(),
    }
}

fn gateway(number: usize) -> Wanted {
    Wanted::GatewayToken {
        gateway: format!("gw-{number}").parse().unwrap(),
        key: None,
        approvers: Some(approvers(2)),
        valid_seconds: 3600,
    }
}

impl World {
    async fn logs_in(&self, operator: &str, role: Role, key: &str, certificate_expires_ms: u64) {
        let subject = Subject::Operator(name(operator));
        let decision = Decision {
            at_ms: NOW_MS,
            by: "",
            reason: "a test",
        };
        let life = self
            .subjects
            .with_key(&subject, Digest::of(key.as_bytes()), decision, false)
            .unwrap();
        let record = OperatorRecord {
            role,
            enrolled_ms: NOW_MS,
            certificate_expires_ms,
        };
        let change = Change::silent(Silent::Prepared);
        let change = operators::record(&self.store, change, &name(operator), &record)
            .await
            .unwrap();
        self.subjects.apply(change, life.step).await.unwrap();
    }

    async fn asks(&self, wanted: Wanted, now_ms: u64) -> Result<Asked, Reason> {
        let ada = name("ada");
        let person = Person {
            operator: &ada,
            key: Digest::of(b"ada's"),
        };
        let deed = self.journal.deed("ada", "admin", "create-token");
        let asked = self.requests.permit(person, wanted, deed, now_ms).await;
        asked.map_err(|refusal| refusal.reason)
    }

    async fn waits(&self, wanted: Wanted, now_ms: u64) -> String {
        match self.asks(wanted, now_ms).await.unwrap() {
            Asked::Waits(request) => request.id,
            Asked::Permitted(permit) => panic!("{permit:?}"),
        }
    }

    async fn permitted(&self, wanted: Wanted, now_ms: u64) -> Permit {
        match self.asks(wanted, now_ms).await.unwrap() {
            Asked::Permitted(permit) => permit,
            Asked::Waits(request) => panic!("{request:?}"),
        }
    }

    async fn confirms(&self, operator: &str, key: &str, id: &str) -> Result<(), Reason> {
        let who = name(operator);
        let person = Person {
            operator: &who,
            key: Digest::of(key.as_bytes()),
        };
        let deed = self.journal.deed(operator, "approver", "confirm-request");
        let done = self.requests.confirm(id, person, deed, NOW_MS).await;
        done.map(drop).map_err(|refusal| refusal.reason)
    }

    async fn decides(&self, operator: &str, change: penstock_proto::v1::StandingChange, now_ms: u64) {
        let asked = penstock_proto::v1::ChangeStandingRequest {
            subject: format!("operator/{operator}"),
            change: change.into(),
            reason: "a test".to_owned(),
            ticket: String::new(),
        };
        let deed = self.journal.deed("ada", "admin", "a test");
        self.identities
            .change(&name("ada"), &asked.try_into().unwrap(), deed, now_ms)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn as_soon_as_somebody_else_could_confirm_nobody_does_it_alone() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    let alone = "alone: nobody could confirm";
    assert_eq!(world.permitted(gateway(1), NOW_MS).await.words(), alone);
    // Neither who only looks nor who proposes, and nobody with the same key under another name.
    world.logs_in("vic", Role::Viewer, "vic's", u64::MAX).await;
    world.logs_in("erik", Role::Engineer, "erik's", u64::MAX).await;
    world.logs_in("ada-2", Role::Approver, "ada's", u64::MAX).await;
    assert_eq!(world.permitted(gateway(1), NOW_MS).await.words(), alone);
    world.logs_in("bob", Role::Approver, "bob's", u64::MAX).await;
    let id = world.waits(gateway(1), NOW_MS).await;
    assert_eq!(
        world.waits(gateway(1), NOW_MS).await,
        id,
        "the same again is the same request"
    );
    assert_ne!(world.waits(gateway(2), NOW_MS).await, id);
    for (operator, key) in [("ada", "ada's"), ("ada", "another"), ("ada-2", "ada's")] {
        assert_eq!(world.confirms(operator, key, &id).await, Err(Reason::SamePerson));
    }
    assert_eq!(
        world.confirms("bob", "bob's", "00000000").await,
        Err(Reason::NotFound)
    );
    world.confirms("bob", "bob's", &id).await.unwrap();
    assert_eq!(world.confirms("bob", "bob's", &id).await, Err(Reason::Conflict));
    // What was confirmed is what is done, and once.
    let other = Wanted::GatewayToken {
        gateway: "gw-1".parse().unwrap(),
        key: None,
        approvers: Some(approvers(1)),
        valid_seconds: 3600,
    };
    world.waits(other, NOW_MS).await;
    let permit = world.permitted(gateway(1), NOW_MS).await;
    assert_eq!(permit.words(), format!("confirmed by bob (request {id})"));
    let change = permit.used(Change::silent(Silent::Prepared));
    world.store.apply(change).await.unwrap();
    assert_ne!(world.waits(gateway(1), NOW_MS).await, id);
    let again = permit.used(Change::silent(Silent::Prepared));
    assert!(world.store.apply(again).await.is_err());
}

#[tokio::test]
async fn nobody_becomes_the_only_one_by_taking_the_others_out() {
    use penstock_proto::v1::StandingChange as Change;
    let later_ms = NOW_MS + AFTERWARDS_MS;
    for change in [Change::Suspend, Change::Revoke, Change::Retire] {
        let dir = tempfile::tempdir().unwrap();
        let world = world(dir.path()).await;
        world.logs_in("bob", Role::Approver, "bob's", u64::MAX).await;
        world.decides("bob", change, NOW_MS).await;
        for at_ms in [NOW_MS, later_ms - 1] {
            assert_eq!(
                world.asks(gateway(1), at_ms).await.unwrap_err(),
                Reason::NobodyConfirms
            );
        }
        world.permitted(gateway(1), later_ms).await;
    }
    // By a token for the same name and a lesser role, by another step on the way out, or by waiting for the end of a certificate.
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    world.logs_in("bob", Role::Admin, "bob's", u64::MAX).await;
    world
        .logs_in("bob", Role::Viewer, "a key of ada's", u64::MAX)
        .await;
    assert_eq!(
        world.asks(gateway(1), NOW_MS).await.unwrap_err(),
        Reason::NobodyConfirms
    );
    world.permitted(gateway(1), later_ms).await;
    world
        .logs_in("carol", Role::Approver, "carol's", NOW_MS + DAY_MS)
        .await;
    world.waits(gateway(1), NOW_MS).await;
    let ended_ms = NOW_MS + DAY_MS + 1;
    assert_eq!(
        world.asks(gateway(2), ended_ms).await.unwrap_err(),
        Reason::NobodyConfirms
    );
    world.permitted(gateway(2), later_ms + DAY_MS).await;
}

#[tokio::test]
async fn a_request_ends_after_a_week_with_whoever_asked_and_by_a_rejection() {
    use penstock_proto::v1::StandingChange as Change;
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    world.logs_in("bob", Role::Approver, "bob's", u64::MAX).await;
    let id = world.waits(gateway(1), NOW_MS - KEPT_MS).await;
    assert_eq!(world.confirms("bob", "bob's", &id).await, Err(Reason::NotFound));
    assert!(world.requests.list(NOW_MS).await.unwrap().is_empty());
    // Its place is taken by others.
    let id = world.waits(gateway(1), NOW_MS).await;
    assert_eq!(world.requests.all().await.unwrap().len(), 1);

    let ada = name("ada");
    let own = Person {
        operator: &ada,
        key: Digest::of(b"ada's"),
    };
    let deed = world.journal.deed("ada", "admin", "reject-request");
    let silent = world.requests.reject(&id, own, " ", deed, NOW_MS).await;
    assert_eq!(silent.unwrap_err().reason, Reason::BadRequest);
    world
        .requests
        .reject(&id, own, "a typo", deed, NOW_MS)
        .await
        .unwrap();
    assert_eq!(world.confirms("bob", "bob's", &id).await, Err(Reason::Conflict));
    let next = world.waits(gateway(1), NOW_MS).await;
    assert_ne!(next, id);
    // What was confirmed can still be stopped.
    world.confirms("bob", "bob's", &next).await.unwrap();
    world
        .requests
        .reject(&next, own, "a typo", deed, NOW_MS)
        .await
        .unwrap();
    let last = world.waits(gateway(1), NOW_MS).await;

    // A thief at the laptop asks, and the key is withdrawn.
    world.logs_in("carol", Role::Admin, "carol's", u64::MAX).await;
    let asked = penstock_proto::v1::ChangeStandingRequest {
        subject: "operator/ada".to_owned(),
        change: Change::Revoke.into(),
        reason: "stolen".to_owned(),
        ticket: String::new(),
    };
    let deed = world.journal.deed("carol", "admin", "revoke");
    let (carol, asked) = (name("carol"), asked.try_into().unwrap());
    let revoked = world.identities.change(&carol, &asked, deed, NOW_MS);
    revoked.await.unwrap();
    assert_eq!(
        world.confirms("bob", "bob's", &last).await,
        Err(Reason::IdentityWithdrawn)
    );
}

#[tokio::test]
async fn one_person_who_asks_for_ever_takes_bounded_room_and_what_nobody_could_judge_is_not_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    world.logs_in("bob", Role::Approver, "bob's", u64::MAX).await;
    let unseen = Wanted::GatewayToken {
        gateway: "gw-1".parse().unwrap(),
        key: None,
        approvers: None,
        valid_seconds: 3600,
    };
    assert_eq!(world.asks(unseen, NOW_MS).await.unwrap_err(), Reason::BadRequest);
    let ada = name("ada");
    let prepared = (0..KEPT_MAX.0).map(|number| RequestRecord {
        by: ada.clone(),
        key: Digest::of(b"ada's"),
        asked_ms: NOW_MS,
        wanted: gateway(number),
        decided: None,
    });
    let mut change = Change::silent(Silent::Prepared);
    for (number, record) in prepared.enumerate() {
        change = change
            .json(&key_of(&format!("{number:08x}")), Expect::Absent, &record)
            .unwrap();
    }
    world.store.apply(change).await.unwrap();
    let one_more = world.asks(gateway(KEPT_MAX.0), NOW_MS).await;
    assert_eq!(one_more.unwrap_err(), Reason::TooManyRequests);
    world.waits(gateway(1), NOW_MS).await;
}

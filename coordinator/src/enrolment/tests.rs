#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use penstock_policy::ids::{CoordinatorId, PlantId};
use penstock_proto::peer::PeerIdentity;
use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::ca::Lifetimes;
use crate::journal::Journal;

const NOW_MS: u64 = 1_800_000_000_000;
const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

struct World {
    store: Store,
    authority: Authority,
    attempts: Attempts,
    journal: Journal,
}

fn world(dir: &Path) -> World {
    let day = Duration::from_secs(86_400);
    let lifetimes = Lifetimes {
        gateway: day,
        operator: day,
        coordinator: day,
        device: day,
    };
    let store = Store::open(&dir.join("s.db")).unwrap();
    World {
        journal: Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap()),
        store,
        authority: Authority::create(dir, PlantId::new("water").unwrap(), lifetimes, NOW_MS).unwrap(),
        attempts: Attempts::new(AttemptsLimits::default()),
    }
}

fn request() -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    CertificateParams::default()
        .serialize_request(&key)
        .unwrap()
        .der()
        .to_vec()
}

impl World {
    async fn token(&self, subject: &str, role: Option<Role>) -> Secret {
        let subject = subject.parse().unwrap();
        let deed = self.journal.deed("anna", "admin", "create-token");
        create_token(&self.store, &subject, role, 3600, deed, NOW_MS)
            .await
            .unwrap()
            .secret
    }

    async fn enrol(
        &self,
        name: &str,
        secret: &[u8],
        request: &[u8],
        now_ms: u64,
    ) -> Result<EnrolmentResult, Reason> {
        let application = Application {
            name,
            secret,
            certificate_request: request,
            address: HERE,
        };
        let event = |subject: &Subject, repeated: bool| {
            let words = if repeated { "again" } else { "" };
            Some(
                self.journal
                    .identity_event("enrolled", subject, Some(HERE), words),
            )
        };
        let (store, authority, attempts) = (&self.store, &self.authority, &self.attempts);
        enrol(store, authority, attempts, application, now_ms, event)
            .await
            .map_err(|refusal| refusal.reason)
    }
}

#[tokio::test]
async fn a_token_works_once_and_again_only_for_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path());
    let secret = world.token("gateway/gw-1", None).await;
    let (mine, other) = (request(), request());
    let first = world.enrol("gw-1", &secret.0, &mine, NOW_MS).await.unwrap();
    assert!(!first.repeated);
    let again = world.enrol("gw-1", &secret.0, &mine, NOW_MS).await.unwrap();
    assert!(again.repeated);
    let identity = PeerIdentity::from_certificate(again.issued.chain.first().unwrap()).unwrap();
    assert_eq!(identity.to_string(), "spiffe://water/gateway/gw-1");
    assert_eq!(
        world.enrol("gw-1", &secret.0, &other, NOW_MS).await.unwrap_err(),
        Reason::TokenUsed
    );
    // The first key's holder is not harmed by the attempt.
    assert!(
        world
            .enrol("gw-1", &secret.0, &mine, NOW_MS)
            .await
            .unwrap()
            .repeated
    );
}

#[tokio::test]
async fn wrong_name_wrong_secret_and_unknown_name_look_the_same_and_are_limited() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path());
    let secret = world.token("gateway/gw-1", None).await;
    world.token("gateway/gw-2", None).await;
    let request = request();
    for (name, secret) in [
        ("gw-2", secret.0.to_vec()),
        ("gw-1", vec![0; 32]),
        ("gw-1", vec![0; 31]),
        ("nobody", secret.0.to_vec()),
        ("../gw-1", secret.0.to_vec()),
        ("", secret.0.to_vec()),
    ] {
        let reason = world.enrol(name, &secret, &request, NOW_MS).await.unwrap_err();
        assert_eq!(reason, Reason::TokenUnknown, "{name}");
    }
    for _ in 0..10 {
        let _ = world.enrol("gw-1", &[1; 32], &request, NOW_MS).await;
    }
    for (name, secret) in [("gw-1", &[1; 32][..]), ("gw-1", &[1; 31]), ("", &[1; 32])] {
        assert_eq!(
            world.enrol(name, secret, &request, NOW_MS).await.unwrap_err(),
            Reason::TooManyAttempts
        );
    }
    // Whoever was wrong at this address does not lock out the one with the right token.
    world.enrol("gw-1", &secret.0, &request, NOW_MS).await.unwrap();
}

#[tokio::test]
async fn an_expired_or_replaced_token_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path());
    let old = world.token("gateway/gw-1", None).await;
    let new = world.token("gateway/gw-1", None).await;
    let request = request();
    assert_eq!(
        world.enrol("gw-1", &old.0, &request, NOW_MS).await.unwrap_err(),
        Reason::TokenUnknown
    );
    assert_eq!(
        world
            .enrol("gw-1", &new.0, &request, NOW_MS + 3_600_000)
            .await
            .unwrap_err(),
        Reason::TokenExpired
    );
    world
        .enrol("gw-1", &new.0, &request, NOW_MS + 3_599_999)
        .await
        .unwrap();
}

#[tokio::test]
async fn of_many_keys_at_once_one_token_serves_exactly_one() {
    let dir = tempfile::tempdir().unwrap();
    let world = std::sync::Arc::new(world(dir.path()));
    let secret = world.token("gateway/gw-1", None).await;
    // No more than may be wrong from one address.
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let (world, secret) = (world.clone(), secret.clone());
            tokio::spawn(async move { world.enrol("gw-1", &secret.0, &request(), NOW_MS).await })
        })
        .collect();
    let mut served = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(enrolled) => {
                assert!(!enrolled.repeated);
                served += 1;
            }
            Err(reason) => assert!(
                matches!(reason, Reason::TokenUsed | Reason::Conflict),
                "{reason:?}"
            ),
        }
    }
    assert_eq!(served, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enrolment_is_not_refused_because_a_session_notes_the_same_gateway_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path());
    let store = world.store.clone();
    let noting = tokio::spawn(async move {
        loop {
            let change = Change::silent(crate::store::Silent::Observed);
            let update = |record: &mut GatewayRecord| record.last_seen_ms += 1;
            update_gateway(&store, change, "gw-1", update).await.unwrap();
        }
    });
    for _ in 0..20 {
        let secret = world.token("gateway/gw-1", None).await;
        world.enrol("gw-1", &secret.0, &request(), NOW_MS).await.unwrap();
    }
    noting.abort();
    let (record, _) = world
        .store
        .get_json::<GatewayRecord>("gateway/gw-1")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(record.enrolled_ms, NOW_MS);
}

#[tokio::test]
async fn an_operators_role_is_the_tokens_and_secrets_are_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path());
    let secret = world.token("operator/bob", Some(Role::Approver)).await;
    world.enrol("bob", &secret.0, &request(), NOW_MS).await.unwrap();
    let bob = penstock_policy::ids::OperatorId::new("bob").unwrap();
    assert_eq!(
        operators::role_of(&world.store, &bob).await.unwrap(),
        Some(Role::Approver)
    );
    for (_, record) in world.store.list("").await.unwrap() {
        assert!(
            !record
                .value
                .windows(8)
                .any(|w| secret.0.windows(8).any(|s| s == w))
        );
        let text = String::from_utf8(record.value).unwrap();
        assert!(!text.contains(&String::from(secret.clone())));
        assert!(!text.contains(&hex::encode(secret.0)));
    }
}

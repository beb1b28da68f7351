#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use penstock_policy::ids::{CoordinatorId, PlantId};
use penstock_proto::peer::{Epoch, PeerIdentity};
use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::ca::Lifetimes;
use crate::journal::Journal;

const NOW_MS: u64 = 1_800_000_000_000;
const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

struct World {
    store: Store,
    authority: std::sync::Arc<Authority>,
    subjects: Subjects,
    attempts: Attempts,
    journal: Journal,
}

async fn world(dir: &Path) -> World {
    let lifetimes = Lifetimes::all(Duration::from_secs(86_400));
    let store = Store::open(&dir.join("s.db")).unwrap();
    let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
    let authority = Authority::create(dir, PlantId::new("water").unwrap(), lifetimes, NOW_MS).unwrap();
    let authority = std::sync::Arc::new(authority);
    let subjects = Subjects::open(store.clone(), journal.clone(), authority.clone());
    World {
        subjects: subjects.await.unwrap(),
        journal,
        store,
        authority,
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
        self.token_for_key(subject, role, None).await
    }

    async fn token_for_key(&self, subject: &str, role: Option<Role>, key: Option<Digest>) -> Secret {
        self.token_for(TokenWish {
            device_role: None,
            subject: subject.parse().unwrap(),
            role,
            key,
            approvers: None,
            valid_seconds: 3600,
        })
        .await
    }

    async fn token_for(&self, wish: TokenWish) -> Secret {
        let deed = self.journal.deed("anna", "admin", "create-token");
        create_token(&self.store, &wish, &Permit::free(), deed, NOW_MS)
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
        self.enrol_believing(name, secret, request, &[], now_ms).await
    }

    async fn enrol_believing(
        &self,
        name: &str,
        secret: &[u8],
        request: &[u8],
        approvers_digest: &[u8],
        now_ms: u64,
    ) -> Result<EnrolmentResult, Reason> {
        let application = Application {
            name,
            secret,
            certificate_request: request,
            approvers_digest,
            address: HERE,
        };
        let event = |given: Given<'_>| {
            let words = if given.repeated { "again" } else { "" };
            Some(
                self.journal
                    .identity_event("enrolled", given.subject, Some(HERE), words),
            )
        };
        let issues = (&self.subjects, &*self.authority);
        let applied = (Applicants::Peers, application);
        enrol(&self.store, issues, &self.attempts, applied, now_ms, event)
            .await
            .map_err(|refusal| refusal.reason)
    }
}

#[tokio::test]
async fn a_token_works_once_and_again_only_for_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
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
async fn a_token_that_is_bound_to_a_key_enrols_that_key_alone_and_each_other_one_is_an_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    let (mine, other) = (request(), request());
    let bound = ProvenKey::of_request(&mine).unwrap().digest();
    let secret = world.token_for_key("gateway/gw-1", None, Some(bound)).await;
    for _ in 0..20 {
        let refused = world.enrol("gw-1", &secret.0, &other, NOW_MS).await.unwrap_err();
        if refused == Reason::TooManyAttempts {
            break;
        }
        assert_eq!(refused, Reason::TokenForOtherKey);
    }
    let refused = world.enrol("gw-1", &secret.0, &other, NOW_MS).await.unwrap_err();
    assert_eq!(refused, Reason::TooManyAttempts);
    // Nothing of it is used, and the right one passes all the same.
    assert!(
        !world
            .enrol("gw-1", &secret.0, &mine, NOW_MS)
            .await
            .unwrap()
            .repeated
    );
    let again = world.enrol("gw-1", &secret.0, &mine, NOW_MS).await.unwrap();
    assert!(again.repeated);
}

#[test]
fn a_token_that_was_made_before_tokens_were_bound_is_bound_to_none_and_one_that_is_not_is_written_as_before()
{
    let old = r#"{"secret":"sha256:0000000000000000000000000000000000000000000000000000000000000000","role":null,"expires_ms":9,"created_by":"anna","created_ms":1,"used":null}"#;
    let record: TokenRecord = serde_json::from_str(old).unwrap();
    assert_eq!((record.key, record.batch), (None, None));
    assert_eq!(serde_json::to_string(&record).unwrap(), old);
}

#[tokio::test]
async fn wrong_name_wrong_secret_and_unknown_name_look_the_same_and_are_limited() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
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
    let world = world(dir.path()).await;
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
    let world = std::sync::Arc::new(world(dir.path()).await);
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
    let world = world(dir.path()).await;
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
    let world = world(dir.path()).await;
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

#[tokio::test]
async fn a_used_token_brings_no_key_back_that_another_took_the_place_of() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    let (first, second) = (request(), request());
    let epoch_of = |enrolled: &EnrolmentResult| {
        let leaf = enrolled.issued.chain.first().unwrap();
        Certified::from_certificate(leaf).unwrap().epoch.0
    };
    let old = world.token("gateway/gw-1", None).await;
    let enrolled = world.enrol("gw-1", &old.0, &first, NOW_MS).await.unwrap();
    assert_eq!(epoch_of(&enrolled), 1);
    // A new token for the same key goes on with its life.
    let same = world.token("gateway/gw-1", None).await;
    let enrolled = world.enrol("gw-1", &same.0, &first, NOW_MS).await.unwrap();
    assert_eq!(epoch_of(&enrolled), 1);
    // Another key takes its place, by a certificate of a later life that counts; tokens know nothing of that.
    let later = Certified {
        epoch: Epoch(2),
        key: ProvenKey::of_request(&second).unwrap().digest(),
        ..Certified::from_certificate(enrolled.issued.chain.first().unwrap()).unwrap()
    };
    world.subjects.admit(&later, HERE).await.unwrap();
    assert_eq!(
        world.enrol("gw-1", &same.0, &first, NOW_MS).await.unwrap_err(),
        Reason::IdentityWithdrawn
    );
    let new = world.token("gateway/gw-1", None).await;
    let enrolled = world.enrol("gw-1", &new.0, &first, NOW_MS).await.unwrap();
    assert_eq!(
        epoch_of(&enrolled),
        3,
        "an admin may bring a key back that was not withdrawn"
    );
}

#[tokio::test]
async fn a_lost_answer_from_before_there_were_records_is_repeated_in_the_same_life() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    let secret = world.token("gateway/gw-1", None).await;
    let mine = request();
    world.enrol("gw-1", &secret.0, &mine, NOW_MS).await.unwrap();
    // As older software left it: a used token, and no record of the key.
    let record = world.store.get("subject/gateway/gw-1").await.unwrap().unwrap();
    let removed = world.store.delete_if("subject/gateway/gw-1", record.revision);
    removed.await.unwrap();
    let (journal, authority) = (world.journal.clone(), world.authority.clone());
    let subjects = Subjects::open(world.store.clone(), journal, authority)
        .await
        .unwrap();
    let world = World { subjects, ..world };
    let again = world.enrol("gw-1", &secret.0, &mine, NOW_MS).await.unwrap();
    let certified = Certified::from_certificate(again.issued.chain.first().unwrap()).unwrap();
    assert_eq!(certified.epoch.0, 0, "what it may hold already goes on counting");
    assert!(world.subjects.judge(&certified).is_ok());
}

#[tokio::test]
async fn a_gateway_that_would_believe_other_approvers_than_its_token_was_made_for_is_not_enrolled_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    let approvers = |threshold| ApproverSet {
        threshold,
        emergency_threshold: None,
        people: BTreeMap::new(),
    };
    let wish = TokenWish {
        device_role: None,
        subject: "gateway/gw-1".parse().unwrap(),
        role: None,
        key: None,
        approvers: Some(approvers(2)),
        valid_seconds: 3600,
    };
    let secret = world.token_for(wish).await;
    let request = request();
    // An edited file, and an agent that does not say.
    let other = approvers(1).digest();
    for digest in [&other.0[..], &[], b"x"] {
        let refused = world.enrol_believing("gw-1", &secret.0, &request, digest, NOW_MS);
        assert_eq!(refused.await.unwrap_err(), Reason::ApproversMismatch);
    }
    // The token is not used up by it.
    let digest = approvers(2).digest();
    let enrolled = world.enrol_believing("gw-1", &secret.0, &request, &digest.0, NOW_MS);
    assert!(!enrolled.await.unwrap().repeated);
}

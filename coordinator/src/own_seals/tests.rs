//! What a coordinator leaves of its own trail, judged by the verifier that everybody uses: with the plant's real authority and store.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::PathBuf;

use penstock_policy::ids::CoordinatorId;
use penstock_proto::audit::chain::{SealFinding, SealTrust};
use penstock_proto::audit::verify::{Finding, TrailReport, TrailVerifier};
use penstock_proto::keys::{FileKey, Key, KeyKind};
use penstock_proto::peer::{Epoch, Subject};
use penstock_proto::tls::Credentials;
use penstock_proto::tls::names::ServerNames;
use penstock_proto::v1::AuditBlock;
use proptest::prelude::*;

use super::*;
use crate::ca::{Authority, Lifetimes};
use crate::store::{BlockFilter, backup_file};

struct Place {
    folder: tempfile::TempDir,
    plant: PlantId,
    authority: Authority,
}

/// A coordinator that runs there.
struct Coordinator {
    store: Store,
    journal: Journal,
    seals: OwnSeals,
    credentials: Arc<ServerCredentials>,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plant: PlantId = "works".parse().unwrap();
        let lifetimes = Lifetimes::all(Duration::from_secs(86_400));
        let authority = Authority::create(folder.path(), plant.clone(), lifetimes, clock::now_ms()).unwrap();
        Self {
            folder,
            plant,
            authority,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn certified(&self) -> Credentials {
        let key: Key = FileKey::generate(KeyKind::EcdsaP256).unwrap().into();
        let subject = Subject::Coordinator(CoordinatorId::new("c1").unwrap());
        let names = ServerNames::default();
        self.authority
            .issue_own((&subject, Epoch::default()), &names, key, clock::now_ms())
            .unwrap()
    }

    async fn starts(&self) -> Coordinator {
        let store = Store::open(&self.file("s.db")).unwrap();
        let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
        let mut seals = OwnSeals::new(store.clone(), journal.clone(), &self.plant, self.folder.path());
        seals.settle().await;
        assert_eq!(*seals.fault().borrow(), None);
        Coordinator {
            store,
            journal,
            seals,
            credentials: ServerCredentials::new(&self.certified()).unwrap(),
        }
    }

    async fn proved(&self, store: &Store) -> TrailReport {
        let roots = self.authority.roots();
        let mut verifier = TrailVerifier::new(SealTrust {
            plant: &self.plant,
            source: "coordinator/c1".into(),
            roots: &roots,
        });
        let own = BlockFilter {
            source: Some("coordinator/c1".to_owned()),
            ..BlockFilter::default()
        };
        for stored in store.blocks(own, 10_000).await.unwrap() {
            let found = store
                .block_at(&stored.source, stored.epoch, stored.sequence)
                .await
                .unwrap()
                .unwrap();
            let block = AuditBlock {
                epoch: stored.epoch,
                sequence: stored.sequence,
                previous_digest: found.previous.to_vec().into(),
                body: stored.body,
            };
            verifier.take(&block, None);
        }
        verifier.report()
    }
}

impl Coordinator {
    async fn event(&self) {
        let deed = self.journal.deed("anna", "admin", "stop-rollout");
        let target = format!("r{}", clock::now_ms());
        deed.refused(&target, "no").await.unwrap();
    }

    async fn seals(&mut self) {
        assert!(self.seals.seal().await);
        self.seals.vouch(&self.credentials).await;
        assert_eq!(*self.seals.fault().borrow(), None);
    }
}

fn keys_began_again(report: &TrailReport) -> usize {
    let again = |found: &&Finding| matches!(found, Finding::Seal(SealFinding::BeganWithEpoch { .. }));
    report.findings.iter().filter(again).count()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 20))]

    #[test]
    fn what_a_coordinator_wrote_is_whole_and_proved_whatever_step_it_stopped_at(
        steps in proptest::collection::vec(0..6_u8, 1..15),
    ) {
        runtime().block_on(async {
            let place = Place::new();
            let mut coordinator = place.starts().await;
            for step in &steps {
                match step {
                    0..=2 => coordinator.event().await,
                    3 => coordinator.seals().await,
                    // Stopped behind the seal, before its key was erased.
                    4 => {
                        coordinator.event().await;
                        let before = std::fs::read(place.file(KEYS)).ok();
                        coordinator.seals().await;
                        if let Some(before) = before {
                            std::fs::write(place.file(KEYS), before).unwrap();
                        }
                        drop(coordinator);
                        coordinator = place.starts().await;
                    }
                    _ => {
                        drop(coordinator);
                        coordinator = place.starts().await;
                    }
                }
            }
            coordinator.event().await;
            coordinator.seals().await;
            let report = place.proved(&coordinator.store).await;
            assert!(report.is_whole(), "{report}");
            assert_eq!((report.unsealed, report.loose, report.missing), ((0, 0), 0, 0));
            // The coordinator's key vouches for the first seal after a start, and each hour; keys that sign once lead from there to the newest.
            assert!(report.vouched.is_some() && report.sealed.is_some());
            assert_eq!(report.first.unwrap().epoch, report.end.unwrap().epoch, "one epoch");
            // Nothing is left to seal.
            let end = report.end;
            coordinator.seals().await;
            assert_eq!(place.proved(&coordinator.store).await.end, end);
        });
    }
}

#[tokio::test]
async fn a_store_that_was_restored_goes_on_in_a_new_epoch_by_new_keys_and_says_so() {
    let place = Place::new();
    let mut coordinator = place.starts().await;
    coordinator.event().await;
    coordinator.seals().await;
    let backup = place.file("backup.db");
    backup_file(&place.file("s.db"), &backup).unwrap();
    coordinator.event().await;
    coordinator.seals().await;
    drop(coordinator);
    let restore = || {
        for lost in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(place.file(&format!("s.db{lost}")));
        }
        std::fs::copy(&backup, place.file("s.db")).unwrap();
    };
    // The store alone; all of it, on another machine; the keys alone.
    for what in 0..3 {
        match what {
            0 => restore(),
            1 => std::fs::remove_file(place.file(KEYS)).unwrap(),
            _ => {
                let mut earlier = place.starts().await;
                earlier.event().await;
                earlier.seals().await;
                let kept = std::fs::read(place.file(KEYS)).unwrap();
                for _ in 0..2 {
                    earlier.event().await;
                    earlier.seals().await;
                }
                std::fs::write(place.file(KEYS), kept).unwrap();
            }
        }
        let mut restored = place.starts().await;
        restored.event().await;
        restored.seals().await;
        let report = place.proved(&restored.store).await;
        assert_eq!(keys_began_again(&report), what + 1, "{report}");
        assert_eq!(report.end.unwrap().epoch, 2 + what as u64, "{report}");
        assert_eq!((report.vouched, report.unsealed), (report.sealed, (0, 0)));
        // From then on it is as it was.
        drop(restored);
        let again = place.starts().await;
        assert_eq!(place.proved(&again.store).await.end, report.end);
    }
    let said = BlockFilter {
        source: Some("coordinator/c1".to_owned()),
        kinds: penstock_proto::event::EventKind::Trail.bit(),
        ..BlockFilter::default()
    };
    let coordinator = place.starts().await;
    assert_eq!(coordinator.store.blocks(said, 100).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_trail_of_an_older_version_is_whole_without_seals_and_sealed_from_the_next_start_on() {
    let place = Place::new();
    let store = Store::open(&place.file("s.db")).unwrap();
    let older = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
    for target in 0..3 {
        let deed = older.deed("anna", "admin", "stop-rollout");
        deed.refused(&target.to_string(), "no").await.unwrap();
    }
    let report = place.proved(&store).await;
    assert!(report.is_whole() && report.sealed.is_none(), "{report}");
    drop((older, store));
    let mut coordinator = place.starts().await;
    coordinator.seals().await;
    let report = place.proved(&coordinator.store).await;
    assert!(report.is_whole(), "{report}");
    assert_eq!((report.end.unwrap().epoch, report.unsealed), (1, (0, 0)));
    assert_eq!(report.sealed.unwrap().sequence, 3, "all of it");
}

#[tokio::test]
async fn another_certificate_vouches_at_once_and_keys_that_cannot_be_kept_are_a_fault_and_stop_nothing() {
    let place = Place::new();
    let mut coordinator = place.starts().await;
    coordinator.event().await;
    coordinator.seals().await;
    coordinator.event().await;
    coordinator.seals().await;
    let report = place.proved(&coordinator.store).await;
    assert!(report.vouched < report.sealed, "once an hour is enough");
    coordinator.credentials.replace(&place.certified()).unwrap();
    coordinator.event().await;
    coordinator.seals().await;
    let report = place.proved(&coordinator.store).await;
    assert!(report.is_whole() && report.vouched == report.sealed, "{report}");

    std::fs::create_dir(place.file("seal.keys.new")).unwrap();
    coordinator.event().await;
    assert!(!coordinator.seals.seal().await);
    let fault = coordinator.seals.fault().borrow().clone().unwrap();
    assert!(fault.contains("seal.keys"), "{fault}");
    coordinator.event().await;
    std::fs::remove_dir(place.file("seal.keys.new")).unwrap();
    coordinator.seals().await;
    let report = place.proved(&coordinator.store).await;
    assert!(report.is_whole() && report.unsealed == (0, 0), "{report}");
}

#[tokio::test]
async fn what_operators_do_is_sealed_within_seconds_and_what_is_left_when_the_coordinator_stops() {
    let place = Place::new();
    let Coordinator {
        store,
        journal,
        seals,
        credentials,
    } = place.starts().await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(seals.follow(credentials, stop.clone()));
    let deed = journal.deed("anna", "admin", "stop-rollout");
    deed.refused("r1", "no").await.unwrap();
    while place.proved(&store).await.sealed.is_none() {
        tokio::time::sleep(LOOK).await;
    }
    deed.refused("r2", "no").await.unwrap();
    stop.cancel();
    running.await.unwrap();
    let report = place.proved(&store).await;
    assert!(report.is_whole() && report.unsealed == (0, 0), "{report}");
}

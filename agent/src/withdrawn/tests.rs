#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use penstock_policy::ids::Digest;
use penstock_policy::ids::PlantId;
use penstock_policy::model::ApproverSet;
use penstock_proto::keys::{FileKey, Key, KeyKind};
use penstock_proto::peer::Epoch;
use penstock_proto::tls::certificates_to_pem;
use penstock_proto::v1::AuditEvent;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::withdrawn::{Held, List};
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tokio::sync::mpsc;

use super::*;
use crate::identity::{Enrolment, IdentityFolder};

/// The plant's authority, and the folder of one gateway.
struct Plant {
    root: CertifiedIssuer<'static, KeyPair>,
    key: Key,
    folder: tempfile::TempDir,
}

fn plant() -> PlantId {
    "works".parse().unwrap()
}

impl Plant {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pair = KeyPair::generate().unwrap();
        let pem = pair.serialize_pem();
        Self {
            root: CertifiedIssuer::self_signed(params, pair).unwrap(),
            key: FileKey::from_pem(pem.as_bytes(), "the authority").unwrap().into(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// The gateway, with a certificate of this life.
    fn identity(&self, epoch: u32) -> Arc<Identity> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params
            .subject_alt_names
            .push(SanType::URI("spiffe://works/gateway/gw".try_into().unwrap()));
        params.distinguished_name.push(
            rcgen::DnType::CustomDnType(vec![2, 5, 4, 5]),
            rcgen::DnValue::Utf8String(epoch.to_string()),
        );
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.root).unwrap();
        let files = self.folder.path().join("identity");
        std::fs::create_dir_all(&files).unwrap();
        std::fs::write(files.join("chain.pem"), certificates_to_pem(&[leaf.der()])).unwrap();
        std::fs::write(files.join("roots.pem"), certificates_to_pem(&[self.root.der()])).unwrap();
        std::fs::write(files.join("key.pem"), key.serialize_pem()).unwrap();
        let enrolment = Enrolment {
            plant: plant(),
            gateway: "gw".parse().unwrap(),
            coordinators: Vec::new(),
            root_digest: Digest::of(self.root.der()),
            approvers: ApproverSet {
                emergency_threshold: None,
                threshold: 1,
                people: BTreeMap::new(),
            },
        };
        Arc::new(IdentityFolder::new(self.folder.path()).load(enrolment).unwrap())
    }

    fn sign(&self, list: &List) -> SignedList {
        SignedList::sign(list, &self.key).unwrap()
    }

    /// All that this list says.
    fn whole(&self, list: &Withdrawn) -> SignedList {
        self.sign(&list.since(nothing(), &plant(), 1).unwrap())
    }

    /// An agent's part in it.
    fn keeper(&self) -> (Arc<WithdrawnKeeper>, mpsc::Receiver<AuditEvent>) {
        self.keeper_of(self.identity(1)).0
    }

    #[allow(clippy::type_complexity)]
    fn keeper_of(
        &self,
        identity: Arc<Identity>,
    ) -> (
        (Arc<WithdrawnKeeper>, mpsc::Receiver<AuditEvent>),
        watch::Sender<Option<Arc<Identity>>>,
    ) {
        let store = Arc::new(Mutex::new(Store::open(self.folder.path())));
        let (audit, events) = Audit::without_spool();
        let (identity, known) = watch::channel(Some(identity));
        let mut stored = StoredList::read(&mut *locked(&store));
        stored.again = Duration::from_millis(5);
        ((stored.keep(store, audit, known), events), identity)
    }
}

fn nothing() -> Held {
    Withdrawn::default().held()
}

fn device(number: u8) -> Subject {
    format!("device/plc-{number}").parse().unwrap()
}

fn withdrawing(subjects: &[(u8, u32)]) -> Withdrawn {
    let mut list = Withdrawn::default();
    for (number, from) in subjects {
        list.withdraw(&device(*number), Epoch(*from));
    }
    list
}

fn on_the_wire(list: &SignedList) -> WithdrawnList {
    WithdrawnList::from(list)
}

fn codes(keeper: &WithdrawnKeeper) -> Vec<String> {
    keeper
        .faults()
        .borrow()
        .iter()
        .map(|fault| fault.code.clone())
        .collect()
}

fn steps(events: &mut mpsc::Receiver<AuditEvent>) -> Vec<(String, String)> {
    let mut steps = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let Some(Kind::Agent(agent)) = event.kind {
            steps.push((agent.step, agent.message));
        }
    }
    steps
}

#[tokio::test]
async fn a_list_counts_at_once_is_in_the_trail_and_known_to_the_next_agent() {
    let plant = Plant::new();
    let list = withdrawing(&[(1, 2), (2, 1)]);
    {
        let (keeper, mut events) = plant.keeper();
        let view = keeper.view();
        assert_eq!(keeper.held().number, 0);
        assert!(!keeper.bring(on_the_wire(&plant.whole(&list))).await);
        assert_eq!(view.over_since(&device(1), Epoch(1)), Some(Epoch(2)));
        assert_eq!(view.over_since(&device(1), Epoch(2)), None);
        assert_eq!(view.over_since(&device(3), Epoch(0)), None);
        let (step, words) = steps(&mut events).pop().unwrap();
        assert_eq!(step, "keys-withdrawn");
        assert_eq!(
            words,
            "by the coordinator: device/plc-1 (only life 2 and later ones count), device/plc-2 (only life 1 and later ones count)"
        );
        // Once more it is no news, and nothing is written: whoever saw a signed list can send it again and again.
        let copy = plant.folder.path().join("copies/withdrawn");
        let written = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&copy).unwrap());
        let before = written();
        keeper.bring(on_the_wire(&plant.whole(&list))).await;
        assert_eq!(steps(&mut events), []);
        assert_eq!(written(), before);
        assert_eq!(codes(&keeper), Vec::<String>::new());
    }
    let (keeper, _) = plant.keeper();
    assert_eq!(*keeper.view().now(), list);
    assert_eq!(keeper.held().digest, list.held().digest.0.to_vec());
    assert_eq!(peek(plant.folder.path()), Ok(Some(list)));
}

#[tokio::test]
async fn a_list_that_the_plants_authority_did_not_sign_changes_nothing_and_is_a_fault_until_a_good_one_comes()
{
    let plant = Plant::new();
    let (keeper, mut events) = plant.keeper();
    let known = withdrawing(&[(1, 2)]);
    keeper.bring(on_the_wire(&plant.whole(&known))).await;
    steps(&mut events);
    let more = withdrawing(&[(1, 2), (2, 7)]);
    let good = plant.whole(&more);
    let thief = Key::from(FileKey::generate(KeyKind::EcdsaP256).unwrap());
    let list = more.since(nothing(), &self::plant(), 1).unwrap();
    let elsewhere = more.since(nothing(), &"dairy".parse().unwrap(), 1).unwrap();
    let mut altered = good.clone();
    let at = altered.payload.iter().position(|byte| *byte == b'7').unwrap();
    altered.payload[at] = b'1';
    for bad in [
        SignedList::sign(&list, &thief).unwrap(),
        plant.sign(&elsewhere),
        altered,
        SignedList {
            payload: b"{}".to_vec(),
            ..SignedList::default()
        },
    ] {
        assert!(!keeper.bring(on_the_wire(&bad)).await);
        assert_eq!(*keeper.view().now(), known);
        assert_eq!(codes(&keeper), ["withdrawn-refused"]);
    }
    // A line whenever it is wrong in another way than the one before.
    let told = steps(&mut events);
    assert!(told.iter().all(|(step, _)| step == "withdrawn-refused"));
    assert_eq!(told.len(), 3, "{told:?}");
    keeper.bring(on_the_wire(&good)).await;
    assert_eq!(*keeper.view().now(), more);
    assert_eq!(codes(&keeper), Vec::<String>::new());
}

#[tokio::test]
async fn what_builds_upon_a_list_that_is_not_here_is_asked_for_whole() {
    let plant = Plant::new();
    let (keeper, _) = plant.keeper();
    let mut coordinator = withdrawing(&[(1, 2)]);
    let base = coordinator.held();
    coordinator.withdraw(&device(2), Epoch(4));
    let since = coordinator.since(base, &self::plant(), 1).unwrap();
    assert!(keeper.bring(on_the_wire(&plant.sign(&since))).await);
    assert_eq!(
        (codes(&keeper), keeper.held().number),
        (vec!["withdrawn-refused".to_owned()], 0)
    );
    assert!(keeper.view().now().is_empty());
    keeper.bring(on_the_wire(&plant.whole(&coordinator))).await;
    assert_eq!((*keeper.view().now()).clone(), coordinator);
    assert_eq!((codes(&keeper), keeper.held().number), (Vec::new(), 2));
    // From here on what came since is enough.
    let base = coordinator.held();
    coordinator.withdraw(&device(3), Epoch(1));
    let since = coordinator.since(base, &self::plant(), 1).unwrap();
    assert!(!keeper.bring(on_the_wire(&plant.sign(&since))).await);
    assert_eq!((*keeper.view().now()).clone(), coordinator);
}

#[tokio::test]
async fn on_a_disk_that_takes_nothing_a_list_counts_and_is_written_as_soon_as_that_works() {
    let plant = Plant::new();
    let (keeper, _) = plant.keeper();
    let draft = plant.folder.path().join("copies/withdrawn.new");
    std::fs::create_dir(&draft).unwrap();
    let list = withdrawing(&[(1, 2)]);
    keeper.bring(on_the_wire(&plant.whole(&list))).await;
    assert!(keeper.view().over_since(&device(1), Epoch(1)).is_some());
    assert_eq!(codes(&keeper), ["withdrawn-unkept"]);
    assert_eq!(peek(plant.folder.path()), Ok(None));
    keeper.write_again().await;
    assert_eq!(codes(&keeper), ["withdrawn-unkept"], "it is still full");
    let stop = CancellationToken::new();
    let running = tokio::spawn(keeper.clone().run(stop.clone()));
    let mut faults = keeper.faults();
    std::fs::remove_dir(&draft).unwrap();
    faults.wait_for(Vec::is_empty).await.unwrap();
    assert_eq!(peek(plant.folder.path()), Ok(Some(list)));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_a_fault_and_all_of_it_is_asked_for() {
    let plant = Plant::new();
    let list = withdrawing(&[(1, 2), (2, 2)]);
    plant.keeper().0.bring(on_the_wire(&plant.whole(&list))).await;
    for damage in [false, true] {
        std::fs::remove_dir_all(plant.folder.path().join("store")).unwrap();
        let copy = plant.folder.path().join("copies/withdrawn");
        let whole = std::fs::read(&copy).unwrap();
        if damage {
            std::fs::write(&copy, b"torn").unwrap();
        } else {
            std::fs::remove_file(&copy).unwrap();
            std::fs::create_dir(&copy).unwrap();
        }
        let (keeper, mut events) = plant.keeper();
        assert_eq!(
            (codes(&keeper), keeper.held().number),
            (vec!["withdrawn-unkept".to_owned()], 0)
        );
        assert_eq!(steps(&mut events).pop().unwrap().0, "withdrawn-unkept");
        assert!(peek(plant.folder.path()).is_err());
        // What comes counts; what may be whole is not written over.
        keeper.bring(on_the_wire(&plant.whole(&list))).await;
        assert_eq!(*keeper.view().now(), list);
        if damage {
            assert_eq!(
                (codes(&keeper), peek(plant.folder.path())),
                (Vec::new(), Ok(Some(list.clone())))
            );
        } else {
            assert!(codes(&keeper).iter().all(|code| code == "withdrawn-unkept"));
            std::fs::remove_dir(&copy).unwrap();
            std::fs::write(&copy, whole).unwrap();
        }
    }
}

#[tokio::test]
async fn a_gateway_whose_own_key_was_withdrawn_says_so_until_it_has_another_one() {
    let plant = Plant::new();
    let ((keeper, mut events), identity) = plant.keeper_of(plant.identity(1));
    let stop = CancellationToken::new();
    let running = tokio::spawn(keeper.clone().run(stop.clone()));
    let mut list = Withdrawn::default();
    list.withdraw(&"gateway/gw".parse().unwrap(), Epoch(2));
    keeper.take(plant.whole(&list), "brought by anna").await.unwrap();
    let mut faults = keeper.faults();
    let own = faults
        .wait_for(|faults| !faults.is_empty())
        .await
        .unwrap()
        .clone();
    assert_eq!(own[0].code, "identity-withdrawn");
    assert!(
        own[0]
            .message
            .contains("its certificate is of life 1, and by the list of withdrawn keys only life 2"),
        "{}",
        own[0].message
    );
    let told: Vec<String> = steps(&mut events).into_iter().map(|(step, _)| step).collect();
    assert_eq!(told, ["keys-withdrawn", "identity-withdrawn"]);
    identity.send_replace(Some(plant.identity(2)));
    faults.wait_for(Vec::is_empty).await.unwrap();
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn before_there_is_a_root_to_judge_it_by_no_list_is_taken() {
    let plant = Plant::new();
    let store = Arc::new(Mutex::new(Store::open(plant.folder.path())));
    let nobody = watch::channel(None).1;
    let keeper = StoredList::default().keep(store, Audit::without_spool().0, nobody);
    let refused = keeper
        .take(plant.whole(&withdrawing(&[(1, 2)])), "brought by anna")
        .await;
    assert!(matches!(refused, Err(NotTaken::NotEnrolled)));
}

#[test]
fn the_record_that_was_kept_when_the_form_was_made_is_read_and_kept_the_same_today() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path());
    let mut list = withdrawing(&[(1, 2), (2, 7)]);
    list.withdraw(&"gateway/gw-works".parse().unwrap(), Epoch(3));
    list.withdraw(&device(1), Epoch(4));
    save(&mut store, &list).unwrap();
    let kept = crate::fixture::kept("record-withdrawn.hex", &store.load(RECORD).unwrap());
    assert_eq!(parse(&kept), Ok(list));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 8))]
    #[test]
    fn whatever_lists_come_in_whatever_order_nobody_whose_life_is_over_counts_again_and_who_is_not_named_goes_on(
        deeds in prop::collection::vec((0..4_u8, 1..6_u32, any::<prop::sample::Index>()), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let plant = Plant::new();
            let (keeper, _) = plant.keeper();
            let mut coordinator = Withdrawn::default();
            let mut sent: Vec<SignedList> = Vec::new();
            for (subject, from, which) in deeds {
                let before = keeper.view().now();
                let base = coordinator.held();
                coordinator.withdraw(&device(subject), Epoch(from));
                sent.extend(coordinator.since(base, &self::plant(), 1).map(|list| plant.sign(&list)));
                sent.push(plant.whole(&coordinator));
                // Any that was ever sent: late, twice, or ahead of others.
                let list = &sent[which.index(sent.len())];
                keeper.bring(on_the_wire(list)).await;
                let now = keeper.view().now();
                for number in 0..6 {
                    for epoch in (0..7).map(Epoch) {
                        prop_assert!(!before.is_over(&device(number), epoch) || now.is_over(&device(number), epoch));
                        prop_assert!(!now.is_over(&device(number), epoch) || coordinator.is_over(&device(number), epoch));
                    }
                }
            }
            keeper.bring(on_the_wire(&plant.whole(&coordinator))).await;
            prop_assert_eq!(&*keeper.view().now(), &coordinator);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn what_the_authority_signed_of_the_list_is_shown_to_a_coordinator_that_lost_it_and_nothing_else_is() {
    let plant = Plant::new();
    let list = withdrawing(&[(1, 2), (2, 1)]);
    let proof = SignedHeld::sign(list.held(), &self::plant(), &plant.key).unwrap();
    {
        let (keeper, _) = plant.keeper();
        assert!(!keeper.held().unproven, "there is nothing to prove");
        keeper.bring(on_the_wire(&plant.whole(&list))).await;
        // From software that signs no more than the list.
        assert!(keeper.held().unproven && keeper.prove().is_none());
        let thief = Key::from(FileKey::generate(KeyKind::EcdsaP256).unwrap());
        let forged = SignedHeld::sign(list.held(), &self::plant(), &thief).unwrap();
        let elsewhere = SignedHeld::sign(withdrawing(&[(3, 1)]).held(), &self::plant(), &plant.key).unwrap();
        for bad in [forged, elsewhere] {
            let held = Some(bad);
            keeper
                .bring(on_the_wire(&SignedList {
                    held,
                    ..plant.whole(&list)
                }))
                .await;
            assert!(keeper.held().unproven && keeper.prove().is_none());
        }
        let held = Some(proof.clone());
        keeper
            .bring(on_the_wire(&SignedList {
                held,
                ..plant.whole(&list)
            }))
            .await;
        assert!(!keeper.held().unproven);
    }
    // The next agent shows it, until the list is another one.
    let (keeper, _) = plant.keeper();
    let shown = keeper.prove().unwrap();
    let signed = Option::<SignedHeld>::from(&shown).unwrap();
    let held = signed
        .verify(&self::plant(), &[plant.root.der().clone()])
        .unwrap();
    assert_eq!(held, list.held());
    assert!(
        Withdrawn::from_snapshot(&shown.list, held)
            .unwrap()
            .entries()
            .eq(list.entries())
    );
    let longer = withdrawing(&[(1, 2), (2, 1), (3, 1)]);
    keeper.bring(on_the_wire(&plant.whole(&longer))).await;
    assert!(keeper.held().unproven && keeper.prove().is_none());
}

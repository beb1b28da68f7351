//! What the records say of the policy in force when some are lost, unreadable or of an earlier form.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use penstock_policy::compile::compile;
use penstock_policy::diagnostics::SourceFile;
use penstock_policy::ids::Revision;
use penstock_proto::v1::SignedRelease;

use super::*;
use crate::store::Store;

const WORKS: &str = include_str!("../../../deploy/examples/waterworks/plant.yaml");

/// A policy as it is offered as this revision, with what the gateway believes then.
pub(crate) fn offered(revision: u64) -> (Trust, PolicyOffer, Digest) {
    let day = jiff::civil::date(2026, 1, 1);
    let plant = penstock_policy::load(&[SourceFile::new("plant.yaml", WORKS)], day)
        .plant
        .unwrap();
    let gateway = plant.gateways.keys().next().unwrap().clone();
    let statement = format!("statement of r{revision}").into_bytes();
    let digest = Digest::of(&statement);
    let trust = Trust {
        plant: plant.id.clone(),
        gateway: gateway.clone(),
        approvers: plant.approvers.clone(),
        floor: Revision(revision),
        current: Some(digest),
    };
    let offer = PolicyOffer {
        plan: compile(&plant, &gateway).unwrap().to_bytes().into(),
        release: Some(SignedRelease {
            statement: statement.into(),
            ..SignedRelease::default()
        }),
        ..PolicyOffer::default()
    };
    (trust, offer, digest)
}

#[test]
fn where_the_mark_of_what_is_in_force_is_lost_the_older_slot_is_the_one_that_goes() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path());
    for revision in [1, 2, 3] {
        let (trust, offer, statement) = offered(revision);
        stage(&mut store, None, (&trust, &Order::default()), &offer).unwrap();
        set_effective(&mut store, statement, &trust).unwrap();
    }
    drop(store);
    // Release 3 is in the first slot.
    for lost in [&[EFFECTIVE][..], &[EFFECTIVE, TRUST]] {
        std::fs::remove_dir_all(folder.path().join("store")).unwrap();
        for record in lost {
            let _ = std::fs::remove_file(folder.path().join("copies").join(record));
        }
        let mut store = Store::open(folder.path());
        assert_eq!(load(&mut store).desired().unwrap().mark.revision, Revision(3));
        let (trust, offer, _) = offered(4);
        assert_eq!(
            stage(&mut store, None, (&trust, &Order::default()), &offer).unwrap(),
            SLOTS[1],
            "{lost:?}"
        );
        let (trust, offer, _) = offered(2);
        assert_eq!(
            slot_to_replace(&mut store, None),
            if lost.len() == 1 { SLOTS[1] } else { SLOTS[0] }
        );
        store
            .save(SLOTS[1], &encode((&trust, &Order::default()), &offer))
            .unwrap();
    }
}

#[test]
fn a_release_that_is_staged_again_stands_in_one_slot_with_the_order_that_came_last() {
    let upto = |upto| Order {
        upto,
        ..Order::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path());
    let (first, older, one) = offered(1);
    stage(&mut store, None, (&first, &Order::default()), &older).unwrap();
    set_effective(&mut store, one, &first).unwrap();
    let (second, newer, two) = offered(2);
    let slots = [Upto::Active, Upto::Shadow, Upto::Staged].map(|last| {
        // Nobody knows what is in force: the slot that would go is the older one.
        let slot = stage(&mut store, None, (&second, &upto(last)), &newer).unwrap();
        store.save(EFFECTIVE, b"torn").unwrap();
        assert_eq!(load(&mut store).staged.unwrap().order.upto, last);
        slot
    });
    assert_eq!(slots, [SLOTS[1]; 3]);
    assert_eq!(slot_of(&mut store, one), Some(SLOTS[0]));
    // One that could not be read meanwhile may have another order: the lesser one is obeyed.
    store
        .save(SLOTS[0], &encode((&second, &upto(Upto::Active)), &newer))
        .unwrap();
    assert_eq!(load(&mut store).desired().unwrap().order.upto, Upto::Staged);
    reorder(&mut store, two, &upto(Upto::Shadow)).unwrap();
    assert_eq!(load(&mut store).desired().unwrap().order.upto, Upto::Shadow);
}

#[test]
fn a_slot_that_cannot_be_used_is_a_fault_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path());
    let (trust, offer, statement) = offered(1);
    stage(&mut store, None, (&trust, &Order::default()), &offer).unwrap();
    set_effective(&mut store, statement, &trust).unwrap();
    assert_eq!(load(&mut store).faults, []);
    drop(store);
    std::fs::remove_dir_all(folder.path().join("store")).unwrap();
    std::fs::write(folder.path().join("copies").join(SLOTS[0]), "torn").unwrap();
    let faults = load(&mut Store::open(folder.path())).faults;
    assert_eq!(faults.len(), 1);
    assert_eq!((faults[0].record, faults[0].unread), (SLOTS[0], false));
    assert!(faults[0].message.contains("damaged"), "{}", faults[0].message);
}

#[test]
fn where_what_is_in_force_may_be_in_what_cannot_be_read_no_older_policy_and_no_lower_floor_takes_its_place() {
    let all = [EFFECTIVE, TRUST, SLOTS[0], SLOTS[1]];
    for mask in 0..16_usize {
        // The agent may have ended between the two records that say what is in force.
        for trust_is_noted in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let mut store = Store::open(folder.path());
            for revision in [1, 5] {
                let (trust, offer, statement) = offered(revision);
                stage(&mut store, None, (&trust, &Order::default()), &offer).unwrap();
                if revision == 1 || trust_is_noted {
                    set_effective(&mut store, statement, &trust).unwrap();
                } else {
                    store.save(EFFECTIVE, &statement.0).unwrap();
                }
            }
            drop(store);
            let unread = all.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0);
            let unread: Vec<_> = unread.map(|(_, record)| *record).collect();
            make_unreadable(folder.path(), &unread);
            let held = load(&mut Store::open(folder.path()));
            let desired = held.desired().map(|desired| desired.mark.revision.0);
            let floor = held.trust.map(|trust| trust.floor.0);
            let is_read = |record| !unread.contains(&record);
            let expected = if is_read(SLOTS[1]) {
                (unread.len() < 3 || is_read(EFFECTIVE) || is_read(TRUST)).then_some(5)
            } else {
                // All that can be read says then that nothing newer was ever in force.
                (!is_read(EFFECTIVE) && is_read(TRUST) && !trust_is_noted && is_read(SLOTS[0])).then_some(1)
            };
            assert_eq!(desired, expected, "{unread:?}, {trust_is_noted}");
            let says = is_read(TRUST) && (trust_is_noted || !is_read(EFFECTIVE));
            let believed = says.then_some(if trust_is_noted { 5 } else { 1 });
            assert_eq!(floor, expected.max(believed), "{unread:?}, {trust_is_noted}");
        }
    }
}

#[test]
fn nothing_older_takes_the_place_of_what_was_being_put_in_force_and_cannot_be_used() {
    let (first, older, one) = offered(1);
    let (second, newer, two) = offered(5);
    let cases = [
        // What cannot be read; whether r5 is noted; what is to be in the kernel, and the floor.
        (&[][..], false, Some(5), Some(1)),
        (&[], true, Some(5), Some(5)),
        (&[SLOTS[0]], false, Some(5), Some(1)),
        (&[SLOTS[1]], false, None, Some(5)),
        (&[SLOTS[1]], true, None, Some(5)),
        (&[SLOTS[1], EFFECTIVE], false, None, Some(5)),
        (&[SLOTS[1], EFFECTIVE, TRUST], false, None, None),
        (&[SLOTS[1], JOURNAL], false, None, None),
        (&[JOURNAL], false, Some(5), Some(1)),
    ];
    for (unread, is_noted, desired, floor) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path());
        stage(&mut store, None, (&first, &Order::default()), &older).unwrap();
        set_journal(&mut store, &naming(&first)).unwrap();
        set_effective(&mut store, one, &first).unwrap();
        stage(&mut store, None, (&second, &Order::default()), &newer).unwrap();
        set_journal(&mut store, &naming(&second)).unwrap();
        if is_noted {
            set_effective(&mut store, two, &second).unwrap();
        }
        drop(store);
        make_unreadable(folder.path(), unread);
        let held = load(&mut Store::open(folder.path()));
        let found = held.desired().map(|desired| desired.mark.revision.0);
        let believed = held.trust.as_ref().map(|trust| trust.floor.0);
        assert_eq!((found, believed), (desired, floor), "{unread:?}, {is_noted}");
        // What may have been in the kernel is not known: what is staged has nothing to fall back to.
        let may_fall_back = !unread.contains(&JOURNAL) && !unread.contains(&SLOTS[0]);
        assert!(may_fall_back || held.effective.is_none(), "{unread:?}");
    }
}

/// The journal of an agent that was about to have the kernel hold this.
fn naming(trust: &Trust) -> Journal {
    Journal {
        applying: Some(trust.clone()),
        ..Journal::default()
    }
}

/// Loses the database, and puts a folder in the place of each file, which cannot be read as one.
fn make_unreadable(folder: &std::path::Path, records: &[&str]) {
    std::fs::remove_dir_all(folder.join("store")).unwrap();
    for record in records {
        let copy = folder.join("copies").join(record);
        std::fs::rename(&copy, folder.join(record)).unwrap();
        std::fs::create_dir(&copy).unwrap();
    }
}

#[test]
fn what_was_stored_when_the_form_was_made_is_read_and_stored_the_same_today() {
    let plan = include_bytes!("../../../policy/fixtures/plan-format-2.json");
    let signed = include_str!("../../../policy/fixtures/release-format-1.json");
    let envelope = penstock_policy::release::Envelope::from_json(signed).unwrap();
    let statement = penstock_policy::release::Statement::from_bytes(&envelope.statement).unwrap();
    let digest = Digest::of(&envelope.statement);
    let trust = Trust {
        plant: statement.plant,
        gateway: penstock_policy::ids::GatewayId::new("gw-works").unwrap(),
        approvers: statement.approvers,
        floor: statement.revision,
        current: Some(digest),
    };
    let offer = PolicyOffer {
        plan: plan.to_vec().into(),
        release: Some(SignedRelease {
            statement: envelope.statement.into(),
            ..SignedRelease::default()
        }),
        leaf_index: 1,
        inclusion_proof: vec![vec![3; 32].into()],
        ..PolicyOffer::default()
    };
    let kept = crate::fixture::kept("record-policy.hex", &encode((&trust, &Order::default()), &offer));
    let read = decode(&kept).unwrap();
    assert_eq!((read.trust, read.statement), (trust.clone(), digest));
    assert_eq!(read.plan.to_bytes(), plan);
    let kept = crate::fixture::kept("record-trust.hex", &serde_json::to_vec(&trust).unwrap());
    assert_eq!(serde_json::from_slice::<Trust>(&kept).unwrap(), trust);
}

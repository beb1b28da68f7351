//! The store held to its promise: the newest whole copy serves, and nothing that may be whole is written over.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod killed;

use std::time::Duration;

use rustix::fs::FlockOperation;

use super::lock::LOCK;
use super::*;

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    for byte in bytes.iter_mut().skip(middle).take(64) {
        *byte ^= 0xff;
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_record_survives_the_loss_of_either_copy() {
    let folder = tempfile::tempdir().unwrap();
    let payload = vec![7_u8; 100_000];
    Store::open(folder.path()).save("policy", &payload).unwrap();
    std::fs::remove_dir_all(folder.path().join("store")).unwrap();
    assert_eq!(Store::open(folder.path()).load("policy").unwrap(), payload);
    let mut store = Store::open(folder.path());
    store.save("policy", b"second").unwrap();
    drop(store);
    std::fs::remove_dir_all(folder.path().join("copies")).unwrap();
    assert_eq!(Store::open(folder.path()).load("policy").unwrap(), b"second");
}

#[test]
fn a_large_record_survives_the_loss_of_either_copy_and_is_not_in_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let payload = vec![7_u8; 1_000_000];
    Store::open(folder.path()).save("policy", &payload).unwrap();
    for lost in ["store", "copies", SECOND] {
        std::fs::remove_dir_all(folder.path().join(lost)).unwrap();
        let mut store = Store::open(folder.path());
        assert_eq!(store.load("policy").unwrap(), payload, "{lost}");
        store.save("policy", &payload).unwrap();
        assert_eq!(store.guarded(|db| db.get("policy")), Some(None), "{lost}");
    }
}

#[test]
fn a_large_record_that_an_agent_before_kept_in_the_database_moves_to_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let payload = vec![7_u8; 1_000_000];
    let mut store = Store::open(folder.path());
    let sealed = sealed::seal("policy", 3, &payload);
    store
        .guarded(|db| db.insert("policy", sealed.as_slice()))
        .unwrap();
    assert_eq!(store.load("policy").unwrap(), payload);
    assert_eq!(store.guarded(|db| db.get("policy")), Some(None));
    drop(store);
    std::fs::remove_dir_all(folder.path().join("store")).unwrap();
    let mut store = Store::open(folder.path());
    assert_eq!(store.load("policy").unwrap(), payload);
    assert_eq!(store.generations.get("policy"), Some(&3));
}

#[test]
fn a_damaged_database_is_a_fault_and_the_copy_serves() {
    for place in ["db", "conf"] {
        let folder = tempfile::tempdir().unwrap();
        Store::open(folder.path()).save("policy", b"last good").unwrap();
        flip(&folder.path().join("store").join(place));
        let mut store = Store::open(folder.path());
        assert_eq!(store.load("policy").unwrap(), b"last good", "{place}");
        store.save("policy", b"next").unwrap();
        drop(store);
        assert_eq!(
            Store::open(folder.path()).load("policy").unwrap(),
            b"next",
            "{place}"
        );
    }
}

#[test]
fn a_damaged_copy_is_a_fault_and_the_database_serves() {
    let folder = tempfile::tempdir().unwrap();
    Store::open(folder.path()).save("policy", b"last good").unwrap();
    flip(&folder.path().join("copies/policy"));
    let mut store = Store::open(folder.path());
    assert_eq!(store.load("policy").unwrap(), b"last good");
    assert!(
        store
            .faults()
            .iter()
            .any(|fault| fault.code == "store-copy-damaged")
    );
}

#[test]
fn a_store_with_nowhere_to_write_says_so_and_does_not_panic() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("file");
    std::fs::write(&place, "not a folder").unwrap();
    let mut store = Store::open(&place);
    assert!(!store.faults().is_empty());
    assert!(store.load("policy").is_none());
    assert!(store.save("policy", b"x").is_err());
}

#[test]
fn what_cannot_be_read_is_neither_told_as_damage_nor_as_missing_nor_written_over() {
    let folder = tempfile::tempdir().unwrap();
    Store::open(folder.path()).save("policy", b"last good").unwrap();
    std::fs::remove_dir_all(folder.path().join("store")).unwrap();
    let copy = folder.path().join("copies/policy");
    let kept = folder.path().join("kept");
    std::fs::rename(&copy, &kept).unwrap();
    // A folder in its place cannot be read as a file, by nobody: as a disk that reports errors.
    std::fs::create_dir(&copy).unwrap();
    let mut store = Store::open(folder.path());
    assert_eq!(store.load("policy"), None);
    assert!(store.unread("policy").unwrap().contains("cannot read"));
    let codes: Vec<String> = store.faults().into_iter().map(|fault| fault.code).collect();
    assert_eq!(codes, ["store-copy-unread"]);
    assert!(store.save("policy", b"first").is_err());
    // When it can be read again it is as it was.
    std::fs::remove_dir(&copy).unwrap();
    std::fs::rename(&kept, &copy).unwrap();
    assert_eq!(store.load("policy").unwrap(), b"last good");
    assert_eq!(store.unread("policy"), None);
    store.save("policy", b"next").unwrap();
    drop(store);
    assert_eq!(Store::open(folder.path()).load("policy").unwrap(), b"next");
}

#[test]
fn the_newer_copy_wins_when_one_was_rolled_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path());
    store.save("policy", b"old").unwrap();
    let old = std::fs::read(folder.path().join("copies/policy")).unwrap();
    store.save("policy", b"new").unwrap();
    std::fs::write(folder.path().join("copies/policy"), old).unwrap();
    drop(store);
    assert_eq!(Store::open(folder.path()).load("policy").unwrap(), b"new");
}

#[test]
fn a_record_that_an_agent_before_kept_in_the_database_replaces_no_newer_copy_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (vec![1_u8; 1_000_000], vec![2_u8; 1_000_000]);
    for damaged in [false, true] {
        let mut store = Store::open(folder.path());
        for _ in 0..9 {
            store.save("policy", &new).unwrap();
        }
        let mut sealed = sealed::seal("policy", 3, &old);
        sealed[100] ^= u8::from(damaged);
        store
            .guarded(|db| db.insert("policy", sealed.as_slice()))
            .unwrap();
        let mut store = {
            drop(store);
            Store::open(folder.path())
        };
        assert_eq!(store.load("policy").unwrap(), new);
        // The copy in `copies/` goes now: what serves is the second one.
        std::fs::remove_file(folder.path().join("copies/policy")).unwrap();
        assert_eq!(store.load("policy").unwrap(), new, "damaged: {damaged}");
    }
}

#[test]
fn that_one_record_is_well_ends_no_fault_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path());
    for record in ["policy-a", "policy-b"] {
        store.save(record, b"whole").unwrap();
    }
    drop(store);
    std::fs::remove_dir_all(folder.path().join("store")).unwrap();
    std::fs::remove_file(folder.path().join("copies/policy-a")).unwrap();
    std::fs::create_dir(folder.path().join("copies/policy-a")).unwrap();
    let mut store = Store::open(folder.path());
    assert_eq!(store.load("policy-a"), None);
    assert_eq!(store.load("policy-b").unwrap(), b"whole");
    let codes = |store: &Store| -> Vec<_> { store.faults().into_iter().map(|fault| fault.code).collect() };
    assert_eq!(codes(&store), ["store-copy-unread"]);
    store.mend();
    assert_eq!(codes(&store), ["store-copy-unread"]);
    std::fs::remove_dir(folder.path().join("copies/policy-a")).unwrap();
    for _ in 0..40 {
        store.mend();
    }
    assert_eq!(codes(&store), Vec::<String>::new());
}

#[test]
fn a_large_record_whose_second_copy_alone_is_left_and_cannot_be_read_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let payload = vec![7_u8; 1_000_000];
    Store::open(folder.path()).save("policy", &payload).unwrap();
    std::fs::remove_file(folder.path().join("copies/policy")).unwrap();
    let second = folder.path().join(SECOND).join("policy");
    let aside = folder.path().join("aside");
    std::fs::rename(&second, &aside).unwrap();
    std::fs::create_dir(&second).unwrap();
    let mut store = Store::open(folder.path());
    assert_eq!(store.load("policy"), None);
    assert!(store.unread("policy").is_some());
    assert!(store.save("policy", b"first").is_err());
    std::fs::remove_dir(&second).unwrap();
    std::fs::rename(&aside, &second).unwrap();
    assert_eq!(store.load("policy").unwrap(), payload);
}

#[test]
fn asking_whether_an_agent_runs_makes_no_file_and_keeps_no_agent_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    assert!(!is_locked(folder.path()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let held = lock(folder.path()).unwrap();
    assert!(is_locked(folder.path()));
    assert!(matches!(lock(folder.path()), Err(LockError::Taken(_))));
    drop(held);
    assert!(!is_locked(folder.path()));
    // One that asks at the very moment: the agent waits for it.
    let asking = std::fs::File::open(folder.path().join(LOCK)).unwrap();
    rustix::fs::flock(&asking, FlockOperation::NonBlockingLockShared).unwrap();
    let asked = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        drop(asking);
    });
    drop(lock(folder.path()).unwrap());
    asked.join().unwrap();
}

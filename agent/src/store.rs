//! What the agent must not forget: who it is enrolled as, whom it believes, and the last good policy.
//!
//! Every record is kept twice: in the sled database `store/`, and as a sealed file in `copies/` that is replaced
//! atomically. A record that is larger than the database's cache has its second copy in a file too, `second/`: the
//! database would keep it in memory, a policy of 100,000 flows for months. Reading takes the newer of the copies that are whole, so that a lost, damaged or rolled-back database
//! cannot take the policy with it (DESIGN, promise 1; IEC 62443-3-3 SR 7.4). Writing succeeds only if the file is
//! durable: a file can be read on a full disk, where the database cannot even be opened, and a policy that came back
//! from before would open what was revoked. Whatever the database does, panics included, ends here as a fault.
//! A copy that is lost or damaged is written again from the other one, and faults end when that works ([`Store::mend`]).
//!
//! The records are opaque here; [`crate::policy_store`] and [`crate::identity`] say what is in them.

mod mend;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use penstock_proto::v1::Fault;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use penstock_policy::text;

use crate::database;
use crate::durable::{self, FileError};

/// The largest record: a stored offer of the largest plan.
pub const RECORD_BYTES_MAX: u64 = 160 * 1024 * 1024;

const CACHE_BYTES: u64 = 256 * 1024;
const SEGMENT_BYTES: usize = 64 * 1024;
/// The file that the agent which has the state folder holds locked.
const LOCK: &str = "lock";
/// In the place of a record: what is wrong is not of one of them.
const ALL: &str = "";
/// The folder of second copies of large records.
const SECOND: &str = "second";

/// The file of a record could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the record `{record}` could not be stored")]
pub struct StoreError {
    /// Which.
    pub record: &'static str,
    /// What the file system said.
    #[source]
    pub source: FileError,
}

/// Why the state folder is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It cannot be used.
    #[error(transparent)]
    Folder(#[from] FileError),
    /// Another agent has it.
    #[error("another agent uses {}: stop it first", .0.display())]
    Taken(PathBuf),
    /// The lock cannot be taken.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// How long a taken lock is tried again: [`is_locked`] holds it for a moment.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);

/// Takes the state folder for this process alone; held until the file is closed.
///
/// # Errors
/// The folder cannot be made, its lock file cannot be opened or locked, or another agent holds it.
pub fn lock(state_folder: &Path) -> Result<std::fs::File, LockError> {
    durable::create_folder(state_folder)?;
    let path = state_folder.join(LOCK);
    let failed = |source: std::io::Error| LockError::Lock {
        path: path.clone(),
        source,
    };
    let file = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    let begun = Instant::now();
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if begun.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(Errno::WOULDBLOCK) => return Err(LockError::Taken(state_folder.to_owned())),
            Err(error) => return Err(failed(error.into())),
        }
    }
}

/// Whether an agent has the state folder. It writes nothing: who asks may be another user than the agent's.
pub fn is_locked(state_folder: &Path) -> bool {
    std::fs::File::open(state_folder.join(LOCK)).is_ok_and(|file| {
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
    })
}

/// The store. Synchronous; its callers run it on a blocking thread.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    db: Option<sled::Db>,
    generations: BTreeMap<&'static str, u64>,
    /// By code and record (or [`ALL`]): that one record is well ends no fault of another.
    faults: BTreeMap<(&'static str, &'static str), String>,
    patience: mend::Patience,
    /// Records of which there is something, and no copy that can be used.
    unusable: BTreeMap<&'static str, Unusable>,
}

/// Why a record that there is, or was, cannot be used.
#[derive(Debug)]
struct Unusable {
    why: String,
    /// A copy could not be read, and may be whole.
    unread: bool,
}

/// What a file holds of a record.
#[derive(Debug, Default)]
pub struct Copy {
    /// Its generation and payload, if it is whole.
    pub found: Option<(u64, Vec<u8>)>,
    /// Why there is something and it is not used.
    pub fault: Option<String>,
    /// It was read, and is not what was written: another whole copy may take its place.
    damaged: bool,
}

impl Store {
    /// A store without a database: files only.
    pub fn empty(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            db: None,
            generations: BTreeMap::new(),
            faults: BTreeMap::new(),
            patience: mend::Patience::default(),
            unusable: BTreeMap::new(),
        }
    }

    /// Opens the store in `folder`. Never fails: what is damaged becomes a fault, and the other copy serves.
    pub fn open(folder: &Path) -> Self {
        let mut store = Self::empty(folder);
        for copies in ["copies", SECOND] {
            if let Err(error) = durable::create_folder(&folder.join(copies)) {
                store.fault("store-copies", ALL, &error);
            }
        }
        store.open_database();
        store
    }

    /// What a person should know about the store.
    pub fn faults(&self) -> Vec<Fault> {
        self.faults
            .iter()
            .map(|((code, _), message)| Fault {
                code: (*code).to_owned(),
                message: message.clone(),
                ..Fault::default()
            })
            .collect()
    }

    /// The record, from the newer of its whole copies; `None` if there is none. A copy that is lost, damaged or older is written
    /// again.
    pub fn load(&mut self, record: &'static str) -> Option<Vec<u8>> {
        let from_file = read_sealed(&copy_path(&self.folder, record), record);
        let second = read_sealed(&self.folder.join(SECOND).join(record), record);
        let found = self.guarded(|db| db.get(record)).flatten();
        let from_database = found.as_ref().and_then(|bytes| {
            durable::unseal(record, bytes).map(|(generation, payload)| (generation, payload.to_vec()))
        });
        let damaged_in_database = found.is_some() && from_database.is_none();
        if damaged_in_database {
            let message =
                format!("the record `{record}` is damaged in the database; its copy in a file is used");
            self.faults.insert(("store-damaged", record), message);
        }
        if let (Some(bytes), Some((generation, _))) = (found, &from_database)
            && is_large(bytes.len())
            && second.is_replaceable()
        {
            // From an agent that kept large records there, too.
            if second.generation() < Some(*generation) {
                self.keep_second(record, &bytes);
            } else {
                self.forget_in_database(record);
            }
        }
        self.unusable.remove(record);
        for (copy, damaged, unread) in [
            (&from_file, "store-copy-damaged", "store-copy-unread"),
            (&second, "store-second-damaged", "store-second-unread"),
        ] {
            self.faults.remove(&(unread, record));
            if let Some(why) = &copy.fault {
                let code = if copy.damaged { damaged } else { unread };
                tracing::warn!(code, "{why}");
                self.faults.insert((code, record), why.clone());
            }
        }
        let held = mend::CopyGenerations {
            file: from_file.generation(),
            // Only what was read and is wrong, or is not there, is written over: what cannot be read now may be newer.
            file_replaceable: from_file.is_replaceable(),
            other: from_database
                .iter()
                .chain(&second.found)
                .map(|(generation, _)| *generation)
                .max(),
            other_replaceable: second.is_replaceable(),
        };
        let unread = !(from_file.is_replaceable() && second.is_replaceable());
        // What could not be read is what there is to do about it.
        let why = [&from_file, &second]
            .into_iter()
            .filter(|copy| copy.is_replaceable() != unread)
            .find_map(|copy| copy.fault.clone())
            .or_else(|| damaged_in_database.then(|| "it is damaged in the database".to_owned()));
        // Of equal ones the file's, which is the last here.
        let copies = [from_database, second.found, from_file.found]
            .into_iter()
            .flatten();
        let Some((generation, payload)) = copies.max_by_key(|(generation, _)| *generation) else {
            if let Some(why) = why {
                self.unusable.insert(record, Unusable { why, unread });
            }
            return None;
        };
        self.generations.insert(record, generation);
        self.write_again(record, generation, &payload, &held);
        Some(payload)
    }

    /// Why it is not known whether there is such a record, after [`Self::load`] found none.
    pub fn unread(&self, record: &'static str) -> Option<&str> {
        let unusable = self.unusable.get(record).filter(|unusable| unusable.unread)?;
        Some(&unusable.why)
    }

    /// Why a record that there is, or was, is not used, after [`Self::load`] found none.
    pub fn unusable(&self, record: &'static str) -> Option<&str> {
        Some(&self.unusable.get(record)?.why)
    }

    /// Stores the record; its file is durable when this returns well, and the database's copy if that works.
    pub(crate) fn save(&mut self, record: &'static str, payload: &[u8]) -> Result<(), StoreError> {
        if !self.generations.contains_key(record) {
            self.load(record);
        }
        if let Some(why) = self.unread(record) {
            // Written as the first of its kind it would give way to what is there, once that can be read again.
            return Err(StoreError {
                record,
                source: FileError {
                    verb: "read",
                    path: copy_path(&self.folder, record),
                    source: std::io::Error::other(why.to_owned()),
                },
            });
        }
        let generation = self
            .generations
            .get(record)
            .copied()
            .unwrap_or(0)
            .saturating_add(1);
        let sealed = durable::seal(record, generation, payload);
        if let Err(source) = durable::replace(&copy_path(&self.folder, record), &sealed, 0o600) {
            self.fault("store-copies", ALL, &source);
            return Err(StoreError { record, source });
        }
        self.generations.insert(record, generation);
        self.unusable.remove(record);
        for (code, record) in [
            ("store-copies", ALL),
            ("store-copy-damaged", record),
            ("store-copy-unread", record),
        ] {
            self.faults.remove(&(code, record));
        }
        if self.db.is_none() {
            self.open_database();
        }
        self.keep_other(record, &sealed);
        Ok(())
    }

    /// Keeps the copy that is not in `copies/`.
    fn keep_other(&mut self, record: &'static str, sealed: &[u8]) {
        if is_large(sealed.len()) {
            self.keep_second(record, sealed);
            return;
        }
        self.guarded(|db| {
            db.insert(record, sealed)?;
            db.flush().map(|_| ())
        });
    }

    /// Keeps the second copy of a large record; what the database has of it goes once the file is durable.
    fn keep_second(&mut self, record: &'static str, sealed: &[u8]) {
        let path = self.folder.join(SECOND).join(record);
        match durable::replace(&path, sealed, 0o600) {
            Ok(()) => {
                for code in ["store-second", "store-second-damaged", "store-second-unread"] {
                    self.faults.remove(&(code, record));
                }
                self.forget_in_database(record);
            }
            Err(error) => self.fault("store-second", record, &error),
        }
    }

    fn forget_in_database(&mut self, record: &'static str) {
        self.guarded(|db| {
            db.remove(record)?;
            db.flush().map(|_| ())
        });
    }

    fn fault(&mut self, code: &'static str, record: &'static str, error: &(dyn std::error::Error + 'static)) {
        self.patience.begin();
        let message = text::sentence(error);
        tracing::warn!(code, "{message}");
        self.faults.insert((code, record), message);
    }

    fn open_database(&mut self) {
        let path = self.folder.join("store");
        for attempt in 0..2 {
            let opened = catch_unwind(|| database::open(&path, CACHE_BYTES, SEGMENT_BYTES));
            let why = match opened {
                Ok(Ok(db)) => {
                    self.db = Some(db);
                    self.faults.remove(&("store-failed", ALL));
                    return;
                }
                Ok(Err(error)) if !database::is_damage(&error) => {
                    // A full disk or a lock: what is there may be whole.
                    self.fault("store-failed", ALL, &error);
                    return;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "an internal error (a panic)".to_owned(),
            };
            if let Some(obstacle) = database::obstacle(&path) {
                self.patience.begin();
                self.faults.insert(
                    ("store-failed", ALL),
                    format!("the store's database cannot be opened: {obstacle}"),
                );
                return;
            }
            self.faults.insert(("store-damaged", ALL),
                format!("the store's database was damaged and set aside as store.damaged ({why}); the copies in files are used"),
            );
            if attempt == 0 && set_aside(&path).is_err() {
                break;
            }
        }
        self.faults.insert(
            ("store-failed", ALL),
            "the store's database cannot be opened; records are kept in files only".to_owned(),
        );
    }

    /// Runs `work` on the database; `None` if there is none, or it failed and was let go.
    fn guarded<T>(&mut self, work: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Option<T> {
        let db = self.db.as_ref()?;
        match catch_unwind(AssertUnwindSafe(|| work(db))) {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => self.fault("store-failed", ALL, &error),
            Err(_) => {
                self.faults.insert(
                    ("store-failed", ALL),
                    "internal error in the store's database (a panic)".to_owned(),
                );
            }
        }
        let broken = self.db.take();
        let _ = catch_unwind(AssertUnwindSafe(move || drop(broken)));
        None
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let db = self.db.take();
        let _ = catch_unwind(AssertUnwindSafe(move || drop(db)));
    }
}

fn set_aside(path: &Path) -> std::io::Result<()> {
    let aside = path.with_extension("damaged");
    if aside.exists() {
        std::fs::remove_dir_all(&aside)?;
    }
    std::fs::rename(path, aside)
}

fn copy_path(folder: &Path, record: &str) -> PathBuf {
    folder.join("copies").join(record)
}

/// Reads only what files hold of a record, as other programs may while the agent has the database: the newer of the copy and,
/// for a large record, the second one.
pub fn read_copy(folder: &Path, record: &'static str) -> Copy {
    let copy = read_sealed(&copy_path(folder, record), record);
    let second = read_sealed(&folder.join(SECOND).join(record), record);
    if second.generation() > copy.generation() {
        return Copy {
            found: second.found,
            ..copy
        };
    }
    copy
}

fn is_large(bytes: usize) -> bool {
    u64::try_from(bytes).is_ok_and(|bytes| bytes > CACHE_BYTES)
}

impl Copy {
    /// There is nothing that may be whole and newer than what was read elsewhere.
    fn is_replaceable(&self) -> bool {
        self.fault.is_none() || self.damaged
    }

    fn generation(&self) -> Option<u64> {
        self.found.as_ref().map(|(generation, _)| *generation)
    }
}

fn read_sealed(path: &Path, record: &str) -> Copy {
    let fault = |fault: String, damaged| Copy {
        found: None,
        fault: Some(fault),
        damaged,
    };
    let bytes = match durable::read(path, RECORD_BYTES_MAX) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Copy::default(),
        Err(error) => {
            let why =
                std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
            return fault(format!("{error}{why}"), false);
        }
    };
    match durable::unseal(record, &bytes) {
        Some((generation, payload)) => Copy {
            found: Some((generation, payload.to_vec())),
            ..Copy::default()
        },
        None => fault(format!("{} is damaged", path.display()), true),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

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
        let sealed = durable::seal("policy", 3, &payload);
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
            let mut sealed = durable::seal("policy", 3, &old);
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
        let codes =
            |store: &Store| -> Vec<_> { store.faults().into_iter().map(|fault| fault.code).collect() };
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
}

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

use penstock_proto::v1::Fault;

use penstock_policy::text;

use crate::database;
use crate::durable::{self, FileError};

/// The largest record: a stored offer of the largest plan.
pub const RECORD_BYTES_MAX: u64 = 160 * 1024 * 1024;

const CACHE_BYTES: u64 = 256 * 1024;
const SEGMENT_BYTES: usize = 64 * 1024;
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

/// Takes the state folder for this process alone; held until the file is closed.
pub fn lock(state_folder: &Path) -> Result<std::fs::File, LockError> {
    durable::create_folder(state_folder)?;
    let path = state_folder.join("lock");
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
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Taken(state_folder.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}

/// The store. Synchronous; its callers run it on a blocking thread.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    db: Option<sled::Db>,
    generations: BTreeMap<&'static str, u64>,
    faults: BTreeMap<&'static str, String>,
    patience: mend::Patience,
    /// Records of which no copy was found, and one could not be read.
    unread: BTreeMap<&'static str, String>,
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
            unread: BTreeMap::new(),
        }
    }

    /// Opens the store in `folder`. Never fails: what is damaged becomes a fault, and the other copy serves.
    pub fn open(folder: &Path) -> Self {
        let mut store = Self::empty(folder);
        for copies in ["copies", SECOND] {
            if let Err(error) = durable::create_folder(&folder.join(copies)) {
                store.fault("store-copies", &error);
            }
        }
        store.open_database();
        store
    }

    /// What a person should know about the store.
    pub fn faults(&self) -> Vec<Fault> {
        self.faults
            .iter()
            .map(|(code, message)| Fault {
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
        if found.is_some() && from_database.is_none() {
            let message =
                format!("the record `{record}` is damaged in the database; its copy in a file is used");
            self.faults.insert("store-damaged", message);
        }
        if let Some(bytes) = found.filter(|bytes| is_large(bytes.len())) {
            // From an agent that kept large records there, too.
            self.keep_second(record, &bytes);
        }
        self.unread.remove(record);
        for (copy, damaged, unread) in [
            (&from_file, "store-copy-damaged", "store-copy-unread"),
            (&second, "store-second-damaged", "store-second-unread"),
        ] {
            self.faults.remove(unread);
            if let Some(why) = &copy.fault {
                let code = if copy.damaged { damaged } else { unread };
                tracing::warn!(code, "{why}");
                self.faults.insert(code, why.clone());
            }
        }
        let held = mend::Held {
            file: from_file.generation(),
            // Only what was read and is wrong, or is not there, is written over: what cannot be read now may be newer.
            file_replaceable: from_file.fault.is_none() || from_file.damaged,
            other: from_database
                .iter()
                .chain(&second.found)
                .map(|(generation, _)| *generation)
                .max(),
        };
        // Of equal ones the file's, which is the last here.
        let copies = [from_database, second.found, from_file.found]
            .into_iter()
            .flatten();
        let Some((generation, payload)) = copies.max_by_key(|(generation, _)| *generation) else {
            if let Some(why) = from_file.fault.filter(|_| !from_file.damaged) {
                self.unread.insert(record, why);
            }
            return None;
        };
        self.generations.insert(record, generation);
        self.write_again(record, generation, &payload, &held);
        Some(payload)
    }

    /// Why it is not known whether there is such a record, after [`Self::load`] found none.
    pub fn unread(&self, record: &'static str) -> Option<&str> {
        self.unread.get(record).map(String::as_str)
    }

    /// Stores the record; its file is durable when this returns well, and the database's copy if that works.
    pub fn save(&mut self, record: &'static str, payload: &[u8]) -> Result<(), StoreError> {
        if !self.generations.contains_key(record) {
            self.load(record);
        }
        if let Some(why) = self.unread.get(record) {
            // Written as the first of its kind it would give way to what is there, once that can be read again.
            return Err(StoreError {
                record,
                source: FileError {
                    verb: "read",
                    path: copy_path(&self.folder, record),
                    source: std::io::Error::other(why.clone()),
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
            self.fault("store-copies", &source);
            return Err(StoreError { record, source });
        }
        self.generations.insert(record, generation);
        self.faults.remove("store-copies");
        self.faults.remove("store-copy-damaged");
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
                self.faults.remove("store-second-damaged");
                self.guarded(|db| {
                    db.remove(record)?;
                    db.flush().map(|_| ())
                });
            }
            Err(error) => self.fault("store-second", &error),
        }
    }

    fn fault(&mut self, code: &'static str, error: &(dyn std::error::Error + 'static)) {
        self.patience.begin();
        let message = text::sentence(error);
        tracing::warn!(code, "{message}");
        self.faults.insert(code, message);
    }

    fn open_database(&mut self) {
        let path = self.folder.join("store");
        for attempt in 0..2 {
            let opened = catch_unwind(|| database::open(&path, CACHE_BYTES, SEGMENT_BYTES));
            let why = match opened {
                Ok(Ok(db)) => {
                    self.db = Some(db);
                    self.faults.remove("store-failed");
                    return;
                }
                Ok(Err(error)) if !database::is_damage(&error) => {
                    // A full disk or a lock: what is there may be whole.
                    self.fault("store-failed", &error);
                    return;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "an internal error (a panic)".to_owned(),
            };
            if let Some(obstacle) = database::obstacle(&path) {
                self.patience.begin();
                self.faults.insert(
                    "store-failed",
                    format!("the store's database cannot be opened: {obstacle}"),
                );
                return;
            }
            self.faults.insert(
                "store-damaged",
                format!("the store's database was damaged and set aside as store.damaged ({why}); the copies in files are used"),
            );
            if attempt == 0 && set_aside(&path).is_err() {
                break;
            }
        }
        self.faults.insert(
            "store-failed",
            "the store's database cannot be opened; records are kept in files only".to_owned(),
        );
    }

    /// Runs `work` on the database; `None` if there is none, or it failed and was let go.
    fn guarded<T>(&mut self, work: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Option<T> {
        let db = self.db.as_ref()?;
        match catch_unwind(AssertUnwindSafe(|| work(db))) {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => self.fault("store-failed", &error),
            Err(_) => {
                self.faults.insert(
                    "store-failed",
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
}

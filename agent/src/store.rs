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

mod lock;
mod mend;
mod other;
mod records;
mod sealed;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use penstock_policy::text;
use penstock_proto::v1::Fault;

pub use self::lock::{LockError, is_locked, lock};
use self::other::is_large;
pub use self::sealed::{Copy, read_copy};
use self::sealed::{copy_path, read_sealed};
use crate::database::Database;
use crate::durable::{self, FileError};

pub use self::records::Records;

/// The largest record: a stored offer of the largest plan.
pub const RECORD_BYTES_MAX: u64 = 160 * 1024 * 1024;

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

/// The store. Synchronous; its callers run it on a blocking thread.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    db: Option<Database>,
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
            sealed::unseal(record, bytes).map(|(generation, payload)| (generation, payload.to_vec()))
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
        let sealed = sealed::seal(record, generation, payload);
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

    fn fault(&mut self, code: &'static str, record: &'static str, error: &(dyn std::error::Error + 'static)) {
        self.patience.begin();
        let message = text::sentence(error);
        tracing::warn!(code, "{message}");
        self.faults.insert((code, record), message);
    }
}

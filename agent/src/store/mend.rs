//! How a store gets well again: what is missing or damaged of a record's two copies is written from the other one, a database
//! that failed is opened again, and the faults end when that worked.
//!
//! The reconciler calls [`Store::mend`] at every look; a store that stays ill is tried ever more rarely.

use super::sealed::{self, copy_path};
use super::{ALL, Store};
use crate::durable;

/// Most looks between two tries.
const LOOKS_MAX: u32 = 32;

/// How many looks are let pass before the next try.
#[derive(Debug, Default)]
pub(super) struct Patience {
    left: u32,
    next: u32,
}

impl Patience {
    /// Something failed: the next look is the first try.
    pub(super) fn begin(&mut self) {
        if self.next == 0 {
            self.next = 1;
        }
    }

    /// Whether it is time for a try.
    fn over(&mut self) -> bool {
        if self.left > 0 {
            self.left -= 1;
            return false;
        }
        self.left = self.next;
        self.next = self.next.saturating_mul(2).clamp(1, LOOKS_MAX);
        true
    }
}

/// The generations of a record's copies.
pub(super) struct CopyGenerations {
    /// In `copies/`.
    pub(super) file: Option<u64>,
    /// The file may be written over if it is not the newest.
    pub(super) file_replaceable: bool,
    /// In the database, or in `second/`.
    pub(super) other: Option<u64>,
    /// And that one.
    pub(super) other_replaceable: bool,
}

impl Store {
    /// Tries to end the faults there are: opens the database again, and writes what is missing.
    pub fn mend(&mut self) {
        if self.faults.is_empty() {
            self.patience = Patience::default();
            return;
        }
        if !self.patience.over() {
            return;
        }
        if self.db.is_none() {
            self.open_database();
        }
        let disk_failed = self.faults.remove(&("store-copies", ALL)).is_some();
        let mut records: Vec<_> = self.generations.keys().copied().collect();
        for record in &records {
            for code in ["store-copy-damaged", "store-second", "store-second-damaged"] {
                self.faults.remove(&(code, *record));
            }
        }
        // What could not be read is looked for again; what is damaged whole stays so until it is replaced.
        let unread = self.unusable.iter().filter(|(_, unusable)| unusable.unread);
        records.extend(unread.map(|(record, _)| *record));
        records.sort_unstable();
        records.dedup();
        for record in records {
            let payload = self.load(record);
            if let (true, Some(payload), Some(generation)) =
                (disk_failed, payload, self.generations.get(record))
            {
                // The next record will be written: whether that works again is seen by writing this one.
                let sealed = sealed::seal(record, *generation, &payload);
                if let Err(error) = durable::replace(&copy_path(&self.folder, record), &sealed, 0o600) {
                    self.fault("store-copies", ALL, &error);
                    return;
                }
            }
        }
        if self.faults.is_empty() {
            tracing::info!("the store works again");
        }
    }

    /// Writes each copy of a record that is not `generation`, the newest one.
    pub(super) fn write_again(
        &mut self,
        record: &'static str,
        generation: u64,
        payload: &[u8],
        held: &CopyGenerations,
    ) {
        let file_is_due = held.file != Some(generation) && held.file_replaceable;
        let other_is_due = held.other != Some(generation) && held.other_replaceable;
        if !file_is_due && !other_is_due {
            return;
        }
        let sealed = sealed::seal(record, generation, payload);
        if file_is_due {
            match durable::replace(&copy_path(&self.folder, record), &sealed, 0o600) {
                Ok(()) => tracing::warn!(record, "a copy was lost, damaged or old, and was written again"),
                Err(error) => self.fault("store-copies", ALL, &error),
            }
        }
        if other_is_due {
            self.keep_other(record, &sealed);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use std::path::Path;

    fn codes(store: &Store) -> Vec<String> {
        store.faults().into_iter().map(|fault| fault.code).collect()
    }

    /// A folder in the database's place cannot be opened as one, as on a disk that fails; taken away, it can.
    fn block(folder: &Path) {
        std::fs::remove_dir_all(folder.join("store")).unwrap();
        std::fs::write(folder.join("store"), "no database").unwrap();
    }

    #[test]
    fn a_database_that_failed_is_a_fault_until_it_works_again_and_has_every_record_then() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path());
        store.save("policy", b"last good").unwrap();
        store.save("trust", b"believed").unwrap();
        store.db = None;
        block(folder.path());
        store.save("policy", b"next").unwrap();
        assert_eq!(codes(&store), ["store-failed"]);
        store.mend();
        assert_eq!(codes(&store), ["store-failed"], "it is still blocked");
        std::fs::remove_file(folder.path().join("store")).unwrap();
        for _ in 0..LOOKS_MAX {
            store.mend();
        }
        assert_eq!(codes(&store), Vec::<String>::new());
        drop(store);
        std::fs::remove_dir_all(folder.path().join("copies")).unwrap();
        let mut store = Store::open(folder.path());
        assert_eq!(store.load("policy").unwrap(), b"next");
        assert_eq!(store.load("trust").unwrap(), b"believed");
    }

    #[test]
    fn a_damaged_copy_is_written_again_from_the_other_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path());
        for payload in [vec![7; 100], vec![7; 1_000_000]] {
            store.save("policy", &payload).unwrap();
            let path = folder.path().join("copies/policy");
            let whole = std::fs::read(&path).unwrap();
            let mut damaged = whole.clone();
            damaged[20] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(store.load("policy").unwrap(), payload);
            assert_eq!(codes(&store), ["store-copy-damaged"]);
            assert_eq!(std::fs::read(&path).unwrap(), whole);
            store.mend();
            assert_eq!(codes(&store), Vec::<String>::new());
        }
    }

    #[test]
    fn a_disk_that_could_not_be_written_is_a_fault_until_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path());
        store.save("policy", b"last good").unwrap();
        // A folder in the place of the draft: the file beside the target cannot be made.
        let draft = folder.path().join("copies/policy.new");
        std::fs::create_dir(&draft).unwrap();
        assert!(store.save("policy", b"next").is_err());
        store.mend();
        assert_eq!(codes(&store), ["store-copies"]);
        std::fs::remove_dir(&draft).unwrap();
        for _ in 0..LOOKS_MAX {
            store.mend();
        }
        assert_eq!(codes(&store), Vec::<String>::new());
        assert_eq!(store.load("policy").unwrap(), b"last good");
    }
}

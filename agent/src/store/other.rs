//! The copy that is not in `copies/`: in the database, or, of a large record, in `second/`.
//!
//! All that touches the database stands here, fenced: whatever it does, panics included, ends as a fault. One whose bytes are
//! wrong is set aside as `store.damaged` and a new one is created; a disk that is full, read-only or reports errors is waited for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::{ALL, SECOND, Store};
use crate::{database, durable};

const CACHE_BYTES: u64 = 256 * 1024;
const SEGMENT_BYTES: usize = 64 * 1024;

/// Whether the database's cache is too small for it.
pub(super) fn is_large(bytes: usize) -> bool {
    u64::try_from(bytes).is_ok_and(|bytes| bytes > CACHE_BYTES)
}

impl Store {
    /// Keeps the copy that is not in `copies/`.
    pub(super) fn keep_other(&mut self, record: &'static str, sealed: &[u8]) {
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
    pub(super) fn keep_second(&mut self, record: &'static str, sealed: &[u8]) {
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

    pub(super) fn forget_in_database(&mut self, record: &'static str) {
        self.guarded(|db| {
            db.remove(record)?;
            db.flush().map(|_| ())
        });
    }

    pub(super) fn open_database(&mut self) {
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
    pub(super) fn guarded<T>(
        &mut self,
        work: impl FnOnce(&database::Database) -> database::Result<T>,
    ) -> Option<T> {
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

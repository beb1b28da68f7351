//! What the gateway keeps of overrides, one record: those that last, how long each still does, and the codes that were used.
//!
//! ```text
//! record "overrides":  JSON
//! ```
//!
//! An override and the code that it spends are one write, before the kernel is asked. A record that cannot be read is never taken for
//! an empty one: a code that was used would open the gateway a second time. Within one boot an override ends at a moment of that boot's
//! clock; for the next boot the record says how long it still lasts at most. What is judged by it is in [`crate::overrides`].

use std::collections::BTreeSet;
use std::path::Path;

use penstock_policy::ids::{ApproverId, Digest};
use penstock_policy::overrides::{Authority, Override};
use serde::{Deserialize, Serialize};

use crate::store::{Records, StoreError, read_copy};

const RECORD: &str = "overrides";

/// What stands in the record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverridesRecord {
    /// Those that last, in the order in which they began; and those whose end is not in the trail yet.
    pub lasting: Vec<LastingOverride>,
    /// The digests of codes that were used.
    pub spent: BTreeSet<Digest>,
}

/// One that began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastingOverride {
    /// What was signed, or opened by a code.
    pub asked: Override,
    /// Who signed it; none: a code opened it.
    pub people: Vec<ApproverId>,
    /// The digest of that code.
    pub code: Option<Digest>,
    /// Who handed it in at the gateway.
    pub by: String,
    /// When it began, milliseconds since 1970 by the gateway's clock.
    pub since_ms: u64,
    /// The boot that `ends_ms` is of; empty: not known, and never the same.
    pub boot: String,
    /// When it ends, on the clock of that boot, milliseconds.
    pub ends_ms: u64,
    /// How long it lasts at most in another boot, milliseconds: a little less than was left when this was written.
    pub left_ms: u64,
    /// When it ends by a clock that was synchronised, milliseconds since 1970; `None`: it was not yet.
    pub until_ms: Option<u64>,
    /// It is over, and why: it is not in force again, whatever the trail has of its end.
    pub ended: Option<OverrideEnd>,
}

/// Why one is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverrideEnd {
    /// Stable word: `time`, `asked`, `ratified`, `nothing-left`.
    pub code: String,
    /// In words.
    pub why: String,
}

impl LastingOverride {
    /// Who permitted it, in words.
    pub fn authority(&self) -> String {
        let authority = match self.code {
            Some(code) => Authority::Code(code),
            None => Authority::People(self.people.clone()),
        };
        authority.to_string()
    }
}

/// What the store says of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredOverrides {
    /// This; nothing where there never was one.
    Known(OverridesRecord),
    /// It cannot be read at the moment, and may be whole; why.
    Unread(String),
    /// There was one, and it is lost; why.
    Damaged(String),
}

/// Not looked for.
impl Default for StoredOverrides {
    fn default() -> Self {
        Self::Unread("the store was not asked".to_owned())
    }
}

/// Reads the record.
pub fn load(store: &mut dyn Records) -> StoredOverrides {
    if let Some(bytes) = store.load(RECORD) {
        return read(&bytes);
    }
    match (store.unread(RECORD), store.unusable(RECORD)) {
        (Some(why), _) => StoredOverrides::Unread(why.to_owned()),
        (None, Some(why)) => StoredOverrides::Damaged(why.to_owned()),
        (None, None) => StoredOverrides::Known(OverridesRecord::default()),
    }
}

/// Reads its copy alone, as other programs may while the agent has the store.
pub fn peek(folder: &Path) -> StoredOverrides {
    let copy = read_copy(folder, RECORD);
    match (copy.found, copy.fault) {
        (Some((_, bytes)), _) => read(&bytes),
        (None, Some(why)) => StoredOverrides::Unread(why),
        (None, None) => StoredOverrides::Known(OverridesRecord::default()),
    }
}

/// Writes the record, durable when this returns well.
///
/// # Errors
/// It cannot be written, or what is there cannot be read at the moment.
pub fn save(store: &mut dyn Records, record: &OverridesRecord) -> Result<(), StoreError> {
    // Names, numbers and texts cannot fail to be JSON.
    store.save(RECORD, &serde_json::to_vec(record).unwrap_or_default())
}

fn read(bytes: &[u8]) -> StoredOverrides {
    match serde_json::from_slice(bytes) {
        Ok(record) => StoredOverrides::Known(record),
        Err(error) => StoredOverrides::Damaged(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::store::Store;

    fn spent(byte: u8) -> OverridesRecord {
        OverridesRecord {
            lasting: Vec::new(),
            spent: BTreeSet::from([Digest([byte; 32])]),
        }
    }

    #[test]
    fn a_record_that_was_lost_is_not_taken_for_one_in_which_no_code_was_used() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path());
        assert_eq!(
            load(&mut store),
            StoredOverrides::Known(OverridesRecord::default())
        );
        save(&mut store, &spent(1)).unwrap();
        assert_eq!(load(&mut store), StoredOverrides::Known(spent(1)));
        assert_eq!(peek(folder.path()), StoredOverrides::Known(spent(1)));
        drop(store);
        // Both copies.
        std::fs::remove_dir_all(folder.path().join("store")).unwrap();
        let path = folder.path().join("copies").join(RECORD);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[30] ^= 1;
        std::fs::write(path, bytes).unwrap();
        let read = load(&mut Store::open(folder.path()));
        assert!(matches!(read, StoredOverrides::Damaged(_)), "{read:?}");
        assert!(matches!(peek(folder.path()), StoredOverrides::Unread(_)));
    }

    #[test]
    fn a_record_of_a_newer_agent_is_not_read_in_part() {
        let bytes = br#"{"lasting":[],"spent":[],"lent":[]}"#;
        assert!(matches!(read(bytes), StoredOverrides::Damaged(_)));
    }
}

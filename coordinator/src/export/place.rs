//! Up to where an export came, in a record of the store: with the trail in the same database, so that a backup that is restored
//! has both as they were together.

use serde::{Deserialize, Serialize};

use super::settings::{ExportSettings, Start};
use crate::store::{Change, Cursor, Expect, Silent, Store, StoreError};

/// What the keys of these records begin with.
const PREFIX: &str = "export/";

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PlaceRecord {
    /// Behind what certainly arrived.
    cursor: String,
}

/// An export's place.
#[derive(Debug)]
pub(super) struct Place {
    key: String,
    revision: Option<u64>,
    /// Behind what certainly arrived.
    pub(super) cursor: Cursor,
}

impl Place {
    /// As it was noted, else where the export begins the first time.
    pub(super) async fn load(store: &Store, settings: &ExportSettings) -> Result<Self, StoreError> {
        let key = format!("{PREFIX}{}", settings.name);
        if let Some((record, revision)) = store.get_json::<PlaceRecord>(&key).await? {
            let cursor = Cursor::of_kept(&record.cursor).ok_or(StoreError::ForeignCursor)?;
            return Ok(Self {
                key,
                revision: Some(revision),
                cursor,
            });
        }
        let cursor = match settings.start {
            Start::Oldest => store.beginning().await?,
            Start::Now => store.appended().borrow().clone(),
        };
        let mut place = Self {
            key,
            revision: None,
            cursor: cursor.clone(),
        };
        // Noted at once: what comes while the receiver is away belongs to the export.
        place.note(store, cursor).await?;
        Ok(place)
    }

    /// Notes that everything up to `cursor` certainly arrived.
    pub(super) async fn note(&mut self, store: &Store, cursor: Cursor) -> Result<(), StoreError> {
        let expect = self.revision.map_or(Expect::Absent, Expect::Revision);
        let record = PlaceRecord {
            cursor: cursor.kept(),
        };
        let change = Change::silent(Silent::Observed).json(&self.key, expect, &record)?;
        let written = store.apply(change).await?;
        self.revision = written.first().map(|written| written.revision);
        self.cursor = cursor;
        Ok(())
    }
}

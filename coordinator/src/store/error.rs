//! What can go wrong with the store, by what one does about it; what the engine says is read in `fault`.

use std::path::{Path, PathBuf};

use penstock_proto::refusal::{Reason, Refusal};
use tonic::Status;

use super::fault::{Cause, EngineError, RESTORE};

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else wrote the record first; read it again and repeat.
    #[error("the record `{key}` was changed by somebody else; read it again")]
    Conflict {
        /// The record.
        key: String,
        /// Its revision now; `None`: it is not there.
        found: Option<u64>,
    },
    /// The engine could not do it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Something that is stored is not what it was stored as.
    #[error("the store {path} is damaged ({what}); {RESTORE}")]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// Written by newer software.
    #[error(
        "the store {path} has schema {found}, this software knows up to {known}; run the newer coordinator"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// A record that cannot be read.
    #[error(
        "the record `{key}` in the store is not in a form that this software knows; if a newer coordinator wrote it, run \
         that one again"
    )]
    Record {
        /// The record.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Larger than a record or blob may be.
    #[error("{what} has {bytes} bytes, at most {bytes_max} are stored")]
    TooLarge {
        /// What.
        what: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A look over the trail that took longer than it may.
    #[error(
        "the search looked over the trail for {} s without coming to its end; narrow it: a later --since, one --source", super::scan::SCAN_TIME_MAX.as_secs()
    )]
    TooLong,
    /// The writer's thread could not be started.
    #[error("cannot start the store's writer")]
    Thread(#[source] std::io::Error),
    /// The writer is gone.
    #[error("the store is stopped")]
    Stopped,
}

impl StoreError {
    pub(super) fn from_sqlite(path: &Path, error: rusqlite::Error) -> Self {
        EngineError::new(path, &error).into()
    }

    /// What the engine could not do, if it was the engine.
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Self::Engine(error) => Some(error.cause),
            Self::Corrupt { .. } => Some(Cause::Damaged),
            _ => None,
        }
    }

    /// The same failure, for each of several who wait for one commit.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Engine(error) => Self::Engine(error.clone()),
            _ => Self::Stopped,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let reason = match &error {
            StoreError::Conflict { .. } => Reason::Conflict,
            StoreError::Engine(error) => match error.cause {
                Cause::Busy => Reason::StoreBusy,
                Cause::Full => Reason::StoreFull,
                Cause::Damaged | Cause::NotAStore => Reason::StoreCorrupt,
                Cause::ReadOnly
                | Cause::Gone
                | Cause::Disk
                | Cause::FileSystem
                | Cause::Unopened
                | Cause::Memory => Reason::StoreUnavailable,
                Cause::Internal => Reason::Internal,
            },
            StoreError::Corrupt { .. } => Reason::StoreCorrupt,
            StoreError::TooLarge { .. } => Reason::BadRequest,
            StoreError::TooLong => Reason::SearchTooLong,
            StoreError::Stopped => Reason::Stopping,
            StoreError::Newer { .. } | StoreError::Record { .. } | StoreError::Thread(_) => Reason::Internal,
        };
        if !matches!(
            reason,
            Reason::Conflict | Reason::BadRequest | Reason::SearchTooLong | Reason::Stopping
        ) {
            tracing::error!(error = %crate::chain(&error), "the store failed");
        }
        Self::new(reason, error.to_string())
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        Refusal::from(error).into()
    }
}

//! What can go wrong with the store, by what one does about it.

use std::path::{Path, PathBuf};

use penstock_proto::refusal::{Reason, Refusal};
use rusqlite::ErrorCode;
use tonic::Status;

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
    /// Another process holds the database.
    #[error("the store {path} is in use by another process; is a second coordinator running on it?")]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// No room.
    #[error(
        "the disk of the store {path} is full; nothing was written, what was committed is safe; make room"
    )]
    Full {
        /// The database.
        path: PathBuf,
    },
    /// Damaged.
    #[error("the store {path} is damaged ({what}); stop the coordinator and restore a backup")]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// In the engine's words.
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
    /// A file that is not ours.
    #[error("{path} is not a Penstock store")]
    NotAStore {
        /// The file.
        path: PathBuf,
    },
    /// Any other failure of the database.
    #[error("the store {path} failed")]
    Engine {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A record that cannot be read.
    #[error("the record `{key}` cannot be read or written as what it should be")]
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
        let path = path.to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { path },
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(ErrorCode::DatabaseCorrupt) => Self::Corrupt {
                path,
                what: error.to_string(),
            },
            Some(ErrorCode::NotADatabase) => Self::NotAStore { path },
            _ => Self::Engine { path, source: error },
        }
    }

    /// The same failure, for each of several who wait for one commit.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Busy { path } => Self::Busy { path: path.clone() },
            Self::Full { path } => Self::Full { path: path.clone() },
            Self::Corrupt { path, what } => Self::Corrupt {
                path: path.clone(),
                what: what.clone(),
            },
            Self::Engine { path, source } => Self::Corrupt {
                path: path.clone(),
                what: source.to_string(),
            },
            _ => Self::Stopped,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let reason = match &error {
            StoreError::Conflict { .. } => Reason::Conflict,
            StoreError::Busy { .. } => Reason::StoreBusy,
            StoreError::Full { .. } => Reason::StoreFull,
            StoreError::Corrupt { .. } | StoreError::NotAStore { .. } => Reason::StoreCorrupt,
            StoreError::TooLarge { .. } => Reason::BadRequest,
            StoreError::TooLong => Reason::SearchTooLong,
            StoreError::Stopped => Reason::Stopping,
            StoreError::Newer { .. }
            | StoreError::Engine { .. }
            | StoreError::Record { .. }
            | StoreError::Thread(_) => Reason::Internal,
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

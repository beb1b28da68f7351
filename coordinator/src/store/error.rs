//! What can go wrong with the store, by what one does about it; what the engine says is read in `fault`.

use std::path::PathBuf;

use penstock_proto::refusal::{Reason, Refusal};
use tonic::Status;

use super::fault::{EngineError, FaultCause, RESTORE};

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
    /// What is still free is kept for what must go on.
    #[error(
        "the disk of the store {path} has {} MiB free, of which {} MiB are kept for approvals, certificates and operators' own trail; \
         make room, or lower `storage.reserve_bytes`", free_bytes >> 20, kept_bytes >> 20
    )]
    Reserved {
        /// The database.
        path: PathBuf,
        /// Free now.
        free_bytes: u64,
        /// Kept.
        kept_bytes: u64,
    },
    /// The disk is half used, and this trail holds its part of the rest.
    #[error(
        "the trail of {source_name} holds {} MiB of the store, and its part of what is left is {} MiB; it waits so that the others can continue: make room, or let `storage.trail_days` remove old audit", held_bytes >> 20, part_bytes >> 20
    )]
    HoldsItsPart {
        /// Whose.
        source_name: String,
        /// What it holds.
        held_bytes: u64,
        /// What it may hold.
        part_bytes: u64,
    },
    /// A source delivers more than its share of a day.
    #[error(
        "the trail of {source_name} grows by more than {} MiB a day (`storage.trail_bytes_per_day`); its next blocks are taken in {} min: find out what it reports so much about", bytes_per_day >> 20, after.as_secs().div_ceil(60)
    )]
    TooFast {
        /// Whose.
        source_name: String,
        /// What it may deliver.
        bytes_per_day: u64,
        /// When there is room for the next.
        after: std::time::Duration,
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
    /// A copy of a replicated store, which was opened as one that stands alone.
    #[error(
        "the store {path} is a copy of a replicated store: what is written to it alone would be on no other coordinator; name the servers in `[storage.nats]`, or make a store that stands alone of it (`penstock-coordinator migrate`)"
    )]
    IsCopy {
        /// The database.
        path: PathBuf,
    },
    /// A store that stands alone, which was opened as a copy.
    #[error(
        "the store {path} stands alone and is not empty: it cannot follow the log of others; take `[storage.nats]` out of the configuration, bring what it holds into the replicated store (`penstock-coordinator migrate`), or move the file aside if what it holds is not needed"
    )]
    StandsAlone {
        /// The database.
        path: PathBuf,
    },
    /// The log of a replicated store is not the one that this copy has followed.
    #[error(
        "the copy {path} cannot follow its log any more: {what}. It stays as it is, and takes no writes. If the servers were restored from an older backup, or their stream was removed and made again, the copies may be all that is left of what came since: stop all coordinators and see the runbook, 'The log of the cluster was lost'"
    )]
    LogLost {
        /// The database.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The log of a replicated store did not take a write.
    #[error(
        "the replicated store did not answer ({words}): whether the change was made shows when it does again; read before you repeat it. Most of its servers have to be running and to reach each other"
    )]
    Unsettled {
        /// In the words of what carries the log.
        words: String,
    },
    /// The log of a replicated store cannot be reached, and nothing was asked of it.
    #[error(
        "the replicated store cannot be reached ({words}); most of its servers have to be running and to reach each other"
    )]
    Unreachable {
        /// In the words of what carries the log.
        words: String,
    },
    /// A replicated store as it is configured cannot be used, and will not be by waiting.
    #[error("the replicated store cannot be used: {words}")]
    Unusable {
        /// Why.
        words: String,
    },
    /// Another coordinator acts by now.
    #[error("another coordinator acts for this plant by now, and this one writes nothing any more")]
    Deposed,
    /// The servers of a replicated store have no room.
    #[error(
        "the servers of the replicated store have no room ({words}); nothing was written; make room on their disks, or raise the limit of the stream"
    )]
    LogFull {
        /// In the servers' words.
        words: String,
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
        "the search did not finish within {} s; narrow it with a later --since, or with --source", super::trail::PAGE_TIME_MAX.as_secs()
    )]
    TooLong,
    /// A place in the trail that this engine did not make.
    #[error("the search cannot continue: its place in the trail is not one of this store; start it again")]
    ForeignCursor,
    /// The writer's thread could not be started.
    #[error("cannot start the store's writer")]
    Thread(#[source] std::io::Error),
    /// The writer is gone.
    #[error("the store is stopped")]
    Stopped,
}

impl StoreError {
    /// What the engine could not do, if it was the engine.
    pub fn cause(&self) -> Option<FaultCause> {
        match self {
            Self::Engine(error) => Some(error.cause),
            Self::Corrupt { .. } => Some(FaultCause::Damaged),
            _ => None,
        }
    }

    /// The same failure, for each of several who wait for one commit.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Engine(error) => Self::Engine(error.clone()),
            Self::LogLost { path, what } => Self::LogLost {
                path: path.clone(),
                what: what.clone(),
            },
            Self::Unsettled { words } => Self::Unsettled { words: words.clone() },
            Self::Unreachable { words } => Self::Unreachable { words: words.clone() },
            Self::Deposed => Self::Deposed,
            Self::LogFull { words } => Self::LogFull { words: words.clone() },
            _ => Self::Stopped,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let reason = match &error {
            StoreError::Conflict { .. } => Reason::Conflict,
            StoreError::Engine(error) => match error.cause {
                FaultCause::Busy => Reason::StoreBusy,
                FaultCause::Full => Reason::StoreFull,
                FaultCause::Damaged | FaultCause::NotAStore => Reason::StoreCorrupt,
                FaultCause::ReadOnly
                | FaultCause::Gone
                | FaultCause::Disk
                | FaultCause::FileSystem
                | FaultCause::Unopened
                | FaultCause::Memory => Reason::StoreUnavailable,
                FaultCause::Internal => Reason::Internal,
            },
            StoreError::Reserved { .. } | StoreError::HoldsItsPart { .. } | StoreError::TooFast { .. } => {
                Reason::StoreFull
            }
            StoreError::Corrupt { .. } => Reason::StoreCorrupt,
            StoreError::TooLarge { .. } | StoreError::ForeignCursor => Reason::BadRequest,
            StoreError::TooLong => Reason::SearchTooLong,
            StoreError::Stopped | StoreError::Deposed => Reason::Stopping,
            StoreError::Unsettled { .. } | StoreError::Unreachable { .. } => Reason::StoreUnavailable,
            StoreError::LogFull { .. } => Reason::StoreFull,
            StoreError::LogLost { .. } => Reason::StoreCorrupt,
            StoreError::Newer { .. }
            | StoreError::Unusable { .. }
            | StoreError::IsCopy { .. }
            | StoreError::StandsAlone { .. }
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

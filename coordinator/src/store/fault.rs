//! What SQLite could not do, by what one does about it.
//!
//! Read from its extended result codes: whether a disk is full, refuses writes or fails, or whether the file itself is damaged,
//! leads to different hands at work. Only what says that stored bytes are wrong is called damage, since whoever restores a
//! backup loses what was stored since.

use std::fmt;
use std::path::{Path, PathBuf};

use rusqlite::ffi;

use super::room::is_read_only;

/// What one does about a store whose bytes are wrong.
pub(super) const RESTORE: &str = "stop the coordinator, keep a copy of this file and its -wal, and restore the newest \
                                  backup; gateways keep enforcing meanwhile, and send the part of their trails that the backup lacks again";

/// What the engine could not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultCause {
    /// Another process holds the database.
    Busy,
    /// No room on the disk.
    Full,
    /// The file or its file system refuses writes.
    ReadOnly,
    /// The file was moved or removed while it was open.
    Gone,
    /// The system reported an error of reading, writing or syncing.
    Disk,
    /// The file system below is damaged.
    FileSystem,
    /// The file, or one beside it, cannot be opened.
    Unopened,
    /// No memory.
    Memory,
    /// The file's bytes are wrong.
    Damaged,
    /// The file is something else.
    NotAStore,
    /// A fault of the coordinator itself.
    Internal,
}

/// A failure of the engine: on which file, what, and in the engine's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineError {
    /// The database.
    pub path: PathBuf,
    /// What it could not do.
    pub cause: FaultCause,
    /// The engine's words and its extended code.
    pub words: String,
}

impl EngineError {
    pub(super) fn new(path: &Path, error: &rusqlite::Error) -> Self {
        let words = match error.sqlite_error() {
            Some(code) => format!("{error}, SQLite code {}", code.extended_code),
            None => error.to_string(),
        };
        // The engine cannot make the files beside the store on such a file system, and only says that it cannot open them.
        let cause = match FaultCause::of(error) {
            FaultCause::Unopened if is_read_only(path) => FaultCause::ReadOnly,
            cause => cause,
        };
        Self {
            path: path.to_owned(),
            cause,
            words,
        }
    }
}

impl FaultCause {
    /// Reads an error of the engine.
    pub(super) fn of(error: &rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        match (error.sqlite_error(), error) {
            (Some(code), _) => Self::of_code(code.extended_code),
            // A column that does not hold what was written into it.
            (
                None,
                E::InvalidColumnType(..) | E::FromSqlConversionFailure(..) | E::IntegralValueOutOfRange(..),
            ) => Self::Damaged,
            (None, _) => Self::Internal,
        }
    }

    fn of_code(extended: i32) -> Self {
        match extended {
            ffi::SQLITE_READONLY_DBMOVED => return Self::Gone,
            ffi::SQLITE_IOERR_CORRUPTFS => return Self::FileSystem,
            // A page whose checksum is not its own.
            ffi::SQLITE_IOERR_DATA => return Self::Damaged,
            ffi::SQLITE_IOERR_NOMEM => return Self::Memory,
            ffi::SQLITE_IOERR_LOCK | ffi::SQLITE_IOERR_BLOCKED => return Self::Busy,
            // The file of shared memory beside the store is made longer before anything else; that fails on a full disk.
            ffi::SQLITE_IOERR_SHMSIZE => return Self::Full,
            _ => {}
        }
        // The lower eight bits are the code that the extended one belongs to.
        match extended & 0xff {
            ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL => Self::Busy,
            ffi::SQLITE_FULL => Self::Full,
            ffi::SQLITE_READONLY => Self::ReadOnly,
            ffi::SQLITE_IOERR => Self::Disk,
            ffi::SQLITE_CANTOPEN | ffi::SQLITE_PERM | ffi::SQLITE_AUTH => Self::Unopened,
            ffi::SQLITE_NOMEM => Self::Memory,
            ffi::SQLITE_CORRUPT => Self::Damaged,
            ffi::SQLITE_NOTADB => Self::NotAStore,
            _ => Self::Internal,
        }
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, words) = (self.path.display(), &self.words);
        const SAFE: &str = "nothing was written, and what was stored before is not affected";
        match self.cause {
            FaultCause::Busy => write!(
                f,
                "the store {path} is in use by another process; is a second coordinator running on it, or a backup of the file?"
            ),
            FaultCause::Full => write!(f, "the disk that holds {path} is full; {SAFE}; make room on it"),
            FaultCause::ReadOnly => write!(
                f,
                "{path} cannot be written; {SAFE}; make the file, its -wal and its folder writable for the \
                 coordinator's user, and see whether the file system is mounted read-only, as it is after errors of its disk ({words})"
            ),
            FaultCause::Gone => write!(
                f,
                "the file of the store {path} was moved or removed while the coordinator was running; put it back with its -wal \
                 and start the coordinator again ({words})"
            ),
            FaultCause::Disk => write!(
                f,
                "the system could not read or write {path}; {SAFE}; look for errors of the disk \
                 in the system's log, and at quotas and the limit on the size of files. This does not mean that the store is \
                 damaged: do not restore a backup for it ({words})"
            ),
            FaultCause::FileSystem => write!(
                f,
                "the file system below the store {path} reports that it is damaged; stop the coordinator, check the file system, \
                 and see afterwards whether the store can be opened ({words})"
            ),
            FaultCause::Unopened => write!(
                f,
                "{path} cannot be opened; see that its folder exists, and that the coordinator's user may read and write \
                 the folder, the file and those beside it that end in -wal and -shm ({words})"
            ),
            FaultCause::Memory => write!(
                f,
                "there is not enough memory for the store {path}; {SAFE}; see what uses it, and the unit's MemoryMax"
            ),
            FaultCause::Damaged => write!(f, "the store {path} is damaged ({words}); {RESTORE}"),
            FaultCause::NotAStore => write!(
                f,
                "{path} is not a Penstock store; see that `data` in the configuration names the right folder. If it was a store, its \
                 first bytes were overwritten: {RESTORE}"
            ),
            FaultCause::Internal => write!(
                f,
                "internal error: the store {path} was asked for something that its engine refuses; report it ({words})"
            ),
        }
    }
}

impl std::error::Error for EngineError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_codes_only_those_that_say_that_bytes_are_wrong_are_told_as_damage() {
        for extended in 0..0x10000_i32 {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(extended), None);
            let told = EngineError::new(Path::new("/var/lib/penstock/penstock.db"), &error);
            let damage = extended & 0xff == ffi::SQLITE_CORRUPT || extended == ffi::SQLITE_IOERR_DATA;
            assert_eq!(told.cause == FaultCause::Damaged, damage, "{extended}: {told}");
            let restores = told.to_string().contains("restore the newest");
            let other = extended & 0xff == ffi::SQLITE_NOTADB;
            assert_eq!(restores, damage || other, "{extended}: {told}");
        }
    }

    #[test]
    fn each_code_leads_to_what_one_does_about_it() {
        for (code, cause) in [
            (ffi::SQLITE_BUSY, FaultCause::Busy),
            (ffi::SQLITE_BUSY_SNAPSHOT, FaultCause::Busy),
            (ffi::SQLITE_LOCKED, FaultCause::Busy),
            (ffi::SQLITE_FULL, FaultCause::Full),
            (ffi::SQLITE_IOERR_SHMSIZE, FaultCause::Full),
            (ffi::SQLITE_READONLY, FaultCause::ReadOnly),
            (ffi::SQLITE_READONLY_DIRECTORY, FaultCause::ReadOnly),
            (ffi::SQLITE_READONLY_DBMOVED, FaultCause::Gone),
            (ffi::SQLITE_IOERR_WRITE, FaultCause::Disk),
            (ffi::SQLITE_IOERR_READ, FaultCause::Disk),
            (ffi::SQLITE_IOERR_FSYNC, FaultCause::Disk),
            (ffi::SQLITE_IOERR_NOMEM, FaultCause::Memory),
            (ffi::SQLITE_IOERR_CORRUPTFS, FaultCause::FileSystem),
            (ffi::SQLITE_CANTOPEN, FaultCause::Unopened),
            (ffi::SQLITE_PERM, FaultCause::Unopened),
            (ffi::SQLITE_NOMEM, FaultCause::Memory),
            (ffi::SQLITE_CORRUPT, FaultCause::Damaged),
            (ffi::SQLITE_CORRUPT_INDEX, FaultCause::Damaged),
            (ffi::SQLITE_NOTADB, FaultCause::NotAStore),
            (ffi::SQLITE_CONSTRAINT, FaultCause::Internal),
            (ffi::SQLITE_MISUSE, FaultCause::Internal),
        ] {
            assert_eq!(FaultCause::of_code(code), cause, "{code}");
        }
    }
}

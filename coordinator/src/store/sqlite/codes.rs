//! SQLite's extended result codes, as what one does about them (`fault`).

use std::path::Path;

use rusqlite::ffi;

use super::disk::is_read_only;
use crate::store::StoreError;
use crate::store::fault::{EngineError, FaultCause};

/// A failure of SQLite on the database at `path`.
pub(super) fn failed(path: &Path, error: &rusqlite::Error) -> StoreError {
    let words = match error.sqlite_error() {
        Some(code) => format!("{error}, SQLite code {}", code.extended_code),
        None => error.to_string(),
    };
    // The engine cannot make the files beside the store on such a file system, and only says that it cannot open them.
    let cause = match cause_of(error) {
        FaultCause::Unopened if is_read_only(path) => FaultCause::ReadOnly,
        cause => cause,
    };
    let path = path.to_owned();
    StoreError::Engine(EngineError { path, cause, words })
}

/// Reads an error of the engine.
pub(super) fn cause_of(error: &rusqlite::Error) -> FaultCause {
    use rusqlite::Error as E;
    match (error.sqlite_error(), error) {
        (Some(code), _) => cause_of_code(code.extended_code),
        // A column that does not hold what was written into it.
        (
            None,
            E::InvalidColumnType(..) | E::FromSqlConversionFailure(..) | E::IntegralValueOutOfRange(..),
        ) => FaultCause::Damaged,
        (None, _) => FaultCause::Internal,
    }
}

fn cause_of_code(extended: i32) -> FaultCause {
    match extended {
        ffi::SQLITE_READONLY_DBMOVED => return FaultCause::Gone,
        ffi::SQLITE_IOERR_CORRUPTFS => return FaultCause::FileSystem,
        // A page whose checksum is not its own.
        ffi::SQLITE_IOERR_DATA => return FaultCause::Damaged,
        ffi::SQLITE_IOERR_NOMEM => return FaultCause::Memory,
        ffi::SQLITE_IOERR_LOCK | ffi::SQLITE_IOERR_BLOCKED => return FaultCause::Busy,
        // The file of shared memory beside the store is made longer before anything else; that fails on a full disk.
        ffi::SQLITE_IOERR_SHMSIZE => return FaultCause::Full,
        _ => {}
    }
    // The lower eight bits are the code that the extended one belongs to.
    match extended & 0xff {
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL => FaultCause::Busy,
        ffi::SQLITE_FULL => FaultCause::Full,
        ffi::SQLITE_READONLY => FaultCause::ReadOnly,
        ffi::SQLITE_IOERR => FaultCause::Disk,
        ffi::SQLITE_CANTOPEN | ffi::SQLITE_PERM | ffi::SQLITE_AUTH => FaultCause::Unopened,
        ffi::SQLITE_NOMEM => FaultCause::Memory,
        ffi::SQLITE_CORRUPT => FaultCause::Damaged,
        ffi::SQLITE_NOTADB => FaultCause::NotAStore,
        _ => FaultCause::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_codes_only_those_that_say_that_bytes_are_wrong_are_told_as_damage() {
        for extended in 0..0x10000_i32 {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(extended), None);
            let StoreError::Engine(told) = failed(Path::new("/var/lib/penstock/penstock.db"), &error) else {
                continue;
            };
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
            assert_eq!(cause_of_code(code), cause, "{code}");
        }
    }
}

//! What an engine could not do, by what one does about it.
//!
//! Whether a disk is full, refuses writes or fails, or whether the file itself is damaged, leads to different hands at work.
//! Only what says that stored bytes are wrong is called damage, since whoever restores a backup loses what was stored since.
//! How an engine finds out is its own (`sqlite/codes`).

use std::fmt;
use std::path::PathBuf;

/// What one does about a store whose bytes are wrong.
pub(super) const RESTORE: &str = "stop the coordinator, move its data folder aside whole, since a -wal that stays beside a \
                                  restored file would damage that, and restore the newest backup; gateways keep enforcing meanwhile, and send the part of their trails that the backup lacks again";

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

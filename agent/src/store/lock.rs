//! The state folder belongs to one agent at a time: whoever holds the file `lock` locked has it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::durable::{self, FileError};

/// The file that the agent which has the state folder holds locked.
pub(super) const LOCK: &str = "lock";

/// Why the state folder is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It cannot be used.
    #[error(transparent)]
    Folder(#[from] FileError),
    /// Another agent has it.
    #[error("another agent uses {}: stop it first", .0.display())]
    Taken(PathBuf),
    /// The lock cannot be taken.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// How long a taken lock is tried again: [`is_locked`] holds it for a moment.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);

/// Takes the state folder for this process alone; held until the file is closed.
///
/// # Errors
/// The folder cannot be made, its lock file cannot be opened or locked, or another agent holds it.
pub fn lock(state_folder: &Path) -> Result<std::fs::File, LockError> {
    durable::create_folder(state_folder)?;
    let path = state_folder.join(LOCK);
    let failed = |source: std::io::Error| LockError::Lock {
        path: path.clone(),
        source,
    };
    let file = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    let begun = Instant::now();
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if begun.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(Errno::WOULDBLOCK) => return Err(LockError::Taken(state_folder.to_owned())),
            Err(error) => return Err(failed(error.into())),
        }
    }
}

/// Whether an agent has the state folder. It writes nothing: who asks may be another user than the agent's.
pub fn is_locked(state_folder: &Path) -> bool {
    std::fs::File::open(state_folder.join(LOCK)).is_ok_and(|file| {
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
    })
}

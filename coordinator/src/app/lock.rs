//! One coordinator at a time on a data folder.

use std::fs::File;
use std::path::Path;

use super::AppError;

/// Holds the data folder for one coordinator.
#[derive(Debug)]
pub struct DataLock {
    file: File,
}

impl Drop for DataLock {
    /// Closing the file is not enough: a program that another thread is just starting holds a copy of it for a moment, and the lock
    /// with that (flock(2)).
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl DataLock {
    /// Takes it, or says who has it.
    ///
    /// # Errors
    /// Another coordinator holds it, or the lock file cannot be made or locked.
    pub fn take(data: &Path) -> Result<Self, AppError> {
        let folder = data.display().to_string();
        let file = File::create(data.join("lock")).map_err(|source| AppError::Lock {
            folder: folder.clone(),
            source,
        })?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(std::fs::TryLockError::WouldBlock) => Err(AppError::Locked(folder)),
            Err(std::fs::TryLockError::Error(source)) => Err(AppError::Lock { folder, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::DataLock;

    #[test]
    fn a_data_folder_is_free_as_soon_as_its_holder_is_gone_also_while_a_program_is_being_started() {
        let data = tempfile::tempdir().unwrap();
        let held = DataLock::take(data.path()).unwrap();
        // What a child has of it between fork and exec.
        let copied = held.file.try_clone().unwrap();
        assert!(DataLock::take(data.path()).is_err());
        drop(held);
        assert!(DataLock::take(data.path()).is_ok());
        drop(copied);
    }
}

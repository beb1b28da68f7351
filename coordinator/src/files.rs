//! The few files that the coordinator keeps beside its store: written whole, synced, secrets readable by their
//! owner only.

use std::io;
use std::path::{Path, PathBuf};

use penstock_proto::whole::{NotWritten, Writing};

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("cannot {verb} {path}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A secret that others can read.
    #[error(
        "{path} can be read by others (mode {mode:o}); it holds a secret: run chmod 600 on it, and consider who may have read it"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

impl From<NotWritten> for FileError {
    fn from(error: NotWritten) -> Self {
        let NotWritten { verb, path, source } = error;
        Self::Io { verb, path, source }
    }
}

fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { verb, path, source }
}

/// Makes a folder that only its owner can enter.
pub(crate) fn private_folder(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(io("make the folder", path))
}

/// As [`private_folder`], but one that exists is not taken.
pub(crate) fn new_private_folder(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(io("make the new folder", path))
}

/// Writes a new file; one that exists is not touched.
///
/// # Errors
/// There is such a file already, or it cannot be made, written or synced.
pub fn write_new(path: &Path, content: &[u8]) -> Result<(), FileError> {
    Ok(Writing::of_service(0o644).create(path, content)?)
}

/// Puts `content` in the place of a secret file, whole or not at all.
pub(crate) fn replace_secret(path: &Path, content: &[u8]) -> Result<(), FileError> {
    Ok(Writing::of_service(0o600).replace(path, content)?)
}

/// Puts `content` in the place of a file that everybody may read, whole or not at all.
///
/// # Errors
/// It cannot be written; the file before is as it was.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), FileError> {
    Ok(Writing::of_service(0o644).replace(path, content)?)
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(io("read", path))
}

//! The agent's files: written whole or not at all (`penstock_proto::whole`), read within a bound, and an error that says what
//! one does about it.
//!
//! Not here: what tells that a file was altered ([`crate::store`]).

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use penstock_proto::whole::{NotWritten, Writing};

/// A file operation that failed: verb, path and cause, and what one does about it.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {}{}", path.display(), in_brackets(remedy(source)))]
pub struct FileError {
    /// What was tried.
    pub verb: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

/// What one does about an error of the system; empty: its own words say it.
pub fn remedy(error: &io::Error) -> &'static str {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => "make room on its disk",
        Kind::FileTooLarge => "raise the limit on the size of files",
        Kind::ReadOnlyFilesystem => {
            "its file system is read-only, as it becomes after errors of its disk: see the system's log"
        }
        Kind::PermissionDenied => "it must belong to the agent's user",
        Kind::OutOfMemory => "there is not enough memory: see what uses it",
        _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
            "its disk reports an error, which does not mean that what it holds is lost: see the system's log"
        }
        _ => "",
    }
}

fn in_brackets(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(" ({text})")
    }
}

fn failed<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError {
        verb,
        path: path.to_owned(),
        source,
    }
}

impl From<NotWritten> for FileError {
    fn from(error: NotWritten) -> Self {
        let NotWritten { verb, path, source } = error;
        Self { verb, path, source }
    }
}

/// Replaces the file at `path` by `content`, durable when this returns. `mode` is the file's permission bits.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    Ok(Writing::of_service(mode).replace(path, content)?)
}

/// As [`replace`], but not durable: for what only shows a present state, again and again.
pub(crate) fn show(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let shown = Writing {
        durable: false,
        ..Writing::of_service(mode)
    };
    Ok(shown.replace(path, content)?)
}

/// Reads a file of at most `bytes_max`; `None` if there is none.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let mut content = Vec::new();
    file.take(bytes_max.saturating_add(1))
        .read_to_end(&mut content)
        .map_err(failed("read", path))?;
    if content.len() as u64 > bytes_max {
        let reason = format!("it is larger than the {bytes_max} bytes that it may have");
        return Err(failed("read", path)(io::Error::new(
            io::ErrorKind::InvalidData,
            reason,
        )));
    }
    Ok(Some(content))
}

/// Gives a file that is whole another name, in the place of what is there; durable when this returns.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    std::fs::rename(from, to).map_err(failed("replace", to))?;
    sync_folder_of(to)?;
    sync_folder_of(from)
}

/// Removes a file, if it is there; durable when this returns.
pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("remove", path)(error)),
        Ok(()) => sync_folder_of(path),
    }
}

fn sync_folder_of(path: &Path) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(failed("sync", folder))
}

/// Creates a folder and its parents, readable by the owner only.
///
/// # Errors
/// The folder or one of its parents cannot be made: no permission, no room, or a file of that name.
pub fn create_folder(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed("create", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_replaced_file_has_the_new_content_and_the_asked_permissions() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(read(&path, 10).unwrap().unwrap(), b"two");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(read(&path, 2).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

//! Files that are written whole or not at all: the one way in which agent, coordinator and CLI do it.
//!
//! The content goes into a draft beside the target, is synced, takes the target's name in one step, and the folder is synced: after
//! a power cut either the old or the new content is there. What fails leaves the target as it was, and no draft.
//!
//! Not here: who may read which file, and what a person does about an error (`durable` and `files` of the three programs).

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file that was not written: verb, path and cause.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {}", path.display())]
pub struct NotWritten {
    /// What was tried.
    pub verb: &'static str,
    /// On what: the target, its draft, or its folder.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

/// Who writes files of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// One at a time: the draft has one name, and one that a killed writer left is taken away.
    One,
    /// Programs that people may start twice: each has a draft of its own.
    Many,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writing {
    /// Its permission bits, before the process's mask.
    pub mode: u32,
    /// Who else writes it.
    pub writers: Writers,
    /// Whether it is to outlive a power cut. What only shows a present state need not, and spares the disk.
    pub durable: bool,
}

impl Writing {
    /// A file that one service writes.
    pub const fn of_service(mode: u32) -> Self {
        Self {
            mode,
            writers: Writers::One,
            durable: true,
        }
    }

    /// Puts `content` into the place of what is at `path`, if anything is.
    ///
    /// # Errors
    /// What was there is there still; or, where the folder could not be synced, it may be again after a power cut.
    pub fn replace(self, path: &Path, content: &[u8]) -> Result<(), NotWritten> {
        self.place(path, content, |draft| {
            std::fs::rename(draft, path).map_err(failed("replace", path))
        })
    }

    /// Makes a file; one that is there is not touched.
    ///
    /// # Errors
    /// The name is taken ([`io::ErrorKind::AlreadyExists`] on `path` itself), or nothing could be written.
    pub fn create(self, path: &Path, content: &[u8]) -> Result<(), NotWritten> {
        self.place(path, content, |draft| {
            // A hard link fails where the name is taken, in one step.
            std::fs::hard_link(draft, path).map_err(failed("write", path))?;
            std::fs::remove_file(draft).map_err(failed("remove", draft))
        })
    }

    fn place(
        self,
        path: &Path,
        content: &[u8],
        put: impl FnOnce(&Path) -> Result<(), NotWritten>,
    ) -> Result<(), NotWritten> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let draft = folder.join(self.draft(path));
        if self.writers == Writers::One {
            // It may carry other permission bits. What cannot be removed fails below.
            let _ = std::fs::remove_file(&draft);
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(self.mode)
            .open(&draft)
            .map_err(failed("write", &draft))?;
        let written = file
            .write_all(content)
            .and_then(|()| if self.durable { file.sync_all() } else { Ok(()) })
            .map_err(failed("write", &draft))
            .and_then(|()| put(&draft));
        if written.is_err() {
            let _ = std::fs::remove_file(&draft);
        }
        written?;
        if !self.durable {
            return Ok(());
        }
        match File::open(folder).and_then(|folder| folder.sync_all()) {
            // A person may write into a folder that they cannot read, or that is on a file system which syncs none.
            Err(error)
                if self.writers == Writers::Many
                    && matches!(
                        error.kind(),
                        io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
                    ) =>
            {
                Ok(())
            }
            synced => synced.map_err(failed("sync", folder)),
        }
    }

    fn draft(self, path: &Path) -> std::ffi::OsString {
        let name = path.file_name().unwrap_or_default();
        let mut draft = std::ffi::OsString::new();
        match self.writers {
            Writers::One => {
                draft.push(name);
                draft.push(".new");
            }
            Writers::Many => {
                draft.push(".");
                draft.push(name);
                draft.push(format!(".{}.part", std::process::id()));
            }
        }
        draft
    }
}

fn failed<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> NotWritten + 'a {
    move |source| NotWritten {
        verb,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const WAYS: [Writing; 3] = [
        Writing::of_service(0o600),
        Writing {
            durable: false,
            ..Writing::of_service(0o600)
        },
        Writing {
            writers: Writers::Many,
            ..Writing::of_service(0o600)
        },
    ];

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn a_file_is_made_once_and_replaced_whole_with_the_asked_permissions() {
        for way in WAYS {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("key");
            way.create(&path, b"one").unwrap();
            let taken = way.create(&path, b"two").unwrap_err();
            assert_eq!(
                (taken.source.kind(), taken.path.as_path()),
                (io::ErrorKind::AlreadyExists, path.as_path())
            );
            assert_eq!(std::fs::read(&path).unwrap(), b"one");
            way.replace(&path, b"three").unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"three");
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert_eq!(names(folder.path()), ["key"], "{way:?}: no draft is left");
        }
    }

    #[test]
    fn what_a_killed_writer_left_is_no_hindrance_and_lends_no_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(folder.path().join("key.new"), b"half").unwrap();
        Writing::of_service(0o600).replace(&path, b"whole").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(names(folder.path()), ["key"]);
    }

    #[test]
    fn what_cannot_take_the_name_leaves_what_was_there_and_no_draft() {
        for way in WAYS {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("key");
            std::fs::create_dir_all(path.join("within")).unwrap();
            let failed = way.replace(&path, b"one").unwrap_err();
            assert_eq!((failed.verb, failed.path.as_path()), ("replace", path.as_path()));
            assert_eq!(names(folder.path()), ["key"]);
            assert_eq!(names(&path), ["within"]);
        }
    }
}

//! Files that this program reads and makes: bounded when read; when made, whole or not at all, never over another.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use penstock_proto::whole::{Writers, Writing};

use crate::failure::Failure;

/// A path as it can be pasted into a shell: in quotes where the shell would take it for more than one word, or for something else.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(plain) {
        return text;
    }
    let dash = if text.starts_with('-') { "./" } else { "" };
    format!("'{dash}{}'", text.replace('\'', r"'\''"))
}

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Reading failed.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Writing failed.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is there already.
    #[error("{path} exists already, and is not overwritten")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Larger than allowed.
    #[error("{path} has more than {max} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        max: u64,
    },
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let code = match &error {
            FileError::Read { .. } => "file-unreadable",
            FileError::Write { .. } => "file-unwritable",
            FileError::Exists { .. } => "file-exists",
            FileError::TooLarge { .. } => "file-too-large",
        };
        let failure = Self::local(code, error.to_string());
        match std::error::Error::source(&error) {
            Some(source) => failure.caused_by(source),
            None if code == "file-exists" => failure.help("choose another name, or move the old file away"),
            None => failure,
        }
    }
}

/// Who may read a file that is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As the user's mask says.
    Shared,
    /// Only the owner.
    Secret,
}

/// The whole file, if it has at most `max` bytes.
pub(crate) fn read(path: &Path, max: u64) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Read {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max {
        return Err(FileError::TooLarge {
            path: path.to_owned(),
            max,
        });
    }
    Ok(bytes)
}

/// Refuses a name that is taken.
pub(crate) fn free(path: &Path) -> Result<(), FileError> {
    // A link that leads nowhere has the name, too.
    match std::fs::symlink_metadata(path) {
        Ok(_) => Err(FileError::Exists {
            path: path.to_owned(),
        }),
        Err(_) => Ok(()),
    }
}

/// Makes a file that was not there.
pub(crate) fn create(path: &Path, bytes: &[u8], mode: Mode) -> Result<(), FileError> {
    place(path, bytes, mode, false)
}

/// Makes a file, or takes the place of the old one in one step.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: Mode) -> Result<(), FileError> {
    place(path, bytes, mode, true)
}

fn place(path: &Path, bytes: &[u8], mode: Mode, over: bool) -> Result<(), FileError> {
    let failed = |source| FileError::Write {
        path: path.to_owned(),
        source,
    };
    // Devices and pipes (`-o /dev/stdout`) are written as they are.
    if over && std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return std::fs::write(path, bytes).map_err(failed);
    }
    let writing = Writing {
        mode: if mode == Mode::Secret { 0o600 } else { 0o666 },
        writers: Writers::Many,
        durable: true,
    };
    let written = if over {
        writing.replace(path, bytes)
    } else {
        writing.create(path, bytes)
    };
    written.map_err(|error| {
        let is_taken = error.source.kind() == std::io::ErrorKind::AlreadyExists && error.path == path;
        if is_taken && !over {
            FileError::Exists {
                path: path.to_owned(),
            }
        } else {
            failed(error.source)
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_path_that_is_shown_for_a_shell_comes_back_from_it_as_it_was() {
        for path in [
            "plant.yaml",
            "My Works/plant.yaml",
            "it's/$(rm)",
            "-rf",
            "a;b",
            "ä/ö",
            "~x",
            "a\\b",
        ] {
            let command = format!("printf %s {}", quoted(Path::new(path)));
            let output = std::process::Command::new("sh")
                .args(["-c", &command])
                .output()
                .unwrap();
            let back = String::from_utf8(output.stdout).unwrap();
            assert_eq!(back.trim_start_matches("./"), path, "{command}");
        }
        assert_eq!(quoted(Path::new("plants/water.yaml")), "plants/water.yaml");
    }

    #[test]
    fn a_made_file_is_whole_and_takes_nobodys_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        create(&path, b"one", Mode::Secret).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(matches!(
            create(&path, b"two", Mode::Secret),
            Err(FileError::Exists { .. })
        ));
        assert_eq!(read(&path, 100).unwrap(), b"one");
        replace(&path, b"three", Mode::Shared).unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"three");
        assert!(matches!(read(&path, 4), Err(FileError::TooLarge { .. })));
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no draft is left behind"
        );
    }
}

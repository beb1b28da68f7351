//! A file that gets its name when all of it is there. Until then it is a draft beside it, which goes with the command; one whose command was killed
//! keeps the draft's name (`NAME.PROCESS.part`), so that nobody takes a part for the whole.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::files::{self, FileError};

const BUFFER_BYTES: usize = 1 << 20;

/// The draft.
pub(super) struct Draft {
    writer: BufWriter<File>,
    path: PathBuf,
    file: PathBuf,
}

impl Draft {
    /// Of a file that is not there yet, readable as `mode` and the user's mask say.
    pub(super) fn begin(file: &Path, mode: u32) -> Result<Self, FileError> {
        files::free(file)?;
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = file.with_file_name(name);
        let mut options = OpenOptions::new();
        let made = options.write(true).create_new(true).mode(mode).open(&path);
        let made = made.map_err(|source| unwritable(&path, source))?;
        Ok(Self {
            writer: BufWriter::with_capacity(BUFFER_BYTES, made),
            path,
            file: file.to_owned(),
        })
    }

    /// Writes more of it.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let written = self.writer.write_all(bytes);
        written.map_err(|source| unwritable(&self.path, source))
    }

    /// All of it is there.
    pub(super) fn finish(mut self) -> Result<(), FileError> {
        let written = self
            .writer
            .flush()
            .and_then(|()| self.writer.get_ref().sync_all());
        written.map_err(|source| unwritable(&self.path, source))?;
        named(&self.path, &self.file).map_err(|source| unwritable(&self.file, source))
    }
}

/// Gives the draft its name, if nobody has that by now.
fn named(draft: &Path, file: &Path) -> io::Result<()> {
    match std::fs::hard_link(draft, file) {
        // The file systems of memory sticks and of many shares have no second names.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => taken_and_named(draft, file),
        linked => linked,
    }
}

/// The same where a file has one name: the name is taken by an empty file first, which the draft then replaces.
fn taken_and_named(draft: &Path, file: &Path) -> io::Result<()> {
    File::create_new(file)?;
    std::fs::rename(draft, file).inspect_err(|_| drop(std::fs::remove_file(file)))
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn unwritable(path: &Path, source: std::io::Error) -> FileError {
    FileError::Write {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder).unwrap();
        names
            .map(|name| name.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole_and_takes_nobodys_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("day.jsonl");
        let mut draft = Draft::begin(&file, 0o600).unwrap();
        draft.add(b"one").unwrap();
        assert!(!file.exists());
        drop(draft);
        assert_eq!(names(folder.path()), Vec::<String>::new(), "what was begun goes");
        let mut draft = Draft::begin(&file, 0o600).unwrap();
        draft.add(b"whole").unwrap();
        draft.finish().unwrap();
        assert_eq!(names(folder.path()), ["day.jsonl"]);
        assert_eq!(std::fs::read(&file).unwrap(), b"whole");
        assert!(matches!(
            Draft::begin(&file, 0o600),
            Err(FileError::Exists { .. })
        ));
    }

    #[test]
    fn where_a_file_has_one_name_it_gets_that_whole_too_and_takes_nobodys_place() {
        let folder = tempfile::tempdir().unwrap();
        let [draft, file] = ["day.jsonl.1.part", "day.jsonl"].map(|name| folder.path().join(name));
        std::fs::write(&draft, "whole").unwrap();
        taken_and_named(&draft, &file).unwrap();
        assert_eq!(names(folder.path()), ["day.jsonl"]);
        assert_eq!(std::fs::read(&file).unwrap(), b"whole");
        std::fs::write(&draft, "another").unwrap();
        let error = taken_and_named(&draft, &file).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&file).unwrap(), b"whole");
    }

    #[test]
    fn a_disk_that_takes_no_more_is_named_with_the_file() {
        let full = Path::new("/dev/full");
        let mut draft = Draft {
            writer: BufWriter::with_capacity(4, OpenOptions::new().write(true).open(full).unwrap()),
            path: "/nowhere/day.jsonl.1.part".into(),
            file: "/nowhere/day.jsonl".into(),
        };
        let error = draft.add(b"more than it holds").unwrap_err();
        assert!(error.to_string().contains("/nowhere/day.jsonl.1.part"), "{error}");
    }
}

//! Lines at the end of a file. Each batch is synced before it counts. A file that was renamed or removed is not written any more:
//! the next batch goes to a new one of the name (logrotate without `copytruncate` and without a signal).
//!
//! A line that a crash or a full disk cut is removed before anything follows it; its record comes again, whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use penstock_proto::export::{ExportRecord, LineFormat};

use super::ReceiverError;

/// Read at once, from the end, to find the last line's end.
const STEP: u64 = 64 * 1024;

/// An open file.
#[derive(Debug)]
pub(crate) struct FileReceiver {
    path: PathBuf,
    format: LineFormat,
    file: Option<File>,
}

impl FileReceiver {
    pub(super) async fn open(path: &Path, format: LineFormat) -> Result<Self, ReceiverError> {
        let opened = blocking("open", path, open).await?;
        Ok(Self {
            path: path.to_owned(),
            format,
            file: Some(opened),
        })
    }

    pub(super) async fn send(&mut self, records: Vec<ExportRecord>) -> Result<(), ReceiverError> {
        let (held, format) = (self.file.take(), self.format);
        let written = blocking("write", &self.path, move |path| {
            let mut file = match held.filter(|file| is_still(file, path)) {
                Some(file) => file,
                None => open(path)?,
            };
            let mut text = String::new();
            for record in &records {
                text.push_str(&format.line(record));
                text.push('\n');
            }
            file.write_all(text.as_bytes())?;
            file.sync_data()?;
            Ok(file)
        });
        // After an error it is opened again, so that what was cut is removed.
        self.file = Some(written.await?);
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    verb: &'static str,
    path: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, ReceiverError> {
    let failed = |source| ReceiverError::File {
        verb,
        path: path.to_owned(),
        source,
    };
    let own = path.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&own)).await;
    done.map_err(|error| failed(io::Error::other(error)))?
        .map_err(failed)
}

/// Opens the file, makes it if it is not there, and removes what stands behind its last whole line.
fn open(path: &Path) -> io::Result<File> {
    let is_new = !path.exists();
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not an ordinary file"));
    }
    let whole = whole_lines(&mut file, metadata.len())?;
    if whole < metadata.len() {
        file.set_len(whole)?;
    }
    if is_new {
        // Its name is durable, too.
        let folder = path.parent().unwrap_or(Path::new("/"));
        File::open(folder)?.sync_all()?;
    }
    Ok(file)
}

/// Where the last whole line ends.
fn whole_lines(file: &mut File, length: u64) -> io::Result<u64> {
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(STEP);
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        io::Read::by_ref(file).take(end - start).read_to_end(&mut bytes)?;
        if let Some(at) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Whether the name still leads to this file.
fn is_still(file: &File, path: &Path) -> bool {
    let (Ok(held), Ok(named)) = (file.metadata(), std::fs::symlink_metadata(path)) else {
        return false;
    };
    (held.dev(), held.ino()) == (named.dev(), named.ino())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record(n: u64) -> ExportRecord {
        ExportRecord::missing("works", "test", n, 1, "a test")
    }

    fn positions(path: &Path) -> Vec<u64> {
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| line["sequence"].as_u64().unwrap()).collect()
    }

    #[tokio::test]
    async fn lines_go_on_behind_a_torn_one_and_in_a_new_file_after_a_rename() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let mut file = FileReceiver::open(&path, LineFormat::Jsonl).await.unwrap();
        file.send(vec![record(1), record(2)]).await.unwrap();
        drop(file);
        // A crash in the middle of a line, longer than what is read at once.
        let mut torn = OpenOptions::new().append(true).open(&path).unwrap();
        torn.write_all(&vec![b'x'; 3 * STEP as usize / 2]).unwrap();
        let mut file = FileReceiver::open(&path, LineFormat::Jsonl).await.unwrap();
        file.send(vec![record(3)]).await.unwrap();
        assert_eq!(positions(&path), [1, 2, 3]);
        let rotated = folder.path().join("audit.jsonl.1");
        std::fs::rename(&path, &rotated).unwrap();
        file.send(vec![record(4)]).await.unwrap();
        assert_eq!((positions(&rotated), positions(&path)), (vec![1, 2, 3], vec![4]));
    }

    #[tokio::test]
    async fn what_is_no_ordinary_file_is_refused_and_a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &link).unwrap();
        for path in [link.as_path(), Path::new("/dev/null"), folder.path()] {
            let refused = FileReceiver::open(path, LineFormat::Jsonl).await;
            assert!(
                matches!(refused, Err(ReceiverError::File { .. })),
                "{path:?}: {refused:?}"
            );
        }
        assert!(!folder.path().join("elsewhere").exists());
    }
}

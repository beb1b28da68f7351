//! Documents in the file system.

use std::fs::FileType;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;

use rustix::io::Errno;

use super::{DocumentsError, Entries, Kind, Tree};
use crate::files;

/// The file system, by paths.
pub(super) struct Disk;

impl Tree for Disk {
    type Place = PathBuf;

    fn entries(&self, folder: &PathBuf) -> Result<Entries<PathBuf>, DocumentsError> {
        let failed = |source| DocumentsError::Read {
            path: folder.clone(),
            source,
        };
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            entries.push((entry.file_name().into_vec(), entry.path()));
        }
        Ok(entries)
    }

    fn kind(&self, place: &PathBuf) -> Result<Kind, DocumentsError> {
        let failed = |source| DocumentsError::Read {
            path: place.clone(),
            source,
        };
        let source = match std::fs::metadata(place) {
            Ok(found) => return Ok(kind(found.file_type())),
            Err(source) => source,
        };
        // Only a link can be there and lead nowhere.
        let nowhere = match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR) => "does not exist",
            Some(Errno::LOOP) => "leads back to itself",
            _ => return Err(failed(source)),
        };
        match std::fs::read_link(place) {
            Ok(target) => Ok(Kind::Other(format!(
                "is a link to {}, which {nowhere}",
                target.display()
            ))),
            Err(_) => Err(failed(source)),
        }
    }

    fn content(&self, place: &PathBuf, max: u64) -> Result<Vec<u8>, DocumentsError> {
        Ok(files::read(place, max)?)
    }
}

fn kind(found: FileType) -> Kind {
    let other = |what: &str| Kind::Other(format!("is a {what}, not a file"));
    if found.is_dir() {
        Kind::Folder
    } else if found.is_file() {
        Kind::File
    } else if found.is_fifo() {
        other("named pipe")
    } else if found.is_socket() {
        other("socket")
    } else {
        other("device")
    }
}

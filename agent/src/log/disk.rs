//! The seam between the log and the disk: what is asked of a file system, and nothing else.
//!
//! A file and its name are two things: what is written is durable after the file's sync, that it is there at all after its
//! folder's. Both may fail, and after a sync that failed nothing is known of what was written since the last one.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A file system.
pub trait Disk: fmt::Debug + Send + 'static {
    /// Its open files.
    type File: DiskFile;

    /// Creates a folder and its parents, for the owner only; one that is there is well.
    ///
    /// # Errors
    /// As the file system says.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;

    /// What is in a folder.
    ///
    /// # Errors
    /// As the file system says.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;

    /// Makes a file that is not there yet, to be written by its owner only.
    ///
    /// # Errors
    /// It is there already, or as the file system says.
    fn create(&self, path: &Path) -> io::Result<Self::File>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// It is not there, or as the file system says.
    fn open(&self, path: &Path) -> io::Result<Self::File>;

    /// Removes a file; after a crash it may be there again.
    ///
    /// # Errors
    /// As the file system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// As the file system says; the names may or may not be durable then.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// The bytes that are free for this process below a folder.
    ///
    /// # Errors
    /// As the file system says.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;
}

/// An open file.
pub trait DiskFile: fmt::Debug + Send + 'static {
    /// Its length, in bytes.
    ///
    /// # Errors
    /// As the file system says.
    fn length(&self) -> io::Result<u64>;

    /// Reads from `offset` on, and says how many bytes; 0 at the end of the file.
    ///
    /// # Errors
    /// As the file system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of it, durable after [`Self::sync`].
    ///
    /// # Errors
    /// Some of it may be written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file off.
    ///
    /// # Errors
    /// As the file system says.
    fn cut(&self, length: u64) -> io::Result<()>;

    /// Makes what was written durable.
    ///
    /// # Errors
    /// Nothing is known of what was written since the last sync.
    fn sync(&self) -> io::Result<()>;
}

/// The disk that the gateway has.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    type File = File;

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect()
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        File::open(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let free = rustix::fs::statvfs(folder)?;
        Ok(free.f_bavail.saturating_mul(free.f_frsize))
    }
}

impl DiskFile for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

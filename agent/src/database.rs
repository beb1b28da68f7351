//! The embedded database, sled: the only file that knows it.
//!
//! Two use it: the store, as the second place of the agent's small state ([`crate::store`]), and the takeover of audit spools that
//! agents kept in it before ([`crate::audit`]). Nothing that was acknowledged rests on it alone: when it flushes, it waits until the
//! system has written its bytes (`sync_file_range`), which neither empties the disk's own cache nor makes a file's new length durable.
//!
//! The evidence is `store::tests::killed`. In one run of it, after 16 kills of an agent's store while it wrote, the database alone had the
//! record that was saved last in 10 of 10 cases that could be compared: what kill -9 leaves, the system still writes. With its file cut off
//! at a random place, as where the new length was not durable, it had it in 2 of 10; with one page of zeros in 5 of 10; set back to the kill
//! before in none. On some of these files it panics when it is opened (an index out of bounds), which is contained. Together with the sealed
//! files nothing that was saved was lost in any of these cases.
//!
//! Not here: what is kept in it, and what becomes of a database that is damaged. Whether it is, is said here: a disk that
//! is full, read-only or reports errors is no damage, and nothing is set aside for it.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) use sled::{Db as Database, Error, Result, Tree};

/// How long a database that is still locked is waited for.
///
/// One agent at a time works in a state folder ([`store::lock`](crate::store::lock)), so the lock is its own: the
/// engine's threads hold it for a moment after a database was closed.
const LOCKED_MAX: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

/// Opens or creates the database in the folder `path`; `cache` and `segment` are in bytes. It writes when it is told to,
/// not by a clock.
pub(crate) fn open(path: &Path, cache: u64, segment: usize) -> Result<Database> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(cache)
        .segment_size(segment)
        .flush_every_ms(None)
        .mode(sled::Mode::LowSpace);
    let begun = Instant::now();
    loop {
        match config.open() {
            Err(error) if is_locked(&error) && begun.elapsed() < LOCKED_MAX => std::thread::sleep(LOOK),
            opened => return opened,
        }
    }
}

/// Whether an error says that the database's own bytes are wrong.
pub(crate) fn is_damage(error: &Error) -> bool {
    match error {
        // A file that ends too early.
        Error::Io(error) => {
            matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
            )
        }
        _ => true,
    }
}

/// What keeps the files in `folder` from being read, or others from being written there; `None`: nothing, so that a database
/// which cannot be opened is damaged.
pub(crate) fn obstacle(folder: &Path) -> Option<String> {
    let found = look_for_obstacle(folder).err()?;
    let words = crate::durable::remedy(&found);
    Some(format!(
        "the files in {}: {found}{}{words}",
        folder.display(),
        if words.is_empty() { "" } else { "; " }
    ))
}

fn look_for_obstacle(folder: &Path) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            }
            if !kind.is_file() {
                continue;
            }
            let mut file = std::fs::File::open(entry.path())?;
            while file.read(&mut buffer)? > 0 {}
        }
    }
    let probe = folder.join("probe");
    let written = std::fs::File::create(&probe).and_then(|mut file| {
        file.write_all(&buffer)?;
        file.sync_all()
    });
    let removed = std::fs::remove_file(&probe);
    written.and(removed)
}

/// The engine has no code of its own for it.
fn is_locked(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_disk_that_cannot_be_read_or_written_is_an_obstacle_and_one_that_can_is_none() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path(), 1 << 20, 1 << 16).unwrap());
        assert_eq!(obstacle(folder.path()), None);
        // A device that is always full stands for a disk without room; reading a folder as a file fails for everybody.
        std::os::unix::fs::symlink("/dev/full", folder.path().join("probe")).unwrap();
        let told = obstacle(folder.path()).unwrap();
        assert!(told.contains("make room on its disk"), "{told}");
        assert!(!is_damage(&Error::Io(rustix::io::Errno::IO.into())));
        assert!(!is_damage(&Error::Io(rustix::io::Errno::NOSPC.into())));
        assert!(is_damage(&Error::Io(io::ErrorKind::UnexpectedEof.into())));
    }

    #[test]
    fn a_database_that_is_let_go_of_a_moment_later_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path(), 1 << 20, 1 << 16).unwrap();
        first.insert("key", "value").unwrap();
        first.flush().unwrap();
        let holding = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop(first);
        });
        let second = open(folder.path(), 1 << 20, 1 << 16).unwrap();
        assert_eq!(second.get("key").unwrap().unwrap(), "value");
        holding.join().unwrap();
    }
}

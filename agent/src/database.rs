//! The embedded database under the store and the audit spool, opened alike for both.
//!
//! Not here: what they keep in it, and what becomes of a database that is damaged.

use std::path::Path;
use std::time::{Duration, Instant};

/// How long a database that is still locked is waited for.
///
/// One agent at a time works in a state folder ([`store::lock`](crate::store::lock)), so the lock is its own: the
/// engine's threads hold it for a moment after a database was closed.
const LOCKED_MAX: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

/// Opens or creates the database in the folder `path`; `cache` and `segment` are in bytes. It writes when it is told to,
/// not by a clock.
pub(crate) fn open(path: &Path, cache: u64, segment: usize) -> sled::Result<sled::Db> {
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

/// The engine has no code of its own for it.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

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

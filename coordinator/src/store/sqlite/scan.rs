//! Reading that may take long: a look over the whole trail.
//!
//! Scans have a room of their own, apart from what sessions and callers need of the store: [`SCANS_MAX`] run at once, the
//! others wait without a thread. A scan ends with whoever asked for it, in the middle of its statement, and after
//! [`PAGE_TIME_MAX`] in any case.

use std::sync::{Arc, Mutex};

use rusqlite::{Connection, InterruptHandle};
use tokio::sync::Semaphore;

use super::{Sqlite, lock};
use crate::store::StoreError;
use crate::store::trail::PAGE_TIME_MAX;

/// Scans at once.
pub(super) const SCANS_MAX: usize = 2;

/// The room that scans have.
#[derive(Debug, Clone)]
pub(super) struct ScanRoom(Arc<Semaphore>);

impl Default for ScanRoom {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SCANS_MAX)))
    }
}

/// A scan under way, and how it is ended.
#[derive(Default)]
struct Scan {
    ended: bool,
    running: Option<InterruptHandle>,
}

/// Ends the scan when whoever waits for it goes away.
struct ScanGuard(Arc<Mutex<Scan>>);

impl Drop for ScanGuard {
    fn drop(&mut self) {
        let mut scan = lock(&self.0);
        scan.ended = true;
        // Under the lock: a handle that is here belongs to this scan's statement and to no later one.
        if let Some(running) = &scan.running {
            running.interrupt();
        }
    }
}

impl Sqlite {
    /// Runs `read` as a scan.
    pub(super) async fn scan<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let room = self.inner.scans.0.clone();
        let permit = room.acquire_owned().await.map_err(|_| StoreError::Stopped)?;
        let scan = Arc::new(Mutex::new(Scan::default()));
        let reader = ScanGuard(Arc::clone(&scan));
        let work = self.read(move |connection| {
            // Held until the thread is free again, not only until nobody waits for it.
            let _permit = permit;
            {
                let mut scan = lock(&scan);
                if scan.ended {
                    return Err(rusqlite::Error::SqliteFailure(
                        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_INTERRUPT),
                        None,
                    ));
                }
                scan.running = Some(connection.get_interrupt_handle());
            }
            let outcome = read(connection);
            lock(&scan).running = None;
            outcome
        });
        let outcome = tokio::time::timeout(PAGE_TIME_MAX, work).await;
        drop(reader);
        outcome.map_err(|_| StoreError::TooLong)?
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;
    use crate::store::room::DiskReserve;
    use crate::store::state::State as _;

    /// A statement that would run for hours.
    const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000000000) \
                           SELECT count(*) FROM n";

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn scans_that_nobody_waits_for_end_and_while_they_run_the_store_answers() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("s.db"), DiskReserve::default()).unwrap();
        let endless: Vec<_> = (0..600)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    store
                        .scan(|connection| connection.query_row(ENDLESS, [], |row| row.get::<_, i64>(0)))
                        .await
                })
            })
            .collect();
        // All places of scans are taken, and what is no scan needs none of them.
        let free = || store.inner.scans.0.available_permits();
        let eventually = async |wanted: usize| {
            while free() != wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, eventually(0)).await.unwrap();
        for _ in 0..100 {
            let answer = tokio::time::timeout(PATIENCE, store.get("nothing"))
                .await
                .unwrap();
            assert_eq!(answer.unwrap(), None);
        }
        endless.iter().for_each(tokio::task::JoinHandle::abort);
        tokio::time::timeout(PATIENCE, eventually(SCANS_MAX))
            .await
            .unwrap();
        let scanned =
            store.scan(|connection| connection.query_row("SELECT 1", [], |row| row.get::<_, i64>(0)));
        assert_eq!(tokio::time::timeout(PATIENCE, scanned).await.unwrap().unwrap(), 1);
    }
}

//! The disk below the database: how much room there is, and whether it takes writes.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::store::room::{DiskReserve, DiskUsage};

/// How long what was seen of the disk is relied on.
const LOOK: Duration = Duration::from_millis(200);

/// `room` on the disk that holds `path`: a small one is not kept whole.
pub(super) fn fitted(room: DiskReserve, path: &Path) -> DiskReserve {
    let whole = disk_of(path).map_or(u64::MAX, |disk| disk.f_blocks.saturating_mul(disk.f_frsize));
    let part = whole.checked_div(room.disk_part).unwrap_or(u64::MAX);
    DiskReserve {
        reserve_bytes: room.reserve_bytes.min(part),
        ..room
    }
}

/// What was last seen of the disk, so that not each write asks for it.
#[derive(Debug)]
pub(super) struct DiskSample {
    disk: DiskUsage,
    at: Option<Instant>,
}

impl Default for DiskSample {
    fn default() -> Self {
        Self {
            disk: DiskUsage {
                free_bytes: u64::MAX,
                held_bytes: 0,
                sources: 0,
            },
            at: None,
        }
    }
}

impl DiskSample {
    /// What there is, `now`.
    pub(super) fn look(
        &mut self,
        connection: &Connection,
        path: &Path,
        now: Instant,
    ) -> rusqlite::Result<DiskUsage> {
        if self.at.is_none_or(|at| now.saturating_duration_since(at) >= LOOK) {
            let (sources, held): (i64, i64) = connection
                .prepare_cached("SELECT count(*), coalesce(sum(bytes), 0) FROM source")?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            self.disk = DiskUsage {
                free_bytes: free_bytes(connection, path)?,
                held_bytes: u64::try_from(held).unwrap_or(0),
                sources: u64::try_from(sources).unwrap_or(0),
            };
            self.at = Some(now);
            #[allow(clippy::cast_precision_loss)]
            metrics::gauge!("penstock_store_free_bytes").set(self.disk.free_bytes as f64);
        }
        Ok(self.disk)
    }

    /// So much was written since.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.disk.free_bytes = self.disk.free_bytes.saturating_sub(bytes);
        self.disk.held_bytes = self.disk.held_bytes.saturating_add(bytes);
    }
}

/// Free space of the store's file system, and pages of its own that are free. A disk that does not say has room.
pub(super) fn free_bytes(connection: &Connection, path: &Path) -> rusqlite::Result<u64> {
    let pages: i64 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
    let page_bytes: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    let own = u64::try_from(pages.saturating_mul(page_bytes)).unwrap_or(0);
    Ok(free_beside(path).saturating_add(own))
}

/// Free space of the file system that holds a file. A disk that does not say has room.
pub(super) fn free_beside(path: &Path) -> u64 {
    disk_of(path).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Whether the file system that holds a file refuses writes.
pub(super) fn is_read_only(path: &Path) -> bool {
    disk_of(path).is_ok_and(|disk| disk.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// The file system that holds a file.
fn disk_of(path: &Path) -> rustix::io::Result<rustix::fs::StatVfs> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    rustix::fs::statvfs(folder.unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_small_disk_an_eighth_is_kept_at_most() {
        let here = Path::new("./s.db");
        let whole = disk_of(here).map_or(0, |disk| disk.f_blocks.saturating_mul(disk.f_frsize));
        let kept = |reserve_bytes, disk_part| {
            let room = DiskReserve {
                reserve_bytes,
                disk_part,
            };
            fitted(room, here).reserve_bytes
        };
        assert_eq!(kept(u64::MAX, 8), whole / 8);
        assert_eq!(kept(1000, 8), 1000.min(whole / 8));
        assert_eq!(kept(u64::MAX, 0), u64::MAX);
    }
}

//! What only SQLite has: its files and schemas, a full disk in the middle of a commit, the room that is kept on it. What it has
//! in common with other engines stands in `conformance`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::store::conformance::{Bench, chain, run};
use crate::store::{BlockSummary, Expect, Store, backup_file};

const NO_RESERVE: DiskReserve = DiskReserve {
    reserve_bytes: 0,
    disk_part: 8,
};

/// A folder with a database.
pub(in crate::store) struct OnDisk(tempfile::TempDir);

impl Default for OnDisk {
    fn default() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl OnDisk {
    fn path(&self) -> PathBuf {
        self.0.path().join("s.db")
    }
}

impl Bench for OnDisk {
    fn open(&self) -> Store {
        Store::open_with(&self.path(), NO_RESERVE).unwrap()
    }

    fn failing(&self, cause: FaultCause) -> Store {
        let path = self.path();
        let connection = prepared(&path).unwrap();
        match cause {
            FaultCause::Full => leave_pages(&connection, 4),
            FaultCause::ReadOnly => connection.pragma_update(None, "query_only", "ON").unwrap(),
            FaultCause::Damaged => damage(&path),
            other => panic!("{other:?} is not tried"),
        }
        Store::on(Sqlite::start(connection, &path, NO_RESERVE).unwrap())
    }
}

/// A limit on pages is the same error to SQLite as a full disk.
pub(super) fn leave_pages(connection: &Connection, pages: i64) {
    let held: i64 = connection
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .unwrap();
    connection
        .pragma_update(None, "max_page_count", held + pages)
        .unwrap();
}

/// Overwrites the first page of each table and index but those that are read when a store is opened.
pub(super) fn damage(path: &Path) {
    use std::os::unix::fs::FileExt as _;
    let connection = Connection::open(path).unwrap();
    let whole: i64 = connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .unwrap();
    assert_eq!(whole, 0);
    let page_bytes: u64 = connection
        .query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0))
        .unwrap()
        .cast_unsigned();
    let mut roots = connection
        .prepare("SELECT rootpage FROM sqlite_schema WHERE name NOT IN ('block', 'replica')")
        .unwrap();
    let roots: Vec<i64> = roots
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let wrong = vec![0xaa; usize::try_from(page_bytes).unwrap()];
    for root in roots {
        file.write_all_at(&wrong, (root.cast_unsigned() - 1) * page_bytes)
            .unwrap();
    }
}

fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(&dir.path().join("s.db")).unwrap()
}

#[test]
fn other_files_newer_schemas_damage_and_full_disks_have_their_own_errors() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("notes.txt");
    std::fs::write(&text, "not a database ".repeat(1000)).unwrap();
    assert_eq!(
        Store::open(&text).unwrap_err().cause(),
        Some(FaultCause::NotAStore)
    );

    let foreign = dir.path().join("foreign.db");
    Connection::open(&foreign)
        .unwrap()
        .execute_batch("CREATE TABLE t (x)")
        .unwrap();
    assert_eq!(
        Store::open(&foreign).unwrap_err().cause(),
        Some(FaultCause::NotAStore)
    );

    drop(open(&dir));
    let path = dir.path().join("s.db");
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    assert!(matches!(
        Store::open(&path),
        Err(StoreError::Newer { found: 99, .. })
    ));
}

#[test]
fn a_failed_commit_tells_everyone_and_the_store_goes_on_when_there_is_room() {
    let bench = OnDisk::default();
    run(async {
        let store = bench.failing(FaultCause::Full);
        store
            .put_if("small", Expect::Absent, b"1".to_vec())
            .await
            .unwrap();
        let error = store
            .put_if("big", Expect::Absent, vec![7; 200_000])
            .await
            .unwrap_err();
        assert_eq!(error.cause(), Some(FaultCause::Full), "{error}");
        assert_eq!(tonic::Status::from(error).code(), tonic::Code::ResourceExhausted);
        assert_eq!(store.get("big").await.unwrap(), None);
        store
            .put_if("small2", Expect::Absent, b"2".to_vec())
            .await
            .unwrap();
        assert_eq!(store.list("small").await.unwrap().len(), 2);
    });
}

#[test]
fn a_copy_of_a_store_in_use_holds_what_was_acknowledged() {
    let bench = OnDisk::default();
    run(async {
        let store = bench.open();
        store.put_if("a", Expect::Absent, b"1".to_vec()).await.unwrap();
        store.append("gw", chain(1, &[b"x".to_vec()])).await.unwrap();
        store
            .append_own(
                "coordinator/c1",
                b"own".as_slice().into(),
                BlockSummary::default(),
                5,
            )
            .await
            .unwrap();
        let blob = b"large".to_vec();
        store.put_blobs(vec![blob.clone()]).await.unwrap();
        let copy = bench.0.path().join("copy.db");
        backup_file(&bench.path(), &copy).unwrap();
        let end = store.appended().borrow().clone();
        let store = Store::open(&copy).unwrap();
        assert_eq!(store.get("a").await.unwrap().unwrap().value, b"1");
        assert_eq!(store.head("gw").await.unwrap().unwrap().next_sequence, 1);
        assert_eq!(*store.appended().borrow(), end);
        assert_eq!(store.blob(Digest::of(&blob)).await.unwrap(), Some(blob));
    });
}

#[tokio::test]
async fn a_disk_that_is_short_takes_what_must_go_on_and_says_of_the_rest_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    let store = Store::open_with(
        &path,
        DiskReserve {
            reserve_bytes: u64::MAX,
            disk_part: 0,
        },
    )
    .unwrap();
    // Tokens, approvals, what operators did.
    store.put_if("token/gw", Expect::Absent, vec![1]).await.unwrap();
    let own = |text: &str| bytes::Bytes::copy_from_slice(text.as_bytes());
    store
        .append_own("coordinator/c1", own("approved"), BlockSummary::default(), 1)
        .await
        .unwrap();
    // Gateways' trails, proposals, refusals.
    let trail = store.append("gw", chain(1, &[vec![1]])).await.unwrap_err();
    let proposal = store.put_blobs(vec![vec![1]]).await.unwrap_err();
    let refusal = store
        .append_own_deferrable("coordinator/c1", own("refused"), BlockSummary::default(), 1)
        .await
        .unwrap_err();
    for error in [trail, proposal, refusal] {
        assert!(matches!(error, StoreError::Reserved { .. }), "{error}");
        assert!(error.to_string().contains("storage.reserve_bytes"), "{error}");
    }
    // The same store with room: nothing was lost or half done.
    drop(store);
    let store = Store::open_with(
        &path,
        DiskReserve {
            reserve_bytes: 0,
            ..DiskReserve::default()
        },
    )
    .unwrap();
    assert!(matches!(
        store.append("gw", chain(1, &[vec![1]])).await.unwrap()[..],
        [Append::Stored { .. }]
    ));
    assert_eq!(
        store.head("coordinator/c1").await.unwrap().unwrap().next_sequence,
        1
    );
}

/// The tables as the software that made them wrote them, with a row in each.
const SCHEMA_1: &str = include_str!("../../../fixtures/store-1.sql");
const SCHEMA_2: &str = include_str!("../../../fixtures/store-2.sql");
const SCHEMA_3: &str = include_str!("../../../fixtures/store-3.sql");
const SCHEMA_4: &str = include_str!("../../../fixtures/store-4.sql");

/// What `sqlite3 FILE .dump` gives of the tables, their rows and the numbers in the file's head.
fn dumped(path: &std::path::Path) -> Vec<(String, String)> {
    let connection = Connection::open(path).unwrap();
    let mut statement = connection
        .prepare("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
        .unwrap();
    let rows = statement
        .query_map([], |row| {
            let sql: String = row.get(1)?;
            Ok((row.get(0)?, sql.split_whitespace().collect::<Vec<_>>().join(" ")))
        })
        .unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn a_store_of_each_schema_there_was_is_read_today_and_becomes_one_of_todays_schema() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(&dir));
    let today = dumped(&dir.path().join("s.db"));
    for (number, sql) in [(1, SCHEMA_1), (2, SCHEMA_2), (3, SCHEMA_3), (4, SCHEMA_4)] {
        let path = dir.path().join(format!("{number}.db"));
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(sql).unwrap();
        drop(connection);
        drop(Store::open(&path).unwrap());
        assert_eq!(dumped(&path), today, "schema {number}");
        let connection = Connection::open(&path).unwrap();
        let version: i64 = connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .unwrap();
        assert_eq!(version, 4, "a new schema needs a fixture of its own");
        let held: (Vec<u8>, i64, Vec<u8>) = connection
            .query_row(
                "SELECT state.value, source.next_sequence, block.body FROM state, source JOIN block ON block.source = source.id",
                [],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .unwrap();
        assert_eq!(held, (b"value".to_vec(), 1, b"body".to_vec()), "schema {number}");
    }
}

#[test]
fn what_comes_behind_a_long_row_of_unlikely_blocks_is_looked_for_once_and_not_at_each_step() {
    let bench = OnDisk::default();
    let connection = Ledger::alone(prepared(&bench.path()).unwrap());
    let mut blocks = chain(1, &vec![b"x".to_vec(); 6]);
    for (new, received_ms) in blocks.iter_mut().zip([900, 900, 900, 900, 5, 5]) {
        new.received_ms = received_ms;
    }
    trail::append_all(&connection, "gw", &blocks).unwrap();
    let expired = Expired {
        before_ms: 10,
        unlikely_after_ms: 100,
        unlikely_before_ms: 0,
    };
    let last = removal::LastLikely::default();
    let step = |expired| {
        removal::drop_expired(&connection, expired, 2, &last)
            .unwrap()
            .blocks
    };
    assert_eq!(step(expired), 2);
    // If the block behind them were looked at again, nothing would be old.
    connection
        .execute("UPDATE block SET received_ms = 50 WHERE id = 5", [])
        .unwrap();
    assert_eq!(step(expired), 2);
    assert_eq!(step(expired), 0);
}

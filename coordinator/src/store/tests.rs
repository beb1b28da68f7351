#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use penstock_proto::audit::{GENESIS, block_digest};
use penstock_proto::v1::AuditBlock;
use proptest::prelude::*;

use super::*;

fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(&dir.path().join("s.db")).unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn chain(epoch: u64, bodies: &[Vec<u8>]) -> Vec<NewBlock> {
    let mut previous = GENESIS;
    bodies
        .iter()
        .zip(0..)
        .map(|(body, sequence)| {
            let block = AuditBlock {
                epoch,
                sequence,
                previous_digest: previous.to_vec().into(),
                body: body.clone().into(),
            };
            previous = block_digest(&previous, epoch, sequence, body);
            NewBlock {
                block,
                summary: BlockSummary::default(),
                received_ms: 1,
            }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 8))]
    #[test]
    fn the_state_behaves_like_a_map_with_revisions(
        steps in prop::collection::vec((0usize..4, 0u8..4, any::<bool>()), 1..40)
    ) {
        let dir = tempfile::tempdir().unwrap();
        run(async {
            let store = open(&dir);
            let mut model: BTreeMap<String, (u64, Vec<u8>)> = BTreeMap::new();
            for (n, (key, how, remove)) in steps.into_iter().enumerate() {
                let key = format!("k/{key}");
                let known = model.get(&key).map(|(revision, _)| *revision);
                let expect = match how {
                    0 => Expect::Absent,
                    1 => Expect::Revision(known.unwrap_or(77)),
                    2 => Expect::Revision(known.unwrap_or(1) + 1),
                    _ => known.map_or(Expect::Absent, Expect::Revision),
                };
                let fits = match expect { Expect::Absent => known.is_none(), Expect::Revision(r) => known == Some(r) };
                let result = match (remove, expect) {
                    (true, Expect::Revision(r)) => store.delete_if(&key, r).await,
                    _ => store.put_if(&key, expect, vec![n as u8]).await,
                };
                match result {
                    Ok(revision) => {
                        assert!(fits);
                        if remove && matches!(expect, Expect::Revision(_)) { model.remove(&key); }
                        else { model.insert(key.clone(), (revision, vec![n as u8])); }
                    }
                    Err(StoreError::Conflict { found, .. }) => { assert!(!fits); assert_eq!(found, known); }
                    Err(other) => panic!("{other}"),
                }
            }
            let listed: BTreeMap<_, _> = store.list("k/").await.unwrap().into_iter()
                .map(|(key, record)| (key, (record.revision, record.value))).collect();
            assert_eq!(listed, model);
        });
    }

    #[test]
    fn blocks_delivered_in_any_overlapping_pieces_are_stored_exactly_once_and_in_order(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..20),
        cuts in prop::collection::vec((0usize..20, 1usize..8), 1..10),
    ) {
        let dir = tempfile::tempdir().unwrap();
        run(async {
            let store = open(&dir);
            let all = chain(1, &bodies);
            let mut next = 0;
            // At-least-once delivery: repeats from anywhere at or below the head, in pieces of any size.
            for (back, count) in cuts {
                let start = next - back.min(next);
                let piece: Vec<_> = all.iter().skip(start).take(count).cloned().collect();
                next = next.max(start + piece.len());
                let outcomes = store.append("gw", piece).await.unwrap();
                assert!(outcomes.iter().all(|o| matches!(o, Append::Stored { missing: 0, .. } | Append::Held { .. })));
            }
            let stored = store.blocks(BlockFilter::default(), 1000).await.unwrap();
            let sequences: Vec<_> = stored.iter().map(|b| b.sequence).collect();
            assert_eq!(sequences, (0..next as u64).collect::<Vec<_>>());
            assert!(stored.iter().zip(&bodies).all(|(b, body)| b.body == *body));
            assert_eq!(store.head("gw").await.unwrap().unwrap().next_sequence, next as u64);
        });
    }
}

#[test]
fn of_many_who_write_at_once_exactly_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let store = open(&dir);
        let tasks: Vec<_> = (0..50u8)
            .map(|n| {
                let store = store.clone();
                tokio::spawn(async move { store.put_if("token/gateway/gw", Expect::Absent, vec![n]).await })
            })
            .collect();
        let mut won = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(_) => won += 1,
                Err(error) => assert!(matches!(error, StoreError::Conflict { .. }), "{error}"),
            }
        }
        assert_eq!(won, 1);
    });
}

#[test]
fn a_changed_block_at_a_held_position_is_a_fork_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let store = open(&dir);
        let blocks = chain(1, &[b"a".to_vec(), b"b".to_vec()]);
        store.append("gw", blocks.clone()).await.unwrap();
        let head = store.head("gw").await.unwrap();
        let other = chain(1, &[b"a".to_vec(), b"B".to_vec(), b"c".to_vec()]);
        let outcomes = store.append("gw", other).await.unwrap();
        assert!(matches!(outcomes[0], Append::Held { .. }));
        assert!(matches!(outcomes[1], Append::Refused(_)) && matches!(outcomes[2], Append::Refused(_)));
        assert_eq!(store.head("gw").await.unwrap(), head);
    });
}

#[test]
fn a_store_reopens_with_what_was_acknowledged_and_watchers_see_changes() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let store = open(&dir);
        let mut changes = store.watch();
        let revision = store.put_if("a", Expect::Absent, b"1".to_vec()).await.unwrap();
        assert_eq!(
            changes.recv().await.unwrap(),
            RecordChange {
                key: "a".to_owned(),
                revision
            }
        );
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
        let copy = dir.path().join("copy.db");
        store.backup(&copy).await.unwrap();
        drop(store);
        for store in [open(&dir), Store::open(&copy).unwrap()] {
            assert_eq!(store.get("a").await.unwrap().unwrap().value, b"1");
            assert_eq!(store.head("gw").await.unwrap().unwrap().next_sequence, 1);
            assert_eq!(*store.appended().borrow(), 2);
            assert_eq!(store.blob(Digest::of(&blob)).await.unwrap(), Some(blob.clone()));
        }
    });
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
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    run(async {
        // A limit on pages is the same error to SQLite as a full disk.
        let mut connection = Connection::open(&path).unwrap();
        assert!(schema::prepare(&mut connection).is_ok());
        let pages: i64 = connection
            .query_row("PRAGMA page_count", [], |r| r.get(0))
            .unwrap();
        connection
            .pragma_update(None, "max_page_count", pages + 4)
            .unwrap();
        let (changes, _) = broadcast::channel(4);
        let (writer, commands) = mpsc::channel(4);
        let (appended, last_block) = watch::channel(0);
        writer::spawn(
            connection,
            path.clone(),
            DiskReserve {
                reserve_bytes: 0,
                ..DiskReserve::default()
            },
            commands,
            changes.clone(),
            appended,
        )
        .unwrap();
        let store = Store {
            inner: Arc::new(Inner {
                path,
                room: DiskReserve {
                    reserve_bytes: 0,
                    ..DiskReserve::default()
                },
                writer,
                readers: Mutex::new(Vec::new()),
                scans: scan::ScanRoom::default(),
                changes,
                last_block,
            }),
        };
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

#[tokio::test]
async fn what_is_older_than_it_is_kept_goes_and_each_chain_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut blocks = chain(1, &(0..10).map(|n| vec![n; 100]).collect::<Vec<_>>());
    for (new, received_ms) in blocks.iter_mut().zip(0..) {
        new.received_ms = received_ms * 1000;
    }
    store.append("gw", blocks[..8].to_vec()).await.unwrap();
    let head = store.head("gw").await.unwrap();
    let mut gone = 0;
    loop {
        let dropped = store.drop_before(5000, 2).await.unwrap();
        gone += dropped.blocks;
        if dropped.blocks == 0 {
            break;
        }
    }
    assert_eq!((gone, store.head("gw").await.unwrap()), (5, head));
    let left = store.blocks(BlockFilter::default(), 100).await.unwrap();
    assert_eq!(
        left.iter().map(|block| block.sequence).collect::<Vec<_>>(),
        [5, 6, 7]
    );
    // What was delivered once is not taken again, and what follows is.
    let again = store.append("gw", blocks[4..].to_vec()).await.unwrap();
    assert!(matches!(
        again[..],
        [
            Append::Held { .. },
            Append::Held { .. },
            Append::Held { .. },
            Append::Held { .. },
            Append::Stored { .. },
            Append::Stored { .. }
        ]
    ));
}

/// The tables as the software that made them wrote them, with a row in each.
const SCHEMA_1: &str = include_str!("../../fixtures/store-1.sql");
const SCHEMA_2: &str = include_str!("../../fixtures/store-2.sql");

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
    for (number, sql) in [(1, SCHEMA_1), (2, SCHEMA_2)] {
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
        assert_eq!(version, 2, "a new schema needs a fixture of its own");
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

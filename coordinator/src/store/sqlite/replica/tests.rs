//! Copies of one store that follow one log, in any weather: what one of them acknowledged all of them hold, and all hold the same.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use prost::Message as _;
use rusqlite::Connection;

use super::super::ledger::Ledger;
use super::super::tests::{damage, leave_pages};
use super::super::{Sqlite, prepared};
use super::*;
use crate::store::conformance::{Bench, chain, run};
use crate::store::log::entry::Part;
use crate::store::log::memory::{MemoryLog, Weather};
use crate::store::{Append, DiskReserve, Expect, FaultCause, Store};

pub(in crate::store) const NO_RESERVE: DiskReserve = DiskReserve {
    reserve_bytes: 0,
    disk_part: 8,
};

/// A copy, and the log that it follows.
pub(in crate::store) struct OnLog {
    folder: tempfile::TempDir,
    log: MemoryLog,
}

impl Default for OnLog {
    fn default() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            // Small messages, so that most entries have several.
            log: MemoryLog::new(300),
        }
    }
}

impl OnLog {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.db"))
    }

    async fn follow(&self, name: &str) -> Result<Store, StoreError> {
        let log = self.log.clone();
        let connect = async move |after| Ok(log.open(after));
        Store::follow(&self.path(name), NO_RESERVE, name, connect).await
    }

    /// What a copy holds, without what is only its own.
    fn held(&self, name: &str) -> Vec<String> {
        held(&self.path(name))
    }
}

/// All rows of all tables.
pub(in crate::store) fn held(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    let mut held = Vec::new();
    for table in ["state", "counter", "blob", "source", "block", "node", "replica"] {
        let mut statement = connection
            .prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2"))
            .unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let values = (0..columns).map(|column| row.get_ref(column).map(|value| format!("{value:?}")));
            Ok(format!(
                "{table} {:?}",
                values.collect::<rusqlite::Result<Vec<_>>>()?
            ))
        });
        held.extend(rows.unwrap().map(Result::unwrap));
    }
    held
}

impl Bench for OnLog {
    fn open(&self) -> Store {
        // Properties open it within a runtime of theirs or without one.
        std::thread::scope(|scope| scope.spawn(|| run(self.follow("c1"))).join().unwrap()).unwrap()
    }

    fn failing(&self, cause: FaultCause) -> Store {
        failing(&self.path("c1"), cause, |after| self.log.open(after))
    }
}

/// A copy whose own disk fails in this way.
pub(in crate::store) fn failing(
    path: &Path,
    cause: FaultCause,
    open: impl FnOnce(u64) -> Box<dyn Log>,
) -> Store {
    let connection = prepared(path).unwrap();
    let place = prepare(&connection, path).unwrap();
    match cause {
        FaultCause::Full => leave_pages(&connection, 4),
        FaultCause::ReadOnly => connection.pragma_update(None, "query_only", "ON").unwrap(),
        FaultCause::Damaged => damage(path),
        other => panic!("{other:?} is not tried"),
    }
    let log = open(place.number);
    let begun = Sqlite::with(Ledger::noting(connection), path, NO_RESERVE, |worker| {
        let replica = Replica::new(worker, log, "c1".to_owned(), place, Arc::default());
        super::super::writer::Writer::running(|commands| replica.run(commands, oneshot::channel().0))
    });
    Store::on(begun.unwrap())
}

/// Adds one to a counter; `None`: whether it was added is not known.
pub(in crate::store) async fn add_one(store: &Store) -> Option<u64> {
    loop {
        let held = store.get("count").await.unwrap();
        let (expect, count) = held.map_or((Expect::Absent, 0), |held| {
            let count: u64 = String::from_utf8(held.value).unwrap().parse().unwrap();
            (Expect::Revision(held.revision), count)
        });
        match store
            .put_if("count", expect, (count + 1).to_string().into_bytes())
            .await
        {
            Ok(_) => return Some(count + 1),
            Err(StoreError::Conflict { .. }) => {}
            Err(StoreError::Unsettled { .. } | StoreError::Unreachable { .. }) => return None,
            Err(other) => panic!("{other}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 32))]

    #[test]
    fn copies_that_write_at_once_in_any_weather_hold_the_same_and_all_that_was_acknowledged(
        seed: u64, writers in 2_usize..4, each in 3_u8..12,
    ) {
        let bench = Arc::new(OnLog::default());
        bench.log.weather(Weather { seed: seed.max(1), cut: false });
        let (counts, stored) = run(async {
            let mut tasks = Vec::new();
            for writer in 0..writers {
                let bench = bench.clone();
                tasks.push(tokio::spawn(async move {
                    let name = format!("c{writer}");
                    let store = bench.follow(&name).await.unwrap();
                    let mut counts = Vec::new();
                    let bodies: Vec<Vec<u8>> = (0..each).map(|n| vec![n; 200]).collect();
                    let mut stored = 0_u64;
                    for new in chain(1, &bodies) {
                        // A gateway that changes its coordinator delivers the same blocks to all of them.
                        if let Ok(outcome) = store.append("gw", vec![new]).await {
                            let head = match outcome[0] {
                                Append::Stored { head, .. } | Append::Held { head } => head,
                                Append::Refused(refused) => panic!("{refused}"),
                            };
                            stored = stored.max(head.next_sequence);
                        }
                        counts.extend(add_one(&store).await);
                        let blob = vec![u8::try_from(writer).unwrap(); 700];
                        let digest = penstock_policy::ids::Digest::of(&blob);
                        if store.put_blobs(vec![blob.clone()]).await.is_ok() {
                            assert_eq!(store.blob(digest).await.unwrap(), Some(blob));
                        }
                    }
                    (counts, stored)
                }));
            }
            let mut counts = Vec::new();
            let mut stored = 0;
            for task in tasks {
                let (own, head) = task.await.unwrap();
                // Whoever adds one sees all that was added before by themselves.
                assert!(own.is_sorted_by(|one, next| one < next), "{own:?}");
                counts.extend(own);
                stored = stored.max(head);
            }
            (counts, stored)
        });
        bench.log.weather(Weather::default());
        let end = run(async {
            let names: Vec<String> = (0..writers).map(|writer| format!("c{writer}")).collect();
            // What comes late comes before this.
            tokio::time::sleep(Duration::from_millis(60)).await;
            let mut copies = Vec::new();
            for name in names.iter().map(String::as_str).chain(["fresh"]) {
                copies.push(bench.follow(name).await.unwrap());
            }
            let first = &copies[0];
            let count = first.get("count").await.unwrap().map_or(0, |held| String::from_utf8(held.value).unwrap().parse().unwrap());
            let head = first.head("gw").await.unwrap().map_or(0, |head| head.next_sequence);
            (count, head)
        });
        let mut once = counts.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), counts.len(), "a count was given twice: {:?}", counts);
        prop_assert!(counts.iter().all(|count| *count <= end.0));
        prop_assert!(end.1 >= stored);
        let fresh = bench.held("fresh");
        for writer in 0..writers {
            prop_assert_eq!(bench.held(&format!("c{writer}")), fresh.clone());
        }
    }
}

#[test]
fn what_one_copy_writes_the_others_hold_and_their_watchers_hear_of_it() {
    let bench = OnLog::default();
    run(async {
        let one = bench.follow("c1").await.unwrap();
        let other = bench.follow("c2").await.unwrap();
        let mut changes = other.watch();
        let mut appended = other.appended();
        let revision = one.put_if("a", Expect::Absent, vec![1; 1000]).await.unwrap();
        let change = changes.recv().await.unwrap();
        assert_eq!((change.key.as_str(), change.revision), ("a", revision));
        assert_eq!(other.get("a").await.unwrap().unwrap().value, vec![1; 1000]);
        one.append("gw", chain(1, &[vec![1], vec![2]])).await.unwrap();
        appended.changed().await.unwrap();
        let head = other.head("gw").await.unwrap().unwrap();
        assert_eq!(head.next_sequence, 2);
        assert_eq!(one.tree().await.unwrap(), other.tree().await.unwrap());
    });
}

#[test]
fn a_copy_that_is_cut_off_says_that_it_cannot_say_and_goes_on_when_the_log_is_back() {
    let mut bench = OnLog::default();
    bench.log.put = Duration::from_millis(300);
    run(async {
        let one = bench.follow("c1").await.unwrap();
        let other = bench.follow("c2").await.unwrap();
        one.put_if("a", Expect::Absent, vec![1]).await.unwrap();
        bench.log.weather(Weather { seed: 0, cut: true });
        let error = one.put_if("b", Expect::Absent, vec![2]).await.unwrap_err();
        assert!(matches!(error, StoreError::Unsettled { .. }), "{error}");
        assert_eq!(one.get("b").await.unwrap(), None);
        bench.log.weather(Weather::default());
        other.put_if("b", Expect::Absent, vec![3]).await.unwrap();
        let conflict = one.put_if("b", Expect::Absent, vec![2]).await.unwrap_err();
        assert!(matches!(conflict, StoreError::Conflict { .. }), "{conflict}");
        assert_eq!(one.get("b").await.unwrap().unwrap().value, [3]);
    });
}

#[test]
fn a_log_that_was_set_back_is_not_followed_and_the_copy_stays_as_it_was() {
    let bench = OnLog::default();
    run(async {
        let store = bench.follow("c1").await.unwrap();
        for key in ["a", "b", "c"] {
            store.put_if(key, Expect::Absent, vec![1]).await.unwrap();
        }
        drop(store);
        bench.log.set_back(1);
        let error = bench.follow("c1").await.unwrap_err();
        assert!(matches!(error, StoreError::LogLost { .. }), "{error}");
        // Others went on from there: the numbers are right, and what stands there is not.
        let newer = bench.follow("c2").await.unwrap();
        for key in ["x", "y", "z"] {
            newer.put_if(key, Expect::Absent, vec![1]).await.unwrap();
        }
        let error = bench.follow("c1").await.unwrap_err();
        assert!(matches!(error, StoreError::LogLost { .. }), "{error}");
        assert!(error.to_string().contains("message"), "{error}");
        let connection = Connection::open(bench.path("c1")).unwrap();
        assert!(state::get(&connection, "c").unwrap().is_some());
    });
}

#[test]
fn an_entry_that_its_writer_did_not_end_holds_nobody_up_for_long_and_never_was() {
    let bench = OnLog::default();
    run(async {
        let store = bench.follow("c1").await.unwrap();
        store.put_if("a", Expect::Absent, vec![1]).await.unwrap();
        let entry = Entry {
            previous: [0; 32],
            writer: "c9".to_owned(),
            effects: vec![Effect::Blob(vec![9; 1000])],
        };
        let parts = Part::all_of([9; 16], entry.encode(), 300);
        let mut log = bench.log.open(0);
        let newest = log.newest().await.unwrap();
        log.put(newest, parts[0].encode_to_vec().into()).await.unwrap();
        store.put_if("b", Expect::Absent, vec![2]).await.unwrap();
        assert_eq!(store.blob_digests().await.unwrap(), []);
        let late = log.put(newest + 1, parts[1].encode_to_vec().into()).await;
        assert_eq!(late, Err(NotPut::Behind));
        let fresh = bench.follow("c2").await.unwrap();
        assert_eq!(fresh.list("").await.unwrap(), store.list("").await.unwrap());
    });
}

#[test]
fn a_store_that_stands_alone_and_a_copy_are_not_taken_for_each_other() {
    let bench = OnLog::default();
    run(async {
        let alone = Store::open(&bench.path("c1")).unwrap();
        alone.put_if("a", Expect::Absent, vec![1]).await.unwrap();
        drop(alone);
        let error = bench.follow("c1").await.unwrap_err();
        assert!(matches!(error, StoreError::StandsAlone { .. }), "{error}");
        drop(bench.follow("c2").await.unwrap());
        let error = Store::open(&bench.path("c2")).unwrap_err();
        assert!(matches!(error, StoreError::IsCopy { .. }), "{error}");
    });
}

#[test]
fn who_was_followed_by_another_writes_nothing_any_more_whatever_it_knows_of_that() {
    let bench = OnLog::default();
    run(async {
        let one = bench.follow("c1").await.unwrap();
        let other = bench.follow("c2").await.unwrap();
        let turn = one.put_if("turn", Expect::Absent, b"c1".to_vec()).await.unwrap();
        one.fence("turn", turn);
        one.put_if("a", Expect::Absent, vec![1]).await.unwrap();
        other
            .put_if("turn", Expect::Revision(turn), b"c2".to_vec())
            .await
            .unwrap();
        // It decides on a copy that may not have this yet, and is refused all the same.
        for key in ["b", "c"] {
            let error = one.put_if(key, Expect::Absent, vec![2]).await.unwrap_err();
            assert!(matches!(error, StoreError::Deposed), "{error}");
            assert_eq!(other.get(key).await.unwrap(), None);
        }
        assert_eq!(one.get("a").await.unwrap().unwrap().value, [1]);
    });
}

//! What every engine of the store keeps to, as properties over any of them: each runs on SQLite, on a copy that follows a log in
//! memory, on one that follows a stream of a NATS server, and on the engine of the tests in memory (`memory`). A later engine gets a
//! [`Bench`] and a line in [`engines`].
//!
//! Not here: what only one engine has (files, schemas, the room on its disk), which stands beside it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod changes;
mod removed;
mod trails;
mod trees;

use std::collections::BTreeMap;

use penstock_proto::audit::{BODY_BYTES_MAX, ChainError, GENESIS, block_digest};
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::v1::AuditBlock;
use proptest::prelude::*;

use self::changes::*;
use self::removed::*;
use self::trails::*;
use self::trees::*;
use super::*;

/// Somewhere an engine keeps things.
pub(super) trait Bench: Default {
    /// Opens the store; again after the last one was dropped, as a restart does.
    fn open(&self) -> Store;
    /// The same store, whose engine fails in this way: a full disk, one that takes no writes, or bytes that are wrong.
    fn failing(&self, cause: FaultCause) -> Store;
}

/// Each property on each engine.
macro_rules! engines {
    ($($property:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[test] fn $property() { super::$property::<crate::store::sqlite::tests::OnDisk>(); })*
        }
        mod on_a_copy {
            $(#[test] fn $property() { super::$property::<crate::store::sqlite::replica::tests::OnLog>(); })*
        }
        mod on_jetstream {
            $(#[test] fn $property() { super::$property::<crate::store::jetstream::tests::OnServer>(); })*
        }
        mod in_memory {
            $(#[test] fn $property() { super::$property::<crate::store::memory::InMemory>(); })*
        }
    };
}

engines! {
    the_state_behaves_like_a_map_with_revisions,
    of_many_who_write_at_once_exactly_one_wins,
    nobody_who_counts_at_the_same_time_loses_anothers_count,
    who_wrote_reads_what_they_wrote_or_something_newer,
    records_are_listed_by_the_bytes_of_their_keys_from_either_end,
    records_and_blobs_beyond_their_bounds_are_refused_and_change_nothing,
    blobs_are_kept_by_their_digests,
    blocks_delivered_in_any_overlapping_pieces_are_stored_exactly_once_and_in_order,
    blocks_that_are_delivered_twice_at_once_are_stored_once,
    a_changed_block_at_a_held_position_is_a_fork_and_changes_nothing,
    a_body_beyond_its_bound_is_refused_and_changes_nothing,
    the_coordinators_own_bodies_form_one_chain_however_many_write,
    a_trail_that_was_taken_back_goes_on_and_holds_no_place_twice,
    records_that_are_written_together_and_their_event_are_all_there_or_none_of_them_is,
    of_many_changes_at_once_each_that_won_has_its_event_in_the_order_in_which_they_won,
    an_event_that_cannot_be_written_takes_its_records_with_it,
    what_is_noted_of_a_change_is_written_with_it_or_neither_is,
    what_is_made_of_the_head_stands_behind_that_very_head_with_its_record_or_neither_is_there,
    pages_of_any_size_give_each_block_once_in_order_also_over_restarts,
    a_page_ends_behind_what_its_filter_ruled_out,
    what_is_appended_while_pages_are_read_is_not_passed_over,
    what_is_older_than_it_is_kept_goes_and_each_chain_goes_on,
    what_was_removed_is_noted_once_and_whole_whatever_ends_between_two_steps,
    what_is_said_to_have_come_at_an_unlikely_time_is_as_old_as_what_came_next,
    nothing_is_stored_behind_a_block_that_is_refused,
    the_tree_has_each_block_once_in_the_order_in_which_they_came_and_proves_it_also_over_restarts,
    a_block_that_goes_stays_in_the_tree_and_one_that_is_not_stored_is_not_in_it,
    a_place_in_the_trail_outlives_everything_that_was_before_it,
    whoever_reads_on_from_a_place_gets_each_block_or_its_number_among_those_that_were_removed,
    another_engines_place_in_the_trail_is_refused,
    what_was_acknowledged_is_there_after_a_restart_and_watchers_see_changes,
    each_failure_has_its_error_and_what_was_acknowledged_stays,
}

pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn some_cases() -> ProptestConfig {
    ProptestConfig::with_cases(ProptestConfig::default().cases / 8)
}

pub(super) fn chain(epoch: u64, bodies: &[Vec<u8>]) -> Vec<NewBlock> {
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

/// A chain of this many blocks, one byte each.
fn blocks_of(count: u8) -> Vec<NewBlock> {
    chain(1, &(0..count).map(|n| vec![n]).collect::<Vec<_>>())
}

fn sequences(blocks: &[StoredBlock]) -> Vec<u64> {
    blocks.iter().map(|block| block.sequence).collect()
}

fn the_state_behaves_like_a_map_with_revisions<B: Bench>() {
    let steps = prop::collection::vec((0usize..4, 0u8..4, any::<bool>()), 1..40);
    proptest!(some_cases(), |(steps in steps)| {
        run(async {
            let bench = B::default();
            let store = bench.open();
            let mut model: BTreeMap<String, (u64, Vec<u8>)> = BTreeMap::new();
            let mut newest = 0;
            for (n, (key, how, remove)) in steps.into_iter().enumerate() {
                let key = format!("k/{key}");
                let known = model.get(&key).map(|(revision, _)| *revision);
                let expect = match how {
                    0 => Expect::Absent,
                    1 => Expect::Revision(known.unwrap_or(77)),
                    2 => Expect::Revision(known.unwrap_or(1) + 1),
                    _ => known.map_or(Expect::Absent, Expect::Revision),
                };
                let fits = match expect {
                    Expect::Absent => known.is_none(),
                    Expect::Revision(r) => known == Some(r),
                };
                let result = match (remove, expect) {
                    (true, Expect::Revision(r)) => store.delete_if(&key, r).await,
                    _ => store.put_if(&key, expect, vec![n as u8]).await,
                };
                match result {
                    Ok(revision) => {
                        assert!(fits);
                        assert!(revision > newest, "revisions rise over the whole store");
                        newest = revision;
                        if remove && matches!(expect, Expect::Revision(_)) {
                            model.remove(&key);
                        } else {
                            model.insert(key.clone(), (revision, vec![n as u8]));
                        }
                    }
                    Err(StoreError::Conflict { found, .. }) => {
                        assert!(!fits);
                        assert_eq!(found, known);
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            let listed = store.list("k/").await.unwrap().into_iter();
            let listed: BTreeMap<_, _> =
                listed.map(|(key, record)| (key, (record.revision, record.value))).collect();
            assert_eq!(listed, model);
        });
    });
}

fn of_many_who_write_at_once_exactly_one_wins<B: Bench>() {
    let bench = B::default();
    run(async {
        let store = bench.open();
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

fn nobody_who_counts_at_the_same_time_loses_anothers_count<B: Bench>() {
    async fn put(store: &Store, expect: Expect, count: u64) -> Result<Vec<RecordChange>, StoreError> {
        let change = Change::silent(Silent::Prepared).json("count", expect, &count);
        store.apply(change.unwrap()).await
    }
    const COUNTERS: u64 = 8;
    const STEPS: u64 = 10;
    let bench = B::default();
    run(async {
        let store = bench.open();
        put(&store, Expect::Absent, 0).await.unwrap();
        let count = async |store: Store| {
            for _ in 0..STEPS {
                loop {
                    let (held, revision) = store.get_json::<u64>("count").await.unwrap().unwrap();
                    match put(&store, Expect::Revision(revision), held + 1).await {
                        Ok(_) => break,
                        Err(error) => assert!(matches!(error, StoreError::Conflict { .. }), "{error}"),
                    }
                }
            }
        };
        let all = tokio::task::LocalSet::new();
        for _ in 0..COUNTERS {
            all.spawn_local(count(store.clone()));
        }
        all.await;
        let (held, _) = store.get_json::<u64>("count").await.unwrap().unwrap();
        assert_eq!(held, COUNTERS * STEPS);
    });
}

fn who_wrote_reads_what_they_wrote_or_something_newer<B: Bench>() {
    let bench = B::default();
    run(async {
        let store = bench.open();
        let mut expect = Expect::Absent;
        for (new, n) in blocks_of(50).into_iter().zip(1_u8..) {
            let revision = store.put_if("k", expect, vec![n]).await.unwrap();
            expect = Expect::Revision(revision);
            let own = StateRecord {
                revision,
                value: vec![n],
            };
            assert_eq!(store.get("k").await.unwrap(), Some(own.clone()));
            assert_eq!(store.list_last("", 1).await.unwrap(), [("k".to_owned(), own)]);
            store.append("gw", vec![new]).await.unwrap();
            let held = store.head("gw").await.unwrap().unwrap().next_sequence;
            assert_eq!(held, u64::from(n));
            let found = store.blocks(BlockFilter::default(), 1000).await.unwrap();
            assert_eq!(found.len(), usize::from(n));
            let nothing = store.page(BlockFilter::default(), Some(store.appended().borrow().clone()), 9);
            assert!(nothing.await.unwrap().blocks.is_empty(), "{n}");
        }
    });
}

fn records_are_listed_by_the_bytes_of_their_keys_from_either_end<B: Bench>() {
    let keys = prop::collection::btree_set("[a-cA-C/_~0-9]{0,4}", 0..20);
    let inputs = (keys, "[a-c/]{0,2}", 0usize..6);
    proptest!(some_cases(), |((keys, prefix, limit) in inputs)| {
        run(async {
            let bench = B::default();
            let store = bench.open();
            for key in &keys {
                store.put_if(key, Expect::Absent, vec![]).await.unwrap();
            }
            let names = |listed: Vec<(String, StateRecord)>| -> Vec<_> { listed.into_iter().map(|(key, _)| key).collect() };
            let mut wanted: Vec<_> = keys.iter().filter(|key| key.starts_with(&prefix)).cloned().collect();
            assert_eq!(names(store.list(&prefix).await.unwrap()), wanted);
            wanted.reverse();
            wanted.truncate(limit);
            assert_eq!(names(store.list_last(&prefix, limit).await.unwrap()), wanted);
        });
    });
}

fn records_and_blobs_beyond_their_bounds_are_refused_and_change_nothing<B: Bench>() {
    let bench = B::default();
    run(async {
        let store = bench.open();
        let largest = vec![1; RECORD_BYTES_MAX];
        let revision = store.put_if("k", Expect::Absent, largest).await.unwrap();
        let beyond = vec![2; RECORD_BYTES_MAX + 1];
        let record = store.put_if("k", Expect::Revision(revision), beyond).await;
        let blobs = store.put_blobs(vec![vec![3], vec![4; BLOB_BYTES_MAX + 1]]).await;
        for error in [record.unwrap_err(), blobs.unwrap_err()] {
            assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
        }
        assert_eq!(store.get("k").await.unwrap().unwrap().revision, revision);
        assert_eq!(store.blob_digests().await.unwrap(), []);
    });
}

fn blobs_are_kept_by_their_digests<B: Bench>() {
    let bench = B::default();
    run(async {
        let store = bench.open();
        let [one, two] = [b"one".to_vec(), b"two".to_vec()];
        store.put_blobs(vec![one.clone(), one.clone()]).await.unwrap();
        store.put_blobs(vec![one.clone(), two.clone()]).await.unwrap();
        assert_eq!(store.blob_digests().await.unwrap().len(), 2);
        store
            .drop_blobs(vec![Digest::of(&one), Digest::of(b"none")])
            .await
            .unwrap();
        assert_eq!(store.blob(Digest::of(&one)).await.unwrap(), None);
        assert_eq!(store.blob(Digest::of(&two)).await.unwrap(), Some(two));
    });
}

fn own(words: &str) -> OwnBody {
    OwnBody {
        body: words.to_owned().into(),
        summary: BlockSummary::default(),
        received_ms: 1,
        deferrable: false,
    }
}

fn what_is_noted_of_a_change_is_written_with_it_or_neither_is<B: Bench>() {
    fn note<T: ?Sized + std::fmt::Debug>() -> Note<T> {
        Note::new("coordinator/c1".to_owned(), |outcome: &T| {
            vec![super::conformance::own(&format!("{outcome:?}"))]
        })
    }
    async fn own(store: &Store) -> Vec<bytes::Bytes> {
        let blocks = store.blocks(BlockFilter::default(), 100).await.unwrap();
        let own = blocks.into_iter().filter(|block| block.source != "gw");
        own.map(|block| block.body).collect()
    }
    let bench = B::default();
    run(async {
        let store = bench.open();
        let all = blocks_of(4);
        let outcomes = store.append_noted("gw", all[..2].to_vec(), note()).await.unwrap();
        store.append("gw", chain(9, &[b"x".to_vec()])).await.unwrap();
        let heads = store.rewind("gw", 1, Some(note())).await.unwrap().unwrap();
        // What changes nothing is not noted.
        assert_eq!(store.rewind("gw", 1, Some(note())).await.unwrap(), None);
        let written = [format!("{outcomes:?}"), format!("{heads:?}")];
        assert_eq!(own(&store).await, written);
        let end = store.appended().borrow().clone();
        let page = store.page(BlockFilter::default(), None, 100).await.unwrap();
        assert_eq!(page.end, end, "who watches learns of it");
        drop(store);
        let store = bench.failing(FaultCause::ReadOnly);
        let failed = store.append_noted("gw", all[2..].to_vec(), note()).await;
        assert!(failed.is_err());
        assert_eq!(own(&store).await, written);
        assert_eq!(store.head("gw").await.unwrap().unwrap().next_sequence, 2);
    });
}

fn what_was_removed_is_noted_once_and_whole_whatever_ends_between_two_steps<B: Bench>() {
    // What is noted does not grow old itself.
    let noted_last = |all: &PurgeReport| {
        vec![OwnBody {
            received_ms: 1 << 40,
            ..own(&format!("{all:?}"))
        }]
    };
    let removed = || Note::new("coordinator/c1".to_owned(), noted_last);
    let steps = prop::collection::vec((0_u64..20, any::<bool>(), any::<bool>()), 1..12);
    proptest!(some_cases(), |(count in 2_u8..40, limit in 1_u32..6, steps in steps)| {
        let bench = B::default();
        run(async {
            let mut blocks = blocks_of(count);
            for (new, received_ms) in blocks.iter_mut().zip(0..) {
                new.received_ms = received_ms;
            }
            let mut store = bench.open();
            store.append("gw", blocks).await.unwrap();
            let noted = async |store: &Store| {
                let own = BlockFilter { source: Some("coordinator/c1".to_owned()), ..BlockFilter::default() };
                let own = store.blocks(own, 100).await.unwrap();
                own.into_iter().map(|block| String::from_utf8(block.body.to_vec()).unwrap()).collect::<Vec<_>>()
            };
            let (mut expected, mut open) = (Vec::new(), PurgeReport::default());
            // At last nothing fails, and nothing more is old.
            for (before_ms, ends, fails) in steps.into_iter().chain([(0, true, false); 2]) {
                if ends {
                    drop(store);
                    if fails {
                        let failing = bench.failing(FaultCause::ReadOnly);
                        assert!(failing.drop_expired(before(before_ms), limit, Some(removed())).await.is_err());
                    }
                    store = bench.open();
                }
                let dropped = store.drop_expired(before(before_ms), limit, Some(removed())).await.unwrap();
                open.blocks += dropped.blocks;
                open.bytes += dropped.bytes;
                if dropped.blocks < u64::from(limit) && open.blocks > 0 {
                    expected.push(format!("{:?}", std::mem::take(&mut open)));
                }
                assert_eq!(noted(&store).await, expected);
            }
            assert_eq!(open.blocks, 0, "all of it is noted");
        });
    });
}

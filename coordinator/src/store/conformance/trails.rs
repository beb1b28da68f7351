//! Of the properties of every engine, those of trails, and those of restarts and failures.

use super::*;

pub(super) fn blocks_delivered_in_any_overlapping_pieces_are_stored_exactly_once_and_in_order<B: Bench>() {
    let bodies = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..20);
    let cuts = prop::collection::vec((0usize..20, 1usize..8), 1..10);
    proptest!(some_cases(), |(bodies in bodies, cuts in cuts)| {
        run(async {
            let bench = B::default();
            let store = bench.open();
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
            assert_eq!(sequences(&stored), (0..next as u64).collect::<Vec<_>>());
            assert!(stored.iter().zip(&bodies).all(|(b, body)| b.body == *body));
            assert_eq!(store.head("gw").await.unwrap().unwrap().next_sequence, next as u64);
        });
    });
}

pub(super) fn blocks_that_are_delivered_twice_at_once_are_stored_once<B: Bench>() {
    let bench = B::default();
    run(async {
        let store = bench.open();
        let all = blocks_of(30);
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (store, all) = (store.clone(), all.clone());
                tokio::spawn(async move { store.append("gw", all).await.unwrap() })
            })
            .collect();
        let mut stored = 0;
        for task in tasks {
            let outcomes = task.await.unwrap();
            assert!(
                outcomes
                    .iter()
                    .all(|outcome| !matches!(outcome, Append::Refused(_)))
            );
            let new = |outcome: &&Append| matches!(outcome, Append::Stored { .. });
            stored += outcomes.iter().filter(new).count();
        }
        assert_eq!(stored, all.len());
        let found = store.blocks(BlockFilter::default(), 1000).await.unwrap();
        assert_eq!(sequences(&found), (0..30).collect::<Vec<_>>());
    });
}

pub(super) fn a_changed_block_at_a_held_position_is_a_fork_and_changes_nothing<B: Bench>() {
    let bench = B::default();
    run(async {
        let store = bench.open();
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

pub(super) fn a_body_beyond_its_bound_is_refused_and_changes_nothing<B: Bench>() {
    let bench = B::default();
    run(async {
        let store = bench.open();
        let largest = chain(1, &[vec![1; BODY_BYTES_MAX]]);
        let beyond = chain(1, &[vec![1; BODY_BYTES_MAX + 1]]);
        let outcome = |outcomes: Vec<Append>| outcomes[0];
        let refused = outcome(store.append("gw", beyond).await.unwrap());
        assert!(
            matches!(refused, Append::Refused(ChainError::Malformed { .. })),
            "{refused:?}"
        );
        assert_eq!(store.head("gw").await.unwrap(), None);
        let stored = outcome(store.append("gw", largest).await.unwrap());
        assert!(matches!(stored, Append::Stored { .. }), "{stored:?}");
    });
}

pub(super) fn the_coordinators_own_bodies_form_one_chain_however_many_write<B: Bench>() {
    let bench = B::default();
    run(async {
        let store = bench.open();
        let tasks: Vec<_> = (0..20u8)
            .map(|n| {
                let store = store.clone();
                let body = bytes::Bytes::from(vec![n]);
                tokio::spawn(async move {
                    store
                        .append_own("coordinator/c1", body, BlockSummary::default(), 1)
                        .await
                        .unwrap()
                })
            })
            .collect();
        let mut heads = Vec::new();
        for task in tasks {
            heads.push(task.await.unwrap().next_sequence);
        }
        heads.sort_unstable();
        assert_eq!(heads, (1..=20).collect::<Vec<_>>());
        let mut digest = GENESIS;
        for block in store.blocks(BlockFilter::default(), 100).await.unwrap() {
            digest = block_digest(&digest, block.epoch, block.sequence, &block.body);
        }
        assert_eq!(
            store.head("coordinator/c1").await.unwrap().unwrap().digest,
            digest
        );
    });
}

pub(super) fn a_trail_that_was_taken_back_goes_on_and_holds_no_place_twice<B: Bench>() {
    let bench = B::default();
    run(async {
        let store = bench.open();
        store.append("gw", blocks_of(3)).await.unwrap();
        let foreign = chain(9, &[b"x".to_vec(), b"y".to_vec()]);
        store.append("gw", foreign.clone()).await.unwrap();
        let (held, lawful) = store.rewind("gw", 1, None).await.unwrap().unwrap();
        assert_eq!((held.epoch, held.next_sequence), (9, 2));
        assert_eq!((lawful.epoch, lawful.next_sequence), (1, 3));
        assert_eq!(store.rewind("gw", 1, None).await.unwrap(), None);
        // The same blocks are held, others at their places are forks, and another epoch goes on.
        let again = store.append("gw", vec![foreign[0].clone()]).await.unwrap();
        assert!(matches!(again[0], Append::Held { .. }), "{again:?}");
        store.rewind("gw", 1, None).await.unwrap().unwrap();
        let other = store.append("gw", chain(9, &[b"X".to_vec()])).await.unwrap();
        assert!(
            matches!(other[0], Append::Refused(ChainError::Forked { .. })),
            "{other:?}"
        );
        let next = store.append("gw", chain(10, &[b"z".to_vec()])).await.unwrap();
        assert!(matches!(next[0], Append::Stored { .. }), "{next:?}");
        let all = store.blocks(BlockFilter::default(), 100).await.unwrap();
        assert_eq!(sequences(&all), [0, 1, 2, 0, 1, 0]);
    });
}

/// Each of 12 blocks by two sources in turn, every third of kind 1, the others of kind 2.
async fn twelve(store: &Store) {
    for (source, n) in ["a", "b"].into_iter().cycle().zip(0..12_u64) {
        let summary = BlockSummary {
            first_ms: n,
            last_ms: n,
            kinds: if n % 3 == 0 { 1 } else { 2 },
            ..BlockSummary::default()
        };
        let body = bytes::Bytes::from(n.to_string());
        store.append_own(source, body, summary, n).await.unwrap();
    }
}

pub(super) fn pages_of_any_size_give_each_block_once_in_order_also_over_restarts<B: Bench>() {
    let inputs = (
        1usize..8,
        any::<bool>(),
        0u32..4,
        prop::option::of(any::<bool>()),
        0..12_u64,
    );
    proptest!(some_cases(), |((size, newest_first, kinds, source, from_ms) in inputs)| {
        run(async {
            let bench = B::default();
            let mut store = bench.open();
            twelve(&store).await;
            let source = source.map(|first| if first { "a" } else { "b" }.to_owned());
            let filter = BlockFilter { source: source.clone(), from_ms, kinds, newest_first, ..BlockFilter::default() };
            let mut wanted: Vec<u64> = (from_ms..12)
                .filter(|n| source.as_deref().is_none_or(|source| (source == "a") == (n % 2 == 0)))
                .filter(|n| kinds == 0 || kinds & if n % 3 == 0 { 1 } else { 2 } != 0)
                .collect();
            if newest_first {
                wanted.reverse();
            }
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = store.page(filter.clone(), after, size).await.unwrap();
                assert!(page.blocks.len() <= size);
                found.extend(page.blocks.into_iter().map(|block| block.received_ms));
                if !page.more {
                    let rest = store.page(filter.clone(), Some(page.end), size).await.unwrap();
                    assert!(rest.blocks.is_empty() && !rest.more);
                    break;
                }
                after = Some(page.end);
                drop(store);
                store = bench.open();
            }
            assert_eq!(found, wanted);
        });
    });
}

pub(super) fn a_page_ends_behind_what_its_filter_ruled_out<B: Bench>() {
    let bench = B::default();
    run(async {
        let store = bench.open();
        twelve(&store).await;
        let nothing = BlockFilter {
            source: Some("nobody".to_owned()),
            ..BlockFilter::default()
        };
        let page = store.page(nothing, None, 5).await.unwrap();
        assert!(page.blocks.is_empty() && !page.more);
        assert_eq!(page.end, *store.appended().borrow());
        let beyond = store
            .page(BlockFilter::default(), Some(page.end), 5)
            .await
            .unwrap();
        assert!(beyond.blocks.is_empty());
    });
}

pub(super) fn what_is_appended_while_pages_are_read_is_not_passed_over<B: Bench>() {
    let bench = B::default();
    run(async {
        let store = bench.open();
        let mut appended = store.appended();
        let mut after = appended.borrow_and_update().clone();
        let writer = store.clone();
        let writing = tokio::spawn(async move {
            for new in blocks_of(100) {
                writer.append("gw", vec![new]).await.unwrap();
            }
        });
        let mut found = Vec::new();
        while found.len() < 100 {
            let page = store.page(BlockFilter::default(), Some(after), 3).await.unwrap();
            after = page.end;
            found.extend(sequences(&page.blocks));
            if !page.more && found.len() < 100 {
                appended.changed().await.unwrap();
            }
        }
        writing.await.unwrap();
        assert_eq!(found, (0..100).collect::<Vec<_>>());
    });
}

/// What came before that is old, and every time is likely.
pub(super) fn before(before_ms: u64) -> Expired {
    Expired {
        before_ms,
        unlikely_after_ms: u64::MAX,
        unlikely_before_ms: 0,
    }
}

pub(super) fn what_is_said_to_have_come_at_an_unlikely_time_is_as_old_as_what_came_next<B: Bench>() {
    let times = prop::collection::vec(prop_oneof![3 => 0_u64..100, 1 => 100_u64..200], 1..30);
    proptest!(some_cases(), |(times in times, before_ms in 0_u64..120, after_ms in 50_u64..150, from_ms in 0_u64..60, limit in 1_u32..9)| {
        run(async {
            let bench = B::default();
            let store = bench.open();
            let mut blocks = blocks_of(u8::try_from(times.len()).unwrap());
            for (new, received_ms) in blocks.iter_mut().zip(&times) {
                new.received_ms = *received_ms;
            }
            store.append("gw", blocks).await.unwrap();
            let is_old = |at: usize| {
                let likely = times.iter().skip(at + 1).find(|ms| (from_ms..=after_ms).contains(*ms));
                Some(&times[at]).filter(|ms| **ms <= after_ms).or(likely).is_some_and(|ms| *ms < before_ms)
            };
            let old = (0..times.len() - 1).take_while(|at| is_old(*at)).count();
            let expired = Expired { before_ms, unlikely_after_ms: after_ms, unlikely_before_ms: from_ms };
            let mut gone = 0;
            loop {
                let dropped = store.drop_expired(expired, limit, None).await.unwrap().blocks;
                gone += dropped;
                if dropped == 0 {
                    break;
                }
            }
            assert_eq!(gone, old as u64, "{times:?}");
        });
    });
}

pub(super) fn nothing_is_stored_behind_a_block_that_is_refused<B: Bench>() {
    let bench = B::default();
    run(async {
        let store = bench.open();
        let all = blocks_of(6);
        store.append("gw", all[..2].to_vec()).await.unwrap();
        let head = store.head("gw").await.unwrap();
        let mut forked = all[1].clone();
        forked.block.body = vec![9].into();
        // The last would leave a lawful gap, if it came alone.
        let outcomes = store.append("gw", vec![forked, all[4].clone()]).await.unwrap();
        assert!(
            outcomes.len() == 2
                && outcomes
                    .iter()
                    .all(|outcome| matches!(outcome, Append::Refused(_)))
        );
        assert_eq!(store.head("gw").await.unwrap(), head);
        let alone = store.append("gw", vec![all[4].clone()]).await.unwrap();
        assert!(
            matches!(alone[..], [Append::Stored { missing: 2, .. }]),
            "{alone:?}"
        );
    });
}

pub(super) fn what_is_older_than_it_is_kept_goes_and_each_chain_goes_on<B: Bench>() {
    let bench = B::default();
    run(async {
        let store = bench.open();
        let mut blocks = chain(1, &(0..10).map(|n| vec![n; 100]).collect::<Vec<_>>());
        for (new, received_ms) in blocks.iter_mut().zip(0..) {
            new.received_ms = received_ms * 1000;
        }
        store.append("gw", blocks[..8].to_vec()).await.unwrap();
        let head = store.head("gw").await.unwrap();
        let mut gone = 0;
        loop {
            let dropped = store.drop_expired(before(5000), 2, None).await.unwrap();
            assert_eq!(dropped.bytes, dropped.blocks * block_bytes(&[0; 100]));
            gone += dropped.blocks;
            if dropped.blocks == 0 {
                break;
            }
        }
        assert_eq!((gone, store.head("gw").await.unwrap()), (5, head));
        let left = store.blocks(BlockFilter::default(), 100).await.unwrap();
        assert_eq!(sequences(&left), [5, 6, 7]);
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
    });
}

pub(super) fn a_place_in_the_trail_outlives_everything_that_was_before_it<B: Bench>() {
    let bench = B::default();
    run(async {
        let store = bench.open();
        let blocks = blocks_of(12);
        store.append("gw", blocks[..10].to_vec()).await.unwrap();
        let end = store.appended().borrow().clone();
        assert_eq!(
            store
                .drop_expired(before(u64::MAX), 100, None)
                .await
                .unwrap()
                .blocks,
            9
        );
        assert_eq!(
            store
                .drop_expired(before(u64::MAX), 100, None)
                .await
                .unwrap()
                .blocks,
            0
        );
        drop(store);
        let store = bench.open();
        assert_eq!(*store.appended().borrow(), end);
        store.append("gw", blocks[10..].to_vec()).await.unwrap();
        let page = store.page(BlockFilter::default(), Some(end), 100).await.unwrap();
        assert_eq!(sequences(&page.blocks), [10, 11]);
    });
}

pub(super) fn another_engines_place_in_the_trail_is_refused<B: Bench>() {
    let bench = B::default();
    run(async {
        let foreign = Cursor::new("a place elsewhere");
        let page = bench.open().page(BlockFilter::default(), Some(foreign), 1).await;
        let error = page.unwrap_err();
        assert!(matches!(error, StoreError::ForeignCursor), "{error}");
        assert_eq!(Refusal::from(error).reason, Reason::BadRequest);
    });
}

pub(super) fn what_was_acknowledged_is_there_after_a_restart_and_watchers_see_changes<B: Bench>() {
    let bench = B::default();
    run(async {
        let store = bench.open();
        let mut changes = store.watch();
        let mut revision = store.put_if("a", Expect::Absent, b"1".to_vec()).await.unwrap();
        let change = |key: &str, revision| RecordChange {
            key: key.to_owned(),
            revision,
        };
        assert_eq!(changes.recv().await.unwrap(), change("a", revision));
        let passing = store.put_if("b", Expect::Absent, b"2".to_vec()).await.unwrap();
        let removed = store.delete_if("b", passing).await.unwrap();
        assert_eq!(changes.recv().await.unwrap(), change("b", passing));
        assert_eq!(changes.recv().await.unwrap(), change("b", removed));
        store.append("gw", chain(1, &[b"x".to_vec()])).await.unwrap();
        let own = store.append_own(
            "coordinator/c1",
            b"own".as_slice().into(),
            BlockSummary::default(),
            5,
        );
        let own = own.await.unwrap();
        let blob = b"large".to_vec();
        store.put_blobs(vec![blob.clone()]).await.unwrap();
        let blocks = store.blocks(BlockFilter::default(), 10).await.unwrap();
        let end = store.appended().borrow().clone();
        drop(store);
        for _ in 0..3 {
            let store = bench.open();
            assert_eq!(store.get("a").await.unwrap().unwrap().revision, revision);
            assert_eq!(store.get("b").await.unwrap(), None);
            assert_eq!(store.head("gw").await.unwrap().unwrap().next_sequence, 1);
            assert_eq!(store.head("coordinator/c1").await.unwrap(), Some(own));
            assert_eq!(store.blocks(BlockFilter::default(), 10).await.unwrap(), blocks);
            assert_eq!(*store.appended().borrow(), end);
            assert_eq!(store.blob(Digest::of(&blob)).await.unwrap(), Some(blob.clone()));
            // Revisions go on, also over one that was removed.
            let newer = store
                .put_if("a", Expect::Revision(revision), b"1".to_vec())
                .await
                .unwrap();
            assert!(newer > revision.max(removed));
            revision = newer;
        }
    });
}

pub(super) fn each_failure_has_its_error_and_what_was_acknowledged_stays<B: Bench>() {
    for (cause, reason) in [
        (FaultCause::Full, Reason::StoreFull),
        (FaultCause::ReadOnly, Reason::StoreUnavailable),
        (FaultCause::Damaged, Reason::StoreCorrupt),
    ] {
        let bench = B::default();
        run(async {
            let store = bench.open();
            store.put_if("kept", Expect::Absent, b"1".to_vec()).await.unwrap();
            store.append("gw", blocks_of(2)).await.unwrap();
            drop(store);
            let store = bench.failing(cause);
            let large = chain(2, &[vec![1; 200_000]]);
            let errors = [
                store
                    .put_if("big", Expect::Absent, vec![7; 200_000])
                    .await
                    .unwrap_err(),
                store.put_blobs(vec![vec![7; 200_000]]).await.unwrap_err(),
                store.append("gw", large).await.unwrap_err(),
            ];
            for error in errors {
                assert_eq!(error.cause(), Some(cause), "{error}");
                assert_eq!(Refusal::from(error).reason, reason);
            }
            if cause != FaultCause::Damaged {
                assert_eq!(store.get("big").await.unwrap(), None);
                assert_eq!(store.blob_digests().await.unwrap(), []);
                assert_eq!(store.get("kept").await.unwrap().unwrap().value, b"1");
                let held = store.head("gw").await.unwrap().unwrap();
                assert_eq!((held.epoch, held.next_sequence), (1, 2));
                // The engine goes on when the cause is gone.
                drop(store);
                let store = bench.open();
                store
                    .put_if("big", Expect::Absent, vec![7; 200_000])
                    .await
                    .unwrap();
            }
        });
    }
}

//! Changes of state: records that are written together, with the event that says so, under contention, failures and restarts.

use super::*;

const OWN: &str = "coordinator/c1";

fn event(words: &str) -> OwnEvent {
    OwnEvent::new(OWN.to_owned(), own(words))
}

/// The events in the order of the chain, which is whole.
async fn events(store: &Store) -> Vec<String> {
    let blocks = store.blocks(BlockFilter::default(), 10_000).await.unwrap();
    let whole: Vec<u64> = (0..blocks.len() as u64).collect();
    assert_eq!(sequences(&blocks), whole);
    let words = |block: StoredBlock| String::from_utf8(block.body.to_vec()).unwrap();
    blocks.into_iter().map(words).collect()
}

async fn records(store: &Store) -> BTreeMap<String, (u64, Vec<u8>)> {
    let listed = store.list("").await.unwrap().into_iter();
    listed
        .map(|(key, record)| (key, (record.revision, record.value)))
        .collect()
}

/// What one change does to one of a few keys.
#[derive(Debug, Clone)]
struct Step {
    key: u8,
    /// Whether what it expects is there.
    fits: bool,
    removes: bool,
}

pub(in crate::store) fn records_that_are_written_together_and_their_event_are_all_there_or_none_of_them_is<
    B: Bench,
>() {
    let step = (0_u8..4, prop::bool::weighted(0.85), any::<bool>());
    let step = step.prop_map(|(key, fits, removes)| Step { key, fits, removes });
    let change = (prop::collection::vec(step, 0..4), any::<bool>(), 0_u8..8);
    proptest!(some_cases(), |(changes in prop::collection::vec(change, 1..12))| {
        let bench = B::default();
        run(async {
            let mut store = bench.open();
            let mut watch = store.watch();
            let (mut model, mut noted) = (BTreeMap::new(), Vec::new());
            for (number, (steps, silent, fails)) in changes.into_iter().enumerate() {
                let words = format!("event {number}");
                let mut change = if silent {
                    Change::silent(Silent::Prepared)
                } else {
                    Change::noted(event(&words))
                };
                let mut after: BTreeMap<String, (u64, Vec<u8>)> = model.clone();
                let mut fits = BTreeMap::new();
                for step in steps {
                    let key = format!("k/{}", step.key);
                    let held: Option<u64> = model.get(&key).map(|(revision, _): &(u64, Vec<u8>)| *revision);
                    let expect = match (held, step.fits) {
                        (Some(revision), true) => Expect::Revision(revision),
                        (None, true) | (Some(_), false) => Expect::Absent,
                        (None, false) => Expect::Revision(1 << 40),
                    };
                    fits.insert(key.clone(), step.fits);
                    let value = (!step.removes).then(|| vec![number as u8]);
                    match &value {
                        Some(value) => drop(after.insert(key.clone(), (0, value.clone()))),
                        None => drop(after.remove(&key)),
                    }
                    change = change.write(&key, expect, value);
                }
                if fails == 0 {
                    drop(store);
                    let failing = bench.failing(FaultCause::ReadOnly);
                    let failed = failing.apply(change.clone()).await;
                    let conflicts = matches!(failed, Err(StoreError::Conflict { .. }));
                    assert!(failed.is_err() || fits.is_empty() && silent, "{failed:?}");
                    assert!(!conflicts || fits.values().any(|fits| !fits));
                    drop(failing);
                    store = bench.open();
                    watch = store.watch();
                    assert_eq!((&records(&store).await, &events(&store).await), (&model, &noted));
                }
                match store.apply(change).await {
                    Ok(written) => {
                        assert!(fits.values().all(|fits| *fits));
                        assert!(written.iter().map(|change| &change.key).eq(fits.keys()));
                        for change in written {
                            assert_eq!(watch.try_recv().unwrap(), change);
                            if let Some((revision, _)) = after.get_mut(&change.key) {
                                *revision = change.revision;
                            }
                        }
                        model = after;
                        if !silent {
                            noted.push(words);
                        }
                    }
                    Err(StoreError::Conflict { key, found }) => {
                        assert!(!fits[&key]);
                        assert_eq!(found, model.get(&key).map(|(revision, _)| *revision));
                    }
                    Err(other) => panic!("{other}"),
                }
                assert!(watch.try_recv().is_err(), "what is refused changes nothing");
                assert_eq!((&records(&store).await, &events(&store).await), (&model, &noted));
                if fails == 1 {
                    drop(store);
                    store = bench.open();
                    watch = store.watch();
                }
            }
            let end = store.appended().borrow().clone();
            let page = store.page(BlockFilter::default(), None, 10_000).await.unwrap();
            assert_eq!(page.end, end, "who follows the trail learns of each event");
        });
    });
}

pub(in crate::store) fn of_many_changes_at_once_each_that_won_has_its_event_in_the_order_in_which_they_won<
    B: Bench,
>() {
    let bench = B::default();
    run(async {
        let store = bench.open();
        let tasks: Vec<_> = (0..40_u32)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move {
                    let mut won = Vec::new();
                    for round in 0..4 {
                        let held = store.get("shared").await.unwrap();
                        let expect = held.map_or(Expect::Absent, |held| Expect::Revision(held.revision));
                        let words = format!("{number} in {round}");
                        let change = Change::noted(event(&words))
                            .write("shared", expect, Some(words.clone().into_bytes()))
                            .write(&format!("own/{number}/{round}"), Expect::Absent, Some(vec![]));
                        match store.apply(change).await {
                            Ok(written) => won.push((written[1].revision, words)),
                            Err(StoreError::Conflict { key, .. }) => assert_eq!(key, "shared"),
                            Err(other) => panic!("{other}"),
                        }
                        tokio::task::yield_now().await;
                    }
                    won
                })
            })
            .collect();
        let mut won = Vec::new();
        for task in tasks {
            won.extend(task.await.unwrap());
        }
        won.sort();
        assert!(!won.is_empty());
        assert_eq!(store.list("own/").await.unwrap().len(), won.len());
        let order: Vec<_> = won.into_iter().map(|(_, words)| words).collect();
        assert_eq!(events(&store).await, order);
    });
}

pub(in crate::store) fn an_event_that_cannot_be_written_takes_its_records_with_it<B: Bench>() {
    let bench = B::default();
    run(async {
        let store = bench.open();
        let beyond = "x".repeat(BODY_BYTES_MAX + 1);
        let refused = Change::noted(event(&beyond)).write("k", Expect::Absent, Some(vec![1]));
        assert!(store.apply(refused).await.is_err());
        let large =
            Change::noted(event("large")).write("k", Expect::Absent, Some(vec![1; RECORD_BYTES_MAX + 1]));
        assert!(matches!(
            store.apply(large).await,
            Err(StoreError::TooLarge { .. })
        ));
        drop(store);
        // The disk gets full amid the change.
        let store = bench.failing(FaultCause::Full);
        let full = Change::noted(event("full")).write("k", Expect::Absent, Some(vec![1; 200_000]));
        assert_eq!(
            store.apply(full).await.unwrap_err().cause(),
            Some(FaultCause::Full)
        );
        drop(store);
        let store = bench.open();
        assert_eq!((records(&store).await.len(), events(&store).await.len()), (0, 0));
        let goes_on = Change::noted(event("goes on")).write("k", Expect::Absent, Some(vec![1]));
        store.apply(goes_on).await.unwrap();
        assert_eq!((records(&store).await.len(), events(&store).await.len()), (1, 1));
    });
}

pub(in crate::store) fn what_is_made_of_the_head_stands_behind_that_very_head_with_its_record_or_neither_is_there<
    B: Bench,
>() {
    let bench = B::default();
    run(async {
        let store = bench.open();
        let made = |new_epoch| {
            AtHead::new(OWN.to_owned(), "own".to_owned(), false, move |head| HeadMade {
                own: own(&format!("behind {}/{}", head.epoch, head.next_sequence)),
                new_epoch,
                record: Some(head.next_sequence.to_string().into_bytes()),
            })
        };
        let others = (0..20).map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let change = Change::noted(event(&format!("event {number}")));
                store.apply(change).await.unwrap();
            })
        });
        let others: Vec<_> = others.collect();
        for _ in 0..10 {
            store.append_at_head(made(false)).await.unwrap();
        }
        for other in others {
            other.await.unwrap();
        }
        let blocks = store.blocks(BlockFilter::default(), 100).await.unwrap();
        let behind = blocks.iter().filter(|block| block.body.starts_with(b"behind"));
        let behind = behind.map(|block| {
            let words = format!("behind 1/{}", block.sequence);
            assert_eq!(block.body, words.as_bytes());
            block.sequence
        });
        let newest = behind.max().unwrap();
        assert_eq!(
            store.get("own").await.unwrap().unwrap().value,
            newest.to_string().into_bytes()
        );
        // A new epoch begins behind it, and goes on.
        let begun = store.append_at_head(made(true)).await.unwrap();
        assert_eq!((begun.epoch, begun.next_sequence), (2, 1));
        let next = store.append_at_head(made(false)).await.unwrap();
        assert_eq!((next.epoch, next.next_sequence), (2, 2));
        drop(store);
        let failing = bench.failing(FaultCause::ReadOnly);
        assert!(failing.append_at_head(made(true)).await.is_err());
        drop(failing);
        let store = bench.open();
        assert_eq!(store.head(OWN).await.unwrap(), Some(next));
        assert_eq!(store.get("own").await.unwrap().unwrap().value, b"1");
    });
}

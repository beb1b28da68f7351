//! The indexed search against a look at every event: any trail, any search, in pages cut anywhere, while blocks come, the index grows
//! and retention removes. Each page is what the look at every event gives at that moment, behind the event that the cursor names.

mod asked;

use penstock_policy::ids::{PlantId, Revision};
use penstock_proto::audit::{GENESIS, Head};
use penstock_proto::v1::AuditBlock;
use prost::Message as _;

use self::asked::{DAY_MS, Step, directory, request, step, wanted};
use super::*;
use crate::query::indexing::index_all;
use crate::store::{Expired, NewBlock};

/// A block as it went into the store.
struct Kept {
    number: usize,
    source: &'static str,
    sequence: u64,
    received_ms: u64,
    events: Vec<AuditEvent>,
}

/// Where an event is: the number of its block, and its own.
type Place = (usize, u32);

struct World {
    store: Store,
    releases: Releases,
    kept: Vec<Kept>,
    appended: usize,
}

impl World {
    async fn take(&mut self, step: Step) {
        match step {
            Step::Append {
                source,
                received_day,
                blocks,
            } => {
                for events in blocks {
                    let head = self.store.head(source).await.unwrap();
                    let head = head.unwrap_or(Head {
                        epoch: 1,
                        next_sequence: 0,
                        digest: GENESIS,
                    });
                    let body = AuditBlockBody {
                        events: events.clone(),
                    };
                    let received_ms = received_day * DAY_MS + 1;
                    let new = NewBlock {
                        block: AuditBlock {
                            epoch: head.epoch,
                            sequence: head.next_sequence,
                            previous_digest: head.digest.to_vec().into(),
                            body: body.encode_to_vec().into(),
                        },
                        summary: summarize(&body),
                        received_ms,
                    };
                    self.store.append(source, vec![new]).await.unwrap();
                    self.appended += 1;
                    self.kept.push(Kept {
                        number: self.appended,
                        source,
                        sequence: head.next_sequence,
                        received_ms,
                        events,
                    });
                }
            }
            Step::Index { blocks } => {
                let mut names = Names::default();
                index_all(&self.store, &self.releases, &mut names, blocks)
                    .await
                    .unwrap();
            }
            Step::Retain { blocks } => {
                let all = Expired {
                    before_ms: u64::MAX,
                    unlikely_after_ms: u64::MAX,
                    unlikely_before_ms: 0,
                };
                let dropped = self.store.drop_expired(all, blocks, None).await.unwrap();
                self.kept.drain(..usize::try_from(dropped.blocks).unwrap());
            }
        }
    }

    /// What a look at every event gives behind a place.
    fn expected(&self, request: &SearchAuditRequest, behind: Option<Place>) -> Vec<Place> {
        let mut all: Vec<Place> = Vec::new();
        for block in &self.kept {
            for (event, index) in block.events.iter().zip(0..) {
                if wanted(request, block.source, block.received_ms, event) {
                    all.push((block.number, index));
                }
            }
        }
        if request.newest_first {
            all.reverse();
        }
        all.retain(|place| {
            behind.is_none_or(|behind| {
                if request.newest_first {
                    *place < behind
                } else {
                    *place > behind
                }
            })
        });
        all.truncate(request.limit as usize);
        all
    }

    async fn page(&self, request: &SearchAuditRequest) -> Result<Vec<(Place, String)>, Status> {
        let filter = Filter::try_from(request.clone()).unwrap();
        let (out, mut answers) = mpsc::channel(1000);
        search(&self.store, &self.releases, &filter, &out).await.unwrap();
        drop(out);
        let mut found = Vec::new();
        while let Some(record) = answers.recv().await {
            let record = record?;
            let here =
                |kept: &&Kept| (kept.source, kept.sequence) == (record.source.as_str(), record.sequence);
            let number = self.kept.iter().find(here).unwrap().number;
            found.push(((number, record.index), record.cursor));
        }
        Ok(found)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 16))]
    #[test]
    fn each_page_of_a_search_is_what_a_look_at_every_event_gives_while_blocks_come_and_go(
        before in prop::collection::vec(step(), 1..12),
        pages in prop::collection::vec((1u32..9, prop::collection::vec(step(), 0..3)), 1..8),
        requests in prop::collection::vec(request(), 1..5),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Store::open(&dir.path().join("s.db")).unwrap();
            let releases = Releases::open(store.clone(), PlantId::new("riverside").unwrap()).await.unwrap();
            releases.know(Revision(1), directory("plc", "supply"));
            releases.know(Revision(2), directory("valve", "feed"));
            store.open_index("test").await.unwrap();
            let mut world = World { store, releases, kept: Vec::new(), appended: 0 };
            for step in before {
                world.take(step).await;
            }
            for request in requests {
                let mut behind: Option<(Place, String)> = None;
                for (limit, meanwhile) in pages.clone() {
                    let page = SearchAuditRequest {
                        limit,
                        after: behind.as_ref().map(|(_, cursor)| cursor.clone()).unwrap_or_default(),
                        ..request.clone()
                    };
                    let place = behind.as_ref().map(|(place, _)| *place);
                    let there = place.is_none_or(|(number, _)| world.kept.iter().any(|kept| kept.number == number));
                    let found = world.page(&page).await;
                    if !there {
                        let refused = found.unwrap_err();
                        prop_assert!(refused.message().contains("does not have: retention removed it"), "{refused}");
                        break;
                    }
                    let found = found.unwrap();
                    let places: Vec<Place> = found.iter().map(|(place, _)| *place).collect();
                    prop_assert_eq!(&places, &world.expected(&page, place), "{:?}", page);
                    behind = found.into_iter().next_back().or(behind);
                    for step in meanwhile {
                        world.take(step).await;
                    }
                }
            }
            Ok(())
        })?;
    }
}

/// Blocks of one event each, of this source, in a new store.
async fn store_of(path: &std::path::Path, source: &'static str, events: u64) -> World {
    let store = Store::open(path).unwrap();
    let releases = Releases::open(store.clone(), PlantId::new("riverside").unwrap())
        .await
        .unwrap();
    let mut world = World {
        store,
        releases,
        kept: Vec::new(),
        appended: 0,
    };
    let blocks = (0..events).map(|n| {
        vec![AuditEvent {
            time_ms: n,
            kind: Some(Kind::Verdict(VerdictEvent {
                decision: 2,
                source: "10.20.1.21".into(),
                ..VerdictEvent::default()
            })),
            ..AuditEvent::default()
        }]
    });
    let append = Step::Append {
        source,
        received_day: 1,
        blocks: blocks.collect(),
    };
    world.take(append).await;
    world
}

#[tokio::test]
async fn a_cursor_goes_on_where_it_was_made_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let world = store_of(&dir.path().join("a.db"), "gw-1", 5).await;
    let other = store_of(&dir.path().join("b.db"), "gw-2", 5).await;
    let request = SearchAuditRequest {
        limit: 2,
        decision: 2,
        ..SearchAuditRequest::default()
    };
    let found = world.page(&request).await.unwrap();
    let after = |after: &str, request: SearchAuditRequest| SearchAuditRequest {
        after: after.to_owned(),
        ..request
    };
    let (_, cursor) = found.last().unwrap();
    let rest = world.page(&after(cursor, request.clone())).await.unwrap();
    assert_eq!(
        rest.iter().map(|(place, _)| *place).collect::<Vec<_>>(),
        [(3, 0), (4, 0)]
    );
    // Spans back from now are other times at each call.
    let later = SearchAuditRequest {
        from_ms: 1,
        until_ms: 9,
        limit: 100,
        ..request.clone()
    };
    assert_eq!(world.page(&after(cursor, later)).await.unwrap().len(), 3);
    for (world, request, said) in [
        (
            &world,
            after("nonsense!", request.clone()),
            "none that a search gave",
        ),
        (&world, after("AQ", request.clone()), "none that a search gave"),
        (
            &world,
            after(
                cursor,
                SearchAuditRequest {
                    newest_first: true,
                    ..request.clone()
                },
            ),
            "the other order",
        ),
        (
            &world,
            after(
                cursor,
                SearchAuditRequest {
                    decision: 3,
                    ..request.clone()
                },
            ),
            "other filters",
        ),
        (
            &other,
            after(cursor, request.clone()),
            "another coordinator gave the cursor",
        ),
    ] {
        let refused = world.page(&request).await.unwrap_err();
        assert!(refused.message().contains(said), "{refused}");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }
}

#[tokio::test]
async fn an_index_that_is_lost_damaged_or_another_stores_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    let index = dir.path().join("s.search.db");
    let request = SearchAuditRequest {
        assets: vec!["10.20.1.21".into()],
        ..SearchAuditRequest::default()
    };
    let all = store_of(&path, "gw-1", 9).await;
    indexing::catch_up(&all.store, &all.releases).await.unwrap();
    index_all(&all.store, &all.releases, &mut Names::default(), 4)
        .await
        .unwrap();
    assert_eq!(all.page(&request).await.unwrap().len(), 9);
    let expect = async |path: &std::path::Path, kept: Vec<Kept>, what: &str| {
        let store = Store::open(path).unwrap();
        let releases = Releases::open(store.clone(), PlantId::new("riverside").unwrap())
            .await
            .unwrap();
        let world = World {
            store,
            releases,
            appended: kept.len(),
            kept,
        };
        indexing::catch_up(&world.store, &world.releases).await.unwrap();
        index_all(&world.store, &world.releases, &mut Names::default(), 3)
            .await
            .unwrap();
        assert_eq!(
            world.page(&request).await.unwrap().len(),
            world.kept.len(),
            "{what}"
        );
        world.kept
    };
    let kept = all.kept;
    drop((all.store, all.releases));
    let kept = expect(&path, kept, "kept").await;
    // Beside it the index of a store that went on after its backup: there the same numbers are other blocks.
    let restored = dir.path().join("restored.db");
    crate::store::backup_file(&index, &dir.path().join("restored.search.db")).unwrap();
    std::fs::remove_file(&index).unwrap();
    let kept = expect(&path, kept, "lost").await;
    std::fs::write(&index, b"not a database, whatever it was").unwrap();
    let _ = expect(&path, kept, "damaged").await;
    let short = store_of(&dir.path().join("short.db"), "gw-2", 5).await;
    crate::store::backup_file(&dir.path().join("short.db"), &restored).unwrap();
    let _ = expect(&restored, short.kept, "restored").await;
}

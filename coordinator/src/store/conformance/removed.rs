//! Of the properties of every engine, what a reader learns of blocks that were removed before it came to them.

use super::*;

pub(super) fn whoever_reads_on_from_a_place_gets_each_block_or_its_number_among_those_that_were_removed<
    B: Bench,
>() {
    let steps = prop::collection::vec((0_u8..4, 1_u64..6), 1..16);
    proptest!(some_cases(), |(steps in steps)| {
        run(async {
            let bench = B::default();
            let mut store = bench.open();
            let mut blocks = chain(1, &(0..250).map(|n| vec![n]).collect::<Vec<_>>());
            for (new, received_ms) in blocks.iter_mut().zip(1..) {
                new.received_ms = received_ms;
            }
            let (mut written, mut read, mut removed, mut oldest) = (0, Vec::new(), 0, 0);
            let mut place = store.beginning().await.unwrap();
            for (step, count) in steps.into_iter().chain([(2, 250)]) {
                match step {
                    0 | 1 => {
                        let until = (written + count as usize).min(blocks.len());
                        store.append("gw", blocks[written..until].to_vec()).await.unwrap();
                        written = until;
                    }
                    2 => {
                        // As an export reads: what the page did not see is asked for behind it.
                        let page = store.page(BlockFilter::default(), Some(place.clone()), count as usize);
                        let page = page.await.unwrap();
                        if let Some(gone) = store.removed_behind(place.clone()).await.unwrap() {
                            removed += gone.blocks;
                            place = gone.end;
                            let page = store.page(BlockFilter::default(), Some(place.clone()), 250).await.unwrap();
                            read.extend(sequences(&page.blocks));
                            place = page.end;
                        } else {
                            read.extend(sequences(&page.blocks));
                            place = page.end;
                        }
                        place = Cursor::of_kept(&place.kept()).unwrap();
                    }
                    _ => {
                        oldest += count;
                        store.drop_expired(before(oldest), 100, None).await.unwrap();
                        drop(store);
                        store = bench.open();
                    }
                }
            }
            assert_eq!(store.removed_behind(place).await.unwrap(), None);
            assert!(read.windows(2).all(|pair| pair[0] < pair[1]), "{read:?}");
            assert_eq!(read.len() as u64 + removed, written as u64);
        });
    });
}

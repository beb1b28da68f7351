//! Of the properties of every engine, those of the tree over all trails.

use penstock_policy::merkle::growing::TreeState;
use penstock_policy::merkle::{Tree, verify_inclusion};
use penstock_proto::audit::leaf::BlockLeaf;

use super::*;

pub(super) fn the_tree_has_each_block_once_in_the_order_in_which_they_came_and_proves_it_also_over_restarts<
    B: Bench,
>() {
    let bodies = prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..20)), 1..20);
    proptest!(some_cases(), |(bodies in bodies, restart in 0usize..20)| {
        run(async {
            let bench = B::default();
            let mut store = bench.open();
            assert_eq!(store.tree().await.unwrap(), TreeState::empty());
            let of = |first| {
                let bodies: Vec<_> = bodies.iter().filter(|(is_first, _)| *is_first == first).map(|(_, body)| body.clone()).collect();
                chain(1, &bodies).into_iter()
            };
            let (mut one, mut other) = (of(true), of(false));
            let (mut leaves, mut states) = (Vec::new(), vec![TreeState::empty()]);
            for (number, (first, _)) in bodies.iter().enumerate() {
                if number == restart {
                    drop(store);
                    store = bench.open();
                }
                let (source, new) = if *first { ("gw-1", one.next()) } else { ("gw-2", other.next()) };
                let new = new.unwrap();
                let outcome = store.append(source, vec![new.clone(), new.clone()]).await.unwrap();
                let Append::Stored { head, .. } = outcome[0] else { panic!("{outcome:?}") };
                let leaf = BlockLeaf::new(source, (new.block.epoch, new.block.sequence), head.digest, &new.block.body);
                leaves.push((leaf.hash(), source, new));
                states.push(store.tree().await.unwrap());
            }
            let now = store.tree().await.unwrap();
            assert_eq!(now.root, Tree::new(leaves.iter().map(|(leaf, ..)| *leaf).collect()).root());
            for ((leaf, source, new), index) in leaves.iter().zip(0..) {
                let found = store.block_at(source, new.block.epoch, new.block.sequence).await.unwrap().unwrap();
                assert_eq!((found.index, &found.block.body), (Some(index), &new.block.body));
                let proof = store.inclusion(index, now.size).await.unwrap().unwrap();
                assert!(verify_inclusion(leaf, index, now.size, &proof, &now.root));
            }
            for earlier in &states {
                assert_eq!(store.tree_at(earlier.size).await.unwrap().as_ref(), Some(earlier));
                let proof = store.consistency(earlier.size, now.size).await.unwrap().unwrap();
                assert!(now.continues(earlier, &proof));
            }
            let beyond = now.size + 1;
            assert_eq!(store.tree_at(beyond).await.unwrap(), None);
            assert_eq!(store.inclusion(0, beyond).await.unwrap(), None);
            assert_eq!(store.consistency(1, beyond).await.unwrap(), None);
        });
    });
}

pub(super) fn a_block_that_goes_stays_in_the_tree_and_one_that_is_not_stored_is_not_in_it<B: Bench>() {
    let bench = B::default();
    run(async {
        let store = bench.open();
        let blocks = blocks_of(8);
        store.append("gw", blocks.clone()).await.unwrap();
        let before = store.tree().await.unwrap();
        // Held, and forked.
        store.append("gw", blocks[3..].to_vec()).await.unwrap();
        let mut other = blocks[7].clone();
        other.block.body = vec![9].into();
        store.append("gw", vec![other]).await.unwrap();
        assert_eq!(store.tree().await.unwrap(), before);
        let all = Expired {
            before_ms: 10,
            unlikely_after_ms: u64::MAX,
            unlikely_before_ms: 0,
        };
        let dropped = store.drop_expired(all, 100, None).await.unwrap();
        assert_eq!(dropped.blocks, 7);
        assert_eq!(store.tree().await.unwrap(), before);
        assert_eq!(store.block_at("gw", 1, 0).await.unwrap(), None);
        assert!(store.inclusion(0, 8).await.unwrap().is_some());
        let last = store.block_at("gw", 1, 7).await.unwrap().unwrap();
        assert_eq!(last.index, Some(7));
    });
}

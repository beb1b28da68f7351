//! A spool that goes back while the machine runs, and a kernel that remembers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use penstock_proto::audit::GENESIS;
use proptest::prelude::*;

use super::*;

fn head(epoch: u64, next_sequence: u64, digest: [u8; 32]) -> Head {
    Head {
        epoch,
        next_sequence,
        digest,
    }
}

fn at(epoch: u64, sequence: u64) -> Position {
    Position { epoch, sequence }
}

fn block(sequence: u64, body: &[u8]) -> (AuditBlock, [u8; 32]) {
    let block = AuditBlock {
        epoch: 3,
        sequence,
        previous_digest: GENESIS.to_vec().into(),
        body: body.to_vec().into(),
    };
    let digest = block_digest(&GENESIS, 3, sequence, body);
    (block, digest)
}

proptest! {
    #[test]
    fn a_head_is_read_back_as_it_stands_in_the_kernel_and_in_no_other_spelling(
        epoch in any::<u64>(), next in any::<u64>(), digest in any::<[u8; 32]>(), place in any::<prop::sample::Index>(), other in any::<char>(),
    ) {
        let head = head(epoch, next, digest);
        let text = in_words(&head);
        prop_assert_eq!(parse(&text), Some(head));
        // The kernel takes comments of so many bytes.
        prop_assert!(text.len() <= 128);
        let mut changed: Vec<char> = text.chars().collect();
        let place = place.index(changed.len());
        prop_assume!(changed[place] != other);
        changed[place] = other;
        prop_assert_ne!(parse(&changed.into_iter().collect::<String>()), Some(head));
    }

    #[test]
    fn a_trail_that_goes_on_from_the_kernels_head_fits_and_one_that_ends_before_it_does_not(
        epoch in 1_u64..4, sequence in 1_u64..50, end_epoch in 1_u64..4, end in 0_u64..50,
    ) {
        let found = judge(&head(epoch, sequence, [7; 32]), at(end_epoch, end), None);
        prop_assert_eq!(found.is_some(), (end_epoch, end) < (epoch, sequence), "{:?}", found);
    }
}

#[test]
fn another_block_at_the_place_of_the_kernels_head_is_noticed_although_the_trail_is_longer() {
    let (written, digest) = block(6, b"what was sealed");
    let kept = head(3, 7, digest);
    assert_eq!(judge(&kept, at(3, 9), Some(&written)), None);
    let (other, _) = block(6, b"what was put in its place");
    let found = judge(&kept, at(3, 9), Some(&other)).unwrap();
    assert!(found.contains("block 3/6 on the disk is another one"), "{found}");
    assert_eq!(
        judge(&kept, at(3, 9), None),
        None,
        "it was delivered, and is gone"
    );
}

//! Which column beside the rows each trunk takes: those whose ways have no channel in common share one (left edge, n log n).

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

/// For the first and last channel of each trunk its column, from the left, and how many there are.
pub(super) fn columns(spans: &[(usize, usize)]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..spans.len()).collect();
    order.sort_by_key(|ix| (spans.get(*ix), *ix));
    let mut columns = vec![0; spans.len()];
    let mut free: BTreeSet<usize> = BTreeSet::new();
    let mut taken: BinaryHeap<Reverse<(usize, usize)>> = BinaryHeap::new();
    let mut count = 0;
    for ix in order {
        let Some((first, last)) = spans.get(ix).copied() else {
            continue;
        };
        while let Some(Reverse((end, column))) = taken.peek().copied()
            && end < first
        {
            taken.pop();
            free.insert(column);
        }
        let column = free.pop_first().unwrap_or_else(|| {
            count += 1;
            count - 1
        });
        taken.push(Reverse((last, column)));
        if let Some(slot) = columns.get_mut(ix) {
            *slot = column;
        }
    }
    (columns, count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn trunks_that_pass_one_channel_never_share_a_column_and_there_are_no_more_than_it_takes(
            spans in proptest::collection::vec((0..20_usize, 0..8_usize), 0..30),
        ) {
            let spans: Vec<(usize, usize)> = spans.into_iter().map(|(first, more)| (first, first + more)).collect();
            let (columns, count) = columns(&spans);
            for (at, a) in spans.iter().enumerate() {
                for (more, b) in spans.iter().enumerate().skip(at + 1) {
                    prop_assert!(columns[at] != columns[more] || a.1 < b.0 || b.1 < a.0);
                }
            }
            let fullest = (0..28).map(|channel| spans.iter().filter(|s| s.0 <= channel && channel <= s.1).count());
            prop_assert_eq!(count, fullest.max().unwrap_or(0));
        }
    }
}

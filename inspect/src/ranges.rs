//! Sorted lists of separate ranges, as what was learned is kept in. Whoever tells of thousands of them in one entry costs no more
//! than to sort them.

use penstock_policy::terms::NumberRange;

/// As many as [`few`] leaves.
pub(crate) const FEW_MAX: usize = 16;

/// Joins the closest of more than [`FEW_MAX`] sorted, separate spans.
pub(crate) fn few(spans: &mut Vec<NumberRange>) {
    let Some(too_many) = spans.len().checked_sub(FEW_MAX).filter(|count| *count > 0) else {
        return;
    };
    // What is joined leaves the other gaps as they are.
    let pairs = spans.iter().zip(spans.iter().skip(1));
    let gaps = pairs.map(|(one, next)| next.first.saturating_sub(one.last));
    let mut closest: Vec<(u32, usize)> = gaps.zip(1..).collect();
    closest.sort_unstable();
    let mut joined = vec![false; spans.len()];
    for (_, at) in closest.into_iter().take(too_many) {
        if let Some(joined) = joined.get_mut(at) {
            *joined = true;
        }
    }
    let mut kept: Vec<NumberRange> = Vec::with_capacity(FEW_MAX);
    for (span, joined) in spans.iter().zip(joined) {
        match kept.last_mut().filter(|_| joined) {
            Some(last) => *last = last.hull(*span),
            None => kept.push(*span),
        }
    }
    *spans = kept;
}

/// Adds spans, in whatever order, to a sorted list of separate ones, joining those that meet.
pub(crate) fn merge(spans: &mut Vec<NumberRange>, more: &[NumberRange]) {
    if let [span] = more {
        return merge_one(spans, *span);
    }
    spans.extend(more);
    // It is sorted but for its end: that is found and used.
    spans.sort();
    let mut separate: Vec<NumberRange> = Vec::with_capacity(spans.len());
    for span in spans.iter() {
        match separate.last_mut() {
            Some(last) if span.first <= last.last.saturating_add(1) => *last = last.hull(*span),
            _ => separate.push(*span),
        }
    }
    *spans = separate;
}

fn merge_one(spans: &mut Vec<NumberRange>, span: NumberRange) {
    let from = spans.partition_point(|kept| kept.last.saturating_add(1) < span.first);
    let to = spans.partition_point(|kept| kept.first <= span.last.saturating_add(1));
    let met = spans.get(from..to).unwrap_or_default();
    let joined = met.iter().fold(span, |joined, kept| joined.hull(*kept));
    spans.splice(from..to.max(from), [joined]);
}

/// Adds codes, in whatever order, to a sorted list of them.
pub(crate) fn merge_equal(codes: &mut Vec<NumberRange>, more: &[NumberRange]) {
    codes.extend(more);
    codes.sort();
    codes.dedup();
}

/// Whether one of a sorted list of separate spans holds all of `span`.
pub(crate) fn holds(spans: &[NumberRange], span: NumberRange) -> bool {
    let after = spans.partition_point(|kept| kept.first <= span.first);
    let last_before = after.checked_sub(1).and_then(|at| spans.get(at));
    last_before.is_some_and(|kept| span.last <= kept.last)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    fn spans() -> impl Strategy<Value = Vec<NumberRange>> {
        let span = (0u32..400, 0u32..6).prop_map(|(first, length)| NumberRange {
            first,
            last: first + length,
        });
        proptest::collection::vec(span, 0..60)
    }

    /// One at a time, by looking at all of them.
    fn plainly(spans: &[NumberRange]) -> Vec<NumberRange> {
        let has = |number| {
            spans
                .iter()
                .any(|span| (span.first..=span.last).contains(&number))
        };
        let mut out: Vec<NumberRange> = Vec::new();
        for number in (0..500).filter(|number| has(*number)) {
            match out.last_mut() {
                Some(last) if last.last + 1 == number => last.last = number,
                _ => out.push(NumberRange {
                    first: number,
                    last: number,
                }),
            }
        }
        out
    }

    fn joined_one_by_one(mut spans: Vec<NumberRange>) -> Vec<NumberRange> {
        let gap = |pair: &[NumberRange]| match pair {
            [one, next] => next.first - one.last,
            _ => u32::MAX,
        };
        while spans.len() > FEW_MAX {
            let Some((at, _)) = spans.windows(2).enumerate().min_by_key(|(_, pair)| gap(pair)) else {
                break;
            };
            let next = spans.remove(at + 1);
            spans[at] = spans[at].hull(next);
        }
        spans
    }

    proptest! {
        #[test]
        fn ranges_are_joined_as_if_each_number_and_each_gap_was_looked_at(one in spans(), more in spans()) {
            let mut together = Vec::new();
            merge(&mut together, &one);
            merge(&mut together, &more);
            let all: Vec<_> = one.iter().chain(&more).copied().collect();
            let plain = plainly(&all);
            prop_assert_eq!(&together, &plain);
            let mut singly = Vec::new();
            all.iter().for_each(|span| merge(&mut singly, &[*span]));
            prop_assert_eq!(&singly, &plain);
            for span in &all {
                let within = |kept: &NumberRange| kept.first <= span.first && span.last <= kept.last;
                prop_assert_eq!(holds(&plain, *span), plain.iter().any(within));
            }
            let mut joined = plain.clone();
            few(&mut joined);
            prop_assert_eq!(joined, joined_one_by_one(plain));
        }
    }
}

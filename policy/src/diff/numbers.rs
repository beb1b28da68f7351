//! Sets of numbers as a limit writes them: what one permits beyond another.

use crate::terms::NumberRange;

/// Whether every number of `inner` is one of `outer`, whose ranges may touch and overlap.
pub(super) fn covers(outer: &[NumberRange], inner: &[NumberRange]) -> bool {
    without(inner, outer).is_empty()
}

/// The numbers of `some` that are none of `others`.
pub(super) fn without(some: &[NumberRange], others: &[NumberRange]) -> Vec<NumberRange> {
    let others = NumberRange::merged(others.to_vec());
    let mut left = Vec::new();
    for range in NumberRange::merged(some.to_vec()) {
        // The first number of the range that is not dealt with yet; `None` once all are.
        let mut next = Some(range.first);
        for other in others
            .iter()
            .filter(|other| other.first <= range.last && range.first <= other.last)
        {
            if let Some(first) = next
                && first < other.first
            {
                left.push(NumberRange {
                    first,
                    last: other.first - 1,
                });
            }
            next = other.last.checked_add(1).filter(|after| *after <= range.last);
        }
        left.extend(next.map(|first| NumberRange {
            first,
            last: range.last,
        }));
    }
    left
}

/// `40, 100-199`.
pub(super) fn words(ranges: &[NumberRange]) -> String {
    let each: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    each.join(", ")
}

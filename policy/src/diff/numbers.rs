//! Sets of numbers as a limit writes them: what one permits beyond another.

use crate::terms::NumberRange;

/// The ranges sorted, those that touch or overlap made one: equal sets are equal lists.
pub(super) fn merged(ranges: &[NumberRange]) -> Vec<NumberRange> {
    let mut sorted = ranges.to_vec();
    sorted.sort();
    let mut merged: Vec<NumberRange> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.first <= last.last.saturating_add(1) => last.last = last.last.max(range.last),
            _ => merged.push(range),
        }
    }
    merged
}

/// Whether every number of `inner` is one of `outer`, whose ranges may touch and overlap.
pub(super) fn covers(outer: &[NumberRange], inner: &[NumberRange]) -> bool {
    without(inner, outer).is_empty()
}

/// The numbers of `some` that are none of `others`.
pub(super) fn without(some: &[NumberRange], others: &[NumberRange]) -> Vec<NumberRange> {
    let others = merged(others);
    let mut left = Vec::new();
    for range in merged(some) {
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

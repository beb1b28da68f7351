//! Sorted lists of separate ranges, as what was learned is kept in.

use penstock_policy::terms::NumberRange;

/// As many as [`few`] leaves.
pub(super) const FEW_MAX: usize = 16;

/// Joins the closest of more than [`FEW_MAX`] sorted, separate spans.
pub(super) fn few(spans: &mut Vec<NumberRange>) {
    while spans.len() > FEW_MAX {
        let gap = |pair: &[NumberRange]| match pair {
            [one, next] => next.first.saturating_sub(one.last),
            _ => u32::MAX,
        };
        let closest = spans.windows(2).enumerate().min_by_key(|(_, pair)| gap(pair));
        let Some((at, _)) = closest else { return };
        let next = spans.remove(at + 1);
        if let Some(span) = spans.get_mut(at) {
            *span = span.hull(next);
        }
    }
}

/// Adds a span to a sorted list of separate ones, joining those that meet.
pub(super) fn merge(spans: &mut Vec<NumberRange>, span: NumberRange) {
    let meets = |one: &NumberRange, other: &NumberRange| {
        one.first <= other.last.saturating_add(1) && other.first <= one.last.saturating_add(1)
    };
    let mut joined = span;
    spans.retain(|kept| {
        let met = meets(kept, &joined);
        if met {
            joined = joined.hull(*kept);
        }
        !met
    });
    let at = spans.partition_point(|kept| kept.first < joined.first);
    spans.insert(at, joined);
}

/// Adds a code to a sorted list of them.
pub(super) fn merge_equal(codes: &mut Vec<NumberRange>, code: NumberRange) {
    if let Err(at) = codes.binary_search(&code) {
        codes.insert(at, code);
    }
}

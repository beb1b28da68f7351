//! Sorted lists of separate ranges, as what was learned is kept in.

use crate::modbus::Span;

/// As many as [`few`] leaves.
pub(super) const FEW_MAX: usize = 16;

/// Joins the closest of more than [`FEW_MAX`] sorted, separate spans.
pub(super) fn few(spans: &mut Vec<Span>) {
    while spans.len() > FEW_MAX {
        let gap = |pair: &[Span]| match pair {
            [one, next] => next.first.saturating_sub(one.last),
            _ => u16::MAX,
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
pub(super) fn merge(spans: &mut Vec<Span>, span: Span) {
    let meets = |one: &Span, other: &Span| {
        u32::from(one.first) <= u32::from(other.last) + 1 && u32::from(other.first) <= u32::from(one.last) + 1
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

//! What a rule says of one field of a request: sorted, merged ranges, or no limit.

use penstock_policy::terms::NumberRange;

use crate::judge::{RuleIndex, RulesError};
use crate::modbus::Span;
use crate::modbus::request::least_mask_result;

/// Sorted, merged ranges, or no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Limit {
    Any,
    Within(Vec<Span>),
}

impl Limit {
    pub(super) fn of(
        index: RuleIndex,
        field: &'static str,
        ranges: Option<&[NumberRange]>,
        greatest: u16,
    ) -> Result<Self, RulesError> {
        let Some(ranges) = ranges else {
            return Ok(Self::Any);
        };
        if ranges.is_empty() {
            return Err(RulesError::EmptyList { index, field });
        }
        let mut spans = Vec::with_capacity(ranges.len());
        for range in ranges {
            let bad = RulesError::Range {
                index,
                field,
                first: range.first,
                last: range.last,
            };
            match (u16::try_from(range.first), u16::try_from(range.last)) {
                (Ok(first), Ok(last)) if first <= last && last <= greatest => {
                    spans.push(Span { first, last })
                }
                _ => return Err(bad),
            }
        }
        Ok(Self::merged(spans))
    }

    pub(super) fn merged(mut spans: Vec<Span>) -> Self {
        spans.sort_unstable();
        let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            match merged.last_mut() {
                Some(before) if u32::from(span.first) <= u32::from(before.last) + 1 => {
                    before.last = before.last.max(span.last);
                }
                _ => merged.push(span),
            }
        }
        Self::Within(merged)
    }

    /// What lies in both; maybe nothing.
    pub(super) fn within(&self, other: &Self) -> Self {
        let (mine, others) = match (self, other) {
            (Self::Any, limit) | (limit, Self::Any) => return limit.clone(),
            (Self::Within(mine), Self::Within(others)) => (mine, others),
        };
        let (mut ours, mut theirs) = (mine.iter().peekable(), others.iter().peekable());
        let mut both = Vec::new();
        while let (Some(one), Some(another)) = (ours.peek(), theirs.peek()) {
            let span = Span {
                first: one.first.max(another.first),
                last: one.last.min(another.last),
            };
            // Whichever ends first has nothing in common with what follows.
            if one.last < another.last {
                ours.next();
            } else {
                theirs.next();
            }
            if span.first <= span.last {
                both.push(span);
            }
        }
        Self::Within(both)
    }

    pub(super) fn holds(&self, span: Span) -> bool {
        match self {
            Self::Any => true,
            Self::Within(spans) => {
                around(spans, span.first).is_some_and(|candidate| candidate.last >= span.last)
            }
        }
    }

    /// Whether every value that a mask can leave behind is held. Hops from span to span, so that a mask with
    /// thousands of results costs no more than the limit has spans.
    pub(super) fn holds_mask(&self, and: u16, or: u16) -> bool {
        let Self::Within(spans) = self else { return true };
        let mut result = least_mask_result(and, or, 0);
        while let Some(value) = result {
            let Some(span) = around(spans, value) else {
                return false;
            };
            result = span
                .last
                .checked_add(1)
                .and_then(|from| least_mask_result(and, or, from));
        }
        true
    }

    pub(super) fn holds_one(&self, value: u16) -> bool {
        self.holds(Span {
            first: value,
            last: value,
        })
    }
}

/// The span that holds `value`, among merged ones.
fn around(spans: &[Span], value: u16) -> Option<Span> {
    let after = spans.partition_point(|candidate| candidate.first <= value);
    let span = *spans.get(after.checked_sub(1)?)?;
    (span.last >= value).then_some(span)
}

//! What the store knows of a block without reading it: from when to when, which kinds of events and decisions, how grave. Whoever
//! writes a block says it, and a search skips by it.

use penstock_proto::event::EventKind;
use penstock_proto::v1::{AuditBlockBody, AuditEvent};

use crate::store::BlockSummary;

/// What was decided, as the wire has it; 0 of an event that decides nothing.
pub(crate) fn decision(event: &AuditEvent) -> i32 {
    event.described().map_or(0, |event| event.decision().into())
}

/// What a block's summary says of its events.
pub fn summarize(body: &AuditBlockBody) -> BlockSummary {
    let mut summary = BlockSummary {
        first_ms: u64::MAX,
        ..BlockSummary::default()
    };
    for event in &body.events {
        summary.first_ms = summary.first_ms.min(event.time_ms);
        summary.last_ms = summary.last_ms.max(event.time_ms);
        summary.kinds |= EventKind::of(event).map_or(0, EventKind::bit);
        summary.severity = summary.severity.max(event.severity);
        if let Ok(bit @ 1..=3) = u32::try_from(decision(event)) {
            summary.decisions |= 1 << bit;
        }
    }
    summary.first_ms = summary.first_ms.min(summary.last_ms);
    // Times are stored as signed numbers; what no clock shows is held at the end.
    let latest = i64::MAX.cast_unsigned();
    summary.first_ms = summary.first_ms.min(latest);
    summary.last_ms = summary.last_ms.min(latest);
    summary
}

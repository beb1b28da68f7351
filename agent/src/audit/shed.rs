//! What goes when the spool is full, and what never goes for something less important.
//!
//! Whole segments go. Order of victims: those that the coordinator has (the oldest first, no loss), then the oldest of the least
//! severe log that is no more severe than the block that asks. If none is left, that one is lost itself. Before anything goes that is not
//! delivered, what is delivered and shares a segment with others is given up: it is read no more and goes with them.

use super::accounts::SEVERITIES;
use super::change::Change;
use super::layout::Cause;
use super::spool::{Spool, SpoolError};
use crate::log::Disk;

impl<D: Disk> Spool<D> {
    /// Sheds until so many bytes of this severity fit; false if it may not shed enough.
    pub(super) fn make_room(
        &self,
        change: &mut Change,
        severity: u8,
        bytes: u64,
    ) -> Result<bool, SpoolError> {
        while change.bytes.saturating_add(bytes) > self.limits.bytes_max {
            if self.shed_delivered(change) {
                continue;
            }
            change.accounts.floor = change.accounts.floor.max(change.accounts.acked);
            if !self.shed_least_severe(change, severity)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn shed_delivered(&self, change: &mut Change) -> bool {
        let delivered = SEVERITIES.into_iter().filter_map(|severity| {
            let first = change.accounts.logs.of(severity).first;
            let held = self.front(severity, &first)?;
            (held.end_at <= change.accounts.owed_from(held.start.at)).then_some((severity, held))
        });
        let Some((severity, held)) = delivered.min_by_key(|(_, held)| held.start.at) else {
            return false;
        };
        change.drop_segment(severity, &held);
        true
    }

    fn shed_least_severe(&self, change: &mut Change, severity_max: u8) -> Result<bool, SpoolError> {
        for severity in 0..=severity_max {
            let first = change.accounts.logs.of(severity).first;
            let Some(held) = self.front(severity, &first) else {
                continue;
            };
            let owed_from = change.accounts.owed_from(held.start.at);
            let (from, first_ms) = self.shelves.of(severity).before(&held, owed_from)?;
            let (begin, end) = (from.sum.blocks, held.end.sum.blocks);
            let counted = change.accounts.forget_written_off(severity, begin, end);
            let sum = held.end.sum.without(&from.sum).without(&counted);
            let loss = sum.loss(first_ms, held.end.last_ms);
            change.accounts.lose(Cause::SpoolFull, &loss, sum.events);
            change.drop_segment(severity, &held);
            return Ok(true);
        }
        Ok(false)
    }
}

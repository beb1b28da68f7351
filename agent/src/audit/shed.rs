//! What goes when the spool is full, and what never goes for something less important.
//!
//! Order of victims: blocks that the coordinator has (oldest first, no loss), then the least severe block that is
//! no more severe than the one asking, among those the oldest. If none is left, the one asking is lost itself.

use super::blocks::SpoolBatch;
use super::layout::{
    BlockFacts, BlockRecord, Cause, Position, block_key, read_block_key, read_index, read_index_key,
};
use super::spool::{Spool, SpoolError};

impl Spool {
    /// Sheds until `incoming` fits; false if it may not shed enough.
    pub(super) fn make_room(
        &self,
        change: &mut SpoolBatch,
        incoming: &BlockFacts,
    ) -> Result<bool, SpoolError> {
        let fits =
            |change: &SpoolBatch| change.meta.bytes.saturating_add(incoming.cost) <= self.limits.bytes_max;
        while !fits(change) {
            if self.shed_acknowledged(change)? {
                continue;
            }
            if !self.shed_least_severe(change, incoming.severity)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn shed_acknowledged(&self, change: &mut SpoolBatch) -> Result<bool, SpoolError> {
        let from = change.acked_cursor.map_or_else(
            || vec![b'b'],
            |last| {
                let mut key = block_key(last);
                key.push(0);
                key
            },
        );
        let Some(entry) = self.tree.range(from..block_key(self.meta.acked)).next() else {
            return Ok(false);
        };
        let (key, value) = entry?;
        let Some(at) = read_block_key(&key) else {
            change.batch.remove(key);
            return Ok(false);
        };
        if self.is_moving(at) {
            return Ok(false);
        }
        change.acked_cursor = Some(at);
        match BlockRecord::from_bytes(at, &value) {
            Some(record) => change.remove(at, &record.facts),
            None => change.remove_damaged(at, self.facts_of(at).as_ref()),
        }
        Ok(true)
    }

    fn shed_least_severe(&self, change: &mut SpoolBatch, severity_max: u8) -> Result<bool, SpoolError> {
        let from = change.index_cursor.clone().unwrap_or_else(|| vec![b'i']);
        let Some(entry) = self.tree.range(from..vec![b'j']).next() else {
            return Ok(false);
        };
        let (key, value) = entry?;
        let mut next = key.to_vec();
        next.push(0);
        let Some((severity, at)) = read_index_key(&key) else {
            change.batch.remove(key);
            change.index_cursor = Some(next);
            return Ok(true);
        };
        if severity > severity_max {
            return Ok(false);
        }
        change.index_cursor = Some(next);
        if change.acked_cursor.is_some_and(|acked| at <= acked) {
            return Ok(true);
        }
        let Some(facts) = read_index(&key, &value) else {
            // Without facts it can be neither shed nor moved in good order: its block goes with it.
            change.batch.remove(key);
            self.write_off(change, at);
            return Ok(true);
        };
        change.remove(at, &facts);
        change.lose(Cause::SpoolFull, &facts.loss(), facts.events);
        Ok(true)
    }

    /// Whether the block waits to be moved to the current epoch ([`super::resume`]).
    pub(super) fn is_moving(&self, at: Position) -> bool {
        self.meta
            .moving_from
            .is_some_and(|from| at >= from && at.epoch < self.meta.head.epoch)
    }
}

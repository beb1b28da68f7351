//! Events become blocks, and blocks become a change of the spool that is real only when it is committed.

use penstock_proto::audit::{BODY_BYTES_MAX, Head, block_digest};
use penstock_proto::v1::{AuditBlockBody, AuditEvent, audit_event::Kind};
use prost::Message as _;

use super::layout::{BlockFacts, BlockRecord, Cause, Loss, Meta, Position, block_key, cost_of, index_key};

/// The highest severity that the wire knows.
pub(super) const SEVERITY_MAX: u8 = 4;

/// The batch that an operation builds up; nothing is real until it is committed.
pub(super) struct SpoolBatch {
    pub(super) batch: sled::Batch,
    pub(super) meta: Meta,
    /// How far the two searches for victims have come ([`super::shed`]).
    pub(super) acked_cursor: Option<Position>,
    pub(super) index_cursor: Option<Vec<u8>>,
}

impl SpoolBatch {
    /// Puts a block of this body at the head of the chain.
    pub(super) fn push(&mut self, facts: BlockFacts, body: Vec<u8>) {
        let head = self.meta.head;
        let at = Position {
            epoch: head.epoch,
            sequence: head.next_sequence,
        };
        self.meta.head = Head {
            epoch: head.epoch,
            next_sequence: head.next_sequence.saturating_add(1),
            digest: block_digest(&head.digest, at.epoch, at.sequence, &body),
        };
        self.meta.bytes = self.meta.bytes.saturating_add(facts.cost);
        let record = BlockRecord {
            facts,
            previous: head.digest,
            body,
        };
        self.batch.insert(block_key(at), record.to_bytes(at));
        self.batch
            .insert(index_key(facts.severity, at), record.index_bytes(at));
    }

    /// Removes a stored block.
    pub(super) fn remove(&mut self, at: Position, facts: &BlockFacts) {
        self.batch.remove(block_key(at));
        self.batch.remove(index_key(facts.severity, at));
        self.meta.bytes = self.meta.bytes.saturating_sub(facts.cost);
    }

    /// Removes a block whose record cannot be read.
    pub(super) fn remove_damaged(&mut self, at: Position, facts: Option<&BlockFacts>) {
        match facts {
            Some(facts) => self.remove(at, facts),
            None => self.batch.remove(block_key(at)),
        }
    }

    /// Accounts for a loss that a later record has to tell.
    pub(super) fn lose(&mut self, cause: Cause, loss: &Loss, events: u64) {
        self.meta.lost_events = self.meta.lost_events.saturating_add(events);
        for (slot, of) in self.meta.untold.iter_mut().zip(Cause::ALL) {
            if of == cause {
                slot.add(loss);
            }
        }
    }
}

/// Cuts events, sorted by severity, into bodies of one severity each.
pub(super) fn cut(events: Vec<AuditEvent>, block_bytes: usize) -> Vec<(BlockFacts, Vec<u8>)> {
    let mut blocks = Vec::new();
    let mut open: Vec<AuditEvent> = Vec::new();
    let mut open_bytes = 0;
    for event in events {
        // A field's tag and length take at most 6 bytes more.
        let bytes = event.encoded_len() + 6;
        let other = open.first().is_some_and(|first| first.severity != event.severity);
        if !open.is_empty() && (other || open_bytes + bytes > block_bytes.min(BODY_BYTES_MAX)) {
            blocks.push(close_block(std::mem::take(&mut open)));
            open_bytes = 0;
        }
        open_bytes += bytes;
        open.push(event);
    }
    if !open.is_empty() {
        blocks.push(close_block(open));
    }
    blocks
}

fn close_block(events: Vec<AuditEvent>) -> (BlockFacts, Vec<u8>) {
    let mut facts = BlockFacts {
        severity: events.first().map_or(0, |event| {
            u8::try_from(event.severity).unwrap_or(0).min(SEVERITY_MAX)
        }),
        cost: 0,
        events: 0,
        carried_events: 0,
        carried_blocks: 0,
        first_ms: events.iter().map(|event| event.time_ms).min().unwrap_or(0),
        last_ms: events.iter().map(|event| event.time_ms).max().unwrap_or(0),
    };
    for event in &events {
        match &event.kind {
            Some(Kind::Loss(loss)) => {
                facts.carried_events = facts.carried_events.saturating_add(loss.events);
                facts.carried_blocks = facts.carried_blocks.saturating_add(loss.blocks);
            }
            _ => facts.events += 1,
        }
    }
    let body = AuditBlockBody { events }.encode_to_vec();
    facts.cost = cost_of(body.len());
    (facts, body)
}

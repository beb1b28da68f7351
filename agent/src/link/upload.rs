//! Which audit blocks to send next: a pure machine over positions and acknowledgements.
//!
//! At most [`WINDOW_BLOCKS`] blocks and [`WINDOW_BYTES`] bytes are under way; what is not acknowledged when the
//! session ends is sent again in the next one. An acknowledgement of what was never sent is ignored.

use std::collections::VecDeque;

use penstock_proto::v1::{AuditAck, AuditBlock};

use crate::audit::Position;

/// Blocks under way at once.
pub const WINDOW_BLOCKS: usize = 32;
/// Bytes of bodies under way at once.
pub const WINDOW_BYTES: usize = 512 * 1024;

/// The upload of one session.
#[derive(Debug, Clone)]
pub struct Upload {
    cursor: Position,
    flying: VecDeque<(Position, usize)>,
    bytes: usize,
}

impl Upload {
    /// Begins at the position that was agreed at the start of the session.
    pub fn new(from: Position) -> Self {
        Self {
            cursor: from,
            flying: VecDeque::new(),
            bytes: 0,
        }
    }

    /// What to read next: from where, how many blocks, how many bytes. `None`: the window is full.
    pub fn wants(&self) -> Option<(Position, usize, usize)> {
        let blocks = WINDOW_BLOCKS.saturating_sub(self.flying.len());
        let bytes = WINDOW_BYTES.saturating_sub(self.bytes);
        (blocks > 0 && bytes > 0).then_some((self.cursor, blocks, bytes))
    }

    /// Whether there may be something to send, the trail ending before `next`.
    pub fn is_behind(&self, next: Position) -> bool {
        self.cursor < next
    }

    /// A block went out.
    pub fn sent(&mut self, block: &AuditBlock) {
        let at = Position {
            epoch: block.epoch,
            sequence: block.sequence,
        };
        self.flying.push_back((at, block.body.len()));
        self.bytes = self.bytes.saturating_add(block.body.len());
        self.cursor = Position {
            sequence: at.sequence.saturating_add(1),
            ..at
        };
    }

    /// An acknowledgement came; the position to tell the spool, if it says something new and credible.
    pub fn acknowledged(&mut self, ack: &AuditAck) -> Option<Position> {
        let to = Position {
            epoch: ack.epoch,
            sequence: ack.next_sequence,
        };
        if to > self.cursor {
            return None;
        }
        let before = self.flying.len();
        while let Some((at, bytes)) = self.flying.front()
            && *at < to
        {
            self.bytes = self.bytes.saturating_sub(*bytes);
            self.flying.pop_front();
        }
        (self.flying.len() < before).then_some(to)
    }

    /// Whether something waits for its acknowledgement.
    pub fn is_waiting(&self) -> bool {
        !self.flying.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    fn block(sequence: u64, bytes: usize) -> AuditBlock {
        AuditBlock {
            epoch: 1,
            sequence,
            previous_digest: vec![0; 32].into(),
            body: vec![0; bytes].into(),
        }
    }

    proptest! {
        #[test]
        fn every_block_is_sent_once_in_order_and_the_window_is_never_exceeded(
            sizes in proptest::collection::vec(1usize..100_000, 1..120),
            acks in proptest::collection::vec((0u64..4, 0u64..200), 0..200),
        ) {
            let mut upload = Upload::new(Position { epoch: 1, sequence: 0 });
            let (mut sent, mut acked) = (0_u64, 0_u64);
            let mut acks = acks.into_iter();
            loop {
                if let Some((from, count, bytes)) = upload.wants() {
                    prop_assert_eq!(from.sequence, sent);
                    let mut total = 0;
                    for (n, size) in sizes.iter().enumerate().skip(sent as usize).take(count) {
                        if total > 0 && total + size > bytes { break; }
                        total += size;
                        upload.sent(&block(n as u64, *size));
                        sent += 1;
                    }
                }
                // One block may be larger than what is left of the window, never more than one.
                prop_assert!(upload.flying.len() <= WINDOW_BLOCKS);
                prop_assert!(upload.bytes <= WINDOW_BYTES + 100_000);
                let Some((epoch, next_sequence)) = acks.next() else { break };
                let ack = AuditAck { trails: None, epoch, next_sequence, digest: Vec::new().into(), witness: None };
                if let Some(to) = upload.acknowledged(&ack) {
                    prop_assert!(to.epoch <= 1 && to.sequence <= sent, "only what was sent is acknowledged");
                    acked = acked.max(to.sequence);
                }
                prop_assert_eq!(upload.is_waiting(), acked < sent);
            }
        }
    }
}

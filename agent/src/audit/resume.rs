//! Where the upload goes on after a reconnection, and what happens when the coordinator's trail is not ours.
//!
//! The coordinator says what it holds: an epoch, a sequence and the digest of its last block. Usually that lies
//! on our chain. A gateway restored from an old image, though, has written other blocks at places that
//! the coordinator already holds. Then it begins a new epoch, says so in the trail, and moves its undelivered
//! blocks into it: nothing is delivered twice under one position, and nothing is dropped.

use penstock_proto::audit::{EPOCH_FOLLOWED_MAX, GENESIS, Head, block_digest};
use penstock_proto::v1::AuditAck;

use super::layout::{BlockRecord, Position, block_key, read_block_key};
use super::spool::{Spool, SpoolError};

/// Where the upload goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// From here, on the same chain.
    From(Position),
    /// A new epoch began, for this reason; the upload goes on from here.
    Reseated(Position, String),
}

impl Spool {
    /// Takes up the coordinator's word at the start of a session.
    pub(crate) fn resume(&mut self, ack: &AuditAck) -> Result<Resume, SpoolError> {
        let theirs = Position {
            epoch: ack.epoch,
            sequence: ack.next_sequence,
        };
        let ours = self.next();
        if theirs.epoch > ours.epoch.saturating_add(EPOCH_FOLLOWED_MAX) {
            return Err(SpoolError::AbsurdEpoch(theirs.epoch));
        }
        let reason = if theirs > ours {
            Some(format!(
                "the coordinator holds the trail up to {}/{}, this gateway only up to {}/{}",
                theirs.epoch, theirs.sequence, ours.epoch, ours.sequence
            ))
        } else {
            let told: Option<[u8; 32]> = ack.digest.as_ref().try_into().ok();
            match (told, self.digest_before(theirs)?) {
                (Some(told), Some(held)) if told != held => Some(format!(
                    "the coordinator holds another block before {}/{} than this gateway",
                    theirs.epoch, theirs.sequence
                )),
                _ => None,
            }
        };
        match reason {
            None => {
                // It may have gone back, if the coordinator was restored from a backup: then those blocks are
                // undelivered again.
                self.meta.acked = theirs;
                Ok(Resume::From(theirs))
            }
            Some(reason) => {
                let epoch = theirs.epoch.max(ours.epoch).saturating_add(1);
                let mut change = self.change();
                let from = self
                    .meta
                    .moving_from
                    .map_or(self.meta.acked, |from| from.min(self.meta.acked));
                change.meta.moving_from = Some(from);
                change.meta.head = Head {
                    epoch,
                    next_sequence: 0,
                    digest: GENESIS,
                };
                self.commit(change)?;
                self.keep_mark(0, true);
                let from = Position { epoch, sequence: 0 };
                self.meta.acked = from;
                Ok(Resume::Reseated(from, reason))
            }
        }
    }

    /// Whether blocks still wait to be moved to this epoch.
    pub fn has_blocks_to_move(&self) -> bool {
        self.meta.moving_from.is_some()
    }

    /// Moves up to `count` blocks of another epoch to the head of this one, durable when this returns.
    pub(crate) fn move_blocks(&mut self, count: usize) -> Result<(), SpoolError> {
        let Some(from) = self.meta.moving_from else {
            return Ok(());
        };
        let mut change = self.change();
        let until = block_key(Position {
            epoch: self.meta.head.epoch,
            sequence: 0,
        });
        let mut moved = 0;
        let mut last = None;
        for entry in self.tree.range(block_key(from)..until).take(count) {
            let (key, value) = entry?;
            moved += 1;
            let Some(at) = read_block_key(&key) else {
                change.batch.remove(key);
                continue;
            };
            last = Some(at);
            match BlockRecord::from_bytes(at, &value) {
                Some(record) => {
                    change.remove(at, &record.facts);
                    change.push(record.facts, record.body);
                }
                None => self.write_off(&mut change, at),
            }
        }
        change.meta.moving_from = if moved < count { None } else { last.or(Some(from)) };
        self.commit(change)
    }

    /// The digest that stands before `at`, if this spool still knows it.
    fn digest_before(&self, at: Position) -> Result<Option<[u8; 32]>, SpoolError> {
        if at == self.next() && at.sequence > 0 {
            return Ok(Some(self.meta.head.digest));
        }
        let Some(sequence) = at.sequence.checked_sub(1) else {
            return Ok(None);
        };
        let before = Position { sequence, ..at };
        if let Some(value) = self.tree.get(block_key(before))?
            && let Some(record) = BlockRecord::from_bytes(before, &value)
        {
            return Ok(Some(block_digest(
                &record.previous,
                before.epoch,
                before.sequence,
                &record.body,
            )));
        }
        Ok(self
            .tree
            .get(block_key(at))?
            .and_then(|value| BlockRecord::from_bytes(at, &value))
            .map(|record| record.previous))
    }
}

//! Where the upload goes on after a reconnection, and what happens when the coordinator's trail is not ours.
//!
//! The coordinator says what it holds: an epoch, a sequence and the digest of its last block. Usually that lies
//! on our chain. A gateway restored from an old image, though, has written other blocks at places that
//! the coordinator already holds. Then it begins a new epoch, says so in the trail, and moves its undelivered
//! blocks into it: nothing is delivered twice under one position, and nothing is dropped.

use penstock_proto::audit::{EPOCH_FOLLOWED_MAX, GENESIS, Head};
use penstock_proto::v1::AuditAck;

use super::accounts::{Fork, SEVERITIES};
use super::layout::{Cause, Loss, Position, StoredBlock};
use super::reading::ReadRange;
use super::spool::{Spool, SpoolError};
use crate::log::Disk;

/// What is moved at once, in bytes.
const MOVE_BYTES: usize = 1024 * 1024;

/// Where the upload goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// From here, on the same chain.
    From(Position),
    /// A new epoch began, for this reason; the upload goes on from here.
    Reseated(Position, String),
}

impl<D: Disk> Spool<D> {
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
                // undelivered again, and those that were given up meanwhile are lost.
                let blocks = self.given_up_since(theirs)?;
                if blocks == 0 {
                    self.accounts.acked = theirs;
                } else {
                    let loss = Loss {
                        blocks,
                        ..Loss::default()
                    };
                    let mut change = self.change();
                    change.accounts.acked = theirs;
                    change.accounts.lose(Cause::SpoolFull, &loss, 0);
                    self.commit(change)?;
                }
                Ok(Resume::From(theirs))
            }
            Some(reason) => {
                let epoch = theirs.epoch.max(ours.epoch).saturating_add(1);
                let from = Position { epoch, sequence: 0 };
                let mut change = self.change();
                let accounts = &mut change.accounts;
                accounts.fork_from(accounts.acked, epoch);
                accounts.head = Head {
                    epoch,
                    next_sequence: 0,
                    digest: GENESIS,
                };
                accounts.acked = from;
                self.commit(change)?;
                self.keep_mark(0, true);
                Ok(Resume::Reseated(from, reason))
            }
        }
    }

    /// How many blocks from here on were delivered, and given up since.
    fn given_up_since(&self, theirs: Position) -> Result<u64, SpoolError> {
        let acked = self.accounts.acked;
        let from = match theirs.epoch == acked.epoch {
            true => theirs,
            // Of an epoch before, where it ended is not known any more.
            false => Position {
                epoch: acked.epoch,
                sequence: 0,
            },
        };
        if theirs >= acked {
            return Ok(0);
        }
        let mut missing = acked.sequence.saturating_sub(from.sequence);
        for severity in SEVERITIES {
            let (shelf, account) = (self.shelves.of(severity), self.accounts.logs.of(severity));
            let before = shelf.blocks_before(from.max(self.accounts.floor), account)?;
            let held = shelf.blocks_before(acked, account)?.saturating_sub(before);
            missing = missing.saturating_sub(held);
        }
        Ok(missing)
    }

    /// Whether blocks still wait to be moved to this epoch.
    pub fn has_blocks_to_move(&self) -> bool {
        self.accounts.fork.is_some_and(|fork| fork.is_open())
    }

    /// Moves up to `count` blocks of another epoch to the head of this one, durable when this returns.
    pub(crate) fn move_blocks(&mut self, count: usize) -> Result<(), SpoolError> {
        let Some(fork) = self.accounts.fork.filter(Fork::is_open) else {
            return Ok(());
        };
        let blocks = self.gather(&ReadRange {
            from: fork.done,
            until: fork.end(),
            is_hidden_too: true,
            count_max: count,
            bytes_max: MOVE_BYTES,
        })?;
        let mut change = self.change();
        if blocks.is_empty() {
            change.accounts.fork = Some(Fork {
                done: fork.end(),
                ..fork
            });
        }
        for StoredBlock { at, facts, body, .. } in blocks {
            let done = at.after();
            change.accounts.fork = Some(Fork { done, ..fork });
            self.put(&mut change, facts, body, true)?;
        }
        self.commit(change)
    }

    /// The digest that stands before `at`, if this spool still knows it.
    fn digest_before(&mut self, at: Position) -> Result<Option<[u8; 32]>, SpoolError> {
        if at == self.next() && at.sequence > 0 {
            return Ok(Some(self.accounts.head.digest));
        }
        let Some(sequence) = at.sequence.checked_sub(1) else {
            return Ok(None);
        };
        let before = Position { sequence, ..at };
        if let Some(block) = self.block_at(before)? {
            return Ok(Some(block.digest()));
        }
        Ok(self.block_at(at)?.map(|block| block.previous))
    }

    fn block_at(&mut self, at: Position) -> Result<Option<StoredBlock>, SpoolError> {
        let found = self.gather(&ReadRange {
            from: at,
            until: at.after(),
            is_hidden_too: true,
            count_max: 1,
            bytes_max: usize::MAX,
        })?;
        Ok(found.into_iter().next())
    }
}

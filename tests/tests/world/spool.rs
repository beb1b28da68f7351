//! A gateway's audit spool as its session meets it: a chain of blocks on the disk, of which what is acknowledged is given up.
//! (The real one and its database: `agent/src/audit/tests`, `agent/tests/spool_kill.rs`.)

use std::collections::VecDeque;

use penstock_agent::audit::Position;
use penstock_proto::audit::{GENESIS, Head, block_digest};
use penstock_proto::v1::{AuditAck, AuditBlock, AuditBlockBody, AuditEvent, SpoolState};
use prost::Message as _;

#[derive(Debug)]
pub(crate) struct Spool {
    head: Head,
    /// What it still has.
    blocks: VecDeque<AuditBlock>,
    /// Everything that was ever durable, for the checkers.
    pub(crate) written: Vec<AuditBlock>,
}

fn place(block: &AuditBlock) -> Position {
    Position {
        epoch: block.epoch,
        sequence: block.sequence,
    }
}

impl Spool {
    pub(crate) fn new() -> Self {
        Self {
            head: Head {
                epoch: 1,
                next_sequence: 0,
                digest: GENESIS,
            },
            blocks: VecDeque::new(),
            written: Vec::new(),
        }
    }

    pub(crate) fn next(&self) -> Position {
        Position {
            epoch: self.head.epoch,
            sequence: self.head.next_sequence,
        }
    }

    pub(crate) fn state(&self) -> SpoolState {
        SpoolState {
            epoch: self.head.epoch,
            next_sequence: self.head.next_sequence,
            ..SpoolState::default()
        }
    }

    /// Durable when it returns.
    pub(crate) fn append(&mut self, events: Vec<AuditEvent>) {
        let body = AuditBlockBody { events }.encode_to_vec();
        let block = AuditBlock {
            epoch: self.head.epoch,
            sequence: self.head.next_sequence,
            previous_digest: self.head.digest.to_vec().into(),
            body: body.into(),
        };
        self.head.digest = block_digest(&self.head.digest, block.epoch, block.sequence, &block.body);
        self.head.next_sequence += 1;
        self.blocks.push_back(block.clone());
        self.written.push(block);
    }

    pub(crate) fn read(&self, from: Position, count: usize) -> Vec<AuditBlock> {
        let blocks = self.blocks.iter().filter(|block| place(block) >= from);
        blocks.take(count).cloned().collect()
    }

    /// Where the upload goes on. Nobody restores anything from a backup here: the coordinator's trail is a part of this one.
    pub(crate) fn resume(&mut self, ack: &AuditAck) -> Result<Position, String> {
        let theirs = Position {
            epoch: ack.epoch,
            sequence: ack.next_sequence,
        };
        let last = self
            .written
            .iter()
            .rev()
            .find(|block| place(block) < theirs)
            .map(|block| {
                let previous = block.previous_digest.as_ref().try_into().unwrap();
                block_digest(&previous, block.epoch, block.sequence, &block.body)
            });
        let same = last.is_none_or(|digest| digest[..] == ack.digest[..]);
        if theirs > self.next() || !same {
            return Err(format!(
                "the coordinator claims {theirs:?}, the gateway wrote up to {:?}",
                self.next()
            ));
        }
        self.acknowledge(theirs);
        Ok(theirs)
    }

    /// Everything before this is durable at the coordinator: it need not be kept.
    pub(crate) fn acknowledge(&mut self, to: Position) {
        self.blocks.retain(|block| place(block) >= to);
    }
}

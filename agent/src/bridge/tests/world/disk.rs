//! The queue of the random world, as far as its promises go, on a disk that takes all, no messages or nothing.

use std::collections::BTreeMap;

use super::schedule::DiskHealth;
use crate::bridge::layout::{Message, QueueRecord, Snapshot};

/// The queue, as far as its promises go.
pub(super) struct Disk {
    pub health: DiskHealth,
    pub messages: BTreeMap<u64, Message>,
    pub durable: Snapshot,
    /// As the running agent sees it: what is done is not written at once.
    pub state: Snapshot,
}

impl Disk {
    /// Empty, and well.
    pub(super) fn new() -> Self {
        let state = Snapshot {
            next: 1,
            finished: 1,
            ..Snapshot::default()
        };
        Self {
            health: DiskHealth::Works,
            messages: BTreeMap::new(),
            durable: state.clone(),
            state,
        }
    }

    /// Everything below is done.
    pub(super) fn finish(&mut self, seq: u64) {
        self.state.apply(&QueueRecord::Finished(seq));
    }

    pub(super) fn commit(&mut self, records: &mut [QueueRecord]) -> Result<(), String> {
        let message = |record: &QueueRecord| matches!(record, QueueRecord::Message(_));
        if records.is_empty() {
            return Ok(());
        }
        match self.health {
            DiskHealth::Fails => return Err("the disk fails".to_owned()),
            DiskHealth::IsFull if records.iter().any(message) => return Err("the disk is full".to_owned()),
            DiskHealth::IsFull | DiskHealth::Works => {}
        }
        for record in records {
            if let QueueRecord::Message(message) = record {
                message.seq = self.durable.next;
                self.messages.insert(message.seq, message.clone());
            }
            for state in [&mut self.durable, &mut self.state] {
                state.apply(record);
            }
        }
        Ok(())
    }
}

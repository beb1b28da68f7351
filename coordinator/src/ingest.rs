//! Audit blocks on their way in: read, judged against the source's chain, durable, then acknowledged
//! (DESIGN §8, promise 6; IEC 62443-3-3 SR 2.11, SR 3.9, SR 6.1).
//!
//! Delivery is at least once, storage exactly once by (source, epoch, sequence). What contradicts the chain is not
//! stored and not acknowledged, and becomes an alarm in the coordinator's own trail. A gap (blocks that the source
//! shed) is lawful, but never silent: it is an alarm too, to be held against the source's loss record.
//!
//! Reading a block's body happens here, on the session's side; only storing waits for the one writer.

use std::sync::Arc;

use penstock_proto::audit::{BODY_BYTES_MAX, ChainError, Head, read_body};
use penstock_proto::v1::{AuditAck, AuditBlock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::journal::Journal;
use crate::query::summarize;
use crate::store::{Append, NewBlock, Store, StoreError};

/// Audit of all gateways together that may wait in memory for the store, KiB. When it is used up, nothing more is
/// read from gateways' trails; they keep it.
const ROOM_KIB: usize = 128 * 1024;

/// Takes blocks in.
#[derive(Clone, Debug)]
pub struct Ingest {
    store: Store,
    journal: Journal,
    room: Arc<Semaphore>,
}

/// A block with its share of the room, which it gives back when it is dropped.
#[derive(Debug)]
pub struct Waiting {
    /// The block.
    pub block: AuditBlock,
    _room: Option<OwnedSemaphorePermit>,
}

/// What came of some blocks of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingested {
    /// Up to where the trail is durable; `None`: nothing of it is held.
    pub ack: Option<AuditAck>,
    /// Events stored now.
    pub events: u64,
    /// What does not fit, in words; from there on nothing was stored.
    pub fault: Option<String>,
}

impl Ingest {
    /// Into this store.
    pub fn new(store: Store, journal: Journal) -> Self {
        Self {
            store,
            journal,
            room: Arc::new(Semaphore::new(ROOM_KIB)),
        }
    }

    /// Waits until there is room for a block.
    pub async fn admit(&self, block: AuditBlock) -> Waiting {
        let kib = u32::try_from(block.body.len() / 1024 + 1).unwrap_or(u32::MAX);
        // Fails only if the semaphore were closed, which nobody does.
        let room = self.room.clone().acquire_many_owned(kib).await.ok();
        Waiting { block, _room: room }
    }

    /// First position that is not held, for the welcome of a session.
    pub async fn position(&self, source: &str) -> Result<Option<AuditAck>, StoreError> {
        let head = self.store.head(source).await?;
        Ok(head.map(acknowledge))
    }

    /// Stores blocks of `source`, in the order given. When this returns, what `ack` says is on disk.
    pub async fn accept(
        &self,
        source: &str,
        blocks: Vec<AuditBlock>,
        received_ms: u64,
    ) -> Result<Ingested, StoreError> {
        let mut fault = None;
        let mut new = Vec::with_capacity(blocks.len());
        let mut counts = Vec::with_capacity(blocks.len());
        for block in blocks {
            let position = (block.epoch, block.sequence);
            // Its size is judged with the chain; but what is too large is not even read.
            let body = (block.body.len() <= BODY_BYTES_MAX).then(|| read_body(&block.body));
            match body {
                Some(Ok(body)) => {
                    counts.push(body.events.len() as u64);
                    new.push(NewBlock {
                        summary: summarize(&body),
                        block,
                        received_ms,
                    });
                }
                Some(Err(_)) | None => {
                    fault = Some(format!("block {}/{} cannot be read", position.0, position.1));
                    break;
                }
            }
        }
        let sequences: Vec<_> = new.iter().map(|new| new.block.sequence).collect();
        let outcomes = if new.is_empty() {
            Vec::new()
        } else {
            self.store.append(source, new).await?
        };
        let mut ingested = Ingested {
            ack: None,
            events: 0,
            fault: None,
        };
        for ((outcome, events), sequence) in outcomes.into_iter().zip(counts).zip(sequences) {
            match outcome {
                Append::Stored { head, missing } => {
                    ingested.events += events;
                    ingested.ack = Some(acknowledge(head));
                    metrics::counter!("penstock_audit_blocks_total").increment(1);
                    if missing > 0 {
                        metrics::counter!("penstock_audit_missing_blocks_total").increment(missing);
                        let words = format!(
                            "{missing} blocks before {}/{sequence} were never delivered; the source's loss record should say why",
                            head.epoch
                        );
                        self.journal.trail_fault(source, &words).await?;
                    }
                }
                Append::Held { head } => {
                    ingested.ack = Some(acknowledge(head));
                }
                Append::Refused(refused) => {
                    fault = Some(in_words(refused));
                    break;
                }
            }
        }
        metrics::counter!("penstock_audit_events_total").increment(ingested.events);
        if let Some(fault) = &fault {
            metrics::counter!("penstock_audit_refused_total").increment(1);
            self.journal.trail_fault(source, fault).await?;
        }
        ingested.fault = fault;
        Ok(ingested)
    }
}

/// The answer that a trail is durable up to this head.
fn acknowledge(head: Head) -> AuditAck {
    AuditAck {
        epoch: head.epoch,
        next_sequence: head.next_sequence,
        digest: head.digest.to_vec().into(),
    }
}

fn in_words(error: ChainError) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::store::BlockFilter;
    use penstock_policy::ids::CoordinatorId;
    use penstock_proto::audit::{GENESIS, block_digest};
    use penstock_proto::v1::{AuditBlockBody, AuditEvent};
    use prost::Message as _;

    fn chain(epoch: u64, count: u64) -> Vec<AuditBlock> {
        let mut previous = GENESIS;
        (0..count)
            .map(|sequence| {
                let body = AuditBlockBody {
                    events: vec![AuditEvent {
                        time_ms: sequence,
                        ..AuditEvent::default()
                    }],
                }
                .encode_to_vec();
                let block = AuditBlock {
                    epoch,
                    sequence,
                    previous_digest: previous.to_vec().into(),
                    body: body.clone().into(),
                };
                previous = block_digest(&previous, epoch, sequence, &body);
                block
            })
            .collect()
    }

    async fn alarms(store: &Store) -> usize {
        let own = BlockFilter {
            source: Some("coordinator/c1".to_owned()),
            ..BlockFilter::default()
        };
        store.blocks(own, 100).await.unwrap().len()
    }

    fn ingest(dir: &tempfile::TempDir) -> (Ingest, Store) {
        let store = Store::open(&dir.path().join("s.db")).unwrap();
        let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
        (Ingest::new(store.clone(), journal), store)
    }

    #[tokio::test]
    async fn repeats_are_acknowledged_again_and_stored_once() {
        let dir = tempfile::tempdir().unwrap();
        let (ingest, store) = ingest(&dir);
        let blocks = chain(7, 5);
        let first = ingest.accept("gw", blocks[..3].to_vec(), 1).await.unwrap();
        assert_eq!(first.events, 3);
        let again = ingest.accept("gw", blocks.clone(), 1).await.unwrap();
        assert_eq!((again.events, again.fault), (2, None));
        assert_eq!(
            again.ack.as_ref().map(|ack| (ack.epoch, ack.next_sequence)),
            Some((7, 5))
        );
        assert_eq!(ingest.position("gw").await.unwrap(), again.ack);
        assert_eq!(store.blocks(BlockFilter::default(), 100).await.unwrap().len(), 5);
        assert_eq!(alarms(&store).await, 0);
    }

    #[tokio::test]
    async fn forks_wrong_digests_and_garbage_are_not_stored_and_raise_an_alarm() {
        let dir = tempfile::tempdir().unwrap();
        let (ingest, store) = ingest(&dir);
        let blocks = chain(1, 4);
        ingest.accept("gw", blocks[..2].to_vec(), 1).await.unwrap();
        let mut wrong = blocks[2].clone();
        wrong.previous_digest = vec![9; 32].into();
        let mut fork = blocks[1].clone();
        fork.body = AuditBlockBody::default().encode_to_vec().into();
        let mut garbage = blocks[2].clone();
        garbage.body = vec![0xff; 20].into();
        let mut short = blocks[2].clone();
        short.previous_digest = vec![9; 31].into();
        let mut huge = blocks[2].clone();
        huge.body = vec![0; BODY_BYTES_MAX + 1].into();
        for (n, bad) in [wrong, fork, garbage, short, huge].into_iter().enumerate() {
            let outcome = ingest
                .accept("gw", vec![bad, blocks[2].clone()], 1)
                .await
                .unwrap();
            assert!(outcome.fault.is_some(), "{n}");
            assert_eq!(alarms(&store).await, n + 1);
        }
        // The fork and what follows a wrong block in the same delivery: the honest block still fits afterwards.
        let honest = ingest.accept("gw", blocks[2..].to_vec(), 1).await.unwrap();
        assert_eq!(honest.fault, None);
        assert_eq!(store.head("gw").await.unwrap().unwrap().next_sequence, 4);
    }

    #[tokio::test]
    async fn a_gap_is_taken_and_told_and_a_new_epoch_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (ingest, store) = ingest(&dir);
        let blocks = chain(1, 6);
        ingest.accept("gw", blocks[..2].to_vec(), 1).await.unwrap();
        let jumped = ingest.accept("gw", blocks[4..].to_vec(), 1).await.unwrap();
        assert_eq!((jumped.events, jumped.fault), (2, None));
        assert_eq!(alarms(&store).await, 1);
        let anew = ingest.accept("gw", chain(2, 1), 1).await.unwrap();
        assert_eq!(anew.ack.map(|ack| (ack.epoch, ack.next_sequence)), Some((2, 1)));
    }
}

//! Audit blocks on their way in: read, judged against the source's chain, durable, then acknowledged
//! (DESIGN §8, promise 6; IEC 62443-3-3 SR 2.11, SR 3.9, SR 6.1).
//!
//! Delivery is at least once, storage exactly once by (source, epoch, sequence). What contradicts the chain is not
//! stored and not acknowledged, and becomes an alarm in the coordinator's own trail; so does a block in which a gateway
//! writes what only a coordinator may ([`unrightful`]). A gap (blocks that the source shed) is lawful, but never silent: it
//! is an alarm too, to be held against the source's loss record.
//!
//! Reading a block's body happens here, on the session's side; only storing waits for the one writer.

use std::sync::Arc;

use penstock_proto::audit::{BODY_BYTES_MAX, ChainError, Head, read_body};
use penstock_proto::event::unrightful;
use penstock_proto::v1::{AuditAck, AuditBlock, TrailEvent};
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
        let mut position = (0, 0);
        let mut new = Vec::with_capacity(blocks.len());
        let mut counts = Vec::with_capacity(blocks.len());
        for block in blocks {
            position = (block.epoch, block.sequence);
            // Its size is judged with the chain; but what is too large is not even read.
            let body = (block.body.len() <= BODY_BYTES_MAX).then(|| read_body(&block.body));
            match body {
                Some(Ok(body)) => {
                    if let Some(kind) = unrightful(source, &body) {
                        fault = Some(format!(
                            "block {}/{} holds an event of the kind `{}`, which only a coordinator writes: something else than \
                             a Penstock agent writes in the name of {source}; find out who holds its key",
                            position.0,
                            position.1,
                            kind.word()
                        ));
                        break;
                    }
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
                        let message = format!(
                            "{missing} blocks before {}/{sequence} were never delivered; the source's loss record should say why",
                            head.epoch
                        );
                        let gap = TrailEvent {
                            step: "gap".to_owned(),
                            source: source.to_owned(),
                            epoch: head.epoch,
                            sequence,
                            blocks: missing,
                            message,
                        };
                        self.journal.trail(gap).await?;
                    }
                }
                Append::Held { head } => {
                    ingested.ack = Some(acknowledge(head));
                }
                Append::Refused(refused) => {
                    position = refused.position();
                    fault = Some(in_words(refused));
                    break;
                }
            }
        }
        metrics::counter!("penstock_audit_events_total").increment(ingested.events);
        if let Some(fault) = &fault {
            metrics::counter!("penstock_audit_refused_total").increment(1);
            let refused = TrailEvent {
                step: "refused".to_owned(),
                source: source.to_owned(),
                epoch: position.0,
                sequence: position.1,
                blocks: 0,
                message: fault.clone(),
            };
            self.journal.trail(refused).await?;
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
    use penstock_proto::v1::audit_event::Kind;
    use penstock_proto::v1::{AgentEvent, AuditBlockBody, AuditEvent, IdentityEvent, OperatorEvent};
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

    fn block_of(kinds: Vec<Option<Kind>>) -> AuditBlock {
        let event = |kind| AuditEvent {
            kind,
            ..AuditEvent::default()
        };
        let events = kinds.into_iter().map(event).collect();
        AuditBlock {
            epoch: 1,
            sequence: 0,
            previous_digest: GENESIS.to_vec().into(),
            body: AuditBlockBody { events }.encode_to_vec().into(),
        }
    }

    #[tokio::test]
    async fn a_gateway_cannot_write_what_only_the_coordinator_writes() {
        let dir = tempfile::tempdir().unwrap();
        let (ingest, store) = ingest(&dir);
        let forged = [
            Kind::Operator(OperatorEvent {
                operator: "alice".to_owned(),
                action: "approve-release".to_owned(),
                allowed: true,
                ..OperatorEvent::default()
            }),
            Kind::Trail(TrailEvent::default()),
            Kind::Identity(IdentityEvent::default()),
        ];
        for (n, kind) in forged.into_iter().enumerate() {
            let started = Kind::Agent(AgentEvent::default());
            let block = block_of(vec![Some(started), Some(kind)]);
            let outcome = ingest.accept("gw", vec![block], 1).await.unwrap();
            assert!(outcome.fault.unwrap().contains("only a coordinator writes"));
            assert_eq!((outcome.events, outcome.ack), (0, None));
            let own = last_own(&store).await;
            let Some(Kind::Trail(told)) = own.kind else {
                panic!("{own:?}");
            };
            assert_eq!((told.step.as_str(), told.source.as_str()), ("refused", "gw"));
            assert_eq!(alarms(&store).await, n + 1);
        }
        // A kind that this version does not know is a newer gateway's, and the next block of an honest one is taken.
        let honest = block_of(vec![None, Some(Kind::Agent(AgentEvent::default()))]);
        let outcome = ingest.accept("gw", vec![honest], 1).await.unwrap();
        assert_eq!((outcome.events, outcome.fault), (2, None));
    }

    async fn last_own(store: &Store) -> AuditEvent {
        let own = BlockFilter {
            source: Some("coordinator/c1".to_owned()),
            newest_first: true,
            ..BlockFilter::default()
        };
        let newest = store.blocks(own, 1).await.unwrap();
        read_body(&newest[0].body).unwrap().events.remove(0)
    }

    #[tokio::test]
    async fn what_a_gateway_is_refused_again_and_again_does_not_fill_the_coordinators_trail() {
        let dir = tempfile::tempdir().unwrap();
        let (ingest, store) = ingest(&dir);
        let forged = block_of(vec![Some(Kind::Operator(OperatorEvent::default()))]);
        for _ in 0..100 {
            ingest.accept("gw", vec![forged.clone()], 1).await.unwrap();
        }
        let written = alarms(&store).await;
        assert!((1..=25).contains(&written), "{written}");
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
        let Some(Kind::Trail(gap)) = last_own(&store).await.kind else {
            panic!("a gap is no drift of the kernel's table");
        };
        assert_eq!((gap.step.as_str(), gap.source.as_str()), ("gap", "gw"));
        assert_eq!((gap.epoch, gap.sequence, gap.blocks), (1, 4, 2));
        let anew = ingest.accept("gw", chain(2, 1), 1).await.unwrap();
        assert_eq!(anew.ack.map(|ack| (ack.epoch, ack.next_sequence)), Some((2, 1)));
    }
}

//! Audit blocks on their way in: read, judged against the source's chain, durable, then acknowledged
//! (DESIGN §8, promise 6; IEC 62443-3-3 SR 2.11, SR 3.9, SR 6.1).
//!
//! Delivery is at least once, storage exactly once by (source, epoch, sequence). What contradicts the chain is not
//! stored and not acknowledged, and becomes an alarm in the coordinator's own trail; so does a block in which a gateway
//! writes what only a coordinator may ([`unrightful`]). A gap (blocks that the source shed) is lawful, but never silent: it
//! is an alarm too, to be held against the source's loss record. What the seals in a block show is judged as it is stored ([`seals`]).
//!
//! Reading a block's body, and verifying what signed its seals, happens here, on the session's side; only storing waits for the one writer.

pub(crate) mod seals;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use penstock_proto::audit::{BODY_BYTES_MAX, EPOCH_FOLLOWED_MAX, Head, read_body};
use penstock_proto::event::unrightful;
use penstock_proto::v1::{AuditAck, AuditBlock, TrailEvent};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::seals::SealedBlock;
pub use self::seals::{SealJudge, SealReport};
use crate::allowance::{Allowance, Share};
use crate::journal::Journal;
use crate::store::{Append, NewBlock, Store, StoreError, block_bytes};
use crate::summary::summarize;

/// Audit of all gateways together that may wait in memory for the store, KiB. Where it is used up for long, because the store
/// takes nothing, blocks are let go: the gateways have them, and the rest of their sessions goes on.
const ROOM_KIB: usize = 128 * 1024;
/// How long a block waits for room.
const ROOM_PATIENCE: Duration = Duration::from_secs(10);

/// How long a trail waits, at least, that used its share up: then a good piece of it is taken at once.
const SHARE_WAIT: Duration = Duration::from_secs(600);

/// Takes blocks in.
#[derive(Clone, Debug)]
pub struct Ingest {
    store: Store,
    journal: Journal,
    room: Arc<Semaphore>,
    share: Arc<Allowance>,
    judge: Option<Arc<SealJudge>>,
}

/// What each trail may grow, if nothing else is configured.
const SHARE: Share = Share {
    at_once: 2 << 30,
    per_day: 256 << 20,
};

/// Room in memory that a block takes while it waits, KiB.
pub fn room_kib(block: &AuditBlock) -> u32 {
    u32::try_from(block.body.len() / 1024 + 1).unwrap_or(u32::MAX)
}

/// Whether there is room again for a trail whose blocks were let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// There is.
    Yes,
    /// Too many blocks wait in memory.
    NotInMemory,
    /// The store takes nothing of it.
    NotInStore,
}

/// What came of some blocks of one source.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct IngestReport {
    /// Up to where the trail is durable; `None`: nothing of it is held.
    pub ack: Option<AuditAck>,
    /// Events stored now.
    pub events: u64,
    /// What does not fit, in words; from there on nothing was stored.
    pub fault: Option<String>,
    /// What came of the seals among them; `None`: there were none.
    pub seals: Option<SealReport>,
}

impl Ingest {
    /// Into this store.
    pub fn new(store: Store, journal: Journal) -> Self {
        Self {
            store,
            journal,
            room: Arc::new(Semaphore::new(ROOM_KIB)),
            share: Arc::new(Allowance::new(SHARE)),
            judge: None,
        }
    }

    /// The same, which judges the seals of what comes, and vouches for what is stored.
    #[must_use]
    pub fn with_judge(self, judge: SealJudge) -> Self {
        Self {
            judge: Some(Arc::new(judge)),
            ..self
        }
    }

    /// The same, with another share for each source.
    #[must_use]
    pub fn with_share(self, share: Share) -> Self {
        Self {
            share: Arc::new(Allowance::new(share)),
            ..self
        }
    }

    /// Waits for room in memory, as long as a session can wait; `None`: there is none. It is given back when it is dropped.
    pub async fn room(&self, kib: u32) -> Option<OwnedSemaphorePermit> {
        let room = self.room.clone().acquire_many_owned(kib);
        // The semaphore is never closed.
        tokio::time::timeout(ROOM_PATIENCE, room).await.ok()?.ok()
    }

    /// First position that is not held, for the welcome of a session. `own_epoch`: the source's own, where it says so. It
    /// could not go on after what is held too far beyond it; that was somebody else's, and the trail goes on before it.
    ///
    /// # Errors
    /// The store cannot be read, or a head that is beyond what the source ever reached cannot be taken back.
    pub async fn position(&self, source: &str, own_epoch: u64) -> Result<Option<AuditAck>, StoreError> {
        let head = self.store.head(source).await?;
        let followed = own_epoch.saturating_add(EPOCH_FOLLOWED_MAX);
        if own_epoch == 0 || head.is_none_or(|head| head.epoch <= followed) {
            return Ok(head.map(acknowledge));
        }
        let gateway = source.to_owned();
        let alarm = self.journal.change_with(move |(held, lawful): &(Head, Head)| TrailEvent {
            step: "rewound".to_owned(),
            source: gateway.clone(),
            epoch: lawful.epoch,
            sequence: lawful.next_sequence,
            blocks: 0,
            message: format!(
                "somebody else wrote under the gateway's name: its trail stood at {}/{}, which the gateway itself, at epoch {own_epoch}, never reached; it continues at {}/{}, and what was written beyond stays stored",
                held.epoch, held.next_sequence, lawful.epoch, lawful.next_sequence
            ),
        });
        let rewound = self.store.rewind(source, followed, Some(alarm)).await?;
        Ok(rewound.map(|(_, lawful)| lawful).or(head).map(acknowledge))
    }

    /// Whether there is room for the trail of `source` now.
    pub async fn would_take(&self, source: &str) -> Room {
        if self.room.available_permits() < ROOM_KIB / 2 {
            return Room::NotInMemory;
        }
        match self.store.append(source, Vec::new()).await {
            Ok(_) => Room::Yes,
            Err(_) => Room::NotInStore,
        }
    }

    /// Writes down that a trail waits, and why.
    pub(crate) async fn waits(&self, source: &str, why: &str) -> Result<(), StoreError> {
        let waits = TrailEvent {
            step: "waits".to_owned(),
            source: source.to_owned(),
            message: why.to_owned(),
            ..TrailEvent::default()
        };
        self.journal.trail(waits).await
    }

    /// Stores blocks of `source`, which cost of its share what they take, the first time.
    ///
    /// # Errors
    /// The source delivers more than its share, or the store takes nothing.
    pub async fn store(
        &self,
        source: &str,
        blocks: Vec<AuditBlock>,
        first: bool,
        now_ms: u64,
    ) -> Result<IngestReport, StoreError> {
        if first {
            self.afford(source, &blocks, now_ms)?;
        }
        self.accept(source, blocks, now_ms).await
    }

    fn afford(&self, source: &str, blocks: &[AuditBlock], now_ms: u64) -> Result<(), StoreError> {
        let bytes = blocks.iter().map(|block| block_bytes(&block.body)).sum();
        self.share
            .take(source, bytes, now_ms)
            .map_err(|after| StoreError::TooFast {
                source_name: source.to_owned(),
                bytes_per_day: self.share.share().per_day,
                after: SHARE_WAIT.max(after),
            })
    }

    /// Stores blocks of `source`, in the order given. When this returns, what `ack` says is on disk.
    ///
    /// # Errors
    /// The store cannot write, or has no room for this source at the moment: nothing of these blocks is then
    /// acknowledged. Blocks that do not continue the chain are not an error but a fault in the answer.
    pub async fn accept(
        &self,
        source: &str,
        blocks: Vec<AuditBlock>,
        received_ms: u64,
    ) -> Result<IngestReport, StoreError> {
        let BlocksRead {
            new,
            events,
            sealed,
            fault,
        } = read(source, blocks, received_ms, self.judge.as_deref());
        let mut seals = None;
        let outcomes = if new.is_empty() {
            if let Some(fault) = &fault {
                self.journal.trail(fault.alarm(source)).await?;
            }
            Vec::new()
        } else {
            let sequences: Vec<_> = new.iter().map(|new| new.block.sequence).collect();
            let (gateway, unread) = (source.to_owned(), fault.clone());
            let found = move |outcomes: &[Append]| alarms(&gateway, outcomes, &sequences, unread.as_ref());
            let mut note = self.journal.alarms_with(found);
            let is_followed = sealed.iter().any(SealedBlock::is_followed);
            if let Some(judge) = self.judge.as_ref().filter(|_| is_followed) {
                let (followed, report) = judge.follow(source, sealed.clone(), &self.journal, note);
                note = followed;
                seals = Some((judge, report));
            }
            self.store.append_noted(source, new, note).await?
        };
        if let Some(judge) = &self.judge
            && let Some(long) = judge.count(source, &sealed, &outcomes)
        {
            let (note, report) = judge.unsealed(source, long, &self.journal);
            if let Err(error) = self.store.append_noted(source, Vec::new(), note).await {
                judge.not_reported(source);
                return Err(error);
            }
            seals = Some((judge, report));
        }
        let mut ingested = IngestReport {
            ack: None,
            events: 0,
            fault: refused(&outcomes).or(fault).map(|fault| fault.words),
            seals: None,
        };
        for (outcome, events) in outcomes.into_iter().zip(events) {
            match outcome {
                Append::Stored { head, missing } => {
                    ingested.events += events;
                    ingested.ack = Some(acknowledge(head));
                    metrics::counter!("penstock_audit_blocks_total").increment(1);
                    metrics::counter!("penstock_audit_missing_blocks_total").increment(missing);
                }
                Append::Held { head } => ingested.ack = Some(acknowledge(head)),
                Append::Refused(_) => break,
            }
        }
        if let Some((judge, report)) = seals {
            let report = report.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(ack) = &mut ingested.ack {
                ack.witness = judge.witness(&report);
            }
            ingested.seals = Some(report);
        }
        metrics::counter!("penstock_audit_events_total").increment(ingested.events);
        if ingested.fault.is_some() {
            metrics::counter!("penstock_audit_refused_total").increment(1);
        }
        Ok(ingested)
    }
}

/// Blocks up to the first that does not do.
struct BlocksRead {
    new: Vec<NewBlock>,
    /// How many are in each.
    events: Vec<u64>,
    /// What there is of seals in each; nothing, where nobody judges them.
    sealed: Vec<SealedBlock>,
    /// What is wrong with that one.
    fault: Option<BlockFault>,
}

/// What is wrong with a block.
#[derive(Debug, Clone)]
struct BlockFault {
    epoch: u64,
    sequence: u64,
    words: String,
}

impl BlockFault {
    fn alarm(&self, source: &str) -> TrailEvent {
        TrailEvent {
            step: "refused".to_owned(),
            source: source.to_owned(),
            epoch: self.epoch,
            sequence: self.sequence,
            blocks: 0,
            message: self.words.clone(),
        }
    }
}

fn read(source: &str, blocks: Vec<AuditBlock>, received_ms: u64, judge: Option<&SealJudge>) -> BlocksRead {
    let mut all = BlocksRead {
        new: Vec::with_capacity(blocks.len()),
        events: Vec::with_capacity(blocks.len()),
        sealed: Vec::new(),
        fault: None,
    };
    for block in blocks {
        let (epoch, sequence) = (block.epoch, block.sequence);
        // Its size is judged with the chain; but what is too large is not even read.
        let body = (block.body.len() <= BODY_BYTES_MAX).then(|| read_body(&block.body));
        let words = match body {
            Some(Ok(body)) => match unrightful(source, &body) {
                None => {
                    all.sealed
                        .extend(judge.map(|judge| judge.look(source, &block, &body)));
                    all.events.push(body.events.len() as u64);
                    all.new.push(NewBlock {
                        summary: summarize(&body),
                        block,
                        received_ms,
                    });
                    continue;
                }
                Some(kind) => format!(
                    "block {epoch}/{sequence} holds an event of the kind `{}`, which only a coordinator writes: something else than \
                     a Penstock agent writes in the name of {source}; find out who holds its key",
                    kind.word()
                ),
            },
            Some(Err(_)) | None => format!("block {epoch}/{sequence} cannot be read"),
        };
        all.fault = Some(BlockFault {
            epoch,
            sequence,
            words,
        });
        break;
    }
    all
}

/// What the chain refused, if it did.
fn refused(outcomes: &[Append]) -> Option<BlockFault> {
    outcomes.iter().find_map(|outcome| match outcome {
        Append::Refused(refused) => {
            let (epoch, sequence) = refused.position();
            Some(BlockFault {
                epoch,
                sequence,
                words: refused.to_string(),
            })
        }
        Append::Stored { .. } | Append::Held { .. } => None,
    })
}

/// What the coordinator's own trail says of blocks with these sequences: what is missing before them, and what of them, or of
/// those that could not be read, was refused.
fn alarms(
    source: &str,
    outcomes: &[Append],
    sequences: &[u64],
    unread: Option<&BlockFault>,
) -> Vec<TrailEvent> {
    let gap = |(outcome, sequence): (&Append, &u64)| match outcome {
        Append::Stored { head, missing } if *missing > 0 => Some(TrailEvent {
            step: "gap".to_owned(),
            source: source.to_owned(),
            epoch: head.epoch,
            sequence: *sequence,
            blocks: *missing,
            message: format!(
                "{missing} blocks before {}/{sequence} were never delivered; the source's loss record should say why",
                head.epoch
            ),
        }),
        _ => None,
    };
    let gaps = outcomes.iter().zip(sequences).filter_map(gap);
    let fault = refused(outcomes).or_else(|| unread.cloned());
    gaps.chain(fault.map(|fault| fault.alarm(source))).collect()
}

/// The answer that a trail is durable up to this head.
fn acknowledge(head: Head) -> AuditAck {
    AuditAck {
        trails: None,
        epoch: head.epoch,
        next_sequence: head.next_sequence,
        digest: head.digest.to_vec().into(),
        witness: None,
    }
}

#[cfg(test)]
mod tests;

//! What the writer is asked for, what comes of it, and who waits for the answer.

use penstock_policy::ids::Digest;
use penstock_proto::audit::Head;
use tokio::sync::{broadcast, oneshot};

use super::ledger::Ledger;
use super::{removal, state, trail};
use crate::store::StoreError;
use crate::store::state::{Change, RecordChange};
use crate::store::trail::{Append, AtHead, Expired, NewBlock, Note, OwnBody, PurgeReport, block_bytes};

/// About what is put behind a head takes: a seal, or a word for one.
const AT_HEAD_BYTES: u64 = 4096;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

pub(super) enum Command {
    Change {
        change: Change,
        reply: Reply<Vec<RecordChange>>,
    },
    Blobs {
        blobs: Vec<Vec<u8>>,
        reply: Reply<()>,
    },
    Append {
        source: String,
        blocks: Vec<NewBlock>,
        note: Option<Note<[Append]>>,
        reply: Reply<Vec<Append>>,
    },
    AppendOwn {
        source: String,
        own: OwnBody,
        reply: Reply<Head>,
    },
    AppendAtHead {
        made: AtHead,
        reply: Reply<Head>,
    },
    DropBlobs {
        digests: Vec<Digest>,
        reply: Reply<()>,
    },
    DropExpired {
        expired: Expired,
        limit: u32,
        note: Option<Note<PurgeReport>>,
        reply: Reply<PurgeReport>,
    },
    Rewind {
        source: String,
        epoch_max: u64,
        note: Option<Note<(Head, Head)>>,
        reply: Reply<Option<(Head, Head)>>,
    },
}

/// A command that is done but not yet committed, with its answer.
pub(super) enum Done {
    Change(Reply<Vec<RecordChange>>, Result<Vec<RecordChange>, StoreError>),
    Blobs(Reply<()>),
    Append(Reply<Vec<Append>>, Vec<Append>),
    AppendOwn(Reply<Head>, Head),
    DropBlobs(Reply<()>),
    DropExpired(Reply<PurgeReport>, PurgeReport),
    Rewind(Reply<Option<(Head, Head)>>, Option<(Head, Head)>),
}

pub(super) enum Outcome {
    Change(Result<Vec<RecordChange>, StoreError>),
    Blobs,
    Append(Vec<Append>),
    AppendOwn(Head),
    DropBlobs,
    DropExpired(PurgeReport),
    Rewind(Option<(Head, Head)>),
}

impl Outcome {
    /// Whether it says that what is stored contradicts what was asked.
    pub(super) fn contradicts(&self) -> bool {
        match self {
            Self::Change(outcome) => outcome.is_err(),
            Self::Append(outcomes) => outcomes.iter().any(|one| matches!(one, Append::Refused(_))),
            _ => false,
        }
    }
}

impl Command {
    /// About what it adds to the store.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Change { change, .. } => {
                let values = change.writes.values().filter_map(|write| write.value.as_ref());
                let event = change.event.as_ref().map(|event| block_bytes(&event.own.body));
                values.map(|value| value.len() as u64).chain(event).sum()
            }
            Self::Blobs { blobs, .. } => blobs.iter().map(|blob| blob.len() as u64).sum(),
            Self::Append { blocks, .. } => blocks.iter().map(|new| block_bytes(&new.block.body)).sum(),
            Self::AppendOwn { own, .. } => block_bytes(&own.body),
            Self::AppendAtHead { .. } => AT_HEAD_BYTES,
            Self::DropBlobs { .. } | Self::DropExpired { .. } | Self::Rewind { .. } => 0,
        }
    }

    /// Whether nobody waits for its answer.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Change { reply, .. } => reply.is_closed(),
            Self::Blobs { reply, .. } | Self::DropBlobs { reply, .. } => reply.is_closed(),
            Self::Append { reply, .. } => reply.is_closed(),
            Self::AppendOwn { reply, .. } | Self::AppendAtHead { reply, .. } => reply.is_closed(),
            Self::DropExpired { reply, .. } => reply.is_closed(),
            Self::Rewind { reply, .. } => reply.is_closed(),
        }
    }

    /// Whether it may add a block.
    pub(super) fn appends(&self) -> bool {
        match self {
            Self::Change { change, .. } => change.event.is_some(),
            Self::Append { .. }
            | Self::AppendOwn { .. }
            | Self::AppendAtHead { .. }
            | Self::DropExpired { .. }
            | Self::Rewind { .. } => true,
            Self::Blobs { .. } | Self::DropBlobs { .. } => false,
        }
    }

    pub(super) fn run(&self, ledger: &Ledger, likely: &removal::LastLikely) -> rusqlite::Result<Outcome> {
        Ok(match self {
            Self::Change { change, .. } => {
                let outcome = state::apply(ledger, change)?;
                if let (Ok(_), Some(event)) = (&outcome, &change.event) {
                    trail::append_own(ledger, &event.source, &event.own)?;
                }
                Outcome::Change(outcome)
            }
            Self::Blobs { blobs, .. } => {
                for blob in blobs {
                    state::put_blob(ledger, blob)?;
                }
                Outcome::Blobs
            }
            Self::Append {
                source, blocks, note, ..
            } => {
                let outcomes = trail::append_all(ledger, source, blocks)?;
                trail::append_note(ledger, note.as_ref(), outcomes.as_slice())?;
                Outcome::Append(outcomes)
            }
            Self::AppendOwn { source, own, .. } => {
                Outcome::AppendOwn(trail::append_own(ledger, source, own)?)
            }
            Self::AppendAtHead { made, .. } => Outcome::AppendOwn(trail::append_at_head(ledger, made)?),
            Self::DropBlobs { digests, .. } => {
                for digest in digests {
                    state::drop_blob(ledger, digest)?;
                }
                Outcome::DropBlobs
            }
            Self::DropExpired {
                expired, limit, note, ..
            } => {
                let dropped = removal::drop_expired(ledger, *expired, *limit, likely)?;
                if let Some(note) = note {
                    removal::note_removed(ledger, dropped, *limit, note)?;
                }
                Outcome::DropExpired(dropped)
            }
            Self::Rewind {
                source,
                epoch_max,
                note,
                ..
            } => {
                let heads = trail::rewind(ledger, source, *epoch_max)?;
                if let Some(heads) = &heads {
                    trail::append_note(ledger, note.as_ref(), heads)?;
                }
                Outcome::Rewind(heads)
            }
        })
    }

    pub(super) fn done(self, outcome: Outcome) -> Option<Done> {
        Some(match (self, outcome) {
            (Self::Change { reply, .. }, Outcome::Change(outcome)) => Done::Change(reply, outcome),
            (Self::Blobs { reply, .. }, Outcome::Blobs) => Done::Blobs(reply),
            (Self::Append { reply, .. }, Outcome::Append(outcomes)) => Done::Append(reply, outcomes),
            (Self::AppendOwn { reply, .. } | Self::AppendAtHead { reply, .. }, Outcome::AppendOwn(head)) => {
                Done::AppendOwn(reply, head)
            }
            (Self::DropBlobs { reply, .. }, Outcome::DropBlobs) => Done::DropBlobs(reply),
            (Self::DropExpired { reply, .. }, Outcome::DropExpired(dropped)) => {
                Done::DropExpired(reply, dropped)
            }
            (Self::Rewind { reply, .. }, Outcome::Rewind(heads)) => Done::Rewind(reply, heads),
            _ => return None,
        })
    }

    pub(super) fn fail(self, error: StoreError) {
        // Who asked may have gone; then nobody needs the answer.
        match self {
            Self::Change { reply, .. } => drop(reply.send(Err(error))),
            Self::Blobs { reply, .. } => drop(reply.send(Err(error))),
            Self::Append { reply, .. } => drop(reply.send(Err(error))),
            Self::AppendOwn { reply, .. } | Self::AppendAtHead { reply, .. } => drop(reply.send(Err(error))),
            Self::DropBlobs { reply, .. } => drop(reply.send(Err(error))),
            Self::DropExpired { reply, .. } => drop(reply.send(Err(error))),
            Self::Rewind { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

impl Done {
    pub(super) fn answer(self, changes: &broadcast::Sender<RecordChange>) {
        match self {
            Self::Change(reply, outcome) => {
                for change in outcome.iter().flatten() {
                    // Nobody may be watching.
                    let _ = changes.send(change.clone());
                }
                drop(reply.send(outcome));
            }
            Self::Blobs(reply) => drop(reply.send(Ok(()))),
            Self::Append(reply, outcomes) => drop(reply.send(Ok(outcomes))),
            Self::AppendOwn(reply, head) => drop(reply.send(Ok(head))),
            Self::DropBlobs(reply) => drop(reply.send(Ok(()))),
            Self::DropExpired(reply, dropped) => drop(reply.send(Ok(dropped))),
            Self::Rewind(reply, heads) => drop(reply.send(Ok(heads))),
        }
    }
}

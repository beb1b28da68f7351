//! The audit trails of all sources: the interface that an engine implements.
//!
//! Blocks, never single events; each exactly once by (source, epoch, sequence), linked (see `penstock_proto::audit`), durable
//! when an append returns. They are read in the order in which they came, page by page. Where a page ends is a [`Cursor`]:
//! only the engine that made it reads it, and the same engine still does after a restart.
//!
//! Not here: what is in a block beyond its [`BlockSummary`] (`query`), and who may deliver how much (`ingest`, `room`).

use std::time::Duration;

use bytes::Bytes;
use penstock_proto::audit::{ChainError, GENESIS, Head};
use penstock_proto::v1::AuditBlock;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Pending;

/// How long one page may take.
pub const PAGE_TIME_MAX: Duration = Duration::from_secs(30);

/// What is in a block, coarsely.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockSummary {
    /// Time of its earliest event, milliseconds since 1970.
    pub first_ms: u64,
    /// Time of its latest event.
    pub last_ms: u64,
    /// One bit per kind of event (`EventKind::bit`).
    pub kinds: u32,
    /// One bit per decision.
    pub decisions: u32,
    /// Highest severity.
    pub severity: i32,
}

/// A block that was read and is ready to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewBlock {
    /// As it came.
    pub block: AuditBlock,
    /// What is in it.
    pub summary: BlockSummary,
    /// When it came, milliseconds since 1970.
    pub received_ms: u64,
}

/// A body for the coordinator's own chain, which is appended at its head.
#[derive(Debug, Clone)]
pub struct OwnBody {
    /// Encoded.
    pub body: Bytes,
    /// What is in it.
    pub summary: BlockSummary,
    /// When it was written, milliseconds since 1970.
    pub received_ms: u64,
    /// Whether it can be left out when the disk is short: a refusal.
    pub deferrable: bool,
}

/// What the coordinator's own trail says of a change of its state.
#[derive(Debug, Clone)]
pub struct OwnEvent {
    /// The coordinator's own trail.
    pub(super) source: String,
    pub(super) own: OwnBody,
}

impl OwnEvent {
    /// In the trail `source`.
    pub(crate) fn new(source: String, own: OwnBody) -> Self {
        Self { source, own }
    }
}

/// What the coordinator's own trail says of a change of another one. It is written with the change: neither is there without
/// the other, whatever fails.
pub struct Note<T: ?Sized> {
    /// The coordinator's own trail.
    source: String,
    bodies: Bodies<T>,
    follower: Option<Follower<T>>,
}

type Bodies<T> = Box<dyn Fn(&T) -> Vec<OwnBody> + Send>;

/// What comes of a change for the record, by what it says before.
type Step<T> = Box<dyn Fn(&T, Option<&[u8]>) -> Followed + Send>;

/// A record that follows a trail, and is changed with it.
struct Follower<T: ?Sized> {
    key: String,
    step: Step<T>,
}

/// What comes of a change of a trail for the record that follows it.
#[derive(Debug, Default)]
pub struct Followed {
    /// What the record says from now on; `None`: what it said.
    pub value: Option<Vec<u8>>,
    /// What the coordinator's own trail says of it.
    pub bodies: Vec<OwnBody>,
}

impl<T: ?Sized> Note<T> {
    /// In the trail `source`, what `bodies` makes of what came of the change.
    pub(crate) fn new(source: String, bodies: impl Fn(&T) -> Vec<OwnBody> + Send + 'static) -> Self {
        Self {
            source,
            bodies: Box::new(bodies),
            follower: None,
        }
    }

    /// The same, and with it the record `key`, by what `step` makes of the change and of what the record said.
    pub(crate) fn followed_by(
        self,
        key: String,
        step: impl Fn(&T, Option<&[u8]>) -> Followed + Send + 'static,
    ) -> Self {
        let step = Box::new(step);
        Self {
            follower: Some(Follower { key, step }),
            ..self
        }
    }

    /// Whose trail what follows is noted in, and which record follows.
    pub(super) fn follows(&self) -> Option<(&str, &str)> {
        let follower = self.follower.as_ref()?;
        Some((&self.source, &follower.key))
    }

    /// What comes of the change for the record, which said `held`.
    pub(super) fn follow(&self, outcome: &T, held: Option<&[u8]>) -> Followed {
        let follower = self.follower.as_ref();
        follower.map_or_else(Followed::default, |follower| (follower.step)(outcome, held))
    }

    /// Whose trail, and what is appended to it.
    pub(super) fn of(&self, outcome: &T) -> (&str, Vec<OwnBody>) {
        (&self.source, (self.bodies)(outcome))
    }
}

/// What is put at the head of the coordinator's own chain, once that is known.
#[derive(Debug)]
pub struct HeadMade {
    /// The block's body.
    pub own: OwnBody,
    /// Whether a new epoch begins with it.
    pub new_epoch: bool,
    /// What the record says from now on; `None`: what it said.
    pub record: Option<Vec<u8>>,
}

type MakeAtHead = Box<dyn Fn(&Head) -> HeadMade + Send>;

/// Something that names the head behind which it stands, as a seal does: it is made where the head is known, and stands there with a record in one
/// transaction.
pub struct AtHead {
    pub(super) source: String,
    pub(super) key: String,
    pub(super) make: MakeAtHead,
    /// Whether it can be left out when the disk is short.
    pub(super) deferrable: bool,
}

impl AtHead {
    /// In the trail `source`, what `make` makes of its head, with the record `key`.
    pub(crate) fn new(
        source: String,
        key: String,
        deferrable: bool,
        make: impl Fn(&Head) -> HeadMade + Send + 'static,
    ) -> Self {
        Self {
            source,
            key,
            make: Box::new(make),
            deferrable,
        }
    }

    /// Where the trail stands of which nothing is stored.
    pub(super) fn beginning() -> Head {
        Head {
            epoch: 1,
            next_sequence: 0,
            digest: GENESIS,
        }
    }

    /// Where a new epoch behind this head begins.
    pub(super) fn next_epoch(head: &Head) -> Head {
        Head {
            epoch: head.epoch.saturating_add(1),
            ..Self::beginning()
        }
    }
}

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Append {
    /// Stored now. `missing`: sequences that the source never delivered before it.
    Stored {
        /// The head with it.
        head: Head,
        /// Sequences shed before it.
        missing: u64,
    },
    /// Was there already, the same.
    Held {
        /// The head, unchanged.
        head: Head,
    },
    /// Not stored: it contradicts the trail, or its form is wrong.
    Refused(ChainError),
}

/// Which clock a time is held against.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Clock {
    /// The source's.
    #[default]
    Source,
    /// The coordinator's, when it received the block.
    Received,
    /// Either of them.
    Either,
}

/// The number of something that events name, by which an index knows blocks.
pub type Term = u32;

/// Which blocks to read.
#[derive(Debug, Clone, Default)]
pub struct BlockFilter {
    /// Only this source.
    pub source: Option<String>,
    /// Only events not before this time.
    pub from_ms: u64,
    /// Only events not after this time; 0: no end.
    pub until_ms: u64,
    /// By which clock.
    pub clock: Clock,
    /// Only blocks with one of these kinds; 0: any.
    pub kinds: u32,
    /// Only blocks with one of these decisions; 0: any.
    pub decisions: u32,
    /// Only blocks that hold at least this severity.
    pub severity_min: i32,
    /// The newest first.
    pub newest_first: bool,
    /// Only blocks that have one term of each of these: an engine may give others, too, and never fewer.
    pub terms: Vec<Vec<Term>>,
}

/// A block as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBlock {
    /// Whose it is.
    pub source: String,
    /// Chain number.
    pub epoch: u64,
    /// Position in the chain.
    pub sequence: u64,
    /// When it came, milliseconds since 1970.
    pub received_ms: u64,
    /// The encoded body.
    pub body: Bytes,
    /// Behind it.
    pub end: Cursor,
}

/// A place in the order in which blocks came. What is in it is the engine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(Bytes);

impl Cursor {
    /// An engine's own form of it.
    pub(crate) fn new(form: impl Into<Bytes>) -> Self {
        Self(form.into())
    }

    /// What the engine made.
    pub(crate) fn form(&self) -> &[u8] {
        &self.0
    }

    /// As it is kept in a record.
    pub(crate) fn kept(&self) -> String {
        hex::encode(&self.0)
    }

    /// As it was kept; the engine says whether it is its own.
    pub(crate) fn of_kept(kept: &str) -> Option<Self> {
        hex::decode(kept).ok().map(Self::new)
    }
}

/// Blocks in the order asked for, and how far was looked.
#[derive(Debug, Clone)]
pub struct Page {
    /// Those that the filter lets through.
    pub blocks: Vec<StoredBlock>,
    /// Where the next page in the same order begins: also behind what the filter ruled out, and never behind what it did not
    /// see.
    pub end: Cursor,
    /// Whether it ended at its limit, so that there may be more.
    pub more: bool,
}

/// Blocks that were removed directly behind a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// How many.
    pub blocks: u64,
    /// The place behind them, before the oldest block that is left.
    pub end: Cursor,
}

impl Removed {
    /// So many blocks before `end`, if there are any.
    pub(super) fn some(blocks: u64, end: Cursor) -> Option<Self> {
        (blocks > 0).then_some(Self { blocks, end })
    }
}

/// Which blocks are old, by the order in which they came and by the times at which they are said to have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// What came before this is old, if everything before it is, too.
    pub before_ms: u64,
    /// What is said to have come after this came while the clock was wrong. It is as old as the next block that says neither
    /// that ...
    pub unlikely_after_ms: u64,
    /// ... nor that it came before this, while the clock may have been behind.
    pub unlikely_before_ms: u64,
}

/// What retention ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeReport {
    /// Blocks.
    pub blocks: u64,
    /// What they held, bytes.
    pub bytes: u64,
}

/// The record of what was removed and is not noted yet, between two steps of a removal.
pub(super) const REMOVED: &str = "retention/removed";

impl PurgeReport {
    /// Adds what one step of at most `limit` blocks removed to what the record [`REMOVED`] says; answers with what is to be noted
    /// now, and with what the record says from then on. A step that removed fewer blocks than it may was the last one.
    pub(super) fn counted(self, recorded: Option<&[u8]>, limit: u32) -> (Option<Self>, Option<Vec<u8>>) {
        // The coordinator itself wrote it. If it cannot be read, what is removed now is noted all the same.
        let before: Self = recorded
            .and_then(|recorded| serde_json::from_slice(recorded).ok())
            .unwrap_or_default();
        let all = Self {
            blocks: before.blocks.saturating_add(self.blocks),
            bytes: before.bytes.saturating_add(self.bytes),
        };
        if self.blocks < u64::from(limit) {
            (Some(all).filter(|all| all.blocks > 0), None)
        } else {
            (None, serde_json::to_vec(&all).ok())
        }
    }
}

/// What a block takes beside its body, bytes.
const BLOCK_BYTES_BESIDE: u64 = 256;

/// What a block with this body takes, bytes.
pub fn block_bytes(body: &[u8]) -> u64 {
    bytes_with(body.len() as u64)
}

/// What a block with a body of this length takes, bytes.
pub(super) fn bytes_with(body_bytes: u64) -> u64 {
    body_bytes.saturating_add(BLOCK_BYTES_BESIDE)
}

/// Trails of blocks.
pub trait Trail {
    /// Appends blocks of one source in order, and what `note` makes of it. One outcome per block; none is stored behind one that
    /// is refused.
    fn append<'a>(
        &'a self,
        source: &'a str,
        blocks: Vec<NewBlock>,
        note: Option<Note<[Append]>>,
    ) -> Pending<'a, Vec<Append>>;

    /// Appends a body at the head of the coordinator's own chain, whatever that is by then; answers with the new head.
    fn append_own<'a>(&'a self, source: &'a str, own: OwnBody) -> Pending<'a, Head>;

    /// Appends to the coordinator's own chain what is made of its head, nothing between the two; answers with the new head.
    fn append_at_head(&self, made: AtHead) -> Pending<'_, Head>;

    /// Where the trail of a source stands.
    fn head<'a>(&'a self, source: &'a str) -> Pending<'a, Option<Head>>;

    /// At most `limit` blocks that may hold what `filter` asks for: from the end of another page in the same order, else from
    /// the beginning.
    fn page(&self, filter: BlockFilter, after: Option<Cursor>, limit: usize) -> Pending<'_, Page>;

    /// The block that a place stands behind; `None`: there is none, or it was removed.
    fn block_before(&self, place: Cursor) -> Pending<'_, Option<StoredBlock>>;

    /// What was removed directly behind `after`, in the order in which blocks came; `None`: nothing. Who reads page by page asks
    /// behind each page: what the page did not see since it was removed meanwhile is counted, never passed over.
    fn removed_behind(&self, after: Cursor) -> Pending<'_, Option<Removed>>;

    /// Before the oldest block that is stored, also where there is none yet.
    fn beginning(&self) -> Pending<'_, Cursor>;

    /// Behind the newest durable block, and behind each newer one.
    fn appended(&self) -> watch::Receiver<Cursor>;

    /// Removes the oldest blocks of all trails that are `expired`, at most `limit` of them; each chain goes on, and the first
    /// block that is left names the digest of the last one that is gone. The newest block of all stays, whatever its age:
    /// places are counted on from it. What is removed is counted with its removal, and with the first step that removes fewer
    /// than `limit`, what `note` makes of all of it is written: also where the program ended between two steps.
    fn drop_expired(
        &self,
        expired: Expired,
        limit: u32,
        note: Option<Note<PurgeReport>>,
    ) -> Pending<'_, PurgeReport>;

    /// Takes the head of a trail back to its last block of at most `epoch_max`, if it is beyond, and writes what `note` makes of
    /// it; answers with both heads. What lies beyond stays stored and is found by searches.
    fn rewind<'a>(
        &'a self,
        source: &'a str,
        epoch_max: u64,
        note: Option<Note<(Head, Head)>>,
    ) -> Pending<'a, Option<(Head, Head)>>;
}

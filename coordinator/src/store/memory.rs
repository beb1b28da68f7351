//! An engine of the store for its tests: everything in memory, one lock, nothing clever. It is what the properties in
//! `conformance` look like when they are written down directly, and it fails where a test asks for it.

#![allow(clippy::unwrap_used)]

mod trail;
mod tree;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use penstock_policy::ids::Digest;
use penstock_policy::merkle::Hash;
use penstock_proto::audit::leaf::BlockLeaf;
use penstock_proto::audit::{ChainError, Head};
use penstock_proto::v1::AuditBlock;
use tokio::sync::{broadcast, watch};

use super::conformance::Bench;
use super::state::{Change, Expect, Order, RecordChange, State, StateRecord};
use super::terms::TermIndex;
use super::trail::{
    Append, AtHead, BlockFilter, Clock, Cursor, Expired, NewBlock, Note, OwnBody, Page, StoredBlock,
};
use super::{Engine, EngineError, FaultCause, Pending, Store, StoreError};

/// What outlives the engine.
#[derive(Debug, Default)]
struct Kept {
    revision: u64,
    records: BTreeMap<String, StateRecord>,
    blobs: BTreeMap<[u8; 32], Vec<u8>>,
    heads: BTreeMap<String, Head>,
    /// By their numbers in order of arrival.
    blocks: BTreeMap<u64, (String, NewBlock)>,
    /// Of all blocks, also those that are gone.
    leaves: Vec<Hash>,
}

#[derive(Debug)]
struct Memory {
    kept: Arc<Mutex<Kept>>,
    changes: broadcast::Sender<RecordChange>,
    appended: watch::Sender<Cursor>,
    mood: Arc<Mutex<Mood>>,
}

/// What the engine does with what it is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Works,
    Fails(FaultCause),
    /// It writes, and says that it failed.
    FailsLate(FaultCause),
}

/// Where the engine keeps things.
#[derive(Debug, Default)]
pub(crate) struct InMemory(Arc<Mutex<Kept>>);

impl InMemory {
    /// A store whose mood can be changed while it is open.
    pub(crate) fn moody(&self, mood: Arc<Mutex<Mood>>) -> Store {
        let end = cursor(self.0.lock().unwrap().newest());
        Store::on(Memory {
            kept: self.0.clone(),
            changes: broadcast::channel(64).0,
            appended: watch::channel(end).0,
            mood,
        })
    }
}

impl Bench for InMemory {
    fn open(&self) -> Store {
        self.moody(Arc::default())
    }

    fn failing(&self, cause: FaultCause) -> Store {
        self.moody(Arc::new(Mutex::new(Mood::Fails(cause))))
    }
}

fn cursor(number: u64) -> Cursor {
    Cursor::new(format!("block {number}"))
}

fn number(cursor: &Cursor) -> Result<u64, StoreError> {
    std::str::from_utf8(cursor.form())
        .ok()
        .and_then(|form| form.strip_prefix("block ")?.parse().ok())
        .ok_or(StoreError::ForeignCursor)
}

impl Memory {
    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Kept) -> Result<T, StoreError>,
    ) -> Pending<'static, T> {
        let outcome = match *self.mood.lock().unwrap() {
            Mood::Fails(cause @ FaultCause::Damaged) => Err(failed(cause)),
            _ => read(&self.kept.lock().unwrap()),
        };
        Box::pin(std::future::ready(outcome))
    }

    fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&mut Kept) -> Result<T, StoreError>,
    ) -> Pending<'static, T> {
        let outcome = match *self.mood.lock().unwrap() {
            Mood::Works => write(&mut self.kept.lock().unwrap()),
            Mood::Fails(cause) => Err(failed(cause)),
            Mood::FailsLate(cause) => write(&mut self.kept.lock().unwrap()).and(Err(failed(cause))),
        };
        self.appended
            .send_replace(cursor(self.kept.lock().unwrap().newest()));
        Box::pin(std::future::ready(outcome))
    }
}

fn failed(cause: FaultCause) -> StoreError {
    StoreError::Engine(EngineError {
        path: PathBuf::from("memory"),
        cause,
        words: "made to fail".to_owned(),
    })
}

impl Kept {
    fn newest(&self) -> u64 {
        self.blocks.last_key_value().map_or(0, |(number, _)| *number)
    }

    /// When the oldest block came: by what it says, or by the next that says a likely time.
    fn oldest_ms(&self, expired: Expired) -> Option<u64> {
        let mut times = self.blocks.values().map(|(_, new)| new.received_ms);
        let first = times.next()?;
        if first <= expired.unlikely_after_ms {
            return Some(first);
        }
        times.find(|came_ms| (expired.unlikely_before_ms..=expired.unlikely_after_ms).contains(came_ms))
    }

    fn at(&self, source: &str, block: &AuditBlock) -> Option<&AuditBlock> {
        let here = |stored: &&AuditBlock| (stored.epoch, stored.sequence) == (block.epoch, block.sequence);
        self.of(source).find(here)
    }

    fn of(&self, source: &str) -> impl Iterator<Item = &AuditBlock> {
        self.blocks
            .values()
            .filter(move |(name, _)| name == source)
            .map(|(_, new)| &new.block)
    }

    /// Where the stored trail ends, up to and with this epoch.
    fn last_of(&self, source: &str, epoch_max: u64) -> Option<Head> {
        let last = self
            .of(source)
            .filter(|block| block.epoch <= epoch_max)
            .max_by_key(|block| (block.epoch, block.sequence))?;
        let previous = last.previous_digest.as_ref().try_into().unwrap();
        Some(Head {
            epoch: last.epoch,
            next_sequence: last.sequence + 1,
            digest: penstock_proto::audit::block_digest(previous, last.epoch, last.sequence, &last.body),
        })
    }

    fn append(&mut self, source: &str, new: NewBlock) -> Append {
        let held = self.heads.get(source).copied();
        let (epoch, sequence) = (new.block.epoch, new.block.sequence);
        let same = self.at(source, &new.block).map(|stored| *stored == new.block);
        let forked = Append::Refused(ChainError::Forked { epoch, sequence });
        match (Head::accept(held.as_ref(), &new.block), same) {
            (Ok(accepted), None) => {
                self.heads.insert(source.to_owned(), accepted.head);
                let leaf = BlockLeaf::new(source, (epoch, sequence), accepted.head.digest, &new.block.body);
                self.leaves.push(leaf.hash());
                self.blocks.insert(self.newest() + 1, (source.to_owned(), new));
                Append::Stored {
                    head: accepted.head,
                    missing: accepted.missing,
                }
            }
            // Behind a trail that was taken back, the place is taken.
            (Ok(accepted), Some(true)) => {
                self.heads.insert(source.to_owned(), accepted.head);
                Append::Held { head: accepted.head }
            }
            (Ok(_), Some(false)) => {
                if let Some(last) = self.last_of(source, epoch) {
                    self.heads.insert(source.to_owned(), last);
                }
                forked
            }
            (Err(ChainError::Held { .. }), same) => match held {
                Some(head) if same != Some(false) => Append::Held { head },
                _ => forked,
            },
            (Err(refused), _) => Append::Refused(refused),
        }
    }

    fn append_own(&mut self, source: &str, own: OwnBody) -> Result<Head, StoreError> {
        let head = self.heads.get(source).copied();
        self.append_own_at(source, head.unwrap_or_else(AtHead::beginning), own)
    }

    fn append_own_at(&mut self, source: &str, head: Head, own: OwnBody) -> Result<Head, StoreError> {
        let block = AuditBlock {
            epoch: head.epoch,
            sequence: head.next_sequence,
            previous_digest: head.digest.to_vec().into(),
            body: own.body,
        };
        let new = NewBlock {
            block,
            summary: own.summary,
            received_ms: own.received_ms,
        };
        match self.append(source, new) {
            Append::Stored { head, .. } | Append::Held { head } => Ok(head),
            Append::Refused(_) => Err(failed(FaultCause::Internal)),
        }
    }

    fn append_note<T: ?Sized>(&mut self, note: Option<&Note<T>>, outcome: &T) -> Result<(), StoreError> {
        if let Some((source, bodies)) = note.map(|note| note.of(outcome)) {
            for own in bodies {
                self.append_own(source, own)?;
            }
        }
        if let Some((note, (source, key))) = note.and_then(|note| Some((note, note.follows()?))) {
            let held = self.records.get(key).map(|held| held.value.as_slice());
            let followed = note.follow(outcome, held);
            if let Some(value) = followed.value {
                self.revision += 1;
                let revision = self.revision;
                self.records
                    .insert(key.to_owned(), StateRecord { revision, value });
            }
            for own in followed.bodies {
                self.append_own(source, own)?;
            }
        }
        Ok(())
    }

    fn page(&self, filter: &BlockFilter, after: Option<u64>, limit: usize) -> Page {
        let numbers: Vec<u64> = if filter.newest_first {
            let before = self.blocks.range(..after.unwrap_or(u64::MAX));
            before.rev().map(|(number, _)| *number).collect()
        } else {
            let behind = self.blocks.range(after.map_or(0, |after| after + 1)..);
            behind.map(|(number, _)| *number).collect()
        };
        let found: Vec<(u64, StoredBlock)> = numbers
            .into_iter()
            .filter_map(|number| Some((number, self.blocks.get(&number)?)))
            .filter(|(_, (source, new))| asked_for(filter, source, new))
            .take(limit)
            .map(|(number, (source, new))| (number, stored(number, source, new)))
            .collect();
        let more = found.len() >= limit;
        let end = match (more, filter.newest_first) {
            (true, _) => found.last().map_or(after.unwrap_or(0), |(number, _)| *number),
            (false, true) => 0,
            (false, false) => self.newest(),
        };
        Page {
            blocks: found.into_iter().map(|(_, block)| block).collect(),
            end: cursor(end),
            more,
        }
    }
}

fn stored(number: u64, source: &str, new: &NewBlock) -> StoredBlock {
    StoredBlock {
        source: source.to_owned(),
        epoch: new.block.epoch,
        sequence: new.block.sequence,
        received_ms: new.received_ms,
        body: new.block.body.clone(),
        end: cursor(number),
    }
}

fn asked_for(filter: &BlockFilter, source: &str, new: &NewBlock) -> bool {
    let within = |first, last| last >= filter.from_ms && (filter.until_ms == 0 || first <= filter.until_ms);
    let by_source = within(new.summary.first_ms, new.summary.last_ms);
    let by_receipt = within(new.received_ms, new.received_ms);
    let in_time = match filter.clock {
        Clock::Source => by_source,
        Clock::Received => by_receipt,
        Clock::Either => by_source || by_receipt,
    };
    in_time
        && filter.source.as_deref().is_none_or(|wanted| wanted == source)
        && (filter.kinds == 0 || filter.kinds & new.summary.kinds != 0)
        && (filter.decisions == 0 || filter.decisions & new.summary.decisions != 0)
        && new.summary.severity >= filter.severity_min
}

impl State for Memory {
    fn get<'a>(&'a self, key: &'a str) -> Pending<'a, Option<StateRecord>> {
        self.read(|kept| Ok(kept.records.get(key).cloned()))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        order: Order,
        limit: usize,
    ) -> Pending<'a, Vec<(String, StateRecord)>> {
        self.read(|kept| {
            let own = kept.records.iter().filter(|(key, _)| key.starts_with(prefix));
            let own = own.map(|(key, record)| (key.clone(), record.clone()));
            Ok(match order {
                Order::First => own.take(limit).collect(),
                Order::Last => own.rev().take(limit).collect(),
            })
        })
    }

    fn apply(&self, change: Change) -> Pending<'_, Vec<RecordChange>> {
        let changed = |kept: &mut Kept| {
            for (key, write) in &change.writes {
                let found = kept.records.get(key).map(|record| record.revision);
                let expected = match write.expect {
                    Expect::Absent => None,
                    Expect::Revision(revision) => Some(revision),
                };
                if found != expected {
                    let key = key.clone();
                    return Err(StoreError::Conflict { key, found });
                }
            }
            if let Some(event) = change.event {
                kept.append_own(&event.source, event.own)?;
            }
            let mut written = Vec::new();
            for (key, write) in change.writes {
                kept.revision += 1;
                let revision = kept.revision;
                match write.value {
                    Some(value) => kept.records.insert(key.clone(), StateRecord { revision, value }),
                    None => kept.records.remove(&key),
                };
                written.push(RecordChange { key, revision });
            }
            for change in &written {
                let _ = self.changes.send(change.clone());
            }
            Ok(written)
        };
        self.write(changed)
    }

    fn watch(&self) -> broadcast::Receiver<RecordChange> {
        self.changes.subscribe()
    }

    fn put_blobs(&self, blobs: Vec<Vec<u8>>) -> Pending<'_, ()> {
        self.write(|kept| {
            kept.blobs
                .extend(blobs.into_iter().map(|blob| (Digest::of(&blob).0, blob)));
            Ok(())
        })
    }

    fn blob(&self, digest: Digest) -> Pending<'_, Option<Vec<u8>>> {
        self.read(|kept| Ok(kept.blobs.get(&digest.0).cloned()))
    }

    fn blob_digests(&self) -> Pending<'_, Vec<Digest>> {
        self.read(|kept| Ok(kept.blobs.keys().copied().map(Digest).collect()))
    }

    fn drop_blobs(&self, digests: Vec<Digest>) -> Pending<'_, ()> {
        self.write(|kept| {
            kept.blobs.retain(|digest, _| !digests.contains(&Digest(*digest)));
            Ok(())
        })
    }
}

impl TermIndex for Memory {}

impl Engine for Memory {
    fn free_bytes(&self) -> Pending<'_, u64> {
        self.read(|_| Ok(u64::MAX))
    }

    fn reserve_bytes(&self) -> u64 {
        0
    }

    fn damaged(&self, what: String) -> StoreError {
        StoreError::Corrupt {
            path: PathBuf::from("memory"),
            what,
        }
    }
}

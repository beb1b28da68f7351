//! The trails, written down directly.

use penstock_proto::audit::{GENESIS, Head};
use tokio::sync::watch;

use super::{Memory, cursor, number, stored};
use crate::store::Pending;
use crate::store::state::StateRecord;
use crate::store::trail::{
    Append, AtHead, BlockFilter, Cursor, Expired, HeadMade, NewBlock, Note, OwnBody, Page, PurgeReport,
    REMOVED, Removed, StoredBlock, Trail, block_bytes,
};

impl Trail for Memory {
    fn append<'a>(
        &'a self,
        source: &'a str,
        blocks: Vec<NewBlock>,
        note: Option<Note<[Append]>>,
    ) -> Pending<'a, Vec<Append>> {
        self.write(|kept| {
            let mut refused = None;
            let one = |new| {
                let outcome = refused.unwrap_or_else(|| kept.append(source, new));
                refused = Some(outcome).filter(|outcome| matches!(outcome, Append::Refused(_)));
                outcome
            };
            let outcomes: Vec<_> = blocks.into_iter().map(one).collect();
            kept.append_note(note.as_ref(), outcomes.as_slice())?;
            Ok(outcomes)
        })
    }

    fn append_own<'a>(&'a self, source: &'a str, own: OwnBody) -> Pending<'a, Head> {
        self.write(|kept| kept.append_own(source, own))
    }

    fn append_at_head(&self, made: AtHead) -> Pending<'_, Head> {
        self.write(|kept| {
            let head = kept.heads.get(&made.source).copied();
            let head = head.unwrap_or_else(AtHead::beginning);
            let HeadMade {
                own,
                new_epoch,
                record,
            } = (made.make)(&head);
            if let Some(value) = record {
                kept.revision += 1;
                let revision = kept.revision;
                kept.records
                    .insert(made.key.clone(), StateRecord { revision, value });
            }
            let head = if new_epoch {
                AtHead::next_epoch(&head)
            } else {
                head
            };
            kept.append_own_at(&made.source, head, own)
        })
    }

    fn head<'a>(&'a self, source: &'a str) -> Pending<'a, Option<Head>> {
        self.read(|kept| Ok(kept.heads.get(source).copied()))
    }

    fn page(&self, filter: BlockFilter, after: Option<Cursor>, limit: usize) -> Pending<'_, Page> {
        self.read(|kept| {
            let after = after.as_ref().map(number).transpose()?;
            Ok(kept.page(&filter, after, limit))
        })
    }

    fn block_before(&self, place: Cursor) -> Pending<'_, Option<StoredBlock>> {
        self.read(|kept| {
            let number = number(&place)?;
            let held = kept.blocks.get(&number);
            Ok(held.map(|(source, new)| stored(number, source, new)))
        })
    }

    fn removed_behind(&self, after: Cursor) -> Pending<'_, Option<Removed>> {
        self.read(|kept| {
            let after = number(&after)?;
            let end = (kept.blocks.range(after + 1..).next()).map_or(after, |next| next.0 - 1);
            Ok(Removed::some(end - after, cursor(end)))
        })
    }

    fn beginning(&self) -> Pending<'_, Cursor> {
        self.read(|kept| Ok(cursor(kept.blocks.keys().next().map_or(0, |oldest| oldest - 1))))
    }

    fn appended(&self) -> watch::Receiver<Cursor> {
        self.appended.subscribe()
    }

    fn drop_expired(
        &self,
        expired: Expired,
        limit: u32,
        note: Option<Note<PurgeReport>>,
    ) -> Pending<'_, PurgeReport> {
        self.write(|kept| {
            let mut dropped = PurgeReport::default();
            while dropped.blocks < u64::from(limit)
                && kept.blocks.len() > 1
                && kept
                    .oldest_ms(expired)
                    .is_some_and(|came_ms| came_ms < expired.before_ms)
                && let Some((_, (_, new))) = kept.blocks.pop_first()
            {
                dropped.blocks += 1;
                dropped.bytes += block_bytes(&new.block.body);
            }
            if let Some(note) = &note {
                let held = kept.records.get(REMOVED).map(|held| held.value.as_slice());
                let (noted, left) = dropped.counted(held, limit);
                if let Some(all) = noted {
                    kept.append_note(Some(note), &all)?;
                }
                match left {
                    Some(value) => {
                        kept.revision += 1;
                        let revision = kept.revision;
                        kept.records
                            .insert(REMOVED.to_owned(), StateRecord { revision, value });
                    }
                    None => drop(kept.records.remove(REMOVED)),
                }
            }
            Ok(dropped)
        })
    }

    fn rewind<'a>(
        &'a self,
        source: &'a str,
        epoch_max: u64,
        note: Option<Note<(Head, Head)>>,
    ) -> Pending<'a, Option<(Head, Head)>> {
        self.write(|kept| {
            let Some(held) = kept
                .heads
                .get(source)
                .copied()
                .filter(|held| held.epoch > epoch_max)
            else {
                return Ok(None);
            };
            let lawful = kept.last_of(source, epoch_max).unwrap_or(Head {
                epoch: 0,
                next_sequence: 0,
                digest: GENESIS,
            });
            kept.heads.insert(source.to_owned(), lawful);
            kept.append_note(note.as_ref(), &(held, lawful))?;
            Ok(Some((held, lawful)))
        })
    }
}

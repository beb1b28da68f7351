//! The log of the accounts: what is written with each commit, behind its blocks, and makes them count.
//!
//! ```text
//! segment:   accounts | filling | accounts, changed …
//! accounts:  2 | as `accounts` has it
//! filling:   0 … (512)
//! changed:   3 | first 4 of SHA-256(accounts as they are then) | blocks more | head's digest (32) | acknowledged: epoch, sequence | log …
//! log:       severity (1) | blocks, events, events and blocks carried, last time: so much more each | place behind the last | segment | its bytes
//! ```
//!
//! Whole accounts stand there twice: what a sector that goes takes with it, the other copy has. They are written where a segment begins,
//! after [`CHANGED_BYTES`] of changes, and whenever more changes than how far the trail has come. That alone is a change against the
//! last whole ones (numbers as varints, the logs that are otherwise), of some 80 bytes, once: the blocks say it too, so that where the newest change is gone they
//! are taken up by themselves ([`opening`](super::opening)). An older agent passes over changes, as if all since were gone.

use std::path::Path;

use penstock_policy::ids::Digest;
use prost::encoding::{decode_varint, encode_varint};

use super::accounts::{Accounts, SEVERITIES};
use super::layout::Position;
use crate::durable::FileError;
use crate::log::{Disk, LogId, Scan, Segments, Step};

const IDENTITY: &LogId = b"penstock account";
/// A segment begins at this size. It is beside the spool's quota.
const SEGMENT_BYTES: u64 = 256 * 1024;
/// So many bytes of changes stand behind whole accounts: they are in other pages of the disk then.
const CHANGED_BYTES: usize = 32 * 1024;
/// Between the copies lies more than what a sector takes with it.
const FILLING: usize = 512;
const CHANGED: u8 = 3;

/// The log.
#[derive(Debug)]
pub(super) struct Ledger<D: Disk> {
    segments: Segments<D>,
    /// The last whole accounts in it, and how many bytes of changes stand behind them.
    whole: Option<(Accounts, usize)>,
}

impl<D: Disk> Ledger<D> {
    /// Finds it in the trail's folder.
    pub(super) fn open(disk: D, trail: &Path) -> Result<Self, FileError> {
        let (segments, _) = Segments::open(disk, &trail.join("accounts"), *IDENTITY)?;
        Ok(Self {
            segments,
            whole: None,
        })
    }

    /// What is free on its disk.
    pub(super) fn free_bytes(&self) -> Result<u64, FileError> {
        self.segments.free_bytes()
    }

    /// The newest accounts that can be read, and whether something that cannot be stands behind them.
    pub(super) fn read(&self) -> Result<(Option<Accounts>, bool), FileError> {
        let (mut accounts, mut is_torn) = (None, false);
        let mut newest_first: Vec<_> = self.segments.iter().collect();
        newest_first.reverse();
        for segment in newest_first {
            let file = self.segments.reading(segment)?;
            let mut scan = Scan::new(segment.number, *IDENTITY);
            let mut whole = None;
            loop {
                match scan.step(&file).map_err(|error| segment.unread(error))? {
                    Step::Record(body) if body.first() == Some(&CHANGED) => {
                        let changed = whole.as_ref().and_then(|whole| apply(whole, &body));
                        is_torn = changed.is_none();
                        accounts = changed.or(accounts);
                    }
                    Step::Record(body) => {
                        if let Some(newer) = Accounts::from_bytes(&body) {
                            (accounts, is_torn, whole) = (Some(newer.clone()), false, Some(newer));
                        }
                    }
                    Step::Damaged => is_torn = true,
                    Step::End { rest } => {
                        is_torn |= rest > 0;
                        break;
                    }
                }
            }
            if accounts.is_some() {
                break;
            }
        }
        Ok((accounts, is_torn))
    }

    /// Writes accounts, durable when this returns.
    pub(super) fn write(&mut self, accounts: &Accounts) -> Result<(), FileError> {
        let whole = self.whole.take();
        let takes_more = self.segments.takes_records_below(SEGMENT_BYTES);
        if let Some((whole, behind)) = whole.filter(|_| takes_more)
            && behind < CHANGED_BYTES
            && accounts.goes_on_from(&whole)
        {
            let record = changed(&whole, accounts);
            let behind = behind.saturating_add(record.len());
            self.segments.append(&[record])?;
            self.whole = Some((whole, behind));
            return Ok(());
        }
        let record = accounts.to_bytes();
        let records = [record.clone(), vec![0; FILLING], record];
        if takes_more {
            self.segments.append(&records)?;
        } else {
            self.begin(&records)?;
        }
        self.whole = Some((accounts.clone(), 0));
        Ok(())
    }

    /// Begins a segment, and removes those before it.
    fn begin(&mut self, records: &[Vec<u8>]) -> Result<(), FileError> {
        let newest = self.segments.begin(records)?;
        let older: Vec<_> = self.segments.iter().map(|segment| segment.number).collect();
        for number in older.into_iter().filter(|number| *number < newest) {
            // One that stays is older than what counts, and is removed with the next.
            let _ = self.segments.remove(number);
        }
        Ok(())
    }
}

/// What tells a change that belongs to other accounts.
fn sum(accounts: &Accounts) -> [u8; 4] {
    let [a, b, c, d, ..] = Digest::of(&accounts.to_bytes()).0;
    [a, b, c, d]
}

/// The record that makes `now` of `whole`, from which it goes on.
fn changed(whole: &Accounts, now: &Accounts) -> Vec<u8> {
    let mut out = vec![CHANGED];
    out.extend_from_slice(&sum(now));
    let more = |new: u64, old: u64| new.wrapping_sub(old);
    encode_varint(more(now.head.next_sequence, whole.head.next_sequence), &mut out);
    out.extend_from_slice(&now.head.digest);
    encode_varint(now.acked.epoch, &mut out);
    encode_varint(now.acked.sequence, &mut out);
    for severity in SEVERITIES {
        let (old, new) = (whole.logs.of(severity), now.logs.of(severity));
        if old == new {
            continue;
        }
        out.push(severity);
        let numbers = [
            more(new.end.sum.blocks, old.end.sum.blocks),
            more(new.end.sum.events, old.end.sum.events),
            more(new.end.sum.carried_events, old.end.sum.carried_events),
            more(new.end.sum.carried_blocks, old.end.sum.carried_blocks),
            more(new.end.last_ms, old.end.last_ms),
            new.end_at.epoch,
            new.end_at.sequence,
            new.segment,
            new.bytes,
        ];
        for number in numbers {
            encode_varint(number, &mut out);
        }
    }
    out
}

/// The accounts that `change` makes of these; `None`: it belongs to others.
fn apply(whole: &Accounts, change: &[u8]) -> Option<Accounts> {
    let (expected, mut rest) = change.get(1..)?.split_first_chunk::<4>()?;
    let mut now = whole.clone();
    let add = |number: &mut u64, rest: &mut &[u8]| {
        *number = number.wrapping_add(decode_varint(rest).ok()?);
        Some(())
    };
    add(&mut now.head.next_sequence, &mut rest)?;
    let (digest, behind) = rest.split_first_chunk::<32>()?;
    (now.head.digest, rest) = (*digest, behind);
    now.acked = place(&mut rest)?;
    while let Some((severity, behind)) = rest.split_first() {
        rest = behind;
        let log = now.logs.of_mut(*severity);
        let total = &mut log.end;
        add(&mut total.sum.blocks, &mut rest)?;
        add(&mut total.sum.events, &mut rest)?;
        add(&mut total.sum.carried_events, &mut rest)?;
        add(&mut total.sum.carried_blocks, &mut rest)?;
        add(&mut total.last_ms, &mut rest)?;
        log.end_at = place(&mut rest)?;
        log.segment = decode_varint(&mut rest).ok()?;
        log.bytes = decode_varint(&mut rest).ok()?;
    }
    (sum(&now) == *expected).then_some(now)
}

fn place(bytes: &mut &[u8]) -> Option<Position> {
    Some(Position {
        epoch: decode_varint(bytes).ok()?,
        sequence: decode_varint(bytes).ok()?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::super::layout::{BlockFacts, Cause, Loss};
    use super::*;
    use crate::log::RealDisk;
    use crate::log::faulty::FaultyDisk;

    /// These with one block more.
    fn grown(before: &Accounts, severity: u8, bytes: u64) -> Accounts {
        let mut accounts = before.clone();
        let at = accounts.next();
        accounts.head.next_sequence += 1;
        accounts.head.digest = Digest::of(&accounts.head.digest).0;
        let log = accounts.logs.of_mut(severity);
        let facts = BlockFacts {
            severity,
            events: 2,
            last_ms: 1_790_000_000_000 + at.sequence * 20,
            ..BlockFacts::default()
        };
        log.end = log.end.with(&facts);
        log.end_at = at.after();
        (log.segment, log.bytes) = (1, log.bytes + bytes);
        accounts
    }

    fn opened<D: Disk + Clone>(disk: &D, folder: &Path) -> Ledger<D> {
        Ledger::open(disk.clone(), folder).unwrap()
    }

    fn lost(mut accounts: Accounts) -> Accounts {
        let loss = Loss {
            events: 1,
            ..Loss::default()
        };
        accounts.lose(Cause::QueueFull, &loss, 1);
        accounts
    }

    #[test]
    fn changes_that_were_written_when_the_form_was_made_are_read_and_written_the_same_today() {
        let mut before = Accounts::begin(2);
        before.head.next_sequence = 6;
        let now = grown(&before, 3, 500);
        let kept = crate::fixture::kept("trail-accounts-changed.hex", &changed(&before, &now));
        assert_eq!(apply(&before, &kept), Some(now));
        assert_eq!(apply(&lost(before), &kept), None, "they belong to others");
    }

    #[test]
    fn how_far_the_trail_came_takes_few_bytes_and_everything_else_is_written_whole_and_twice() {
        let (disk, folder) = (FaultyDisk::default(), tempfile::tempdir().unwrap());
        let mut ledger = opened(&disk, folder.path());
        let mut accounts = Accounts::begin(1);
        let took = |ledger: &mut Ledger<FaultyDisk>, accounts: &Accounts| {
            let before = ledger.segments.bytes();
            ledger.write(accounts).unwrap();
            ledger.segments.bytes() - before
        };
        let whole = took(&mut ledger, &accounts);
        for _ in 0..100 {
            accounts = grown(&accounts, 3, 500);
            accounts.acked = Position {
                epoch: 1,
                sequence: accounts.head.next_sequence - 1,
            };
            let bytes = took(&mut ledger, &accounts);
            assert!(bytes <= 80, "{bytes} bytes");
            assert_eq!(
                opened(&disk, folder.path()).read().unwrap(),
                (Some(accounts.clone()), false)
            );
        }
        accounts = lost(accounts);
        assert!(took(&mut ledger, &accounts) > whole - 64);
        accounts.head.epoch = 2;
        assert!(took(&mut ledger, &accounts) > whole - 64);
        // Whole ones come again before all that stands behind them is in one page with them.
        let mut bytes = 0;
        while bytes < 2 * CHANGED_BYTES as u64 {
            accounts = grown(&accounts, 1, 500);
            let more = took(&mut ledger, &accounts);
            bytes = if more > 1024 { 0 } else { bytes + more };
            if more > 1024 {
                return;
            }
        }
        unreachable!("changes go on and on");
    }

    #[test]
    fn where_the_newest_change_is_damaged_those_before_count_and_it_shows() {
        let (disk, folder) = (RealDisk, tempfile::tempdir().unwrap());
        let mut ledger = opened(&disk, folder.path());
        let first = Accounts::begin(1);
        let second = grown(&first, 3, 500);
        let third = grown(&second, 1, 90);
        ledger.write(&first).unwrap();
        ledger.write(&second).unwrap();
        let path = ledger.segments.iter().next().unwrap().path.clone();
        let to_second = std::fs::read(&path).unwrap().len();
        ledger.write(&third).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for place in (to_second..whole.len()).step_by(3) {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(
                opened(&disk, folder.path()).read().unwrap(),
                (Some(second.clone()), true),
                "byte {place}"
            );
            std::fs::write(&path, &whole[..place]).unwrap();
            let is_torn = place > to_second;
            assert_eq!(
                opened(&disk, folder.path()).read().unwrap(),
                (Some(second.clone()), is_torn),
                "cut at {place}"
            );
        }
        // One before it, or a copy of the whole ones: the newest stands.
        for place in (crate::log::frame::HEADER_BYTES..to_second).step_by(37) {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(
                opened(&disk, folder.path()).read().unwrap(),
                (Some(third.clone()), false),
                "byte {place}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: ProptestConfig::default().cases / 4,
            ..ProptestConfig::default()
        })]
        #[test]
        fn what_is_written_is_read_whatever_changed(
            steps in proptest::collection::vec((0u8..=4, 1u64..5_000_000, 0u8..8), 1..40),
        ) {
            let (disk, folder) = (FaultyDisk::default(), tempfile::tempdir().unwrap());
            let mut ledger = opened(&disk, folder.path());
            let mut accounts = Accounts::begin(1);
            for (severity, bytes, other) in steps {
                accounts = match other {
                    0 => lost(accounts),
                    1 => { ledger = opened(&disk, folder.path()); accounts }
                    2 => { accounts.head.epoch += 1; accounts }
                    _ => grown(&accounts, severity, bytes),
                };
                ledger.write(&accounts).unwrap();
                prop_assert_eq!(ledger.read().unwrap(), (Some(accounts.clone()), false));
            }
        }

        #[test]
        fn no_bytes_make_a_change_of_accounts_that_are_not_what_was_written(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assert_eq!(apply(&Accounts::begin(1), &bytes), None);
        }
    }
}

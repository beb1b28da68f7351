//! The spool's accounts: how far the trail has come, what of it is where, and what was lost. A commit is real once they say so.
//!
//! They are written with each commit, last, into a log of their own ([`ledger`](super::ledger)). Blocks behind what they say belong to
//! no commit; see [`opening`](super::opening) for those that follow the chain all the same.

use penstock_proto::audit::{GENESIS, Head};

use super::layout::{Cause, Loss, Position, Reader, Sum, Totals, put};

const VERSION: u8 = 2;

/// The highest severity that the wire knows.
pub(super) const SEVERITY_MAX: u8 = 4;
/// Every severity, the gravest first.
pub(super) const SEVERITIES: [u8; 5] = [4, 3, 2, 1, 0];
/// Damaged places that are known one by one; of more, neighbours are taken together.
const WRITTEN_OFF_MAX: usize = 64;

/// One of each severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BySeverity<T>(pub(super) [T; 5]);

impl<T> BySeverity<T> {
    pub(super) fn of(&self, severity: u8) -> &T {
        let [none, info, notice, warning, alarm] = &self.0;
        match severity {
            0 => none,
            1 => info,
            2 => notice,
            3 => warning,
            _ => alarm,
        }
    }

    pub(super) fn of_mut(&mut self, severity: u8) -> &mut T {
        let [none, info, notice, warning, alarm] = &mut self.0;
        match severity {
            0 => none,
            1 => info,
            2 => notice,
            3 => warning,
            _ => alarm,
        }
    }
}

/// What is known of one severity's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LogAccount {
    /// What was put into it before the first block that it still has.
    pub(super) first: Totals,
    /// With the last.
    pub(super) end: Totals,
    /// The place behind the last.
    pub(super) end_at: Position,
    /// The segment that has the last, and where its records ended.
    pub(super) segment: u64,
    pub(super) bytes: u64,
}

/// A chain that another trail took the places of at the coordinator: its blocks move to a new epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fork {
    /// Where it forked.
    pub(super) from: Position,
    /// Blocks before are moved.
    pub(super) done: Position,
    /// The epoch that they move to.
    pub(super) epoch: u64,
}

impl Fork {
    pub(super) fn end(&self) -> Position {
        Position {
            epoch: self.epoch,
            sequence: 0,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.done < self.end()
    }
}

/// Blocks of a log that cannot be read and were counted as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WrittenOff {
    severity: u8,
    /// How many blocks stood before them, and with them.
    first: u64,
    end: u64,
    sum: Sum,
}

/// The accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accounts {
    pub(crate) head: Head,
    /// Everything before is durable at the coordinator.
    pub(crate) acked: Position,
    /// Everything before was given up, all of it delivered; some of it may still share a segment with others.
    pub(crate) floor: Position,
    /// All events ever lost.
    pub(crate) lost_events: u64,
    /// Losses that no loss record reports yet, by [`Cause::ALL`].
    pub(crate) untold: [Loss; 4],
    pub(crate) fork: Option<Fork>,
    pub(crate) logs: BySeverity<LogAccount>,
    written_off: Vec<WrittenOff>,
}

impl Accounts {
    /// Those of a trail that begins with this epoch.
    pub(super) fn begin(epoch: u64) -> Self {
        Self {
            head: Head {
                epoch,
                next_sequence: 0,
                digest: GENESIS,
            },
            acked: Position::default(),
            floor: Position::default(),
            lost_events: 0,
            untold: [Loss::default(); 4],
            fork: None,
            logs: BySeverity::default(),
            written_off: Vec::new(),
        }
    }

    /// Whether all that is otherwise than before is how far the trail came, in the same epoch.
    pub(super) fn goes_on_from(&self, before: &Self) -> bool {
        let mut like = before.clone();
        (like.head, like.acked) = (self.head, self.acked);
        for (like, log) in like.logs.0.iter_mut().zip(&self.logs.0) {
            let first = like.first;
            *like = LogAccount { first, ..*log };
        }
        self.head.epoch == before.head.epoch && like == *self
    }

    /// Whether nothing was ever written or lost.
    pub(super) fn is_untouched(&self) -> bool {
        *self == Self::begin(self.head.epoch)
    }

    /// The place that the next block gets.
    pub(super) fn next(&self) -> Position {
        Position {
            epoch: self.head.epoch,
            sequence: self.head.next_sequence,
        }
    }

    /// Whether a block at this place is none any more: given up, moved, or about to move.
    pub(super) fn is_hidden(&self, at: Position) -> bool {
        at < self.floor || self.fork.is_some_and(|fork| at >= fork.from && at < fork.end())
    }

    /// Whether all of what ends at this place was given up. What still has to move was not, wherever the floor is.
    pub(super) fn is_given_up(&self, until: Position) -> bool {
        let moves = self
            .fork
            .is_some_and(|fork| until > fork.done && until <= fork.end());
        until <= self.floor && !moves
    }

    /// In a segment that begins at this place, nothing before the place returned is owed to the coordinator.
    pub(super) fn owed_from(&self, at: Position) -> Position {
        match &self.fork {
            Some(fork) if at < fork.end() && (fork.is_open() || at >= fork.from) => fork.done,
            _ => self.acked.max(self.floor),
        }
    }

    /// Another trail took the places from here on: what is not delivered moves to `epoch`.
    pub(super) fn fork_from(&mut self, from: Position, epoch: u64) {
        self.fork = Some(match self.fork {
            Some(fork) if fork.is_open() => Fork { epoch, ..fork },
            before => {
                // Of two forks only the later is known block by block.
                let end = before.map_or(self.floor, |fork| fork.end());
                self.floor = self.floor.max(end.min(self.acked));
                Fork {
                    from,
                    done: from,
                    epoch,
                }
            }
        });
    }

    /// Accounts for a loss that a later record has to report.
    pub(super) fn lose(&mut self, cause: Cause, loss: &Loss, events: u64) {
        self.lost_events = self.lost_events.saturating_add(events);
        for (slot, of) in self.untold.iter_mut().zip(Cause::ALL) {
            if of == cause {
                slot.add(loss);
            }
        }
    }

    /// What between these two places of a log cannot be read and was not counted yet; now it is.
    pub(super) fn write_off(&mut self, severity: u8, from: &Totals, to: &Totals) -> Option<Sum> {
        let (first, end) = (from.sum.blocks, to.sum.blocks);
        let known = |one: &WrittenOff| one.severity == severity && one.first <= first && one.end >= end;
        if first >= end || self.written_off.iter().any(known) {
            return None;
        }
        let sum = to.sum.without(&from.sum);
        let new = sum.without(&self.forget_written_off(severity, first, end));
        self.written_off.push(WrittenOff {
            severity,
            first,
            end,
            sum,
        });
        self.written_off.sort_by_key(|one| (one.severity, one.first));
        if self.written_off.len() > WRITTEN_OFF_MAX {
            self.take_together();
        }
        (new.blocks > 0).then_some(new)
    }

    /// Takes out, and adds up, what was written off between these numbers of blocks.
    pub(super) fn forget_written_off(&mut self, severity: u8, first: u64, end: u64) -> Sum {
        let mut sum = Sum::default();
        self.written_off.retain(|one| {
            let is_inside = one.severity == severity && one.first >= first && one.end <= end;
            if is_inside {
                sum = sum.with(&one.sum);
            }
            !is_inside
        });
        sum
    }

    /// Two neighbours become one. What stands between them and is damaged later is not counted any more.
    fn take_together(&mut self) {
        let pairs = self.written_off.iter().zip(self.written_off.iter().skip(1));
        let near = pairs
            .enumerate()
            .filter(|(_, (one, next))| one.severity == next.severity)
            .min_by_key(|(_, (one, next))| next.first.saturating_sub(one.end))
            .map(|(number, _)| number);
        let Some(number) = near else { return };
        let second = self.written_off.remove(number.saturating_add(1));
        if let Some(first) = self.written_off.get_mut(number) {
            first.end = second.end;
            first.sum = first.sum.with(&second.sum);
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put(&mut out, &[self.head.epoch, self.head.next_sequence]);
        out.extend_from_slice(&self.head.digest);
        for at in [self.acked, self.floor] {
            put(&mut out, &[at.epoch, at.sequence]);
        }
        put(&mut out, &[self.lost_events]);
        for loss in &self.untold {
            loss.write(&mut out);
        }
        out.push(u8::from(self.fork.is_some()));
        if let Some(fork) = &self.fork {
            for at in [fork.from, fork.done] {
                put(&mut out, &[at.epoch, at.sequence]);
            }
            put(&mut out, &[fork.epoch]);
        }
        for log in &self.logs.0 {
            log.first.write(&mut out);
            log.end.write(&mut out);
            put(
                &mut out,
                &[log.end_at.epoch, log.end_at.sequence, log.segment, log.bytes],
            );
        }
        for one in &self.written_off {
            out.push(one.severity);
            put(&mut out, &[one.first, one.end]);
            one.sum.write(&mut out);
        }
        out
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut read = Reader(bytes);
        if read.u8()? != VERSION {
            return None;
        }
        let next = read.position()?;
        let mut accounts = Self::begin(next.epoch);
        accounts.head.next_sequence = next.sequence;
        accounts.head.digest = read.digest()?;
        accounts.acked = read.position()?;
        accounts.floor = read.position()?;
        accounts.lost_events = read.u64()?;
        for loss in &mut accounts.untold {
            *loss = Loss::read(&mut read)?;
        }
        if read.u8()? == 1 {
            accounts.fork = Some(Fork {
                from: read.position()?,
                done: read.position()?,
                epoch: read.u64()?,
            });
        }
        for log in &mut accounts.logs.0 {
            *log = LogAccount {
                first: Totals::read(&mut read)?,
                end: Totals::read(&mut read)?,
                end_at: read.position()?,
                segment: read.u64()?,
                bytes: read.u64()?,
            };
        }
        while !read.0.is_empty() {
            accounts.written_off.push(WrittenOff {
                severity: read.u8()?,
                first: read.u64()?,
                end: read.u64()?,
                sum: Sum::read(&mut read)?,
            });
        }
        Some(accounts)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn totals(blocks: u64) -> Totals {
        Totals {
            sum: Sum {
                blocks,
                events: blocks * 3,
                ..Sum::default()
            },
            last_ms: blocks,
        }
    }

    fn at(epoch: u64, sequence: u64) -> Position {
        Position { epoch, sequence }
    }

    #[test]
    fn accounts_that_were_written_when_the_form_was_made_are_read_and_written_the_same_today() {
        let mut accounts = Accounts::begin(2);
        accounts.head.next_sequence = 6;
        accounts.head.digest = [9; 32];
        accounts.acked = at(2, 1);
        accounts.floor = at(1, 7);
        for (severity, log) in (1..).zip(&mut accounts.logs.0) {
            *log = LogAccount {
                first: totals(severity),
                end: totals(severity + 10),
                end_at: at(2, 6),
                segment: severity,
                bytes: 4096,
            };
        }
        let plain = crate::fixture::kept("trail-accounts-2.hex", &accounts.to_bytes());
        assert_eq!(Accounts::from_bytes(&plain), Some(accounts.clone()));
        accounts.fork = Some(Fork {
            from: at(1, 2),
            done: at(1, 5),
            epoch: 2,
        });
        let sum = accounts.write_off(3, &totals(5), &totals(7)).unwrap();
        accounts.lose(Cause::SpoolLost, &sum.loss(5, 7), sum.events);
        let moving = crate::fixture::kept("trail-accounts-2-moving.hex", &accounts.to_bytes());
        assert_eq!(Accounts::from_bytes(&moving), Some(accounts));
        assert_eq!(Accounts::from_bytes(moving.get(..80).unwrap()), None);
    }

    #[test]
    fn what_is_damaged_is_counted_once_however_often_it_is_met_and_however_it_grows() {
        let mut accounts = Accounts::begin(1);
        assert_eq!(accounts.write_off(1, &totals(5), &totals(7)).unwrap().events, 6);
        assert_eq!(accounts.write_off(1, &totals(5), &totals(7)), None);
        assert_eq!(
            accounts.write_off(2, &totals(5), &totals(7)).unwrap().blocks,
            2,
            "another log"
        );
        assert_eq!(accounts.write_off(1, &totals(4), &totals(9)).unwrap().blocks, 3);
        assert_eq!(accounts.write_off(1, &totals(9), &totals(9)), None);
        assert_eq!(accounts.forget_written_off(1, 0, 20).blocks, 5);
        assert_eq!(accounts.write_off(1, &totals(4), &totals(9)).unwrap().blocks, 5);
    }

    #[test]
    fn so_many_damaged_places_that_they_are_taken_together_stay_bounded_and_counted_once() {
        let mut accounts = Accounts::begin(1);
        for place in 0..500 {
            assert!(
                accounts
                    .write_off(1, &totals(place * 10), &totals(place * 10 + 1))
                    .is_some()
            );
            assert_eq!(
                accounts.write_off(1, &totals(place * 10), &totals(place * 10 + 1)),
                None
            );
        }
        assert_eq!(accounts.written_off.len(), WRITTEN_OFF_MAX);
        for place in 0..500 {
            assert_eq!(
                accounts.write_off(1, &totals(place * 10), &totals(place * 10 + 1)),
                None
            );
        }
    }
}

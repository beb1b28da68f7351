//! Blocks behind the newest seal, until the next one: it is held against them what that one names, for each severity apart.
//!
//! Memory is bounded ([`OPEN_MAX`]): where there are more, the chain alone proves the earlier ones, and the account says so.

use sha2::Digest as _;

use super::super::chain::Place;
use super::super::seal::{NamedBlocks, SEVERITIES};
use super::report::TrailReport;

/// Blocks, and gaps between them, that are held against what a seal names. A source seals after an eighth of them.
pub const OPEN_MAX: usize = 8 * 1024;

/// Those of all severities, and how many are missing among them.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenBlocks {
    classes: [OpenClass; SEVERITIES],
    /// Sequences that are missing, and how many there.
    gaps: Vec<(u64, u64)>,
    /// Those that are not held any more.
    earlier: Earlier,
}

/// Those of one severity.
#[derive(Debug, Clone, Default)]
struct OpenClass {
    blocks: Vec<OpenBlock>,
    /// Of so many, from the first on, something is missing between them and the next seal, so that the chain does not prove them.
    loose: usize,
}

#[derive(Debug, Clone, Copy)]
struct OpenBlock {
    sequence: u64,
    digest: [u8; 32],
}

/// Blocks that were too many to be held.
#[derive(Debug, Clone, Copy, Default)]
struct Earlier {
    /// All of them stand before this sequence.
    until: u64,
    /// Nothing is missing behind so many of them; ...
    linked: u64,
    /// ... behind these, something is.
    loose: u64,
}

impl OpenBlocks {
    pub(super) fn take(&mut self, severity: usize, sequence: u64, digest: [u8; 32]) {
        if self.held() >= OPEN_MAX {
            self.let_go(sequence);
        }
        if let Some(class) = self.classes.get_mut(severity) {
            class.blocks.push(OpenBlock { sequence, digest });
        }
    }

    /// So many blocks are missing before this one: the chain proves nothing of those that stand before them.
    pub(super) fn miss(&mut self, sequence: u64, count: u64) {
        if self.gaps.len() >= OPEN_MAX {
            self.let_go(sequence);
        }
        self.gaps.push((sequence, count));
        for class in &mut self.classes {
            class.loose = class.blocks.len();
        }
        self.earlier.loose += std::mem::take(&mut self.earlier.linked);
    }

    fn held(&self) -> usize {
        self.classes.iter().map(|class| class.blocks.len()).sum()
    }

    /// None is held of those before this sequence, of which nothing is known.
    pub(super) fn begin_behind(&mut self, sequence: u64) {
        *self = Self::default();
        self.earlier.until = sequence;
    }

    /// Holds none of those before this sequence any more.
    fn let_go(&mut self, sequence: u64) {
        for class in &mut self.classes {
            let linked = class.blocks.len().saturating_sub(class.loose);
            self.earlier.linked += linked as u64;
            self.earlier.loose += class.loose as u64;
            *class = OpenClass::default();
        }
        self.gaps.clear();
        self.earlier.until = sequence;
    }

    /// Holds them against what a seal names; answers with the severities of which one does not fit.
    pub(super) fn close(
        self,
        named: Option<&NamedBlocks>,
        at: Place,
        report: &mut TrailReport,
    ) -> Vec<usize> {
        let since = named.map_or(u64::MAX, |named| named.since);
        report.loose += self.earlier.loose;
        if since < self.earlier.until {
            // What it names is not held any more, so that nothing is held against it.
            let held = self.held() as u64;
            let loose: u64 = self.classes.iter().map(|class| class.loose as u64).sum();
            report.loose += loose;
            report.by_chain += self.earlier.linked + held.saturating_sub(loose);
            return Vec::new();
        }
        let gaps = self.gaps.iter().filter(|(sequence, _)| *sequence >= since);
        let mut missing = gaps.fold(0, |sum: u64, (_, count)| sum.saturating_add(*count));
        // What stood before the first block that is here was given up.
        let begins = report.first.filter(|first| first.epoch == at.epoch);
        if begins.is_some_and(|first| first.sequence > since) {
            missing = u64::MAX;
        }
        let mut altered = Vec::new();
        for (severity, class) in self.classes.iter().enumerate() {
            let begin = class.blocks.partition_point(|block| block.sequence < since);
            let inside = class.blocks.get(begin..).unwrap_or_default();
            let mut classes = named.iter().flat_map(|named| &named.classes);
            let (count, digest) = classes
                .find(|(of, ..)| usize::from(*of) == severity)
                .map_or((0, None), |(_, count, digest)| (*count, Some(*digest)));
            let held = inside.len() as u64;
            let mut hash = sha2::Sha256::new();
            inside.iter().for_each(|block| hash.update(block.digest));
            let is_proved =
                held == count && digest.is_none_or(|digest| digest == <[u8; 32]>::from(hash.finalize()));
            let is_short = count
                .checked_sub(held)
                .is_some_and(|short| (1..=missing).contains(&short));
            if is_short {
                missing = missing.saturating_sub(count.saturating_sub(held));
            } else if !is_proved {
                // Of a seal that names nothing, the chain alone proves what it can.
                altered.extend(named.map(|_| severity));
            }
            let unproved = if is_proved { begin } else { class.blocks.len() };
            report.loose += class.loose.min(unproved) as u64;
        }
        altered
    }

    /// A new epoch begins before a seal came.
    pub(super) fn give_up(&mut self, report: &mut TrailReport) {
        report.loose += self.held() as u64 + self.earlier.linked + self.earlier.loose;
        *self = Self::default();
    }

    /// The trail ends; what is unsealed is said apart.
    pub(super) fn give_up_loose(&mut self, report: &mut TrailReport) {
        let loose: u64 = self.classes.iter().map(|class| class.loose as u64).sum();
        report.loose += loose + self.earlier.loose;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_without_end_take_no_memory_without_end_and_what_stands_before_them_is_not_proved() {
        let mut open = OpenBlocks::default();
        for number in 0..4 * OPEN_MAX as u64 {
            open.take(1, 2 * number, [1; 32]);
            open.miss(2 * number + 2, 1);
        }
        assert!(open.gaps.len() <= OPEN_MAX && open.held() <= OPEN_MAX);
        let mut report = TrailReport::default();
        let at = Place {
            epoch: 1,
            sequence: 8 * OPEN_MAX as u64,
        };
        let all = NamedBlocks {
            since: 0,
            classes: Vec::new(),
        };
        assert!(open.close(Some(&all), at, &mut report).is_empty());
        assert_eq!((report.loose, report.by_chain), (4 * OPEN_MAX as u64, 0));
    }
}

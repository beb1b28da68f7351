//! A whole trail, read from its beginning or from where it was cut off: what is proved of it, what is not, and what is missing.
//!
//! Pure: blocks in, an account out. The gateway's own check reads its spool with it; whoever holds an export can do the same.

use std::fmt;

use prost::bytes::Bytes;
use sha2::Digest as _;

use super::chain::{Place, SealChain, SealFinding, SealTrust, place_of, seals};
use super::note::Note;
use super::seal::{NamedBlocks, SEVERITIES, SealText};
use super::{ChainError, Head, read_body};
use crate::event::unrightful;
use crate::v1::audit_event::Kind;
use crate::v1::{AuditBlock, AuditBlockBody};

/// Findings that are kept; more are counted.
const FINDINGS_MAX: usize = 100;
/// Heads of the coordinator's tree that wait for somebody to take them: a source writes one an hour.
const TRAILS_HEADS_MAX: usize = 64;

/// Something in a trail that a person has to know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// A block does not follow the ones before it.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A seal does not fit, or keys begin.
    #[error(transparent)]
    Seal(#[from] SealFinding),
    /// Blocks are others than the seal behind them names.
    #[error(
        "among the blocks of severity {severity} before the seal at {at}, one is another than was sealed, or is missing or put in"
    )]
    Altered {
        /// Of the seal's block.
        at: Place,
        /// Of their events.
        severity: usize,
    },
    /// What is in a block cannot be read.
    #[error("block {0} cannot be read: it was altered")]
    Body(Place),
    /// Its source may not write that.
    #[error(
        "block {0} holds an event of the kind `{1}`, which only a coordinator writes: somebody else wrote in the source's name"
    )]
    Forged(Place, &'static str),
    /// What the coordinator had is not here.
    #[error(
        "the coordinator has witnessed the trail up to {witnessed}, and here it ends at {end}: its end was cut off, or the disk was set back"
    )]
    CutOff {
        /// By the coordinator's word.
        witnessed: Place,
        /// Here.
        end: Place,
    },
    /// The coordinator had something else.
    #[error(
        "before {0}, the coordinator has witnessed another block than stands here: one of the two was rewritten"
    )]
    Rewritten(Place),
    /// A new epoch begins.
    #[error(
        "epoch {0} begins: the trail before it was lost, set back or taken by another; the loss records say what is missing"
    )]
    Epoch(u64),
}

impl Finding {
    /// Whether the trail is not as a lawful source leaves it.
    pub fn is_alarm(&self) -> bool {
        match self {
            Self::Seal(found) => found.is_alarm(),
            Self::Chain(_)
            | Self::Altered { .. }
            | Self::Body(_)
            | Self::Forged(..)
            | Self::CutOff { .. }
            | Self::Rewritten(_) => true,
            Self::Epoch(_) => false,
        }
    }
}

/// Reads a trail block by block.
#[derive(Debug, Clone)]
pub struct TrailVerifier<'a> {
    trust: SealTrust<'a>,
    head: Option<Head>,
    chain: SealChain,
    /// What somebody else knows of it, until it was met.
    witnessed: Option<Head>,
    /// What stands behind the newest seal.
    open: OpenBlocks,
    /// Heads of the coordinator's tree that the source saw, until somebody takes them.
    trails_heads: Vec<Bytes>,
    report: TrailReport,
}

/// Blocks behind the newest seal, for each severity apart, and how many are missing among them.
#[derive(Debug, Clone, Default)]
struct OpenBlocks {
    classes: [OpenClass; SEVERITIES],
    /// Sequences that are missing, and how many there.
    gaps: Vec<(u64, u64)>,
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

/// What a trail was found to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrailReport {
    /// Where it begins and ends.
    pub first: Option<Place>,
    /// The place behind its last block.
    pub end: Option<Place>,
    /// Blocks that follow one another.
    pub blocks: u64,
    /// What is in them, without losses and seals.
    pub events: u64,
    /// Everything before is sealed.
    pub sealed: Option<Place>,
    /// By the source's clock, when the newest seal was made, milliseconds since 1970.
    pub sealed_ms: Option<u64>,
    /// For everything before, the identity key vouches.
    pub vouched: Option<Place>,
    /// Up to where the coordinator witnessed it, if its word is known.
    pub witnessed: Option<Place>,
    /// Blocks and events behind the newest seal.
    pub unsealed: (u64, u64),
    /// Blocks that neither the chain nor a seal proves, since others beside them are missing.
    pub loose: u64,
    /// Blocks that are not there, behind the first one.
    pub missing: u64,
    /// The blocks and events that loss records account for.
    pub told: (u64, u64),
    /// Of the missing blocks, as many as loss records behind them account for. What is told beyond that, as where a whole trail was lost, explains
    /// nothing that is missing later.
    pub explained: u64,
    /// What a person has to know, in the order of the trail.
    pub findings: Vec<Finding>,
    /// Alarms that are not among `findings`, since there are so many.
    pub further: u64,
}

impl<'a> TrailVerifier<'a> {
    /// Of a trail of which nothing was read.
    pub fn new(trust: SealTrust<'a>) -> Self {
        Self {
            trust,
            head: None,
            chain: SealChain::default(),
            witnessed: None,
            open: OpenBlocks::default(),
            trails_heads: Vec::new(),
            report: TrailReport::default(),
        }
    }

    /// Holds the trail against a head of it that somebody else knows: the coordinator, by its verified word.
    #[must_use]
    pub fn with_witness(mut self, head: Head) -> Self {
        self.report.witnessed = Some(place_of(&head));
        self.witnessed = Some(head);
        self
    }

    /// Reads the next block. `delivered`: what is missing before it was given up once it was delivered, so that nothing has to account for it.
    pub fn take(&mut self, block: &AuditBlock, delivered: Option<Place>) {
        let at = Place {
            epoch: block.epoch,
            sequence: block.sequence,
        };
        let accepted = match Head::accept(self.head.as_ref(), block) {
            Ok(accepted) => accepted,
            Err(error) => {
                self.find(error.into());
                return;
            }
        };
        let before = self.head.as_ref().map(place_of);
        self.hold_against_witness(&accepted.head, block);
        match before {
            Some(before) if before.epoch != at.epoch => {
                self.find(Finding::Epoch(at.epoch));
                self.open.give_up(&mut self.report);
                self.count_missing(Place { sequence: 0, ..at }, at, delivered);
            }
            Some(before) => self.count_missing(before, at, delivered),
            None => self.report.first = Some(at),
        }
        if accepted.missing > 0 && before.is_some() {
            self.open.miss(at.sequence, accepted.missing);
        }
        self.head = Some(accepted.head);
        self.report.end = Some(Place {
            sequence: accepted.head.next_sequence,
            ..at
        });
        self.report.blocks += 1;
        let Ok(body) = read_body(&block.body) else {
            self.find(Finding::Body(at));
            return;
        };
        if let Some(kind) = unrightful(&self.trust.source, &body) {
            self.find(Finding::Forged(at, kind.word()));
        }
        let mut events = 0;
        for event in &body.events {
            match &event.kind {
                Some(Kind::Loss(loss)) => {
                    self.report.told.0 = self.report.told.0.saturating_add(loss.blocks);
                    self.report.explained += loss.blocks.min(self.report.unexplained());
                    self.report.told.1 = self.report.told.1.saturating_add(loss.events);
                }
                Some(Kind::Seal(_)) => {}
                Some(Kind::Agent(agent)) => {
                    events += 1;
                    if !agent.trails_head.is_empty() && self.trails_heads.len() < TRAILS_HEADS_MAX {
                        self.trails_heads.push(agent.trails_head.clone());
                    }
                }
                _ => events += 1,
            }
        }
        self.report.events += events;
        let sealed_before = self.chain.sealed();
        for found in self.chain.take(&self.trust, block, &body) {
            self.find(found.into());
        }
        if self.chain.sealed() != sealed_before {
            self.report.unsealed = (0, 0);
            let texts = seals(&body).filter_map(|seal| SealText::parse(&Note::parse(&seal.note).ok()?.text));
            let named = texts.last().map(|text| text.blocks);
            for severity in std::mem::take(&mut self.open).close(named.as_ref(), at, &mut self.report) {
                self.find(Finding::Altered { at, severity });
            }
        }
        if let Some(severity) = severity_of(&body) {
            if self.chain.sealed() != Some(at) {
                self.report.unsealed.0 += 1;
                self.report.unsealed.1 += events;
            }
            self.open.take(severity, at.sequence, accepted.head.digest);
        }
    }

    /// The heads of the coordinator's tree that the source saw, by the blocks since this was asked last: notes as they stand there, unverified.
    pub fn trails_heads(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.trails_heads)
    }

    /// What was read so far.
    pub fn report(mut self) -> TrailReport {
        self.open.give_up_loose(&mut self.report);
        if let (Some(head), Some(end)) = (self.witnessed, self.report.end)
            && end < place_of(&head)
        {
            let witnessed = place_of(&head);
            self.find(Finding::CutOff { witnessed, end });
        }
        TrailReport {
            sealed: self.chain.sealed(),
            sealed_ms: self.chain.sealed_ms(),
            vouched: self.chain.vouched(),
            ..self.report
        }
    }

    /// The head that was witnessed stands behind this block, or before it.
    fn hold_against_witness(&mut self, head: &Head, block: &AuditBlock) {
        let Some(known) = self.witnessed else { return };
        let before = Place {
            epoch: block.epoch,
            sequence: block.sequence,
        };
        let digest = match place_of(&known) {
            at if at == place_of(head) => head.digest.as_slice(),
            at if at == before => &block.previous_digest,
            _ => return,
        };
        if digest != known.digest {
            self.witnessed = None;
            self.find(Finding::Rewritten(place_of(&known)));
        }
    }

    fn count_missing(&mut self, from: Place, until: Place, delivered: Option<Place>) {
        let from = delivered.filter(|to| *to > from).map_or(from, |to| to.min(until));
        if from.epoch == until.epoch {
            let missing = until.sequence.saturating_sub(from.sequence);
            self.report.missing = self.report.missing.saturating_add(missing);
        }
    }

    fn find(&mut self, finding: Finding) {
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(finding);
        } else if finding.is_alarm() {
            self.report.further += 1;
        }
    }
}

/// Of the events in a block; `None`: it holds nothing but seals.
fn severity_of(body: &AuditBlockBody) -> Option<usize> {
    let events = body.events.iter();
    let others = events.filter(|event| !matches!(event.kind, Some(Kind::Seal(_))));
    let severities = others.map(|event| usize::try_from(event.severity).unwrap_or(0).min(SEVERITIES - 1));
    severities.max().or_else(|| body.events.is_empty().then_some(0))
}

impl OpenBlocks {
    fn take(&mut self, severity: usize, sequence: u64, digest: [u8; 32]) {
        if let Some(class) = self.classes.get_mut(severity) {
            class.blocks.push(OpenBlock { sequence, digest });
        }
    }

    /// So many blocks are missing before this one: the chain proves nothing of those that stand before them.
    fn miss(&mut self, sequence: u64, count: u64) {
        self.gaps.push((sequence, count));
        for class in &mut self.classes {
            class.loose = class.blocks.len();
        }
    }

    /// Holds them against what a seal names; answers with the severities of which one does not fit.
    fn close(self, named: Option<&NamedBlocks>, at: Place, report: &mut TrailReport) -> Vec<usize> {
        let since = named.map_or(u64::MAX, |named| named.since);
        let gaps = self.gaps.iter().filter(|(sequence, _)| *sequence >= since);
        let mut missing: u64 = gaps.map(|(_, count)| count).sum();
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
    fn give_up(&mut self, report: &mut TrailReport) {
        report.loose += self
            .classes
            .iter()
            .map(|class| class.blocks.len() as u64)
            .sum::<u64>();
        *self = Self::default();
    }

    /// The trail ends; what is unsealed is said apart.
    fn give_up_loose(&mut self, report: &mut TrailReport) {
        report.loose += self.classes.iter().map(|class| class.loose as u64).sum::<u64>();
    }
}

impl TrailReport {
    /// Blocks that are missing and that nothing accounts for.
    pub fn unexplained(&self) -> u64 {
        self.missing.saturating_sub(self.explained)
    }

    /// Whether it is as a lawful source leaves it: nothing altered, nothing missing without an account. It may be unsealed.
    pub fn is_whole(&self) -> bool {
        self.further == 0 && self.unexplained() == 0 && !self.findings.iter().any(Finding::is_alarm)
    }
}

impl fmt::Display for TrailReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(first), Some(end)) = (self.first, self.end) else {
            return writeln!(f, "The trail is empty.");
        };
        writeln!(
            f,
            "{} blocks with {} events from {first} to {end}.",
            self.blocks, self.events
        )?;
        match self.sealed {
            Some(at) => writeln!(
                f,
                "Sealed up to {at}: what stands before was not altered since, nor taken out or put in."
            )?,
            None => writeln!(
                f,
                "Not sealed: nothing proves that these are the blocks that were written."
            )?,
        }
        match (self.vouched, self.sealed) {
            (Some(at), _) => writeln!(f, "Up to {at}, the source's identity key vouches for it.")?,
            (None, Some(_)) => writeln!(
                f,
                "The source's identity key vouches for nothing of it: the seals could be anybody's."
            )?,
            (None, None) => {}
        }
        if let Some(at) = self.witnessed {
            writeln!(f, "The coordinator has witnessed it up to {at}.")?;
        }
        if self.sealed.is_some() && self.unsealed.0 > 0 {
            writeln!(
                f,
                "Not sealed yet: the last {} blocks with {} events. If blocks were cut off at the end, that does not show here.",
                self.unsealed.0, self.unsealed.1
            )?;
        }
        if self.missing > 0 || self.told.1 > 0 {
            writeln!(
                f,
                "Missing: {} blocks; loss records account for {} blocks and {} events.",
                self.missing, self.told.0, self.told.1
            )?;
        }
        if self.loose > 0 {
            writeln!(
                f,
                "Not proved: {} blocks, since others between them and the next seal are missing.",
                self.loose
            )?;
        }
        if self.unexplained() > 0 {
            writeln!(
                f,
                "WRONG: no loss record accounts for {} missing blocks: they were taken out, or the record is not written yet.",
                self.unexplained()
            )?;
        }
        for finding in &self.findings {
            let word = if finding.is_alarm() { "WRONG: " } else { "" };
            writeln!(f, "{word}{finding}")?;
        }
        if self.further > 0 {
            writeln!(f, "WRONG: {} further findings", self.further)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! A whole trail, read from its beginning or from where it was cut off: what is proved of it, what is not, and what is missing.
//!
//! Pure: blocks in, an account out. The gateway's own check reads its spool with it; whoever holds an export can do the same. Memory is bounded, however
//! long the trail.

mod open;
mod report;

use penstock_policy::ids::Revision;
use prost::bytes::Bytes;

pub use self::open::OPEN_MAX;
use self::open::OpenBlocks;
use self::report::FINDINGS_MAX;
pub use self::report::{Finding, TrailReport};
use super::chain::{Place, SealChain, SealTrust, UnsealedRun, place_of, seals};
use super::note::Note;
use super::seal::{SEVERITIES, SealText};
use super::{AcceptedBlock, ChainError, EPOCH_FOLLOWED_MAX, Head, read_body};
use crate::event::unrightful;
use crate::v1::audit_event::Kind;
use crate::v1::{AuditBlock, AuditBlockBody};

/// Heads of the coordinator's tree that wait for somebody to take them: a source writes one an hour.
const TRAILS_HEADS_MAX: usize = 64;
/// Epochs to whose end a trail can be taken back.
const EPOCHS_BEFORE_MAX: usize = 8;

/// Reads a trail block by block.
#[derive(Debug, Clone)]
pub struct TrailVerifier<'a> {
    trust: SealTrust<'a>,
    head: Option<Head>,
    chain: SealChain,
    /// The ends of the epochs before, and what was known of the seals there.
    before: Vec<(Head, SealChain)>,
    /// Blocks behind the newest seal.
    run: UnsealedRun,
    /// What somebody else knows of it, until it was met.
    witnessed: Option<Head>,
    /// What stands behind the newest seal.
    open: OpenBlocks,
    /// Heads of the coordinator's tree that the source saw, until somebody takes them.
    trails_heads: NotedHeads,
    report: TrailReport,
}

/// Heads of the coordinator's tree as they stand in a trail: notes, unverified.
#[derive(Debug, Clone, Default)]
pub struct NotedHeads {
    /// Each with the revision that was in force at its source.
    pub heads: Vec<(Revision, Bytes)>,
    /// Those beyond so many that they are kept.
    pub further: u64,
}

impl NotedHeads {
    fn note(&mut self, revision: u64, head: &Bytes) {
        match self.heads.len() < TRAILS_HEADS_MAX {
            true => self.heads.push((Revision(revision), head.clone())),
            false => self.further += 1,
        }
    }
}

impl<'a> TrailVerifier<'a> {
    /// Of a trail of which nothing was read.
    pub fn new(trust: SealTrust<'a>) -> Self {
        Self {
            trust,
            head: None,
            chain: SealChain::default(),
            before: Vec::new(),
            run: UnsealedRun::default(),
            witnessed: None,
            open: OpenBlocks::default(),
            trails_heads: NotedHeads::default(),
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
            Ok(accepted) => Ok(accepted),
            Err(error @ ChainError::Held { .. }) => self.rewound(block).ok_or(error),
            Err(error) => Err(error),
        };
        let accepted = match accepted {
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
                self.end_epoch(before);
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
                    if !agent.trails_head.is_empty() {
                        self.trails_heads.note(event.revision, &agent.trails_head);
                    }
                }
                _ => events += 1,
            }
        }
        self.report.events += events;
        let sealed_before = self.chain.sealed();
        let last_ms = body.events.iter().map(|event| event.time_ms).max();
        for found in self.chain.take(&self.trust, block, &body) {
            self.find(found.into());
        }
        if self.chain.sealed() == sealed_before {
            let is_long = sealed_before.and_then(|_| self.run.take(last_ms.unwrap_or(0)));
            let found = is_long.and_then(|blocks| self.chain.unsealed(at, blocks));
            if let Some(found) = found {
                self.find(found.into());
            }
        } else {
            self.run.sealed();
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

    /// The heads of the coordinator's tree that the source saw, by the blocks since this was asked last.
    pub fn trails_heads(&mut self) -> NotedHeads {
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

    /// Takes the trail back to before what somebody else wrote in an epoch that the source never comes to, as a coordinator does; `None`: the block is
    /// none that follows there.
    fn rewound(&mut self, block: &AuditBlock) -> Option<AcceptedBlock> {
        let held = self.head?;
        if held.epoch < block.epoch.saturating_add(EPOCH_FOLLOWED_MAX) {
            return None;
        }
        let number = self.before.iter().rposition(|(end, _)| end.epoch <= block.epoch);
        let (end, chain) = number.and_then(|number| self.before.get(number)).cloned()?;
        let accepted = Head::accept(Some(&end), block).ok()?;
        self.before.truncate(number?);
        (self.head, self.chain) = (Some(end), chain);
        self.run.sealed();
        self.open.give_up(&mut self.report);
        self.open.begin_behind(block.sequence);
        self.find(Finding::Rewound {
            at: Place {
                epoch: block.epoch,
                sequence: block.sequence,
            },
            held: place_of(&held),
        });
        Some(accepted)
    }

    /// Another epoch begins behind this place.
    fn end_epoch(&mut self, end: Place) {
        if let Some(head) = self.head {
            if self.before.len() >= EPOCHS_BEFORE_MAX {
                self.before.remove(0);
            }
            self.before.push((head, self.chain.clone()));
        }
        // What comes in the new one is not what the coordinator had here.
        let is_short = |known: &mut Head| known.epoch == end.epoch && end < place_of(known);
        if let Some(known) = self.witnessed.take_if(is_short) {
            let witnessed = place_of(&known);
            self.find(Finding::CutOff { witnessed, end });
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
pub fn severity_of(body: &AuditBlockBody) -> Option<usize> {
    let events = body.events.iter();
    let others = events.filter(|event| !matches!(event.kind, Some(Kind::Seal(_))));
    let severities = others.map(|event| usize::try_from(event.severity).unwrap_or(0).min(SEVERITIES - 1));
    severities.max().or_else(|| body.events.is_empty().then_some(0))
}

#[cfg(test)]
mod tests;

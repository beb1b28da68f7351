//! What a trail was found to be, and what a person has to know of it, in sentences.

use std::fmt;

use super::super::ChainError;
use super::super::chain::{Place, SealFinding};

/// Findings that are kept; more are counted.
pub(super) const FINDINGS_MAX: usize = 100;

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
    /// It goes on before what stood there.
    #[error(
        "at {at} the trail goes on before {held}, up to where somebody else wrote under the source's name: what stands beyond is not the source's"
    )]
    Rewound {
        /// Of the block with which it goes on.
        at: Place,
        /// Up to where it stood.
        held: Place,
    },
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
            | Self::Rewound { .. }
            | Self::Rewritten(_) => true,
            Self::Epoch(_) => false,
        }
    }
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
    /// Blocks that the chain alone proves, and that are not held against what a seal names: there were too many of them between two seals, or the trail
    /// was taken back there.
    pub by_chain: u64,
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
        if self.by_chain > 0 {
            writeln!(
                f,
                "Proved by the chain alone: {} blocks, which are not held against what the seal behind them names, since they are too many, or the trail was \
                 taken back.",
                self.by_chain
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

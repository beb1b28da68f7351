//! What seals show beyond that they fit: each with its sentence, and how grave it is.

use super::{Place, SEALS_MAX};

/// What a seal shows beyond that it fits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealFinding {
    /// The first one.
    #[error("the trail is sealed from {at} on")]
    Began {
        /// Of its block.
        at: Place,
    },
    /// New keys in a new epoch: the spool or its keys were lost, or the gateway was enrolled again.
    #[error("the seal keys began again with the new epoch, at {at}")]
    BeganWithEpoch {
        /// Of its block.
        at: Place,
    },
    /// New keys amid an epoch.
    #[error(
        "the seal keys began again at {at}, amid an epoch: they were lost, or somebody rewrote what was sealed after {after}; compare it with the \
         coordinator's copy"
    )]
    BeganAgain {
        /// Of its block.
        at: Place,
        /// The last seal by the keys before.
        after: Place,
    },
    /// Seals are missing in between.
    #[error("{count} seals before {at} are missing: their blocks were shed or taken out")]
    Skipped {
        /// Of the next one.
        at: Place,
        /// How many.
        count: u64,
    },
    /// The identity key does not vouch for the keys.
    #[error(
        "at {at}, the identity key has vouched for none of the last {seals} seals: nothing proves whose they are"
    )]
    Unvouched {
        /// Of the newest one.
        at: Place,
        /// How many.
        seals: u64,
    },
    /// There are none any more.
    #[error(
        "the trail was sealed up to {after}, and goes on without seals: {blocks} blocks up to {at} have none. The source's keys cannot be kept, its \
         disk is short, or somebody else writes in its name"
    )]
    Unsealed {
        /// Of the newest block.
        at: Place,
        /// The last seal.
        after: Place,
        /// How many.
        blocks: u64,
    },
    /// The source's clock.
    #[error("by the seals, the source's clock went back by {back_ms} ms before {at}")]
    ClockBack {
        /// Of the seal with the earlier time.
        at: Place,
        /// By how much.
        back_ms: u64,
    },
    /// A note or its text has another form.
    #[error("the seal at {at} cannot be read")]
    Unreadable {
        /// Of its block.
        at: Place,
    },
    /// It is another's.
    #[error("the seal at {at} is of the trail of {named}: somebody put another trail's block here")]
    Foreign {
        /// Of its block.
        at: Place,
        /// Whose it says to be.
        named: String,
    },
    /// It was made for other blocks.
    #[error("the seal at {at} was made for {named}, or for other blocks before it: the trail was altered")]
    Misplaced {
        /// Of its block.
        at: Place,
        /// Where it says to be.
        named: Place,
    },
    /// Its key did not sign it.
    #[error("the seal at {at} is not signed by the key that it names: it was forged or altered")]
    Forged {
        /// Of its block.
        at: Place,
    },
    /// The key is another one than was announced.
    #[error(
        "the seal at {at} is signed by another key than the seal before it announced: somebody else seals in the source's name"
    )]
    OtherKey {
        /// Of its block.
        at: Place,
    },
    /// Its key had signed already.
    #[error(
        "the seal at {at} has number {number}, and number {last} was there already: the gateway's disk was set back to an earlier state, or \
         copied"
    )]
    WentBack {
        /// Of its block.
        at: Place,
        /// Its number.
        number: u64,
        /// The greatest so far.
        last: u64,
    },
    /// More than a source makes.
    #[error(
        "the block at {at} has {count} seals, and a source makes one with each commit: only the first {SEALS_MAX} were looked at"
    )]
    TooMany {
        /// Of the block.
        at: Place,
        /// How many.
        count: usize,
    },
    /// The reader's own memory is lost.
    #[error(
        "what was known of the seals before {at} cannot be read any more: they begin again there, and nothing here shows that they go on from the ones before"
    )]
    Forgotten {
        /// Of the first block behind it.
        at: Place,
    },
    /// Its source reports something that only a person ends.
    #[error("its agent reports {words}")]
    Reported {
        /// Of the block in which it does.
        at: Place,
        /// What.
        words: String,
    },
    /// What the identity key is said to vouch for does not count.
    #[error("the identity key's word at {at} does not count: {why}")]
    WrongWord {
        /// Of its block.
        at: Place,
        /// Why.
        why: &'static str,
    },
}

impl SealFinding {
    /// Whether it is grave: not how a trail begins and goes on of which nothing was lost.
    pub fn is_alarm(&self) -> bool {
        !matches!(self, Self::Began { .. } | Self::ClockBack { .. })
    }

    /// Whether it ends only once a person has acknowledged it: keys that the identity key would vouch for all the same, where whoever seals has that, too.
    pub fn needs_person(&self) -> bool {
        matches!(
            self,
            Self::BeganAgain { .. } | Self::OtherKey { .. } | Self::WentBack { .. } | Self::Reported { .. }
        )
    }

    /// Of the block in which it is.
    pub fn at(&self) -> Place {
        match self {
            Self::Began { at }
            | Self::BeganWithEpoch { at }
            | Self::BeganAgain { at, .. }
            | Self::Skipped { at, .. }
            | Self::Unsealed { at, .. }
            | Self::Unvouched { at, .. }
            | Self::ClockBack { at, .. }
            | Self::Unreadable { at }
            | Self::Foreign { at, .. }
            | Self::Misplaced { at, .. }
            | Self::Forged { at }
            | Self::OtherKey { at }
            | Self::WentBack { at, .. }
            | Self::WrongWord { at, .. }
            | Self::TooMany { at, .. }
            | Self::Reported { at, .. }
            | Self::Forgotten { at } => *at,
        }
    }
}

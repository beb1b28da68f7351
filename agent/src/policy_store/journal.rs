//! The journal of changes, one record: which policy the kernel was about to hold, the trial that it may be on, what was taken back,
//! and whether a person holds this gateway.
//!
//! The journal decides. Whether a trial runs, was confirmed or was reverted is what this one record says; the marks of what is in
//! force and believed follow it. It is written before the kernel is asked, so that an agent that ends anywhere is taken up where
//! it was. Beside each stored policy stands the order that came with it.

use std::time::Duration;

use penstock_policy::ids::{Digest, Revision};
use penstock_policy::release::Trust;
use serde::{Deserialize, Serialize};

/// Reverted releases that are remembered at most. When there are as many, no further trial begins.
pub const REVERTED_MAX: usize = 16;
/// Must-flows that a trial watches at most.
pub const BEATS_MAX: usize = 256;

/// How far a release goes on this gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Upto {
    /// Verified, checked with the kernel and stored.
    Staged,
    /// And live traffic is judged by it, beside the policy in force.
    Shadow,
    /// In force, as soon as nothing holds it.
    #[default]
    Active,
}

/// What comes with an offer. It never widens what the signed plan allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// How far.
    pub upto: Upto,
    /// How long it is on trial; `None`: it is in force at once.
    pub trial_ms: Option<u64>,
    /// The rollout and its wave, for people.
    pub why: String,
    /// Which order it is. It is not stored: what is stored is obeyed whoever gave it, and a number is an answer to its own session.
    #[serde(skip)]
    pub number: OrderNumber,
}

impl Order {
    /// Whether both ask for the same, whichever they are.
    pub fn asks_the_same_as(&self, other: &Self) -> bool {
        let number = self.number;
        *self
            == Self {
                number,
                ..other.clone()
            }
    }
}

/// Which order of which session it is. The number says nothing in another session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OrderNumber {
    /// When its session was opened, on the boot's clock: no two sessions are opened at one moment.
    pub session: Duration,
    /// Its number there; 0: none.
    pub number: u64,
}

impl OrderNumber {
    /// What it is for the session that was opened then; 0: none.
    pub fn in_session(self, opened: Duration) -> u64 {
        if self.session == opened { self.number } else { 0 }
    }
}

/// What stands in the record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    /// What the gateway believes with the newest policy that the kernel may hold; on trial, once it is confirmed.
    pub applying: Option<Trust>,
    /// The trial that `applying` is on.
    pub trial: Option<TrialRecord>,
    /// The release whose trial was confirmed last: while `applying` is that one, it is in force for good, whatever the marks say.
    pub confirmed: Option<Digest>,
    /// Releases that were reverted, the oldest first: refused until a person clears them.
    pub reverted: Vec<RevertedRelease>,
    /// A person holds this gateway as it is.
    pub hold: Option<PersonHold>,
    /// What stood before a first policy that was reverted, until it stands again; as [`TrialRecord::ground`].
    pub ground: Option<String>,
}

/// A trial, as it was when it began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialRecord {
    /// What was in force before; `None`: nothing.
    pub previous: Option<PreviousPolicy>,
    /// What stood before, where nothing was in force: in the words of the data plane ([`crate::kernel::Kernel::ground`]).
    #[serde(default)]
    pub ground: Option<String>,
    /// The boot in which it began; empty: not known, and never the same.
    pub boot: String,
    /// When, on the clock of that boot, milliseconds.
    pub began_ms: u64,
    /// How long it goes on at most.
    pub length_ms: u64,
    /// The order's reason.
    pub why: String,
    /// A session with the coordinator stood when it began.
    pub managed: bool,
    /// Must-flows that were alive when it began.
    pub beats: Vec<Beat>,
    /// Denials before it, and how many more may come in a minute; `None`: not bounded.
    pub denials: Option<DenialBound>,
    /// Nobody is expected to confirm it: at its end the gateway's own test does.
    #[serde(default)]
    pub islanded: bool,
    /// How many agents took it up since it began.
    #[serde(default)]
    pub starts: u32,
}

/// The policy that a trial goes back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviousPolicy {
    /// Digest of its statement.
    pub statement: Digest,
    /// Where it is stored; empty: not known.
    pub slot: String,
}

/// A must-flow and its own rhythm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beat {
    /// `conduit/flow`.
    pub flow: String,
    /// The longest usual silence, milliseconds.
    pub rhythm_ms: u64,
}

/// Denials in a trial, in any minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenialBound {
    /// Counted when it began.
    pub before: u64,
    /// More than so many in it revert it.
    pub max: u64,
}

/// A release that came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevertedRelease {
    /// Digest of its statement.
    pub statement: Digest,
    /// Its revision.
    pub revision: Revision,
    /// Stable word of the reason.
    pub code: String,
    /// The reason.
    pub why: String,
    /// When, milliseconds since 1970, as far as the clock was right.
    pub at_ms: u64,
    /// The coordinator asked for it.
    #[serde(default)]
    pub ordered: bool,
}

/// A person's hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonHold {
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// Since when, milliseconds since 1970.
    pub since_ms: u64,
}

impl Journal {
    /// The statement that the kernel may hold as the newest.
    pub fn names(&self) -> Option<Digest> {
        self.applying.as_ref()?.current
    }

    /// The release that is in force for good since its trial was confirmed, if it is the newest.
    pub fn confirmed(&self) -> Option<Digest> {
        let confirmed = self.confirmed.filter(|_| self.trial.is_none());
        confirmed.filter(|confirmed| self.names() == Some(*confirmed))
    }

    /// Whether this statement was reverted and not cleared since.
    pub fn is_reverted(&self, statement: Digest) -> bool {
        self.reverted
            .iter()
            .any(|reverted| reverted.statement == statement)
    }

    /// Forgets what can never come again, since the floor is above it.
    pub(crate) fn forget_below(&mut self, floor: Revision) {
        self.reverted.retain(|reverted| reverted.revision > floor);
    }
}

/// What is believed with a stored policy, and the order that came with it, as they are stored.
pub(super) fn with_order(trust: &Trust, order: &Order) -> Vec<u8> {
    // Names, numbers and keys cannot fail to be JSON; an empty trust is refused when it is read.
    if order.asks_the_same_as(&Order::default()) {
        return serde_json::to_vec(trust).unwrap_or_default();
    }
    serde_json::to_vec(&(trust, order)).unwrap_or_default()
}

/// Reads what [`with_order`] wrote.
pub(super) fn read_with_order(bytes: &[u8]) -> Result<(Trust, Order), serde_json::Error> {
    match bytes.first() {
        Some(b'[') => serde_json::from_slice(bytes),
        _ => Ok((serde_json::from_slice(bytes)?, Order::default())),
    }
}

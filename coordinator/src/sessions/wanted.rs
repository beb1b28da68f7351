//! What one gateway should have, as its session is given it: a release and how far it may go with that, or a word about the trial
//! that it is on. Who decides it is `rollout`'s.

use std::sync::Arc;

use penstock_policy::ids::Digest;
use penstock_proto::convert::PolicyMark;
use penstock_proto::v1;

use crate::releases::CurrentRelease;

/// What a gateway should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Of which release.
    pub mark: PolicyMark,
    /// How far it may go with it; `None`: in force at once, on no trial. So to agents that know no trials, and where nothing is
    /// rolled out.
    pub order: Option<Order>,
    /// It is sent the release if it does not have it; else only the order.
    pub offers: bool,
}

/// An order as it goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Rises from order to order, over all rollouts; never 0.
    pub number: u64,
    /// How far.
    pub upto: v1::Upto,
    /// Length of the trial; 0: none.
    pub trial_seconds: u32,
    /// The rollout and its wave, in words.
    pub why: Arc<str>,
}

/// What a gateway is to do with the release that is on trial there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// It stays.
    Confirm(Digest),
    /// It goes.
    Revert {
        /// Which.
        statement: Digest,
        /// Why, for the gateway's trail.
        reason: Arc<str>,
    },
}

/// What a session is given: it does what is new in it.
#[derive(Debug, Clone, Default)]
pub struct Directive {
    /// What the gateway should have, and the release to make the offer of.
    pub target: Option<(Wanted, Arc<CurrentRelease>)>,
    /// The last word about a trial, and its number, so that the same one can be said again.
    pub word: Option<(u64, Word)>,
}

impl Directive {
    /// Whether a session that did what one says has nothing to do by the other.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let wanted = |directive: &Self| directive.target.as_ref().map(|(wanted, _)| wanted.clone());
        wanted(self) == wanted(other) && self.word == other.word
    }
}

impl Wanted {
    /// A release that is in force at once, on no trial.
    pub fn at_once(mark: PolicyMark) -> Self {
        Self {
            mark,
            order: None,
            offers: true,
        }
    }

    /// Whether the gateway may put it in force.
    pub fn is_active(&self) -> bool {
        self.order
            .as_ref()
            .is_none_or(|order| order.upto == v1::Upto::Active)
    }

    /// Whether both ask the same, by whatever number.
    pub fn is_but_for_number(&self, other: &Self) -> bool {
        let asked = |wanted: &Self| {
            wanted
                .order
                .as_ref()
                .map(|order| (order.upto, order.trial_seconds, order.why.clone()))
        };
        (self.mark, self.offers) == (other.mark, other.offers) && asked(self) == asked(other)
    }

    /// The order for the wire.
    pub fn to_wire(&self) -> Option<v1::Order> {
        let order = self.order.as_ref()?;
        Some(v1::Order {
            statement_digest: self
                .mark
                .statement
                .map(|digest| digest.0.to_vec().into())
                .unwrap_or_default(),
            upto: order.upto.into(),
            trial_seconds: order.trial_seconds,
            number: order.number,
            why: order.why.to_string(),
        })
    }
}

impl Word {
    /// For the wire.
    pub fn to_wire(&self) -> v1::coordinator_message::Message {
        use v1::coordinator_message::Message as Down;
        match self {
            Self::Confirm(statement) => Down::Confirm(v1::ConfirmTrial {
                statement_digest: statement.0.to_vec().into(),
            }),
            Self::Revert { statement, reason } => Down::Revert(v1::RevertTrial {
                statement_digest: statement.0.to_vec().into(),
                reason: reason.to_string(),
            }),
        }
    }
}

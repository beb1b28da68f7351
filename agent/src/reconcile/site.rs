//! What a change of the policy is judged by beside the clock: the seam between deciding and whoever knows the plant.
//!
//! All of it is asked for at each look, so that nothing is missed by an agent that was away. Nothing here waits: what has to ask the
//! network does so beside, and says "not safe" until it has an answer.

use std::time::Duration;

use penstock_policy::plan::Plan;

use super::window::Windows;
use crate::policy_store::journal::OrderNumber;

/// Whether the process says that it may be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interlock {
    /// The plan has none.
    NotDeclared,
    /// It says so now.
    Safe,
    /// It does not, or does not answer; why.
    NotSafe(String),
}

/// A must-flow of the policy in force, or of the one before while its successor is on trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MustFlow {
    /// `conduit/flow`.
    pub name: String,
    /// The longest silence that is usual for it; `None`: it is not alive, or was not watched for long enough.
    pub rhythm: Option<Duration>,
    /// When it was last seen, on the boot's clock.
    pub seen: Option<Duration>,
}

/// What is so now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Must-flows.
    pub must_flows: Vec<MustFlow>,
    /// When the session that stands was opened, on the boot's clock; `None`: there is none.
    pub session: Option<Duration>,
    /// When the last connection was begun that a coordinator's address answered, be it that nobody listens there, on the boot's clock.
    pub answered: Option<Duration>,
    /// This site is declared to be without a coordinator most of the time: its own test confirms a trial that nobody else did.
    pub islanded: bool,
    /// What was denied within the last minute.
    pub denials: u64,
    /// How much more a trial may deny within a minute than was denied before it; `None`: any.
    pub denials_max: Option<u64>,
}

impl Facts {
    /// Whether somebody can confirm a trial that begins now by this order: the gateway's own test where it is islanded; else the
    /// coordinator, in the session that stands, if it gave the order there.
    pub fn has_confirmer(&self, order: OrderNumber) -> bool {
        self.islanded || self.session == Some(order.session)
    }
}

/// Whoever knows it.
pub trait Site: Send + Sync + 'static {
    /// The kernel's identifier of this boot; empty if it is not known.
    fn boot(&self) -> String {
        crate::boot::id()
    }

    /// When this plan's gateway may change; `None`: at any time. An error is no time.
    fn windows(&self, _plan: &Plan) -> Option<Result<Windows, String>> {
        None
    }

    /// What the process says; asked only when nothing else holds a change.
    fn interlock(&self, _plan: &Plan) -> Interlock {
        Interlock::NotDeclared
    }

    /// What is so now.
    fn facts(&self) -> Facts {
        Facts::default()
    }

    /// Whether somebody can confirm a trial that begins now by this order.
    fn has_confirmer(&self, order: OrderNumber) -> bool {
        self.facts().has_confirmer(order)
    }
}

/// A site that knows nothing, and holds nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unguarded;

impl Site for Unguarded {
    fn has_confirmer(&self, _: OrderNumber) -> bool {
        true
    }
}

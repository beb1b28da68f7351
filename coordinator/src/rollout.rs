//! Carrying one approved release to its gateways: which may activate it, when, and when to stop.
//!
//! ```text
//! plan ── judge            what a person writes, and what is wrong with it
//!  │  └── defaults         what is written where nobody wrote anything
//! waves ── fleet           which gateway is in which wave, from the recorded seed
//!  └─▶ machine ◀── facts   state, facts and the time in; targets, confirmations, reverts and words out
//!        ├── seats         what is known of one gateway
//!        └── gate          whether failures are more than chance
//! ```
//!
//! All of it is pure: no clock, no store, no socket. A shell keeps four rules: what a step changed is written to the store before
//! anything comes of it; facts of one session arrive in their order; a session reads its gateway's [`Target`] when it opens and
//! whenever it is named by an action; and the machine is stepped again by its deadline.

mod defaults;
mod facts;
mod fleet;
mod gate;
mod judge;
mod machine;
mod plan;
mod seats;
mod waves;

pub use defaults::{REASONS, default_plan};
pub use facts::{Fact, HardEvent, HoldReason, Now, RevertReason, Standing};
pub use fleet::{Fleet, FleetError, LAB_LABEL, Member};
pub use gate::{exceeds, lower_bound};
pub use judge::{Problem, problems};
pub use machine::{
    Action, Command, HaltReason, Note, Record, RestoreError, Rollout, Setup, Stage, SteerError, Target, Upto,
    Wait, WaitReason,
};
pub use plan::{Converge, FORMAT, GateLimits, RolloutPlan, Selector, Span, SpanError, Wave};
pub use seats::Mark;
pub use waves::assign;

#[cfg(test)]
mod tests;

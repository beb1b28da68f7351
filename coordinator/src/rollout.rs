//! Carrying one approved release to its gateways: which may activate it, when, and when to stop. The plan of it is
//! `penstock_policy::rollout`'s.
//!
//! ```text
//! machine ◀── facts   state, facts and the time in; targets, confirmations, reverts and words out
//!  ├── seats          what is known of one gateway
//!  └── gate           whether failures are more than chance
//! run                the shell: rollouts in the store, sessions, what operators call
//! ```
//!
//! But for `run`, all of it is pure: no clock, no store, no socket. The shell keeps four rules: what a step changed is written to the store before
//! anything comes of it; facts of one session arrive in their order; a session reads its gateway's [`Target`] when it opens and
//! whenever it is named by an action; and the machine is stepped again by its deadline.

mod facts;
mod gate;
mod machine;
pub mod run;
mod seats;

pub use facts::{Fact, HardEvent, HoldReason, Now, RevertReason, Standing};
pub use gate::{exceeds, lower_bound};
pub use machine::{
    Action, Command, HaltReason, Note, Record, RestoreError, Rollout, Setup, Stage, SteerError, Target, Upto,
    Wait, WaitReason,
};
pub use seats::Mark;

#[cfg(test)]
mod tests;

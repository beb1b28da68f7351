//! How a release is carried to its gateways, as a person writes it: the fleet, the plan, what is wrong with a plan, and whom it
//! chooses in which order.
//!
//! ```text
//! plan ── judge            what a person writes, and what is wrong with it
//!  │  ├── text             from a file's YAML, each fault with its line
//!  │  └── defaults         what is written where nobody wrote anything; as a file: written
//! waves ── fleet           which gateway is in which wave, from the recorded seed
//!            └── tunnels   which gateways have to be in one
//! ```
//!
//! What comes of a plan is decided by the coordinator's `rollout`, and on each gateway by its own trial.

mod defaults;
mod fleet;
mod judge;
mod plan;
mod text;
mod tunnels;
mod waves;
mod written;

pub use defaults::{REASONS, default_plan};
pub use fleet::{CELL_LABEL, Fleet, FleetError, LAB_LABEL, Member};
pub use judge::{Problem, own_problems, problems};
pub use plan::{Converge, FORMAT, GateLimits, RolloutPlan, Selector, Span, SpanError, Wave};
pub use text::ReadPlan;
pub use tunnels::joined;
pub use waves::assign;
pub use written::commented;

#[cfg(test)]
mod tests;

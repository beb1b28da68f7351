//! The machine that the rules stand on: its base rules at boot, kernel parameters, routes, its bridges' tables, and what it lacks.

pub mod base;
pub(super) mod before;
pub(crate) mod beyond;
pub(super) mod forwarding;
pub(super) mod needs;
pub(crate) mod neighbours;
pub mod routing;
pub(super) mod sysctl;

//! What the kernel reports and what is looked at each second, made into events of the trail and conditions for health.

pub(super) mod account;
pub(super) mod conditions;
pub mod counters;
pub mod direction;
pub(super) mod drift;
pub mod events;
pub(super) mod explain;
pub(super) mod looks;
pub mod nflog;
pub(super) mod passage;
pub(super) mod routes;
pub mod standing;
pub(super) mod verdicts;

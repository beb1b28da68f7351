//! What the kernel logs of its verdicts, made into events of the trail: `nflog` reads a message, `direction` says which end is the
//! client, `events` gathers, `explain` gives names and reasons, `reports` holds what waits, `account` how much was reported.
//!
//! Not here: the loops that read and hand on (`watch/verdicts`).

pub(super) mod account;
pub mod direction;
pub mod events;
pub(super) mod explain;
pub mod nflog;
pub(super) mod reports;

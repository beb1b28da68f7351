//! # penstock-policy
//!
//! From the plant document to a verdict, as pure functions: no IO, no clock, no async.
//!
//! ```text
//! plant.yaml ─ document ─ validate ─▶ model ─ compile ─▶ plan ─ decide ─▶ verdict
//!                                      │                 ├─ check    is this plan safe to live with?
//!                                      │                 ├─ explain  why does this pass, or not?
//!                                      │                 └─ release  what approvers sign, what gateways verify
//!                                      ├─ diff, reach    what changes for whom; what can act on what
//!                                      └─ preview        both, and what follows from a change, before it is signed
//! ```
//!
//! Invariants: nothing here means "allow" by being absent; the same input gives the same bytes; every
//! fault of a document is reported at once, with its place.

// What fails says so: of a library that others build on.
#![warn(clippy::missing_errors_doc)]

#[cfg(any(test, feature = "arbitrary"))]
pub mod arbitrary;
pub mod assurance;
pub mod batch;
pub mod break_glass;
pub mod change;
pub mod check;
pub mod compile;
pub mod diagnostics;
pub mod diff;
pub mod document;
pub mod explain;
pub mod ids;
pub mod merkle;
pub mod model;
pub mod neighbours;
pub mod overrides;
pub mod plan;
pub mod preview;
pub mod protocol;
pub mod reach;
pub mod record;
pub mod release;
pub mod rollout;
pub mod schema;
pub mod secrets;
pub mod ssh;
pub mod standard;
pub mod terms;
pub mod text;
pub mod times;
mod validate;
pub mod verdict;
pub mod words;

pub use document::{LoadedDocument, load};

#[cfg(test)]
mod waterworks;

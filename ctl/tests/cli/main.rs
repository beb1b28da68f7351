//! The real program on the example plants and on recorded traffic: what it says, to people and to programs, and how it ends.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub
)]

mod begin;
mod check;
mod explain;
mod keys;
mod openssh;
mod overrides;
mod releases;
mod rollout;
mod said;
mod terminal;
mod traffic;
mod views;

//! One-way bridges with real brokers: what arrives, in which order, over outages and `kill -9`, and what never does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    missing_docs
)]

mod flows;
mod gateway;
mod hostile;
mod outages;
mod policy;
mod room;
mod tls;
mod world;

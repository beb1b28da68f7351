//! Learning in observing zones: that it is passive, bounded, and tells what recorded traffic of the same time tells.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    missing_docs
)]

mod frames;
mod learning;
mod tapped;
mod traffic;
#[allow(dead_code)] // The rest of it serves the kernel tests.
#[path = "../kernel/wire.rs"]
mod wire;
mod world;

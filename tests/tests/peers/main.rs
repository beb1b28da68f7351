//! The inspector before servers that others wrote: what they execute of what it lets through, on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    missing_docs
)]

mod modbus;
mod mqtt;
mod relayed;
mod revoked;

//! Inline inspection as a plant has it: programs that others wrote, through a real gateway in namespaces, routed and bridged.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    missing_docs
)]

mod assurance;
mod interlock;
mod last_metre;
mod life;
mod memory;
mod modbus;
mod mqtt;
mod mqtts;
mod observing;
mod pki;
mod restart;
mod roles;
mod shadow;
mod sweep;
mod vanished;
mod withdrawn;
mod world;

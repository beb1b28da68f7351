//! The kernel data plane in namespaces: what really passes a gateway, by raw frames on its wires.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    missing_docs
)]

mod bound;
mod bridge;
mod bursts;
mod bypass;
mod check;
mod doubt;
mod flows;
mod frames;
mod granted;
mod input;
mod inspected;
mod inspector;
mod legs;
mod losses;
mod outside;
mod passage;
mod plans;
mod random;
mod routers;
mod shadow;
mod standby;
mod stood;
mod strays;
mod turned;
mod udp;
mod unfinished;
mod watch;
mod wire;
mod withdrawn;
mod world;

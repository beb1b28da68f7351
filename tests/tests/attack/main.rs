//! A scripted attacker of the data path: frames and packets from each side of a routed and of a bridged gateway, and of each
//! what must hold. One file per topic, each a table of attempts (`table.rs`); whoever finds one more adds it there. `attempts.rs` lists
//! these and those that stand elsewhere: budgets, framings, MQTT.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    missing_docs
)]

mod addresses;
mod attempts;
mod gateway;
mod icmp;
mod learning;
mod modes;
mod neighbours;
mod overridden;
#[allow(dead_code)] // The rest of it serves the kernel tests.
#[path = "../kernel/plans.rs"]
mod plans;
mod table;
#[allow(dead_code)] // The rest of it serves the kernel tests.
#[path = "../kernel/wire.rs"]
mod wire;
#[allow(dead_code)] // The rest of it serves the kernel tests.
#[path = "../kernel/world.rs"]
mod world;

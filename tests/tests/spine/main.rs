//! The spine with the real programs over real mTLS: what is promised when processes are killed and disks are full.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    missing_docs
)]

mod at_the_cabinet;
mod disk;
mod est;
mod killed;
mod overrides;
mod panel;
mod restored;
mod trail;
mod trials;
mod world;

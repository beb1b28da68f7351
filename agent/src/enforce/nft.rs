//! The way to the kernel's packet filter and back: scripts for `nft`, batches straight over netlink, and what is read back.
//!
//! `names` says what things are called there, `maps` which map holds what, and `wire` which numbers nf_tables has: below both ways.
//!
//! Not here: what is to be loaded (`shape`), and when (`table`).

pub(super) mod batch;
pub(super) mod maps;
pub(super) mod must_flows;
pub mod names;
pub(super) mod netlink;
pub mod readback;
pub mod render;
pub mod run;
pub(super) mod wire;

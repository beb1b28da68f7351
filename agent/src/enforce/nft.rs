//! The way to the kernel's packet filter and back: scripts for `nft`, batches straight over netlink, and what is read back.
//!
//! Not here: what is to be loaded (`shape`), and when (`table`).

pub(super) mod batch;
pub(super) mod netlink;
pub mod readback;
pub mod render;
pub mod run;
pub(super) mod wire;

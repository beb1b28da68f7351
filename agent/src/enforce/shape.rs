//! From a plan to what the kernel is to hold: the elements of its maps, and the structure of its rules. Pure.

pub mod block;
pub(super) mod legs;
pub mod lower;
pub mod neighbours;
pub(crate) mod passive;
pub(super) mod shadow;
pub(super) mod spans;
pub mod structure;

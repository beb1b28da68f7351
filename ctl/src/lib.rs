//! # penstock
//!
//! What the operator's program is made of.

pub mod lab;

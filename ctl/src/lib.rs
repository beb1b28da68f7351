//! # penstock
//!
//! What the operator's program is made of.

pub mod demo;
pub mod lab;

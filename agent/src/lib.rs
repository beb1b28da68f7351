//! # penstock-agent
//!
//! What runs on an edge gateway: obeys signed policy, enforces it in the kernel, and keeps the audit trail.

pub mod audit;
pub mod clock;
pub mod durable;
pub mod enforce;

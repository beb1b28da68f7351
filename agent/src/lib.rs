//! # penstock-agent
//!
//! What runs on an edge gateway: obeys signed policy, enforces it in the kernel, and keeps the audit trail.
//!
//! ```text
//! link (session, enrol, renew) ── offers ──▶ reconcile ── plans ──▶ kernel (enforce)
//!        ▲                                      │  ▲                   │
//!        │ blocks, state, health        policy_store, store            │ verdicts, drift
//!        └────────────────────── audit (spool) ◀┴──────────────────────┘
//! ```
//!
//! Beside them `tap` learns what zones do that only observe, and `bindings` which MAC address is behind which address.
//!
//! Invariants: the stored policy is in force before anything waits for the network; no input from network, disk or
//! kernel makes anything here panic; every queue is bounded and says what happens when it is full.

#![warn(clippy::missing_errors_doc)]

pub mod allocator;
mod allowance;
pub mod app;
pub mod audit;
pub mod bindings;
pub mod boot;
pub mod bridge;
pub mod carried;
pub mod clock;
pub mod commands;
pub mod config;
pub mod data_plane;
mod database;
pub mod durable;
pub mod enforce;
pub mod est;
#[cfg(test)]
mod fixture;
pub mod grants;
pub mod health;
pub mod identity;
pub mod inspector;
pub mod intercept;
pub mod interlock;
mod jitter;
pub mod kernel;
pub mod kernel_head;
pub mod known_time;
mod last_minute;
pub mod link;
pub mod local;
pub mod log;
pub mod memory;
pub mod observed;
pub mod offer;
pub mod overrides;
pub mod panel;
pub mod policy_store;
pub mod reconcile;
pub mod rollback;
pub mod scada;
pub mod service_manager;
pub mod site;
pub mod status;
pub mod store;
pub mod tap;
pub mod ticket;
pub mod timepiece;
pub mod tpm;
pub mod trails;
pub mod trust;
pub mod tunnel;
pub mod voucher;
pub mod watchdog;
pub mod withdrawn;
pub mod zones;

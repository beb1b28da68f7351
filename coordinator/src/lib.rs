//! # penstock-coordinator
//!
//! The coordinator issues identities, carries signed releases to the gateways, gathers their audit trails and shows
//! each zone's health. It decides nothing about traffic: a gateway obeys only what the approvers signed, and
//! goes on without the coordinator (DESIGN, promises 1 and 4).
//!
//! ```text
//!            api ── gate (who may do what, in one place)
//!   ┌─────────┼──────────┬────────────┬──────────┐
//! enrolment  releases   sessions    query      health
//! devices, ca  │          │ ingest    │          │
//!   est        │          │           │          │      est: devices themselves, over HTTP
//!   └──────────┴──────────┴─ store ───┴──────────┘        journal: what operators did, in our own chain
//! ```
//!
//! Invariants: who a caller is comes from its certificate alone; a change of state is one transaction, written
//! against the revisions that were read and with its event; an acknowledged audit block is on disk; every queue is bounded.
//!
//! `app` wires all of it, and nothing imports `app`.

#![warn(clippy::missing_errors_doc)]

pub mod alarms;
pub mod allowance;
pub mod api;
pub mod app;
pub mod ca;
pub mod clock;
pub mod config;
pub mod devices;
pub mod enrolment;
pub(crate) mod est;
pub mod evidence;
pub mod export;
pub mod files;
mod frame;
pub mod health;
pub mod health_watch;
pub mod identities;
pub mod ingest;
pub mod journal;
mod last_admin;
pub mod metrics;
pub mod oidc;
pub mod operators;
pub mod own_certificate;
mod own_seals;
pub mod pkcs11;
pub mod query;
pub mod releases;
pub mod requests;
pub mod retention;
pub mod rollout;
pub mod scada;
pub mod sessions;
pub mod store;
mod strangers;
pub mod subjects;
pub mod summary;
pub mod tickets;
pub mod witnesses;

pub(crate) use penstock_policy::text::sentence as chain;

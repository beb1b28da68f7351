//! The coordinator's API against those who should not get in, those who should not do that, and those who should.
//!
//! Everything runs over real TLS connections against a whole coordinator in this process, or, where it is killed,
//! against the real program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub
)]

mod adopt;
mod anchored;
mod approvals;
mod approvers;
mod audit;
mod authority;
mod batches;
mod bounds;
mod callers;
mod carrying;
mod cosigned;
mod dark;
mod devices;
mod disk;
mod effects;
mod emergencies;
mod est;
mod evidence;
mod exports;
mod foreign;
mod forks;
mod history;
mod identities;
mod lies;
mod lists;
mod logins;
mod lost;
mod memory;
mod names;
mod oidc;
mod outages;
mod person;
mod pkcs11;
mod recorded;
mod releases;
mod restored;
mod roles;
mod rollouts;
mod scada;
mod sessions;
mod stolen;
mod tokens;
mod tpm;
mod trust;
mod turns;
mod twins;
mod why;
mod world;

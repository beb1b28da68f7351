//! # penstock-proto
//!
//! The contract on the wire: generated messages and services, the conversions between wire and domain, the
//! TLS profile, and who a peer is. Wire becomes domain only by `TryFrom`, in one place per message; a default
//! never fills a missing field.

// What fails says so: of a library that others build on.
#![warn(clippy::missing_errors_doc)]

pub mod audit;
pub mod backoff;
pub mod bundle;
pub mod channel;
pub mod codec;
pub mod convert;
pub mod dumps;
pub mod est;
pub mod event;
pub mod export;
pub mod fault;
pub mod https;
pub mod issuing;
pub mod keys;
pub mod learned;
pub mod peer;
pub mod refusal;
pub mod role;
pub mod tls;
pub mod token;
pub mod whole;
pub mod withdrawn;

/// Generated from `proto/penstock/v1/*.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("penstock.v1");

    /// The encoded descriptor set, for server reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/penstock.bin"));
}

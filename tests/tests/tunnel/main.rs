//! Tunnels between gateways: two real ones, from the document to their kernels, with a network between them that is not trusted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    missing_docs
)]

mod attacks;
mod clear;
mod passes;
mod pki;
mod program;
mod real;
mod world;

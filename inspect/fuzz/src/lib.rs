//! What the fuzzer runs, and what the stable tests run over the committed corpus (`inspect/tests/corpus.rs`, which
//! includes this folder). Each target takes any bytes, and panics if a promise is broken.
//!
//! - [`modbus`], [`mqtt`]: a connection, both sides by turns, cut anywhere, frozen, its rules changed; against a
//!   reader of its own kind in [`modbus_reference`] and [`mqtt_reference`] that shares no code with the inspector.
//! - [`thaw`]: bytes that claim to be a frozen connection.
//! - [`capture`]: capture files; [`segments`]: TCP segments in any order.
//! - [`play`]: bytes as a script, and what came out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub
)]

pub mod capture;
pub mod modbus;
pub mod modbus_reference;
pub mod mqtt;
pub mod mqtt_reference;
pub mod play;
pub mod segments;
pub mod thaw;

//! # penstock-inspect
//!
//! From bytes to operations, and from operations to verdicts: pure, sans-IO, without a way to panic.
//!
//! ```text
//! live connection ─┐                    ┌ modbus ┐
//!                  ├─▶ connection ─▶ decode       ├─▶ judge ─▶ forward these bytes | refuse with those
//! capture file ────┘   (either way)     └ mqtt   ┘
//! ```
//!
//! Invariants: what is forwarded is byte for byte what was judged; how a stream is cut changes nothing; what
//! two readers could understand differently is refused; memory per connection is bounded by its limits.
//! Not here: sockets, clocks, the kernel. Whoever calls brings bytes and the time.

// What fails says so: of a library that others build on.
#![warn(clippy::missing_errors_doc)]

/// Declares the folders of the protocols that are read, and the list of them.
macro_rules! protocols {
    ($($folder:ident,)*) => {
        $(pub mod $folder;)*

        /// All that are read, in the order of the list.
        pub(crate) static INSPECTORS: &[&dyn protocols::Inspector] = &[$($folder::INSPECTOR,)*];
    };
}

protocols! {
    modbus,
    mqtt,
}

mod bytes;
pub mod capture;
pub mod connection;
pub mod follow;
pub mod judge;
pub mod learn;
pub mod operation;
pub mod protocols;
pub mod query;
mod ranges;
pub mod replay;
mod sender;
pub mod share;

pub use operation::Operation;

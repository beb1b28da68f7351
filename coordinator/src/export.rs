//! The trail on its way to what the plant has: files, a SIEM by syslog over TLS, an OpenTelemetry collector. Continuous, each
//! export with a place of its own.
//!
//! ```text
//! store ─ pages behind the place ─▶ follow ─ records ─▶ receiver (file, syslog, otlp)
//!   ▲                                 │ certainly there: window
//!   └──────────── place ◀─────────────┘                  standing ─▶ health, metrics
//! ```
//!
//! Promises: each event that the filter asks for arrives at least once, in the order in which the coordinator had it; what arrives twice
//! is known by its position; what retention removed before it arrived, or what cannot be read, is a record of the export itself and a
//! fault in health. The place goes on only over what is certainly there (`window`). An export that waits costs its own task and one
//! page of blocks: ingest never waits for it, and nothing that fails here ends the coordinator.

mod follow;
mod place;
mod receiver;
mod settings;
mod standing;
mod window;

pub(crate) use self::follow::{Exporter, follow};
pub(crate) use self::settings::check;
#[cfg(test)]
mod tests;

pub use self::settings::{Destination, ExportFile, ExportSettings, Start, TlsFiles};
pub(crate) use self::standing::{ExportFaults, Standings};

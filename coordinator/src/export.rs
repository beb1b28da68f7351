//! The trail on its way to what the plant has: files, a SIEM by syslog over TLS, an OpenTelemetry collector. Continuous, each
//! export with a place of its own.
//!
//! ```text
//! store ─ pages behind the place ─▶ follow ─ records ─▶ receiver (file, syslog, otlp)
//!   ▲                                 │ certainly there: window
//!   └──────────── place ◀─────────────┘                  standing ─▶ health/exports, metrics
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
#[cfg(test)]
mod tests;
mod window;

use penstock_policy::ids::PlantId;
use tokio::task::JoinSet;

use self::follow::{Exporter, follow};
pub(crate) use self::settings::check;
pub use self::settings::{Destination, ExportFile, ExportSettings, Start, TlsFiles};
use crate::health::exports::{ExportFaults, Standings};
use crate::releases::Releases;
use crate::store::Store;

/// All exports, which run as long as this is awaited; and what a person should know of them.
pub(crate) fn all(
    exports: &[ExportSettings],
    plant: &PlantId,
    store: &Store,
    releases: &Releases,
) -> (impl Future<Output = ()> + Send + use<>, ExportFaults) {
    let standings = Standings::default();
    let faults = standings.watch();
    let exporter = |settings: &ExportSettings| Exporter {
        settings: settings.clone(),
        plant: plant.to_string(),
        store: store.clone(),
        releases: releases.clone(),
        standings: standings.clone(),
    };
    let exporters: Vec<Exporter> = exports.iter().map(exporter).collect();
    let running = async move {
        let mut running = JoinSet::new();
        for exporter in exporters {
            running.spawn(follow(exporter));
        }
        // They end with this.
        while running.join_next().await.is_some() {}
    };
    (running, faults)
}

//! Prometheus metrics and liveness, on a listener of their own that only this machine can reach.
//!
//! `/metrics` is the text format; `/healthz` answers 200 while the store takes writes, as a write has proved no longer than two
//! seconds ago, else 503. Names begin with `penstock_`.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::health::own::{PROVED_FOR_OTHERS, Probe};

/// The process has one recorder, whoever asks first installs it.
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder, once.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    if let Some(handle) = RECORDER.get() {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    // If another thread was faster, its recorder stands, and its handle is the one to use.
    if metrics::set_global_recorder(recorder).is_ok() {
        let _ = RECORDER.set(handle.clone());
        describe();
    }
    Ok(RECORDER.get().cloned().unwrap_or(handle))
}

fn describe() {
    metrics::describe_gauge!("penstock_gateways_connected", "Sessions of gateways that stand");
    metrics::describe_gauge!(
        "penstock_gateways_behind",
        "Gateways whose kernel does not hold the current release's plan"
    );
    metrics::describe_gauge!("penstock_release_current", "Revision of the current release");
    metrics::describe_gauge!("penstock_zone_state", "1 for the state that a zone is in");
    metrics::describe_gauge!(
        "penstock_coordinator_faults",
        "What is wrong with the coordinator itself: store, disk, clock, certificates"
    );
    metrics::describe_counter!("penstock_offers_total", "Offers sent to gateways");
    metrics::describe_counter!(
        "penstock_slow_gateways_total",
        "Sessions ended because the gateway took nothing"
    );
    metrics::describe_counter!("penstock_audit_blocks_total", "Audit blocks stored");
    metrics::describe_counter!("penstock_audit_events_total", "Audit events stored");
    metrics::describe_counter!(
        "penstock_audit_refused_total",
        "Deliveries of audit that did not fit"
    );
    metrics::describe_counter!(
        "penstock_audit_missing_blocks_total",
        "Audit blocks that their source never delivered"
    );
    metrics::describe_counter!("penstock_denied_total", "Calls refused, by reason");
    metrics::describe_counter!(
        "penstock_refusals_unwritten_total",
        "Refusals that were counted instead of written to the trail"
    );
    metrics::describe_counter!(
        "penstock_enrolments_total",
        "Certificates issued by token, by kind"
    );
}

#[derive(Clone)]
struct Served {
    handle: PrometheusHandle,
    probe: Arc<Probe>,
}

/// Serves until told to stop.
pub async fn serve(
    listener: TcpListener,
    handle: PrometheusHandle,
    probe: Arc<Probe>,
    stopping: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(render))
        .route("/healthz", get(healthz))
        .with_state(Served { handle, probe });
    axum::serve(listener, router)
        .with_graceful_shutdown(stopping.cancelled_owned())
        .await
}

async fn render(State(served): State<Served>) -> String {
    served.handle.run_upkeep();
    served.handle.render()
}

async fn healthz(State(served): State<Served>) -> (StatusCode, String) {
    match served.probe.fault(PROVED_FOR_OTHERS).await {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the store takes no writes: {why}\n"),
        ),
    }
}

/// Binds the listener.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

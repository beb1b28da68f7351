//! Prometheus metrics and liveness, on a listener of their own that only this machine can reach.
//!
//! `/metrics` is the text format; `/healthz` answers 200 while the store takes writes, as a write has proved no longer than two
//! seconds ago, else 503. Names begin with `penstock_`. Only requests that name this machine are answered: a page that a
//! browser here shows could else have its own name resolve to this address and read what it serves (DNS rebinding).

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::health::own::{PROVED_FOR_OTHERS, Probe};

/// The process has one recorder, whoever asks first installs it.
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder, once.
pub(crate) fn install() -> Result<PrometheusHandle, BuildError> {
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
struct MetricsState {
    handle: PrometheusHandle,
    probe: Arc<Probe>,
}

/// Serves until it is stopped.
pub(crate) async fn serve(
    listener: TcpListener,
    handle: PrometheusHandle,
    probe: Arc<Probe>,
    stopping: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(render))
        .route("/healthz", get(healthz))
        .layer(middleware::from_fn(only_for_this_machine))
        .with_state(MetricsState { handle, probe });
    axum::serve(listener, router)
        .with_graceful_shutdown(stopping.cancelled_owned())
        .await
}

async fn only_for_this_machine(request: Request, next: Next) -> Response {
    if names_this_machine(request.headers(), request.uri()) {
        return next.run(request).await;
    }
    let words = "metrics are served by the names of this machine only: localhost, 127.0.0.1 or [::1]\n";
    (StatusCode::MISDIRECTED_REQUEST, words).into_response()
}

/// Whether a request asks for this machine by a name that no page elsewhere can have: each name that it gives, and it gives
/// one. The port may be another: that of a tunnel.
fn names_this_machine(headers: &HeaderMap, uri: &Uri) -> bool {
    let hosts = headers
        .get_all(header::HOST)
        .iter()
        .map(|host| host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()));
    let mut named = hosts.chain(uri.authority().cloned().map(Some)).peekable();
    named.peek().is_some() && named.all(|authority| authority.is_some_and(|authority| is_own(&authority)))
}

fn is_own(authority: &Authority) -> bool {
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

async fn render(State(served): State<MetricsState>) -> String {
    served.handle.run_upkeep();
    served.handle.render()
}

async fn healthz(State(served): State<MetricsState>) -> (StatusCode, String) {
    match served.probe.fault(PROVED_FOR_OTHERS).await {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the store takes no writes: {why}\n"),
        ),
    }
}

/// Binds the listener.
pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn answered(hosts: &[&str], uri: &str) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, host.parse().unwrap());
        }
        names_this_machine(&headers, &uri.parse().unwrap())
    }

    #[test]
    fn only_requests_that_name_this_machine_are_answered() {
        for host in [
            "localhost",
            "LocalHost:9643",
            "127.0.0.1:9643",
            "127.0.0.1:19643",
            "[::1]:9643",
            "127.8.0.1",
        ] {
            assert!(answered(&[host], "/metrics"), "{host}");
        }
        for host in [
            "",
            "x",
            "evil.example:9643",
            "localhost.evil.example",
            "127.0.0.1.evil.example:9643",
            "localhost.",
            "192.0.2.7:9643",
            "user@127.0.0.1",
            "[::ffff:192.0.2.7]",
            "127.0.0.1:9643, evil.example",
        ] {
            assert!(!answered(&[host], "/metrics"), "{host}");
        }
        // Every name has to be one, and there has to be one.
        assert!(!answered(&[], "/metrics"));
        assert!(!answered(&["localhost", "evil.example"], "/metrics"));
        assert!(!answered(&["localhost"], "http://evil.example/metrics"));
        assert!(answered(&[], "http://localhost:9643/metrics"));
    }
}

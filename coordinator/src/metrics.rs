//! Prometheus metrics and liveness, on a listener of their own that only this machine can reach.
//!
//! `/metrics` is the text format; `/healthz` answers 200 while the store takes writes, as a write has proved no longer than two
//! seconds ago, else 503. Names begin with `penstock_`. Only requests that name this machine are answered: a page that a
//! browser here shows could else have its own name resolve to this address and read what it serves (DNS rebinding). Anybody on
//! this machine can connect: connections, their lives and the heads of their requests are bounded.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::health::own::{PROVED_FOR_OTHERS, Probe};

/// Connections at once; whoever comes then waits.
const CONNECTIONS_MAX: usize = 32;
/// How long a connection may last; a new one costs its client nothing worth mentioning.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);
/// How long the head of a request may take.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
/// Largest head of a request, bytes, and how many headers it may have: several times those of any browser or scraper.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// How long nobody is accepted after it failed.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

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
    metrics::describe_gauge!(
        "penstock_gateways",
        "Gateways by how their key stands: active, suspended, revoked or retired"
    );
    metrics::describe_gauge!("penstock_release_current", "Revision of the current release");
    metrics::describe_gauge!("penstock_zones", "Zones by the state that they are in");
    metrics::describe_gauge!(
        "penstock_flows",
        "Flows of all conduits, by the assurance of their weakest end, and how many are denied for that"
    );
    metrics::describe_gauge!(
        "penstock_zone_state",
        "1 for the state that a zone is in; none in plants of more than 500 zones"
    );
    metrics::describe_gauge!(
        "penstock_zone_flows",
        "Flows of a zone's conduits, by the assurance of their weakest end, and how many are denied for that"
    );
    for (name, meaning) in [
        (
            "penstock_tunnel_up",
            "1 while a gateway's tunnel to a peer stands",
        ),
        (
            "penstock_tunnel_round_trip_seconds",
            "There and back through a tunnel",
        ),
        (
            "penstock_tunnel_sent_packets",
            "Packets into a tunnel since the gateway's agent started",
        ),
        ("penstock_tunnel_sent_bytes", "Their bytes"),
        (
            "penstock_tunnel_received_packets",
            "Packets out of a tunnel since then",
        ),
        ("penstock_tunnel_received_bytes", "Their bytes"),
        (
            "penstock_tunnel_dropped_packets",
            "Packets that a tunnel did not take since then",
        ),
    ] {
        metrics::describe_gauge!(name, meaning);
    }
    metrics::describe_gauge!(
        "penstock_coordinator_faults",
        "What is wrong with the coordinator itself: store, disk, clock, certificates"
    );
    metrics::describe_gauge!(
        "penstock_export_waiting",
        "1 while an export of the trail waits for its receiver"
    );
    metrics::describe_gauge!(
        "penstock_export_lag_seconds",
        "How long ago the coordinator received what an export sends next; 0: it sent everything"
    );
    metrics::describe_counter!(
        "penstock_export_records_total",
        "Records that a receiver acknowledged"
    );
    metrics::describe_counter!(
        "penstock_export_rejected_total",
        "Records that a receiver rejected for good"
    );
    metrics::describe_counter!(
        "penstock_export_missing_blocks_total",
        "Blocks that were removed or unreadable before an export sent them"
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
        "penstock_connections_refused_total",
        "Connections refused in their handshake, or for want of room"
    );
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

/// Serves until the coordinator stops.
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
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => accepted,
            Some(_) = connections.join_next() => continue,
            () = stopping.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => drop(connections.spawn(answer(stream, router.clone(), stopping.clone()))),
            Err(error) => {
                tracing::warn!(%error, "the metrics server accepts nobody for a second");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    // They end: each finishes what it answers.
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// Answers what one client asks, until it goes, has had its time, or the coordinator stops.
async fn answer(stream: TcpStream, router: Router, stopping: CancellationToken) {
    let mut server = auto::Builder::new(TokioExecutor::new()).http1_only();
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // A client that breaks off or sends what is no request is no fault of ours.
    let served = async {
        tokio::select! {
            _ = connection.as_mut() => return,
            () = stopping.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.as_mut().await;
    };
    let _ = tokio::time::timeout(CONNECTION_TIME_MAX, served).await;
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
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;
    use crate::store::Store;

    fn processor_time() -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
    }

    /// What a client that sends this costs the thread that serves it, in the processor's time, and whether it is answered: the
    /// least of several goes, since what the machine does beside is none of ours.
    fn costs(sent: &[u8]) -> (Duration, bool) {
        let goes: Vec<_> = (0..7).map(|_| cost(sent)).collect();
        let answered = goes[0].1;
        assert!(goes.iter().all(|go| go.1 == answered));
        (goes.iter().map(|go| go.0).min().unwrap(), answered)
    }

    fn cost(sent: &[u8]) -> (Duration, bool) {
        let (told, address) = std::sync::mpsc::sync_channel(1);
        let stopping = CancellationToken::new();
        let stop = stopping.clone();
        let server = std::thread::spawn(move || {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(&folder.path().join("store.db")).unwrap();
            let (handle, probe) = (install().unwrap(), Arc::new(Probe::new(store)));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
                told.send(listener.local_addr().unwrap()).unwrap();
                let begun = processor_time();
                serve(listener, handle, probe, stop).await.unwrap();
                processor_time() - begun
            })
        });
        let mut client = TcpStream::connect(address.recv().unwrap()).unwrap();
        // It may be refused before it is done.
        let _ = client.write_all(sent);
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        drop(client);
        stopping.cancel();
        (server.join().unwrap(), answer.starts_with(b"HTTP/1.1 200"))
    }

    #[test]
    fn no_client_that_is_refused_costs_more_than_three_that_are_answered() {
        let request = |headers: &str| format!("GET /metrics HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        let (good, is_answered) = costs(request("Host: localhost\r\n").as_bytes());
        assert!(is_answered);
        let many = |count| "Host: evil.example\r\n".repeat(count);
        let long = "x".repeat(1 << 20);
        for (what, sent) in [
            ("another name", request("Host: evil.example\r\n")),
            ("many names", request(&many(90))),
            ("more names than there may be", request(&many(10_000))),
            ("a long name", request(&format!("Host: {long}\r\n"))),
            (
                "a long path",
                format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            ),
            ("no HTTP", long.clone()),
            ("TLS", "\x16\x03\x01".repeat(1 << 18)),
        ] {
            let (spent, is_answered) = costs(sent.as_bytes());
            assert!(!is_answered, "{what}");
            println!("{what}: {spent:?}; one that is answered: {good:?}");
            assert!(
                spent <= good * 3,
                "{what}: {spent:?}; one that is answered costs {good:?}"
            );
        }
    }

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

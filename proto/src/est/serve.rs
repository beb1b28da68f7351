//! HTTP for devices: where they connect, what of their requests is read, and how they are answered.
//!
//! Connections are met as those of gateways and operators are ([`Reception`]), with bounds of their own: devices that enrol all at once
//! take no place from these. A connection ends after [`CONNECTION_TIME_MAX`] also with a certificate: a new one costs a device nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Extension, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected as _;

use super::{Answer, Asked, BODY_BYTES_MAX, Body, Desk, Login, Operation};
use crate::tls::server::{AcceptLimits, PeerInfo, PeerStream, Reception};

/// Where EST lives (RFC 7030, 3.2.2).
const FOLDER: &str = "/.well-known/est/";
/// How long a connection may last.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);
/// How long the head of a request may take, and how long its body.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// Largest head of a request, bytes, and how many headers it may have.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// Requests under way over one connection of HTTP/2.
const STREAMS_MAX: u32 = 8;
/// Longest header with a login that is read, bytes.
const LOGIN_BYTES_MAX: usize = 1024;
/// Encodings of a body: the header is for old clients, who look for it (RFC 8951, 3.1).
const TRANSFER_ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");

/// How many devices are served at once.
pub fn limits(handshake_timeout: Duration) -> AcceptLimits {
    AcceptLimits {
        handshake_timeout,
        handshakes_max: 64,
        connections_max: 256,
        anonymous_max: 128,
        anonymous_lifetime: CONNECTION_TIME_MAX,
        ..AcceptLimits::default()
    }
}

/// Serves until `stopping` is cancelled.
pub async fn serve<D: Desk>(
    listener: TcpListener,
    reception: Arc<Reception>,
    desk: Arc<D>,
    stopping: CancellationToken,
) {
    let router = Router::new().fallback(answer::<D>).with_state(desk);
    let mut arriving = Box::pin(reception.incoming(listener));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            arrived = arriving.next() => match arrived {
                Some(Ok(stream)) => drop(connections.spawn(attend(stream, router.clone(), stopping.clone()))),
                Some(Err(error)) => tracing::debug!(%error, "a device's connection is lost"),
                None => break,
            },
            Some(_) = connections.join_next() => {}
            () = stopping.cancelled() => break,
        }
    }
    drop(arriving);
    // They end: each finishes what it answers.
    while connections.join_next().await.is_some() {}
}

/// Answers what one client asks, until it goes, has had its time, or `stopping` is cancelled.
async fn attend(stream: PeerStream, router: Router, stopping: CancellationToken) {
    let chain = Arc::new(stream.chain());
    let router = router
        .layer(Extension(stream.connect_info()))
        .layer(Extension(chain));
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(16 * 1024);
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

async fn answer<D: Desk>(
    State(desk): State<Arc<D>>,
    Extension(peer): Extension<PeerInfo>,
    Extension(chain): Extension<Arc<Vec<CertificateDer<'static>>>>,
    request: Request,
) -> Response {
    let answered = match read(request).await {
        Ok((operation, login, body)) => {
            let asked = Asked {
                operation,
                body,
                login,
                chain: chain.to_vec(),
                certified: peer.certified.clone(),
                address: peer.address.ip(),
            };
            desk.answer(asked).await
        }
        Err(answer) => answer,
    };
    written(answered)
}

/// What a request asks, and what it brings. All of it is read before it is judged: a client that is cut off while it sends hears of that, and
/// not of what was wrong.
async fn read(request: Request) -> Result<(Operation, Option<Login>, Vec<u8>), Answer> {
    let (head, body) = request.into_parts();
    let body = match tokio::time::timeout(BODY_TIME_MAX, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => body.to_vec(),
        Ok(Err(_)) => {
            let words =
                format!("the body is cut off, or longer than the {BODY_BYTES_MAX} bytes that are read");
            return Err(Answer::words(413, words));
        }
        Err(_) => {
            let words = format!("the body did not come within {} s", BODY_TIME_MAX.as_secs());
            return Err(Answer::words(408, words));
        }
    };
    let Some(operation) = head.uri.path().strip_prefix(FOLDER).and_then(Operation::named) else {
        let words = format!(
            "there is nothing at this path; EST has {FOLDER}cacerts, csrattrs, simpleenroll and simplereenroll here, without a label"
        );
        return Err(Answer::words(404, words));
    };
    let wanted = match operation.brings_request() {
        true => Method::POST,
        false => Method::GET,
    };
    if head.method != wanted {
        return Err(Answer::words(405, format!("this path takes {wanted} alone")));
    }
    if !operation.brings_request() {
        return Ok((operation, None, Vec::new()));
    }
    let kind = head.headers.get(CONTENT_TYPE);
    let is_request = kind
        .and_then(|kind| kind.to_str().ok())
        .and_then(|kind| kind.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/pkcs10"));
    if !is_request {
        let words = "a certificate request is needed, with the header `Content-Type: application/pkcs10`";
        return Err(Answer::words(415, words));
    }
    Ok((operation, login(&head.headers)?, body))
}

/// Name and password, if somebody logs in.
fn login(headers: &HeaderMap) -> Result<Option<Login>, Answer> {
    let Some(header) = headers.get(AUTHORIZATION) else {
        return Ok(None);
    };
    let bad = || {
        Answer::words(
            400,
            "the header Authorization cannot be read: it has to be `Basic`, with the asset's name and the token's secret in base64",
        )
    };
    let text = header.to_str().ok().filter(|text| text.len() <= LOGIN_BYTES_MAX);
    let (scheme, encoded) = text.and_then(|text| text.split_once(' ')).ok_or_else(bad)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(bad());
    }
    let decoded = STANDARD.decode(encoded.trim()).map_err(|_| bad())?;
    let text = String::from_utf8(decoded).map_err(|_| bad())?;
    let (user, password) = text.split_once(':').ok_or_else(bad)?;
    Ok(Some(Login {
        user: user.to_owned(),
        password: password.to_owned(),
    }))
}

/// Base64 is one line without an end: clients need not read another (RFC 8951, 3.1; RFC 4648, 3.1).
fn written(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut headers = HeaderMap::new();
    let (kind, body) = match answer.body {
        Body::Authorities(der) => ("application/pkcs7-mime", STANDARD.encode(der)),
        Body::Certificate(der) => (
            "application/pkcs7-mime; smime-type=certs-only",
            STANDARD.encode(der),
        ),
        Body::Attributes(der) => ("application/csrattrs", STANDARD.encode(der)),
        Body::Words(words) => ("text/plain; charset=utf-8", format!("{words}\n")),
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::OK {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("base64"));
    }
    if status == StatusCode::UNAUTHORIZED {
        let realm = HeaderValue::from_static("Basic realm=\"penstock\", charset=\"UTF-8\"");
        headers.insert(WWW_AUTHENTICATE, realm);
    }
    if let Some(after) = answer.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    (status, headers, body).into_response()
}

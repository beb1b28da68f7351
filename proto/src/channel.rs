//! How gateways and operators reach a coordinator: one channel over several addresses.
//!
//! Each (re)connection tries the addresses in order, beginning with the one that worked last, until TCP and
//! TLS both succeed. Keepalive finds dead links in about [`KEEPALIVE_INTERVAL`] + [`KEEPALIVE_TIMEOUT`]. The
//! limits of message sizes stand here for both sides; what is larger is refused, never buffered.

use std::error::Error as StdError;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use penstock_policy::document::limits::DOCUMENT_BYTES_MAX;
use penstock_policy::text;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::tls::client::ClientTls;
use crate::tls::refused::certificate_refused;
use crate::tls::times;

/// The port that a coordinator listens on by default.
pub const DEFAULT_PORT: u16 = 7643;

/// Largest message from a gateway to the coordinator (an audit block is well below).
pub const GATEWAY_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Largest message from the coordinator to a gateway (an offer with its plan).
pub const COORDINATOR_MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Largest request of an operator: a proposal with the largest documents, its statement, and their names.
pub const OPERATOR_REQUEST_BYTES_MAX: usize = DOCUMENT_BYTES_MAX + (4 << 20);
/// Largest answer to an operator: a release with the largest documents and the statements before it, or all gateways.
pub const OPERATOR_RESPONSE_BYTES_MAX: usize = 2 * DOCUMENT_BYTES_MAX + (8 << 20);

/// How long TCP and TLS to one address may take together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which the peer is asked whether it is there.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long it has to answer.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a coordinator listens: `host:port`, with an IPv6 address in brackets.
///
/// ```
/// use penstock_proto::channel::Address;
///
/// let address: Address = "[fd00::1]:7643".parse().unwrap();
/// assert_eq!((address.host(), address.port()), ("fd00::1", 7643));
/// assert!("coordinator.example".parse::<Address>().is_err(), "the port is missing");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    host: String,
    port: u16,
}

/// A text that is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address; write `host:port`, `10.0.0.1:7643` or `[fd00::1]:7643`")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = || AddressError(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port: u16 = port.parse().map_err(|_| bad())?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?.to_string(),
            None => host.to_owned(),
        };
        // A port of 0 cannot be connected to, and what is no server name cannot be asked for.
        if port == 0 || ServerName::try_from(host.as_str()).is_err() {
            return Err(bad());
        }
        Ok(Self { host, port })
    }
}

impl Address {
    /// The DNS name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

/// Why no coordinator could be reached: what each address answered.
#[derive(Debug, Clone)]
pub struct ConnectError {
    /// Each address that was tried, and what happened there, in words.
    pub attempts: Vec<(Address, String)>,
    /// A coordinator answered, and did not accept our own certificate: another one may do.
    pub own_refused: bool,
    /// An address answered, be it that nobody listens there: packets come there and back.
    pub answered: bool,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attempts.as_slice() {
            [] => write!(f, "no address of a coordinator is known"),
            [(address, why)] => write!(f, "cannot connect to the coordinator at {address}: {why}"),
            several => {
                write!(f, "cannot connect to any coordinator:")?;
                for (address, why) in several {
                    write!(f, " {address}: {why};")?;
                }
                Ok(())
            }
        }
    }
}

impl StdError for ConnectError {}

impl ConnectError {
    /// Nothing was tried.
    pub fn nowhere() -> Self {
        Self {
            attempts: Vec::new(),
            own_refused: false,
            answered: false,
        }
    }

    /// The connection failure inside an error of the gRPC library (a transport error or a status), if it is one.
    pub fn find<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }
}

/// Connects now, or says why not.
///
/// # Errors
/// No coordinator could be reached, or none accepted the connection; each attempt is listed.
pub async fn connect(addresses: Vec<Address>, tls: ClientTls) -> Result<Channel, ConnectError> {
    let first = addresses.clone();
    endpoint()
        .connect_with_connector(connector(addresses, tls))
        .await
        .map_err(|error| {
            ConnectError::find(&error)
                .cloned()
                .unwrap_or_else(|| ConnectError {
                    attempts: first.into_iter().map(|a| (a, text::sentence(&error))).collect(),
                    own_refused: false,
                    answered: false,
                })
        })
}

/// Connects at the first call, and again whenever the connection was lost.
pub fn connect_lazy(addresses: Vec<Address>, tls: ClientTls) -> Channel {
    endpoint().connect_with_connector_lazy(connector(addresses, tls))
}

fn endpoint() -> Endpoint {
    // The name is a placeholder: the connector decides where to go, the certificate who it is.
    Endpoint::from_static("http://coordinator.penstock")
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(2 << 20)
        .user_agent(concat!("penstock/", env!("CARGO_PKG_VERSION")))
        .unwrap_or_else(|_| Endpoint::from_static("http://coordinator.penstock"))
}

fn connector(
    addresses: Vec<Address>,
    tls: ClientTls,
) -> impl tower_service::Service<
    Uri,
    Response = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>,
    Error = ConnectError,
    Future: Send,
> + Send
+ 'static {
    let addresses = Arc::new(addresses);
    let last_good = Arc::new(AtomicUsize::new(0));
    let own_validity_ms = tls.own_validity_ms;
    let tls = TlsConnector::from(tls.config);
    tower::service_fn(move |_: Uri| {
        let (addresses, last_good, tls) = (addresses.clone(), last_good.clone(), tls.clone());
        async move {
            let mut attempts = Vec::new();
            let (mut own_refused, mut answered) = (false, false);
            let begin = last_good.load(Ordering::Relaxed);
            for (index, address) in addresses
                .iter()
                .enumerate()
                .cycle()
                .skip(begin)
                .take(addresses.len())
            {
                match dial(address, &tls, own_validity_ms).await {
                    Ok(stream) => {
                        last_good.store(index, Ordering::Relaxed);
                        return Ok(TokioIo::new(stream));
                    }
                    Err(failed) => {
                        own_refused |= failed.own_refused;
                        answered |= failed.answered;
                        attempts.push((address.clone(), failed.why));
                    }
                }
            }
            Err(ConnectError {
                attempts,
                own_refused,
                answered,
            })
        }
    })
}

/// Why an address did not do.
struct AddressFailure {
    why: String,
    own_refused: bool,
    answered: bool,
}

impl From<String> for AddressFailure {
    fn from(why: String) -> Self {
        Self {
            why,
            own_refused: false,
            answered: false,
        }
    }
}

async fn dial(
    address: &Address,
    tls: &TlsConnector,
    own_validity_ms: Option<(u64, u64)>,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, AddressFailure> {
    let name = ServerName::try_from(address.host.clone()).map_err(|error| error.to_string())?;
    let answered = AtomicBool::new(false);
    let attempt = async {
        let connected = TcpStream::connect((address.host.as_str(), address.port)).await;
        let refused = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
        answered.store(
            connected.as_ref().map_or_else(refused, |_| true),
            Ordering::Relaxed,
        );
        let stream = connected.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let mut stream = tls
            .connect(name, stream)
            .await
            .map_err(|error| explain_tls(&error, own_validity_ms))?;
        // In TLS 1.3 the server judges our certificate after our side of the handshake is done. Its HTTP/2
        // settings come only if it let us in, so waiting for them turns a later riddle into an answer here.
        match stream.fill_buf().await {
            Ok([]) => Err(AddressFailure::from(
                "the coordinator closed the connection at once; it may be full or stopping".to_owned(),
            )),
            Ok(_) => Ok(stream),
            Err(error) => Err(explain_tls(&error, own_validity_ms)),
        }
    };
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, attempt).await;
    stream
        .unwrap_or_else(|_| Err(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()).into()))
        .map_err(|failed: AddressFailure| AddressFailure {
            answered: answered.load(Ordering::Relaxed),
            ..failed
        })
}

/// A failed handshake in a person's words.
fn explain_tls(error: &std::io::Error, own_validity_ms: Option<(u64, u64)>) -> AddressFailure {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(tls) => explain_rustls(tls, own_validity_ms),
        None => format!("the connection broke during the TLS handshake ({error})").into(),
    }
}

/// Why a call failed below gRPC, in a person's words; `None` if it was not the connection.
pub fn explain_failure(error: &(dyn StdError + 'static)) -> Option<String> {
    ConnectError::find(error).map(ToString::to_string)
}

fn explain_rustls(error: &rustls::Error, own_validity_ms: Option<(u64, u64)>) -> AddressFailure {
    use rustls::{AlertDescription, CertificateError, Error};
    let why = match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "the coordinator's certificate was not issued by this plant's authority".to_owned()
        }
        Error::InvalidCertificate(wrong) => certificate_refused(
            wrong,
            "the coordinator's",
            "check the coordinator's clock and certificate",
        ),
        // The alert for a certificate that is not valid yet is the same.
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            return AddressFailure {
                why: times::own_refused(own_validity_ms.unwrap_or_default(), clock_ms()),
                own_refused: true,
                answered: true,
            };
        }
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError,
        ) => {
            return AddressFailure {
                why: "the coordinator does not accept our certificate; was it issued by another plant?"
                    .to_owned(),
                own_refused: true,
                answered: true,
            };
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "the server does not speak TLS 1.3".to_owned()
        }
        other => format!("the TLS handshake failed ({other})"),
    };
    why.into()
}

/// Milliseconds since 1970 by the clock here.
fn clock_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_read_as_they_are_written() {
        for text in ["10.0.0.1:7643", "[fd00::1]:7643", "coordinator.plant.example:1"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "host",
            "host:",
            ":1",
            "host:0",
            "host:65536",
            "fd00::1:7643x",
            "[fd00::1]",
            "a b:1",
            "https://a:1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}

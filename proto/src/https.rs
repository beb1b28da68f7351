//! Asking a web server that is not of the plant: the identity provider of its people (OpenID Connect), or a collector of logs (OTLP).
//!
//! Every other connection of Penstock ends at a peer that the plant's own root names. Here the server is somebody else's, so that it
//! is verified as a browser would: by its name, against roots that the coordinator's configuration gives, and no others. TLS 1.3, HTTP/1.1. An
//! address without TLS is accepted only where nothing leaves the machine.
//!
//! One request is one connection. All is bounded: the time, the head, the body. A redirect is an answer like any other and is not followed, so that
//! nobody leads a coordinator from the address in its configuration to another one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::tls::provider;

/// How long one request may take, from the name's resolution to the last byte.
pub const TIME_MAX: Duration = Duration::from_secs(10);
/// Largest body that is read, bytes.
pub const BODY_BYTES_MAX: usize = 256 * 1024;
/// What a form is.
const FORM: &str = "application/x-www-form-urlencoded";
/// Largest head that is read, bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Why a web server gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The address.
    #[error("`{0}` is not an address that is asked: it has to begin with https:// and name a host")]
    Address(String),
    /// No root is usable.
    #[error("none of the {0} certificates that were given can verify a web server")]
    Roots(usize),
    /// The TLS library refuses the profile.
    #[error("TLS towards a web server cannot be set up")]
    Tls(#[from] rustls::Error),
    /// It took too long.
    #[error("{host} gave no answer within {} s", TIME_MAX.as_secs())]
    Slow {
        /// Who.
        host: String,
    },
    /// The connection.
    #[error("cannot connect to {host}")]
    Connect {
        /// To whom.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// HTTP.
    #[error("{host} does not answer in HTTP/1.1")]
    Http {
        /// Who.
        host: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The body.
    #[error("the answer of {host} broke off, or has more than {} KiB", BODY_BYTES_MAX / 1024)]
    Body {
        /// Whose.
        host: String,
    },
}

/// An address that may be asked.
///
/// ```
/// use penstock_proto::https::Address;
///
/// assert_eq!(Address::parse("https://login.example/a?b").unwrap().host(), "login.example:443");
/// assert!(Address::parse("http://127.0.0.1:8080/").is_ok(), "nothing leaves the machine");
/// assert!(Address::parse("http://login.example/").is_err());
/// assert!(Address::parse("https://user@login.example/").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    uri: Uri,
    name: String,
    port: u16,
    is_tls: bool,
}

impl Address {
    /// Reads it.
    ///
    /// # Errors
    /// It is no `https://` address of a host; `http://` only of this machine itself.
    pub fn parse(text: &str) -> Result<Self, HttpsError> {
        let bad = || HttpsError::Address(penstock_policy::text::shortened(text, 200).into_owned());
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?;
        if authority.as_str().contains('@') || text.contains('#') {
            return Err(bad());
        }
        let name = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        let is_here = name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if is_here => false,
            _ => return Err(bad()),
        };
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self {
            name,
            port,
            is_tls,
            uri,
        })
    }

    /// Host and port.
    pub fn host(&self) -> String {
        match self.name.contains(':') {
            true => format!("[{}]:{}", self.name, self.port),
            false => format!("{}:{}", self.name, self.port),
        }
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Of HTTP.
    pub status: StatusCode,
    /// The body.
    pub body: Vec<u8>,
}

/// Asks web servers, and believes those that these roots vouch for.
#[derive(Debug, Clone)]
pub struct Asking {
    tls: Arc<ClientConfig>,
}

impl Asking {
    /// Believes these roots and no others, DER. A bundle of a system may hold some that the library does not read: they do not count.
    ///
    /// # Errors
    /// None can be used, although some were given, or TLS cannot be set up.
    pub fn trusting(roots: &[CertificateDer<'static>]) -> Result<Self, HttpsError> {
        let mut store = RootCertStore::empty();
        let (usable, _) = store.add_parsable_certificates(roots.iter().cloned());
        if usable == 0 && !roots.is_empty() {
            return Err(HttpsError::Roots(roots.len()));
        }
        let mut tls = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(store)
            .with_no_client_auth();
        tls.resumption = rustls::client::Resumption::disabled();
        Ok(Self::with(tls))
    }

    /// Asks by this TLS, which decides whom to believe.
    pub fn with(mut tls: ClientConfig) -> Self {
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { tls: Arc::new(tls) }
    }

    /// Fetches a document.
    ///
    /// # Errors
    /// No whole answer came in time. Whatever its status is, it is an answer.
    pub async fn get(&self, address: &Address) -> Result<Answer, HttpsError> {
        self.ask(address, Method::GET, FORM, Vec::new()).await
    }

    /// Sends a form.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post(&self, address: &Address, form: &[(&str, &str)]) -> Result<Answer, HttpsError> {
        self.ask(address, Method::POST, FORM, encoded(form).into_bytes())
            .await
    }

    /// Sends bytes of this type, and takes an answer of the same.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn send(&self, address: &Address, kind: &str, body: Vec<u8>) -> Result<Answer, HttpsError> {
        self.ask(address, Method::POST, kind, body).await
    }

    async fn ask(
        &self,
        address: &Address,
        method: Method,
        kind: &str,
        body: Vec<u8>,
    ) -> Result<Answer, HttpsError> {
        let answered = tokio::time::timeout(TIME_MAX, self.asked(address, method, kind, body));
        answered
            .await
            .unwrap_or_else(|_| Err(HttpsError::Slow { host: address.host() }))
    }

    async fn asked(
        &self,
        address: &Address,
        method: Method,
        kind: &str,
        body: Vec<u8>,
    ) -> Result<Answer, HttpsError> {
        let failed = |source| HttpsError::Connect {
            host: address.host(),
            source,
        };
        let stream = TcpStream::connect((address.name.as_str(), address.port));
        let stream = stream.await.map_err(failed)?;
        if !address.is_tls {
            return over(stream, address, (method, kind), body).await;
        }
        let name = ServerName::try_from(address.name.clone())
            .map_err(|_| HttpsError::Address(address.uri.to_string()))?;
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream);
        over(stream.await.map_err(failed)?, address, (method, kind), body).await
    }
}

async fn over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: &Address,
    (method, kind): (Method, &str),
    body: Vec<u8>,
) -> Result<Answer, HttpsError> {
    let failed = |source| HttpsError::Http {
        host: address.host(),
        source,
    };
    let made = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream));
    let (mut sender, connection) = made.await.map_err(failed)?;
    // It ends with the answer, or with the one who waits for it.
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let path = address.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder()
        .method(&method)
        .uri(path)
        .header(HOST, address.uri.authority().map_or("", |host| host.as_str()))
        .header(ACCEPT, if kind == FORM { "application/json" } else { kind });
    if method == Method::POST {
        request = request.header(CONTENT_TYPE, kind);
    }
    let request = request
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| HttpsError::Address(address.uri.to_string()))?;
    let answer = sender.send_request(request).await.map_err(failed)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await;
    drop(driving);
    let body = body.map_err(|_| HttpsError::Body { host: address.host() })?;
    Ok(Answer {
        status,
        body: body.to_bytes().to_vec(),
    })
}

/// Names and values as a query or a form has them.
///
/// ```
/// use penstock_proto::https::encoded;
///
/// assert_eq!(encoded(&[("a", "b c"), ("d", "e&f=ü")]), "a=b%20c&d=e%26f%3D%C3%BC");
/// ```
pub fn encoded(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", percent(name), percent(value)))
        .collect();
    pairs.join("&")
}

fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// Names and values of a query; what is not encoded as a query is left out.
///
/// ```
/// use penstock_proto::https::decoded;
///
/// let pairs = decoded("code=a%2Fb+c&state=%zz&x");
/// assert_eq!(pairs, [("code".to_owned(), "a/b c".to_owned()), ("x".to_owned(), String::new())]);
/// ```
pub fn decoded(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((plain(name)?, plain(value)?))
        })
        .collect()
}

fn plain(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                u8::from_str_radix(digits, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    proptest! {
        #[test]
        fn whatever_is_encoded_is_decoded_to_the_same(pairs in prop::collection::vec((".{1,20}", ".{0,40}"), 0..5)) {
            let borrowed: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            prop_assert_eq!(decoded(&encoded(&borrowed)), pairs);
        }

        #[test]
        fn no_query_makes_the_decoder_fail(query in ".{0,80}") {
            let _ = decoded(&query);
        }
    }

    /// A server that answers one request with these bytes.
    async fn answering(answer: Vec<u8>) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/keys", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(&answer).await;
        });
        Address::parse(&address).unwrap()
    }

    #[tokio::test]
    async fn a_body_without_end_and_a_head_without_end_are_cut_and_a_redirect_is_not_followed() {
        let asking = Asking::trusting(&[]).unwrap();
        let redirect = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        let answer = asking.get(&answering(redirect.to_vec()).await).await.unwrap();
        assert_eq!(answer.status, StatusCode::FOUND);

        let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        endless.resize(BODY_BYTES_MAX + 64 * 1024, b' ');
        let cut = asking.get(&answering(endless).await).await;
        assert!(matches!(cut, Err(HttpsError::Body { .. })), "{cut:?}");

        let mut head = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
        head.resize(4 * HEAD_BYTES_MAX, b'x');
        let cut = asking.get(&answering(head).await).await;
        assert!(matches!(cut, Err(HttpsError::Http { .. })), "{cut:?}");
    }

    #[test]
    fn only_an_encrypted_address_or_one_of_this_machine_is_asked() {
        for good in [
            "https://login.example",
            "https://[2001:db8::1]:8443/x",
            "http://[::1]:1/",
        ] {
            Address::parse(good).unwrap();
        }
        for bad in [
            "http://10.0.0.1/",
            "http://localhost.example/",
            "ftp://login.example/",
            "file:///etc/passwd",
            "/path",
            "https://a@b/",
            "https://login.example/#fragment",
            "",
        ] {
            Address::parse(bad).unwrap_err();
        }
    }
}

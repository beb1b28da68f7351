//! How a client's TLS ends at the gateway, and how the server behind it is spoken to: certificates in PEM, the name that the
//! server's certificate bears, or that it speaks no TLS at all.
//!
//! What is kept of the certificates is their blocks alone, so that a comment beside them changes no plan. Whether
//! a block is a good X.509 certificate is for whoever builds the connection; here only its shape is judged, and that
//! no private key has strayed into a document that is read by many.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::node::{Node, excerpt};
use super::read::{Term, record, scalar, words};
use super::scalars::Number;
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};

record! {
    /// A client's TLS that ends at the gateway, and how the gateway speaks to the server.
    Tls "the TLS of a flow" {
        /// Certificates (PEM) of the authorities that vouch for the server; default: the plant's own.
        optional server_authorities: Certificates,
        /// The DNS name in the server's certificate; default: its address.
        optional server_name: ServerName,
        /// `plain`: the server speaks no TLS, and the last metre to it is not encrypted; default: TLS on both sides.
        optional server: ServerLeg,
        /// The port at which the gateway speaks to a server in the plain; default: the service's own.
        optional server_port: Number<1, 65535>,
    }
}

record! {
    /// The gateway's TLS towards a broker that it asks.
    AskedTls "the TLS of a question" {
        /// Certificates (PEM) of the authorities that vouch for the broker; default: the plant's own.
        optional server_authorities: Certificates,
        /// The DNS name in the broker's certificate; default: its address.
        optional server_name: ServerName,
    }
}

/// How the gateway speaks to the server, where not by TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerLeg {
    /// In the plain.
    Plain,
}

words!(ServerLeg, "`plain`", {
    "plain" => ServerLeg::Plain,
});

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Certificates in PEM (RFC 7468), at least one, with nothing around them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificates(pub(crate) String);

impl Term for Certificates {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "certificates in PEM", faults)?;
        match blocks(text) {
            Ok(blocks) => Some(Self(blocks)),
            Err(reason) => {
                faults.add(
                    Fault::new(Code::NotCertificates, node.place, reason)
                        .label("expected: certificates in PEM")
                        .help("write `server_authorities: |`, and below it, indented, what the authority's `.pem` file holds"),
                );
                None
            }
        }
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": BEGIN })
    }
}

/// The blocks of certificates in `text`, or why there are none.
fn blocks(text: &str) -> Result<String, String> {
    let mut kept = String::new();
    let mut body: Option<String> = None;
    for line in text.lines().map(str::trim) {
        match (&mut body, line) {
            (None, BEGIN) => body = Some(String::new()),
            (None, line) if line.is_empty() || line.starts_with('#') => {}
            (None, line) if line.contains("PRIVATE KEY") => {
                return Err(
                    "a private key stands here, which must never leave its owner's machine".to_owned(),
                );
            }
            (None, line) => return Err(format!("`{}` stands outside of any certificate", excerpt(line))),
            (Some(digits), END) => {
                if STANDARD
                    .decode(digits.as_bytes())
                    .map_or(true, |bytes| bytes.is_empty())
                {
                    return Err("what stands between the lines of a certificate is not base64".to_owned());
                }
                for line in [BEGIN].into_iter().chain(lines_of_64(digits)).chain([END]) {
                    kept.push_str(line);
                    kept.push('\n');
                }
                body = None;
            }
            (Some(digits), line) => digits.push_str(line),
        }
    }
    match body {
        Some(_) => Err("a certificate is not ended".to_owned()),
        None if kept.is_empty() => Err("there is no certificate here".to_owned()),
        None => Ok(kept),
    }
}

/// Base64 as RFC 7468 writes it. The text is ASCII, for it was decoded.
fn lines_of_64(digits: &str) -> impl Iterator<Item = &str> {
    (0..digits.len())
        .step_by(64)
        .filter_map(|at| digits.get(at..digits.len().min(at + 64)))
}

/// A DNS name of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerName(pub(crate) String);

impl Term for ServerName {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "a DNS name", faults)?;
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let address = text.parse::<IpAddr>().is_ok();
        let numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
        if !text.rsplit('.').next().is_some_and(numeric) && text.len() <= 253 && text.split('.').all(label) {
            return Some(Self(text.to_ascii_lowercase()));
        }
        let fault = Fault::new(
            Code::NotADnsName,
            node.place,
            format!("`{}` is not a DNS name", excerpt(text)),
        );
        faults.add(if address {
            fault
                .label("an address")
                .help("leave `server_name` out: the server's certificate then bears its address")
        } else {
            fault
                .label("expected: a name such as broker.example")
                .help("write the name that the server's certificate bears, without port and `*`")
        });
        None
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?([.][A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$" })
    }
}

//! EST on the wire (RFC 7030, RFC 8951): what devices may ask over HTTP, how it is read within bounds, and how answers are written.
//!
//! Whoever answers is a [`Desk`]: at the coordinator the one that issues, at a gateway the one that carries it there. Here nobody decides
//! who gets a certificate.

mod answer;
mod der;
pub mod serve;

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;

pub use self::answer::{Answer, Body};
use crate::peer::Certified;

/// Longest body that is read, bytes: a request of 8 KiB in base64, broken into lines.
pub const BODY_BYTES_MAX: usize = 12 * 1024;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Whom devices have to trust.
    CaCerts,
    /// What a request should look like.
    CsrAttrs,
    /// A first certificate, or one for a new key, by a token.
    SimpleEnroll,
    /// Another certificate, by the one before.
    SimpleReenroll,
}

impl Operation {
    /// Each of them.
    pub const ALL: [Self; 4] = [
        Self::CaCerts,
        Self::CsrAttrs,
        Self::SimpleEnroll,
        Self::SimpleReenroll,
    ];

    /// Its name in the path.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CaCerts => "cacerts",
            Self::CsrAttrs => "csrattrs",
            Self::SimpleEnroll => "simpleenroll",
            Self::SimpleReenroll => "simplereenroll",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.as_str() == name)
    }

    /// Whether it brings a certificate request.
    pub fn brings_request(self) -> bool {
        matches!(self, Self::SimpleEnroll | Self::SimpleReenroll)
    }
}

/// Name and password of HTTP Basic.
#[derive(Clone)]
pub struct Login {
    /// The asset.
    pub user: String,
    /// The token's secret as text.
    pub password: String,
}

/// What somebody asks, and what they proved.
pub struct Asked {
    /// What.
    pub operation: Operation,
    /// A certificate request in base64.
    pub body: Vec<u8>,
    /// What they log in with.
    pub login: Option<Login>,
    /// The chain that they showed, leaf first; whoever met them verified it.
    pub chain: Vec<CertificateDer<'static>>,
    /// What its leaf says.
    pub certified: Option<Certified>,
    /// From where.
    pub address: IpAddr,
}

/// Who answers.
pub trait Desk: Send + Sync + 'static {
    /// What comes of it.
    fn answer(&self, asked: Asked) -> impl Future<Output = Answer> + Send;
}

//! How a gateway carries a flow whose operations it judges.

use serde::{Deserialize, Serialize};

/// What an inspected flow does while no agent lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnAgentLoss {
    /// It stops.
    Block,
    /// It passes uninspected; the process comes first.
    Pass,
}

/// What a client gets for a refused operation; chosen per flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnRefusal {
    /// The protocol's own answer: a Modbus exception, an MQTT reason code; where MQTT 3.1.1 has none for a
    /// publication, the acknowledgement that keeps the client from sending it again.
    #[default]
    Answer,
    /// As though it had been done: an MQTT publication is acknowledged and goes nowhere. Modbus has no such
    /// answer that would not lie about a value, and gets its exception.
    Acknowledge,
    /// An answer where MQTT 5 has one, then the end of the connection.
    Disconnect,
    /// The connection is reset.
    Reset,
    /// Nothing; the operation is lost.
    Drop,
}

/// Which answers of a Modbus server belong to a request; chosen per flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answers {
    /// Those that carry its transaction identifier and its unit, as the standard wants it; unit 0 or 255 stands for any where
    /// one request waits under that identifier.
    #[default]
    Strict,
    /// Also the next one, whatever identifiers it carries, if one request waits alone and the answer fits it.
    InOrder,
}

impl Answers {
    /// What holds where several flows share a connection: the strictest.
    pub fn shared(all: impl IntoIterator<Item = Self>) -> Self {
        let mut all = all.into_iter().peekable();
        match all.peek().is_some() && all.all(|answers| answers == Self::InOrder) {
            true => Self::InOrder,
            false => Self::Strict,
        }
    }
}

/// A client's TLS that ends at the gateway, which begins its own to the server, or speaks to it in the plain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM certificates of the authorities that the server's certificate must chain to; `None`: the plant's own
    /// authority, and the certificate names the server as `/device/<asset>` (DESIGN §6).
    pub server_authorities: Option<String>,
    /// The DNS name in the server's certificate, where it has other authorities; `None`: its address. Clients know the gateway
    /// by it, too.
    pub server_name: Option<String>,
    /// The server speaks no TLS: the gateway speaks to it in the plain, at this port. `None`: TLS on both sides. Left out of the
    /// bytes then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain_port: Option<u16>,
}

//! Conduits and their flows: who may open which service to whom, and how the gateway carries it.
//!
//! Nothing is inspected, ended or bridged unless a flow says so, and what it may do inside the protocol stands
//! in [`Operations`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Assurance, Operations, Protocol, SlVector};
use crate::ids::{AssetId, FlowName, GatewayId, ZoneId};
use crate::plan::Transport;

/// What an inspected flow does while no agent lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnAgentLoss {
    /// It stops.
    Block,
    /// It passes uninspected; the process comes first.
    Pass,
}

/// A conduit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Conduit {
    /// For people.
    pub title: String,
    /// One of its two zones; its flows lead from either to the other.
    pub from: ZoneId,
    /// The other zone.
    pub to: ZoneId,
    /// The gateways it crosses; resolved: as written, else every gateway that has both zones on two sides.
    pub via: BTreeSet<GatewayId>,
    /// Target security level.
    pub sl_target: Option<SlVector>,
    /// What inspected flows do while no agent lives.
    pub on_agent_loss: OnAgentLoss,
    /// Whether its gateways are to tunnel it between them; recorded only.
    pub tunnel: bool,
    /// It is open only while a grant of remote access lasts, also where none names it. One that a grant names is so in any case.
    pub only_by_grant: bool,
    /// Least assurance of identity that both ends must have.
    pub minimum_assurance: Option<Assurance>,
    /// Accountable organisation or role.
    pub accountable: Option<String>,
    /// Flows by name; never empty.
    pub flows: BTreeMap<FlowName, Flow>,
}

/// One flow.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Flow {
    /// For people.
    pub title: Option<String>,
    /// Who opens it; never empty.
    pub sources: Vec<FlowEnd>,
    /// To whom; never empty.
    pub destinations: Vec<FlowEnd>,
    /// The service as written (`modbus-tcp`, `tcp/8080`); of a bridge, that of the broker it gives to.
    pub service: Service,
    /// What it may do inside the protocol. `None`: not limited (written `allow: any`, or a service without operations).
    pub operations: Option<Operations>,
    /// Its loss hurts the process.
    pub must_flow: bool,
    /// What a client gets for a refused operation.
    pub on_refusal: OnRefusal,
    /// Which answers belong to a request (Modbus).
    pub answers: Answers,
    /// The gateway ends the client's TLS and begins its own towards the server, to read what is inside; of a bridge, its
    /// TLS towards the broker that it gives to.
    pub tls: Option<Tls>,
    /// Not forwarded: the gateway itself takes messages from the source, which it reaches like this, and gives them to
    /// the destination (service `mqtt-bridge`). One source, one destination, `operations` only of publications.
    pub bridge_source: Option<BridgeSource>,
}

impl Flow {
    /// Whether the gateway carries its messages itself, and forwards nothing.
    pub fn is_bridge(&self) -> bool {
        self.bridge_source.is_some()
    }
}

/// How the gateway reaches the broker that a bridge takes messages from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BridgeSource {
    /// The service as written.
    pub service: Service,
    /// Spoken inside TLS.
    pub tls: Option<Tls>,
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

/// TLS on both sides of an inspected flow: the client's ends at the gateway, which begins its own to the server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM certificates of the authorities that the server's certificate must chain to; `None`: the plant's own
    /// authority, and the certificate names the server as `/device/<asset>` (DESIGN §6).
    pub server_authorities: Option<String>,
    /// The DNS name in the server's certificate, where it has other authorities; `None`: its address.
    pub server_name: Option<String>,
}

/// One end of a flow, resolved to networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowEnd {
    /// An asset with its addresses (never empty here).
    Asset(AssetId, Vec<IpAddr>),
    /// A whole zone with its networks (written `zone:<name>`; never empty here).
    Zone(ZoneId, Vec<IpNet>),
}

/// A service: its protocol by name, and how it is carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Service {
    /// The name or transport as written.
    pub name: String,
    /// The protocol an inspector would read, if it is one with operations.
    pub protocol: Option<Protocol>,
    /// Transport and ports.
    pub transport: Transport,
}

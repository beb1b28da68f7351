//! Conduits and their flows: who may open which service to whom, and how the gateway carries it.
//!
//! Nothing is inspected, ended or bridged unless a flow says so, and what it may do inside the protocol stands
//! in [`Operations`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::SlVector;
use crate::ids::{AssetId, FlowName, GatewayId, ZoneId};
use crate::protocol::{Operations, Protocol, Roles};
use crate::terms::{Answers, Assurance, Frames, OnAgentLoss, OnRefusal, Tls, Transport};

/// Who lets pass what a conduit declares, and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enforcer {
    /// The plant's gateways, by their plans.
    #[default]
    Gateways,
    /// Something else, in words: a firewall of another maker. What it lets pass is not known here.
    Other(String),
    /// Nobody yet: anything passes between the two zones.
    Nobody,
}

impl Enforcer {
    /// Whether the plant's gateways enforce it.
    pub fn is_gateways(&self) -> bool {
        *self == Self::Gateways
    }
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
    /// Who enforces it. Where it is not the gateways, `via` is empty, and the conduit is in no plan.
    #[serde(skip_serializing_if = "Enforcer::is_gateways")]
    pub enforced_by: Enforcer,
    /// Target security level.
    pub sl_target: Option<SlVector>,
    /// What inspected flows do while no agent lives.
    pub on_agent_loss: OnAgentLoss,
    /// It runs inside the tunnel between its two gateways.
    pub tunnel: bool,
    /// It is open only while a grant of remote access lasts, also where none names it. One that a grant names is so in any case.
    pub only_by_grant: bool,
    /// Least assurance of identity that both ends of its flows prove to each gateway: what is weaker is denied.
    pub minimum_assurance: Option<Assurance>,
    /// Accountable organisation or role.
    pub accountable: Option<String>,
    /// Flows by name; empty only where there are `frames`.
    pub flows: BTreeMap<FlowName, Flow>,
    /// What crosses a bridged gateway beside IP, by name. Left out of the record where there is none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub frames: BTreeMap<FlowName, FrameFlow>,
}

/// Frames other than IP that a bridged gateway lets pass from one zone of the conduit to the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FrameFlow {
    /// For people.
    pub title: Option<String>,
    /// The zone that they come from.
    pub from: ZoneId,
    /// The conduit's other zone.
    pub to: ZoneId,
    /// Whether the same frames also pass the other way.
    pub both: bool,
    /// Which frames.
    pub frames: Frames,
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
    /// What of these operations a client may use by the role in its certificate; `None`: roles do not matter.
    pub roles: Option<Roles>,
    /// Its loss hurts the process.
    pub must_flow: bool,
    /// What a client gets for a refused operation.
    pub on_refusal: OnRefusal,
    /// Which answers belong to a request (Modbus).
    pub answers: Answers,
    /// The gateway ends the client's TLS and begins its own towards the server, to read what is inside, or speaks to it in the
    /// plain; of a bridge, its TLS towards the broker that it gives to.
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

    /// Whether the agent carries its connections: its operations are limited, or a client's TLS ends at the gateway.
    pub fn is_carried(&self) -> bool {
        !self.is_bridge() && (self.operations.is_some() || self.tls.is_some())
    }

    /// The port at which its server is spoken to in the plain, behind a client's TLS that ends at the gateway.
    pub fn plain_port(&self) -> Option<u16> {
        self.tls.as_ref()?.plain_port
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

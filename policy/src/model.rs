//! The plant as it was meant: typed, checked, complete. Only `validate` makes one from a document.
//!
//! Everything here holds by construction: every name resolves, every conduit crosses two different zones,
//! every flow's ends lie in those zones, no list that grants something is empty.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::ids::{
    ApproverId, AssetId, ConduitId, ControlId, FlowName, GatewayId, GrantId, PlantId, SiteId, ZoneId,
};
use crate::plan::Transport;

/// A whole plant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plant {
    /// Its name: the trust domain of every identity.
    pub id: PlantId,
    /// For people.
    pub title: String,
    /// Organisation and contact.
    pub owner: Option<Owner>,
    /// Who may approve releases, and how many it takes.
    pub approvers: ApproverSet,
    /// Sites by name.
    pub sites: BTreeMap<SiteId, Site>,
    /// Gateways by name.
    pub gateways: BTreeMap<GatewayId, Gateway>,
    /// Zones by name.
    pub zones: BTreeMap<ZoneId, Zone>,
    /// Assets by name.
    pub assets: BTreeMap<AssetId, Asset>,
    /// Conduits by name.
    pub conduits: BTreeMap<ConduitId, Conduit>,
    /// Time-boxed remote access.
    pub remote_access: BTreeMap<GrantId, RemoteAccess>,
    /// Compensating controls (IEC 62443-3-2 ZCR 5.12, 62443-2-1).
    pub compensating_controls: BTreeMap<ControlId, CompensatingControl>,
    /// Risk assessment (IEC 62443-3-2 ZCR 5), as recorded.
    pub risk: Vec<Risk>,
}

/// Who owns the plant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// Organisation.
    pub organisation: String,
    /// Where to ask.
    pub contact: Option<String>,
}

/// The people whose signatures make a release valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproverSet {
    /// Signatures needed, by different people, none of them the author. At least 1.
    pub threshold: u8,
    /// Their keys.
    pub people: BTreeMap<ApproverId, Approver>,
}

/// One approver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approver {
    /// Ed25519 public key.
    pub key: PublicKey,
    /// What the person is in the plant.
    pub role: Option<String>,
}

/// An Ed25519 public key (RFC 8032), written `ed25519:<64 hexadecimal digits>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(pub [u8; 32]);

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> String {
        format!("ed25519:{}", hex::encode(key.0))
    }
}

impl TryFrom<String> for PublicKey {
    type Error = PublicKeyError;
    fn try_from(text: String) -> Result<Self, PublicKeyError> {
        let digits = text.strip_prefix("ed25519:").ok_or(PublicKeyError)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| PublicKeyError)?;
        let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes).map_err(|_| PublicKeyError)?;
        // For a key of small order anyone can make signatures that verify.
        if key.is_weak() {
            return Err(PublicKeyError);
        }
        Ok(Self(bytes))
    }
}

/// A string that is not a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a public key: expected `ed25519:` and 64 hexadecimal digits of a valid point")]
pub struct PublicKeyError;

/// A site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Site {
    /// For people.
    pub title: String,
    /// IANA name of its time zone.
    pub timezone: String,
}

/// How a gateway sits in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayMode {
    /// It is the router between the zones.
    Routed,
    /// Bump in the wire: no address in the plant changes.
    Bridged,
}

/// What the agent does about a foreign change of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDrift {
    /// Alarm, and put the table back.
    #[default]
    Repair,
    /// Alarm only.
    Report,
}

/// An edge gateway.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gateway {
    /// Its site.
    pub site: SiteId,
    /// Routed or bridged.
    pub mode: GatewayMode,
    /// Labels for rollouts.
    pub labels: BTreeMap<String, String>,
    /// Guarded interfaces by kernel name.
    pub interfaces: BTreeMap<String, Interface>,
    /// The way in for people and the coordinator.
    pub management: Option<ManagementAccess>,
    /// Change windows, as written (`Sun 02:00-04:00`), in the site's time.
    pub windows: Vec<Window>,
    /// What must hold in the process before a change.
    pub safe_to_change: Option<SafeToChange>,
    /// The other gateway of a redundant pair.
    pub redundant_with: Option<GatewayId>,
    /// Foreign change of the kernel's table.
    pub on_drift: OnDrift,
}

/// One guarded interface of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// The zone attached to it.
    pub zone: ZoneId,
    /// Zones that are reached through it, beyond the attached one.
    pub behind: Vec<ZoneId>,
    /// The gateway's own address there (routed).
    pub address: Option<IpNet>,
}

/// Management access to the gateway itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ManagementAccess {
    /// Interface it comes in by.
    pub interface: String,
    /// Who may use it; never empty.
    pub peers: Vec<IpNet>,
}

/// A weekly change window. Minutes since midnight, site time; `end` above `start`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Window {
    /// 0 = Monday … 6 = Sunday.
    pub weekday: u8,
    /// First minute.
    pub start_minute: u16,
    /// First minute after it.
    pub end_minute: u16,
}

/// A condition in the process that makes a change safe, read by Modbus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SafeToChange {
    /// The asset that is asked.
    pub modbus: AssetId,
    /// The coil that tells.
    pub coil: u16,
    /// The value that means "safe".
    pub is: bool,
}

/// Kinds of zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // The names are the standard's own.
pub enum ZoneKind {
    Enterprise,
    Dmz,
    Operations,
    Control,
    Safety,
    Wireless,
    RemoteAccess,
    Transient,
    External,
}

/// What a compromise of the zone can lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Consequence {
    None,
    Business,
    Production,
    Environment,
    Safety,
}

/// Whether a zone's boundary is enforced yet (adoption goes zone by zone).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enforcement {
    /// Undeclared traffic passes and is recorded.
    Observe,
    /// Undeclared traffic is dropped.
    Enforce,
}

/// A security level per foundational requirement (IEC 62443-1-1), each 0–4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct SlVector {
    pub iac: u8,
    pub uc: u8,
    pub si: u8,
    pub dc: u8,
    pub rdf: u8,
    pub tre: u8,
    pub ra: u8,
}

/// A zone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Zone {
    /// For people.
    pub title: String,
    /// Kind.
    pub kind: ZoneKind,
    /// The zone that contains it.
    pub parent: Option<ZoneId>,
    /// Target security level.
    pub sl_target: Option<SlVector>,
    /// Its networks, without what belongs to the zones inside it, so that no two zones' networks overlap;
    /// together with its assets' addresses all that may be seen there.
    pub networks: Vec<IpNet>,
    /// Consequence class.
    pub consequence: Option<Consequence>,
    /// Accountable organisation or role (62443-3-2 ZCR 6.4).
    pub accountable: Option<String>,
    /// Physical or logical boundary, in words (ZCR 6.4).
    pub boundary: Option<String>,
    /// Security requirements and policies that apply, in words (ZCR 6.4).
    pub requirements: Vec<String>,
    /// Assumptions and external dependencies (ZCR 6.4).
    pub assumptions: Vec<String>,
    /// Observe or enforce. `enforce` unless said.
    pub enforcement: Enforcement,
}

/// An asset.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Asset {
    /// For people.
    pub title: Option<String>,
    /// Its zone.
    pub zone: ZoneId,
    /// Its addresses; may be empty for an asset that is only recorded.
    pub addresses: Vec<IpAddr>,
    /// MAC address, as written.
    pub mac: Option<String>,
    /// Role (`plc`, `hmi`, `historian`, …).
    pub role: Option<String>,
    /// Vendor.
    pub vendor: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Firmware.
    pub firmware: Option<String>,
    /// Criticality as written (`low`, `medium`, `high`, `safety`).
    pub criticality: Option<String>,
    /// What it can do by itself (IEC 62443-4-2).
    pub sl_capability: Option<SlVector>,
    /// How well it can prove who it is; `None`: not recorded, so no better than [`Assurance::D0`].
    pub identity: Option<Assurance>,
}

/// What an inspected flow does while no agent lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnAgentLoss {
    /// It stops.
    Block,
    /// It passes uninspected; the process comes first.
    Pass,
}

/// Assurance of a peer's identity on the data path, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Assurance {
    /// Seen: only its address.
    D0,
    /// Bound: address and port or MAC.
    D1,
    /// A secret that it shares.
    D2,
    /// Its own certificate.
    D3,
    /// A certificate issued by the plant.
    D4,
    /// A key in hardware.
    D5,
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
    /// Whether the gateways tunnel it between them.
    pub tunnel: bool,
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
    /// The service as written (`modbus-tcp`, `tcp/8080`).
    pub service: Service,
    /// What it may do inside the protocol. `None`: not limited (written `allow: any`, or a service without operations).
    pub operations: Option<Operations>,
    /// Its loss hurts the process.
    pub must_flow: bool,
    /// What a client gets for a refused operation.
    pub on_refusal: OnRefusal,
    /// The gateway ends the client's TLS and begins its own towards the server, to read what is inside.
    pub tls: Option<Tls>,
    /// Not forwarded: the gateway itself takes messages from the source and gives them to the destination
    /// (service `mqtt-bridge`). One source, one destination, `operations` only of publications.
    pub bridged: bool,
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

/// TLS on both sides of an inspected flow: the client's ends at the gateway, which begins its own to the server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
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

/// Protocols that have operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Protocol {
    ModbusTcp,
    Mqtt,
}

/// What a flow may do, by protocol. The lists are never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Operations {
    /// Modbus/TCP.
    ModbusTcp(Vec<ModbusOperation>),
    /// MQTT 3.1.1 and 5.
    Mqtt(Vec<MqttOperation>),
}

/// A permitted Modbus operation (MODBUS Application Protocol V1.1b3, section 6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModbusOperation {
    /// Function by its standard name in kebab case (`read-holding-registers`), `function-<n>` for a code without a
    /// name, or a group (`read-only`, `read-write`, `programming`): see [`crate::functions`].
    pub function: String,
    /// Unit identifiers; `None` only where the document says `units: any`.
    pub units: Option<Vec<NumberRange>>,
    /// Data addresses; `None` where the function has none or the document says `addresses: any` or leaves reading unlimited.
    pub addresses: Option<Vec<NumberRange>>,
    /// Data addresses that may be read by a function or group that also writes; `None`: the same as `addresses`.
    pub read_addresses: Option<Vec<NumberRange>>,
    /// Values that may be written; `None`: not limited.
    pub values: Option<Vec<NumberRange>>,
    /// Sub-functions (diagnostics, encapsulated interface); `None`: not limited.
    pub sub_functions: Option<Vec<NumberRange>>,
}

/// A range of numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumberRange {
    /// First.
    pub first: u32,
    /// Last, not below `first`.
    pub last: u32,
}

/// A permitted MQTT operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum MqttOperation {
    /// Publish to topics that these filters cover.
    Publish {
        /// Topic filters (MQTT 5, section 4.7).
        topics: Vec<String>,
        /// Quality of service allowed, lowest and highest (0–2).
        qos: NumberRange,
        /// Whether retained messages are allowed.
        retain: bool,
    },
    /// Subscribe to filters that these filters cover.
    Subscribe {
        /// Topic filters.
        topics: Vec<String>,
        /// Quality of service allowed, lowest and highest (0–2).
        qos: NumberRange,
    },
    /// Connect only with these client identifiers or user names.
    Connect {
        /// Client identifiers; empty list cannot occur; `None`: not limited.
        client_ids: Option<Vec<String>>,
        /// User names.
        users: Option<Vec<String>>,
    },
}

/// A time-boxed grant of remote access.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RemoteAccess {
    /// Who.
    pub person: String,
    /// The conduit it opens.
    pub conduit: ConduitId,
    /// Why.
    pub reason: String,
    /// From, RFC 3339.
    pub from: String,
    /// Until, RFC 3339.
    pub until: String,
    /// Who approved it.
    pub approved_by: ApproverId,
}

/// A compensating control: never without a reason and an expiry.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CompensatingControl {
    /// Zone it stands in.
    pub zone: Option<ZoneId>,
    /// Asset it stands for.
    pub asset: Option<AssetId>,
    /// Conduit it stands for.
    pub conduit: Option<ConduitId>,
    /// Requirement of IEC 62443-3-3 (`SR 1.2`) or 62443-4-2 (`CR 1.2`).
    pub requirement: String,
    /// Why the requirement itself is not met.
    pub reason: String,
    /// What is done instead.
    pub measure: String,
    /// Who approved it.
    pub approved_by: ApproverId,
    /// Last day it holds, `YYYY-MM-DD`.
    pub expires: String,
}

/// One line of the risk assessment (IEC 62443-3-2 ZCR 5).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Risk {
    /// Threat in words.
    pub threat: String,
    /// Zone or conduit it concerns.
    pub zone: Option<ZoneId>,
    /// Conduit it concerns.
    pub conduit: Option<ConduitId>,
    /// Likelihood 1–5.
    pub likelihood: u8,
    /// Impact 1–5.
    pub impact: u8,
    /// Likelihood × impact after countermeasures, if assessed.
    pub residual: Option<u8>,
    /// Countermeasures in words.
    pub countermeasures: Vec<String>,
}

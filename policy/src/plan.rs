//! What one gateway has to do, with no choice left to it.
//!
//! A plan is compiled from the model for one gateway, holds only that gateway's own flows, and is
//! deterministic to the byte: [`Plan::to_bytes`] is what the release's Merkle tree covers and what the
//! gateway verifies. The revision is *not* in it, so that a release which changes nothing for a gateway
//! leaves its plan's digest as it was.
//!
//! Reading is strict: an unknown field, an unknown capability or an unknown format refuses the plan whole. The format
//! before this one is read too ([`PLAN_FORMAT_BEFORE`]), since a gateway goes on enforcing the plan that it stored when its
//! agent is upgraded; that plan's digest stays the digest of its own bytes, never that of [`Plan::to_bytes`].

mod assurance;
mod format1;
pub(crate) mod frames;
mod grants;
mod shared;
mod well_formed;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::assurance::{FlowSide, Unproven, WeakEnd};
pub use self::frames::FrameRule;
pub use self::grants::{Grant, moment, opened_by};
pub use crate::break_glass::BreakGlass;
pub use crate::change::{AskedFrom, ChangeWindows, Condition, Interlock, Window};
use crate::ids::{AssetId, ConduitId, Digest, FlowId, FlowName, GatewayId, PlantId, ZoneId};
use crate::protocol::mqtt::MqttOperation;
use crate::protocol::{Operations, Protocol, Roles};
use crate::terms::{Answers, Enforcement, GatewayMode, Mac, OnAgentLoss, OnDrift, OnRefusal, Tls, Transport};

/// The format that this code writes and reads.
pub const PLAN_FORMAT: &str = "penstock-plan/2";
/// The format before, which is read as well.
pub const PLAN_FORMAT_BEFORE: &str = "penstock-plan/1";

/// Everything one gateway enforces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Always [`PLAN_FORMAT`]: a plan of the format before is converted where it is read.
    pub format: String,
    /// The plant it belongs to.
    pub plant: PlantId,
    /// The gateway it is for.
    pub gateway: GatewayId,
    /// Routed, or bridged (bump in the wire).
    pub mode: GatewayMode,
    /// What the agent must be able to do; an agent that lacks one refuses the plan.
    pub requires: BTreeSet<Capability>,
    /// Repair a foreign change of the kernel's table, or only report it.
    pub on_drift: OnDrift,
    /// The interfaces that the gateway guards, by name.
    pub interfaces: Vec<PlanInterface>,
    /// Where the gateway itself is managed from; never locked out.
    pub management: Option<Management>,
    /// The permitted flows, by conduit and flow name.
    #[serde(deserialize_with = "shared::rules")]
    pub rules: Vec<Rule>,
    /// What the gateway itself carries from one broker to another, by conduit and flow name.
    pub bridges: Vec<Bridge>,
    /// What crosses beside IP, by conduit and name; on a bridged gateway only. Left out of the bytes where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<FrameRule>,
    /// The conduits that are open only while a grant of remote access lasts, each with its grants (none: nothing opens it); all
    /// others stand open. A plan from before grants has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub grants: BTreeMap<ConduitId, Vec<Grant>>,
    /// When the gateway may be changed; none: at any time. Left out of the bytes then, as is the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<ChangeWindows>,
    /// What the gateway asks the process before it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interlock: Option<Interlock>,
    /// Who in front of the gateway may override what it enforces, for a while; none: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub break_glass: Option<BreakGlass>,
    /// The tunnels to other gateways; none: there are none. Left out of the bytes then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnels: Option<Tunnels>,
    /// By interface: addresses of which packets count only if they come from that MAC address, since a conduit asks for more assurance
    /// of identity than an address has. Sorted; left out of the bytes where there are none, as is the next.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bound: BTreeMap<String, Vec<Hardware>>,
    /// Declared flows that the plan does not permit, or not between all of their ends, since these prove too little. By conduit and
    /// flow name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unproven: Vec<Unproven>,
    /// Which of those conduits are open, as of the moment that [`Plan::at`] was asked for. Never a part of its bytes: a plan that is read
    /// has all of them closed.
    #[serde(skip)]
    pub open: BTreeSet<ConduitId>,
    /// Of sides all of whose zones enforce, the networks that observe all the same, because people in front of the gateway override it
    /// for a while. Never a part of its bytes, and empty in a plan that is read.
    #[serde(skip)]
    pub excepted: BTreeMap<String, Vec<IpNet>>,
}

/// Something that an agent must know how to enforce.
///
/// `kernel` covers addresses, ports, TCP, UDP and ICMP echo. `inspect:<protocol>` covers operations inside
/// a protocol. An agent publishes what it has; a plan that requires more is refused, never half enforced.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capability(pub String);

impl Capability {
    /// Addresses, ports, TCP, UDP and ICMP echo, in the kernel.
    pub const KERNEL: &str = "kernel";
    /// The same on a bridge.
    pub const KERNEL_BRIDGE: &str = "kernel:bridge";
    /// One-way bridges between brokers.
    pub const BRIDGE_MQTT: &str = "bridge:mqtt";
    /// Conduits that are open only while a grant of remote access lasts.
    pub const REMOTE_ACCESS: &str = "remote-access";
    /// Change windows, and the question to the process before a change.
    pub const CHANGE_CONTROL: &str = "change-control";
    /// Overrides by people in front of the gateway.
    pub const OVERRIDES: &str = "overrides";
    /// A client's TLS that ends at the gateway before a server that speaks none.
    pub const TLS_BEFORE_PLAIN: &str = "tls:before-plain";
    /// Tunnels between gateways.
    pub const TUNNEL: &str = "tunnel";
    /// What a client may do by the role in its certificate.
    pub const ROLES: &str = "roles";
    /// Frames other than IP and ARP, told apart by EtherType, VLAN, MAC address and APPID, on a bridge.
    pub const FRAMES: &str = "frames";
    /// Addresses held to MAC addresses on each packet, and denials of what proves too little.
    pub const ASSURANCE: &str = "assurance";

    /// The one with this name.
    pub fn of(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// Operations inside a protocol.
    pub fn inspect(protocol: Protocol) -> Self {
        Self(format!("inspect:{}", protocol.word))
    }

    /// The same where TLS carries the protocol, and ends at the gateway.
    pub fn inspect_inside_tls(protocol: Protocol) -> Self {
        Self(format!("inspect:{}-tls", protocol.word))
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One guarded interface (bridge port on a bridged gateway).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanInterface {
    /// The kernel's name of the interface.
    pub name: String,
    /// The zone that is attached to it.
    pub zone: ZoneId,
    /// Further zones that are reached through it.
    pub behind: Vec<ZoneId>,
    /// The only addresses that may be seen on this side of the gateway, disjoint and sorted.
    pub networks: Vec<IpNet>,
    /// Whose crossings only observe here.
    pub observing: Observing,
    /// Routers of this side, in its networks or not: they may send ICMP errors, and on a bridged gateway stand between hosts of
    /// this side and the others'. Sorted.
    pub routers: Vec<IpNet>,
    /// The MAC addresses that assets of this side are declared to have; on a bridged gateway only. Sorted.
    pub hardware: Vec<Hardware>,
}

/// An address and the MAC address that its asset has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// The address.
    pub address: IpAddr,
    /// The MAC address.
    pub mac: Mac,
}

/// Whose crossings of a guarded interface only observe, as far as that side has a say in it.
///
/// Observe and enforce belong to a pair of zones: a crossing only observes if both of its ends do, each on its own side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Observing {
    /// Nobody's: all zones of this side enforce.
    Nothing,
    /// Everybody's: all zones of this side observe. Addresses that no zone has are among them, and frames without any.
    Everything,
    /// Those of these addresses (a part of the side's networks, disjoint and sorted, never empty), whose zones observe.
    /// Other zones of this side enforce; what belongs to no zone is enforced with them.
    Only(Vec<IpNet>),
}

impl Observing {
    /// The mode of `address` on this side; `None` is a frame that has no address.
    pub fn mode(&self, address: Option<IpAddr>) -> Enforcement {
        let observes = match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Only(networks) => {
                address.is_some_and(|address| networks.iter().any(|network| network.contains(&address)))
            }
        };
        if observes {
            Enforcement::Observe
        } else {
            Enforcement::Enforce
        }
    }
}

/// A side whose zones all have this mode.
impl From<Enforcement> for Observing {
    fn from(mode: Enforcement) -> Self {
        match mode {
            Enforcement::Observe => Self::Everything,
            Enforcement::Enforce => Self::Nothing,
        }
    }
}

impl PlanInterface {
    /// Whether `address` may be seen on this side.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Whether `address` may send ICMP errors from this side: one of its own, or a router's.
    pub fn may_report(&self, address: IpAddr) -> bool {
        self.holds(address) || self.routers.iter().any(|network| network.contains(&address))
    }
}

/// The gateway's own way in, kept open in every plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Management {
    /// The interface.
    pub interface: String,
    /// Who may reach the gateway there; empty is refused by validation.
    pub peers: Vec<IpNet>,
}

/// One permitted flow: any source to any destination by one transport and set of ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Stable number, also the packet mark.
    pub id: FlowId,
    /// The conduit that permits it.
    pub conduit: ConduitId,
    /// The flow within that conduit.
    pub flow: FlowName,
    /// Who may open it.
    pub sources: Vec<Endpoint>,
    /// To whom.
    pub destinations: Vec<Endpoint>,
    /// How it is carried.
    pub transport: Transport,
    /// Its loss hurts the process.
    pub must_flow: bool,
    /// What an inspected flow does while no agent lives.
    pub on_agent_loss: OnAgentLoss,
    /// The operations it is limited to, if it is limited (then `requires` names the inspector).
    pub operations: Option<Arc<Operations>>,
    /// What of these operations a client may use by the role in its certificate (then `requires` has `roles`); none: roles do not
    /// matter. Left out of the bytes then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Arc<Roles>>,
    /// What a client gets for a refused operation.
    pub on_refusal: OnRefusal,
    /// Which answers belong to a request; only with Modbus operations other than strict.
    pub answers: Answers,
    /// The client's TLS ends at the gateway: before a server that speaks TLS only with operations (then `requires` has
    /// `inspect:<protocol>-tls`), before one that speaks none also without (then it has `tls:before-plain`).
    pub tls: Option<Arc<Tls>>,
}

impl Rule {
    /// Whether the agent carries its connections: its operations are limited, or the client's TLS ends at the gateway.
    pub fn is_carried(&self) -> bool {
        self.operations.is_some() || self.tls.is_some()
    }

    /// The port at which its server is spoken to in the plain, behind the client's TLS.
    pub fn plain_port(&self) -> Option<u16> {
        self.tls.as_deref()?.plain_port
    }

    /// What an agent must be able to do for its operations, if it is limited to some, for its TLS, if that ends at the gateway, and for
    /// its roles, if there are any.
    pub fn inspectors(&self) -> [Option<Capability>; 3] {
        let protocol = self.operations.as_deref().map(|operations| operations.protocol);
        let inside = match (self.tls.as_deref(), protocol) {
            (Some(tls), _) if tls.plain_port.is_some() => Some(Capability::of(Capability::TLS_BEFORE_PLAIN)),
            (Some(_), Some(protocol)) => Some(Capability::inspect_inside_tls(protocol)),
            _ => None,
        };
        let roles = self.roles.as_ref().map(|_| Capability::of(Capability::ROLES));
        [protocol.map(Capability::inspect), inside, roles]
    }
}

/// A one-way bridge between two brokers: the gateway is a client of both, and forwards no packet between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bridge {
    /// Stable number, from the same series as the rules'.
    pub id: FlowId,
    /// The conduit that permits it.
    pub conduit: ConduitId,
    /// The flow within that conduit.
    pub flow: FlowName,
    /// The broker that messages are taken from.
    pub from: Broker,
    /// The broker that they are given to.
    pub to: Broker,
    /// What may cross; only publications, never empty.
    pub publications: Vec<MqttOperation>,
    /// Its loss hurts the process.
    pub must_flow: bool,
}

/// A broker, as the gateway reaches it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// The asset's name.
    pub asset: AssetId,
    /// Its address.
    pub address: IpAddr,
    /// TCP port.
    pub port: u16,
    /// Spoken inside TLS.
    pub tls: Option<Tls>,
}

/// The tunnels that end at a gateway.
///
/// What lies at the other end of each is one of the plan's sides, by the tunnel's device: so what is of a tunnel comes and goes by that device alone,
/// and anywhere else it is refused like any packet on a side where it does not belong, also while no tunnel stands and while no agent lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tunnels {
    /// The guarded interface towards the network that is not trusted.
    pub interface: String,
    /// The gateway's own UDP port there.
    pub port: u16,
    /// By device; never empty.
    pub peers: Vec<Tunnel>,
}

impl Tunnels {
    /// Whether other gateways connect to this one.
    pub fn is_connected_to(&self) -> bool {
        self.peers.iter().any(|peer| peer.connect.is_none())
    }
}

/// One tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    /// Its device, one of the plan's interfaces.
    pub device: String,
    /// The gateway at its other end.
    pub peer: GatewayId,
    /// Where that is connected to; `None`: it connects to this one.
    pub connect: Option<SocketAddr>,
    /// Addresses beyond it that the other gateway binds to a MAC address or an interface of their own, as far as a conduit asks for that.
    /// Sorted; left out of the bytes where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vouched: Vec<IpAddr>,
}

impl Tunnel {
    /// Whether it is the same line as `other`: what the other gateway vouches for changes nothing of that.
    pub fn is_line_of(&self, other: &Self) -> bool {
        (&self.device, &self.peer, self.connect) == (&other.device, &other.peer, other.connect)
    }
}

/// One side of a rule: a network, and the name of what the document calls it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The asset's or zone's name, for people.
    pub name: Arc<str>,
    /// Its address (a host prefix) or network.
    pub network: IpNet,
}

/// Why bytes are not a plan that this code may use.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Not JSON of the plan's shape: truncated, altered, or with fields unknown here.
    #[error("the plan cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// Made for other software.
    #[error("the plan has format `{0}`, this program reads `{PLAN_FORMAT}` and `{PLAN_FORMAT_BEFORE}`")]
    Format(String),
    /// Its own rules contradict one another (said in words).
    #[error("the plan is not well formed: {0}")]
    Malformed(String),
}

/// All that is read of a plan to know how the rest is to be read.
#[derive(Deserialize)]
struct Header {
    format: String,
}

impl Plan {
    /// The exact bytes that are digested, signed for, sent and stored: JSON with fields in declared order.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A struct of strings, numbers and lists has no way to fail; an empty plan text would never verify.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a plan strictly, of this format or the one before, and checks that it is well formed.
    ///
    /// # Errors
    /// The bytes are not JSON of a plan, of a format that is unknown here, or not well formed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PlanError> {
        let Header { format } = serde_json::from_slice(bytes).map_err(PlanError::Unreadable)?;
        let plan: Self = match format.as_str() {
            PLAN_FORMAT => serde_json::from_slice(bytes).map_err(PlanError::Unreadable)?,
            PLAN_FORMAT_BEFORE => format1::read(bytes)?,
            _ => return Err(PlanError::Format(format)),
        };
        well_formed::check(&plan).map_err(PlanError::Malformed)?;
        Ok(plan)
    }

    /// The digest of [`Plan::to_bytes`]. Of a plan that was read, the digest is that of the bytes it was read from.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }
}

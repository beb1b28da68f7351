//! What one gateway has to do, with no choice left to it.
//!
//! A plan is compiled from the model for one gateway, holds only that gateway's own flows, and is
//! deterministic to the byte: [`Plan::to_bytes`] is what the release's Merkle tree covers and what the
//! gateway verifies. The revision is *not* in it, so that a release which changes nothing for a gateway
//! leaves its plan's digest as it was.
//!
//! Reading is strict: an unknown field, an unknown capability or an unknown format refuses the plan whole.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::ids::{AssetId, ConduitId, Digest, FlowId, FlowName, GatewayId, PlantId, ZoneId};
use crate::model::{
    Enforcement, GatewayMode, MqttOperation, OnAgentLoss, OnDrift, OnRefusal, Operations, Tls,
};

/// The format that this code writes and reads.
pub const PLAN_FORMAT: &str = "penstock-plan/1";

/// Everything one gateway enforces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Always [`PLAN_FORMAT`].
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
    pub rules: Vec<Rule>,
    /// What the gateway itself carries from one broker to another, by conduit and flow name.
    pub bridges: Vec<Bridge>,
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
    /// Operations inside Modbus/TCP.
    pub const INSPECT_MODBUS_TCP: &str = "inspect:modbus-tcp";
    /// Operations inside MQTT 3.1.1 and 5.
    pub const INSPECT_MQTT: &str = "inspect:mqtt";
    /// The same where TLS carries it.
    pub const INSPECT_MQTT_TLS: &str = "inspect:mqtt-tls";
    /// One-way bridges between brokers.
    pub const BRIDGE_MQTT: &str = "bridge:mqtt";
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
    /// `enforce` if any of those zones enforces.
    pub enforcement: Enforcement,
    /// The only addresses that may be seen on this side of the gateway, disjoint and sorted.
    pub networks: Vec<IpNet>,
}

impl PlanInterface {
    /// Whether `address` may be seen on this side.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
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
    pub operations: Option<Operations>,
    /// What a client gets for a refused operation.
    pub on_refusal: OnRefusal,
    /// The client's TLS ends at the gateway (then `requires` has `inspect:mqtt-tls`); only with operations.
    pub tls: Option<Tls>,
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

/// One side of a rule: a network, and the name of what the document calls it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The asset's or zone's name, for people.
    pub name: String,
    /// Its address (a host prefix) or network.
    pub network: IpNet,
}

/// A transport and what of it is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Transport {
    /// TCP to these destination ports.
    Tcp(Vec<PortRange>),
    /// UDP to these destination ports.
    Udp(Vec<PortRange>),
    /// ICMP or ICMPv6 echo request, and its replies.
    IcmpEcho,
}

/// Destination ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, not below `first`.
    pub last: u16,
}

impl PortRange {
    /// One port.
    pub fn single(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// Whether `port` lies within.
    pub fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// Why bytes are not a plan that this code may use.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Not JSON of the plan's shape: truncated, altered, or with fields unknown here.
    #[error("the plan cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// Made for other software.
    #[error("the plan has format `{0}`, this agent reads `{PLAN_FORMAT}`")]
    Format(String),
    /// Its own rules contradict one another (said in words).
    #[error("the plan is not well formed: {0}")]
    Malformed(String),
}

impl Plan {
    /// The exact bytes that are digested, signed for, sent and stored: JSON with fields in declared order.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A struct of strings, numbers and lists has no way to fail; an empty plan text would never verify.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a plan strictly, and checks that its rules are well formed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PlanError> {
        let plan: Self = serde_json::from_slice(bytes).map_err(PlanError::Unreadable)?;
        if plan.format != PLAN_FORMAT {
            return Err(PlanError::Format(plan.format));
        }
        plan.well_formed().map_err(PlanError::Malformed)?;
        Ok(plan)
    }

    /// The digest of [`Plan::to_bytes`].
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    fn well_formed(&self) -> Result<(), String> {
        let mut ids = BTreeSet::new();
        for rule in &self.rules {
            let name = format!("{}/{}", rule.conduit, rule.flow);
            if rule.id.0 == 0 || rule.id.0 > FlowId::MAX || !ids.insert(rule.id) {
                return Err(format!(
                    "flow {name} has the number {}, which is taken or out of range",
                    rule.id
                ));
            }
            if rule.sources.is_empty() || rule.destinations.is_empty() {
                return Err(format!("flow {name} has no source or no destination"));
            }
            if let Transport::Tcp(ports) | Transport::Udp(ports) = &rule.transport
                && (ports.is_empty() || ports.iter().any(|range| range.first > range.last))
            {
                return Err(format!(
                    "flow {name} has no ports or a range that ends before it begins"
                ));
            }
        }
        for rule in &self.rules {
            let inspector = match &rule.operations {
                None => continue,
                Some(Operations::ModbusTcp(listed)) if !listed.is_empty() => Capability::INSPECT_MODBUS_TCP,
                Some(Operations::Mqtt(listed)) if !listed.is_empty() => Capability::INSPECT_MQTT,
                Some(_) => return Err(format!("flow {}/{} lists no operation", rule.conduit, rule.flow)),
            };
            // Without it, an agent that has no inspector would take the limits for met.
            if !self.requires.iter().any(|capability| capability.0 == inspector) {
                return Err(format!(
                    "flow {}/{} limits operations, but the plan does not require `{inspector}`",
                    rule.conduit, rule.flow
                ));
            }
        }
        let mut names = BTreeSet::new();
        let managed = self.management.iter().map(|management| &management.interface);
        for name in self
            .interfaces
            .iter()
            .map(|interface| &interface.name)
            .chain(managed)
        {
            if !is_interface_name(name) {
                return Err(format!("`{name}` is not the name of an interface"));
            }
        }
        for interface in &self.interfaces {
            if !names.insert(&interface.name) {
                return Err(format!("interface {} appears twice", interface.name));
            }
        }
        Ok(())
    }
}

/// Whether a name can stand in a kernel ruleset as it is: 1–15 of `A-Z a-z 0-9 @ _ . -`, the first a letter or digit.
fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"@_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::compile::compile;
    use crate::waterworks::{gateway, waterworks};

    fn refused(spoil: impl Fn(&mut Plan)) -> String {
        let mut plan = compile(&waterworks(), &gateway()).unwrap();
        spoil(&mut plan);
        Plan::from_bytes(&plan.to_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_name_that_would_be_more_than_a_name_in_a_ruleset_is_refused() {
        for name in [
            "",
            "eth0\"; flush ruleset",
            "eth 0",
            "$eth",
            "-eth0",
            "an-interface-too-long",
            "é",
        ] {
            assert!(refused(|plan| plan.interfaces[0].name = name.to_owned()).contains("is not the name"));
            let managed = |plan: &mut Plan| plan.management.as_mut().unwrap().interface = name.to_owned();
            assert!(refused(managed).contains("is not the name"), "{name}");
        }
    }

    #[test]
    fn limits_that_nobody_would_inspect_are_refused() {
        assert!(refused(|plan| plan.requires.clear()).contains("does not require `inspect:modbus-tcp`"));
        let none = |plan: &mut Plan| plan.rules[0].operations = Some(Operations::Mqtt(Vec::new()));
        assert!(refused(none).contains("lists no operation"));
    }

    #[test]
    fn rules_that_could_mean_anything_or_nothing_are_refused() {
        assert!(refused(|plan| plan.rules[0].destinations.clear()).contains("no source or no destination"));
        let ports =
            |ports: Vec<PortRange>| refused(|plan| plan.rules[0].transport = Transport::Tcp(ports.clone()));
        assert!(ports(Vec::new()).contains("no ports"));
        assert!(ports(vec![PortRange { first: 2, last: 1 }]).contains("ends before it begins"));
        assert!(refused(|plan| plan.rules[0].id = FlowId(FlowId::MAX + 1)).contains("out of range"));
        assert!(refused(|plan| plan.format = "penstock-plan/9".to_owned()).contains("penstock-plan/9"));
    }
}

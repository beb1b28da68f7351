//! The part of a plan that shapes the rule set itself: interfaces, sides, pairs, management. Pure.
//!
//! While two plans have the same structure they differ in map elements alone, and the kernel is changed by
//! differences. Where the structure differs, the rules are written anew around the standing maps, in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use penstock_policy::ids::FlowId;
use penstock_policy::plan::{FrameRule, Hardware, Observing, Plan, PlanInterface};
use penstock_policy::terms::GatewayMode;
use serde::{Deserialize, Serialize};

use super::block::Span;
use super::legs::{Legs, legs};
use super::neighbours::Neighbours;
use super::passive;
use super::spans::sides;
use crate::intercept::InspectorPorts;

/// The most guarded interfaces of one gateway: pairs of them are enumerated.
pub const INTERFACES_MAX: usize = 64;

/// Longest interface name that the kernel has, in bytes.
const INTERFACE_NAME_MAX: usize = 15;

/// Everything but the flows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Structure {
    /// Routed or bridged.
    pub mode: GatewayMode,
    /// The guarded interfaces.
    pub guarded: BTreeSet<String>,
    /// IPv4 addresses that may be seen on each side, by guarded interface, in order.
    pub sides4: BTreeMap<String, Vec<Span<Ipv4Addr>>>,
    /// IPv6 addresses that may be seen on each side, by guarded interface, in order.
    pub sides6: BTreeMap<String, Vec<Span<Ipv6Addr>>>,
    /// IPv4 addresses that may send ICMP errors on each side: those of the side, and its routers.
    pub routers4: BTreeMap<String, Vec<Span<Ipv4Addr>>>,
    /// IPv6 addresses that may send ICMP errors on each side: those of the side, and its routers.
    pub routers6: BTreeMap<String, Vec<Span<Ipv6Addr>>>,
    /// IPv4 addresses whose zones only observe.
    pub passive4: Vec<Span<Ipv4Addr>>,
    /// IPv6 addresses whose zones only observe.
    pub passive6: Vec<Span<Ipv6Addr>>,
    /// Pairs between which nothing is a crossing.
    pub same_zone: BTreeSet<(String, String)>,
    /// Those of the guarded interfaces whose zones all enforce.
    pub enforcers: BTreeSet<String>,
    /// The IPv4 addresses of zones that observe, by those of the guarded interfaces that have zones of both kinds.
    pub observing4: BTreeMap<String, Vec<Span<Ipv4Addr>>>,
    /// The IPv6 addresses, of the same interfaces.
    pub observing6: BTreeMap<String, Vec<Span<Ipv6Addr>>>,
    /// Who may reach the gateway itself.
    pub input: Input,
    /// What a bridged gateway knows of neighbours; nothing on a routed one.
    pub neighbours: Neighbours,
    /// Addresses of which packets count only if they come from that MAC address, by guarded interface.
    pub bound: BTreeMap<String, Vec<Hardware>>,
    /// What crosses beside IP; nothing on a routed gateway.
    pub frames: Vec<FrameRule>,
    /// The numbers of flows that hang on grants of remote access, open or not.
    pub limited: BTreeSet<FlowId>,
    /// Where the inspector speaks to servers in the plain, in IPv4.
    pub(in crate::enforce) legs4: Legs<Ipv4Addr>,
    /// The same in IPv6.
    pub(in crate::enforce) legs6: Legs<Ipv6Addr>,
    /// What tunnels need of the rules beside their sides.
    pub tunnels: TunnelRules,
    /// Where the inspector listens; `None` if there is none, so that what would be inspected goes nowhere.
    pub inspector: Option<InspectorPorts>,
    /// Services of the gateway itself over TCP. They are not the plan's, but this machine's.
    pub own: OwnServices,
}

/// Services of the gateway itself: its own addresses and ports, and who reaches them.
pub type OwnServices = BTreeMap<SocketAddr, OwnClients>;

/// Who may reach a service of the gateway itself. By an interface that the plan does not guard nobody does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnClients {
    /// Whoever is on a guarded side.
    GuardedSides,
    /// These addresses alone, each on the side where the plan has it.
    Only(BTreeSet<IpAddr>),
}

impl Structure {
    /// The guarded interface on whose side the plan has `address`.
    pub fn side_of(&self, address: IpAddr) -> Option<&String> {
        match address {
            IpAddr::V4(address) => holder(&self.sides4, address),
            IpAddr::V6(address) => holder(&self.sides6, address),
        }
    }

    /// The guarded interfaces that have zones of both kinds, those that observe and those that enforce.
    pub fn mixed(&self) -> Vec<&String> {
        self.observing4.keys().collect()
    }
}

/// Tunnels to other gateways, as far as they are more than sides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TunnelRules {
    /// Their devices, which take smaller packets than other interfaces.
    pub devices: BTreeSet<String>,
    /// Where other gateways connect to this one: by which interface, to which UDP port; `None`: none does.
    pub entrance: Option<(String, u16)>,
}

impl TunnelRules {
    fn of(plan: &Plan) -> Self {
        let Some(tunnels) = &plan.tunnels else {
            return Self::default();
        };
        Self {
            devices: tunnels.peers.iter().map(|tunnel| tunnel.device.clone()).collect(),
            entrance: tunnels
                .is_connected_to()
                .then(|| (tunnels.interface.clone(), tunnels.port)),
        }
    }
}

/// The guard of the gateway's own input. Whoever is not named here reaches no port of the gateway, by whichever interface;
/// what the gateway opens itself, the link to its coordinator above all, is answered. So a gateway without management is
/// led by its coordinator, and at its own console.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The management interface, whether it exists at the moment or not; `None`: nobody manages over the network.
    pub interface: Option<String>,
    /// IPv4 peers; none of them may be left out.
    pub peers4: BTreeSet<IpNet>,
    /// IPv6 peers.
    pub peers6: BTreeSet<IpNet>,
}

/// Something that a person should know about a plan that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Stable code.
    pub code: &'static str,
    /// A sentence.
    pub message: String,
}

/// Why a plan has no structure that the kernel could hold.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StructureError {
    /// A name that is no kernel interface name.
    #[error("`{0}` is not an interface name: the kernel's have 1 to 15 of letters, digits and `.-_@:`")]
    InterfaceName(String),
    /// More than [`INTERFACES_MAX`].
    #[error("the plan guards {0} interfaces, at most {INTERFACES_MAX} are supported on one gateway")]
    TooManyInterfaces(usize),
}

/// Takes the structure out of `plan`, the same on every machine.
pub(crate) fn structure(
    plan: &Plan,
    inspector: Option<InspectorPorts>,
) -> Result<(Structure, Vec<Finding>), StructureError> {
    if plan.interfaces.len() > INTERFACES_MAX {
        return Err(StructureError::TooManyInterfaces(plan.interfaces.len()));
    }
    let named = plan
        .interfaces
        .iter()
        .map(|i| &i.name)
        .chain(plan.management.iter().map(|m| &m.interface));
    for name in named {
        if !is_interface_name(name) {
            return Err(StructureError::InterfaceName(name.clone()));
        }
    }
    let input = Input::of(plan);
    let findings = input.findings().into_iter().collect();
    let pairs = |holds: &dyn Fn(&PlanInterface, &PlanInterface) -> bool| -> BTreeSet<(String, String)> {
        let all = plan
            .interfaces
            .iter()
            .flat_map(|a| plan.interfaces.iter().map(move |b| (a, b)));
        all.filter(|(a, b)| holds(a, b))
            .map(|(a, b)| (a.name.clone(), b.name.clone()))
            .collect()
    };
    let structure = Structure {
        mode: plan.mode,
        guarded: plan.interfaces.iter().map(|i| i.name.clone()).collect(),
        sides4: sides(plan, |side| Some([&side.networks, &[]])),
        sides6: sides(plan, |side| Some([&side.networks, &[]])),
        routers4: sides(plan, |side| Some([&side.networks, &side.routers])),
        routers6: sides(plan, |side| Some([&side.networks, &side.routers])),
        passive4: passive::spans(plan),
        passive6: passive::spans(plan),
        same_zone: pairs(&|a, b| a.zone == b.zone && a.behind.is_empty() && b.behind.is_empty()),
        enforcers: plan
            .interfaces
            .iter()
            .filter(|i| i.observing == Observing::Nothing)
            .map(|i| i.name.clone())
            .collect(),
        observing4: sides(plan, observing),
        observing6: sides(plan, observing),
        input,
        neighbours: match plan.mode {
            GatewayMode::Routed => Neighbours::default(),
            GatewayMode::Bridged => Neighbours::of(plan),
        },
        bound: plan.bound.clone(),
        frames: plan.frames.clone(),
        limited: plan
            .rules
            .iter()
            .filter(|rule| plan.grants.contains_key(&rule.conduit))
            .map(|rule| rule.id)
            .collect(),
        legs4: legs(plan),
        legs6: legs(plan),
        tunnels: TunnelRules::of(plan),
        inspector,
        own: OwnServices::new(),
    };
    Ok((structure, findings))
}

impl Input {
    fn of(plan: &Plan) -> Self {
        let Some(management) = &plan.management else {
            return Self::default();
        };
        let (peers4, peers6) = IpNet::aggregate(&management.peers)
            .into_iter()
            .partition(|net| matches!(net, IpNet::V4(_)));
        Self {
            interface: Some(management.interface.clone()),
            peers4,
            peers6,
        }
    }

    /// What a person should know about it.
    fn findings(&self) -> Option<Finding> {
        let closed = "no port of the gateway itself can be reached over the network; it is managed by its coordinator and at its own console";
        let why = match &self.interface {
            None => "the plan names no management access",
            Some(_) if self.peers4.is_empty() && self.peers6.is_empty() => {
                "the plan's management access names no peers"
            }
            Some(_) => return None,
        };
        Some(Finding {
            code: "management-none",
            message: format!("{why}: {closed}; give the gateway a `management` interface with its peers"),
        })
    }
}

/// That this machine does not have the management interface which `plan` names, as far as `exists` tells.
pub fn missing_management(plan: &Plan, exists: impl Fn(&str) -> bool) -> Option<Finding> {
    let management = plan.management.as_ref()?;
    (!exists(&management.interface)).then(|| Finding {
        code: "management-missing",
        message: format!(
            "this gateway has no interface {}, by which it is managed: until it appears, the gateway is managed by its coordinator and at its own console. If it has another name now, correct the name or the document",
            management.interface
        ),
    })
}

fn holder<A: Ord + Copy>(sides: &BTreeMap<String, Vec<Span<A>>>, address: A) -> Option<&String> {
    let holds = |span: &Span<A>| (span.first..=span.last).contains(&address);
    sides
        .iter()
        .find_map(|(name, spans)| spans.iter().any(holds).then_some(name))
}

/// The addresses that observe on a side of both kinds.
fn observing(side: &PlanInterface) -> Option<[&[IpNet]; 2]> {
    match &side.observing {
        Observing::Nothing | Observing::Everything => None,
        Observing::Only(networks) => Some([networks, &[]]),
    }
}

/// A wildcard (`*`), a quote or a space in a name would change the meaning of the script it is written into.
pub(in crate::enforce) fn is_interface_name(name: &str) -> bool {
    (1..=INTERFACE_NAME_MAX).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@' | ':'))
}

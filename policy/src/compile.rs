//! From the plant to each gateway's plan: everything resolved, sorted and numbered, no choice left.
//!
//! Deterministic to the byte: the model's maps are sorted by name, lists whose order means nothing
//! (addresses, networks, ports) are sorted and merged here, so that writing the same thing in another order
//! changes no plan. The cost is linear in the number of conduits, and a fleet's plans share one pass
//! ([`compile_all`]).
//!
//! Not here: judging a plan. `check` does that, and shares no code with this file.

mod assurance;
mod flow_ids;
mod frames;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;

pub use self::flow_ids::FlowIds;
use crate::ids::{ConduitId, FlowId, FlowName, GatewayId, ZoneId};
use crate::model::{Asset, BridgeSource, Conduit, Flow, FlowEnd, Gateway, Interface, Plant, Service};
use crate::plan::{
    BreakGlass, Bridge, Broker, Capability, ChangeWindows, Endpoint, Grant, Hardware, Interlock, Management,
    Observing, PLAN_FORMAT, Plan, PlanInterface, Rule, Tunnel, Tunnels,
};
use crate::protocol::mqtt::MqttOperation;
use crate::terms::{Enforcement, GatewayMode, Mac, MacError, PortRange, Tls, Transport};

/// Why no plan can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The plant has no such gateway.
    #[error("the plant has no gateway `{0}`: name one of its gateways")]
    UnknownGateway(GatewayId),
    /// More flows than numbers can be given to.
    #[error("the plant has {0} flows, at most {max} can be numbered: divide it into several plants", max = flow_ids::FLOWS_MAX)]
    TooManyFlows(usize),
    /// A name that does not resolve, which validation rules out.
    #[error("{0}: validate the plant document before compiling it")]
    Unresolved(String),
}

/// The plan of one gateway.
///
/// # Errors
/// The plant has no such gateway, or the document was not validated: a flow without a number, an interface of an unknown zone.
pub fn compile(plant: &Plant, gateway: &GatewayId) -> Result<Plan, CompileError> {
    Compiler::new(plant)?.gateway(gateway)
}

/// The plans of all gateways, for about the cost of reading the plant once.
///
/// # Errors
/// As [`compile`], of any gateway.
pub fn compile_all(plant: &Plant) -> Result<BTreeMap<GatewayId, Plan>, CompileError> {
    let compiler = Compiler::new(plant)?;
    plant
        .gateways
        .keys()
        .map(|gateway| Ok((gateway.clone(), compiler.gateway(gateway)?)))
        .collect()
}

/// What all gateways' plans have in common: numbers, and who needs what.
struct Compiler<'a> {
    plant: &'a Plant,
    ids: FlowIds,
    conduits: BTreeMap<&'a GatewayId, Vec<(&'a ConduitId, &'a Conduit)>>,
    /// What lives in each zone, aggregated once however many gateways see it.
    networks: BTreeMap<&'a ZoneId, Vec<IpNet>>,
    /// The assets of each zone whose MAC address is declared.
    bound: BTreeMap<&'a ZoneId, Vec<&'a Asset>>,
    /// The conduits that do not stand open.
    grants: BTreeMap<&'a ConduitId, Vec<Grant>>,
}

impl<'a> Compiler<'a> {
    fn new(plant: &'a Plant) -> Result<Self, CompileError> {
        let ids = FlowIds::assign(plant)?;
        let mut conduits: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (id, conduit) in &plant.conduits {
            for gateway in &conduit.via {
                conduits.entry(gateway).or_default().push((id, conduit));
            }
        }
        let mut networks: BTreeMap<&ZoneId, Vec<IpNet>> = plant
            .zones
            .iter()
            .map(|(id, zone)| (id, zone.networks.iter().map(IpNet::trunc).collect()))
            .collect();
        for asset in plant.assets.values() {
            let addresses = asset.addresses.iter().copied().map(IpNet::from);
            networks.entry(&asset.zone).or_default().extend(addresses);
        }
        let mut bound: BTreeMap<&ZoneId, Vec<&Asset>> = BTreeMap::new();
        for asset in plant.assets.values().filter(|asset| asset.mac.is_some()) {
            bound.entry(&asset.zone).or_default().push(asset);
        }
        for living in networks.values_mut() {
            *living = IpNet::aggregate(living);
        }
        Ok(Self {
            plant,
            ids,
            conduits,
            networks,
            bound,
            grants: grants(plant),
        })
    }

    fn gateway(&self, id: &GatewayId) -> Result<Plan, CompileError> {
        let gateway = self
            .plant
            .gateways
            .get(id)
            .ok_or_else(|| CompileError::UnknownGateway(id.clone()))?;
        let interfaces = gateway
            .interfaces
            .iter()
            .map(|(name, interface)| self.interface(name, interface, gateway.mode))
            .collect::<Result<_, _>>()?;
        let mut rules = Vec::new();
        let mut bridges = Vec::new();
        for (conduit_id, conduit) in self.conduits.get(id).into_iter().flatten() {
            for (name, flow) in &conduit.flows {
                let number = self.ids.get(conduit_id, name).ok_or_else(|| {
                    CompileError::Unresolved(format!("flow `{conduit_id}/{name}` has no number"))
                })?;
                if let Some(source) = &flow.bridge_source {
                    bridges.push(bridge(number, conduit_id, name, (source, flow))?);
                    continue;
                }
                rules.push(Rule {
                    id: number,
                    conduit: (*conduit_id).clone(),
                    flow: name.clone(),
                    sources: endpoints(&flow.sources),
                    destinations: endpoints(&flow.destinations),
                    transport: merged(&flow.service.transport),
                    must_flow: flow.must_flow,
                    on_agent_loss: conduit.on_agent_loss,
                    operations: flow.operations.clone().map(Arc::new),
                    roles: flow.roles.clone().map(Arc::new),
                    on_refusal: flow.on_refusal,
                    answers: flow.answers,
                    tls: flow.tls.clone().map(Arc::new),
                });
            }
        }
        let crossed = self.conduits.get(id).into_iter().flatten();
        let grants: BTreeMap<ConduitId, Vec<Grant>> = crossed
            .filter_map(|(conduit, _)| Some(((*conduit).clone(), self.grants.get(conduit)?.clone())))
            .collect();
        let break_glass = self.break_glass(id, gateway);
        let crossing = self.conduits.get(id).into_iter().flatten();
        let frames = crossing.flat_map(|(id, conduit)| frames::rules(gateway, id, conduit));
        let mut plan = Plan {
            format: PLAN_FORMAT.to_owned(),
            plant: self.plant.id.clone(),
            gateway: id.clone(),
            mode: gateway.mode,
            requires: BTreeSet::new(),
            on_drift: gateway.on_drift,
            interfaces,
            management: gateway.management.as_ref().map(|management| Management {
                interface: management.interface.clone(),
                peers: sorted(management.peers.iter().map(IpNet::trunc)),
            }),
            rules,
            bridges,
            frames: frames.collect(),
            grants,
            windows: self.windows(id, gateway)?,
            interlock: self.interlock(id, gateway)?,
            break_glass,
            tunnels: self.tunnels(id, gateway)?,
            bound: BTreeMap::new(),
            unproven: Vec::new(),
            open: BTreeSet::new(),
            excepted: BTreeMap::new(),
        };
        self.weigh(gateway, &mut plan);
        plan.requires = requires(gateway, &plan);
        Ok(plan)
    }

    /// When the gateway may be changed, by its site's clock.
    fn windows(&self, id: &GatewayId, gateway: &Gateway) -> Result<Option<ChangeWindows>, CompileError> {
        if gateway.windows.is_empty() {
            return Ok(None);
        }
        let site = self.plant.sites.get(&gateway.site).ok_or_else(|| {
            CompileError::Unresolved(format!(
                "gateway `{id}` names the unknown site `{}`",
                gateway.site
            ))
        })?;
        let mut weekly = gateway.windows.clone();
        weekly.sort_by_key(|window| (window.weekday, window.start_minute));
        Ok(Some(ChangeWindows {
            timezone: site.timezone.clone(),
            weekly,
        }))
    }

    /// What the gateway asks before it changes, and from where.
    fn interlock(&self, id: &GatewayId, gateway: &Gateway) -> Result<Option<Interlock>, CompileError> {
        let Some(safe) = &gateway.safe_to_change else {
            return Ok(None);
        };
        let asset = self.plant.assets.get(&safe.asset);
        let asked = asset.and_then(|asset| gateway.asks(&asset.zone, &asset.addresses));
        let (address, from) = asked.ok_or_else(|| {
            CompileError::Unresolved(format!("gateway `{id}` cannot ask the asset `{}`", safe.asset))
        })?;
        Ok(Some(Interlock {
            asset: safe.asset.clone(),
            address,
            port: safe.port,
            from,
            condition: safe.condition.clone(),
        }))
    }

    /// Who may override the gateway; `None` where the document permits nobody enough.
    fn break_glass(&self, id: &GatewayId, gateway: &Gateway) -> Option<BreakGlass> {
        let permitting = self.plant.break_glass.as_ref()?;
        let here = permitting
            .people
            .iter()
            .filter(|(_, person)| person.may_at(&gateway.site));
        let whole = BreakGlass {
            longest_s: permitting.longest_s,
            people: here.map(|(name, person)| (name.clone(), person.key)).collect(),
            codes: permitting.sealed.get(id).cloned().unwrap_or_default(),
        };
        whole.permits_somebody().then_some(whole)
    }

    /// The tunnels that end at the gateway. Of two gateways the one that can be reached is connected to; of two that can, the one whose
    /// name comes later.
    fn tunnels(&self, id: &GatewayId, gateway: &Gateway) -> Result<Option<Tunnels>, CompileError> {
        let Some(own) = gateway.tunnel.as_ref().filter(|_| !gateway.tunnels.is_empty()) else {
            return Ok(None);
        };
        let peers = gateway.tunnels.iter().map(|(device, peer)| {
            let end = self
                .plant
                .gateways
                .get(peer)
                .and_then(|peer| peer.tunnel.as_ref());
            let end = end.ok_or_else(|| {
                CompileError::Unresolved(format!("the tunnel from `{id}` to `{peer}` has no other end"))
            })?;
            let connects = own.address.is_none() || id < peer;
            Ok(Tunnel {
                device: device.clone(),
                peer: peer.clone(),
                connect: end
                    .address
                    .filter(|_| connects)
                    .map(|address| SocketAddr::new(address, end.port)),
                vouched: Vec::new(),
            })
        });
        Ok(Some(Tunnels {
            interface: own.interface.clone(),
            port: own.port,
            peers: peers.collect::<Result<_, CompileError>>()?,
        }))
    }

    /// The MAC addresses of the assets that live on a side.
    fn hardware(&self, interface: &Interface) -> Result<Vec<Hardware>, CompileError> {
        let mut hardware = BTreeSet::new();
        let zones = std::iter::once(&interface.zone).chain(&interface.behind);
        for asset in zones.filter_map(|zone| self.bound.get(zone)).flatten() {
            let Some(mac) = asset.mac.as_ref() else {
                continue;
            };
            let mac: Mac = mac
                .parse()
                .map_err(|error: MacError| CompileError::Unresolved(error.to_string()))?;
            let addresses = asset.addresses.iter();
            hardware.extend(addresses.map(|address| Hardware {
                address: *address,
                mac,
            }));
        }
        Ok(hardware.into_iter().collect())
    }

    fn interface(
        &self,
        name: &str,
        interface: &Interface,
        mode: GatewayMode,
    ) -> Result<PlanInterface, CompileError> {
        let mut networks = Vec::new();
        let mut observing = Vec::new();
        let mut all_observe = true;
        for id in std::iter::once(&interface.zone).chain(&interface.behind) {
            let zone = self.plant.zones.get(id).ok_or_else(|| {
                CompileError::Unresolved(format!("interface `{name}` names the unknown zone `{id}`"))
            })?;
            let living = self.networks.get(id).into_iter().flatten().copied();
            networks.extend(living.clone());
            match zone.enforcement {
                Enforcement::Observe => observing.extend(living),
                Enforcement::Enforce => all_observe = false,
            }
        }
        // No two zones share an address, so this takes nothing from a zone that enforces.
        let observing = sorted(IpNet::aggregate(&observing).into_iter());
        Ok(PlanInterface {
            name: name.to_owned(),
            zone: interface.zone.clone(),
            behind: sorted(interface.behind.iter().cloned()),
            networks: sorted(IpNet::aggregate(&networks).into_iter()),
            observing: match observing {
                _ if all_observe => Observing::Everything,
                networks if networks.is_empty() => Observing::Nothing,
                networks => Observing::Only(networks),
            },
            routers: sorted(interface.routers.iter().map(IpNet::trunc)),
            hardware: match mode {
                GatewayMode::Routed => Vec::new(),
                GatewayMode::Bridged => self.hardware(interface)?,
            },
        })
    }
}

/// The conduits that are open only while a grant lasts, with their grants in the order of time.
pub(crate) fn grants(plant: &Plant) -> BTreeMap<&ConduitId, Vec<Grant>> {
    let declared = plant.conduits.iter().filter(|(_, conduit)| conduit.only_by_grant);
    let mut grants: BTreeMap<&ConduitId, Vec<Grant>> = declared.map(|(id, _)| (id, Vec::new())).collect();
    for (name, access) in &plant.remote_access {
        grants.entry(&access.conduit).or_default().push(Grant {
            name: name.clone(),
            person: access.person.clone(),
            from_ms: access.from_ms,
            until_ms: access.until_ms,
        });
    }
    for grants in grants.values_mut() {
        grants.sort_by(|a, b| (a.from_ms, a.until_ms, &a.name).cmp(&(b.from_ms, b.until_ms, &b.name)));
    }
    grants
}

/// What an agent must be able to do for the plan.
fn requires(gateway: &Gateway, plan: &Plan) -> BTreeSet<Capability> {
    let mut needed = BTreeSet::from([Capability::of(Capability::KERNEL)]);
    if gateway.mode == GatewayMode::Bridged {
        needed.insert(Capability::of(Capability::KERNEL_BRIDGE));
    }
    needed.extend(plan.rules.iter().flat_map(Rule::inspectors).flatten());
    if !plan.bridges.is_empty() {
        needed.insert(Capability::of(Capability::BRIDGE_MQTT));
    }
    if !gateway.windows.is_empty() || gateway.safe_to_change.is_some() {
        needed.insert(Capability::of(Capability::CHANGE_CONTROL));
    }
    if !plan.grants.is_empty() {
        needed.insert(Capability::of(Capability::REMOTE_ACCESS));
    }
    if plan.break_glass.is_some() {
        needed.insert(Capability::of(Capability::OVERRIDES));
    }
    if !plan.frames.is_empty() {
        needed.insert(Capability::of(Capability::FRAMES));
    }
    if plan.weighs() {
        needed.insert(Capability::of(Capability::ASSURANCE));
    }
    if !gateway.tunnels.is_empty() {
        needed.insert(Capability::of(Capability::TUNNEL));
    }
    needed
}

/// A flow that the gateway carries itself. Validation has seen to its one broker at each end.
fn bridge(
    id: FlowId,
    conduit: &ConduitId,
    name: &FlowName,
    (source, flow): (&BridgeSource, &Flow),
) -> Result<Bridge, CompileError> {
    let unresolved =
        |what: &str| CompileError::Unresolved(format!("the bridge `{conduit}/{name}` has {what}"));
    let port = |service: &Service| match &service.transport {
        Transport::Tcp(ports) => match ports.as_slice() {
            [only] if only.first == only.last => Ok(only.first),
            _ => Err(unresolved("not one port")),
        },
        Transport::Udp(_) | Transport::IcmpEcho => Err(unresolved("no TCP port")),
    };
    let broker = |ends: &[FlowEnd], service, tls: &Option<Tls>| match ends {
        [FlowEnd::Asset(asset, addresses)] => match addresses.as_slice() {
            [address] => Ok(Broker {
                asset: asset.clone(),
                address: *address,
                port: port(service)?,
                tls: tls.clone(),
            }),
            _ => Err(unresolved("an end with not one address")),
        },
        _ => Err(unresolved("an end that is not one broker")),
    };
    let publications = flow.operations.as_ref().and_then(MqttOperation::list);
    let Some(publications) = publications else {
        return Err(unresolved("no publications"));
    };
    Ok(Bridge {
        id,
        conduit: conduit.clone(),
        flow: name.clone(),
        from: broker(&flow.sources, &source.service, &source.tls)?,
        to: broker(&flow.destinations, &flow.service, &flow.tls)?,
        publications,
        must_flow: flow.must_flow,
    })
}

/// The ends of a flow as networks with the document's names (`plc-7`, `zone:control`), sorted by network.
fn endpoints(ends: &[FlowEnd]) -> Vec<Endpoint> {
    let mut all = BTreeSet::new();
    for end in ends {
        match end {
            FlowEnd::Asset(id, addresses) => all.extend(
                addresses
                    .iter()
                    .map(|address| (IpNet::from(*address), id.as_str().into())),
            ),
            FlowEnd::Zone(id, networks) => all.extend(
                networks
                    .iter()
                    .map(|network| (network.trunc(), format!("zone:{id}").into())),
            ),
        }
    }
    all.into_iter()
        .map(|(network, name)| Endpoint { name, network })
        .collect()
}

/// The transport with its port ranges sorted, and those that overlap made one. Neighbours stay apart: single ports
/// are found faster in the kernel than ranges.
fn merged(transport: &Transport) -> Transport {
    match transport {
        Transport::Tcp(ports) => Transport::Tcp(merged_ports(ports)),
        Transport::Udp(ports) => Transport::Udp(merged_ports(ports)),
        Transport::IcmpEcho => Transport::IcmpEcho,
    }
}

fn merged_ports(ports: &[PortRange]) -> Vec<PortRange> {
    let mut merged: Vec<PortRange> = Vec::new();
    for range in sorted(ports.iter().copied()) {
        match merged.last_mut() {
            Some(last) if range.first <= last.last => last.last = last.last.max(range.last),
            _ => merged.push(range),
        }
    }
    merged
}

fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    items.collect::<BTreeSet<_>>().into_iter().collect()
}

//! `PC011x`: the plan says what the plant says, no more and no less.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::Findings;
use super::assurance::{self, declared_networks};
use super::spans::{Spans, ports};
use crate::ids::{ConduitId, FlowName, GatewayId, ZoneId};
use crate::model::{Asset, Conduit, Flow, FlowEnd, FrameFlow, Plant, Service};
use crate::plan::{
    Bridge, Broker, Capability, Endpoint, FlowSide, Grant, Observing, Plan, PlanInterface, Rule, Unproven,
};
use crate::protocol::Operations;
use crate::terms::{Enforcement, GatewayMode, Transport};

const RECOMPILE: &str =
    "compile the plans again; if the finding stays, it is a fault in Penstock: please report it";

/// The plant by what a gateway's plan is held against, gathered once for the whole fleet: else each plan would cost a look
/// at the whole plant.
pub(super) struct Index<'a> {
    conduits: BTreeMap<&'a GatewayId, Vec<(&'a ConduitId, &'a Conduit)>>,
    grants: BTreeMap<&'a ConduitId, BTreeSet<Grant>>,
    places: BTreeMap<&'a ZoneId, ZoneMembers<'a>>,
}

/// What lives in a zone.
#[derive(Default)]
struct ZoneMembers<'a> {
    networks: Vec<IpNet>,
    assets: Vec<&'a Asset>,
}

impl<'a> Index<'a> {
    pub(super) fn of(plant: &'a Plant) -> Self {
        let mut conduits: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (id, conduit) in &plant.conduits {
            for gateway in &conduit.via {
                conduits.entry(gateway).or_default().push((id, conduit));
            }
        }
        let mut places: BTreeMap<_, ZoneMembers<'_>> = BTreeMap::new();
        for (id, zone) in &plant.zones {
            places.entry(id).or_default().networks.extend(&zone.networks);
        }
        for asset in plant.assets.values() {
            let place = places.entry(&asset.zone).or_default();
            place
                .networks
                .extend(asset.addresses.iter().map(|address| IpNet::from(*address)));
            place.assets.push(asset);
        }
        let mut grants: BTreeMap<_, BTreeSet<Grant>> = BTreeMap::new();
        for (name, access) in &plant.remote_access {
            grants.entry(&access.conduit).or_default().insert(Grant {
                name: name.clone(),
                person: access.person.clone(),
                from_ms: access.from_ms,
                until_ms: access.until_ms,
            });
        }
        Self {
            conduits,
            grants,
            places,
        }
    }

    /// The conduits of a gateway that do not stand open, each with its grants, the earliest first.
    fn grants_of(&self, gateway: &GatewayId) -> BTreeMap<ConduitId, Vec<Grant>> {
        let mut limited = BTreeMap::new();
        for (id, conduit) in self.conduits.get(gateway).into_iter().flatten() {
            let grants = self.grants.get(id);
            if !conduit.only_by_grant && grants.is_none() {
                continue;
            }
            let mut grants: Vec<Grant> = grants.into_iter().flatten().cloned().collect();
            grants.sort_by_key(|grant| (grant.from_ms, grant.until_ms));
            limited.insert((*id).clone(), grants);
        }
        limited
    }

    /// The zones of a side, and what lives there.
    fn on<'s>(&'s self, side: &'s PlanInterface) -> impl Iterator<Item = (&'s ZoneId, &'s ZoneMembers<'a>)> {
        let zones: BTreeSet<&ZoneId> = std::iter::once(&side.zone).chain(&side.behind).collect();
        zones
            .into_iter()
            .filter_map(|zone| Some((zone, self.places.get(zone)?)))
    }
}

/// Every gateway has its plan, and no other has one.
pub(super) fn fleet(plant: &Plant, plans: &BTreeMap<GatewayId, Plan>, findings: &mut Findings) {
    for gateway in plant.gateways.keys() {
        if !plans.contains_key(gateway) {
            findings.error("PC0111", format!("gateway {gateway} has no plan"), RECOMPILE);
        }
    }
    for (gateway, plan) in plans {
        if !plant.gateways.contains_key(gateway) || plan.gateway != *gateway || plan.plant != plant.id {
            let words = format!(
                "the plan kept for gateway {gateway} is for {} of plant {}, which is not it",
                plan.gateway, plan.plant
            );
            findings.error("PC0112", words, RECOMPILE);
        }
        for words in assurance::taken_on_trust(plan, plans) {
            findings.error("PC0113", format!("at gateway {gateway}, {words}"), RECOMPILE);
        }
    }
}

pub(super) fn check(plant: &Plant, index: &Index<'_>, plan: &Plan, findings: &mut Findings) {
    if let Err(error) = Plan::from_bytes(&plan.to_bytes()) {
        let words = format!("the agent would refuse this plan: {error}");
        findings.error("PC0116", words, RECOMPILE);
    }
    let mut declared: BTreeMap<(&ConduitId, &FlowName), (&Conduit, &Flow)> = BTreeMap::new();
    for (id, conduit) in index.conduits.get(&plan.gateway).into_iter().flatten() {
        for (name, flow) in &conduit.flows {
            declared.insert((id, name), (conduit, flow));
        }
    }
    for rule in &plan.rules {
        let name = format!("{}/{}", rule.conduit, rule.flow);
        match declared.remove(&(&rule.conduit, &rule.flow)) {
            None => findings.error(
                "PC0113",
                format!("rule {name} permits what no flow of this gateway declares"),
                RECOMPILE,
            ),
            Some((conduit, flow)) => {
                let denied = left_out(plan, &rule.conduit, &rule.flow);
                let denied = denied.filter(|_| !plant.spares(conduit, flow));
                for differs in differences(conduit, flow, rule, denied) {
                    let words = format!("rule {name} has {differs} than its flow declares");
                    findings.error("PC0113", words, RECOMPILE);
                }
                if !inspected(plan, rule) {
                    let words =
                        format!("rule {name} limits operations, but the plan does not require an inspector");
                    findings.error("PC0117", words, RECOMPILE);
                }
            }
        }
    }
    for bridge in &plan.bridges {
        let name = format!("{}/{}", bridge.conduit, bridge.flow);
        match declared.remove(&(&bridge.conduit, &bridge.flow)) {
            None => findings.error(
                "PC0113",
                format!("bridge {name} carries what no flow of this gateway declares"),
                RECOMPILE,
            ),
            Some((_, flow)) => {
                for differs in bridge_differences(flow, bridge) {
                    let words = format!("bridge {name} has {differs} than its flow declares");
                    findings.error("PC0113", words, RECOMPILE);
                }
                if !required(plan, Capability::BRIDGE_MQTT) {
                    let words =
                        format!("the plan has the bridge {name}, but does not require one that carries it");
                    findings.error("PC0117", words, RECOMPILE);
                }
            }
        }
    }
    for ((conduit, flow), (asked, declares)) in declared {
        let denied = left_out(plan, conduit, flow).filter(|_| !plant.spares(asked, declares));
        if denied.is_some_and(|denied| assurance::leaves_nothing(asked, declares, denied)) {
            continue;
        }
        let words = format!("flow {conduit}/{flow} is declared for this gateway but not in its plan");
        findings.error("PC0114", words, RECOMPILE);
    }
    if !crosses_as_declared(plant, index, plan) {
        let words = "the plan lets other frames beside IP cross than its conduits declare".to_owned();
        findings.error("PC0113", words, RECOMPILE);
    }
    if plan.grants != index.grants_of(&plan.gateway) {
        let words = "the plan opens a conduit at other times than its grants of remote access say".to_owned();
        findings.error("PC0118", words, RECOMPILE);
    } else if !plan.grants.is_empty() && !required(plan, Capability::REMOTE_ACCESS) {
        let words =
            "grants open a conduit of the plan, but it does not require an agent that closes it".to_owned();
        findings.error("PC0117", words, RECOMPILE);
    }
    if !tunnelled_as_declared(plant, plan) {
        let words = "the plan has other tunnels than the plant's conduits ask for".to_owned();
        findings.error("PC0119", words, RECOMPILE);
    }
    let conduits = index.conduits.get(&plan.gateway).map_or(&[][..], Vec::as_slice);
    let assets_on = |side: &PlanInterface| {
        let members = index.on(side).map(|(_, members)| members);
        members.flat_map(|members| members.assets.clone()).collect()
    };
    for words in assurance::faults(conduits, assets_on, plan) {
        findings.error("PC0113", words, RECOMPILE);
    }
    sides(plant, index, plan, findings);
}

/// Whether the frames other than IP that cross are those of the gateway's conduits, each between all the sides of its two zones, and the
/// agent has to tell them apart.
fn crosses_as_declared(plant: &Plant, index: &Index<'_>, plan: &Plan) -> bool {
    let sides = |zone: &ZoneId| -> BTreeSet<&String> {
        let gateway = plant.gateways.get(&plan.gateway).into_iter();
        let sides = gateway.flat_map(|gateway| &gateway.interfaces);
        let of_zone = sides.filter(|(_, side)| side.zone == *zone || side.behind.contains(zone));
        of_zone.map(|(name, _)| name).collect()
    };
    let mut declared: BTreeMap<(&ConduitId, &FlowName), &FrameFlow> = BTreeMap::new();
    for (id, conduit) in index.conduits.get(&plan.gateway).into_iter().flatten() {
        declared.extend(conduit.frames.iter().map(|(name, flow)| ((*id, name), flow)));
    }
    let planned_alike = plan.frames.iter().all(|rule| {
        let Some(flow) = declared.remove(&(&rule.conduit, &rule.flow)) else {
            return false;
        };
        let (planned, meant) = (&rule.frames, &flow.frames);
        rule.both == flow.both
            && rule.from.iter().collect::<BTreeSet<_>>() == sides(&flow.from)
            && rule.to.iter().collect::<BTreeSet<_>>() == sides(&flow.to)
            && planned.cover(meant)
            && meant.cover(planned)
    });
    planned_alike && declared.is_empty() && (plan.frames.is_empty() || required(plan, Capability::FRAMES))
}

/// What of a flow the plan denies since it proves too little.
fn left_out<'a>(plan: &'a Plan, conduit: &ConduitId, flow: &FlowName) -> Option<&'a Unproven> {
    let mut denied = plan.unproven.iter();
    denied.find(|denied| (&denied.conduit, &denied.flow) == (conduit, flow))
}

/// Whether the plan has one tunnel to each gateway to which a conduit of this one is tunnelled, of which one of the two connects to the other.
fn tunnelled_as_declared(plant: &Plant, plan: &Plan) -> bool {
    let crossing = plant.conduits.values().filter(|conduit| conduit.tunnel);
    let wanted: BTreeSet<&GatewayId> = crossing
        .filter(|conduit| conduit.via.contains(&plan.gateway))
        .flat_map(|conduit| conduit.via.iter().filter(|other| **other != plan.gateway))
        .collect();
    let Some(tunnels) = &plan.tunnels else {
        return wanted.is_empty();
    };
    let planned: BTreeSet<&GatewayId> = tunnels.peers.iter().map(|tunnel| &tunnel.peer).collect();
    let end = |gateway: &GatewayId| plant.gateways.get(gateway)?.tunnel.clone();
    let Some(own) = end(&plan.gateway) else {
        return false;
    };
    let reached = tunnels
        .peers
        .iter()
        .all(|tunnel| match (tunnel.connect, end(&tunnel.peer)) {
            (Some(at), Some(end)) => Some(at.ip()) == end.address && at.port() == end.port,
            (None, Some(_)) => own.address.is_some(),
            (_, None) => false,
        });
    planned == wanted
        && reached
        && (&tunnels.interface, tunnels.port) == (&own.interface, own.port)
        && required(plan, Capability::TUNNEL)
}

fn differences(conduit: &Conduit, flow: &Flow, rule: &Rule, denied: Option<&Unproven>) -> Vec<&'static str> {
    let mut differs = Vec::new();
    let kept = |side: FlowSide, ends: &[FlowEnd]| {
        let mut kept = declared_networks(ends);
        let weak = denied.into_iter().flat_map(|denied| &denied.weak);
        for weak in weak.filter(|weak| weak.side == side) {
            kept.remove(&weak.end.network);
        }
        kept
    };
    if networks(&rule.sources) != kept(FlowSide::Source, &flow.sources) {
        differs.push("other sources");
    }
    if networks(&rule.destinations) != kept(FlowSide::Destination, &flow.destinations) {
        differs.push("other destinations");
    }
    let same_transport = match (&flow.service.transport, &rule.transport) {
        (Transport::Tcp(declared), Transport::Tcp(planned))
        | (Transport::Udp(declared), Transport::Udp(planned)) => ports(declared) == ports(planned),
        (Transport::IcmpEcho, Transport::IcmpEcho) => true,
        _ => false,
    };
    if !same_transport {
        differs.push("another transport or other ports");
    }
    if rule.operations.as_deref() != flow.operations.as_ref() {
        differs.push("other operations");
    }
    if rule.roles.as_deref() != flow.roles.as_ref() {
        differs.push("other roles");
    }
    if rule.on_agent_loss != conduit.on_agent_loss || rule.must_flow != flow.must_flow {
        differs.push("another duty to flow");
    }
    if rule.on_refusal != flow.on_refusal {
        differs.push("another answer to refusals");
    }
    if rule.answers != flow.answers {
        differs.push("another way to match answers");
    }
    if rule.tls.as_deref() != flow.tls.as_ref() {
        differs.push("another end of TLS");
    }
    if flow.is_bridge() {
        differs.push("packets forwarded rather than messages carried, other");
    }
    differs
}

fn bridge_differences(flow: &Flow, bridge: &Bridge) -> Vec<&'static str> {
    let mut differs = Vec::new();
    let Some(source) = &flow.bridge_source else {
        differs.push("messages carried rather than packets forwarded, other");
        return differs;
    };
    let host = |broker: &Broker| BTreeSet::from([IpNet::from(broker.address)]);
    if host(&bridge.from) != declared_networks(&flow.sources) {
        differs.push("another broker to take from");
    }
    if host(&bridge.to) != declared_networks(&flow.destinations) {
        differs.push("another broker to give to");
    }
    let at = |broker: &Broker, service: &Service| {
        let planned = vec![(broker.port, broker.port)];
        matches!(&service.transport, Transport::Tcp(declared) if ports(declared) == planned)
    };
    if !at(&bridge.from, &source.service) || !at(&bridge.to, &flow.service) {
        differs.push("other ports");
    }
    if bridge.from.tls != source.tls || bridge.to.tls != flow.tls {
        differs.push("another TLS");
    }
    if flow.operations != Some(Operations::from(bridge.publications.clone())) {
        differs.push("other publications");
    }
    if bridge.must_flow != flow.must_flow {
        differs.push("another duty to flow");
    }
    differs
}

fn networks(ends: &[Endpoint]) -> BTreeSet<IpNet> {
    ends.iter().map(|end| end.network).collect()
}

fn inspected(plan: &Plan, rule: &Rule) -> bool {
    let mut inspectors = rule.inspectors().into_iter().flatten();
    inspectors.all(|inspector| plan.requires.contains(&inspector))
}

fn required(plan: &Plan, wanted: &str) -> bool {
    plan.requires.iter().any(|capability| capability.0 == wanted)
}

/// Each interface of the gateway is a side of the plan, and holds exactly what lives there.
fn sides(plant: &Plant, index: &Index<'_>, plan: &Plan, findings: &mut Findings) {
    let Some(gateway) = plant.gateways.get(&plan.gateway) else {
        return; // Already said as PC0112.
    };
    let planned: BTreeSet<&str> = plan.interfaces.iter().map(|side| side.name.as_str()).collect();
    let declared: BTreeSet<&str> = gateway.interfaces.keys().map(String::as_str).collect();
    for name in planned.symmetric_difference(&declared) {
        let words = format!("interface {name} is guarded in only one of plant and plan");
        findings.error("PC0115", words, RECOMPILE);
    }
    for side in &plan.interfaces {
        let Some(interface) = gateway.interfaces.get(&side.name) else {
            continue;
        };
        let zones: BTreeSet<_> = std::iter::once(&interface.zone)
            .chain(&interface.behind)
            .collect();
        let planned: BTreeSet<_> = std::iter::once(&side.zone).chain(&side.behind).collect();
        if zones != planned || side.zone != interface.zone {
            let words = format!("interface {} has other zones than the plant gives it", side.name);
            findings.error("PC0115", words, RECOMPILE);
        }
        if Spans::of(side.networks.iter().copied()) != living_in(index, side, |_| true) {
            let words = format!(
                "interface {} may see other addresses than its zones and their assets have",
                side.name
            );
            findings.error("PC0115", words, RECOMPILE);
        }
        let routers = |networks: &[IpNet]| Spans::of(networks.iter().map(IpNet::trunc));
        if routers(&side.routers) != routers(&interface.routers) {
            let words = format!(
                "interface {} has other routers than the plant gives it",
                side.name
            );
            findings.error("PC0115", words, RECOMPILE);
        }
        let planned: BTreeSet<(IpAddr, String)> = side
            .hardware
            .iter()
            .map(|one| (one.address, one.mac.to_string()))
            .collect();
        if planned != hardware(index, plan, side) {
            let words = format!("interface {} has other MAC addresses than its assets", side.name);
            findings.error("PC0115", words, RECOMPILE);
        }
        if !observes_as_declared(plant, index, side) {
            let words = format!(
                "interface {} does not observe and enforce as its zones say",
                side.name
            );
            findings.error("PC0115", words, RECOMPILE);
        }
    }
}

/// Whether exactly those addresses of a side observe that live in its zones that observe, and what has no zone only where
/// all of them do.
fn observes_as_declared(plant: &Plant, index: &Index<'_>, side: &PlanInterface) -> bool {
    let observes = |zone: &ZoneId| {
        plant
            .zones
            .get(zone)
            .is_some_and(|zone| zone.enforcement == Enforcement::Observe)
    };
    let nobody = Spans::of([]);
    let all = observes(&side.zone) && side.behind.iter().all(observes);
    let observing = living_in(index, side, observes);
    match &side.observing {
        Observing::Everything => all,
        Observing::Nothing => !all && observing == nobody,
        Observing::Only(networks) => {
            !all && observing != nobody && Spans::of(networks.iter().copied()) == observing
        }
    }
}

/// The addresses of a side with the MAC addresses that their assets have; a routed gateway holds nobody to them.
fn hardware(index: &Index<'_>, plan: &Plan, side: &PlanInterface) -> BTreeSet<(IpAddr, String)> {
    if plan.mode != GatewayMode::Bridged {
        return BTreeSet::new();
    }
    let assets = index.on(side).flat_map(|(_, place)| place.assets.iter());
    assets
        .flat_map(|asset| {
            let mac = asset.mac.as_ref().map(|mac| mac.to_ascii_lowercase());
            mac.into_iter()
                .flat_map(|mac| asset.addresses.iter().map(move |address| (*address, mac.clone())))
        })
        .collect()
}

/// What lives on a side, in those of its zones that are `wanted`.
fn living_in(index: &Index<'_>, side: &PlanInterface, wanted: impl Fn(&ZoneId) -> bool) -> Spans {
    let here = index.on(side).filter(|(zone, _)| wanted(zone));
    Spans::of(here.flat_map(|(_, place)| place.networks.iter().copied()))
}

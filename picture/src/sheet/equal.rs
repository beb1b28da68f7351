//! Which units are equal: the same in all that the document says of them, but for names, titles and addresses.
//!
//! Equal are kinds, levels, modes, roles, makes, services, operations, gateways' settings, the sizes of networks, and how all of that is linked; what lies
//! outside a unit counts by its name. So nothing that one of a hundred stations permits beyond the others hides behind "× 100". Parts
//! get digests of what they say (colours), which are refined by those of their neighbours (Weisfeiler and Leman).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use ipnet::IpNet;
use penstock_policy::ids::{AssetId, ConduitId, Digest, GatewayId, SiteId, ZoneId};
use penstock_policy::model::{Conduit, Flow, FlowEnd, Gateway};
use penstock_policy::terms::Enforcement;

use super::{Cluster, Layer, Unit, UnitName};
use crate::facts::{Facts, Notice};

/// How often colours are refined.
const ROUNDS: usize = 2;

/// Equal units together, in the order of the first of each.
pub(super) fn clusters<'a>(
    facts: &Facts<'a>,
    units: Vec<Unit<'a>>,
    drawn: &[(&'a ConduitId, &'a Conduit)],
) -> Vec<Cluster<'a>> {
    let mut touching: BTreeMap<&ZoneId, Vec<(&ConduitId, &Conduit)>> = BTreeMap::new();
    for (id, conduit) in &facts.plant.conduits {
        for zone in [&conduit.from, &conduit.to] {
            touching.entry(zone).or_default().push((id, conduit));
        }
    }
    let layers = layers(facts, &units, drawn);
    let open = open_to(facts);
    let mut gateways = own_gateways(facts, &units);
    let mut known: BTreeMap<Digest, usize> = BTreeMap::new();
    let mut clusters: Vec<Cluster<'a>> = Vec::new();
    for (ix, (unit, layer)) in units.into_iter().zip(layers).enumerate() {
        let gateways = gateways.remove(&ix).unwrap_or_default();
        let conduits: BTreeMap<&ConduitId, &Conduit> = unit
            .zones
            .iter()
            .filter_map(|zone| touching.get(zone))
            .flatten()
            .copied()
            .collect();
        let same = known
            .entry(signature(facts, &unit, (&gateways, &open), &conduits))
            .or_insert(clusters.len());
        match clusters.get_mut(*same) {
            Some(cluster) => cluster.units.push(unit),
            None => clusters.push(Cluster {
                units: vec![unit],
                layer,
            }),
        }
    }
    clusters
}

/// The zones that each zone that observes is open to: those that observe at another side of one of its gateways.
fn open_to<'a>(facts: &Facts<'a>) -> BTreeMap<&'a ZoneId, BTreeSet<&'a ZoneId>> {
    let observes = |zone: &ZoneId| {
        let zone = facts.plant.zones.get(zone);
        zone.is_some_and(|zone| zone.enforcement == Enforcement::Observe)
    };
    let mut open: BTreeMap<&'a ZoneId, BTreeSet<&'a ZoneId>> = BTreeMap::new();
    for gateway in facts.plant.gateways.values() {
        let sides: Vec<Vec<&'a ZoneId>> = gateway
            .interfaces
            .values()
            .map(|side| {
                let all = std::iter::once(&side.zone).chain(&side.behind);
                all.filter(|zone| observes(zone)).collect()
            })
            .collect();
        for (ix, near) in sides.iter().enumerate() {
            let far = sides.iter().enumerate().filter(|(other, _)| *other != ix);
            let far: Vec<&'a ZoneId> = far.flat_map(|(_, zones)| zones.iter().copied()).collect();
            for zone in near {
                let others = far.iter().filter(|other| *other != zone);
                open.entry(zone).or_default().extend(others);
            }
        }
    }
    open
}

/// The gateways that belong to each unit: a site's, or those that are attached to one of the zones and no other.
fn own_gateways<'a>(facts: &Facts<'a>, units: &[Unit<'a>]) -> BTreeMap<usize, Vec<&'a GatewayId>> {
    let mut sites: BTreeMap<&SiteId, usize> = BTreeMap::new();
    let mut zones: BTreeMap<&ZoneId, usize> = BTreeMap::new();
    for (ix, unit) in units.iter().enumerate() {
        match unit.name {
            UnitName::Site(site) => drop(sites.insert(site, ix)),
            UnitName::Zone(zone) => drop(zones.insert(zone, ix)),
        }
    }
    let mut own: BTreeMap<usize, Vec<&'a GatewayId>> = BTreeMap::new();
    for (id, gateway) in &facts.plant.gateways {
        let attached = gateway
            .interfaces
            .values()
            .filter_map(|side| zones.get(&side.zone));
        let attached: BTreeSet<usize> = attached.copied().collect();
        let one = attached.first().copied().filter(|_| attached.len() == 1);
        if let Some(ix) = sites.get(&gateway.site).copied().or(one) {
            own.entry(ix).or_default().push(id);
        }
    }
    own
}

/// The layer of each unit: a site that more than one other is joined with is a centre.
fn layers<'a>(facts: &Facts<'a>, units: &[Unit<'a>], drawn: &[(&ConduitId, &Conduit)]) -> Vec<Layer> {
    let mut of: BTreeMap<&ZoneId, usize> = BTreeMap::new();
    for (ix, unit) in units.iter().enumerate() {
        of.extend(unit.zones.iter().map(|zone| (*zone, ix)));
    }
    let mut partners: Vec<BTreeSet<Option<usize>>> = vec![BTreeSet::new(); units.len()];
    for (_, conduit) in drawn {
        let (from, to) = (of.get(&conduit.from).copied(), of.get(&conduit.to).copied());
        for (one, other) in [(from, to), (to, from)] {
            if let Some(partners) = one.filter(|_| one != other).and_then(|ix| partners.get_mut(ix)) {
                partners.insert(other);
            }
        }
    }
    let layer = |(unit, partners): (&Unit<'a>, &BTreeSet<Option<usize>>)| match unit.name {
        UnitName::Site(_) if partners.len() > 1 => Layer::Centres,
        UnitName::Site(_) => Layer::Sites,
        UnitName::Zone(id) => facts
            .plant
            .zones
            .get(id)
            .map_or(Layer::Outside, |zone| Layer::of(zone.kind)),
    };
    units.iter().zip(&partners).map(layer).collect()
}

/// The colours of a unit's own parts.
#[derive(Default)]
struct Colours<'a> {
    zones: BTreeMap<&'a ZoneId, Digest>,
    assets: BTreeMap<&'a AssetId, Digest>,
    gateways: BTreeMap<&'a GatewayId, Digest>,
}

impl Colours<'_> {
    fn zone(&self, id: &ZoneId) -> Digest {
        self.zones.get(id).copied().unwrap_or_else(|| named(id.as_str()))
    }

    fn asset(&self, id: &AssetId) -> Digest {
        self.assets.get(id).copied().unwrap_or_else(|| named(id.as_str()))
    }

    fn gateway(&self, id: &GatewayId) -> Digest {
        self.gateways
            .get(id)
            .copied()
            .unwrap_or_else(|| named(id.as_str()))
    }

    fn end(&self, end: &FlowEnd) -> Digest {
        match end {
            FlowEnd::Asset(id, _) => self.asset(id),
            FlowEnd::Zone(id, _) => row([named("zone"), self.zone(id)]),
        }
    }
}

fn named(name: &str) -> Digest {
    Digest::of(format!("named {name}").as_bytes())
}

fn said(value: &impl Debug) -> Digest {
    Digest::of(format!("said {value:?}").as_bytes())
}

/// In this order.
fn row(parts: impl IntoIterator<Item = Digest>) -> Digest {
    let bytes: Vec<u8> = parts.into_iter().flat_map(|part| part.0).collect();
    Digest::of(&bytes)
}

/// In any order.
fn bag(parts: impl IntoIterator<Item = Digest>) -> Digest {
    let mut parts: Vec<Digest> = parts.into_iter().collect();
    parts.sort_unstable();
    row(parts)
}

/// The codes of what is wrong, without the names that stand with them.
fn codes(notices: &[Notice]) -> Vec<&str> {
    let mut codes: Vec<&str> = notices
        .iter()
        .filter_map(|notice| notice.words.split(' ').next())
        .collect();
    codes.sort_unstable();
    codes
}

/// What a unit says, whatever its parts are called.
fn signature(
    facts: &Facts<'_>,
    unit: &Unit<'_>,
    (gateways, open): (&[&GatewayId], &BTreeMap<&ZoneId, BTreeSet<&ZoneId>>),
    conduits: &BTreeMap<&ConduitId, &Conduit>,
) -> Digest {
    let mut colours = Colours::default();
    for id in &unit.zones {
        let Some(zone) = facts.plant.zones.get(*id) else {
            continue;
        };
        let own = (
            zone.kind,
            &zone.sl_target,
            zone.consequence,
            zone.enforcement,
            &zone.requirements,
        );
        let rest = (
            sizes(&zone.networks),
            &zone.accountable,
            zone.parent.is_some(),
            codes(facts.of_zone(id)),
        );
        colours.zones.insert(id, said(&(own, rest)));
    }
    // To whom a zone that observes is open without any conduit: of the unit's own by what they say, of others by name.
    let opened: Vec<(&ZoneId, Digest)> = unit
        .zones
        .iter()
        .filter_map(|id| {
            let to = open.get(*id)?;
            Some((*id, bag(to.iter().map(|other| colours.zone(other)))))
        })
        .collect();
    for (id, to) in opened {
        let colour = row([colours.zone(id), named("open to"), to]);
        colours.zones.insert(id, colour);
    }
    for (id, asset) in unit.zones.iter().flat_map(|zone| facts.assets_of(zone)) {
        let make = (
            &asset.role,
            &asset.vendor,
            &asset.model,
            &asset.firmware,
            &asset.criticality,
        );
        let rest = (
            &asset.sl_capability,
            &asset.identity,
            asset.mac.is_some(),
            asset.addresses.len(),
        );
        colours
            .assets
            .insert(id, row([said(&(make, rest)), colours.zone(&asset.zone)]));
    }
    for id in gateways {
        if let Some(gateway) = facts.plant.gateways.get(*id) {
            let colour = row([
                said(&codes(facts.of_gateway(id))),
                of_gateway(facts, gateway, &colours),
            ]);
            colours.gateways.insert(id, colour);
        }
    }
    // What is said of conduits alone stays as it is; what they link gets another colour in each round.
    let own: BTreeMap<&ConduitId, Digest> = conduits
        .iter()
        .map(|(id, conduit)| {
            let levels = (
                &conduit.sl_target,
                &conduit.minimum_assurance,
                &conduit.accountable,
            );
            let ways = (
                &conduit.enforced_by,
                conduit.on_agent_loss,
                conduit.tunnel,
                facts.limited.contains(id),
                facts.grants.get(*id),
            );
            let frames = conduit.frames.values();
            let frames = frames.map(|flow| said(&(flow.from == conduit.from, flow.both, &flow.frames)));
            let colour = [said(&(levels, ways, codes(facts.of_conduit(id)))), bag(frames)];
            (*id, row(colour))
        })
        .collect();
    let mut last = Vec::new();
    for _ in 0..ROUNDS {
        let mut at_zones: BTreeMap<&ZoneId, Vec<Digest>> = BTreeMap::new();
        let mut at_assets: BTreeMap<&AssetId, Vec<Digest>> = BTreeMap::new();
        last = conduits
            .iter()
            .map(|(id, conduit)| {
                let flows: Vec<Digest> = conduit
                    .flows
                    .values()
                    .map(|flow| of_flow(flow, &colours))
                    .collect();
                let colour = row([
                    own.get(id).copied().unwrap_or_else(|| named("")),
                    colours.zone(&conduit.from),
                    colours.zone(&conduit.to),
                    bag(conduit.via.iter().map(|id| colours.gateway(id))),
                    bag(flows.iter().copied()),
                ]);
                at_zones
                    .entry(&conduit.from)
                    .or_default()
                    .push(row([colour, named("from")]));
                at_zones
                    .entry(&conduit.to)
                    .or_default()
                    .push(row([colour, named("to")]));
                for (flow, of_flow) in conduit.flows.values().zip(&flows) {
                    for (ends, what) in [(&flow.sources, "source"), (&flow.destinations, "destination")] {
                        for end in ends {
                            if let FlowEnd::Asset(id, _) = end {
                                let seen = row([colour, *of_flow, named(what)]);
                                at_assets.entry(id).or_default().push(seen);
                            }
                        }
                    }
                }
                colour
            })
            .collect();
        for (id, colour) in &mut colours.zones {
            *colour = row([*colour, bag(at_zones.remove(*id).unwrap_or_default())]);
        }
        let zones = &colours.zones;
        for (id, colour) in &mut colours.assets {
            let zone = facts
                .plant
                .assets
                .get(*id)
                .and_then(|asset| zones.get(&asset.zone));
            let zone = zone.copied().unwrap_or_else(|| named(""));
            *colour = row([*colour, zone, bag(at_assets.remove(*id).unwrap_or_default())]);
        }
    }
    row([
        named(if matches!(unit.name, UnitName::Site(_)) {
            "site"
        } else {
            "zone"
        }),
        bag(colours.zones.into_values()),
        bag(colours.assets.into_values()),
        bag(colours.gateways.into_values()),
        bag(last),
    ])
}

fn of_flow(flow: &Flow, colours: &Colours<'_>) -> Digest {
    let passes = (&flow.service, &flow.operations, &flow.roles, flow.must_flow);
    let how = (flow.on_refusal, flow.answers, &flow.tls, &flow.bridge_source);
    row([
        said(&(passes, how)),
        bag(flow.sources.iter().map(|end| colours.end(end))),
        bag(flow.destinations.iter().map(|end| colours.end(end))),
    ])
}

/// How large networks are, whatever their addresses.
fn sizes(networks: &[IpNet]) -> Vec<(bool, u8)> {
    let sizes = networks.iter();
    let mut sizes: Vec<(bool, u8)> = sizes
        .map(|net| (net.addr().is_ipv4(), net.prefix_len()))
        .collect();
    sizes.sort_unstable();
    sizes
}

fn of_gateway(facts: &Facts<'_>, gateway: &Gateway, colours: &Colours<'_>) -> Digest {
    let own = (gateway.mode, &gateway.labels, &gateway.windows, gateway.on_drift);
    let safe = gateway.safe_to_change.as_ref();
    let has = (
        gateway.management.as_ref().map(|access| sizes(&access.peers)),
        safe.map(|safe| (safe.port, &safe.condition)),
        gateway.redundant_with.is_some(),
        gateway.tunnel.as_ref().map(|tunnel| tunnel.port),
        gateway.tunnels.len(),
        // Windows are by the clock of the site.
        facts.plant.sites.get(&gateway.site).map(|site| &site.timezone),
    );
    let sides = gateway.interfaces.values().map(|side| {
        row([
            colours.zone(&side.zone),
            bag(side.behind.iter().map(|zone| colours.zone(zone))),
            said(&(side.routers.len(), sizes(&side.addresses))),
        ])
    });
    row([said(&(own, has)), bag(sides)])
}

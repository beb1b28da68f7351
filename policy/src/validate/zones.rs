//! Zones: nesting, and the record that IEC 62443-3-2 ZCR 6.4 wants of each.

use std::collections::{BTreeMap, BTreeSet};

use super::{Ancestors, Context, each, resolve, text, texts};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::document::grammar::{self, Document};
use crate::document::limits::ZONE_DEPTH_MAX;
use crate::document::read::Named;
use crate::ids::ZoneId;
use crate::model::{Enforcer, Zone, ZoneKind};
use crate::terms::Enforcement;

/// Follows every zone's parents; a cycle is a fault and ends the chain.
pub(super) fn ancestors(document: &Document, faults: &mut Faults) -> Ancestors {
    let Some(zones) = document.zones.value() else {
        return Ancestors::new();
    };
    let parent = |zone: &ZoneId| zones.get(zone).and_then(|zone| zone.parent.get());
    let mut ancestors = Ancestors::new();
    for zone in zones.0.keys() {
        let mut chain: Vec<ZoneId> = Vec::new();
        let mut seen = BTreeSet::from([zone]);
        let mut at = zone;
        while let Some(next) = parent(at) {
            if !seen.insert(&next.value) {
                // Said once for each zone on the cycle, not for those that only lead into it.
                if &next.value == zone {
                    let way: Vec<&str> = chain.iter().map(ZoneId::as_str).collect();
                    let way = if way.is_empty() {
                        "itself".to_owned()
                    } else {
                        format!("itself, by way of {}", way.join(", "))
                    };
                    faults.add(
                        Fault::new(
                            Code::ParentCycle,
                            next.place,
                            format!("the zone `{zone}` contains {way}"),
                        )
                        .label("leads back to the zone")
                        .help("remove `parent` where the chain ought to end"),
                    );
                }
                break;
            }
            if chain.len() >= ZONE_DEPTH_MAX {
                let message = format!("the zone `{zone}` lies more than {ZONE_DEPTH_MAX} zones deep");
                faults.add(
                    Fault::new(Code::TooDeep, next.place, message)
                        .help("no plant nests its zones so deep; remove a `parent`"),
                );
                break;
            }
            chain.push(next.value.clone());
            at = &next.value;
        }
        ancestors.insert(zone.clone(), chain);
    }
    ancestors
}

pub(super) fn zones(context: &Context<'_>, faults: &mut Faults) -> Option<BTreeMap<ZoneId, Zone>> {
    let zones = context.document.zones.value()?;
    let guarded = guarded(context.document);
    let inhabited = inhabited(context.document);
    let elsewhere = guarded_elsewhere(context.document);
    let outer: BTreeSet<&ZoneId> = zones
        .readable()
        .filter_map(|(_, _, zone)| zone.parent.value())
        .collect();
    for (name, named, zone) in zones.readable() {
        incomplete(name, named, zone, inhabited.contains(name), faults);
        let only_a_frame = zone.networks.is_absent() && !inhabited.contains(name) && outer.contains(name);
        if !guarded.contains(name) && !elsewhere.contains(name) && !only_a_frame {
            faults.add(
                Fault::new(
                    Code::ZoneUnguarded,
                    named.key_place,
                    format!("no gateway stands at the boundary of the zone `{name}`"),
                )
                .label("nothing enforces this zone's boundary")
                .help("add it to an interface of a gateway, as its `zone` or `behind` it"),
            );
        }
    }
    each(Some(zones), |name, zone| {
        Some(Zone {
            title: text(&zone.title).unwrap_or_else(|| name.to_string()),
            kind: *zone.kind.value()?,
            parent: resolve(&zone.parent, Some(zones), "zone", faults),
            sl_target: zone.sl_target.value().copied(),
            networks: context.networks.of(name).to_vec(),
            consequence: zone.consequence.value().copied(),
            accountable: text(&zone.accountable),
            boundary: text(&zone.boundary),
            requirements: texts(&zone.requirements),
            assumptions: texts(&zone.assumptions),
            enforcement: zone.enforcement.value().copied().unwrap_or(Enforcement::Enforce),
        })
    })
}

/// Zones at whose boundary something else than the plant's gateways stands.
fn guarded_elsewhere(document: &Document) -> BTreeSet<&ZoneId> {
    let conduits = document
        .conduits
        .value()
        .into_iter()
        .flat_map(|table| table.readable());
    conduits
        .filter(|(_, _, conduit)| {
            // Of one that could not be read, it is not known that nobody stands there.
            let nobody = conduit
                .enforced_by
                .value()
                .is_some_and(|by| by.0 == Enforcer::Nobody);
            !conduit.enforced_by.is_absent() && !nobody
        })
        .flat_map(|(_, _, conduit)| [conduit.from.value(), conduit.to.value()])
        .flatten()
        .collect()
}

/// Zones that some gateway has on an interface or behind one.
fn guarded(document: &Document) -> BTreeSet<&ZoneId> {
    let gateways = document
        .gateways
        .value()
        .into_iter()
        .flat_map(|table| table.readable());
    let interfaces = gateways
        .filter_map(|(_, _, gateway)| gateway.interfaces.value())
        .flat_map(|table| table.readable());
    interfaces
        .flat_map(|(_, _, interface)| {
            let behind = interface
                .behind
                .value()
                .into_iter()
                .flat_map(|list| list.0.iter().map(|at| &at.value));
            interface.zone.value().into_iter().chain(behind)
        })
        .collect()
}

/// Zones in which some asset lives.
fn inhabited(document: &Document) -> BTreeSet<&ZoneId> {
    let assets = document
        .assets
        .value()
        .into_iter()
        .flat_map(|table| table.readable());
    assets.filter_map(|(_, _, asset)| asset.zone.value()).collect()
}

/// Warns by name of what the zone's record lacks.
fn incomplete(
    name: &ZoneId,
    named: &Named<grammar::Zone>,
    zone: &grammar::Zone,
    inhabited: bool,
    faults: &mut Faults,
) {
    // What lies outside the plant has no security level and no consequence that its owner could set.
    let outside = zone.kind.value() == Some(&ZoneKind::External);
    // Machines that come and go have no network of their own; they are known by their addresses where they are.
    let roaming = outside
        || inhabited
        || matches!(
            zone.kind.value(),
            Some(ZoneKind::Transient | ZoneKind::RemoteAccess)
        );
    let missing: Vec<&str> = [
        ("accountable", zone.accountable.is_absent()),
        ("boundary", zone.boundary.is_absent()),
        ("consequence", zone.consequence.is_absent() && !outside),
        ("networks", zone.networks.is_absent() && !roaming),
        ("sl_target", zone.sl_target.is_absent() && !outside),
    ]
    .into_iter()
    .filter_map(|(key, missing)| missing.then_some(key))
    .collect();
    if missing.is_empty() {
        return;
    }
    let keys = missing
        .iter()
        .map(|key| format!("`{key}`"))
        .collect::<Vec<_>>()
        .join(", ");
    faults.add(
        Fault::new(
            Code::ZoneRecordIncomplete,
            named.key_place,
            format!("the record of the zone `{name}` lacks {keys}"),
        )
        .label("incomplete (IEC 62443-3-2 ZCR 6.4)")
        .help(format!("add {keys}")),
    );
}

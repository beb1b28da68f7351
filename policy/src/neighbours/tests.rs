#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::arbitrary::plants;
use crate::compile::compile_all;
use crate::diff::{Subject, diff};
use crate::verdict::{Carried, Connection, Decision, decide};
use crate::waterworks::{gateway, id, waterworks};

/// An address of every kind that a zone has: of each of its networks, and its assets'.
fn addresses(plant: &Plant, zone: &ZoneId) -> Vec<IpAddr> {
    let networks = plant.zones[zone].networks.iter().map(|network| network.addr());
    let assets = plant.assets.values().filter(|asset| asset.zone == *zone);
    networks
        .chain(assets.flat_map(|asset| asset.addresses.iter().copied()))
        .collect()
}

/// What the oracle says of undeclared traffic between each two zones that lie on different sides of a gateway.
fn judged(plant: &Plant) -> BTreeMap<(ZoneId, ZoneId), BTreeSet<&'static str>> {
    let mut judged: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (id, plan) in &compile_all(plant).unwrap() {
        let sides = &plant.gateways[id].interfaces;
        let zones = |name: &String| {
            let side = &sides[name];
            std::iter::once(&side.zone).chain(&side.behind)
        };
        for (ingress, egress) in sides.keys().flat_map(|a| sides.keys().map(move |b| (a, b))) {
            if ingress == egress {
                continue;
            }
            for (from, to) in zones(ingress).flat_map(|a| zones(egress).map(move |b| (a, b))) {
                for source in addresses(plant, from) {
                    for destination in addresses(plant, to) {
                        if source.is_ipv4() != destination.is_ipv4() {
                            continue;
                        }
                        let decision = decide(
                            plan,
                            &Connection {
                                ingress: ingress.clone(),
                                egress: egress.clone(),
                                source,
                                destination,
                                // No rule can permit it.
                                transport: Carried::Other(99),
                            },
                        );
                        judged
                            .entry((from.clone(), to.clone()))
                            .or_default()
                            .insert(decision.decision.code());
                    }
                }
            }
        }
    }
    judged
}

/// The zones of `plant` that a text names.
fn zones_named(text: &str, plant: &Plant) -> BTreeSet<ZoneId> {
    let words: BTreeSet<&str> = text.split([' ', ',', ';', ':']).collect();
    let zones = plant.zones.keys().cloned();
    zones.filter(|zone| words.contains(zone.as_str())).collect()
}

proptest! {
    #[test]
    fn what_is_said_of_a_zone_and_its_neighbours_is_what_the_oracle_decides(plant in plants()) {
        let all = neighbours(&plant);
        for ((from, to), decisions) in judged(&plant) {
            let mode = plant.zones[&from].enforcement;
            let beside = &all[&from];
            let said = beside.undeclared(mode);
            let open = if said.contains("passes") {
                zones_named(said.split(';').next().unwrap(), &plant)
            } else {
                BTreeSet::new()
            };
            prop_assert_eq!(&open, &beside.open_to(mode).into_iter().cloned().collect(), "{}: {}", from, said);
            let expected = if from == to {
                Decision::Allow
            } else if open.contains(&to) {
                Decision::WouldDeny
            } else {
                prop_assert!(beside.observing.contains(&to) || beside.enforcing.contains(&to), "{} to {}", from, to);
                Decision::Deny
            };
            prop_assert_eq!(&decisions, &BTreeSet::from([expected.code()]), "{} to {}", from, to);
        }
    }

    #[test]
    fn a_zone_that_changes_its_mode_changes_just_the_crossings_that_the_diff_names(
        plant in plants(), which in any::<prop::sample::Index>(),
    ) {
        let zone = plant.zones.keys().nth(which.index(plant.zones.len())).unwrap().clone();
        let mut changed = plant.clone();
        let mode = &mut changed.zones.get_mut(&zone).unwrap().enforcement;
        *mode = match *mode {
            Enforcement::Observe => Enforcement::Enforce,
            Enforcement::Enforce => Enforcement::Observe,
        };
        let (before, after) = (judged(&plant), judged(&changed));
        let differing: BTreeSet<ZoneId> = before
            .iter()
            .filter(|(pair, decisions)| after[*pair] != **decisions)
            .map(|((from, to), _)| if *from == zone { to.clone() } else { from.clone() })
            .collect();
        let told = diff(Some(&plant), &changed).unwrap();
        let change = told.changes.iter().find(|change| change.subject == Subject::Zone(zone.clone())).unwrap();
        let said = change.details.join("; ");
        let named = zones_named(&said, &plant);
        prop_assert!(named.is_superset(&differing), "{}: {:?}", said, differing);
        // A zone without an address that another could reach differs for nobody yet.
        let judged: BTreeSet<ZoneId> = before.keys().filter(|(from, _)| *from == zone).map(|(_, to)| to.clone()).collect();
        prop_assert_eq!(named.intersection(&judged).cloned().collect::<BTreeSet<_>>(), differing, "{}", said);
    }
}

#[test]
fn a_zone_that_observes_is_said_to_be_open_to_none_but_those_that_observe_too() {
    let mut plant = waterworks();
    let clause = |plant: &Plant, zone: &str| {
        neighbours(plant)[&id::<ZoneId>(zone)].undeclared(plant.zones[&id::<ZoneId>(zone)].enforcement)
    };
    assert_eq!(clause(&plant, "office"), "what no conduit permits is dropped");
    let mut observe = |zone: &str| plant.zones.get_mut(&id(zone)).unwrap().enforcement = Enforcement::Observe;
    observe("office");
    let alone = plant.clone();
    assert_eq!(
        clause(&alone, "office"),
        "every zone beside it enforces, so what no conduit permits between them is dropped"
    );
    let mut observe = |zone: &str| plant.zones.get_mut(&id(zone)).unwrap().enforcement = Enforcement::Observe;
    observe("safety");
    assert_eq!(
        clause(&plant, "office"),
        "what no conduit permits between it and safety passes, and is recorded; between it and control and operations, \
         which enforce, it is dropped"
    );
    let interfaces = &mut plant.gateways.get_mut(&gateway()).unwrap().interfaces;
    interfaces.remove("eth1");
    interfaces.get_mut("eth4").unwrap().behind = vec![id("office")];
    assert_eq!(
        clause(&plant, "office"),
        "every zone beside it enforces, so what no conduit permits between them is dropped",
        "no gateway stands between it and what lies on its own side"
    );
}

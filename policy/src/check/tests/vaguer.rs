//! The vaguer declaration is never the quieter one: what permits more has at least the findings of what permits less.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use proptest::prelude::*;

use super::{conduit, found, id, listed, modbus, operation, waterworks};
use crate::arbitrary::plants;
use crate::check::{Severity, check};
use crate::compile::compile_all;
use crate::ids::{ConduitId, FlowName};
use crate::model::{Flow, FlowEnd, Plant, Service, ZoneKind};
use crate::protocol::modbus_tcp::MODBUS_TCP;
use crate::terms::{OnAgentLoss, PortRange, Transport};

/// A flow from the control room into the safety zone, written so.
fn into_safety(service: &str, change: impl FnOnce(&mut Flow)) -> Plant {
    let mut plant = waterworks();
    let mut flow = modbus(None, &plant, "hmi-1", "sis-1");
    flow.service = named(service);
    flow.must_flow = false;
    change(&mut flow);
    plant.conduits.insert(
        id("status"),
        conduit("operations", "safety", vec![("status", flow)]),
    );
    plant
}

fn named(text: &str) -> Service {
    crate::document::services::service(text).unwrap()
}

#[test]
fn a_port_into_a_safety_zone_is_as_loud_as_the_protocol_that_is_spoken_there() {
    let honest = found(&into_safety("modbus-tcp", |_| ()), "PC0143");
    assert_eq!(honest, Severity::Warning);
    for vague in [
        "tcp/502",
        "tcp/100-600",
        "tcp/any",
        "https:502",
        "tcp/1883",
        "tcp/5002",
        "udp/5002",
        "udp/any",
    ] {
        assert_eq!(found(&into_safety(vague, |_| ()), "PC0143"), honest, "{vague}");
    }
    for known in ["s7comm", "https", "opc-ua", "bacnet-ip"] {
        assert_eq!(
            found(&into_safety(known, |_| ()), "PC0143"),
            Severity::Note,
            "{known}"
        );
    }
    let quiet = into_safety("icmp-echo", |_| ());
    assert!(!listed(&check(&quiet, &compile_all(&quiet).unwrap(), None)).contains(&"PC0143"));
}

#[test]
fn what_must_flow_and_stops_with_the_agent_is_found_until_the_plant_decides() {
    let findings = |change: &dyn Fn(&mut Plant)| {
        let mut plant = waterworks();
        change(&mut plant);
        let found = check(&plant, &compile_all(&plant).unwrap(), None);
        let about = found.into_iter().filter(|finding| finding.code == "PC0161");
        about
            .map(|finding| (finding.severity, finding.words))
            .collect::<Vec<_>>()
    };
    let pumps = |plant: &mut Plant, change: &dyn Fn(&mut crate::model::Conduit)| {
        change(plant.conduits.get_mut(&id("control-room-to-pumps")).unwrap());
    };
    let found = findings(&|_| ());
    assert_eq!(found.len(), 2, "polling and set-points: {found:?}");
    assert_eq!(
        found[0],
        (
            Severity::Warning,
            "flow control-room-to-pumps/polling must flow, but stops while no agent lives: its operations are limited, \
             and its conduit has `on_agent_loss: block`, which is the default"
                .to_owned()
        )
    );
    let decided: [&dyn Fn(&mut Plant); 3] = [
        &|plant| pumps(plant, &|conduit| conduit.on_agent_loss = OnAgentLoss::Pass),
        &|plant| {
            pumps(plant, &|conduit| {
                conduit.flows.values_mut().for_each(|flow| flow.must_flow = false)
            })
        },
        &|plant| {
            pumps(plant, &|conduit| {
                conduit.flows.values_mut().for_each(|flow| flow.operations = None)
            })
        },
    ];
    for decide in decided {
        assert_eq!(findings(decide), []);
    }
}

#[test]
fn an_inspected_flow_into_safety_must_not_pass_uninspected() {
    let found = super::codes(|plant| {
        plant.zones.get_mut(&id("control")).unwrap().kind = ZoneKind::Safety;
        plant
            .conduits
            .get_mut(&id("control-room-to-pumps"))
            .unwrap()
            .on_agent_loss = OnAgentLoss::Pass;
    });
    assert_eq!(found, ["PC0142", "PC0144", "PC0144"]);
}

#[test]
fn what_must_flow_into_a_safety_zone_may_pass_unread_with_a_note() {
    let status = |must_flow| {
        let mut plant = into_safety("modbus-tcp", |flow| {
            flow.must_flow = must_flow;
            let operations = vec![operation("read-coils", (0, 15))];
            flow.operations = Some(crate::protocol::Operations::from(operations));
        });
        plant.conduits.get_mut(&id("status")).unwrap().on_agent_loss = OnAgentLoss::Pass;
        found(&plant, "PC0144")
    };
    assert_eq!([status(true), status(false)], [Severity::Note, Severity::Warning]);
}

/// What speaks of a contradiction between two declarations, of limits that can be got round, of where TLS ends, or of what stops: it goes
/// with what it is about.
const GOES: [&str; 11] = [
    "PC0120", "PC0121", "PC0122", "PC0123", "PC0124", "PC0125", "PC0126", "PC0128", "PC0130", "PC0161",
    "PC0162",
];

/// Findings of the same matter under two codes count together, under the first.
const SAME_MATTER: [(&str, &str); 2] = [("PC0142", "PC0141"), ("PC0144", "PC0143")];

/// How many findings there are on each matter, at least so grave.
fn loudness(plant: &Plant) -> BTreeMap<(&'static str, Severity), usize> {
    let mut counts = BTreeMap::new();
    for finding in check(plant, &compile_all(plant).unwrap(), None) {
        if GOES.contains(&finding.code) {
            continue;
        }
        let matter = SAME_MATTER.iter().find(|(code, _)| *code == finding.code);
        let matter = matter.map_or(finding.code, |(_, first)| first);
        for severity in [Severity::Error, Severity::Warning, Severity::Note] {
            if finding.severity <= severity {
                *counts.entry((matter, severity)).or_default() += 1;
            }
        }
    }
    counts
}

/// Writes a flow in one of the ways that permit no less.
fn widen(plant: &Plant, flow: &mut Flow, way: u8) {
    let opaque = |flow: &mut Flow, name: String, transport: Transport| {
        flow.service = Service {
            name,
            protocol: None,
            transport,
        };
        flow.operations = None;
        flow.roles = None;
        flow.tls = None;
        flow.bridge_source = None;
    };
    let ports = match &flow.service.transport {
        Transport::Tcp(ports) | Transport::Udp(ports) => ports.clone(),
        Transport::IcmpEcho => return,
    };
    let again = |flow: &Flow, ports: Vec<PortRange>| match flow.service.transport {
        Transport::Udp(_) => Transport::Udp(ports),
        _ => Transport::Tcp(ports),
    };
    if flow.is_bridge() {
        // Whole zones, and what is not a publication, only packets can be forwarded to.
        opaque(flow, "tcp/by-port".to_owned(), again(flow, ports.clone()));
    }
    match way % 7 {
        0 => {
            flow.operations = None;
            flow.roles = None;
            flow.tls = None;
            flow.bridge_source = None;
        }
        1 => opaque(flow, "tcp/by-port".to_owned(), again(flow, ports)),
        2 => {
            let wider = ports.iter().map(|range| PortRange {
                first: range.first.saturating_sub(100).max(1),
                last: range.last.saturating_add(100),
            });
            opaque(flow, "tcp/wider".to_owned(), again(flow, wider.collect()));
        }
        3 => opaque(
            flow,
            "tcp/any".to_owned(),
            again(
                flow,
                vec![PortRange {
                    first: 1,
                    last: u16::MAX,
                }],
            ),
        ),
        4 => flow.sources = whole(plant, &flow.sources),
        5 => flow.destinations = whole(plant, &flow.destinations),
        _ => {
            if let Some(operations) = &mut flow.operations
                && operations.protocol == MODBUS_TCP
            {
                let more = operation("write-single-coil", (0, 7));
                operations.permitted.push(more.into());
            }
        }
    }
}

/// The whole zones of these ends, with every address that the ends have.
fn whole(plant: &Plant, ends: &[FlowEnd]) -> Vec<FlowEnd> {
    let zones: BTreeSet<_> = ends
        .iter()
        .map(|end| match end {
            FlowEnd::Asset(asset, _) => plant.assets[asset].zone.clone(),
            FlowEnd::Zone(zone, _) => zone.clone(),
        })
        .collect();
    let own: Vec<IpNet> = ends.iter().flat_map(FlowEnd::networks).collect();
    let of = |zone| {
        let networks: Vec<IpNet> = plant.zones[&zone]
            .networks
            .iter()
            .copied()
            .chain(own.clone())
            .collect();
        FlowEnd::Zone(zone, networks)
    };
    zones.into_iter().map(of).collect()
}

proptest! {
    #[test]
    fn a_declaration_that_permits_more_never_has_fewer_or_milder_findings(
        mut plant in plants(), at in any::<prop::sample::Index>(), ways in prop::collection::vec(any::<u8>(), 1..4),
        safety in any::<prop::sample::Index>(),
    ) {
        // At least one zone that findings are about.
        let zone = safety.index(plant.zones.len());
        plant.zones.values_mut().nth(zone).unwrap().kind = ZoneKind::Safety;
        let flows: Vec<(ConduitId, FlowName)> = plant
            .conduits
            .iter()
            .flat_map(|(id, conduit)| conduit.flows.keys().map(|name| (id.clone(), name.clone())))
            .collect();
        prop_assume!(!flows.is_empty());
        let (conduit, name) = &flows[at.index(flows.len())];
        let mut before = loudness(&plant);
        // Without the bridge nothing passes beside it.
        if plant.conduits[conduit].flows[name].is_bridge() {
            before.retain(|(matter, _), _| *matter != "PC0127");
        }
        for way in ways {
            let mut wider = plant.clone();
            widen(&plant, wider.conduits.get_mut(conduit).unwrap().flows.get_mut(name).unwrap(), way);
            let after = loudness(&wider);
            for (matter, count) in &before {
                prop_assert!(after.get(matter).unwrap_or(&0) >= count, "way {}: {matter:?}", way % 7);
            }
            (plant, before) = (wider, after);
        }
    }
}

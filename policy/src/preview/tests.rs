#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::*;
use crate::arbitrary::plants;
use crate::compile::compile_all;
use crate::ids::ZoneId;
use crate::model::{Conduit, Flow, Service};
use crate::protocol::Operations;
use crate::reach::{Permit, Steps};
use crate::terms::{Enforcement, GatewayMode, PortRange, Tls, Transport};
use crate::waterworks::{conduit, id, modbus, operation, waterworks};

fn flow<'a>(plant: &'a mut Plant, conduit: &str, flow: &str) -> &'a mut Flow {
    let conduit = plant.conduits.get_mut(&id(conduit)).unwrap();
    conduit.flows.get_mut(&id(flow)).unwrap()
}

fn between(old: impl FnOnce(&mut Plant), new: impl FnOnce(&mut Plant)) -> Preview {
    let (mut before, mut after) = (waterworks(), waterworks());
    old(&mut before);
    new(&mut after);
    Preview::of(Some(&before), &after).unwrap()
}

fn risks(preview: &Preview) -> Vec<String> {
    preview.must_flows.iter().map(ToString::to_string).collect()
}

/// From where to where, whether entirely, and by which flows.
fn pairs(changes: &PairChanges) -> Vec<(String, bool, Vec<String>)> {
    let pairs = changes.pairs.iter().map(|pair| {
        let ways = pair.ways.iter().map(|way| match way {
            Permit::Flow { conduit, flow, .. } => format!("{conduit}/{flow}"),
            Permit::Frames { conduit, flow, .. } => format!("{conduit}/{flow}"),
            Permit::Observed { gateway } => format!("observed at {gateway}"),
            Permit::Elsewhere { conduit, .. } => format!("elsewhere by {conduit}"),
        });
        let path: Vec<&str> = pair.path.iter().map(ZoneId::as_str).collect();
        (path.join(" "), pair.entirely, ways.collect())
    });
    pairs.collect()
}

fn open_safety(plant: &mut Plant) {
    let status = modbus(
        Some(vec![operation("read-coils", (0, 15))]),
        plant,
        "hmi-1",
        "sis-1",
    );
    let status = conduit("operations", "safety", vec![("status", status)]);
    plant.conduits.insert(id("safety-status"), status);
}

#[test]
fn a_new_conduit_opens_its_zone_and_those_that_reach_it_and_closes_them_again() {
    let preview = between(|_| {}, open_safety);
    let by = || vec!["safety-status/status".to_owned()];
    let expected = [
        ("operations safety".to_owned(), true, by()),
        ("office operations safety".to_owned(), true, by()),
    ];
    assert_eq!(pairs(&preview.paths.opened), expected);
    assert_eq!(preview.paths.closed, PairChanges::default());
    let back = between(open_safety, |_| {});
    assert_eq!(pairs(&back.paths.closed), expected);
    assert_eq!(back.paths.opened, PairChanges::default());
}

#[test]
fn more_operations_are_more_and_the_same_ones_under_another_name_are_nothing() {
    let preview = between(
        |_| {},
        |plant| {
            let wider = vec![operation("read-holding-registers", (0, 299))];
            flow(plant, "control-room-to-pumps", "polling").operations = Some(Operations::from(wider));
        },
    );
    let opened = pairs(&preview.paths.opened);
    assert_eq!(opened.len(), 2, "{opened:?}");
    // Who may do more was found to do less.
    assert_eq!(preview.findings.new, []);
    assert!(opened.iter().all(|(_, entirely, _)| !entirely));
    assert!(preview.paths.closed.pairs.is_empty());
    let renamed = between(
        |_| {},
        |plant| {
            let conduit = plant.conduits.get_mut(&id("control-room-to-pumps")).unwrap();
            let polling = conduit.flows.remove(&id("polling")).unwrap();
            conduit.flows.insert(id("reading"), polling);
        },
    );
    assert!(renamed.paths.is_empty() && !renamed.diff.is_empty());
    assert_eq!(risks(&renamed), Vec::<String>::new());
}

#[test]
fn a_must_flow_that_is_taken_away_or_narrowed_is_said_with_what_changes() {
    let gone = between(
        |_| {},
        |plant| {
            let conduit = plant.conduits.get_mut(&id("control-room-to-pumps")).unwrap();
            conduit.flows.remove(&id("polling"));
        },
    );
    assert_eq!(
        risks(&gone),
        [
            "control-room-to-pumps/polling must flow, and is lost at gw-works: no flow permits all of it any longer"
        ]
    );
    let less = between(
        |_| {},
        |plant| {
            let narrower = vec![operation("read-holding-registers", (0, 99))];
            flow(plant, "control-room-to-pumps", "polling").operations = Some(Operations::from(narrower));
        },
    );
    assert_eq!(
        risks(&less),
        [
            "control-room-to-pumps/polling must flow, and is narrowed at gw-works: read-holding-registers: addresses 0-199 → \
             0-99: 100-199 may no longer be read by historian and hmi-1 on plc-7"
        ]
    );
}

#[test]
fn a_must_flow_that_is_read_from_now_on_is_interrupted_once_unless_its_zones_only_observe() {
    let plain = |plant: &mut Plant| flow(plant, "control-room-to-pumps", "polling").operations = None;
    let interrupted = |preview: &Preview| -> Vec<String> {
        let all = preview
            .must_flows
            .iter()
            .filter(|risk| risk.risk == Risk::Interrupted);
        all.map(|risk| risk.why.clone()).collect()
    };
    let read = between(plain, |_| {});
    // The set points went by the same connections.
    assert_eq!(interrupted(&read).len(), 2, "{:?}", risks(&read));
    assert!(interrupted(&read)[0].starts_with("it passes unread, and is inspected from now on"));
    // Who is read no longer goes on.
    assert_eq!(interrupted(&between(|_| {}, plain)), Vec::<String>::new());
    let tls = between(
        |_| {},
        |plant| flow(plant, "control-room-to-pumps", "polling").tls = Some(Tls::default()),
    );
    assert!(interrupted(&tls)[0].starts_with("its TLS ends otherwise"));
    let observe = |plant: &mut Plant| {
        for zone in ["operations", "control"] {
            plant.zones.get_mut(&id(zone)).unwrap().enforcement = Enforcement::Observe;
        }
    };
    let observed = between(
        |plant| {
            plain(plant);
            observe(plant);
        },
        observe,
    );
    assert_eq!(interrupted(&observed), Vec::<String>::new());
    assert!(risks(&observed)[0].ends_with("its zones only observe, so that it passes and is recorded"));
    let enforced = between(observe, |_| {});
    let all: Vec<Risk> = enforced.must_flows.iter().map(|risk| risk.risk).collect();
    assert!(
        !all.is_empty() && all.iter().all(|risk| *risk == Risk::Enforced),
        "{all:?}"
    );
}

#[test]
fn an_end_that_is_gone_or_has_another_name_is_not_taken_for_one_that_is_enforced_from_now_on() {
    let observe = |plant: &mut Plant| {
        for zone in ["operations", "control"] {
            plant.zones.get_mut(&id(zone)).unwrap().enforcement = Enforcement::Observe;
        }
    };
    let gone = between(observe, |plant| {
        observe(plant);
        plant.conduits.remove(&id("control-room-to-pumps"));
        plant.conduits.remove(&id("set-points"));
        plant.assets.remove(&id("plc-7"));
    });
    let passes = "its zones only observe, so that it passes and is recorded";
    assert!(!gone.must_flows.is_empty());
    for risk in &gone.must_flows {
        assert!(risk.risk == Risk::Lost && risk.why.ends_with(passes), "{risk}");
    }
}

#[test]
fn of_a_gateway_that_is_routed_and_becomes_bridged_it_is_said_that_standing_connections_are_not_judged() {
    let bridged = between(
        |_| {},
        |plant| {
            let gateway = plant.gateways.get_mut(&id("gw-works")).unwrap();
            gateway.mode = GatewayMode::Bridged;
        },
    );
    let said = risks(&bridged);
    let expected = "control-room-to-pumps/polling must flow, and is not judged at gw-works: its gateway becomes bridged (it is \
                    routed), and whether standing connections go on across that is not known";
    assert!(said.iter().any(|said| said == expected), "{said:?}");
    assert!(bridged.must_flows.iter().all(|risk| risk.risk == Risk::NotJudged));
}

#[test]
fn findings_that_were_there_before_are_apart_from_those_that_are_new() {
    let bold = |plant: &mut Plant| {
        let mut page = modbus(None, plant, "hmi-1", "sis-1");
        page.must_flow = false;
        page.service = Service {
            name: "tcp/80".to_owned(),
            protocol: None,
            transport: Transport::Tcp(vec![PortRange::single(80)]),
        };
        let page: Conduit = conduit("operations", "safety", vec![("page", page)]);
        plant.conduits.insert(id("bold"), page);
    };
    let codes = |findings: &[crate::check::Finding]| -> Vec<&str> {
        findings.iter().map(|finding| finding.code).collect()
    };
    let come = between(|_| {}, bold);
    assert!(!come.findings.new.is_empty() && come.findings.gone.is_empty());
    let stay = between(bold, bold);
    assert!(stay.findings.new.is_empty() && stay.findings.gone.is_empty());
    let known = codes(&stay.findings.known);
    assert!(codes(&come.findings.new).iter().all(|code| known.contains(code)));
    let go = between(bold, |_| {});
    assert_eq!(codes(&go.findings.gone), codes(&come.findings.new));
}

#[test]
fn beyond_what_is_looked_at_the_zones_are_counted() {
    let (old, mut new) = (waterworks(), waterworks());
    open_safety(&mut new);
    let changes = PathChanges::of(Some(&Steps::of(&old)), &Steps::of(&new), 0);
    assert_eq!((changes.opened.pairs.len(), changes.opened.unexamined), (0, 2));
    assert!(!changes.is_empty());
}

/// A plant in which one client does as many different things with one controller by flows of their own.
fn crowded(flows: u32, first: u32) -> Plant {
    let mut plant = waterworks();
    for number in 0..flows {
        let reads = operation("read-coils", (first + number, first + number));
        let mut flow = modbus(Some(vec![reads]), &plant, "hmi-1", "plc-7");
        flow.must_flow = false;
        let conduit = conduit("operations", "control", vec![("reads", flow)]);
        plant.conduits.insert(id(&format!("reads-{number}")), conduit);
    }
    plant
}

#[test]
fn what_stands_in_both_plants_in_the_same_words_is_not_compared_with_all_that_leads_to_the_same_end() {
    let old = crowded(40, 0);
    let mut new = old.clone();
    open_safety(&mut new);
    // A hundred times less than comparing each with each would take.
    let changes = PathChanges::of(Some(&Steps::of(&old)), &Steps::of(&new), 8_000);
    assert_eq!((changes.opened.pairs.len(), changes.opened.unexamined), (2, 0));
    // Where all of it is another, that is needed; beyond the bound nothing is said of it, but that.
    let other = crowded(40, 1_000);
    let changes = PathChanges::of(Some(&Steps::of(&old)), &Steps::of(&other), 8_000);
    assert_eq!(changes.opened.pairs, []);
    assert!(changes.opened.unexamined >= 2, "{}", changes.opened.unexamined);
    let all = PathChanges::between(Some(&old), &other);
    assert_eq!((all.opened.pairs.len(), all.opened.unexamined), (2, 0));
}

/// A plant in which zones around a hub open everything that the hub opens.
fn star(spokes: usize) -> Plant {
    let mut plant = waterworks();
    let page = plant.conduits[&id("office-to-historian")].flows[&id("page")].clone();
    for number in 0..spokes {
        let (zone, asset) = (format!("spoke-{number:04}"), format!("desk-{number:04}"));
        let address = format!("10.{}.{}.1", 100 + number / 250, number % 250);
        let mut desk = plant.zones[&id("office")].clone();
        desk.networks = vec![id(&format!("{address}/32"))];
        plant.zones.insert(id(&zone), desk);
        plant
            .assets
            .insert(id(&asset), crate::waterworks::asset(&zone, &address));
        let mut page = page.clone();
        page.sources = vec![crate::waterworks::end(&plant, &asset)];
        let opens = conduit(&zone, "operations", vec![("page", page)]);
        plant.conduits.insert(id(&format!("of-{zone}")), opens);
    }
    plant
}

#[test]
fn of_more_pairs_than_are_shown_the_others_are_counted() {
    let old = star(PAIRS_MAX + 99);
    let mut new = old.clone();
    open_safety(&mut new);
    let changes = PathChanges::between(Some(&old), &new);
    // The spokes, the office and the hub.
    assert_eq!(
        (changes.opened.pairs.len(), changes.opened.further),
        (PAIRS_MAX, 101)
    );
    assert_eq!((changes.opened.unexamined, changes.closed.pairs.len()), (0, 0));
    assert_eq!(changes.opened.pairs[0].from, id("operations"));
}

/// What one zone can do to another, by all paths.
fn acts(steps: &Steps<'_>, from: &ZoneId, to: &ZoneId) -> Vec<Permit> {
    let many = NonZeroUsize::new(10_000).unwrap();
    steps
        .reach(from, to, many)
        .map_or_else(|_| Vec::new(), |reach| reach.acts().cloned().collect())
}

/// Whether one permits all that the other does, by its words alone: no more than the same to the same.
fn same(one: &Permit, other: &Permit) -> bool {
    match (one, other) {
        (Permit::Observed { .. } | Permit::Elsewhere { .. }, _) => true,
        (Permit::Frames { frames, .. }, Permit::Frames { frames: others, .. }) => frames == others,
        (
            Permit::Flow {
                destinations,
                transport,
                operations,
                bridged,
                granted,
                ..
            },
            Permit::Flow {
                destinations: others,
                transport: by,
                operations: only,
                bridged: carried,
                granted: during,
                ..
            },
        ) => (destinations, transport, operations, bridged, granted) == (others, by, only, carried, during),
        _ => false,
    }
}

proptest! {
    #[test]
    fn a_plant_against_itself_previews_nothing(plant in plants()) {
        let same = Preview::of(Some(&plant), &plant).unwrap();
        prop_assert!(same.is_empty(), "{}", same);
        prop_assert_eq!(same.to_string(), "Nothing changes.");
    }

    #[test]
    fn what_opens_or_closes_is_what_reach_permits_in_one_plant_and_not_in_the_other(
        old in plants(), new in plants(),
    ) {
        let preview = Preview::of(Some(&old), &new).unwrap();
        let (before, after) = (Steps::of(&old), Steps::of(&new));
        for (changes, (old, new)) in [
            (&preview.paths.opened, (&before, &after)), (&preview.paths.closed, (&after, &before)),
        ] {
            prop_assert_eq!((changes.further, changes.unexamined), (0, 0));
            for pair in &changes.pairs {
                let (had, has) = (acts(old, &pair.from, &pair.to), acts(new, &pair.from, &pair.to));
                prop_assert_eq!(pair.entirely, had.is_empty());
                prop_assert!(!pair.ways.is_empty());
                for way in &pair.ways {
                    prop_assert!(has.contains(way));
                    prop_assert!(!had.iter().any(|had| same(had, way)), "{}", way);
                }
                let path = new.reach(&pair.from, &pair.to, NonZeroUsize::new(10_000).unwrap()).unwrap();
                let zones = |path: &Vec<crate::reach::Step>| -> Vec<ZoneId> {
                    std::iter::once(pair.from.clone()).chain(path.iter().map(|step| step.to.clone())).collect()
                };
                prop_assert!(path.paths.iter().any(|path| zones(path) == pair.path));
            }
            let zones = || new.each().flat_map(|(from, to, _)| [from, to]).collect::<std::collections::BTreeSet<_>>();
            for from in zones() {
                for to in zones().into_iter().filter(|to| *to != from) {
                    let (had, has) = (acts(old, from, to), acts(new, from, to));
                    let listed = changes.pairs.iter().any(|pair| (&pair.from, &pair.to) == (from, to));
                    let nothing_like_it = |way: &Permit| !had.iter().any(|had| may_cover(had, way));
                    if has.iter().any(nothing_like_it) {
                        prop_assert!(listed, "{} {}", from, to);
                    }
                    if has.iter().all(|way| had.iter().any(|had| same(had, way))) {
                        prop_assert!(!listed, "{} {}", from, to);
                    }
                }
            }
        }
    }

    /// A part of a plant and the whole of it: pairs that are there in both, by paths that come and go.
    #[test]
    fn what_one_conduit_less_closes_is_what_one_more_opens(plant in plants(), index in any::<prop::sample::Index>()) {
        prop_assume!(!plant.conduits.is_empty());
        let mut less = plant.clone();
        let name = plant.conduits.keys().nth(index.index(plant.conduits.len())).unwrap().clone();
        less.conduits.remove(&name);
        less.remote_access.retain(|_, access| access.conduit != name);
        let (closes, opens) = (Preview::of(Some(&plant), &less).unwrap(), Preview::of(Some(&less), &plant).unwrap());
        prop_assert_eq!(&closes.paths.closed, &opens.paths.opened);
        prop_assert!(closes.paths.opened.pairs.is_empty() && opens.paths.closed.pairs.is_empty());
        // Nothing that must flow is lost by more.
        prop_assert!(opens.must_flows.iter().all(|risk| risk.risk == Risk::Interrupted), "{}", opens);
    }

    /// What is opened by a flow that stands open passes its gateway now.
    #[test]
    fn a_pair_that_opens_by_a_flow_has_a_connection_that_passes_now(old in plants(), new in plants()) {
        let preview = Preview::of(Some(&old), &new).unwrap();
        let plans = compile_all(&new).unwrap();
        for way in preview.paths.opened.pairs.iter().flat_map(|pair| &pair.ways) {
            let Permit::Flow { conduit, flow, bridged: false, granted: None, .. } = way else { continue };
            let via = &new.conduits[conduit].via;
            let rule = via.iter().filter_map(|gateway| plans.get(gateway)).any(|plan| {
                plan.rules.iter().any(|rule| (&rule.conduit, &rule.flow) == (conduit, flow)
                    && !plan.grants.contains_key(conduit))
            });
            prop_assert!(rule, "{}", way);
        }
    }
}

/// Whether the first might permit all of the second: they are alike in what makes it likely.
fn may_cover(one: &Permit, other: &Permit) -> bool {
    match (one, other) {
        (Permit::Observed { .. } | Permit::Elsewhere { .. }, _) => true,
        (Permit::Frames { frames, .. }, Permit::Frames { frames: others, .. }) => {
            frames.ether_type == others.ether_type
        }
        (
            Permit::Flow {
                transport, bridged, ..
            },
            Permit::Flow {
                transport: by,
                bridged: carried,
                ..
            },
        ) => std::mem::discriminant(transport) == std::mem::discriminant(by) && bridged == carried,
        _ => false,
    }
}

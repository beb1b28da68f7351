#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;
use crate::arbitrary::{DICE, connection_near, plants};
use crate::compile::compile_all;
use crate::plan::Plan;
use crate::verdict::{Decision, Reason, decide};
use crate::waterworks::{bridge, id, waterworks, with_brokers};

#[test]
fn the_office_reaches_the_pumps_only_over_the_control_room_and_with_its_operations() {
    let reach = reach(&waterworks(), &id("office"), &id("control")).unwrap();
    assert_eq!(
        reach.to_string(),
        "office → operations → control\n  \
         office → operations  office-to-historian/page: zone:office to historian by tcp/443\n  \
         operations → control  control-room-to-pumps/polling: historian and hmi-1 to plc-7 by tcp/502, \
         only: read-holding-registers (unit 1, addresses 0-199)\n  \
         operations → control  control-room-to-pumps/setpoints: hmi-1 to plc-7 by tcp/502, \
         only: write-single-register (unit 1, addresses 40-41)"
    );
    assert_eq!(reach.acts().count(), 2);
}

#[test]
fn what_no_conduit_leads_to_is_not_reached() {
    let plant = waterworks();
    let reach = |from: &str, to: &str| reach(&plant, &id(from), &id(to)).unwrap().to_string();
    assert_eq!(reach("office", "safety"), "Nothing in office can act on safety.");
    assert_eq!(
        reach("control", "office"),
        "Nothing in control can act on office."
    );
    assert_eq!(
        reach("control", "control"),
        "control is one zone: nothing stands within it."
    );
    assert_eq!(reach_all(&plant).len(), 3);
}

#[test]
fn a_bridge_leads_one_way_and_with_its_publications_only() {
    let plant = with_brokers(bridge);
    let up = reach(&plant, &id("control"), &id("operations")).unwrap();
    assert_eq!(
        up.to_string(),
        "control → operations\n  control → operations  telemetry/upwards: broker-pumps to broker-works by tcp/1883, \
         only these messages, carried by the gateway one way: publish pumps/+/pressure (qos 0-1, not retained)"
    );
    let mut alone = plant.clone();
    alone.conduits.retain(|name, _| name.as_str() == "telemetry");
    assert!(
        !reach(&alone, &id("operations"), &id("control"))
            .unwrap()
            .is_possible()
    );
}

#[test]
fn two_zones_that_only_observe_are_a_step_whatever_lies_beside_them() {
    let mut plant = waterworks();
    for zone in ["operations", "safety"] {
        plant.zones.get_mut(&id(zone)).unwrap().enforcement = Enforcement::Observe;
    }
    let reach = reach(&plant, &id("office"), &id("safety")).unwrap();
    let acts: Vec<String> = reach.acts().map(ToString::to_string).collect();
    assert_eq!(acts, ["anything, as both zones only observe at gw-works"]);
}

#[test]
fn a_zone_that_is_not_there_is_an_error() {
    assert_eq!(
        reach(&waterworks(), &id("attic"), &id("control")),
        Err(UnknownZone(id("attic")))
    );
}

/// Every zone from which `to` is reached, by repeating single steps until nothing is added.
fn closure(plant: &Plant) -> BTreeSet<(ZoneId, ZoneId)> {
    let steps = Steps::of(plant);
    let mut pairs: BTreeSet<(ZoneId, ZoneId)> = steps
        .0
        .iter()
        .flat_map(|(from, onward)| onward.keys().map(|to| ((*from).clone(), (*to).clone())))
        .collect();
    loop {
        let longer: BTreeSet<_> = pairs
            .iter()
            .flat_map(|(a, b)| {
                let onward = pairs.iter().filter(move |(c, d)| b == c && a != d);
                onward.map(move |(_, d)| (a.clone(), d.clone()))
            })
            .filter(|pair| !pairs.contains(pair))
            .collect();
        if longer.is_empty() {
            return pairs;
        }
        pairs.extend(longer);
    }
}

/// The one zone on a side, if it is only one.
fn only_zone<'a>(plan: &'a Plan, interface: &str) -> Option<&'a ZoneId> {
    let side = plan.interfaces.iter().find(|side| side.name == interface)?;
    side.behind.is_empty().then_some(&side.zone)
}

proptest! {
    #[test]
    fn reach_equals_the_closure_of_single_steps_and_every_path_is_walkable(plant in plants()) {
        let all = reach_all(&plant);
        let pairs: BTreeSet<_> = all.iter().map(|reach| (reach.from.clone(), reach.to.clone())).collect();
        prop_assert_eq!(pairs, closure(&plant));
        for reach in &all {
            for path in &reach.paths {
                prop_assert_eq!(&path[0].from, &reach.from);
                prop_assert_eq!(&path.last().unwrap().to, &reach.to);
                prop_assert!(path.windows(2).all(|pair| pair[0].to == pair[1].from));
                prop_assert!(path.iter().all(|step| !step.ways.is_empty()));
            }
        }
    }

    /// The oracle lets nothing pass between zones that reach does not know of.
    #[test]
    fn what_passes_a_gateway_is_a_way_that_reach_knows(
        plant in plants(), dice in prop::collection::vec(any::<[u32; DICE]>(), 16),
    ) {
        for plan in compile_all(&plant).unwrap().values() {
            for dice in &dice {
                let connection = connection_near(plan, dice);
                let verdict = decide(plan, &connection);
                let zones = only_zone(plan, &connection.ingress).zip(only_zone(plan, &connection.egress));
                let Some((from, to)) = zones.filter(|(from, to)| from != to) else { continue };
                let reach = reach(&plant, from, to).unwrap();
                let known = match (verdict.decision, &verdict.reason) {
                    (Decision::Allow, Reason::Rule(rule)) => reach.acts().any(|way| {
                        matches!(way, Way::Flow { conduit, flow, .. } if (conduit, flow) == (&rule.conduit, &rule.flow))
                    }),
                    (Decision::WouldDeny, _) => reach.acts().any(|way| matches!(way, Way::Observed { .. })),
                    _ => true,
                };
                prop_assert!(known, "{}: {}", connection, verdict);
            }
        }
    }
}

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;
use crate::arbitrary::{plans, plants};
use crate::ids::FlowId;
use crate::waterworks::{gateway, id, waterworks};

#[test]
fn the_water_works_compile_to_what_the_document_says() {
    let plan = compile(&waterworks(), &gateway()).unwrap();
    let names: Vec<String> = plan
        .rules
        .iter()
        .map(|rule| format!("{}/{}", rule.conduit, rule.flow))
        .collect();
    assert_eq!(
        names,
        [
            "control-room-to-pumps/polling",
            "control-room-to-pumps/setpoints",
            "office-to-historian/page"
        ]
    );
    let requires: Vec<&str> = plan
        .requires
        .iter()
        .map(|capability| capability.0.as_str())
        .collect();
    assert_eq!(requires, ["inspect:modbus-tcp", "kernel"]);
    let sources: Vec<&str> = plan.rules[0]
        .sources
        .iter()
        .map(|end| end.name.as_ref())
        .collect();
    assert_eq!(sources, ["hmi-1", "historian"]);
    assert_eq!(plan.rules[2].sources[0].name.as_ref(), "zone:office");
}

#[test]
fn a_plan_for_no_gateway_of_the_plant_is_refused() {
    let nobody: GatewayId = id("gw-nobody");
    assert_eq!(
        compile(&waterworks(), &nobody),
        Err(CompileError::UnknownGateway(nobody))
    );
}

#[test]
fn ports_that_overlap_become_one_range_and_neighbours_stay_single() {
    let range = |first, last| PortRange { first, last };
    assert_eq!(
        merged_ports(&[
            range(510, 520),
            range(502, 502),
            range(503, 503),
            range(515, 530),
            range(502, 502)
        ]),
        [range(502, 502), range(503, 503), range(510, 530)]
    );
}

#[test]
fn a_zone_behind_an_interface_is_seen_through_it_and_each_zone_there_keeps_its_mode() {
    let mut plant = waterworks();
    plant.zones.get_mut(&id("office")).unwrap().enforcement = Enforcement::Observe;
    let gateway_model = plant.gateways.get_mut(&gateway()).unwrap();
    gateway_model.interfaces.remove("eth4");
    gateway_model.interfaces.get_mut("eth1").unwrap().behind = vec![id("safety")];
    let plan = compile(&plant, &gateway()).unwrap();
    assert_eq!(
        plan.interfaces[0].observing,
        Observing::Only(vec![id("10.1.0.0/16")])
    );
    assert!(plan.interfaces[0].holds(id("10.20.9.3")));
}

/// The example's text, cut before each of its top-level keys.
fn sections() -> Vec<String> {
    let mut sections: Vec<String> = Vec::new();
    for line in include_str!("../../../deploy/examples/waterworks/plant.yaml").lines() {
        let begins = line.starts_with(|c: char| c.is_ascii_lowercase());
        match sections.last_mut() {
            Some(section) if !begins => section.push_str(line),
            _ => sections.push(line.to_owned()),
        }
        sections.last_mut().unwrap().push('\n');
    }
    sections
}

fn plans_of(files: &[(String, String)]) -> BTreeMap<GatewayId, Vec<u8>> {
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| crate::diagnostics::SourceFile {
            name: name.clone(),
            text: text.clone(),
        })
        .collect();
    let loaded = crate::load(&files, jiff::civil::date(2027, 1, 1));
    let plans = compile_all(&loaded.plant.unwrap()).unwrap();
    plans
        .into_iter()
        .map(|(id, plan)| (id, plan.to_bytes()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 12))]
    #[test]
    fn the_order_of_sections_and_their_division_into_files_changes_no_byte(
        shuffled in Just(sections()).prop_shuffle(), cut in any::<prop::sample::Index>(),
    ) {
        let one = plans_of(&[("plant.yaml".to_owned(), sections().concat())]);
        prop_assert!(one.len() >= 2);
        let (head, tail) = shuffled.split_at(cut.index(shuffled.len()));
        let two = [("a.yaml".to_owned(), head.concat()), ("b.yaml".to_owned(), tail.concat())];
        prop_assert_eq!(plans_of(&two), one);
    }
}

proptest! {
    #[test]
    fn a_plan_reads_back_from_its_bytes_and_has_the_same_bytes_again(plan in plans()) {
        let bytes = plan.to_bytes();
        let read = Plan::from_bytes(&bytes).unwrap();
        prop_assert_eq!(&read, &plan);
        prop_assert_eq!(read.to_bytes(), bytes);
    }

    #[test]
    fn compiling_twice_gives_the_same_bytes_alone_and_together(plant in plants()) {
        for (id, plan) in compile_all(&plant).unwrap() {
            prop_assert_eq!(compile(&plant, &id).unwrap().to_bytes(), plan.to_bytes());
        }
    }

    #[test]
    fn the_order_in_which_ends_ports_and_networks_are_written_changes_no_byte(
        plant in plants(), turn in any::<prop::sample::Index>(),
    ) {
        let mut turned = plant.clone();
        for zone in turned.zones.values_mut() {
            rotate(&mut zone.networks, &turn);
        }
        for asset in turned.assets.values_mut() {
            rotate(&mut asset.addresses, &turn);
        }
        for flow in turned.conduits.values_mut().flat_map(|conduit| conduit.flows.values_mut()) {
            rotate(&mut flow.sources, &turn);
            rotate(&mut flow.destinations, &turn);
            if let Transport::Tcp(ports) | Transport::Udp(ports) = &mut flow.service.transport {
                rotate(ports, &turn);
            }
        }
        for (id, plan) in compile_all(&plant).unwrap() {
            prop_assert_eq!(compile(&turned, &id).unwrap().to_bytes(), plan.to_bytes());
        }
    }

    #[test]
    fn a_plan_with_an_unknown_field_is_refused(plan in plans(), at in any::<prop::sample::Index>()) {
        let mut json = serde_json::to_value(&plan).unwrap();
        let mut places = Vec::new();
        objects("", &json, &mut places);
        let place = &places[at.index(places.len())];
        let object = json.pointer_mut(place).unwrap().as_object_mut().unwrap();
        object.insert("allow_all".to_owned(), true.into());
        prop_assert!(Plan::from_bytes(&serde_json::to_vec(&json).unwrap()).is_err(), "{place}");
    }

    #[test]
    fn a_flow_has_one_number_on_all_its_gateways_and_no_two_flows_share_one(plant in plants()) {
        let mut numbers: BTreeMap<FlowId, (ConduitId, crate::ids::FlowName)> = BTreeMap::new();
        for rule in compile_all(&plant).unwrap().into_values().flat_map(|plan| plan.rules) {
            let name = (rule.conduit, rule.flow);
            prop_assert_eq!(numbers.entry(rule.id).or_insert_with(|| name.clone()), &name);
        }
    }

    #[test]
    fn the_networks_of_a_side_are_disjoint_sorted_and_hold_exactly_what_its_zones_hold(plant in plants()) {
        for plan in compile_all(&plant).unwrap().values() {
            for side in &plan.interfaces {
                for pair in side.networks.windows(2) {
                    prop_assert!(pair[0] < pair[1]);
                    prop_assert!(!pair[0].contains(&pair[1]) && !pair[1].contains(&pair[0]));
                }
                for (id, asset) in &plant.assets {
                    let here = asset.zone == side.zone || side.behind.contains(&asset.zone);
                    for address in &asset.addresses {
                        prop_assert_eq!(side.holds(*address), here, "{} on {}", id, side.name);
                    }
                }
            }
        }
    }
}

fn rotate<T>(items: &mut [T], turn: &prop::sample::Index) {
    if !items.is_empty() {
        items.rotate_left(turn.index(items.len()));
    }
}

/// JSON pointers of all objects in `value`.
fn objects(at: &str, value: &serde_json::Value, places: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            places.push(at.to_owned());
            for (name, field) in fields {
                objects(&format!("{at}/{name}"), field, places);
            }
        }
        serde_json::Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                objects(&format!("{at}/{index}"), item, places);
            }
        }
        _ => {}
    }
}

//! When a gateway changes and what it asks before: as the document says, and so that the question arrives.

use super::*;
use crate::change::{Condition, Window};
use crate::model::{Interface, SafeToChange};
use crate::plan::AskedFrom;
use crate::protocol::modbus_tcp::ModbusOperation;
use crate::terms::NumberRange;
use crate::waterworks::end;

fn sunday() -> Window {
    Window {
        weekday: 6,
        start_minute: 120,
        end_minute: 240,
    }
}

fn coil(unit: u8) -> SafeToChange {
    SafeToChange {
        asset: id("plc-7"),
        port: 502,
        condition: Condition::Coil {
            unit,
            coil: 5,
            is: true,
        },
    }
}

/// The works, whose gateway has a window and asks PLC 7.
fn asking() -> Plant {
    let mut plant = waterworks();
    let gateway = plant.gateways.get_mut(&gateway()).unwrap();
    gateway.interfaces.get_mut("eth3").unwrap().addresses = vec![id("10.20.4.1/24")];
    gateway.windows = vec![sunday()];
    gateway.safe_to_change = Some(coil(1));
    plant
}

fn spoilt(spoil: impl FnOnce(&mut Plan)) -> Vec<&'static str> {
    let plant = asking();
    let mut plans = compile_all(&plant).unwrap();
    spoil(plans.get_mut(&gateway()).unwrap());
    listed(&check(&plant, &plans, None))
}

#[test]
fn a_plan_that_changes_at_other_times_or_after_another_question_is_found() {
    assert_eq!(spoilt(|_| ()), [""; 0]);
    assert_eq!(spoilt(|plan| plan.windows = None), ["PC0171"]);
    assert_eq!(spoilt(|plan| plan.interlock = None), ["PC0171"]);
    assert_eq!(
        spoilt(|plan| {
            plan.windows = None;
            plan.interlock = None;
        }),
        ["PC0171"; 2]
    );
    let windows = |change: &dyn Fn(&mut crate::plan::ChangeWindows)| {
        spoilt(|plan| change(plan.windows.as_mut().unwrap()))
    };
    assert_eq!(
        windows(&|windows| windows.timezone = "UTC".to_owned()),
        ["PC0171"]
    );
    assert_eq!(windows(&|windows| windows.weekly[0].end_minute = 241), ["PC0171"]);
    let asks = |change: &dyn Fn(&mut crate::plan::Interlock)| {
        spoilt(|plan| change(plan.interlock.as_mut().unwrap()))
    };
    assert_eq!(asks(&|asked| asked.port = 503), ["PC0171"]);
    assert_eq!(asks(&|asked| asked.address = id("10.20.4.8")), ["PC0171"]);
    assert_eq!(
        asks(&|asked| asked.from = AskedFrom::Address(id("10.20.4.2"))),
        ["PC0171"]
    );
    assert_eq!(
        asks(&|asked| asked.from = AskedFrom::Interface("eth0".to_owned())),
        ["PC0171"]
    );
    assert_eq!(asks(&|asked| asked.condition = coil(2).condition), ["PC0171"]);
    let nobody_keeps_to_it = |plan: &mut Plan| {
        plan.requires.remove(&Capability::of(Capability::CHANGE_CONTROL));
    };
    assert_eq!(spoilt(nobody_keeps_to_it), ["PC0116", "PC0117"]);
}

#[test]
fn windows_in_which_no_trial_ends_are_found_and_those_that_meet_are_one() {
    let found = |windows: &[(u8, u16, u16)]| {
        let mut plant = waterworks();
        let windows = windows.iter().map(|(weekday, start_minute, end_minute)| Window {
            weekday: *weekday,
            start_minute: *start_minute,
            end_minute: *end_minute,
        });
        plant.gateways.get_mut(&gateway()).unwrap().windows = windows.collect();
        listed(&check(&plant, &compile_all(&plant).unwrap(), None))
    };
    assert_eq!(found(&[(6, 120, 130)]), ["PC0173"]);
    assert_eq!(found(&[(6, 120, 131)]), [""; 0]);
    // Over midnight, and over the end of the week.
    assert_eq!(found(&[(0, 0, 5), (6, 1434, 1440)]), [""; 0]);
    assert_eq!(found(&[(2, 1434, 1440), (3, 0, 5)]), [""; 0]);
    assert_eq!(found(&[(2, 1434, 1439), (3, 0, 6)]), ["PC0173"]);
}

/// The works with a cell behind the control zone, beyond a gateway of its own; the first gateway asks a PLC there.
fn with_a_cell(unit: Option<u8>) -> Plant {
    let mut plant = asking();
    let cell = crate::model::Zone {
        networks: vec![id("10.20.9.0/24")],
        ..plant.zones[&id("control")].clone()
    };
    plant.zones.insert(id("cell"), cell);
    plant.assets.insert(id("plc-9"), asset("cell", "10.20.9.9"));
    let first = plant.gateways.get_mut(&gateway()).unwrap();
    first.interfaces.get_mut("eth3").unwrap().behind = vec![id("cell")];
    first.safe_to_change.as_mut().unwrap().asset = id("plc-9");
    let side = |zone: &str, address: &str| Interface {
        zone: id(zone),
        behind: Vec::new(),
        routers: Vec::new(),
        addresses: vec![id(address)],
    };
    let second = crate::model::Gateway {
        interfaces: [
            ("eth1", side("control", "10.20.4.2/24")),
            ("eth2", side("cell", "10.20.9.1/24")),
        ]
        .map(|(name, side)| (name.to_owned(), side))
        .into(),
        windows: Vec::new(),
        safe_to_change: None,
        ..first.clone()
    };
    plant.gateways.insert(id("gw-cell"), second);
    if let Some(unit) = unit {
        plant
            .assets
            .insert(id("the-gateway"), asset("control", "10.20.4.1"));
        let mut asked = plant.conduits[&id("control-room-to-pumps")].flows[&id("polling")].clone();
        asked.sources = vec![end(&plant, "the-gateway")];
        asked.destinations = vec![end(&plant, "plc-9")];
        let only = |number: u32| {
            Some(vec![NumberRange {
                first: number,
                last: number,
            }])
        };
        asked.operations = Some(Operations::from(vec![ModbusOperation {
            function: "read-coils".to_owned(),
            units: only(u32::from(unit)),
            addresses: only(5),
            read_addresses: None,
            values: None,
            sub_functions: None,
        }]));
        let mut between = conduit("control", "cell", vec![("asked", asked)]);
        between.via = [id("gw-cell")].into();
        plant.conduits.insert(id("into-the-cell"), between);
    }
    plant
}

#[test]
fn a_question_that_another_gateway_would_drop_is_found_before_anybody_waits_for_its_answer() {
    let found = |unit| {
        let plant = with_a_cell(unit);
        let findings = check(&plant, &compile_all(&plant).unwrap(), None);
        let found = findings.iter().filter(|finding| finding.code == "PC0172");
        found.map(|finding| finding.words.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        found(None),
        [
            "the gateway asks plc-9 at 10.20.9.9:502 from 10.20.4.1 before it changes, and the question does not pass gateway \
          gw-cell: no flow permits it there"
        ]
    );
    assert_eq!(found(Some(1)), [""; 0]);
    assert!(found(Some(2))[0].ends_with("the operations of its flow do not have it"));
}

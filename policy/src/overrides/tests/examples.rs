//! What went wrong once, by example.

use super::*;
use crate::compile::compile;
use crate::plan::Observing;
use crate::waterworks::{gateway, waterworks};

fn plan() -> Plan {
    let mut plan = compile(&waterworks(), &gateway()).unwrap();
    for side in &mut plan.interfaces {
        side.observing = Observing::Nothing;
    }
    plan
}

fn observe(one: &str, other: &str) -> Effect {
    Effect::Observe {
        one: id(one),
        other: id(other),
    }
}

#[test]
fn two_halves_that_observe_are_not_made_a_whole_that_the_side_does_not_have() {
    let mut plan = plan();
    let control = plan
        .interfaces
        .iter_mut()
        .find(|side| side.name == "eth3")
        .unwrap();
    control.networks = vec![id("10.20.4.0/25"), id("10.20.4.128/25")];
    let effects = [
        observe("10.20.4.0/25", "10.20.1.0/24"),
        observe("10.20.4.128/25", "10.20.1.0/24"),
    ];
    let made = overridden(&plan, &effects);
    let read = Plan::from_bytes(&made.to_bytes()).unwrap();
    let control = read.interfaces.iter().find(|side| side.name == "eth3").unwrap();
    assert_eq!(control.observing, Observing::Only(control.networks.clone()));
}

#[test]
fn both_ports_of_a_bridge_into_one_zone_know_the_device_that_came_in_place_of_another() {
    let mut plan = plan();
    plan.mode = GatewayMode::Bridged;
    plan.requires.insert(Capability::of(Capability::KERNEL_BRIDGE));
    let control = plan
        .interfaces
        .iter_mut()
        .find(|side| side.name == "eth3")
        .unwrap();
    control.hardware = vec![device(id("10.20.4.7"), 1), device(id("10.20.4.8"), 1)];
    let mut twin = control.clone();
    twin.name = "eth8".to_owned();
    plan.interfaces.push(twin);
    let replaced = Effect::Device {
        address: id("10.20.4.7"),
        mac: Mac([2, 0, 0, 0, 0, 9]),
    };
    let made = overridden(&plan, &[replaced]);
    for name in ["eth3", "eth8"] {
        let side = made.interfaces.iter().find(|side| side.name == name).unwrap();
        assert_eq!(
            side.hardware,
            [device(id("10.20.4.7"), 9), device(id("10.20.4.8"), 1)],
            "{name}"
        );
    }
    // One port that has it is not both.
    plan.interfaces.last_mut().unwrap().hardware = vec![device(id("10.20.4.7"), 9)];
    assert_eq!(fit(&plan, &replaced), Fit::Changes);
    assert_eq!(fit(&made, &replaced), Fit::Already);
}

#[test]
fn what_has_nothing_to_change_says_why() {
    let plan = plan();
    let why = |effect: Effect| match fit(&plan, &effect) {
        Fit::Nothing(why) => why,
        other => panic!("{other:?}"),
    };
    assert!(why(observe("10.20.4.0/24", "fd00::/64")).contains("two families"));
    assert!(why(observe("10.20.4.0/24", "10.20.4.7/32")).contains("same side, eth3"));
    assert!(why(observe("10.20.4.0/23", "10.20.1.0/24")).contains("not within the networks of one side"));
    assert!(why(observe("10.20.4.0/24", "192.0.2.10/32")).contains("192.0.2.10/32 is not within"));
    assert!(why(Effect::Unasked).contains("asks nobody"));
    let device = Effect::Device {
        address: id("10.20.4.7"),
        mac: Mac([2, 0, 0, 0, 0, 9]),
    };
    assert!(why(device).contains("this gateway routes"));
    let mut bridged = plan.clone();
    bridged.mode = GatewayMode::Bridged;
    assert_eq!(
        fit(&bridged, &device),
        Fit::Nothing("no MAC address is declared for 10.20.4.7".to_owned())
    );
}

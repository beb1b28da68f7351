//! Who may override a gateway: whom the document names, and somebody where a change waits for an answer.

use super::*;
use crate::ids::Digest;
use crate::model::{Overrider, Overriders, SafeToChange};
use crate::plan::{BreakGlass, Condition};
use crate::waterworks::key;

/// The works, whose gateway two people of the site may override, or whoever has one code.
fn overridable() -> Plant {
    let mut plant = waterworks();
    let site = plant.gateways[&gateway()].site.clone();
    let person = |seed: u8| Overrider {
        key: key(seed).public(),
        sites: Some([site.clone()].into()),
    };
    plant.break_glass = Some(Overriders {
        longest_s: 3_600,
        people: [(id("kim"), person(21)), (id("lee"), person(22))].into(),
        sealed: [(gateway(), [Digest::of(b"a code")].into())].into(),
    });
    plant
}

#[test]
fn a_plan_that_lets_others_override_its_gateway_than_the_document_says_is_found() {
    let spoilt = |spoil: &dyn Fn(&mut Plan)| {
        let plant = overridable();
        let mut plans = compile_all(&plant).unwrap();
        spoil(plans.get_mut(&gateway()).unwrap());
        listed(&check(&plant, &plans, None))
    };
    let of = |change: &dyn Fn(&mut BreakGlass)| spoilt(&|plan| change(plan.break_glass.as_mut().unwrap()));
    assert_eq!(spoilt(&|_| ()), [""; 0]);
    assert_eq!(spoilt(&|plan| plan.break_glass = None), ["PC0181"]);
    assert_eq!(of(&|it| it.longest_s += 1), ["PC0181"]);
    assert_eq!(
        of(&|it| {
            it.codes.insert(Digest::of(b"another"));
        }),
        ["PC0181"]
    );
    assert_eq!(
        of(&|it| {
            it.people.insert(id("max"), key(23).public());
        }),
        ["PC0181"]
    );
    assert_eq!(
        of(&|it| {
            it.people.insert(id("kim"), key(23).public());
        }),
        ["PC0181"]
    );
    let needed = Capability::of(Capability::OVERRIDES);
    let unguarded = spoilt(&|plan| {
        plan.requires.remove(&needed);
    });
    assert_eq!(unguarded, ["PC0116", "PC0117"], "the agent would refuse it, too");
}

#[test]
fn a_gateway_that_waits_for_an_answer_and_can_be_overridden_by_nobody_is_noted() {
    let mut plant = overridable();
    let gateway = plant.gateways.get_mut(&gateway()).unwrap();
    gateway.interfaces.get_mut("eth3").unwrap().addresses = vec![id("10.20.4.1/24")];
    gateway.safe_to_change = Some(SafeToChange {
        asset: id("plc-7"),
        port: 502,
        condition: Condition::Coil {
            unit: 1,
            coil: 5,
            is: true,
        },
    });
    let all = check(&plant, &compile_all(&plant).unwrap(), None);
    assert!(all.iter().all(|finding| finding.code != "PC0182"), "{all:?}");
    plant.break_glass = None;
    assert_eq!(found(&plant, "PC0182"), Severity::Note);
}

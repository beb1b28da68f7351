#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod operations;
mod overriders;
mod values;

use proptest::prelude::*;

use super::*;
use crate::arbitrary::{DICE, GRANTED_MS, connection_near, plants};
use crate::model::Flow;
use crate::protocol::Operations;
use crate::terms::{Enforcement, NumberRange, PortRange, Transport};
use crate::verdict::decide;
use crate::waterworks::{
    approvers, asset, bridge, carried, end, gateway, grant_visit, id, messages, modbus, operation, publish,
    waterworks, with_brokers,
};

fn said(change: impl FnOnce(&mut Plant)) -> String {
    let mut new = waterworks();
    change(&mut new);
    diff(Some(&waterworks()), &new).unwrap().to_string()
}

fn flow<'a>(plant: &'a mut Plant, conduit: &str, flow: &str) -> &'a mut Flow {
    let conduit = plant.conduits.get_mut(&id(conduit)).unwrap();
    conduit.flows.get_mut(&id(flow)).unwrap()
}

#[test]
fn an_approver_reads_who_may_do_what_from_now_on() {
    let text = said(|plant| {
        plant
            .assets
            .insert(id("hmi-2"), asset("operations", "10.20.1.22"));
        let hmi = end(plant, "hmi-2");
        flow(plant, "control-room-to-pumps", "setpoints")
            .sources
            .push(hmi);
    });
    assert_eq!(
        text,
        "flow control-room-to-pumps/setpoints widened: also from hmi-2 (10.20.1.22)\n\
         asset hmi-2 added: is new\n\
         Gateways with a changed plan: gw-works\n\
         Gateways untouched: 0"
    );
}

#[test]
fn a_new_flow_is_said_whole_and_so_is_one_that_goes() {
    let text = said(|plant| {
        let status = modbus(
            Some(vec![operation("read-coils", (0, 15))]),
            plant,
            "hmi-1",
            "sis-1",
        );
        plant.conduits.insert(
            id("safety-status"),
            crate::waterworks::conduit("operations", "safety", vec![("status", status)]),
        );
        plant.conduits.remove(&id("office-to-historian"));
    });
    assert!(
        text.contains(
            "flow safety-status/status added: hmi-1 (10.20.1.21) to sis-1 (10.20.9.3) by tcp/502, \
             only: read-coils (unit 1, addresses 0-15), must flow, at gw-works"
        ),
        "{text}"
    );
    assert!(
        text.contains(
            "flow office-to-historian/page removed: zone:office (10.1.0.0/16) to historian (10.20.1.30) \
             by tcp/443, at gw-works"
        ),
        "{text}"
    );
}

#[test]
fn tls_bridges_and_answers_are_said_when_they_change() {
    let said = |change: fn(&mut Flow)| {
        let old = with_brokers(messages);
        let mut new = old.clone();
        change(flow(&mut new, "telemetry", "upwards"));
        let text = diff(Some(&old), &new).unwrap().to_string();
        text.lines()
            .next()
            .unwrap()
            .replace("flow telemetry/upwards ", "")
    };
    assert_eq!(
        said(|flow| flow.on_refusal = crate::terms::OnRefusal::Reset),
        "recorded: a refusal resets the connection from now on"
    );
    assert_eq!(
        said(|flow| flow.answers = crate::terms::Answers::InOrder),
        "widened: answers pass in order, under any identifiers from now on"
    );
    assert_eq!(
        said(|flow| flow.tls = Some(crate::terms::Tls::default())),
        "altered: TLS ends at the gateway, the server known by the plant's own authority"
    );
    assert_eq!(
        said(carried),
        "altered: the gateway carries messages one way; connections passed before; service: mqtt-bridge to mqtt-bridge (was mqtt)"
    );
    // Each broker of a bridge is told of by itself.
    let bridged = |change: fn(&mut Flow)| {
        let old = with_brokers(bridge);
        let mut new = old.clone();
        change(flow(&mut new, "telemetry", "upwards"));
        diff(Some(&old), &new).unwrap().to_string()
    };
    let port = |flow: &mut Flow| {
        let source = flow.bridge_source.as_mut().unwrap();
        source.service.transport = Transport::Tcp(vec![PortRange::single(1884)]);
    };
    assert!(
        bridged(port)
            .starts_with("flow telemetry/upwards altered: at its source by tcp/1884 instead of tcp/1883\n"),
        "{}",
        bridged(port)
    );
    let inside = |flow: &mut Flow| flow.tls = Some(crate::terms::Tls::default());
    assert!(
        bridged(inside).starts_with(
            "flow telemetry/upwards altered: at its destination inside TLS, the server known by the plant's own authority\n"
        ),
        "{}", bridged(inside)
    );
}

#[test]
fn ports_widen_narrow_and_alter() {
    let ports = |first, last| {
        said(|plant| {
            flow(plant, "office-to-historian", "page").service.transport =
                Transport::Tcp(vec![PortRange { first, last }]);
        })
    };
    assert!(ports(443, 444).contains("page widened: by tcp/443-444 instead of tcp/443"));
    assert!(ports(80, 80).contains("page altered: by tcp/80 instead of tcp/443"));
}

#[test]
fn a_zone_that_becomes_part_of_itself_is_narrower_whatever_it_is_called() {
    let text = said(|plant| {
        let desk = end(plant, "desk-1");
        flow(plant, "office-to-historian", "page").sources = vec![desk];
    });
    assert!(
        text.contains("page narrowed: also from desk-1 (10.1.7.21); no longer from zone:office"),
        "{text}"
    );
}

#[test]
fn enforcement_and_approvers_are_said_with_what_follows_from_them() {
    let text = said(|plant| {
        plant.zones.get_mut(&id("office")).unwrap().enforcement = Enforcement::Observe;
        plant.approvers = approvers(1, &[("j.meyer", 9), ("a.silva", 2)]);
    });
    assert!(
        text.contains("zone office widened: only observes from now on"),
        "{text}"
    );
    assert!(
        text.contains(
            "approvers altered: 1 must sign instead of 2; j.meyer has another key; \
             k.ito may no longer approve after this release"
        ),
        "{text}"
    );
}

#[test]
fn whether_there_are_emergencies_and_how_many_sign_one_is_said_before_it_is_so() {
    let with = |threshold| {
        let mut plant = waterworks();
        plant.approvers.emergency_threshold = threshold;
        plant
    };
    for (old, new, expected) in [
        (
            None,
            Some(3),
            "approvers altered: 3 may sign an emergency, which waits for no window",
        ),
        (
            Some(3),
            Some(2),
            "approvers altered: 2 must sign an emergency instead of 3",
        ),
        (
            Some(3),
            None,
            "approvers altered: there are no emergencies after this release",
        ),
    ] {
        let text = diff(Some(&with(old)), &with(new)).unwrap().to_string();
        assert!(text.contains(expected), "{text}");
    }
    let text = diff(None, &with(Some(3))).unwrap().to_string();
    assert!(text.contains("3 may sign an emergency"), "{text}");
}

#[test]
fn what_is_only_recorded_touches_no_gateway() {
    let text = said(|plant| plant.zones.get_mut(&id("office")).unwrap().accountable = Some("it".to_owned()));
    assert_eq!(
        text,
        "zone office recorded: accountable: it (was none)\nGateways untouched: 1"
    );
}

fn granted(plant: &mut Plant) {
    grant_visit(plant, "control-room-to-pumps");
}

/// What a release changes whose plant was altered so, in words; and whether anything may pass that did not.
fn changed(before: impl Fn(&mut Plant), after: impl Fn(&mut Plant)) -> (String, bool) {
    let (mut old, mut new) = (waterworks(), waterworks());
    before(&mut old);
    after(&mut new);
    let changes = diff(Some(&old), &new).unwrap();
    (changes.to_string(), changes.may_widen())
}

#[test]
fn a_grant_says_what_it_opens_for_whom_and_when_and_closes_a_conduit_that_stood_open() {
    let (words, wider) = changed(|_| {}, granted);
    assert!(
        words.contains("remote access visit narrowed: opens conduit"),
        "{words}"
    );
    assert!(
        words.contains("for Carla from 2026-12-01T08:00:00Z until 2026-12-01T16:00:00Z"),
        "{words}"
    );
    assert!(
        words.contains("which stood open, is open only during grants"),
        "{words}"
    );
    assert!(!wider, "{words}");
}

#[test]
fn a_conduit_whose_last_grant_is_taken_out_stands_open_and_the_diff_says_so() {
    let (words, wider) = changed(granted, |_| {});
    assert!(words.contains("remote access visit widened: is gone"), "{words}");
    assert!(words.contains("stands open at all times from now on"), "{words}");
    assert!(wider);
    let only = |plant: &mut Plant| {
        let conduit = plant.conduits.get_mut(&id("control-room-to-pumps"));
        conduit.unwrap().only_by_grant = true;
    };
    let with = |plant: &mut Plant| {
        only(plant);
        granted(plant);
    };
    let (words, wider) = changed(with, only);
    assert!(words.contains("remote access visit removed: is gone"), "{words}");
    assert!(!wider, "{words}");
    let (words, wider) = changed(only, with);
    assert!(wider && words.contains("remote access visit added"), "{words}");
}

#[test]
fn a_grant_that_is_prolonged_widens_and_one_that_is_cut_short_narrows() {
    let longer = |plant: &mut Plant| {
        granted(plant);
        let access = plant.remote_access.values_mut().next().unwrap();
        access.until = "2026-12-01T18:00:00Z".to_owned();
        access.until_ms += 2 * 3_600_000;
    };
    let (words, wider) = changed(granted, longer);
    assert!(
        wider
            && words.contains(
                "remote access visit widened: until: 2026-12-01T18:00:00Z (was 2026-12-01T16:00:00Z)"
            ),
        "{words}"
    );
    let (words, wider) = changed(longer, granted);
    assert!(
        !wider && words.contains("remote access visit narrowed"),
        "{words}"
    );
}

#[test]
fn a_first_release_adds_everything() {
    let first = diff(None, &waterworks()).unwrap();
    assert!(first.changes.iter().all(|change| change.effect == Effect::Added));
    assert_eq!(first.gateways[&gateway()], Touch::Added);
}

proptest! {
    #[test]
    fn a_plant_does_not_differ_from_itself(plant in plants()) {
        let same = diff(Some(&plant), &plant).unwrap();
        prop_assert!(same.is_empty());
        prop_assert_eq!(same.to_string(), "Nothing changes.");
    }

    /// The plants share zone and conduit names, so that every kind of change comes up.
    #[test]
    fn two_plants_that_differ_have_a_difference_and_gateways_only_change_for_a_said_reason(
        old in plants(), new in plants(),
    ) {
        let changes = diff(Some(&old), &new).unwrap();
        prop_assert_eq!(changes.is_empty(), old == new);
        prop_assert!(changes.changes.iter().all(|change| !change.details.is_empty()));
        if changes.touched().next().is_some() {
            let effective = changes.changes.iter().any(|change| change.effect != Effect::Recorded
                || matches!(change.subject, Subject::Flow { .. }));
            prop_assert!(effective, "{}", changes);
        }
    }

    #[test]
    fn a_verdict_that_differs_is_a_gateway_touched(
        old in plants(), new in plants(), dice in prop::collection::vec(any::<[u32; DICE]>(), 8),
    ) {
        let changes = diff(Some(&old), &new).unwrap();
        let (before, after) = (compile_all(&old).unwrap(), compile_all(&new).unwrap());
        for (gateway, plan) in &before {
            let Some(other) = after.get(gateway) else { continue };
            for dice in &dice {
                let connection = connection_near(plan, dice);
                if decide(plan, &connection) != decide(other, &connection) {
                    prop_assert_eq!(changes.gateways[gateway], Touch::Changed, "{}", connection);
                }
            }
        }
    }

    /// "Narrowed" is a promise: an approver may rest on it.
    #[test]
    fn flows_that_only_narrow_allow_nothing_new(
        plant in plants(), other in plants(), dice in prop::collection::vec(any::<[u32; DICE]>(), 16),
    ) {
        // The same plant but with the other's ends and ports on flows that both have, where that is said not to widen.
        let mut new = plant.clone();
        for (conduit_id, conduit) in &plant.conduits {
            for (name, flow) in &conduit.flows {
                let from = other.conduits.get(conduit_id).and_then(|c| c.flows.get(name));
                let Some(from) = from.filter(|from| !from.is_bridge() && !flow.is_bridge()) else { continue };
                let mut flow = flow.clone();
                flow.service = from.service.clone();
                flow.operations = from.operations.clone();
                flow.tls = from.tls.clone();
                flow.sources.truncate(1);
                let mut narrower = new.clone();
                narrower.conduits.get_mut(conduit_id).unwrap().flows.insert(name.clone(), flow);
                if !diff(Some(&plant), &narrower).unwrap().may_widen() {
                    new = narrower;
                }
            }
        }
        for (gateway, plan) in compile_all(&new).unwrap() {
            let before = &compile_all(&plant).unwrap()[&gateway];
            for dice in &dice {
                let connection = connection_near(&plan, dice);
                if decide(&plan, &connection).decision == crate::verdict::Decision::Allow {
                    prop_assert_eq!(
                        decide(before, &connection).decision, crate::verdict::Decision::Allow, "{}", connection
                    );
                }
            }
        }
    }

    /// The same of grants of remote access, at every moment at which one begins, ends or lasts.
    #[test]
    fn grants_that_only_narrow_open_nothing_new(
        plant in plants(), other in plants(), dice in prop::collection::vec(any::<[u32; DICE]>(), 16),
    ) {
        let mut new = plant.clone();
        new.remote_access = other.remote_access.clone();
        new.remote_access.retain(|_, access| plant.conduits.contains_key(&access.conduit));
        for (id, conduit) in &mut new.conduits {
            if let Some(other) = other.conduits.get(id) {
                conduit.only_by_grant = other.only_by_grant;
            }
        }
        let changes = diff(Some(&plant), &new).unwrap();
        for (gateway, plan) in compile_all(&new).unwrap() {
            let before = &compile_all(&plant).unwrap()[&gateway];
            for now in [GRANTED_MS - 1, GRANTED_MS, GRANTED_MS + 999, GRANTED_MS + 1001].map(Some).into_iter().chain([None]) {
                let (before, plan) = (before.at(now), plan.at(now));
                let mut opened = false;
                for dice in &dice {
                    let connection = connection_near(&plan, dice);
                    let passes = |plan| decide(plan, &connection).decision == crate::verdict::Decision::Allow;
                    opened |= passes(&plan) && !passes(&before);
                }
                prop_assert!(!opened || changes.may_widen(), "{}", changes);
            }
        }
    }

    #[test]
    fn a_range_of_numbers_covers_another_exactly_when_each_number_is_in_it(
        outer in prop::collection::vec((0..30_u32, 0..8_u32), 1..5), inner in prop::collection::vec((0..30_u32, 0..8_u32), 1..3),
    ) {
        let ranges = |list: &[(u32, u32)]| -> Vec<NumberRange> {
            list.iter().map(|(first, more)| NumberRange { first: *first, last: first + more }).collect()
        };
        let within = |list: &[(u32, u32)], number: u32| {
            list.iter().any(|(first, more)| (*first..=first + more).contains(&number))
        };
        let naive = (0..40).all(|number| !within(&inner, number) || within(&outer, number));
        prop_assert_eq!(numbers::covers(&ranges(&outer), &ranges(&inner)), naive);
    }
}

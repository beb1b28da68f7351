//! What a gateway does itself: bridges between brokers, and TLS that ends there.

use super::*;

/// Codes found in the plan of the works with brokers, changed after compiling.
fn broker_codes(flow: fn(&Plant) -> crate::model::Flow, change: impl FnOnce(&mut Plan)) -> Vec<&'static str> {
    let plant = with_brokers(flow);
    let mut plans = compile_all(&plant).unwrap();
    change(plans.get_mut(&gateway()).unwrap());
    listed(&check(&plant, &plans, None))
}

fn over_tls(plant: &Plant) -> crate::model::Flow {
    crate::model::Flow {
        tls: Some(Tls::default()),
        ..messages(plant)
    }
}

#[test]
fn a_bridge_or_an_end_of_tls_that_is_not_as_declared_is_found() {
    for flow in [bridge, messages, over_tls] {
        assert_eq!(broker_codes(flow, |_| ()), [""; 0]);
    }
    type Make = fn(&Plant) -> crate::model::Flow;
    type Spoil = fn(&mut Plan);
    let spoilt: [(Make, Spoil, &[&str]); 13] = [
        (bridge, |plan| plan.bridges[0].to.port = 1884, &["PC0113"]),
        (
            bridge,
            |plan| plan.bridges[0].from.address = id("10.20.4.41"),
            &["PC0113"],
        ),
        (
            bridge,
            |plan| plan.bridges[0].to.tls = Some(Tls::default()),
            &["PC0113"],
        ),
        (
            bridge,
            |plan| plan.bridges[0].publications.push(publish("#")),
            &["PC0113"],
        ),
        (bridge, |plan| plan.bridges[0].must_flow = false, &["PC0113"]),
        (
            bridge,
            |plan| plan.bridges[0].flow = id("downwards"),
            &["PC0113", "PC0114"],
        ),
        (bridge, |plan| plan.bridges.clear(), &["PC0114"]),
        (
            bridge,
            |plan| plan.requires.retain(|one| one.0 != Capability::BRIDGE_MQTT),
            &["PC0116", "PC0117"],
        ),
        (over_tls, |plan| plan.rules[3].tls = None, &["PC0113"]),
        (
            over_tls,
            |plan| plan.requires.retain(|one| one.0 != "inspect:mqtt-tls"),
            &["PC0116", "PC0117"],
        ),
        (
            messages,
            |plan| plan.rules[3].on_refusal = OnRefusal::Drop,
            &["PC0113"],
        ),
        (
            messages,
            |plan| plan.rules[3].answers = Answers::InOrder,
            &["PC0113", "PC0129"],
        ),
        (
            messages,
            |plan| plan.rules[3].tls = Some(Tls::default().into()),
            &["PC0113", "PC0116", "PC0117"],
        ),
    ];
    for (number, (flow, spoil, expected)) in spoilt.into_iter().enumerate() {
        assert_eq!(broker_codes(flow, spoil), expected, "case {number}");
    }
    // A bridge that is forwarded as well: the plan of a plain flow, judged against a plant that has a bridge there.
    let plans = compile_all(&with_brokers(messages)).unwrap();
    let found = listed(&check(&with_brokers(bridge), &plans, None));
    assert_eq!(found, ["PC0113"]);
}

fn before_plain(plant: &Plant) -> crate::model::Flow {
    crate::model::Flow {
        tls: Some(Tls {
            plain_port: Some(1884),
            ..Tls::default()
        }),
        ..messages(plant)
    }
}

fn unread(plant: &Plant) -> crate::model::Flow {
    crate::model::Flow {
        operations: None,
        ..before_plain(plant)
    }
}

#[test]
fn a_last_metre_in_the_plain_is_noted_and_one_that_must_flow_without_an_agent_is_warned_of() {
    for flow in [before_plain, unread] {
        assert_eq!(broker_codes(flow, |_| ()), ["PC0130"]);
        let needed = broker_codes(flow, |plan| {
            plan.requires.retain(|one| one.0 != Capability::TLS_BEFORE_PLAIN);
        });
        assert_eq!(needed, ["PC0116", "PC0117", "PC0130"]);
        assert_eq!(broker_codes(flow, |plan| plan.rules[3].tls = None), ["PC0113"]);
        let mut plant = with_brokers(flow);
        for flow in plant
            .conduits
            .get_mut(&id("telemetry"))
            .unwrap()
            .flows
            .values_mut()
        {
            flow.must_flow = true;
        }
        let found = check(&plant, &compile_all(&plant).unwrap(), None);
        let stops = found
            .iter()
            .find(|finding| finding.code == "PC0161" && finding.to_string().contains("telemetry/upwards"))
            .unwrap();
        assert!(stops.to_string().contains("its server speaks none"), "{stops}");
    }
}

#[test]
fn a_flow_that_passes_as_it_is_shares_no_connection_with_one_whose_tls_ends_before_the_plain() {
    for (one, other) in [
        (before_plain as fn(&Plant) -> _, unread as fn(&Plant) -> _),
        (unread, before_plain),
    ] {
        for change in [
            |_: &mut crate::model::Flow| (),
            |flow: &mut crate::model::Flow| (flow.tls, flow.operations) = (None, None),
            |flow: &mut crate::model::Flow| flow.tls = Some(Tls::default()),
        ] {
            let mut plant = with_brokers(one);
            let mut beside = other(&plant);
            change(&mut beside);
            let flows = &mut plant.conduits.get_mut(&id("telemetry")).unwrap().flows;
            flows.insert(id("beside"), beside.clone());
            let agree = beside.tls == flows[&id("upwards")].tls;
            let found = listed(&check(&plant, &compile_all(&plant).unwrap(), None));
            assert_eq!(found.contains(&"PC0125"), !agree, "{found:?} {beside}");
        }
    }
}

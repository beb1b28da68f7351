//! What a document says about being looked into, and what becomes of it in model and plan.

use super::{BASE, load_text};
use crate::compile::compile;
use crate::model::{Flow, Plant};
use crate::plan::{Capability, Plan};
use crate::terms::{Answers, OnAgentLoss, OnRefusal, PortRange, Tls, Transport};

/// The base plant with another service, and further keys, for the flow of messages from `plc` to `broker`.
fn plant(service: &str, allow: &str, keys: &str) -> Plant {
    let text = BASE
        .replace(
            "service: mqtt\n        allow: [{ publish: { topics: a/b } }]\n",
            &format!("service: {service}\n        allow: {allow}\n{keys}"),
        )
        .replace(
            "source: plc\n        destination: hmi",
            "source: plc\n        destination: broker",
        )
        .replace(
            "assets:\n",
            "assets:\n  broker: { zone: ops, address: 10.2.0.30 }\n",
        );
    let loaded = load_text(&text);
    loaded.plant.unwrap_or_else(|| {
        panic!(
            "{}",
            loaded.diagnostics.render(crate::diagnostics::Style::Narrated)
        )
    })
}

fn tell(plant: &Plant) -> &Flow {
    &plant.conduits[&"watch".parse().unwrap()].flows[&"tell".parse().unwrap()]
}

/// The brokers of the only bridge, as the gateway reaches them.
fn brokers(plant: &Plant) -> [(u16, Option<Tls>); 2] {
    let plan = plan(plant);
    let [bridge] = plan.bridges.as_slice() else {
        panic!("one bridge, not {:?}", plan.bridges);
    };
    [&bridge.from, &bridge.to].map(|broker| (broker.port, broker.tls.clone()))
}

fn plan(plant: &Plant) -> Plan {
    compile(plant, &"gw-1".parse().unwrap()).unwrap()
}

fn requires(plan: &Plan, capability: &str) -> bool {
    plan.requires.contains(&Capability(capability.to_owned()))
}

#[test]
fn a_client_s_tls_ends_before_a_server_in_the_plain_for_any_tcp_service_limited_or_not() {
    let plain = |port, name: Option<&str>| Tls {
        plain_port: Some(port),
        server_name: name.map(str::to_owned),
        ..Tls::default()
    };
    let reads = "[read-only: { units: 1 }]";
    for (service, allow, tls, meant, inspector) in [
        (
            "modbus-tcp:802",
            reads,
            "{ server: plain, server_port: 502 }",
            plain(502, None),
            Some("inspect:modbus-tcp"),
        ),
        (
            "mqtts",
            PUBLISH,
            "{ server: plain, server_port: 1883 }",
            plain(1883, None),
            Some("inspect:mqtt"),
        ),
        ("mqtts", "any", "{ server: plain }", plain(8883, None), None),
        (
            "modbus-tcp",
            "any",
            "{ server: plain, server_name: PLC.example }",
            plain(502, Some("plc.example")),
            None,
        ),
        (
            "tcp/10502",
            "any",
            "{ server: plain, server_port: 102 }",
            plain(102, None),
            None,
        ),
        (
            "s7comm:10102",
            "any",
            "{ server: plain, server_port: 102 }",
            plain(102, None),
            None,
        ),
    ] {
        let plant = plant(service, allow, &format!("        tls: {tls}\n"));
        assert_eq!(tell(&plant).tls, Some(meant.clone()), "{service}");
        assert_eq!(
            tell(&plant).operations.is_some(),
            inspector.is_some(),
            "{service}"
        );
        let plan = plan(&plant);
        assert!(
            requires(&plan, "tls:before-plain"),
            "{service}: {:?}",
            plan.requires
        );
        assert!(!requires(&plan, "inspect:mqtt-tls"), "{service}");
        assert!(
            inspector.is_none_or(|inspector| requires(&plan, inspector)),
            "{service}"
        );
        let again = Plan::from_bytes(&plan.to_bytes()).unwrap();
        let rule = again
            .rules
            .iter()
            .find(|rule| rule.flow.as_str() == "tell")
            .unwrap();
        assert_eq!(rule.tls.as_deref(), Some(&meant));
        let words = tell(&plant).to_string();
        let last = format!(
            "the last metre in the plain to the server's port {}",
            meant.plain_port.unwrap()
        );
        assert!(words.contains(&last), "{words}");
    }
}

#[test]
fn a_plan_that_ends_tls_before_a_server_in_the_plain_is_refused_where_an_agent_could_leave_it_out() {
    let made = plan(&plant(
        "tcp/802",
        "any",
        "        tls: { server: plain, server_port: 502 }\n",
    ));
    let refused = |spoil: &dyn Fn(&mut Plan, usize)| {
        let mut plan = made.clone();
        let at = plan
            .rules
            .iter()
            .position(|rule| rule.plain_port().is_some())
            .unwrap();
        spoil(&mut plan, at);
        Plan::from_bytes(&plan.to_bytes()).map_err(|error| error.to_string())
    };
    assert!(refused(&|_, _| ()).is_ok());
    for (spoil, because) in [
        (
            &(|plan: &mut Plan, _| plan.requires.retain(|one| one.0 != Capability::TLS_BEFORE_PLAIN))
                as &dyn Fn(&mut Plan, usize),
            "does not require `tls:before-plain`",
        ),
        (
            &|plan, at| plan.rules[at].on_agent_loss = OnAgentLoss::Pass,
            "is to pass while no agent lives",
        ),
        (
            &|plan, at| {
                plan.rules[at].transport = Transport::Tcp(vec![PortRange {
                    first: 802,
                    last: 803,
                }]);
            },
            "not at one TCP port",
        ),
        (
            &|plan, at| {
                plan.rules[at].tls = Some(
                    Tls {
                        plain_port: Some(0),
                        ..Tls::default()
                    }
                    .into(),
                );
            },
            "before port 0",
        ),
    ] {
        let error = refused(spoil).unwrap_err();
        assert!(error.contains(because), "{error}");
    }
}

const PUBLISH: &str = "[{ publish: { topics: a/b } }]";

/// Two blocks that have the shape of certificates, as an authority hands them out.
const AUTHORITIES: &str = "        tls:
          server_name: Broker.example
          server_authorities: |
            # the works
            -----BEGIN CERTIFICATE-----
            MIIB
            AAAA
            -----END CERTIFICATE-----

            -----BEGIN CERTIFICATE-----
            MIIC
            -----END CERTIFICATE-----
";

#[test]
fn tls_ends_at_the_gateway_only_where_operations_are_named() {
    let passing = plant("mqtts", "any", "");
    assert_eq!(tell(&passing).tls, None);
    assert!(!requires(&plan(&passing), "inspect:mqtt-tls"));

    let ended = plant("mqtts:8884", PUBLISH, "");
    assert_eq!(
        tell(&ended).tls,
        Some(Tls::default()),
        "the plant's own authority"
    );
    let plan = plan(&ended);
    for capability in ["inspect:mqtt", "inspect:mqtt-tls"] {
        assert!(requires(&plan, capability), "{capability}");
    }
    let rule = plan
        .rules
        .iter()
        .find(|rule| rule.flow.as_str() == "tell")
        .unwrap();
    assert_eq!(rule.tls.as_deref(), Some(&Tls::default()));
    assert_eq!(rule.transport.to_string(), "tcp/8884");
}

#[test]
fn of_certificates_only_the_blocks_are_kept_and_of_names_the_case_is_not() {
    let plant = plant("mqtts", PUBLISH, AUTHORITIES);
    let tls = tell(&plant).tls.clone().unwrap();
    assert_eq!(tls.server_name.as_deref(), Some("broker.example"));
    assert_eq!(
        tls.server_authorities.as_deref(),
        Some(
            "-----BEGIN CERTIFICATE-----\nMIIBAAAA\n-----END CERTIFICATE-----\n\
             -----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----\n"
        )
    );
}

#[test]
fn how_answers_are_matched_reaches_the_plan_and_a_note_says_its_price() {
    let reads = "[read-only: { units: 1 }]";
    for (written, meant) in [
        ("", Answers::Strict),
        ("        answers: strict\n", Answers::Strict),
        ("        answers: in-order\n", Answers::InOrder),
    ] {
        let plant = plant("modbus-tcp", reads, written);
        assert_eq!(tell(&plant).answers, meant, "{written}");
        let plan = plan(&plant);
        let rule = plan
            .rules
            .iter()
            .find(|rule| rule.flow.as_str() == "tell")
            .unwrap();
        assert_eq!(rule.answers, meant, "{written}");
        let said = tell(&plant).to_string();
        let is_said = said.contains("answers pass in order, under any identifiers");
        assert_eq!(is_said, meant == Answers::InOrder, "{said}");
    }
}

#[test]
fn how_a_refusal_is_answered_reaches_the_plan() {
    for (written, meant) in [
        ("answer", OnRefusal::Answer),
        ("acknowledge", OnRefusal::Acknowledge),
        ("disconnect", OnRefusal::Disconnect),
        ("reset", OnRefusal::Reset),
        ("drop", OnRefusal::Drop),
    ] {
        let plant = plant("mqtt", PUBLISH, &format!("        on_refusal: {written}\n"));
        assert_eq!(tell(&plant).on_refusal, meant, "{written}");
        let plan = plan(&plant);
        let rule = plan
            .rules
            .iter()
            .find(|rule| rule.flow.as_str() == "tell")
            .unwrap();
        assert_eq!(rule.on_refusal, meant, "{written}");
    }
    assert_eq!(tell(&plant("mqtt", PUBLISH, "")).on_refusal, OnRefusal::Answer);
}

#[test]
fn a_bridge_stands_among_the_bridges_and_no_rule_forwards_anything_for_it() {
    for (service, port, tls) in [
        ("mqtt-bridge", 1883, None),
        ("mqtts-bridge", 8883, Some(Tls::default())),
        ("mqtt-bridge:1885", 1885, None),
    ] {
        let plant = plant(service, PUBLISH, "");
        assert!(tell(&plant).is_bridge());
        let plan = plan(&plant);
        assert!(plan.rules.iter().all(|rule| rule.flow.as_str() != "tell"));
        let [bridge] = plan.bridges.as_slice() else {
            panic!("one bridge, not {:?}", plan.bridges);
        };
        assert_eq!(bridge.from.asset.as_str(), "plc");
        assert_eq!(bridge.to.address.to_string(), "10.2.0.30");
        assert_eq!((bridge.from.port, bridge.to.port), (port, port));
        assert_eq!((&bridge.from.tls, &bridge.to.tls), (&tls, &tls));
        assert_eq!(bridge.publications.len(), 1);
        assert!(requires(&plan, Capability::BRIDGE_MQTT));
        assert!(!requires(&plan, "inspect:mqtt"), "nothing is inspected");
        assert!(Plan::from_bytes(&plan.to_bytes()).is_ok());
    }
}

#[test]
fn the_two_brokers_of_a_bridge_may_be_reached_differently() {
    let named = |name: &str| {
        Some(Tls {
            server_authorities: None,
            server_name: Some(name.to_owned()),
            plain_port: None,
        })
    };
    for (service, keys, from, to) in [
        (
            "{ source: mqtt-bridge, destination: mqtts-bridge }",
            "",
            (1883, None),
            (8883, Some(Tls::default())),
        ),
        (
            "{ source: mqtt-bridge:1884, destination: mqtt-bridge }",
            "",
            (1884, None),
            (1883, None),
        ),
        // With TLS at one of them, `tls` speaks of that one.
        (
            "{ source: mqtts-bridge:8884, destination: mqtt-bridge }",
            "        tls: { server_name: line4.example }\n",
            (8884, named("line4.example")),
            (1883, None),
        ),
        (
            "mqtts-bridge",
            "        tls: { source: {}, destination: { server_name: plant.example } }\n",
            (8883, Some(Tls::default())),
            (8883, named("plant.example")),
        ),
    ] {
        let plant = plant(service, PUBLISH, keys);
        assert!(Plan::from_bytes(&plan(&plant).to_bytes()).is_ok());
        assert_eq!(brokers(&plant), [from, to], "{service}");
    }
}

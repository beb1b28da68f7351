//! When a gateway may change and what it asks before, from the text to its plan.

use super::{BASE, codes, load_text};
use crate::compile::compile;
use crate::diagnostics::Code;
use crate::plan::{AskedFrom, Capability, Condition, Interlock, Plan};

const MANAGEMENT: &str = "    management: { interface: eth0, peers: 192.0.2.10 }\n";

/// The base document with this in its gateway.
fn with(text: &str) -> String {
    BASE.replace(MANAGEMENT, &format!("{MANAGEMENT}    {text}\n"))
}

fn plan(text: &str) -> Plan {
    let loaded = load_text(text);
    let plant = loaded.plant.as_ref();
    let plant = plant.unwrap_or_else(|| panic!("{:?}", codes(&loaded)));
    let plan = compile(plant, &"gw-1".parse().unwrap()).unwrap();
    assert_eq!(Plan::from_bytes(&plan.to_bytes()).unwrap(), plan);
    plan
}

fn asked(condition: &str) -> Interlock {
    plan(&with(&format!("safe_to_change: {{ {condition} }}")))
        .interlock
        .unwrap()
}

#[test]
fn windows_come_into_the_plan_in_the_order_of_the_week_by_the_sites_clock() {
    let plan = plan(
        &with("window: [Sun 02:00-04:00, Mon 22:00-24:00, Tue 00:00-01:30]")
            .replace("works: { timezone: UTC }", "works: { timezone: Europe/Berlin }"),
    );
    let windows = plan.windows.unwrap();
    assert_eq!(windows.timezone, "Europe/Berlin");
    let said: Vec<String> = windows.weekly.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["Mon 22:00-24:00", "Tue 00:00-01:30", "Sun 02:00-04:00"]);
    assert!(
        plan.requires
            .contains(&Capability::of(Capability::CHANGE_CONTROL))
    );
    assert_eq!(
        self::plan(&with("window: daily 02:00-03:00"))
            .windows
            .unwrap()
            .weekly
            .len(),
        7
    );
}

#[test]
fn the_question_leaves_from_the_gateways_own_address_on_the_assets_side() {
    let coil = asked("modbus: plc, coil: 5, is: on");
    assert_eq!(coil.address.to_string(), "10.3.0.7");
    assert_eq!(coil.from, AskedFrom::Address("10.3.0.1".parse().unwrap()));
    assert_eq!(
        (coil.port, coil.condition.to_string()),
        (502, "coil 5 is on".to_owned())
    );
    assert!(matches!(coil.condition, Condition::Coil { unit: 255, .. }));
    let unit = asked("modbus: plc, coil: 5, unit: 0, port: 1502, is: no");
    assert_eq!(
        (unit.port, unit.condition.to_string()),
        (1502, "coil 5 (unit 0) is off".to_owned())
    );
    // Of two addresses the one of which the gateway has the family.
    let topic = asked("mqtt: hmi, topic: line/1/safe, is: \"yes\"");
    assert_eq!(topic.from, AskedFrom::Address("10.2.0.1".parse().unwrap()));
    assert_eq!(topic.port, 1883);
    assert_eq!(
        topic.condition.to_string(),
        "the topic \"line/1/safe\" is \"yes\""
    );
    assert_eq!(asked("mqtt: hmi, topic: a, is: safe, tls: {}").port, 8883);
    let text = with("safe_to_change: { mqtt: hmi, topic: a, is: safe }").replace(
        "eth2: { zone: ops, behind: cells, address: 10.2.0.1/24 }",
        "eth2: { zone: ops, behind: cells, address: \"fd00:2::1/64\" }",
    );
    let six = plan(&text).interlock.unwrap();
    assert_eq!(six.address.to_string(), "fd00:2::20");
    assert_eq!(six.from, AskedFrom::Address("fd00:2::1".parse().unwrap()));
}

/// The base document's gateway bridged, and a broker on the network that manages it.
fn bridged(asked: &str, peers: &str) -> String {
    with(&format!("safe_to_change: {{ {asked} }}"))
        .replace("mode: routed", "mode: bridged")
        .replace(", address: 10.1.0.1/24", "")
        .replace(", address: 10.2.0.1/24", "")
        .replace(", address: 10.3.0.1/24", "")
        .replace("peers: 192.0.2.10", &format!("peers: {peers}"))
        .replace(
            "  safety:\n    kind",
            "  desk:\n    kind: operations\n    networks: 192.0.2.0/24\n  safety:\n    kind",
        )
        .replace(
            "  plc: {",
            "  broker: { zone: desk, address: 192.0.2.30 }\n  plc: {",
        )
}

#[test]
fn a_bridged_gateway_asks_what_its_way_in_for_people_reaches_and_nothing_of_its_sides() {
    const TOPIC: &str = "mqtt: broker, topic: line/1/safe, is: safe";
    let from = plan(&bridged(TOPIC, "[192.0.2.10, 192.0.2.30]"))
        .interlock
        .unwrap()
        .from;
    assert_eq!(from, AskedFrom::Interface("eth0".to_owned()));
    let never = |text: &str| codes(&load_text(text)).contains(&Code::NeverAsked);
    assert!(never(&bridged(TOPIC, "192.0.2.10")));
    assert!(never(&bridged("modbus: plc, coil: 1, is: on", "192.0.2.10")));
    // A peer that lives on a side comes in there.
    assert!(never(&bridged("modbus: plc, coil: 1, is: on", "10.3.0.7")));
}

#[test]
fn a_question_that_nobody_could_answer_is_refused_with_its_reason() {
    let found = |condition: &str| {
        let loaded = load_text(&with(&format!("safe_to_change: {{ {condition} }}")));
        let errors = codes(&loaded)
            .into_iter()
            .filter(|code| code.severity() == crate::diagnostics::Severity::Error);
        errors.collect::<Vec<_>>()
    };
    assert_eq!(found("coil: 1, is: on"), [Code::NotACondition]);
    assert_eq!(found("modbus: plc, is: on"), [Code::MissingKey]);
    assert_eq!(found("modbus: plc, coil: 1"), [Code::MissingKey]);
    assert_eq!(found("modbus: plc, coil: 1, is: maybe"), [Code::NotABoolean]);
    assert_eq!(
        found("modbus: plc, coil: 1, is: on, topic: a"),
        [Code::NotACondition]
    );
    assert_eq!(
        found("modbus: plc, coil: 1, is: on, tls: {}"),
        [Code::NotACondition]
    );
    assert_eq!(found("modbus: plc, coil: 65536, is: on"), [Code::OutOfRange]);
    assert_eq!(
        found("modbus: plc, coil: 1, unit: 256, is: on"),
        [Code::OutOfRange]
    );
    assert_eq!(found("modbus: plc, coil: 1, port: 0, is: on"), [Code::OutOfRange]);
    assert_eq!(found("modbus: nobody, coil: 1, is: on"), [Code::UnknownName]);
    assert_eq!(found("mqtt: hmi, is: safe"), [Code::MissingKey]);
    assert_eq!(
        found("mqtt: hmi, topic: \"a/#\", is: safe"),
        [Code::NotACondition]
    );
    assert_eq!(
        found("mqtt: hmi, topic: a, coil: 1, is: safe"),
        [Code::NotACondition]
    );
    assert_eq!(
        found(&format!("mqtt: hmi, topic: a, is: {}", "x".repeat(257))),
        [Code::NotACondition]
    );
    // `is: yes` without quotes is text here, and a truth value for other readers.
    let ambiguous = load_text(&with("safe_to_change: { mqtt: hmi, topic: a, is: yes }"));
    assert!(codes(&ambiguous).contains(&Code::AmbiguousText));
}

#[test]
fn a_time_zone_that_does_not_exist_opens_no_window_and_is_refused() {
    for zone in ["Europe/Berlni", "europe/berlin", "Mars/Olympus", "Etc"] {
        let loaded = load_text(&BASE.replacen("timezone: UTC", &format!("timezone: {zone}"), 1));
        assert_eq!(codes(&loaded), [Code::NotATimeZone], "{zone}");
    }
    let near = load_text(&BASE.replacen("timezone: UTC", "timezone: Europe/Berlni", 1));
    let help = near.diagnostics.iter().next().unwrap().help.clone();
    assert_eq!(help.as_deref(), Some("did you mean `Europe/Berlin`?"));
    for zone in [
        "America/Argentina/Buenos_Aires",
        "Etc/GMT+5",
        "Asia/Kolkata",
        "UTC",
    ] {
        let loaded = load_text(&BASE.replacen("timezone: UTC", &format!("timezone: {zone}"), 1));
        assert_eq!(codes(&loaded), [], "{zone}");
    }
}

//! What is learned reads back as it was told, by messages of its protocol or by the one for all.
#![allow(clippy::unwrap_used)]

use penstock_policy::protocol::modbus_tcp::MODBUS_TCP;
use penstock_policy::protocol::mqtt::MQTT;

use super::*;

fn range(first: u32, last: u32) -> NumberRange {
    NumberRange { first, last }
}

fn event(protocol: Protocol) -> LearnedEvent {
    LearnedEvent {
        application: protocol.word.to_owned(),
        ..LearnedEvent::default()
    }
}

fn write() -> LearnedEntry {
    LearnedEntry {
        operation: "write-multiple-registers".to_owned(),
        numbers: vec![("units", 3)],
        texts: Vec::new(),
        written: Some(range(40, 43)),
        sets: BTreeMap::from([
            ("addresses", LimitSet::Numbers(vec![range(40, 43)])),
            ("values", LimitSet::Numbers(vec![range(0, 0), range(7, 9)])),
        ]),
        count: 5,
        first_ms: 1,
        last_ms: 2,
    }
}

fn diagnostics() -> LearnedEntry {
    LearnedEntry {
        operation: "diagnostics".to_owned(),
        written: None,
        sets: BTreeMap::from([("sub_functions", LimitSet::Numbers(vec![range(0, 0), range(1, 1)]))]),
        ..write()
    }
}

fn publish() -> LearnedEntry {
    LearnedEntry {
        operation: "publish".to_owned(),
        numbers: Vec::new(),
        texts: vec![("topics", "works/\u{7}a".to_owned())],
        written: None,
        sets: BTreeMap::from([
            ("qos", LimitSet::Range(range(0, 1))),
            ("retain", LimitSet::Flag(true)),
        ]),
        count: 5,
        first_ms: 1,
        last_ms: 2,
    }
}

#[test]
fn an_entry_reads_back_by_its_protocols_message_and_by_the_one_for_all() {
    for (protocol, entry) in [
        (MODBUS_TCP, write()),
        (MODBUS_TCP, diagnostics()),
        (MQTT, publish()),
    ] {
        let mut own = event(protocol);
        put(&mut own, entry.clone());
        assert!(own.operations.is_empty());
        assert_eq!(entries(&own, protocol).unwrap(), std::slice::from_ref(&entry));
        let shared = LearnedEvent {
            operations: vec![entry.clone().into()],
            ..event(protocol)
        };
        assert_eq!(entries(&shared, protocol).unwrap(), [entry]);
    }
}

#[test]
fn both_messages_say_and_find_the_same_operation() {
    let shared = |entry: LearnedEntry| LearnedEvent {
        operations: vec![entry.into()],
        ..LearnedEvent::default()
    };
    let mut own = event(MQTT);
    put(&mut own, publish());
    assert_eq!(words(&own).collect::<Vec<_>>(), ["publish works/\\u{7}a \u{d7}5"]);
    assert_eq!(
        words(&shared(publish())).collect::<Vec<_>>(),
        words(&own).collect::<Vec<_>>()
    );
    assert_eq!(texts(&own).collect::<Vec<_>>(), ["works/\u{7}a"]);
    assert_eq!(
        texts(&shared(publish())).collect::<Vec<_>>(),
        ["publish", "works/\u{7}a"]
    );
    let mut own = event(MODBUS_TCP);
    put(&mut own, write());
    assert_eq!(
        words(&own).collect::<Vec<_>>(),
        ["write-multiple-registers of unit 3 \u{d7}5"]
    );
}

#[test]
fn what_the_protocol_does_not_have_is_no_entry() {
    let spoilt: [fn(&mut LearnedEntry); 8] = [
        |entry| entry.operation = "publish".to_owned(),
        |entry| entry.operation = "read-write".to_owned(),
        |entry| entry.operation = "read-coils: {} }\nzones:".to_owned(),
        |entry| entry.numbers = vec![("units", 256)],
        |entry| {
            entry.sets.insert("values", LimitSet::Numbers(vec![range(9, 7)]));
        },
        |entry| {
            entry
                .sets
                .insert("addresses", LimitSet::Numbers(vec![range(0, 65_536)]));
        },
        |entry| {
            entry
                .sets
                .insert("sub_functions", LimitSet::Numbers(vec![range(0, 0)]));
        },
        |entry| entry.first_ms = 3,
    ];
    for spoil in spoilt {
        let mut entry = write();
        spoil(&mut entry);
        let mut own = event(MODBUS_TCP);
        put(&mut own, entry.clone());
        assert_eq!(entries(&own, MODBUS_TCP), None, "{entry:?}");
        let shared = LearnedEvent {
            operations: vec![entry.into()],
            ..event(MODBUS_TCP)
        };
        assert_eq!(entries(&shared, MODBUS_TCP), None);
    }
    let mut other = write();
    other
        .sets
        .insert("topics", LimitSet::Patterns(vec!["a".to_owned()]));
    let shared = LearnedEvent {
        operations: vec![other.into()],
        ..event(MODBUS_TCP)
    };
    assert_eq!(entries(&shared, MODBUS_TCP), None);
}

#[test]
fn a_part_of_a_long_entry_keeps_its_values_at_their_place() {
    let mut part = write();
    part.sets.insert("addresses", LimitSet::Numbers(Vec::new()));
    let mut own = event(MODBUS_TCP);
    put(&mut own, part);
    assert_eq!(entries(&own, MODBUS_TCP).unwrap(), [write()]);
}

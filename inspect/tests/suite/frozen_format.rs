//! Today's connections freeze to the bytes of the fixture, and what an agent before left thaws.
//!
//! One connection a line of `fixtures/frozen-1.jsonl`. A line that differs means that the format changed: it gets a new number.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use penstock_inspect::connection::{Connection, ConnectionLimits, Mode, Sender};
use penstock_inspect::judge::{OnRefusal, Rules};
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::mqtt::MqttOperation;

use crate::modbus_connection::{adu, read_only};
use crate::mqtt_packets::{connack, packet, publication, subscription, text};
use crate::recorder::{connection, publish, run, subscribe};

/// Requests in flight, one of a function on whose length servers do not agree and that was refused by its server, a refusal that waits
/// for its turn, and the beginning of an ADU from each side.
fn modbus() -> Vec<(Sender, Vec<u8>)> {
    vec![
        (Sender::Client, adu(1, 1, &[17])),
        (Sender::Server, adu(1, 1, &[17, 3, 1, 2, 3])),
        (Sender::Client, adu(2, 1, &[3, 0, 0, 0, 9])),
        (Sender::Client, adu(2, 1, &[6, 0, 1, 0, 2])),
        (Sender::Client, adu(3, 2, &[4, 0, 16, 0, 1])),
        (Sender::Client, vec![0, 4, 0, 0, 0, 6, 1, 3]),
        (Sender::Server, vec![0, 2, 0, 0, 0, 21, 1]),
    ]
}

/// CONNECT with a will and a user, MQTT 5.
fn connect_with_will() -> Vec<u8> {
    let body = [
        &text("MQTT")[..],
        &[5, 0b1010_0110, 0, 60, 3, 0x22, 0, 9],
        &text("plc-7"),
        &[0],
        &text("line/4/state"),
        &text("gone"),
        &text("operator"),
    ];
    packet(0x10, &body.concat())
}

/// A subscription that went on in part, a publication at QoS 2 that is not released, an alias, a delivery whose payload is passing
/// with an answer behind it, and the beginning of a packet.
fn mqtt() -> Vec<(Sender, Vec<u8>)> {
    vec![
        (Sender::Client, connect_with_will()),
        (Sender::Server, connack(5)),
        (
            Sender::Client,
            subscription(5, &[("line/4/#", 1), ("secret/#", 0)]),
        ),
        (
            Sender::Client,
            publication(5, 4, "line/4/temperature", Some(3), b"1"),
        ),
        (
            Sender::Server,
            publication(5, 0, "line/4/temperature", None, &[7; 100])[..40].to_vec(),
        ),
        (Sender::Client, publication(5, 2, "line/9/setpoint", None, b"")),
        (
            Sender::Client,
            publication(5, 0, "line/4/temperature", None, b"2")[..9].to_vec(),
        ),
    ]
}

fn permitted() -> Operations {
    Operations::from(vec![
        publish(&["line/4/#"], (0, 2), true),
        subscribe(&["line/4/#"]),
        MqttOperation::Connect {
            client_ids: None,
            users: Some(vec!["operator".to_owned()]),
        },
    ])
}

#[test]
fn a_frozen_connection_is_written_as_an_agent_before_wrote_it_and_read() {
    let cases = [
        (read_only(), Mode::Enforce, modbus()),
        (read_only(), Mode::Observe, modbus()),
        (permitted(), Mode::Enforce, mqtt()),
        (permitted(), Mode::Observe, mqtt()),
        (
            read_only(),
            Mode::Observe,
            vec![(Sender::Client, b"GET / HTTP/1.1".to_vec())],
        ),
        (
            permitted(),
            Mode::Observe,
            vec![(Sender::Client, b"GET / HTTP/1.1".to_vec())],
        ),
        (
            read_only(),
            Mode::Enforce,
            vec![(Sender::Client, b"GET / HTTP/1.1".to_vec())],
        ),
    ];
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/frozen-1.jsonl");
    let mut written = String::new();
    for (operations, mode, chunks) in &cases {
        let (_, stands) = run(connection(operations, *mode, OnRefusal::Answer), chunks);
        let frozen = stands.freeze(Duration::from_secs(1));
        let rules = Arc::new(Rules::compile(operations).unwrap());
        let (now, style, limits) = (
            Duration::from_secs(9),
            OnRefusal::Answer,
            ConnectionLimits::default(),
        );
        let thawed = Connection::thaw(&frozen, now, rules, *mode, style, limits).unwrap();
        assert_eq!(
            String::from_utf8(thawed.freeze(now)),
            String::from_utf8(frozen.clone())
        );
        written += &(String::from_utf8(frozen).unwrap() + "\n");
    }
    let missing = fs::metadata(path).is_err();
    if missing && std::env::var_os("PENSTOCK_FIXTURES").is_some_and(|how| how == "write") {
        fs::write(path, &written).unwrap();
    }
    assert_eq!(written, fs::read_to_string(path).unwrap());
}

//! What inspection costs per operation: decoded, judged, forwarded. `cargo bench -p penstock-inspect`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::Duration;

use divan::{Bencher, black_box};
use penstock_inspect::connection::{Connection, ConnectionLimits, Mode, Output, Sender};
use penstock_inspect::judge::{OnRefusal, Rules};
use penstock_inspect::modbus::judge::ModbusRules;
use penstock_inspect::modbus::{Request, frame};
use penstock_inspect::mqtt::judge::MqttRules;
use penstock_inspect::mqtt::operation::Operation;
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::modbus_tcp::ModbusOperation;
use penstock_policy::protocol::mqtt::MqttOperation;
use penstock_policy::terms::NumberRange;

fn main() {
    divan::main();
}

fn range(first: u32, last: u32) -> NumberRange {
    NumberRange { first, last }
}

/// Rules for holding registers, sixty addresses each, of which the last one holds the request.
fn modbus_rules(count: u32) -> Rules {
    let rule = |number: u32| ModbusOperation {
        function: "read-holding-registers".to_owned(),
        units: Some(vec![range(1, 1)]),
        addresses: Some(vec![range(number * 60, number * 60 + 59)]),
        read_addresses: None,
        values: None,
        sub_functions: None,
    };
    Rules::compile(&Operations::from((0..count).map(rule).collect::<Vec<_>>())).unwrap()
}

fn topic_rules(count: u32) -> Rules {
    let rule = |number: u32| MqttOperation::Publish {
        topics: vec![format!("works/line{number}/+/temperature")],
        qos: range(0, 1),
        retain: false,
    };
    Rules::compile(&Operations::from((0..count).map(rule).collect::<Vec<_>>())).unwrap()
}

fn adu(transaction: u16, first: u16) -> Vec<u8> {
    let ([high, low], [at_high, at_low]) = (transaction.to_be_bytes(), first.to_be_bytes());
    vec![high, low, 0, 0, 0, 6, 1, 3, at_high, at_low, 0, 10]
}

#[divan::bench(args = [1, 10, 100, 1000])]
fn modbus_decode_and_judge(bencher: Bencher<'_, '_>, rules: u32) {
    let first = u16::try_from(rules * 60 - 50).unwrap();
    let (bytes, rules) = (adu(1, first), modbus_rules(rules));
    let Some(rules) = rules.of::<ModbusRules>() else {
        return;
    };
    bencher.bench_local(|| {
        let frame = frame::next(black_box(&bytes)).unwrap().unwrap();
        rules.judge(&Request::decode(frame.unit, frame.pdu).unwrap())
    });
}

/// A whole round trip through the connection: request decoded, judged, noted, forwarded; answer matched,
/// checked, forwarded.
#[divan::bench(args = [1, 10, 100, 1000])]
fn modbus_request_and_answer(bencher: Bencher<'_, '_>, rules: u32) {
    let first = u16::try_from(rules * 60 - 50).unwrap();
    let mut connection = Connection::new(
        Arc::new(modbus_rules(rules)),
        Mode::Enforce,
        OnRefusal::Answer,
        ConnectionLimits::default(),
    );
    let request = adu(1, first);
    let answer = [&[0, 1, 0, 0, 0, 23, 1, 3, 20][..], &[0; 20]].concat();
    bencher.bench_local(|| {
        let mut bytes = 0;
        let mut out = |output: Output<'_>| {
            if let Output::ToServer(forwarded) | Output::ToClient(forwarded) = output {
                bytes += forwarded.len();
            }
        };
        connection.feed(Sender::Client, Duration::ZERO, black_box(&request), &mut out);
        connection.feed(Sender::Server, Duration::ZERO, black_box(&answer), &mut out);
        assert_eq!(bytes, request.len() + answer.len());
    });
}

#[divan::bench(args = [1, 10, 100, 1000])]
fn modbus_refused(bencher: Bencher<'_, '_>, rules: u32) {
    let (bytes, rules) = (adu(1, 60_000), modbus_rules(rules));
    let Some(rules) = rules.of::<ModbusRules>() else {
        return;
    };
    bencher.bench_local(|| {
        let frame = frame::next(black_box(&bytes)).unwrap().unwrap();
        rules.judge(&Request::decode(frame.unit, frame.pdu).unwrap())
    });
}

#[divan::bench(args = [1, 1000])]
fn mqtt_judge_publication(bencher: Bencher<'_, '_>, rules: u32) {
    let operation = Operation::Publish {
        topic: format!("works/line{}/oven/temperature", rules - 1).into(),
        qos: 1,
        retain: false,
    };
    let rules = topic_rules(rules);
    let Some(rules) = rules.of::<MqttRules>() else {
        return;
    };
    let client = rules.admit("plc-7", None);
    bencher.bench_local(|| rules.judge_for(&client, black_box(&operation)));
}

/// A publication through the connection: decoded, judged, forwarded.
#[divan::bench(args = [1, 1000])]
fn mqtt_publication(bencher: Bencher<'_, '_>, rules: u32) {
    let topic = format!("works/line{}/oven/temperature", rules - 1);
    let mut packet = vec![
        0x30,
        u8::try_from(2 + topic.len() + 32).unwrap(),
        0,
        u8::try_from(topic.len()).unwrap(),
    ];
    packet.extend(topic.as_bytes());
    packet.extend([0x55; 32]);
    let mut connection = Connection::new(
        Arc::new(topic_rules(rules)),
        Mode::Enforce,
        OnRefusal::Answer,
        ConnectionLimits::default(),
    );
    let mut open = |from, bytes: &[u8]| connection.feed(from, Duration::ZERO, bytes, &mut |_| {});
    open(
        Sender::Client,
        &[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'c'],
    );
    open(Sender::Server, &[0x20, 2, 0, 0]);
    bencher.bench_local(|| {
        let mut bytes = 0;
        connection.feed(
            Sender::Client,
            Duration::ZERO,
            black_box(&packet),
            &mut |output| {
                if let Output::ToServer(forwarded) = output {
                    bytes += forwarded.len();
                }
            },
        );
        assert_eq!(bytes, packet.len());
    });
}

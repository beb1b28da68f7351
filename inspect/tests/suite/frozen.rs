//! Connections that are frozen and thawed: nobody can tell that they were, and nothing else thaws.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use penstock_inspect::capture::direction::NoDeclarations;
use penstock_inspect::capture::{Flows, Frames, Happening, flows, link};
use penstock_inspect::connection::{Connection, ConnectionLimits, Mode, Sender, ThawError};
use penstock_inspect::judge::{OnRefusal, Rules};
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::mqtt::MqttOperation;
use proptest::prelude::*;

use crate::modbus_connection::{self, adu, read_only};
use crate::mqtt_connection::{self, rules};
use crate::mqtt_packets::{connack, connect, publication};
use crate::recorder::{Record, connection, cut, function, modbus, publish, resumed};

type Chunks = Vec<(Sender, Vec<u8>)>;

fn thaw(
    frozen: &[u8],
    operations: &Operations,
    mode: Mode,
    limits: ConnectionLimits,
) -> Result<Connection, ThawError> {
    let rules = Arc::new(Rules::compile(operations).unwrap());
    Connection::thaw(frozen, Duration::ZERO, rules, mode, OnRefusal::Answer, limits)
}

/// Feeds chunks forty milliseconds apart; before each, and at the end, the connection is frozen, and thawed by a program
/// whose clock began elsewhere.
fn frozen_each_time(mut connection: Connection, rules: &Arc<Rules>, mode: Mode, chunks: &Chunks) -> Record {
    let mut record = Record::default();
    let mut now = Duration::ZERO;
    for (from, bytes) in chunks {
        let frozen = connection.freeze(now);
        assert!(frozen.len() <= ConnectionLimits::default().frozen_bytes_max());
        now += Duration::from_secs(7);
        let (rules, limits) = (Arc::clone(rules), ConnectionLimits::default());
        let thawed = Connection::thaw(&frozen, now, rules, mode, OnRefusal::Answer, limits).unwrap();
        assert_eq!(
            String::from_utf8(thawed.freeze(now)).unwrap(),
            String::from_utf8(frozen).unwrap()
        );
        if !connection.is_closed() && !record.lost {
            assert_eq!(thawed.held_bytes(), connection.held_bytes());
        }
        connection = thawed;
        connection.feed(*from, now, bytes, &mut |output| record.take(output));
        now += Duration::from_millis(40);
    }
    record
}

fn left_alone(mut connection: Connection, chunks: &Chunks) -> Record {
    let mut record = Record::default();
    for (at, (from, bytes)) in (0..).zip(chunks) {
        let now = Duration::from_millis(40) * at;
        connection.feed(*from, now, bytes, &mut |output| record.take(output));
    }
    record
}

fn compare(operations: &Operations, mode: Mode, chunks: &Chunks) -> Record {
    let rules = Arc::new(Rules::compile(operations).unwrap());
    let begin = || {
        Connection::new(
            Arc::clone(&rules),
            mode,
            OnRefusal::Answer,
            ConnectionLimits::default(),
        )
    };
    let alone = left_alone(begin(), chunks);
    assert_eq!(frozen_each_time(begin(), &rules, mode, chunks), alone);
    alone
}

/// Both sides' streams, cut and dealt out by turns.
fn dealt(client: Vec<u8>, server: Vec<u8>, cuts: &[usize]) -> Chunks {
    let client = cut(&[(Sender::Client, client)], cuts);
    let server = cut(&[(Sender::Server, server)], cuts);
    client
        .into_iter()
        .zip(server)
        .flat_map(|(one, other)| [one, other])
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 2))]
    #[test]
    fn a_modbus_connection_that_was_frozen_goes_on_as_if_it_had_not_been(
        client in modbus_connection::stream(), server in modbus_connection::stream(),
        cuts in prop::collection::vec(any::<usize>(), 0..12), observe in any::<bool>(), every in 0_u8..8
    ) {
        let mode = if observe { Mode::Observe } else { Mode::Enforce };
        let cuts = if every == 0 { (0..300).collect() } else { cuts };
        compare(&read_only(), mode, &dealt(client, server, &cuts));
    }

    #[test]
    fn an_mqtt_connection_that_was_frozen_goes_on_as_if_it_had_not_been(
        version in 4_u8..6, streams in (mqtt_connection::stream(4), mqtt_connection::stream(5), mqtt_connection::stream(4), mqtt_connection::stream(5)),
        cuts in prop::collection::vec(any::<usize>(), 0..12), observe in any::<bool>(), every in 0_u8..8
    ) {
        let (client, server) = if version == 4 { (streams.0, streams.2) } else { (streams.1, streams.3) };
        let mode = if observe { Mode::Observe } else { Mode::Enforce };
        let cuts = if every == 0 { (0..300).collect() } else { cuts };
        let opening = dealt(connect(version, "c"), connack(version), &[3, 5]);
        let opening: Chunks = [&opening[..], &dealt(client, server, &cuts)].concat();
        compare(&rules(), mode, &opening);
        let rules = Arc::new(Rules::compile(&rules()).unwrap());
        let begin = || resumed(Arc::clone(&rules), mode, version);
        prop_assert_eq!(frozen_each_time(begin(), &rules, mode, &opening[6..].to_vec()), left_alone(begin(), &opening[6..].to_vec()));
    }

    #[test]
    fn bytes_that_were_tampered_with_thaw_to_nothing_beyond_the_limits(
        version in 4_u8..6, streams in (mqtt_connection::stream(4), mqtt_connection::stream(5), modbus_connection::stream()),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..4, any::<u8>()), 0..4), noise in prop::collection::vec(any::<u8>(), 0..80)
    ) {
        let mqtt = if version == 4 { streams.0 } else { streams.1 };
        let chunks = vec![(Sender::Client, connect(version, "c")), (Sender::Server, connack(version)), (Sender::Client, mqtt)];
        for (operations, chunks) in [(rules(), chunks), (read_only(), vec![(Sender::Client, streams.2)])] {
            let (_, connection) = crate::recorder::run(connection(&operations, Mode::Enforce, OnRefusal::Answer), &chunks);
            let mut frozen = connection.freeze(Duration::ZERO);
            for (at, how, byte) in &edits {
                let at = at.index(frozen.len());
                match how {
                    0 => frozen[at] = *byte,
                    1 => frozen[at] = b'0' + byte % 10,
                    2 => drop(frozen.remove(at)),
                    _ => frozen.insert(at, b'0' + byte % 10),
                }
            }
            let small = ConnectionLimits { control_bytes_max: 600, queued_bytes_max: 100, ..ConnectionLimits::default() };
            for bytes in [&frozen, &noise] {
                let Ok(mut thawed) = thaw(bytes, &operations, Mode::Enforce, small) else { continue };
                prop_assert!(thawed.held_bytes() <= 2 * (605 + 100));
                thawed.feed(Sender::Client, Duration::ZERO, &noise, &mut |_| {});
                thawed.feed(Sender::Server, Duration::ZERO, &noise, &mut |_| {});
                prop_assert!(thawed.freeze(Duration::ZERO).len() <= small.frozen_bytes_max());
            }
        }
    }
}

#[test]
fn recorded_connections_that_were_frozen_at_every_segment_and_within_go_on_as_if_they_had_not_been() {
    let mut judged = 0;
    for entry in fs::read_dir(crate::captures::folder()).unwrap() {
        let capture = entry.unwrap().path();
        if capture.extension().is_none_or(|extension| extension != "pcap") {
            continue;
        }
        let bytes = fs::read(&capture).unwrap();
        let mut connections: BTreeMap<usize, Chunks> = BTreeMap::new();
        let mut happened =
            |number: usize, key: penstock_inspect::capture::FlowKey, _, happening: Happening<'_>| {
                if let Happening::Data(from, bytes) = happening
                    && key.server.port() == 502
                {
                    let (one, other) = bytes.split_at(bytes.len() / 2);
                    let chunks = connections.entry(number).or_default();
                    chunks.extend([(from, one.to_vec()), (from, other.to_vec())]);
                }
            };
        let mut flows = Flows::new(flows::FlowLimits::default());
        for frame in Frames::open(&bytes).unwrap().flatten() {
            if let Ok(segment) = link::segment(&frame) {
                flows.segment(frame.at, &segment, &NoDeclarations, &mut happened);
            }
        }
        flows.finish(&mut happened);
        for chunks in connections.values() {
            judged += compare(&read_only(), Mode::Enforce, chunks).judged.len();
            compare(
                &modbus(vec![function("write-single-register")]),
                Mode::Observe,
                chunks,
            );
        }
    }
    assert!(judged > 3000, "only {judged} operations were judged");
}

/// A publication's payload that passes, an answer that waits behind it, aliases, and a refusal at QoS 2.
#[test]
fn what_an_mqtt_connection_is_in_the_middle_of_survives() {
    let delivery = publication(5, 0, "line/1", None, &[7; 100]);
    let (head, tail) = delivery.split_at(30);
    let chunks = vec![
        (Sender::Client, connect(5, "plc-7")),
        (Sender::Server, connack(5)),
        (
            Sender::Client,
            publication(5, 0, "line/4/temperature", Some(3), b"1"),
        ),
        (
            Sender::Client,
            publication(5, 0, "line/4/setpoint", Some(4), b"1"),
        ),
        (Sender::Server, head.to_vec()),
        (Sender::Client, publication(5, 2, "line/4/setpoint", None, b"")),
        (Sender::Server, tail.to_vec()),
        (Sender::Client, publication(5, 0, "", Some(3), b"2")),
        (Sender::Client, publication(5, 0, "", Some(4), b"2")),
    ];
    let record = compare(&rules(), Mode::Enforce, &chunks);
    assert!(record.to_client.ends_with(&[0x40, 3, 0, 7, 0x87]));
    assert!(record.to_server.ends_with(&publication(5, 0, "", Some(3), b"2")));
    assert_eq!(record.closed, None);
}

#[test]
fn rules_that_no_longer_permit_who_is_connected_hold_for_a_thawed_connection() {
    let chunks = [(Sender::Client, connect(5, "c")), (Sender::Server, connack(5))];
    let (_, connection) =
        crate::recorder::run(connection(&rules(), Mode::Enforce, OnRefusal::Answer), &chunks);
    let only = Operations::from(vec![
        publish(&["#"], (0, 2), true),
        MqttOperation::Connect {
            client_ids: Some(vec!["other".to_owned()]),
            users: None,
        },
    ]);
    let frozen = connection.freeze(Duration::ZERO);
    let mut thawed = thaw(&frozen, &only, Mode::Enforce, ConnectionLimits::default()).unwrap();
    let mut record = Record::default();
    thawed.feed(Sender::Client, Duration::ZERO, &[0xc0, 0], &mut |output| {
        record.take(output)
    });
    assert_eq!((record.to_server, record.closed), (vec![0xe0, 0], Some(false)));
}

#[test]
fn what_could_not_be_a_connection_is_refused_with_its_reason() {
    let fresh = connection(&read_only(), Mode::Enforce, OnRefusal::Answer);
    let held = adu(1, 1, &[3, 0, 0, 0, 1]);
    let (_, waiting) = crate::recorder::run(fresh, &[(Sender::Client, [&held[..], &held[..5]].concat())]);
    let frozen = String::from_utf8(waiting.freeze(Duration::ZERO)).unwrap();
    assert!(
        thaw(
            frozen.as_bytes(),
            &read_only(),
            Mode::Enforce,
            ConnectionLimits::default()
        )
        .is_ok()
    );
    let (_, open) = crate::recorder::run(
        connection(&rules(), Mode::Enforce, OnRefusal::Answer),
        &[(Sender::Client, connect(4, "c")), (Sender::Server, connack(4))],
    );
    let mqtt = String::from_utf8(open.freeze(Duration::ZERO)).unwrap();
    let (_, passing) = crate::recorder::run(
        connection(&read_only(), Mode::Observe, OnRefusal::Answer),
        &[(Sender::Client, b"GET / HTTP/1.1".to_vec())],
    );
    let passing = String::from_utf8(passing.freeze(Duration::ZERO)).unwrap();
    let none = ConnectionLimits {
        transactions: penstock_inspect::connection::TransactionLimits {
            outstanding_max: 0,
            ..Default::default()
        },
        ..ConnectionLimits::default()
    };
    let whole = hex_of(&held);
    for (frozen, operations, limits, said) in [
        (
            String::new(),
            read_only(),
            ConnectionLimits::default(),
            "cannot be read",
        ),
        (
            frozen[..frozen.len() - 1].to_owned(),
            read_only(),
            ConnectionLimits::default(),
            "cannot be read",
        ),
        (
            frozen.replace("\"format\":1", "\"format\":2"),
            read_only(),
            ConnectionLimits::default(),
            "format 2",
        ),
        (
            frozen.replace("\"unit\"", "\"more\":0,\"unit\""),
            read_only(),
            ConnectionLimits::default(),
            "cannot be read",
        ),
        (
            frozen.clone(),
            rules(),
            ConnectionLimits::default(),
            "speaks modbus-tcp",
        ),
        (
            frozen.clone(),
            read_only(),
            none,
            "1 requests in flight, the limit is 0",
        ),
        (
            frozen.replace("0001000000", &whole),
            read_only(),
            ConnectionLimits::default(),
            "not the beginning of one ADU",
        ),
        (
            frozen.replace("0001000000", "000100010006"),
            read_only(),
            ConnectionLimits::default(),
            "not the beginning of one ADU",
        ),
        (
            passing,
            read_only(),
            ConnectionLimits::default(),
            "without being understood",
        ),
        (
            mqtt.replacen("\"unreleased\":[]", "\"unreleased\":[7,7]", 1),
            rules(),
            ConnectionLimits::default(),
            "waits twice",
        ),
        (
            mqtt.replacen("\"stage\":\"open\"", "\"stage\":\"connect\"", 1),
            rules(),
            ConnectionLimits::default(),
            "before the connection was open",
        ),
        (
            mqtt.replacen("\"held\":\"\"", "\"held\":\"c000\"", 1),
            rules(),
            ConnectionLimits::default(),
            "not the beginning of one packet",
        ),
        (
            mqtt.replacen("\"queue\":\"\"", "\"queue\":\"40020007\"", 1),
            rules(),
            ConnectionLimits::default(),
            "answers wait for no payload",
        ),
        (
            mqtt.replacen(
                "\"payload\":null",
                "\"payload\":{\"remaining\":0,\"forward\":true}",
                1,
            ),
            rules(),
            ConnectionLimits::default(),
            "a packet begins before",
        ),
        (
            mqtt.replacen(
                "\"aliases\":{}",
                "\"aliases\":{\"1\":{\"topic\":\"x\",\"forwarded\":true}}",
                1,
            ),
            rules(),
            ConnectionLimits::default(),
            "no topic aliases",
        ),
    ] {
        let error = thaw(frozen.as_bytes(), &operations, Mode::Enforce, limits).err();
        let words = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(words.contains(said), "{frozen}: {words:?} instead of {said:?}");
    }
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

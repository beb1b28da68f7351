//! An MQTT connection: what is forwarded is what was judged, however it is cut.

use std::sync::Arc;

use penstock_inspect::connection::{Connection, ConnectionLimits, Mode, Sender};
use penstock_inspect::judge::{OnRefusal, Rules};
use penstock_inspect::mqtt::topic::matches;
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::mqtt::MqttOperation;
use proptest::prelude::*;

use crate::mqtt_packets::{connack, connect, packet, publication, subscription, text};
use crate::recorder::{Record, connection, cut, publish, run, subscribe};

pub(crate) fn rules() -> Operations {
    Operations::from(vec![
        publish(&["line/+/temperature"], (0, 1), false),
        publish(&["log/#"], (2, 2), true),
        subscribe(&["line/#", "$share/g/jobs"]),
    ])
}

fn session(version: u8, style: OnRefusal, packets: &[(Sender, Vec<u8>)]) -> Record {
    let mut chunks = vec![
        (Sender::Client, connect(version, "c")),
        (Sender::Server, connack(version)),
    ];
    chunks.extend(packets.iter().cloned());
    let (mut record, _) = run(connection(&rules(), Mode::Enforce, style), &chunks);
    record.to_server.drain(..connect(version, "c").len());
    record.to_client.drain(..connack(version).len());
    record
}

const CLIENT: Sender = Sender::Client;
const SERVER: Sender = Sender::Server;

#[test]
fn a_refused_publication_is_answered_in_the_way_of_its_version_and_quality() {
    let allowed = |version| publication(version, 2, "line/4/temperature", None, b"20");
    for (version, flags, answer) in [
        (4, 0, vec![]),
        (4, 2, vec![0x40, 2, 0, 7]),
        (4, 4, vec![0x50, 2, 0, 7]),
        (5, 0, vec![]),
        (5, 2, vec![0x40, 3, 0, 7, 0x87]),
        (5, 4, vec![0x50, 3, 0, 7, 0x87]),
    ] {
        let bad = publication(version, flags, "line/4/setpoint", None, &[9; 500]);
        let record = session(
            version,
            OnRefusal::Answer,
            &[(CLIENT, [bad, allowed(version)].concat())],
        );
        assert_eq!(
            record.to_server,
            allowed(version),
            "MQTT {version}, flags {flags}"
        );
        assert_eq!(record.to_client, answer, "MQTT {version}, flags {flags}");
    }
    let wrong_quality = publication(5, 4, "line/4/temperature", None, b"");
    let retained = publication(5, 1, "line/4/temperature", None, b"");
    let record = session(
        5,
        OnRefusal::Answer,
        &[(CLIENT, [wrong_quality, retained].concat())],
    );
    assert!(record.to_server.is_empty());
    assert!(
        record.judged[1].contains("quality of service") && record.judged[2].contains("retained messages"),
        "{record:?}"
    );
}

#[test]
fn a_refused_publication_at_qos_2_is_completed_without_the_broker() {
    let bad = publication(4, 4, "line/4/setpoint", None, b"");
    let release = vec![0x62, 2, 0, 7];
    let record = session(
        4,
        OnRefusal::Answer,
        &[(
            CLIENT,
            [bad.clone(), bad, release.clone(), release.clone()].concat(),
        )],
    );
    // Sent twice, acknowledged twice, released once here; the second release belongs to nothing we know of.
    assert_eq!(
        record.to_client,
        [&[0x50, 2, 0, 7][..], &[0x50, 2, 0, 7], &[0x70, 2, 0, 7]].concat()
    );
    assert_eq!(record.to_server, release);
}

#[test]
fn a_filter_that_a_rule_does_not_cover_is_refused_however_close_it_is() {
    let good = subscription(5, &[("line/+/x", 0), ("line", 0), ("$share/g/jobs", 0)]);
    assert_eq!(
        session(5, OnRefusal::Answer, &[(CLIENT, good.clone())]).to_server,
        good
    );
    for hidden in ["$SYS/#", "+/x", "$share/g/line/x", "$share/h/jobs", "jobs"] {
        let record = session(4, OnRefusal::Answer, &[(CLIENT, subscription(4, &[(hidden, 0)]))]);
        assert!(record.to_server.is_empty(), "{hidden}");
    }
}

#[test]
fn a_delivery_that_no_rule_lets_in_is_kept_away() {
    let bad = publication(5, 2, "other/x", None, b"secret");
    let good = publication(5, 0, "line/1", None, b"20");
    let record = session(5, OnRefusal::Answer, &[(SERVER, [bad, good.clone()].concat())]);
    assert_eq!(record.to_client, good);
    assert!(record.to_server.is_empty(), "nobody received it");
}

#[test]
fn an_alias_means_what_the_broker_knows_by_it() {
    let set_good = publication(5, 0, "line/4/temperature", Some(1), b"a");
    let set_bad = publication(5, 0, "line/4/setpoint", Some(1), b"b");
    let by_alias = publication(5, 0, "", Some(1), b"c");
    // Refused, the broker never heard of the alias's new topic: it would take the old one, the client means the new.
    let stream = [
        set_good.clone(),
        by_alias.clone(),
        set_bad,
        by_alias.clone(),
        set_good.clone(),
        by_alias.clone(),
    ];
    let record = session(5, OnRefusal::Answer, &[(CLIENT, stream.concat())]);
    assert_eq!(
        record.to_server,
        [set_good.clone(), by_alias.clone(), set_good, by_alias].concat()
    );
    assert!(record.judged[4].contains("topic alias"), "{record:?}");
}

#[test]
fn who_may_connect_is_who_the_rule_names_and_a_will_is_a_publication() {
    let only = Operations::from(vec![
        MqttOperation::Connect {
            client_ids: Some(vec!["plc-7".to_owned()]),
            users: None,
        },
        publish(&["status/plc-7"], (0, 1), true),
    ]);
    let will = |id: &str, topic: &str| {
        let body = [
            &text("MQTT")[..],
            &[4, 0x2e, 0, 60],
            &text(id),
            &text(topic),
            &text("gone"),
        ]
        .concat();
        packet(0x10, &body)
    };
    for (bytes, passes) in [
        (connect(4, "plc-7"), true),
        (connect(4, "plc-8"), false),
        (will("plc-7", "status/plc-7"), true),
        (will("plc-7", "status/plc-8"), false),
    ] {
        let (record, _) = run(
            connection(&only, Mode::Enforce, OnRefusal::Answer),
            &[(CLIENT, bytes.clone())],
        );
        if passes {
            assert_eq!(record.to_server, bytes);
        } else {
            assert_eq!(
                (record.to_client, record.closed),
                (vec![0x20, 2, 0, 5], Some(false))
            );
            assert!(record.to_server.is_empty());
        }
    }
    let (record, _) = run(
        connection(&only, Mode::Enforce, OnRefusal::Answer),
        &[(CLIENT, connect(5, "plc-8"))],
    );
    assert_eq!(record.to_client, [0x20, 3, 0, 0x87, 0]);
}

#[test]
fn a_policy_that_no_longer_knows_the_client_ends_its_connection_at_the_next_packet() {
    let mut connection = connection(&rules(), Mode::Enforce, OnRefusal::Answer);
    let mut record = Record::default();
    let now = std::time::Duration::ZERO;
    connection.feed(CLIENT, now, &connect(5, "c"), &mut |output| record.take(output));
    connection.feed(SERVER, now, &connack(5), &mut |output| record.take(output));
    let only = Operations::from(vec![MqttOperation::Connect {
        client_ids: Some(vec!["other".to_owned()]),
        users: None,
    }]);
    connection.set_rules(Arc::new(Rules::compile(&only).unwrap()));
    let before = record.to_client.len();
    connection.feed(CLIENT, now, &[0xc0, 0], &mut |output| record.take(output));
    assert_eq!(record.to_client[before..], [0xe0, 2, 0x87, 0]);
    let leaves = [connect(5, "c"), vec![0xe0, 0]].concat();
    assert_eq!((record.to_server, record.closed), (leaves, Some(false)));
}

#[test]
fn an_answer_waits_until_the_publication_that_passes_by_is_whole() {
    let delivery = publication(5, 0, "line/1", None, &[7; 100]);
    let (head, tail) = delivery.split_at(30);
    let bad = publication(5, 2, "line/4/setpoint", None, b"");
    let record = session(
        5,
        OnRefusal::Answer,
        &[(SERVER, head.to_vec()), (CLIENT, bad), (SERVER, tail.to_vec())],
    );
    assert_eq!(record.to_client, [&delivery[..], &[0x40, 3, 0, 7, 0x87]].concat());
}

#[test]
fn payloads_stream_through_and_large_things_take_no_memory() {
    let limits = ConnectionLimits {
        packet_bytes_max: 3_000_000,
        control_bytes_max: 1000,
        ..ConnectionLimits::default()
    };
    let build = || {
        Connection::new(
            Arc::new(Rules::compile(&rules()).unwrap()),
            Mode::Enforce,
            OnRefusal::Answer,
            limits,
        )
    };
    let large = publication(4, 0, "line/4/temperature", None, &vec![1; 2_000_000]);
    let mut connection = build();
    let mut record = Record::default();
    let now = std::time::Duration::ZERO;
    let mut held = 0;
    for piece in [connect(4, "c"), large.clone()].concat().chunks(700) {
        connection.feed(CLIENT, now, piece, &mut |output| record.take(output));
        held = held.max(connection.held_bytes());
    }
    assert_eq!(record.to_server, [connect(4, "c"), large].concat());
    assert!(held < 1000, "held {held} bytes");
    for too_large in [
        publication(4, 0, "line/4/temperature", None, &vec![1; 3_000_000]),
        publication(4, 0, &"t".repeat(1200), None, b""),
        subscription(4, &[(&"t".repeat(1200), 0)]),
    ] {
        let (record, connection) = run(
            build(),
            &cut(&[(CLIENT, connect(4, "c")), (CLIENT, too_large)], &[500, 900]),
        );
        assert_eq!((record.closed, record.to_server), (Some(false), connect(4, "c")));
        assert!(connection.held_bytes() <= 1005);
    }
}

/// A broker's naive reader: what it would do with a stream. Stops where it does not understand.
fn executed(version: u8, stream: &[u8]) -> Vec<(u8, String)> {
    let mut at = 0;
    let mut out = Vec::new();
    while at + 2 <= stream.len() {
        let kind = stream[at] >> 4;
        let (mut length, mut shift, mut header) = (0_usize, 0, 1);
        while let Some(byte) = stream.get(at + header) {
            length |= usize::from(byte & 127) << shift;
            shift += 7;
            header += 1;
            if byte & 128 == 0 {
                break;
            }
        }
        let Some(body) = stream.get(at + header..(at + header + length).min(stream.len())) else {
            break;
        };
        let string = |at: usize| {
            let length = usize::from(body[at]) << 8 | usize::from(body[at + 1]);
            (
                String::from_utf8(body[at + 2..at + 2 + length].to_vec()).unwrap(),
                at + 2 + length,
            )
        };
        if kind == 3 {
            out.push((kind, string(0).0));
        }
        if kind == 8 {
            let mut from = if version == 5 { 3 + usize::from(body[2]) } else { 2 };
            while from < body.len() {
                let (filter, end) = string(from);
                out.push((kind, filter));
                from = end + 1;
            }
        }
        at += header + length;
    }
    out
}

pub(crate) fn stream(version: u8) -> impl Strategy<Value = Vec<u8>> {
    let topics = prop::sample::select(vec![
        "line/4/temperature",
        "line/4/setpoint",
        "log/a",
        "x",
        "line/",
        "$SYS/x",
        "line/+/x",
    ]);
    let filters = prop::sample::select(vec![
        "line/#",
        "#",
        "line/+",
        "$share/g/jobs",
        "$share/g/line",
        "log/#",
        "a#",
    ]);
    let one = prop_oneof![
        4 => (prop::sample::select(vec![0_u8, 1, 2, 3, 4, 10, 12, 6]), topics, prop::option::of(0_u8..12), prop::collection::vec(any::<u8>(), 0..200))
            .prop_map(move |(flags, topic, alias, payload)| publication(version, flags, topic, alias, &payload)),
        1 => (0_u8..4).prop_map(move |alias| publication(version, 0, "", Some(alias), b"x")),
        2 => prop::collection::vec((filters, 0_u8..3), 1..4).prop_map(move |filters| {
            subscription(version, &filters.iter().map(|(filter, qos)| (*filter, *qos)).collect::<Vec<_>>())
        }),
        1 => Just(vec![0xc0, 0]),
        1 => Just(vec![0x62, 2, 0, 7]),
        1 => prop::collection::vec(any::<u8>(), 1..8),
    ];
    let spoiled = (one, 0_u8..30, any::<u16>()).prop_map(|(mut packet, spoil, noise)| {
        let at = usize::from(noise) % packet.len();
        match spoil {
            0 => packet[at] ^= 1 << (noise % 8),
            1 => packet.truncate(at.max(1)),
            _ => {}
        }
        packet
    });
    prop::collection::vec(spoiled, 0..8).prop_map(|packets| packets.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases * 2))]
    #[test]
    fn however_a_session_is_cut_the_same_comes_out(
        version in 4_u8..6, streams in (stream(4), stream(5), stream(4), stream(5)),
        cuts in prop::collection::vec(any::<usize>(), 0..12), observe in any::<bool>()
    ) {
        let (client, server) = if version == 4 { (streams.0, streams.2) } else { (streams.1, streams.3) };
        let mode = if observe { Mode::Observe } else { Mode::Enforce };
        let opening = vec![(CLIENT, connect(version, "c")), (SERVER, connack(version))];
        // One side at a time: where the sides meet within a packet, the order of answers rightly depends on it.
        for (side, bytes) in [(CLIENT, client), (SERVER, server)] {
            let whole = [opening.clone(), vec![(side, bytes)]].concat();
            let (uncut, _) = run(connection(&rules(), mode, OnRefusal::Answer), &whole);
            let (pieces, _) = run(connection(&rules(), mode, OnRefusal::Answer), &cut(&whole, &cuts));
            prop_assert_eq!(&uncut, &pieces);
            let every: Vec<usize> = (0..3000).collect();
            let (bytes, _) = run(connection(&rules(), mode, OnRefusal::Answer), &cut(&whole, &every));
            prop_assert_eq!(&uncut, &bytes);
        }
    }

    #[test]
    fn nothing_reaches_the_broker_that_no_rule_permits(version in 4_u8..6, streams in (stream(4), stream(5)), cuts in prop::collection::vec(any::<usize>(), 0..6)) {
        let client = if version == 4 { streams.0 } else { streams.1 };
        let record = session(version, OnRefusal::Answer, &cut(&[(CLIENT, client)], &cuts));
        for (kind, topic) in executed(version, &record.to_server) {
            if kind == 3 {
                // An empty topic is an alias that a permitted publication set.
                let permitted = (version == 5 && topic.is_empty()) || matches("line/+/temperature", &topic) || matches("log/#", &topic);
                prop_assert!(permitted, "published {}", topic);
            } else {
                // Whatever begins so, `line/#` covers: also what a changed byte makes of it (`line/*` has no wildcard).
                let permitted = topic == "$share/g/jobs" || topic == "line" || topic.starts_with("line/");
                prop_assert!(permitted, "subscribed {}", topic);
            }
        }
    }

    #[test]
    fn noise_is_survived(client in prop::collection::vec(any::<u8>(), 0..600), server in prop::collection::vec(any::<u8>(), 0..600)) {
        for version in [4, 5] {
            session(version, OnRefusal::Answer, &[(CLIENT, client.clone()), (SERVER, server.clone())]);
        }
    }
}

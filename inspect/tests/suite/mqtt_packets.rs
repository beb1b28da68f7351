//! MQTT packets: what the standards allow, and what they forbid, packet by packet. And a small encoder of our own.

use penstock_inspect::connection::{Mode, Sender};
use penstock_inspect::judge::OnRefusal;
use penstock_policy::protocol::Operations;

use crate::recorder::{Record, connection, publish, run, subscribe};

pub(crate) fn text(text: &str) -> Vec<u8> {
    let mut out = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    out.extend(text.as_bytes());
    out
}

pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut length = body.len();
    loop {
        let low = u8::try_from(length % 128).unwrap();
        length /= 128;
        out.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    out.extend(body);
    out
}

/// CONNECT without will or user.
pub(crate) fn connect(version: u8, id: &str) -> Vec<u8> {
    let properties: &[u8] = if version == 5 { &[3, 34, 0, 8] } else { &[] };
    packet(
        0x10,
        &[&text("MQTT")[..], &[version, 2, 0, 60], properties, &text(id)].concat(),
    )
}

/// CONNACK; the broker takes ten aliases.
pub(crate) fn connack(version: u8) -> Vec<u8> {
    let properties: &[u8] = if version == 5 { &[3, 34, 0, 10] } else { &[] };
    packet(0x20, &[&[0, 0][..], properties].concat())
}

/// PUBLISH with flags as given; identifier 7 where QoS wants one.
pub(crate) fn publication(version: u8, flags: u8, topic: &str, alias: Option<u8>, payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    if flags & 6 != 0 {
        body.extend([0, 7]);
    }
    if version == 5 {
        match alias {
            Some(alias) => body.extend([3, 35, 0, alias]),
            None => body.push(0),
        }
    }
    body.extend(payload);
    packet(0x30 | flags, &body)
}

pub(crate) fn subscription(version: u8, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = vec![0, 9];
    if version == 5 {
        body.push(0);
    }
    for (filter, options) in filters {
        body.extend(text(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

fn everything() -> Operations {
    Operations::from(vec![
        publish(&["#"], (0, 2), true),
        subscribe(&["#", "$SYS/#", "$share/+/#"]),
    ])
}

/// Runs packets after a connection was opened.
fn opened(version: u8, from: Sender, bytes: &[u8]) -> Record {
    let chunks = [
        (Sender::Client, connect(version, "c")),
        (Sender::Server, connack(version)),
        (from, bytes.to_vec()),
    ];
    run(
        connection(&everything(), Mode::Enforce, OnRefusal::Answer),
        &chunks,
    )
    .0
}

fn passes(version: u8, from: Sender, bytes: &[u8]) -> bool {
    let record = opened(version, from, bytes);
    let (out, before) = match from {
        Sender::Client => (record.to_server, connect(version, "c").len()),
        Sender::Server => (record.to_client, connack(version).len()),
    };
    record.noted.is_empty() && out[before..] == *bytes
}

#[test]
fn packets_of_each_kind_pass_as_they_are() {
    use Sender::{Client, Server};
    let cases: &[(u8, Sender, Vec<u8>)] = &[
        (4, Client, vec![0xc0, 0]),
        (4, Server, vec![0xd0, 0]),
        (4, Client, vec![0xe0, 0]),
        (4, Client, publication(4, 0, "a/b", None, b"1")),
        (4, Client, publication(4, 0x0d, "a/b", None, &[0; 300])),
        (4, Client, publication(4, 4, "a/b", None, b"")),
        (5, Client, publication(5, 2, "a", Some(3), b"x")),
        (5, Server, publication(5, 0, "a", Some(8), b"x")),
        (
            5,
            Server,
            packet(0x30, &[&text("a")[..], &[4, 11, 1, 11, 2], b"x"].concat()),
        ),
        (
            5,
            Client,
            packet(
                0x30,
                &[&text("a")[..], &[9, 38, 0, 1, b'k', 0, 1, b'v', 1, 1], b"x"].concat(),
            ),
        ),
        (4, Client, vec![0x40, 2, 0, 1]),
        (4, Server, vec![0x62, 2, 0, 1]),
        (5, Server, vec![0x50, 3, 0, 1, 0x10]),
        (5, Client, vec![0x70, 4, 0, 1, 0x92, 0]),
        (4, Client, subscription(4, &[("a/#", 1), ("$SYS/x", 0)])),
        (5, Client, subscription(5, &[("$share/g/a/#", 0x29)])),
        (4, Server, vec![0x90, 4, 0, 9, 2, 0x80]),
        (5, Server, vec![0x90, 4, 0, 9, 0, 0x87]),
        (4, Client, packet(0xa2, &[&[0, 3][..], &text("a")].concat())),
        (4, Server, vec![0xb0, 2, 0, 3]),
        (5, Server, vec![0xb0, 4, 0, 3, 0, 0x11]),
        (5, Client, vec![0xe0, 1, 4]),
        (5, Server, vec![0xe0, 2, 0x8e, 0]),
        (5, Client, vec![0xe0, 7, 0, 5, 17, 0, 0, 0, 9]),
    ];
    for (at, (version, from, bytes)) in cases.iter().enumerate() {
        assert!(
            passes(*version, *from, bytes),
            "case {at}: {bytes:02x?} {:?}",
            opened(*version, *from, bytes)
        );
    }
}

#[test]
fn what_the_standards_forbid_ends_the_connection_and_goes_nowhere() {
    use Sender::{Client, Server};
    let cases: &[(&str, u8, Sender, Vec<u8>)] = &[
        ("a second CONNECT", 4, Client, connect(4, "c")),
        ("a second CONNACK", 4, Server, connack(4)),
        ("type 0", 4, Client, vec![0, 0]),
        ("AUTH in 3.1.1", 4, Client, vec![0xf0, 0]),
        ("AUTH without a method", 5, Client, vec![0xf0, 0]),
        ("CONNACK from a client", 4, Client, vec![0x20, 2, 0, 0]),
        ("SUBSCRIBE from a broker", 4, Server, subscription(4, &[("a", 0)])),
        ("DISCONNECT from a broker in 3.1.1", 4, Server, vec![0xe0, 0]),
        ("PINGREQ with flags", 4, Client, vec![0xc1, 0]),
        (
            "SUBSCRIBE without its flags",
            4,
            Client,
            vec![0x80, 6, 0, 1, 0, 1, b'a', 0],
        ),
        ("a length in too many bytes", 4, Client, vec![0xc0, 0x80, 0]),
        (
            "a length of five bytes",
            4,
            Client,
            vec![0x30, 0xff, 0xff, 0xff, 0xff, 1],
        ),
        ("PINGREQ with a body", 4, Client, vec![0xc0, 1, 0]),
        ("QoS 3", 4, Client, publication(4, 6, "a", None, b"")),
        (
            "a duplicate at QoS 0",
            4,
            Client,
            publication(4, 8, "a", None, b""),
        ),
        (
            "a wildcard in a topic",
            4,
            Client,
            publication(4, 0, "a/#", None, b""),
        ),
        ("an empty topic", 4, Client, publication(4, 0, "", None, b"")),
        (
            "a null character",
            4,
            Client,
            publication(4, 0, "a\0b", None, b""),
        ),
        ("no UTF-8", 4, Client, vec![0x30, 4, 0, 2, 0xc0, 0x80]),
        ("a surrogate", 4, Client, vec![0x30, 5, 0, 3, 0xed, 0xa0, 0x80]),
        ("identifier 0", 4, Client, vec![0x32, 5, 0, 1, b'a', 0, 0]),
        (
            "a topic longer than its packet",
            4,
            Client,
            vec![0x30, 3, 0, 9, b'a', 0xc0, 0],
        ),
        (
            "properties longer than their packet",
            5,
            Client,
            vec![0x30, 4, 0, 1, b'a', 9, 1, 1],
        ),
        ("alias 0", 5, Client, publication(5, 0, "a", Some(0), b"")),
        (
            "an alias above the broker's",
            5,
            Client,
            publication(5, 0, "a", Some(11), b""),
        ),
        (
            "an alias above the client's",
            5,
            Server,
            publication(5, 0, "a", Some(9), b""),
        ),
        (
            "an alias that stands for nothing",
            5,
            Client,
            publication(5, 0, "", Some(3), b""),
        ),
        (
            "a property twice",
            5,
            Client,
            packet(0x30, &[&text("a")[..], &[4, 1, 0, 1, 0]].concat()),
        ),
        (
            "an unknown property",
            5,
            Client,
            packet(0x30, &[&text("a")[..], &[2, 99, 0]].concat()),
        ),
        (
            "a property of another packet",
            5,
            Client,
            packet(0x30, &[&text("a")[..], &[3, 34, 0, 1]].concat()),
        ),
        (
            "a property cut short",
            5,
            Client,
            packet(0x30, &[&text("a")[..], &[2, 35, 0]].concat()),
        ),
        (
            "payload format 2",
            5,
            Client,
            packet(0x30, &[&text("a")[..], &[2, 1, 2]].concat()),
        ),
        (
            "a response topic with a wildcard",
            5,
            Client,
            packet(0x30, &[&text("a")[..], &[4, 8, 0, 1, b'#']].concat()),
        ),
        (
            "a subscription identifier from a client",
            5,
            Client,
            packet(0x30, &[&text("a")[..], &[2, 11, 1]].concat()),
        ),
        (
            "an identifier of 0",
            5,
            Server,
            packet(0x30, &[&text("a")[..], &[2, 11, 0]].concat()),
        ),
        ("an unknown reason", 5, Client, vec![0x40, 3, 0, 1, 0x88]),
        ("a reason in 3.1.1", 4, Client, vec![0x40, 3, 0, 1, 0]),
        ("no filters", 4, Client, vec![0x82, 2, 0, 1]),
        ("reserved options", 4, Client, subscription(4, &[("a", 4)])),
        ("QoS 3 wanted", 5, Client, subscription(5, &[("a", 3)])),
        ("retain handling 3", 5, Client, subscription(5, &[("a", 0x30)])),
        (
            "no-local on a shared subscription",
            5,
            Client,
            subscription(5, &[("$share/g/a", 4)]),
        ),
        ("a bad filter", 4, Client, subscription(4, &[("a/#/b", 0)])),
        (
            "a bad filter after a good one",
            4,
            Client,
            subscription(4, &[("a", 0), ("a+", 0)]),
        ),
        ("SUBACK without a code", 4, Server, vec![0x90, 2, 0, 9]),
        ("SUBACK with an unknown code", 4, Server, vec![0x90, 3, 0, 9, 3]),
        ("UNSUBACK with a code in 3.1.1", 4, Server, vec![0xb0, 3, 0, 9, 0]),
        ("a broker's reason from a client", 5, Client, vec![0xe0, 1, 0x8b]),
        (
            "session expiry from a broker",
            5,
            Server,
            vec![0xe0, 7, 0, 5, 17, 0, 0, 0, 9],
        ),
    ];
    for (name, version, from, bytes) in cases {
        let record = opened(*version, *from, bytes);
        assert_eq!(record.closed, Some(false), "{name}: {record:?}");
        assert_eq!(record.noted.len(), 1, "{name}");
        assert_eq!(record.to_server, connect(*version, "c"), "{name}");
        assert_eq!(record.to_client, connack(*version), "{name}");
    }
}

#[test]
fn a_connection_begins_with_connect_and_only_so() {
    let body = |name: &str, level: u8, flags: u8, rest: &[u8]| {
        packet(0x10, &[&text(name)[..], &[level, flags, 0, 60], rest].concat())
    };
    let id = text("c");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("something else first", vec![0xc0, 0]),
        ("MQTT 3.1 without a name", body("MQIsdp", 3, 2, &text(""))),
        ("the older name with a newer level", body("MQIsdp", 4, 2, &id)),
        ("the newer name with the older level", body("MQTT", 3, 2, &id)),
        ("another level", body("MQTT", 6, 2, &id)),
        ("the reserved flag", body("MQTT", 4, 3, &id)),
        ("will flags without a will", body("MQTT", 4, 0x0a, &id)),
        (
            "will QoS 3",
            body("MQTT", 4, 0x1e, &[&id[..], &text("w"), &text("m")].concat()),
        ),
        (
            "a password without a user",
            body("MQTT", 4, 0x42, &[&id[..], &text("p")].concat()),
        ),
        (
            "no identifier and no clean session",
            body("MQTT", 4, 0, &text("")),
        ),
        (
            "a will topic with a wildcard",
            body("MQTT", 4, 6, &[&id[..], &text("w/+"), &text("m")].concat()),
        ),
        (
            "bytes after the end",
            body("MQTT", 4, 2, &[&id[..], &[0]].concat()),
        ),
        ("a user that is missing", body("MQTT", 4, 0x82, &id)),
        (
            "authentication data without a method",
            body("MQTT", 5, 2, &[&[4, 22, 0, 1, 9][..], &id].concat()),
        ),
    ];
    for (name, bytes) in cases {
        let (record, _) = run(
            connection(&everything(), Mode::Enforce, OnRefusal::Answer),
            &[(Sender::Client, bytes)],
        );
        assert_eq!(
            (record.to_server.len(), record.closed),
            (0, Some(false)),
            "{name}"
        );
    }
    let (record, _) = run(
        connection(&everything(), Mode::Enforce, OnRefusal::Answer),
        &[(Sender::Client, connect(4, "c")), (Sender::Server, vec![0xd0, 0])],
    );
    assert_eq!(
        (record.to_client.len(), record.closed),
        (0, Some(false)),
        "CONNACK has to come first"
    );
}

//! What a recording does not show: how IP is carried is read through, who opened is told by what is known or marked as a guess,
//! and what cannot be judged is counted.

use std::net::SocketAddr;
use std::time::Duration;

use etherparse::PacketBuilder;
use penstock_inspect::capture::direction::{Declarations, NoDeclarations, Opening, PortCarrier};
use penstock_inspect::capture::{FlowKey, Flows, Frame, Happening, Segment, flows, link};
use penstock_inspect::learn::{Learner, document};
use penstock_inspect::replay::{Plans, Replay, Report};
use proptest::prelude::*;

use crate::offline::{KEY, clock, load, plans};

/// A TCP packet in raw IP; no flags: in the middle of a connection.
pub(crate) fn tcp(from: &str, to: &str, flags: &str, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let ip = match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), 64)
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            PacketBuilder::ipv6(from.ip().octets(), to.ip().octets(), 64)
        }
        _ => panic!("one family"),
    };
    let mut builder = ip.tcp(from.port(), to.port(), sequence, 1000);
    if flags.contains('S') {
        builder = builder.syn();
    }
    if flags.contains('A') {
        builder = builder.ack(1);
    }
    let mut bytes = Vec::new();
    builder.write(&mut bytes, payload).unwrap();
    bytes
}

fn frame(number: u64, link_type: u16, bytes: &[u8]) -> Frame<'_> {
    Frame {
        number,
        link_type,
        at: Duration::from_secs(number),
        bytes,
        wire_bytes: bytes.len(),
    }
}

/// Raw IP.
const RAW: u16 = 101;

/// A tag, label or header in front of a packet whose type is known.
#[derive(Debug, Clone, Copy)]
enum Wrap {
    Vlan,
    Hsr,
    Mpls(usize),
    Pppoe,
}

/// An Ethernet frame around raw IP.
fn ethernet(wraps: &[Wrap], ip: &[u8]) -> Vec<u8> {
    let version: u16 = if ip[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
    let (mut kind, mut bytes) = (version, ip.to_vec());
    for wrap in wraps.iter().rev() {
        let inner = kind.to_be_bytes();
        let before = match wrap {
            Wrap::Vlan => {
                kind = 0x8100;
                [&[0, 7][..], &inner].concat()
            }
            Wrap::Hsr => {
                kind = 0x892f;
                [&[0x10, 40, 0, 9][..], &inner].concat()
            }
            // These say nothing of what they carry, so only IP can follow.
            Wrap::Mpls(labels) if kind == version => {
                kind = 0x8847;
                let label = |at| [0, 1, if at + 1 == *labels { 0x11 } else { 0x10 }, 64];
                (0..*labels).flat_map(label).collect()
            }
            Wrap::Pppoe if kind == version => {
                kind = 0x8864;
                let protocol = if version == 0x0800 { 0x21 } else { 0x57 };
                vec![0x11, 0, 0, 1, 0, 0, 0, protocol]
            }
            Wrap::Mpls(_) | Wrap::Pppoe => continue,
        };
        bytes = [before, bytes].concat();
    }
    let mut out = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    out.extend(kind.to_be_bytes());
    out.extend(bytes);
    // What PRP puts behind, and padding.
    out.extend([0, 3, 0xa0, 60, 0x88, 0xfb]);
    out
}

fn wraps() -> impl Strategy<Value = Vec<Wrap>> {
    let one = prop_oneof![
        Just(Wrap::Vlan),
        Just(Wrap::Hsr),
        (1..4_usize).prop_map(Wrap::Mpls),
        Just(Wrap::Pppoe)
    ];
    prop::collection::vec(one, 0..5)
}

fn read(link_type: u16, bytes: &[u8]) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
    let segment = link::segment(&frame(1, link_type, bytes)).ok()?;
    Some((segment.source, segment.destination, segment.payload.to_vec()))
}

proptest! {
    #[test]
    fn a_segment_is_the_same_however_it_is_carried_and_none_where_it_is_cut(
        wraps in wraps(), six in any::<bool>(), payload in prop::collection::vec(any::<u8>(), 0..40), cut in 0..200_usize,
    ) {
        let (from, to) = if six { ("[fd00::5]:50000", "[fd01::9]:502") } else { ("10.1.0.5:50000", "10.2.0.9:502") };
        let ip = tcp(from, to, "A", 7, &payload);
        let expected = read(RAW, &ip);
        prop_assert!(expected.is_some());
        let protocol = if six { 0x57 } else { 0x21 };
        let carried = [
            (1, ethernet(&wraps, &ip)),
            (9, [&[0xff, 3, 0, protocol][..], &ip].concat()),
            (9, [&[0, protocol][..], &ip].concat()),
            (9, [&[protocol][..], &ip].concat()),
            (50, [&[0xff, 3, 0, protocol][..], &ip].concat()),
            (51, [&[0x11, 0, 0, 1, 0, 0, 0, protocol][..], &ip].concat()),
            (1, [&[2; 12][..], &[0x88, 0x47, 0, 1, 1, 9, 0, 0, 0, 0][..], &ethernet(&[], &ip)].concat()),
        ];
        for (link_type, bytes) in &carried {
            prop_assert_eq!(read(*link_type, bytes), expected.clone(), "{} {:?}", link_type, bytes);
            // Cut before the payload ends, nothing else is read than what is there.
            let cut = read(*link_type, bytes.get(..cut).unwrap_or(bytes));
            prop_assert!(cut.is_none_or(|(source, _, read)| source == from.parse().unwrap() && payload.starts_with(&read)));
        }
    }

    #[test]
    fn noise_behind_any_link_type_is_survived(link_type in 0..300_u16, bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = link::packet(&frame(1, link_type, &bytes));
        let _ = link::ends(&frame(1, link_type, &bytes));
    }
}

/// Who opened each connection of these packets, and how that is known.
fn openings(packets: &[Vec<u8>], declared: &dyn Declarations) -> Vec<(FlowKey, Opening)> {
    let mut flows = Flows::new(flows::FlowLimits::default());
    let segments: Vec<Segment<'_>> = packets
        .iter()
        .map(|bytes| link::segment(&frame(1, RAW, bytes)).unwrap())
        .collect();
    segments.iter().for_each(|segment| flows.survey(segment));
    let mut found = Vec::new();
    for segment in &segments {
        flows.segment(Duration::ZERO, segment, declared, &mut |_, key, _, happening| {
            if let Happening::Begins { opening } = happening {
                found.push((key, opening));
            }
        });
    }
    found
}

/// A plant in which one flow leads from 10.1.0.0/16 to 10.2.0.0/16 at one port.
struct OneFlow(u16);

impl Declarations for OneFlow {
    fn permits(&self, _: PortCarrier, client: SocketAddr, server: SocketAddr) -> bool {
        self.leads(client.ip(), server.ip()) && server.port() == self.0
    }

    fn names(&self, _: PortCarrier, port: u16) -> bool {
        port == self.0
    }

    fn leads(&self, client: std::net::IpAddr, server: std::net::IpAddr) -> bool {
        client.to_string().starts_with("10.1.") && server.to_string().starts_with("10.2.")
    }
}

#[test]
fn who_opened_a_tcp_connection_that_stood_before_is_told_by_plant_and_services_else_guessed_and_marked() {
    let one = |from: &str, to: &str, declared: &dyn Declarations| {
        let found = openings(&[tcp(from, to, "A", 1, b"x")], declared);
        let [(key, opening)] = found.as_slice() else {
            panic!()
        };
        (key.server.to_string(), *opening)
    };
    let (client, server) = ("10.1.0.5:1100", "10.2.0.9:44818");
    for (from, to) in [(client, server), (server, client)] {
        assert_eq!(one(from, to, &NoDeclarations), (server.into(), Opening::Told));
    }
    let (client, server) = ("10.1.0.5:1025", "10.2.0.9:1502");
    for (from, to) in [(client, server), (server, client)] {
        // The lower port is the client's; only the plant knows.
        assert_eq!(one(from, to, &OneFlow(1502)), (server.into(), Opening::Told));
        assert_eq!(one(from, to, &OneFlow(9)), (server.into(), Opening::Guessed));
        assert_eq!(one(from, to, &NoDeclarations), (client.into(), Opening::Guessed));
    }
    // Named by a flow between others.
    let elsewhere = ("10.3.0.5:1025", "10.3.0.9:1502");
    assert_eq!(
        one(elsewhere.0, elsewhere.1, &OneFlow(1502)),
        (elsewhere.1.into(), Opening::Told)
    );
}

#[test]
fn a_later_opening_to_the_same_end_tells_who_serves_on_a_connection_that_stood_before() {
    let (client, server) = ("10.1.0.5:1025", "10.2.0.9:20001");
    for later in [
        tcp("10.1.0.6:5000", server, "S", 1, b""),
        tcp(server, "10.1.0.6:5000", "SA", 1, b""),
    ] {
        let packets = [tcp(server, client, "A", 1, b"x"), later];
        let (key, opening) = openings(&packets, &NoDeclarations)[0];
        assert_eq!(
            (key.server.to_string().as_str(), opening),
            (server, Opening::Told)
        );
    }
}

const PLANT: &str = "
plant: works
title: Works
approvers: { threshold: 1, people: { first: { key: \"KEY\" } } }
sites: { works: { title: Works, timezone: UTC } }
gateways:
  gw-1: { site: works, mode: bridged, interfaces: { eth1: { zone: operations }, eth2: { zone: control } } }
zones:
  operations: { title: Operations, kind: operations, networks: [10.1.0.0/16] }
  control: { title: Control, kind: control, networks: [10.2.0.0/16] }
assets:
  hmi: { zone: operations, address: 10.1.0.5 }
  plc: { zone: control, address: 10.2.0.9 }
conduits:
  watch:
    from: operations
    to: control
    flows:
      polling: { source: hmi, destination: plc, service: modbus-tcp, allow: [{ read-coils: { units: 1, addresses: 0-9 } }] }
      stream: { source: hmi, destination: plc, service: udp/5500 }
      ping: { source: hmi, destination: plc, service: icmp-echo }
";

fn works() -> Plans {
    plans(&load(&[&PLANT.replace("KEY", KEY)]))
}

fn replayed(packets: &[Vec<u8>]) -> Report {
    let plans = works();
    let mut replay = Replay::new(&plans);
    for (number, bytes) in (1..).zip(packets) {
        replay.frame(&frame(number, RAW, bytes));
    }
    replay.finish()
}

fn udp(from: &str, to: &str) -> Vec<u8> {
    crate::datagrams::packet(from, to, b"u")[14..].to_vec()
}

#[test]
fn a_udp_conversation_is_its_permitted_openers_from_the_moment_that_it_has_spoken() {
    // After two minutes nothing stood before. The server speaks twice before its client has.
    let mut packets = vec![udp("10.1.0.77:7777", "10.1.0.78:7777")];
    let plans = works();
    let mut replay = Replay::new(&plans);
    replay.frame(&frame(1, RAW, &packets[0]));
    let (client, server) = ("10.1.0.5:50000", "10.2.0.9:5500");
    packets.extend([
        udp(server, client),
        udp(server, client),
        udp(client, server),
        udp(server, client),
    ]);
    for (number, bytes) in (200..).zip(&packets[1..]) {
        replay.frame(&frame(number, RAW, bytes));
    }
    let report = replay.finish();
    let of = |client: &str| report.datagrams.iter().find(|one| one.client == client).unwrap();
    let (of_client, of_server) = (of("10.1.0.5"), of("10.2.0.9"));
    assert_eq!(of_client.server, server);
    assert_eq!(of_client.datagrams, [1, 1]);
    assert!(of_client.judgements[0].answer.allowed);
    assert_eq!((of_server.datagrams, of_server.early), ([2, 0], 1));
    assert!(!of_server.judgements[0].answer.allowed);
}

#[test]
fn a_udp_stream_that_stood_before_is_the_permitted_openers() {
    // A port that is no known service's, heard from the server first.
    let report = replayed(&[udp("10.2.0.9:5500", "10.1.0.5:50000")]);
    let [one] = report.datagrams.as_slice() else {
        panic!("{report:?}")
    };
    assert_eq!((one.client.as_str(), one.midway, one.guessed), ("10.1.0.5", 1, 0));
    assert!(one.judgements[0].answer.allowed);
    // No flow is about this one, and both were heard.
    let packets = [
        udp("10.2.0.9:7001", "10.1.0.5:7002"),
        udp("10.1.0.5:7002", "10.2.0.9:7001"),
    ];
    let report = replayed(&packets);
    assert_eq!(report.datagrams[0].guessed, 1, "{report:?}");
}

#[test]
fn answers_whose_requests_are_not_in_the_recording_are_not_judged_instead_of_withheld() {
    let answer = [0, 1, 0, 0, 0, 4, 1, 1, 1, 0];
    let (client, server) = ("10.1.0.5:50000", "10.2.0.9:502");
    let report = replayed(&[
        tcp(server, client, "SA", 0, b""),
        tcp(server, client, "A", 1, &answer),
    ]);
    let treatment = &report.flows[0].treatments[0];
    assert_eq!(treatment.deviations, []);
    assert_eq!(treatment.unjudged_bytes, 10);
    // With what the client sent it is judged, and withheld.
    let report = replayed(&[
        tcp(client, server, "S", 0, b""),
        tcp(server, client, "SA", 0, b""),
        tcp(client, server, "A", 1, &[0, 9, 0, 0, 0, 6, 1, 1, 0, 0, 0, 1]),
        tcp(server, client, "A", 1, &answer),
    ]);
    let treatment = &report.flows[0].treatments[0];
    assert_eq!((treatment.deviations.len(), treatment.unjudged_bytes), (1, 0));
}

#[test]
fn neighbour_discovery_is_no_more_judged_than_arp_is() {
    let is_discovery = |kind: u8| {
        let ip = PacketBuilder::ipv6([1; 16], [2; 16], 255);
        let mut bytes = Vec::new();
        ip.icmpv6_raw(kind, 0, [0; 4])
            .write(&mut bytes, &[0; 16])
            .unwrap();
        link::is_discovery(&Frame {
            number: 1,
            link_type: 101,
            at: Duration::ZERO,
            bytes: &bytes,
            wire_bytes: bytes.len(),
        })
    };
    let found: Vec<u8> = (0..=255).filter(|kind| is_discovery(*kind)).collect();
    assert_eq!(found, [130, 131, 132, 133, 134, 135, 136, 137, 143]);
}

#[test]
fn what_has_no_ports_is_judged_where_it_crosses_a_gateway() {
    let icmp = |from: [u8; 4], to: [u8; 4], kind: u8, protocol: u8| {
        let ip = PacketBuilder::ipv4(from, to, 64);
        let mut bytes = Vec::new();
        ip.icmpv4_raw(kind, 0, [0; 4]).write(&mut bytes, b"ping").unwrap();
        bytes[9] = protocol;
        bytes
    };
    const REPLY: u8 = 0;
    const UNREACHABLE: u8 = 3;
    const REDIRECT: u8 = 5;
    const REQUEST: u8 = 8;
    let (hmi, plc, other, beside) = ([10, 1, 0, 5], [10, 2, 0, 9], [10, 2, 0, 10], [10, 1, 0, 6]);
    let report = replayed(&[
        icmp(hmi, plc, REQUEST, 1),
        icmp(plc, hmi, REPLY, 1),
        icmp(hmi, other, UNREACHABLE, 1),
        icmp(hmi, plc, REQUEST, 47),
        icmp(hmi, beside, REQUEST, 47),
        // No echo is permitted to these, nor from them, and no redirect crosses at all.
        icmp(plc, hmi, REQUEST, 1),
        icmp(hmi, plc, REPLY, 1),
        icmp(hmi, other, REQUEST, 1),
        icmp(plc, hmi, REDIRECT, 1),
    ]);
    let count = |list: &std::collections::BTreeMap<String, u64>, word: &str| {
        list.iter()
            .filter(|(what, _)| what.contains(word))
            .map(|(_, count)| count)
            .sum::<u64>()
    };
    assert_eq!(count(&report.skipped, "(ICMP)"), 2, "{report:?}");
    assert_eq!(count(&report.unread, "(ICMP)"), 1, "{report:?}");
    assert_eq!(count(&report.refused, "GRE"), 1, "{report:?}");
    assert_eq!(count(&report.refused, "no flow permits an echo"), 3, "{report:?}");
    assert_eq!(
        count(&report.refused, "(ICMP), neither TCP nor UDP: no flow can"),
        1,
        "{report:?}"
    );
    assert_eq!(report.passed, 2, "{report:?}");
    // Nobody stands between these two, and nothing is known of what runs in their tunnel.
    assert_eq!(count(&report.unread, "GRE"), 1, "{report:?}");
}

#[test]
fn a_learned_flow_whose_opener_is_a_guess_says_so_and_one_that_is_told_does_not() {
    let learned = |from: &str, to: &str| {
        let mut learner = Learner::new(None);
        let bytes = tcp(from, to, "A", 1, b"x");
        learner.frame(&frame(1, RAW, &bytes));
        document::write(&learner.finish(), None, Some(KEY), &clock)
    };
    let text = learned("10.1.0.5:1025", "10.2.0.9:1502");
    assert!(text.contains("# Who opened it is a guess"), "{text}");
    let text = learned("10.2.0.9:44818", "10.1.0.5:1100");
    assert!(
        !text.contains("guess") && text.contains("service: tcp/44818"),
        "{text}"
    );
}

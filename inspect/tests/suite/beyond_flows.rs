//! What no flow can speak of: named by what it is, and judged as a gateway treats it.

use std::collections::BTreeMap;

use penstock_inspect::capture::Frames;
use penstock_inspect::learn::document;
use penstock_inspect::replay::{Replay, Report};

use crate::datagrams::packet;
use crate::learn_cases::learned;
use crate::offline::{KEY, clock, load, plans};
use crate::recording::{Recording, Step};

/// A gateway between clients in 10.1.0.0/16 and servers in 10.2.0.0/16.
pub(crate) fn plant(mode: &str, enforcement: &str) -> String {
    let address = |side: u8| match mode {
        "routed" => format!(", address: \"10.{side}.0.1/16\""),
        _ => String::new(),
    };
    format!(
        "plant: works
title: Works
approvers: {{ threshold: 1, people: {{ first: {{ key: \"{KEY}\" }} }} }}
sites: {{ works: {{ title: Works, timezone: UTC }} }}
gateways:
  gw-1: {{ site: works, mode: {mode}, interfaces: {{ eth1: {{ zone: operations{} }}, eth2: {{ zone: control{} }} }} }}
zones:
  operations: {{ title: Operations, kind: operations, networks: [10.1.0.0/16], enforcement: {enforcement} }}
  control: {{ title: Control, kind: control, networks: [10.2.0.0/16], enforcement: {enforcement} }}
assets:
  hmi: {{ zone: operations, address: 10.1.0.5 }}
  plc: {{ zone: control, address: 10.2.0.9 }}
conduits:
  polling:
    from: operations
    to: control
    flows:
      modbus: {{ source: hmi, destination: plc, service: modbus-tcp, allow: [{{ read-only: {{ units: 1 }} }}] }}
",
        address(1),
        address(2)
    )
}

pub(crate) fn polling() -> Recording {
    let mut recording = Recording::default();
    let steps = Step::asked(1, &[3, 0, 1, 0, 1], &[3, 2, 0, 1]);
    recording.connection("10.1.0.5:40000", "10.2.0.9:502", &steps);
    recording
}

/// A frame from the HMI's MAC address, which [`polling`] shows behind 10.1.0.5.
pub(crate) fn from_hmi(destination: [u8; 6], kind: [u8; 2]) -> Vec<u8> {
    [&destination[..], &[2; 6], &kind, &[0; 46]].concat()
}

const TO_ALL: [u8; 6] = [1, 0x0e, 0xcf, 0, 0, 0];
const PROFINET: [u8; 2] = [0x88, 0x92];

fn replayed(recording: &Recording, plant: &str, ignore_tags: bool) -> Report {
    let plans = plans(&load(&[plant]));
    let mut replay = Replay::new(&plans);
    if ignore_tags {
        replay = replay.ignoring_tags();
    }
    let bytes = recording.pcap();
    for frame in Frames::open(&bytes).unwrap().flatten() {
        replay.frame(&frame);
    }
    replay.finish()
}

fn names(list: &BTreeMap<String, u64>) -> Vec<String> {
    let first = |what: &String| what.split(':').next().unwrap().to_owned();
    list.keys().map(first).collect()
}

#[test]
fn frames_without_ip_are_dropped_by_a_bridged_gateway_that_enforces_and_pass_where_it_observes() {
    let mut recording = polling();
    let plc = [4; 6];
    for frame in [
        from_hmi(TO_ALL, PROFINET),
        from_hmi(plc, [0x88, 0xa4]),
        from_hmi([1, 0x80, 0xc2, 0, 0, 0x0e], [0x88, 0xcc]),
        from_hmi([2; 6], [0x88, 0xb8]),
        [&TO_ALL[..], &[6; 6], &[0x88, 0xf7], &[0; 46]].concat(),
    ] {
        recording.frame(frame);
    }
    let report = replayed(&recording, &plant("bridged", "enforce"), false);
    let dropped = ["EtherCAT (EtherType 0x88a4)", "PROFINET RT (EtherType 0x8892)"];
    assert_eq!(names(&report.refused), dropped);
    // Whose frames these are nothing tells.
    assert_eq!(names(&report.unread), ["PTP (IEEE 1588) (EtherType 0x88f7)"]);
    // What stays on its cable, or on its side.
    assert_eq!(
        names(&report.skipped),
        ["IEC 61850 GOOSE (EtherType 0x88b8)", "LLDP (EtherType 0x88cc)"]
    );
    let report = replayed(&recording, &plant("bridged", "observe"), false);
    assert_eq!(report.observed.len(), 3, "{:?}", report.observed);
    assert!(
        report.refused.is_empty() && report.unread.is_empty(),
        "{report:?}"
    );
    // A router's sides are networks of their own: what is sent to all of one stays there.
    let report = replayed(&recording, &plant("routed", "enforce"), false);
    assert_eq!(names(&report.refused), ["EtherCAT (EtherType 0x88a4)"]);
    assert_eq!(names(&report.unread), ["PTP (IEEE 1588) (EtherType 0x88f7)"]);
}

#[test]
fn ip_to_many_at_once_is_judged_by_the_side_of_its_sender() {
    let mut recording = polling();
    recording.frame(packet("10.1.0.5:47808", "10.1.255.255:47808", b"who-is").to_vec());
    recording.frame(packet("10.1.0.5:5353", "224.0.0.251:5353", b"mdns").to_vec());
    recording.frame(packet("0.0.0.0:68", "255.255.255.255:67", b"discover").to_vec());
    let report = replayed(&recording, &plant("bridged", "enforce"), false);
    assert_eq!(report.refused.values().sum::<u64>(), 1, "{:?}", report.refused);
    assert_eq!(report.unread.values().sum::<u64>(), 1, "{:?}", report.unread);
    let report = replayed(&recording, &plant("routed", "enforce"), false);
    assert!(
        report.refused.is_empty() && report.unread.is_empty(),
        "{report:?}"
    );
}

#[test]
fn tagged_packets_are_refused_by_a_bridged_gateway_unless_the_recording_alone_has_the_tags() {
    let recording = polling().tagged(10);
    let allowed = |report: &Report| {
        let treatments = report.flows.iter().flat_map(|flow| &flow.treatments);
        treatments
            .map(|treatment| {
                (
                    treatment.connection.allowed,
                    treatment.operations[0].answer.allowed,
                )
            })
            .collect::<Vec<_>>()
    };
    let report = replayed(&recording, &plant("bridged", "enforce"), false);
    assert_eq!(allowed(&report), [(false, false)]);
    assert!(
        report.flows[0].treatments[0]
            .connection
            .because
            .contains("tagged VLAN 10"),
        "{report:?}"
    );
    assert_eq!(report.enveloped.keys().collect::<Vec<_>>(), ["tagged VLAN 10"]);
    let report = replayed(&recording, &plant("bridged", "enforce"), true);
    assert_eq!(allowed(&report), [(true, true)]);
    let report = replayed(&recording, &plant("bridged", "observe"), false);
    assert!(report.flows[0].treatments[0].observed, "{report:?}");
    // A router has an interface for each VLAN.
    assert_eq!(
        allowed(&replayed(&recording, &plant("routed", "enforce"), false)),
        [(true, true)]
    );
}

#[test]
fn equal_addresses_in_two_vlans_are_two_connections() {
    let one = polling();
    let mut both = one.tagged(10);
    // The same numbers, and other bytes: in one stream they would contradict each other.
    let mut other = Recording::default();
    let steps = Step::asked(1, &[3, 0, 7, 0, 1], &[3, 2, 0, 1]);
    other.connection("10.1.0.5:40000", "10.2.0.9:502", &steps);
    let other = other.tagged(20);
    let packets = std::mem::take(&mut both.packets);
    both.packets = packets
        .into_iter()
        .zip(other.packets)
        .flat_map(|(a, b)| [a, b])
        .collect();
    let report = replayed(&both, &plant("routed", "enforce"), false);
    assert_eq!(report.flows.len(), 2);
    assert!(
        report.flows.iter().all(|flow| flow.conflicting_bytes == 0),
        "{report:?}"
    );
}

#[test]
fn a_frame_that_a_switch_has_copied_over_ip_is_read_as_if_it_was_recorded_there() {
    let plain = polling();
    // ERSPAN II: GRE with a sequence number, and a header of 8 bytes.
    let mut copied = plain.clone();
    for packet in &mut copied.packets {
        let gre = [
            &[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1][..],
            &[0x10, 0, 0, 0, 0, 0, 0, 0],
            &packet.bytes,
        ]
        .concat();
        let length = u16::try_from(20 + gre.len()).unwrap().to_be_bytes();
        let header = [
            &[0x45, 0][..],
            &length,
            &[0, 0, 0, 0, 64, 47, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2],
        ]
        .concat();
        packet.bytes = [&[4; 6][..], &[6; 6], &[8, 0], &header, &gre].concat();
    }
    let plant = plant("bridged", "enforce");
    assert_eq!(
        replayed(&copied, &plant, false).flows,
        replayed(&plain, &plant, false).flows
    );
}

#[test]
fn a_proposal_says_at_its_head_what_no_flow_can_permit_and_what_came_tagged() {
    let mut recording = polling();
    for _ in 0..3 {
        recording.frame(from_hmi(TO_ALL, PROFINET));
    }
    let packets = recording.packets.len();
    let text = document::write(&learned(&recording.pcap(), None), None, Some(KEY), &clock);
    let line = format!(
        "#   3 of {packets} packets ({} %): PROFINET RT (EtherType 0x8892)",
        300 / packets
    );
    assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    let text = document::write(
        &learned(&recording.tagged(0).pcap(), None),
        None,
        Some(KEY),
        &clock,
    );
    assert!(
        text.contains("# A BRIDGED GATEWAY DROPS frames like these") && text.contains("(VLAN 0)"),
        "{text}"
    );
    assert!(
        text.contains("PROFINET RT (EtherType 0x8892), tagged with a priority alone (VLAN 0)"),
        "{text}"
    );
    load(&[&text]);
}

#[test]
fn packets_of_more_kinds_than_are_counted_apart_are_said_to_be_just_that() {
    let mut recording = Recording::default();
    for kind in 0x9100..0x9100 + 4_100_u16 {
        recording.frame(from_hmi([2; 6], (kind + 0x1000).to_be_bytes()));
    }
    let text = document::write(&learned(&recording.pcap(), None), None, Some(KEY), &clock);
    let line =
        "# Packets left aside: 4, of further kinds than are counted apart: what they are, nothing here says.";
    assert!(text.lines().any(|found| found == line), "{text}");
    assert!(!text.contains("further connections"), "{text}");
}

#[test]
fn a_tunnel_over_udp_is_proposed_with_what_that_permits() {
    let mut recording = polling();
    recording.frame(packet("10.1.0.5:50000", "10.2.0.9:4789", &[8; 40]));
    let text = document::write(&learned(&recording.pcap(), None), None, Some(KEY), &clock);
    assert!(
        text.contains("# A tunnel (VXLAN): what is inside is not read, and this permits all of it."),
        "{text}"
    );
}

//! Recordings judged by their own time, by whose conduits are open only during grants of remote access; and those of which it is
//! not known whether a gateway stands in the way.

use std::time::Duration;

use penstock_inspect::capture::Frame;
use penstock_inspect::learn::{Learned, Learner, document};
use penstock_inspect::replay::{Plans, Replay, Report};

use crate::datagrams;
use crate::offline::{KEY, clock, load, plans};
use crate::unseen::tcp;

/// The maker's conduit is opened from 08:00 to 16:00.
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
  maker: { zone: operations, address: 10.1.0.6 }
  plc: { zone: control, address: 10.2.0.9 }
conduits:
  watch:
    from: operations
    to: control
    on_agent_loss: pass
    flows:
      polling: { source: hmi, destination: plc, service: modbus-tcp, allow: [{ read-coils: { units: 1, addresses: 0-9 } }] }
  maintenance:
    from: operations
    to: control
    only_by_grant: yes
    flows:
      reading: { source: maker, destination: plc, service: modbus-tcp, allow: [{ read-coils: { units: 1, addresses: 0-9 } }] }
      stream: { source: maker, destination: plc, service: udp/5500 }
remote_access:
  visit: { person: Carla, conduit: maintenance, reason: Firmware, from: 2026-03-01T08:00:00Z, until: 2026-03-01T16:00:00Z, approved_by: first }
";

const FROM: u64 = 1_772_352_000;
const UNTIL: u64 = FROM + 8 * 3600;

const MAKER: &str = "10.1.0.6:40000";
const PLC: &str = "10.2.0.9:502";

fn works() -> Plans {
    plans(&load(&[&PLANT.replace("KEY", KEY)]))
}

/// A datagram in raw IP, as the segments are.
fn packet(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    datagrams::packet(from, to, payload).split_off(14)
}

/// Packets at their seconds since 1970, given to `take` as frames.
fn each(packets: &[(u64, Vec<u8>)], mut take: impl FnMut(&Frame<'_>)) {
    for (number, (at, bytes)) in (1..).zip(packets) {
        take(&Frame {
            number,
            link_type: 101,
            at: Duration::from_secs(*at),
            bytes,
            wire_bytes: bytes.len(),
        });
    }
}

fn replayed(packets: &[(u64, Vec<u8>)]) -> Report {
    let plans = works();
    let mut replay = Replay::new(&plans);
    each(packets, |frame| replay.frame(frame));
    replay.finish()
}

fn learned(packets: &[(u64, Vec<u8>)]) -> (Learned, String) {
    let (plant, plans) = (load(&[&PLANT.replace("KEY", KEY)]), works());
    let mut learner = Learner::new(Some(&plans));
    each(packets, |frame| learner.frame(frame));
    let learned = learner.finish();
    let text = document::write(&learned, Some(&plant), Some(KEY), &clock);
    (learned, text)
}

/// A read of a coil by `client`.
fn read(transaction: u8, coil: u8) -> [u8; 12] {
    [0, transaction, 0, 0, 0, 6, 1, 1, 0, coil, 0, 1]
}

/// `client` connects, and reads a coil at each of these times.
fn reads(client: &str, opened: u64, times: &[u64]) -> Vec<(u64, Vec<u8>)> {
    let mut packets = vec![
        (opened, tcp(client, PLC, "S", 0, b"")),
        (opened, tcp(PLC, client, "SA", 0, b"")),
    ];
    for (nth, at) in (0_u8..).zip(times) {
        let sequence = 1 + u32::from(nth) * 12;
        packets.push((*at, tcp(client, PLC, "A", sequence, &read(nth, 0))));
    }
    packets
}

#[test]
fn what_a_grant_opens_passes_in_a_recording_of_its_time_and_in_no_other() {
    let passes = |at: u64| {
        let packets = [
            reads(MAKER, at, &[at]),
            vec![(at, packet("10.1.0.6:5500", "10.2.0.9:5500", b"x"))],
        ];
        let report = replayed(&packets.concat());
        let (flow, datagrams) = (&report.flows[0].treatments[0], &report.datagrams[0].judgements[0]);
        assert_eq!(flow.connection.allowed, datagrams.answer.allowed);
        assert_eq!(flow.over, None);
        flow.connection.allowed
    };
    assert!(!passes(FROM - 1));
    assert!(passes(FROM));
    assert!(passes(UNTIL - 1));
    assert!(!passes(UNTIL));
}

#[test]
fn a_connection_that_outlasts_its_grant_is_ended_with_it_in_a_replay() {
    let report = replayed(&reads(MAKER, UNTIL - 2, &[UNTIL - 1, UNTIL, UNTIL + 1]));
    let treatment = &report.flows[0].treatments[0];
    assert!(treatment.connection.allowed);
    assert!(
        treatment
            .over
            .as_ref()
            .is_some_and(|why| why.contains("visit (Carla")),
        "{treatment:?}"
    );
    let judged: u64 = treatment.operations.iter().map(|one| one.seen.count).sum();
    assert_eq!(judged, 1, "nothing is allowed after the end");
    // Over UDP too; one within the grant has a line of its own.
    let stream = |at| (at, packet("10.1.0.6:5500", "10.2.0.9:5500", b"x"));
    let report = replayed(&[
        stream(FROM + 1),
        stream(UNTIL - 1),
        stream(UNTIL + 5),
        stream(UNTIL + 10),
    ]);
    let allowed: Vec<(bool, u64)> = report
        .datagrams
        .iter()
        .map(|some| (some.judgements[0].answer.allowed, some.seen.count))
        .collect();
    assert_eq!(allowed, [(true, 1), (false, 3)]);
}

#[test]
fn what_grants_permit_is_not_learned_as_a_conduit_that_stands_open() {
    for at in [FROM - 9, FROM, UNTIL] {
        let packets = [
            reads(MAKER, at, &[at]),
            vec![(at, packet("10.1.0.6:5500", "10.2.0.9:5500", b"x"))],
        ];
        let (learned, text) = learned(&packets.concat());
        assert_eq!(learned.by_grant, 2);
        assert!(
            text.contains("nothing is proposed for 2 connections or conversations that only grants")
                && !text.contains("conduits:"),
            "{text}"
        );
    }
    // What gateways saw is held against the plant in the same way.
    let mut learner = Learner::new(None);
    each(&reads(MAKER, FROM - 9, &[FROM - 9]), |frame| learner.frame(frame));
    let mut seen = learner.finish();
    seen.leave_out(&works());
    assert!(seen.talks.is_empty());
    assert_eq!(seen.by_grant, 1);
}

#[test]
fn a_learned_flow_that_shares_its_connections_passes_without_the_agent_where_they_do() {
    let mut packets = reads("10.1.0.5:40000", 5, &[]);
    packets.push((6, tcp("10.1.0.5:40000", PLC, "A", 1, &read(1, 20))));
    packets.extend(reads("10.1.0.7:40000", 7, &[8]));
    let (_, text) = learned(&packets);
    assert!(
        text.contains("  learned-operations-control:\n    from: operations\n    to: control\n    flows:\n")
            && text.contains(
                "  learned-operations-control-2:\n    from: operations\n    to: control\n    on_agent_loss: pass #"
            ),
        "{text}"
    );
    // So nothing is taken away from the flow that is there.
    let plant = load(&[&PLANT.replace("KEY", KEY), &text]);
    let plans = penstock_policy::compile::compile_all(&plant).unwrap();
    let found = penstock_policy::check::check(&plant, &plans, None);
    assert!(found.iter().all(|finding| finding.code != "PC0162"), "{found:?}");
}

#[test]
fn an_address_on_no_side_of_a_gateway_is_not_told_as_crossing_none() {
    let stranger = |client: &str| {
        let report = replayed(&[
            (5, tcp(client, PLC, "S", 0, b"")),
            (6, packet(client, "10.2.0.9:5500", b"x")),
        ]);
        let found = (
            report.flows[0].treatments[0].stranger,
            report.datagrams[0].judgements[0].stranger,
        );
        assert_eq!(found.0, found.1);
        found.0
    };
    assert!(stranger("10.9.0.1:40000"));
    assert!(!stranger("10.2.0.8:40000"), "beside it");
    assert!(!stranger("10.1.0.5:40000"), "across the gateway");
}

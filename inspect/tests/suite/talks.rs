//! UDP, learned as flows that permit it and judged as the kernel would.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use penstock_inspect::capture::SkipReason;
use penstock_inspect::learn::{Ends, Learned, Learner, PortCarrier, Talk, document};
use penstock_inspect::replay::{DatagramsReport, Plans, Replay};
use proptest::prelude::*;

use crate::datagrams::{DEVICE, MANAGER, frames, packet};
use crate::offline::{KEY, clock, load, plans};

fn learned(packets: &[(u64, Vec<u8>)], plans: Option<&Plans>) -> Learned {
    let mut learner = Learner::new(plans);
    frames(packets).for_each(|frame| learner.frame(&frame));
    learner.finish()
}

fn replayed(packets: &[(u64, Vec<u8>)], plans: &Plans) -> Vec<DatagramsReport> {
    let mut replay = Replay::new(plans);
    frames(packets).for_each(|frame| replay.frame(&frame));
    replay.finish().datagrams
}

/// Where ends lie: clients in 10.1.0.0/16, servers in 10.2.0.0/16, and one that is both.
fn traffic() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
    let clients = ["10.1.0.5", "10.1.0.6", "[fd00::5]"];
    let servers = ["10.2.0.9", "10.2.0.10", "[fd01::9]"];
    let ports = prop::sample::select(vec![123_u16, 161, 162, 514, 7000, 47_808, 50_000, 60_000]);
    let family = prop::sample::select(vec![(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)]);
    let silence = prop_oneof![5 => 0..3_u64, 1 => 20..130_u64];
    let one = (silence, family, ports.clone(), ports, any::<bool>());
    prop::collection::vec(one, 1..40).prop_map(move |all| {
        let mut now = 0;
        all.into_iter()
            .map(|(silence, (client, server), from, to, turned)| {
                now += silence;
                let client = format!("{}:{from}", clients[client]);
                let server = format!("{}:{to}", servers[server]);
                let bytes = if turned {
                    packet(&server, &client, b"u")
                } else {
                    packet(&client, &server, b"u")
                };
                (now, bytes)
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn a_learned_document_permits_the_udp_that_it_was_learned_from_but_for_late_answers(packets in traffic()) {
        let first = learned(&packets, None);
        let text = document::write(&first, None, Some(KEY), &clock);
        if first.talks.is_empty() {
            return Ok(());
        }
        // Where all are clients there is no zone to cross to, and no conduit.
        let plant = load(&[&text]);
        let plans = plans(&plant);
        let (mut datagrams, mut late) = (0, 0);
        for report in replayed(&packets, &plans) {
            datagrams += report.seen.count;
            prop_assert_eq!(report.seen.count, report.datagrams.iter().sum::<u64>());
            let refused = report.judgements.iter().any(|judgement| judgement.observed || !judgement.answer.allowed);
            prop_assert!(!refused || report.late > 0, "{:?}\n{}", report, text);
            late += report.late;
        }
        prop_assert_eq!(datagrams, packets.len() as u64);
        prop_assert_eq!(late > 0, first.skipped.contains_key(&SkipReason::Late));
        // Beside that plant there is nothing more to propose.
        let again = learned(&packets, Some(&plans));
        prop_assert!(again.talks.is_empty(), "{:?}\n{}", again.talks, text);
    }
}

#[test]
fn a_talk_is_proposed_with_its_datagrams_conversations_and_times() {
    let mut packets = Vec::new();
    for at_s in [0, 40, 80] {
        packets.push((at_s, packet(MANAGER, DEVICE, b"get")));
        packets.push((at_s + 1, packet(DEVICE, MANAGER, b"value")));
    }
    packets.push((90, packet("10.2.0.9:161", "10.1.0.5:162", b"trap")));
    let text = document::write(&learned(&packets, None), None, Some(KEY), &clock);
    let flow = "      # Datagrams 6 times, from 0 s to 81 s, in 3 conversations.\n      \
                host-10-1-0-5-to-host-10-2-0-9-161:\n        source: host-10-1-0-5\n        \
                destination: host-10-2-0-9\n        service: udp/161\n";
    assert!(text.contains(flow), "{text}");
    load(&[&text]);
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
  manager: { zone: operations, address: 10.1.0.5 }
  device: { zone: control, address: 10.2.0.9 }
conduits:
  polling:
    from: operations
    to: control
    flows:
      snmp: { source: manager, destination: device, service: snmp }
";

/// The one report of a client and server.
fn report<'r>(reports: &'r [DatagramsReport], client: &str, server: &str) -> &'r DatagramsReport {
    let wanted = |report: &&DatagramsReport| report.client == client && report.server == server;
    reports
        .iter()
        .find(wanted)
        .unwrap_or_else(|| panic!("{client} {server}: {reports:#?}"))
}

#[test]
fn what_went_to_many_at_once_is_told_and_is_no_flow() {
    let packets = [
        (0, packet(MANAGER, "239.1.2.3:5000", b"")),
        (1, packet(DEVICE, "255.255.255.255:67", b"")),
    ];
    let learned = learned(&packets, None);
    assert!(learned.talks.is_empty());
    let text = document::write(&learned, None, Some(KEY), &clock);
    let told = "#   2 of 2 packets (100 %): UDP to a multicast or broadcast address\n";
    assert!(text.contains(told), "{text}");
    let plans = plans(&load(&[&PLANT.replace("KEY", KEY)]));
    let mut replay = Replay::new(&plans);
    frames(&packets).for_each(|frame| replay.frame(&frame));
    let report = replay.finish();
    assert!(report.datagrams.is_empty());
    assert_eq!(report.refused.into_values().collect::<Vec<_>>(), [2]);
}

#[test]
fn a_networks_broadcast_address_is_proposed_as_no_asset() {
    let plant = load(&[&PLANT.replace("KEY", KEY)]);
    // To one machine by the link, as a router would get it.
    let packets = [(0, packet(MANAGER, "10.2.255.255:47808", b"who is there"))];
    let text = document::write(
        &learned(&packets, Some(&plans(&plant))),
        Some(&plant),
        None,
        &clock,
    );
    assert!(!text.contains("assets:") && !text.contains("conduits:"), "{text}");
    let told = "# 10.2.255.255 lies in no zone of the plant, or is a network's broadcast address: nothing is proposed";
    assert!(text.contains(told), "{text}");
}

#[test]
fn a_controller_that_asks_for_the_time_stays_one_in_a_first_sketch() {
    let ends = |client: &str, server: &str, carrier| Ends {
        client: client.parse().unwrap(),
        server: server.parse().unwrap(),
        carrier,
    };
    let mut sketched = learned(&[(0, packet("10.2.0.9:123", "10.1.0.5:123", b"time"))], None);
    let panel = Talk::new(Duration::ZERO, None);
    sketched.add(ends("10.1.0.6", "10.2.0.9:502", PortCarrier::Tcp), panel);
    let text = document::write(&sketched, None, Some(KEY), &clock);
    for asset in [
        "host-10-1-0-6: { zone: operations, ",
        "host-10-2-0-9: { zone: control, ",
    ] {
        assert!(text.contains(asset), "{text}");
    }
}

#[test]
fn each_way_of_a_conversation_has_the_verdict_of_who_opened_it() {
    let plant = load(&[&PLANT.replace("KEY", KEY)]);
    let plans = plans(&plant);
    let packets = [
        (0, packet(MANAGER, DEVICE, b"get")),
        (1, packet(DEVICE, MANAGER, b"value")),
        (2, packet("10.1.0.6:50001", DEVICE, b"get")),
        (3, packet(DEVICE, "10.1.0.6:50001", b"value")),
        (4, packet(DEVICE, "10.1.0.5:162", b"trap")),
        (5, packet(MANAGER, "10.1.0.7:161", b"get")),
        // So long after the last that the gateway knows nothing of it any more.
        (200, packet(DEVICE, MANAGER, b"late")),
    ];
    let reports = replayed(&packets, &plans);
    let said = |client, server| {
        let report = report(&reports, client, server);
        let judgement = &report.judgements[0];
        let because = judgement.answer.because.as_str();
        (
            report.datagrams,
            judgement.gateway.is_some(),
            judgement.answer.allowed,
            because,
        )
    };
    assert_eq!(said("10.1.0.5", DEVICE), ([1, 1], true, true, "polling/snmp"));
    let closest = "no rule matches; closest is polling/snmp: source 10.1.0.6 is not manager (10.1.0.5)";
    assert_eq!(said("10.1.0.6", DEVICE), ([1, 1], true, false, closest));
    assert_eq!(
        said("10.2.0.9", "10.1.0.5:162"),
        ([1, 0], true, false, "no rule matches")
    );
    let uncrossed = "no gateway stands between the two";
    assert_eq!(said("10.1.0.5", "10.1.0.7:161"), ([1, 0], false, true, uncrossed));
    assert_eq!(
        said("10.2.0.9", MANAGER),
        ([1, 0], true, false, "no rule matches")
    );
    assert_eq!(report(&reports, "10.2.0.9", MANAGER).late, 1);

    // Beside this plant just what it lacks is proposed, and said to widen it; the late answer only counts.
    let learned = learned(&packets, Some(&plans));
    let proposed: BTreeSet<String> = learned
        .talks
        .keys()
        .map(|ends| format!("{:?} {} {}", ends.carrier, ends.client, ends.server))
        .collect();
    let expected = ["Udp 10.1.0.6 10.2.0.9:161", "Udp 10.2.0.9 10.1.0.5:162"];
    assert_eq!(proposed, BTreeSet::from(expected.map(str::to_owned)));
    assert_eq!(learned.permitted_already, 2);
    assert_eq!(learned.skipped, BTreeMap::from([(SkipReason::Late, 1)]));
    assert!(learned.talks.keys().all(|ends| ends.carrier == PortCarrier::Udp));
    let text = document::write(&learned, Some(&plant), None, &clock);
    assert!(
        text.contains("# Everything below WIDENS the existing plant"),
        "{text}"
    );
    assert!(
        text.contains("# Packets left aside: 1, UDP answers after a silence"),
        "{text}"
    );
    let together = load(&[&PLANT.replace("KEY", KEY), &text]);
    let refused: Vec<_> = replayed(&packets, &self::plans(&together))
        .into_iter()
        .filter(|report| {
            report
                .judgements
                .iter()
                .any(|judgement| !judgement.answer.allowed)
        })
        .collect();
    assert!(refused.len() == 1 && refused[0].late == 1, "{refused:#?}");
}

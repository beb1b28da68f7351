#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::enforce::logged::nflog::{Content, KernelAction, Opener, PacketShape};
use crate::observed::REPORT_AFTER;

fn packet(port: u16) -> LoggedPacket {
    let content = Content::Ip {
        source: "10.0.0.1".parse().unwrap(),
        destination: "10.0.0.2".parse().unwrap(),
        protocol: 6,
        port,
        shape: PacketShape::Plain,
    };
    LoggedPacket {
        logged: KernelAction::Deny,
        flow: 0,
        ingress: 1,
        egress: 2,
        content,
        own_port: 0,
        opener: Opener::Known,
        claim: None,
    }
}

proptest! {
    #[test]
    fn every_packet_is_counted_exactly_once_whatever_the_timing(steps in prop::collection::vec((0_u16..9, 0_u64..3000), 0..200)) {
        let mut aggregator = Aggregator::new(REPORT_AFTER);
        let (mut now, mut told) = (Instant::now(), 0);
        for (port, pause_ms) in &steps {
            now += Duration::from_millis(*pause_ms);
            aggregator.record(packet(*port), now, SystemTime::now());
            told += aggregator.due(now).iter().map(|a| a.count).sum::<u64>();
        }
        told += aggregator.all().iter().map(|a| a.count).sum::<u64>();
        prop_assert_eq!(told, steps.len() as u64);
    }
}

#[test]
fn a_long_flood_of_one_tuple_is_few_events_at_growing_distance() {
    let mut aggregator = Aggregator::new(REPORT_AFTER);
    let begin = Instant::now();
    let mut at = Vec::new();
    for tenth in 0..600_u64 {
        let now = begin + Duration::from_millis(tenth * 100);
        aggregator.record(packet(502), now, SystemTime::now());
        at.extend(aggregator.due(now).iter().map(|_| tenth / 10));
    }
    assert_eq!(at, [1, 3, 7, 15, 25, 35, 45, 55]);
}

#[test]
fn what_finds_no_room_is_counted() {
    let mut aggregator = Aggregator::new(REPORT_AFTER);
    for flow in 0..u32::try_from(TUPLES_MAX).unwrap() + 5 {
        aggregator.record(
            LoggedPacket { flow, ..packet(1) },
            Instant::now(),
            SystemTime::now(),
        );
    }
    assert_eq!(aggregator.take_overflow(), 5);
    assert_eq!(aggregator.take_overflow(), 0);
    assert_eq!(aggregator.all().len(), TUPLES_MAX);
}

#[test]
fn a_full_table_makes_room_by_what_was_told() {
    let mut aggregator = Aggregator::new(REPORT_AFTER);
    let begin = Instant::now();
    let record = |aggregator: &mut Aggregator, flow, now| {
        aggregator.record(LoggedPacket { flow, ..packet(1) }, now, SystemTime::now());
    };
    let full = u32::try_from(TUPLES_MAX).unwrap();
    for flow in 0..full {
        record(&mut aggregator, flow, begin);
    }
    let later = begin + REPORT_AFTER;
    assert_eq!(aggregator.due(later).len(), TUPLES_MAX);
    for flow in full..2 * full {
        record(&mut aggregator, flow, later);
    }
    assert_eq!(aggregator.take_overflow(), 0);
    assert_eq!(aggregator.all().len(), TUPLES_MAX);
}

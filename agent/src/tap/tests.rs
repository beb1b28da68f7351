//! What is told when, in pieces of which size, and how long reading may take.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use etherparse::PacketBuilder;
use penstock_inspect::learn::{Ends, EntryKey, EntrySeen, PortCarrier, Talk};
use penstock_inspect::replay::Occurrences;
use penstock_policy::ids::{FlowId, ZoneId};
use penstock_policy::plan::{Endpoint, Observing, PLAN_FORMAT, Plan, PlanInterface, Rule};
use penstock_policy::protocol::LimitSet;
use penstock_policy::protocol::modbus_tcp::MODBUS_TCP;
use penstock_policy::protocol::mqtt::MQTT;
use penstock_policy::terms::{
    Answers, Enforcement, GatewayMode, NumberRange, OnAgentLoss, OnDrift, OnRefusal, PortRange, Tls,
    Transport,
};
use penstock_proto::v1::LearnedEvent;
use prost::Message as _;
use tokio::time::Instant;

use super::gather::{Gather, THINGS_MAX};
use super::legs::OwnLegs;
use super::scope::TapScope;
use super::{Budget, SHARE, WINDOW, filter, trail};

const INTERVAL: Duration = Duration::from_secs(60);

fn scope() -> TapScope {
    TapScope::of(&plan())
}

fn plan() -> Plan {
    let side = |number: u8, enforcement| PlanInterface {
        name: format!("lan{number}"),
        zone: ZoneId::new(format!("zone{number}")).unwrap(),
        behind: vec![],
        routers: vec![],
        hardware: vec![],
        networks: vec![format!("10.{number}.0.0/16").parse().unwrap()],
        observing: Enforcement::into(enforcement),
    };
    Plan {
        format: PLAN_FORMAT.to_owned(),
        plant: "works".parse().unwrap(),
        gateway: "gw".parse().unwrap(),
        mode: GatewayMode::Routed,
        requires: BTreeSet::new(),
        on_drift: OnDrift::Repair,
        interfaces: vec![
            side(1, Enforcement::Observe),
            side(2, Enforcement::Observe),
            side(3, Enforcement::Enforce),
        ],
        management: None,
        rules: Vec::new(),
        bridges: Vec::new(),
        grants: std::collections::BTreeMap::new(),
        windows: None,
        interlock: None,
        break_glass: None,
        tunnels: None,
        bound: std::collections::BTreeMap::new(),
        unproven: Vec::new(),
        frames: Vec::new(),
        open: std::collections::BTreeSet::new(),
        excepted: std::collections::BTreeMap::new(),
    }
}

/// A client that polls one register after another.
struct Poller {
    gather: Gather,
    begun: Instant,
    at: Duration,
    sequence: u32,
}

impl Poller {
    fn new() -> Self {
        let begun = Instant::now();
        Self {
            gather: Gather::new((scope(), OwnLegs::of(&plan())), INTERVAL, begun),
            begun,
            at: Duration::from_secs(1_000_000),
            sequence: 100,
        }
    }

    fn reads(&mut self, register: u16) {
        let mut adu = vec![0, 1, 0, 0, 0, 6, 1, 3];
        adu.extend(register.to_be_bytes());
        adu.extend([0, 1]);
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 1, 0, 5], [10, 2, 0, 9], 64)
            .tcp(40_000, 502, self.sequence, 1000);
        let mut frame = Vec::new();
        builder.write(&mut frame, &adu).unwrap();
        self.sequence += 12;
        // Nobody answers in this test, so each request is asked only when the last may be forgotten.
        self.at += Duration::from_millis(300);
        self.gather.frame(self.at, &frame, frame.len());
    }

    /// What is told so long after the beginning: the counts of reads.
    fn told_after(&mut self, seconds: u64) -> Vec<u64> {
        let now = self.begun + Duration::from_secs(seconds);
        let events = self.gather.due(now, false);
        let modbus = events.iter().flat_map(|event| &event.modbus);
        modbus.map(|modbus| modbus.count).collect()
    }
}

#[test]
fn news_is_told_at_the_next_interval_and_mere_counts_ever_more_rarely() {
    let mut poller = Poller::new();
    poller.reads(10);
    assert!(poller.told_after(59).is_empty());
    assert_eq!(poller.told_after(60), [1]);
    // From here on the same: due after one interval, then two, then four.
    let mut told = Vec::new();
    for minute in 2..=16 {
        poller.reads(10);
        told.extend(
            poller
                .told_after(60 * minute)
                .into_iter()
                .map(|count| (minute, count)),
        );
    }
    assert_eq!(
        told,
        [(2, 1), (4, 2), (8, 4), (16, 8)],
        "nothing is lost by telling later"
    );
    poller.reads(10);
    poller.reads(11);
    assert_eq!(
        poller.told_after(60 * 17),
        [2],
        "a register that is new is told at once"
    );
}

#[test]
fn what_is_left_at_the_end_is_told() {
    let mut poller = Poller::new();
    poller.reads(10);
    let events = poller.gather.due(poller.begun, true);
    assert_eq!((events.len(), events[0].connections), (1, 1));
    assert!(poller.gather.due(poller.begun, true).is_empty());
}

/// A plan by which the TLS of clients in `lan1` ends before a server in `lan2` that speaks Modbus in the plain.
fn before_plain() -> Plan {
    let mut plan = plan();
    let end = |network: &str| Endpoint {
        name: "asset".into(),
        network: network.parse().unwrap(),
    };
    plan.rules.push(Rule {
        id: FlowId(1),
        conduit: "supply".parse().unwrap(),
        flow: "polling".parse().unwrap(),
        sources: vec![end("10.1.0.5/32")],
        destinations: vec![end("10.2.0.9/32")],
        transport: Transport::Tcp(vec![PortRange::single(802)]),
        must_flow: false,
        on_agent_loss: OnAgentLoss::Block,
        operations: None,
        roles: None,
        on_refusal: OnRefusal::Answer,
        answers: Answers::Strict,
        tls: Some(std::sync::Arc::new(Tls {
            plain_port: Some(502),
            ..Tls::default()
        })),
    });
    plan
}

#[test]
fn the_gateway_s_own_connection_to_a_server_in_the_plain_is_no_talk_and_a_client_s_beside_it_is() {
    let answer = |gather: &mut Gather, at: u64, port: u16| {
        let answer = [0, 1, 0, 0, 0, 5, 1, 3, 2, 0, 7];
        let builder = PacketBuilder::ethernet2([4; 6], [2; 6])
            .ipv4([10, 2, 0, 9], [10, 1, 0, 5], 64)
            .tcp(502, port, 1000, 1000);
        let mut frame = Vec::new();
        builder.write(&mut frame, &answer).unwrap();
        gather.frame(Duration::from_secs(at), &frame, frame.len());
    };
    // What the gateway sends, no tap sees: the server's answers alone are received.
    let talks = |plan: &Plan| {
        let mut gather = Gather::new((scope(), OwnLegs::of(plan)), INTERVAL, Instant::now());
        answer(&mut gather, 1, 51_000);
        gather.due(Instant::now(), true).len()
    };
    assert_eq!(talks(&plan()), 1, "it would be taken for somebody's");
    assert_eq!(talks(&before_plain()), 0);
    // A client that still speaks in the plain is heard, and its answers are its own.
    let mut poller = Poller::new();
    poller.gather.set_scope((scope(), OwnLegs::of(&before_plain())));
    poller.reads(7);
    answer(&mut poller.gather, 1_000_001, 40_000);
    answer(&mut poller.gather, 1_000_001, 51_000);
    let events = poller.gather.due(poller.begun, true);
    assert_eq!((events.len(), events[0].connections), (1, 1), "{events:?}");
}

#[test]
fn udp_is_left_to_the_kernels_verdicts() {
    let mut gather = Gather::new((scope(), OwnLegs::of(&plan())), INTERVAL, Instant::now());
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 1, 0, 5], [10, 2, 0, 9], 64)
        .udp(40_000, 502);
    let mut frame = Vec::new();
    builder.write(&mut frame, &[0; 12]).unwrap();
    gather.frame(Duration::from_secs(1), &frame, frame.len());
    assert!(gather.due(Instant::now(), true).is_empty());
    assert_eq!(gather.left_out(), 0);
}

#[test]
fn more_than_is_kept_is_counted() {
    let mut poller = Poller::new();
    // Registers that do not meet are one range each.
    let asked = u16::try_from(THINGS_MAX + 100).unwrap();
    for n in 0..asked {
        poller.reads(n * 2);
    }
    let events = poller.gather.due(poller.begun, true);
    let ranges: usize = events
        .iter()
        .flat_map(|event| &event.modbus)
        .map(|modbus| modbus.write.len())
        .sum();
    assert!(ranges < THINGS_MAX && ranges > THINGS_MAX - 10, "{ranges}");
    let further: u64 = events.iter().map(|event| event.further).sum();
    assert_eq!(usize::try_from(further).unwrap() + ranges, usize::from(asked));
}

#[test]
fn a_long_talk_is_told_in_several_events_of_bounded_size_that_add_up() {
    let at = Duration::from_secs(5);
    let begun = |protocol| {
        let mut talk = Talk::new(at, Some(protocol));
        talk.connections.count = 3;
        talk.further = 2;
        talk
    };
    let entry = |operation: &str, sets| {
        let key = EntryKey {
            operation: operation.to_owned(),
            ..EntryKey::default()
        };
        let seen = Occurrences::once(at);
        let sets = BTreeMap::into(sets);
        (key, EntrySeen { seen, sets })
    };
    let range = |first, last| NumberRange { first, last };
    let mut messages = begun(MQTT);
    for n in 0..300_u16 {
        let qos = LimitSet::Range(range(0, 1));
        let (mut key, seen) = entry("publish", BTreeMap::from([("qos", qos)]));
        key.texts.push(("topics", format!("{n}{}", "t".repeat(500))));
        messages.operations.insert(key, seen);
        messages.names.insert(format!("client {n}"));
    }
    let mut requests = begun(MODBUS_TCP);
    let places = (0..1000).map(|n| range(n * 2, n * 2)).collect();
    let (mut key, seen) = entry(
        "read-coils",
        BTreeMap::from([("addresses", LimitSet::Numbers(places))]),
    );
    key.numbers.push(("units", 1));
    requests.operations.insert(key, seen);
    let ends = Ends {
        client: IpAddr::from([10, 1, 0, 5]),
        server: "10.2.0.9:1883".parse().unwrap(),
        carrier: PortCarrier::Tcp,
    };
    let events = [trail::events(&ends, &messages), trail::events(&ends, &requests)];
    assert!(events.iter().flatten().all(|event| event.encoded_len() < 8192));
    for events in &events {
        let connections: u64 = events.iter().map(|event| event.connections).sum();
        let further: u64 = events.iter().map(|event| event.further).sum();
        assert_eq!((connections, further), (3, 2));
    }
    let [messages, requests] = &events;
    let sum = |of: fn(&LearnedEvent) -> usize| messages.iter().map(of).sum::<usize>();
    assert_eq!(sum(|event| event.published.len()), 300);
    assert_eq!(sum(|event| event.client_ids.len()), 300);
    let told = || requests.iter().flat_map(|event| &event.modbus);
    assert_eq!(told().map(|told| told.write.len()).sum::<usize>(), 1000);
    assert_eq!(told().map(|told| told.count).sum::<u64>(), 1);
}

#[test]
fn what_crosses_to_a_side_that_enforces_is_not_looked_at() {
    let scope = scope();
    let crosses = |one: &str, other: &str| {
        let forth = scope.crosses(one.parse().unwrap(), other.parse().unwrap());
        let back = scope.crosses(other.parse().unwrap(), one.parse().unwrap());
        assert_eq!(forth, back, "both directions alike");
        forth
    };
    assert!(crosses("10.1.0.5", "10.2.0.9"));
    assert!(!crosses("10.1.0.5", "10.1.0.9"), "one side only");
    assert!(!crosses("10.1.0.5", "10.3.0.9"), "the other enforces");
    assert!(
        crosses("10.1.0.5", "192.0.2.1"),
        "an address that nobody declared"
    );
    assert!(!crosses("10.3.0.5", "192.0.2.1"));
}

#[test]
fn of_a_side_with_zones_of_both_kinds_only_those_that_observe_are_learned_from() {
    let side = |number: u8, observing| PlanInterface {
        name: format!("lan{number}"),
        zone: ZoneId::new(format!("zone{number}")).unwrap(),
        behind: vec![ZoneId::new(format!("behind{number}")).unwrap()],
        networks: vec![format!("10.{number}.0.0/16").parse().unwrap()],
        observing,
        routers: Vec::new(),
        hardware: Vec::new(),
    };
    let half = Observing::Only(vec!["10.1.128.0/17".parse().unwrap()]);
    let scope = TapScope::of(&Plan {
        interfaces: vec![side(1, half), side(2, Observing::Everything)],
        ..plan()
    });
    assert_eq!(scope.names(), ["lan1", "lan2"]);
    let crosses = |one: &str, other: &str| scope.crosses(one.parse().unwrap(), other.parse().unwrap());
    assert!(crosses("10.1.128.5", "10.2.0.9"));
    assert!(crosses("10.2.0.9", "10.1.128.5"));
    assert!(!crosses("10.1.0.5", "10.2.0.9"), "its zone enforces");
    assert!(!crosses("10.1.0.5", "192.0.2.1"), "its zone enforces");
    assert!(crosses("10.1.128.5", "192.0.2.1"));
    assert!(
        !crosses("192.0.2.7", "192.0.2.1"),
        "may belong where it is enforced"
    );
}

#[test]
fn a_filter_jumps_only_ahead_and_within_itself_for_any_number_of_interfaces() {
    for count in [0, 1, 2, 50, filter::INTERFACES_MAX, 1000] {
        let indices: Vec<u32> = (1..=u32::try_from(count).unwrap()).collect();
        let program = filter::program(&indices);
        for (at, line) in program.iter().enumerate() {
            let furthest = match line.code {
                0x05 => usize::try_from(line.operand).unwrap(),
                _ => usize::from(line.then.max(line.otherwise)),
            };
            assert!(
                at + 1 + furthest < program.len() || line.code == 0x06,
                "{count}: {at}"
            );
        }
        assert!(program.len() < 256);
    }
}

#[test]
fn reading_rests_when_its_share_of_the_window_is_used_up() {
    let begun = Instant::now();
    let mut budget = Budget::default();
    budget.spend(begun, begun + SHARE / 2);
    assert_eq!(budget.rest_until(begun + SHARE / 2), None);
    budget.spend(begun + SHARE / 2, begun + SHARE);
    assert_eq!(budget.rest_until(begun + SHARE), Some(begun + WINDOW));
    assert_eq!(budget.rest_until(begun + WINDOW), None);
    budget.spend(begun + WINDOW, begun + WINDOW + SHARE / 2);
    assert_eq!(budget.rest_until(begun + WINDOW + SHARE / 2), None);
}

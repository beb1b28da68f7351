//! Frames that carry neither IP nor ARP: the kernel lets those cross a bridge that the plan names, as the oracle says, and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use penstock_agent::enforce::DriftState;
use penstock_agent::observed::Observation;
use penstock_lab as lab;
use penstock_policy::plan::{Capability, FrameRule, Observing, Plan};
use penstock_policy::terms::{FrameSeen, Frames, GatewayMode, MacPrefix, NumberRange};
use penstock_policy::verdict::{FrameVerdict, decide_frame};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::plans::{SIDES, plan, two_flows};
use super::random::first_seed;
use super::world::{Agent, PATIENCE, World};

const FRAMES_PER_PLAN: usize = 60;
/// PROFINET RT, GOOSE, sampled values, PTP.
const KINDS: [u16; 4] = [0x8892, 0x88b8, 0x88ba, 0x88f7];
/// Blocks of groups that are permitted; `GROUPS` are within and beside them.
const BLOCKS: [&str; 4] = [
    "01:0c:cd:01:00:00/47",
    "01:0c:cd:01:00:00/40",
    "01:0c:cd:01:00:01",
    "01:1b:19:00:00:00",
];
const GROUPS: [[u8; 6]; 5] = [
    [0x01, 0x0c, 0xcd, 0x01, 0x00, 0x00],
    [0x01, 0x0c, 0xcd, 0x01, 0x00, 0x01],
    [0x01, 0x0c, 0xcd, 0x01, 0x00, 0x02],
    [0x01, 0x0c, 0xcd, 0x01, 0x01, 0x00],
    [0x01, 0x1b, 0x19, 0x00, 0x00, 0x00],
];

/// The tags before a type, and the VLAN that they come to.
const TAGS: [(&[u8], Option<u16>); 8] = [
    (&[], Some(0)),
    (&[], Some(0)),
    (&[0x81, 0, 0xc0, 0], Some(0)),
    (&[0x81, 0, 0x80, 10], Some(10)),
    (&[0x81, 0, 0, 20], Some(20)),
    (&[0x81, 0, 0, 30], Some(30)),
    (&[0x81, 0, 0, 10, 0x81, 0, 0, 10], None),
    (&[0x88, 0xa8, 0, 10, 0x81, 0, 0, 10], None),
];

/// A frame as it is sent.
#[derive(Debug, Clone)]
struct Sent {
    ingress: String,
    /// The side whose host it is for; `None`: a group.
    to: Option<String>,
    group: [u8; 6],
    tags: usize,
    kind: u16,
    appid: u16,
}

impl Sent {
    fn bytes(&self, world: &World, from: [u8; 6], number: u64) -> Vec<u8> {
        let mut frame = [&self.destination(world)[..], &from, TAGS[self.tags].0].concat();
        frame.extend(self.kind.to_be_bytes());
        frame.extend(self.appid.to_be_bytes());
        frame.extend(marker(number));
        frame.resize(frame.len().max(64), 0);
        frame
    }

    fn destination(&self, world: &World) -> [u8; 6] {
        self.to.as_ref().map_or(self.group, |to| world.sides[to].mac)
    }

    fn seen(&self, world: &World) -> FrameSeen {
        FrameSeen {
            destination: self.destination(world),
            vlan: TAGS[self.tags].1,
            ether_type: self.kind,
            appid: Some(self.appid),
        }
    }
}

/// What tells one frame from all others.
fn marker(number: u64) -> Vec<u8> {
    [&b"penstock"[..], &number.to_be_bytes()].concat()
}

fn sides() -> impl Strategy<Value = String> {
    prop::sample::select(SIDES.to_vec()).prop_map(str::to_owned)
}

fn rules() -> impl Strategy<Value = FrameRule> {
    let ids = prop::collection::vec((0_u32..5, 0_u32..2), 1..3).prop_map(|ids| {
        let ranges = ids.into_iter().map(|(first, more)| NumberRange {
            first,
            last: first + more,
        });
        NumberRange::merged(ranges.collect())
    });
    let blocks = prop::collection::vec(prop::sample::select(BLOCKS.to_vec()), 1..3).prop_map(|blocks| {
        MacPrefix::merged(blocks.into_iter().map(|block| block.parse().unwrap()).collect())
    });
    let vlans = prop::collection::btree_set(prop::sample::select(vec![0_u16, 10, 20]), 1..3);
    (
        (sides(), sides()),
        any::<bool>(),
        prop::sample::select(KINDS.to_vec()),
        vlans,
        prop::option::of(blocks),
        prop::option::of(ids),
    )
        .prop_filter("from one side to another", |((from, to), ..)| from != to)
        .prop_map(|((from, to), both, kind, vlans, destinations, ids)| FrameRule {
            conduit: "conduit".parse().unwrap(),
            flow: "frames".parse().unwrap(),
            from: vec![from],
            to: vec![to],
            both,
            frames: Frames {
                ether_type: kind.try_into().unwrap(),
                vlans: vlans.into_iter().collect(),
                destinations,
                appids: ids.filter(|_| matches!(kind, 0x88b8 | 0x88ba)),
            },
        })
}

/// A plan with some frames permitted and some sides observing, and frames near it.
fn cases() -> impl Strategy<Value = (Plan, Vec<Sent>)> {
    let sent = (
        sides(),
        prop::option::weighted(0.3, sides()),
        prop::sample::select(GROUPS.to_vec()),
        0..TAGS.len(),
        prop::sample::select(KINDS.to_vec()),
        0_u16..6,
    )
        .prop_filter("to another side", |(ingress, to, ..)| {
            to.as_ref() != Some(ingress)
        })
        .prop_map(|(ingress, to, group, tags, kind, appid)| Sent {
            ingress,
            to,
            group,
            tags,
            kind,
            appid,
        });
    (
        prop::collection::vec(rules(), 0..5),
        prop::collection::vec(0_u8..4, 3),
        prop::collection::vec(sent, FRAMES_PER_PLAN),
    )
        .prop_map(|(rules, modes, sent)| {
            let mut plan = plan(GatewayMode::Bridged, Vec::new());
            plan.frames = (0..)
                .zip(rules)
                .map(|(number, rule)| FrameRule {
                    flow: format!("frames{number}").parse().unwrap(),
                    ..rule
                })
                .collect();
            if !plan.frames.is_empty() {
                plan.requires.insert(Capability::of(Capability::FRAMES));
            }
            for (side, mode) in plan.interfaces.iter_mut().zip(modes) {
                side.observing = match mode {
                    0 => Observing::Everything,
                    // Zones of both modes are on it, so that no frame is known to be of one that observes.
                    1 => Observing::Only(vec![side.networks[0]]),
                    _ => Observing::Nothing,
                };
            }
            (plan, sent)
        })
}

fn draw(seed: u64) -> (Plan, Vec<Sent>) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    cases().new_tree(&mut runner).unwrap().current()
}

/// Sends frames, and tells which came out by which side: waits for those that are expected, and a little for others.
fn through(
    world: &World,
    frames: &[(String, Vec<u8>)],
    first: u64,
    expected: &BTreeSet<(usize, String)>,
) -> BTreeSet<(usize, String)> {
    world.drain();
    let markers: BTreeMap<Vec<u8>, usize> = (first..).map(marker).zip(0..frames.len()).collect();
    for (ingress, frame) in frames {
        world.sides[ingress].wire.send(frame);
    }
    let (begun, mut quiet_since) = (Instant::now(), Instant::now());
    let mut passed = BTreeSet::new();
    while quiet_since.elapsed() < Duration::from_millis(20)
        || (!expected.is_subset(&passed) && begun.elapsed() < PATIENCE)
    {
        let mut heard = false;
        for (interface, side) in &world.sides {
            while let Some(caught) = side.wire.try_catch() {
                heard = true;
                let at = caught.windows(8).position(|bytes| bytes == b"penstock");
                let number = at
                    .and_then(|at| caught.get(at..at + 16))
                    .and_then(|bytes| markers.get(bytes));
                // A side hears its own frames, too.
                if let Some(number) = number
                    && frames[*number].0 != *interface
                {
                    passed.insert((*number, interface.clone()));
                }
            }
        }
        match heard {
            true => quiet_since = Instant::now(),
            false => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    passed
}

#[test]
fn a_bridged_gateway_lets_frames_other_than_ip_cross_as_the_oracle_says() {
    lab::sandbox::test(
        "frames::a_bridged_gateway_lets_frames_other_than_ip_cross_as_the_oracle_says",
        |lab| {
            let world = World::new(lab, GatewayMode::Bridged, &SIDES);
            let first = first_seed();
            println!("seeds from PENSTOCK_SEED={first}");
            let mut number = 0;
            let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
            world.at_gateway(async || {
                let agent = Agent::start();
                for seed in first..first + u64::from(Config::default().cases / 8) {
                    let (plan, sent) = draw(seed);
                    agent.apply(&plan, seed).await;
                    assert_eq!(
                        agent.enforcer.verify().await.unwrap(),
                        DriftState::None,
                        "seed {seed}"
                    );
                    let frames: Vec<_> = (number..)
                        .zip(&sent)
                        .map(|(number, sent)| {
                            let mac = world.sides[&sent.ingress].mac;
                            (sent.ingress.clone(), sent.bytes(&world, mac, number))
                        })
                        .collect();
                    let mut expected = BTreeSet::new();
                    for (index, sent) in sent.iter().enumerate() {
                        let others = SIDES.iter().filter(|side| **side != sent.ingress);
                        for egress in others.filter(|side| sent.to.as_deref().is_none_or(|to| to == **side)) {
                            let verdict = decide_frame(&plan, [&sent.ingress, egress], &sent.seen(&world));
                            let kind = match verdict {
                                FrameVerdict::Permitted(_) => "permitted".to_owned(),
                                other => format!("{other:?}"),
                            };
                            *kinds.entry(kind).or_default() += 1;
                            if verdict.passes() {
                                expected.insert((index, (*egress).to_owned()));
                            }
                        }
                    }
                    let passed = through(&world, &frames, number, &expected);
                    if let Some((index, egress)) = passed.symmetric_difference(&expected).next() {
                        panic!(
                            "seed {seed}: {:?} to {egress}: the kernel {}; {:#?} {:#?}",
                            sent[*index],
                            if passed.contains(&(*index, egress.clone())) {
                                "let it through"
                            } else {
                                "dropped it"
                            },
                            plan.frames,
                            plan.interfaces
                                .iter()
                                .map(|side| &side.observing)
                                .collect::<Vec<_>>(),
                        );
                    }
                    number += sent.len() as u64;
                }
            });
            println!("{kinds:?}");
            for kind in ["permitted", "Observed", "Refused"] {
                assert!(
                    kinds.get(kind).is_some_and(|count| *count > 30),
                    "{kind}: {kinds:?}"
                );
            }
        },
    )
    .unwrap();
}

/// PROFINET RT between the first two sides, both ways, and GOOSE of two applications from the first to the second.
fn permitting(mut plan: Plan) -> Plan {
    let frames = |flow: &str, kind: u16, both| FrameRule {
        conduit: "cell".parse().unwrap(),
        flow: flow.parse().unwrap(),
        from: vec!["lan1".to_owned()],
        to: vec!["lan2".to_owned()],
        both,
        frames: Frames {
            ether_type: kind.try_into().unwrap(),
            vlans: vec![0],
            destinations: None,
            appids: None,
        },
    };
    let mut goose = frames("goose", 0x88b8, false);
    goose.frames.vlans = vec![10];
    goose.frames.destinations = Some(vec!["01:0c:cd:01:00:00/40".parse().unwrap()]);
    goose.frames.appids = Some(vec![NumberRange { first: 1, last: 2 }]);
    plan.frames = vec![goose, frames("profinet", 0x8892, true)];
    plan.requires.insert(Capability::of(Capability::FRAMES));
    plan
}

fn profinet(ingress: &str, to: &str) -> Sent {
    Sent {
        ingress: ingress.to_owned(),
        to: Some(to.to_owned()),
        group: GROUPS[0],
        tags: 0,
        kind: 0x8892,
        appid: 0x8000,
    }
}

/// Whether a frame comes out by its side.
fn crosses(world: &World, sent: &Sent, from: [u8; 6], number: u64, expected: bool) -> bool {
    let frames = [(sent.ingress.clone(), sent.bytes(world, from, number))];
    let to = sent.to.clone().unwrap_or_else(|| "lan2".to_owned());
    let wanted = expected.then(|| (0, to.clone())).into_iter().collect();
    through(world, &frames, number, &wanted).contains(&(0, to))
}

#[test]
fn what_is_permitted_beside_ip_crosses_until_it_is_taken_back_and_what_is_not_is_named() {
    lab::sandbox::test(
        "frames::what_is_permitted_beside_ip_crosses_until_it_is_taken_back_and_what_is_not_is_named",
        |lab| {
            let world = World::new(lab, GatewayMode::Bridged, &SIDES);
            world.at_gateway(async || {
                let mut agent = Agent::start();
                let without = two_flows(GatewayMode::Bridged);
                let with = permitting(without.clone());
                let mac = |side: &str| world.sides[side].mac;
                agent.apply(&without, 1).await;
                assert!(!crosses(&world, &profinet("lan1", "lan2"), mac("lan1"), 1, false));
                agent.apply(&with, 2).await;
                let denied = agent.enforcer.counters().await.unwrap().denied_packets;
                assert!(crosses(&world, &profinet("lan1", "lan2"), mac("lan1"), 2, true));
                assert!(crosses(&world, &profinet("lan2", "lan1"), mac("lan2"), 3, true), "and back");
                let priority = Sent {
                    tags: 2,
                    ..profinet("lan1", "lan2")
                };
                assert!(crosses(&world, &priority, mac("lan1"), 4, true), "with a priority alone");
                assert_eq!(agent.enforcer.counters().await.unwrap().denied_packets, denied);
                assert!(!crosses(&world, &profinet("lan1", "lan3"), mac("lan1"), 5, false), "to others");
                assert!(!crosses(&world, &profinet("lan3", "lan1"), mac("lan3"), 6, false), "from others");
                // An IP packet in a tag has no EtherType that could be permitted.
                let ip = Sent {
                    tags: 3,
                    kind: 0x0800,
                    ..profinet("lan1", "lan2")
                };
                assert!(!crosses(&world, &ip, mac("lan1"), 7, false));
                let seen = agent
                    .observe_until(|o| matches!(o, Observation::Verdict(v) if v.ingress == "lan3" && v.reason.contains("0x8892")))
                    .await;
                assert!(!seen.is_empty());
                // The sender of what is permitted is bound to its side, like an end of a flow.
                assert!(!crosses(&world, &profinet("lan1", "lan2"), mac("lan2"), 8, false), "another's address");
                agent.apply(&without, 3).await;
                assert!(!crosses(&world, &profinet("lan1", "lan2"), mac("lan1"), 9, false), "taken back");
                assert!(!crosses(&world, &profinet("lan2", "lan1"), mac("lan2"), 10, false), "taken back");
            });
        },
    )
    .unwrap();
}

/// As at a standby, which sees copies of what others carry across.
#[test]
fn a_frame_that_does_not_cross_says_nothing_of_where_its_sender_is() {
    lab::sandbox::test(
        "frames::a_frame_that_does_not_cross_says_nothing_of_where_its_sender_is",
        |lab| {
            let world = World::new(lab, GatewayMode::Bridged, &SIDES);
            world.at_gateway(async || {
                let agent = Agent::start();
                agent.apply(&permitting(two_flows(GatewayMode::Bridged)), 1).await;
                let mac = |side: &str| world.sides[side].mac;
                assert!(crosses(&world, &profinet("lan1", "lan2"), mac("lan1"), 1, true));
                let moving = [0x02, 0, 0, 0, 0, 0x99];
                assert!(
                    !crosses(&world, &profinet("lan1", "lan1"), moving, 2, false),
                    "it stays"
                );
                assert!(
                    crosses(&world, &profinet("lan2", "lan1"), moving, 3, true),
                    "it comes from there"
                );
                assert!(
                    !crosses(&world, &profinet("lan1", "lan2"), moving, 4, false),
                    "and is bound by that"
                );
            });
        },
    )
    .unwrap();
}

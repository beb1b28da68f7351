//! What reading recordings of UDP takes for granted of a gateway's kernel (`inspect/capture/conversations`).

use std::time::{Duration, Instant};

use penstock::lab;
use penstock_inspect::capture::conversations::{STREAM, STREAM_AFTER, UNREPLIED};
use penstock_policy::model::GatewayMode;
use penstock_policy::verdict::Carried;

use super::plans::{SIDES, two_flows};
use super::wire::{Part, Probe};
use super::world::{Agent, World};

const MODES: [GatewayMode; 2] = [GatewayMode::Routed, GatewayMode::Bridged];

fn probe(source: &str, destination: &str) -> Probe {
    Probe {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        transport: Carried::Udp(4050),
        number: 5000,
        dscp: 0,
    }
}

/// How long the only entry for UDP stands if nothing more comes, by this thread's namespace.
fn stands_for() -> Duration {
    let table = std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap();
    let entries: Vec<&str> = table.lines().filter(|line| line.contains(" udp ")).collect();
    assert_eq!(entries.len(), 1, "{table}");
    let seconds = entries[0].split_whitespace().nth(4).unwrap();
    Duration::from_secs(seconds.parse().unwrap())
}

#[test]
fn a_conversation_stands_as_long_as_recordings_are_read() {
    lab::sandbox::test(
        "udp::a_conversation_stands_as_long_as_recordings_are_read",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode, &SIDES);
                world.at_gateway(async || {
                    let agent = Agent::start();
                    agent.apply(&two_flows(mode), 1).await;
                    let begun = Instant::now();
                    let rest = Duration::from_millis(300);
                    let packet = probe("10.1.0.6", "10.2.0.9");
                    for (after, part, expected) in [
                        (Duration::ZERO, Part::Opening, UNREPLIED),
                        (rest, Part::Answer, UNREPLIED),
                        // It was answered, and is young yet.
                        (rest * 2, Part::Data, UNREPLIED),
                        (STREAM_AFTER + rest, Part::Data, STREAM),
                    ] {
                        std::thread::sleep(after.saturating_sub(begun.elapsed()));
                        assert!(
                            world.passes("lan1", "lan2", &packet, part, true),
                            "{mode:?} {part:?}"
                        );
                        let stands = stands_for();
                        let a_little_before = expected - Duration::from_secs(5);
                        assert!(
                            a_little_before < stands && stands <= expected,
                            "{mode:?} {part:?} after {after:?}: {stands:?}"
                        );
                    }
                });
            }
        },
    )
    .unwrap();
}

#[test]
fn what_goes_to_many_at_once_crosses_no_gateway_that_enforces() {
    lab::sandbox::test(
        "udp::what_goes_to_many_at_once_crosses_no_gateway_that_enforces",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode, &SIDES);
                world.at_gateway(async || {
                    let agent = Agent::start();
                    agent.apply(&two_flows(mode), 1).await;
                    for group in ["239.1.2.3", "224.0.0.251", "255.255.255.255"] {
                        let packet = probe("10.1.0.6", group);
                        assert!(
                            !world.passes("lan1", "lan2", &packet, Part::Opening, false),
                            "{mode:?} {group}"
                        );
                    }
                    let one = probe("10.1.0.6", "10.2.0.9");
                    assert!(
                        world.passes("lan1", "lan2", &one, Part::Opening, true),
                        "{mode:?}"
                    );
                });
            }
        },
    )
    .unwrap();
}

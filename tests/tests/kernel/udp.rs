//! What reading recordings of UDP takes for granted of a gateway's kernel (`inspect/capture/conversations`).

use std::time::{Duration, Instant};

use penstock_inspect::capture::conversations::{STREAM, STREAM_AFTER, UNREPLIED};
use penstock_policy::verdict::Carried;

use super::plans::two_flows;
use super::wire::{Part, Probe};
use super::world::at_each_gateway;

fn probe(source: &str, destination: &str) -> Probe {
    Probe {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        transport: Carried::Udp(4050),
        number: 5000,
        dscp: 0,
    }
}

/// How far a figure of the kernel's may be off.
const A_LITTLE: Duration = Duration::from_secs(5);

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
    at_each_gateway(
        "udp::a_conversation_stands_as_long_as_recordings_are_read",
        async |mode, world, agent| {
            agent.apply(&two_flows(mode), 1).await;
            let packet = probe("10.1.0.6", "10.2.0.9");
            let stands_after = |part| {
                assert!(
                    world.passes("lan1", "lan2", &packet, part, true),
                    "{mode:?} {part:?}"
                );
                let stands = stands_for();
                // A little is over when it is read.
                [UNREPLIED, STREAM]
                    .into_iter()
                    .find(|whole| (*whole - A_LITTLE..=*whole).contains(&stands))
                    .unwrap_or(stands)
            };
            let before = Instant::now();
            assert_eq!(stands_after(Part::Opening), UNREPLIED, "{mode:?}");
            let begun = Instant::now();
            assert_eq!(stands_after(Part::Answer), UNREPLIED, "{mode:?}: answered");
            let stands = stands_after(Part::Data);
            // On a machine that stood still meanwhile it says nothing.
            if before.elapsed() < STREAM_AFTER {
                assert_eq!(stands, UNREPLIED, "{mode:?}: it is young yet");
            }
            std::thread::sleep((STREAM_AFTER + A_LITTLE / 10).saturating_sub(begun.elapsed()));
            assert_eq!(stands_after(Part::Data), STREAM, "{mode:?}");
        },
    );
}

#[test]
fn what_goes_to_many_at_once_crosses_no_gateway_that_enforces() {
    at_each_gateway(
        "udp::what_goes_to_many_at_once_crosses_no_gateway_that_enforces",
        async |mode, world, agent| {
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
        },
    );
}

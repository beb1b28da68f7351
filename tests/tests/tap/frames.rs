//! Single frames at the tap: which it reads, which it leaves, what it does when some are missing or too many come, and
//! that it sends none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use penstock_proto::v1::audit_event::Kind;

use super::tapped::{Client, PATIENCE, Tapped, V4, V6, framed, plan, read, test};
use super::wire::ip;

#[test]
fn frames_with_and_without_tags_in_both_families_are_read_and_nothing_is_ever_sent() {
    test(
        "frames::frames_with_and_without_tags_in_both_families_are_read_and_nothing_is_ever_sent",
        async |sides| {
            let tapped = Tapped::start(sides, &[1, 2]);
            tapped.hears(true).await;
            let mut number = 0;
            let v6 = ("fd00:1::5", "fd00:2::9");
            for (kind, (from, to)) in [
                (V4, ("10.1.0.5", "10.2.0.9")),
                (V6, v6),
                (&[0x81, 0, 0, 5, 0x08, 0], ("10.1.0.6", "10.2.0.9")),
                (&[0x81, 0, 0xe0, 0, 0x86, 0xdd], ("fd00:1::6", "fd00:2::9")),
                (
                    &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x08, 0],
                    ("10.1.0.7", "10.2.0.9"),
                ),
                (
                    &[0x81, 0, 0, 5, 0x81, 0, 0, 6, 0x86, 0xdd],
                    ("fd00:1::7", "fd00:2::9"),
                ),
            ] {
                let mut client = Client::new(from, to, 502);
                number += 10;
                for packet in [client.syn(), client.data(&read(number, number))] {
                    sides.wires[0].send(&framed(kind, &packet));
                }
            }
            // IPv6 with a hop-by-hop header in front of TCP.
            let mut client = Client::new("fd00:1::8", "fd00:2::9", 502);
            for packet in [client.syn(), client.data(&read(70, 70))] {
                let tcp = [&[6, 0, 1, 4, 0, 0, 0, 0], &packet[40..]].concat();
                let packet = ip(client.from, client.to, 0, 0, &tcp);
                sides.wires[0].send(&framed(V6, &packet));
            }
            tapped.wait_for([10, 20, 30, 40, 50, 60, 70]).await;
            let connections: u64 = tapped.learned().await.iter().map(|event| event.connections).sum();
            assert_eq!(connections, 7);
            tapped.end().await;
            assert_eq!(sides.came_out(), 0, "the tap sends nothing");
        },
    );
}

#[test]
fn only_what_crosses_between_observing_sides_is_learned_and_only_while_they_observe() {
    test(
        "frames::only_what_crosses_between_observing_sides_is_learned_and_only_while_they_observe",
        async |sides| {
            let tapped = Tapped::start(sides, &[1, 2]);
            tapped.hears(true).await;
            let send = |side: usize, from: &str, to: &str, port: u16, register: u16| {
                let mut client = Client::new(from, to, port);
                for packet in [client.syn(), client.data(&read(register, register))] {
                    sides.wires[side].send(&framed(V4, &packet));
                }
            };
            send(0, "10.1.0.5", "10.2.0.9", 502, 100);
            send(0, "10.1.0.5", "10.2.0.9", 503, 200); // A port of nothing that is read.
            send(0, "10.1.0.5", "10.3.0.9", 502, 300); // To a side that enforces.
            send(2, "10.3.0.5", "10.2.0.9", 502, 400); // On a side that enforces: not even looked at.
            send(0, "10.1.0.5", "10.1.0.9", 502, 500); // Crosses nothing.
            tapped.wait_for([100]).await;
            // The zone of lan1 begins to enforce.
            tapped.policy.send_modify(|view| view.plan = plan(&[2]));
            tokio::time::sleep(Duration::from_millis(300)).await;
            send(0, "10.1.0.5", "10.2.0.9", 502, 600);
            tokio::time::sleep(Duration::from_millis(1500)).await;
            // Nobody observes any more; then both do again.
            tapped.policy.send_modify(|view| view.plan = plan(&[]));
            tapped.hears(false).await;
            send(0, "10.1.0.5", "10.2.0.9", 502, 700);
            tapped.policy.send_modify(|view| view.plan = plan(&[1, 2]));
            tapped.hears(true).await;
            send(0, "10.1.0.5", "10.2.0.9", 502, 800);
            tapped.wait_for([100, 800]).await;
            assert!(tapped.faults.borrow().is_empty());
            tapped.end().await;
        },
    );
}

#[test]
fn from_a_stream_with_holes_nothing_is_learned_that_was_not_asked() {
    test(
        "frames::from_a_stream_with_holes_nothing_is_learned_that_was_not_asked",
        async |sides| {
            let tapped = Tapped::start(sides, &[1, 2]);
            tapped.hears(true).await;
            let asked: BTreeSet<u32> = (1..=600).map(|n| n * 100).collect();
            let in_order: Vec<u32> = asked.iter().copied().collect();
            let mut seed = 42_u32;
            let mut random = |below: u32| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 8) % below
            };
            for (turn, registers) in in_order.chunks(30).enumerate() {
                let mut client = Client::new(&format!("10.1.1.{turn}"), "10.2.0.9", 502);
                sides.wires[0].send(&framed(V4, &client.syn()));
                let stream: Vec<u8> = registers
                    .iter()
                    .enumerate()
                    .flat_map(|(n, register)| read(n as u16, *register as u16))
                    .collect();
                // Cut anywhere, mostly within a request; every fourth segment is lost.
                let mut rest = &stream[..];
                while !rest.is_empty() {
                    let (now, after) = rest.split_at((1 + random(40) as usize).min(rest.len()));
                    let segment = client.data(now);
                    if random(4) != 0 {
                        sides.wires[0].send(&framed(V4, &segment));
                    }
                    // The server had all of it: what the tap lacks by now it will never see.
                    sides.wires[1].send(&framed(V4, &client.acknowledged()));
                    rest = after;
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            let enough = async {
                while tapped.registers().await.len() <= 50 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(PATIENCE, enough).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2500)).await;
            let learned = tapped.registers().await;
            tapped.end().await;
            assert!(learned.is_subset(&asked), "{:?}", learned.difference(&asked));
        },
    );
}

#[test]
fn a_flood_is_bounded_in_memory_and_its_losses_are_told() {
    test(
        "frames::a_flood_is_bounded_in_memory_and_its_losses_are_told",
        async |sides| {
            let tapped = Tapped::start(sides, &[1, 2]);
            tapped.hears(true).await;
            // The trail's own queue and database have what they need.
            tokio::time::sleep(Duration::from_millis(1200)).await;
            let before = penstock_agent::health::resident_bytes();
            // Every client new, every register new, every packet the beginning of something that never ends.
            for n in 0..60_000_u32 {
                let [_, _, middle, low] = n.to_be_bytes();
                let port = if n % 2 == 0 { 502 } else { 1883 };
                let mut client = Client::new(&format!("10.1.{middle}.{low}"), "10.2.0.9", port);
                let mut payload = read(n as u16, n as u16);
                payload.extend([0, 9, 0, 0, 0, 200, 1, 3]);
                payload.extend([0xab; 100]);
                sides.wires[0].send(&framed(V4, &client.data(&payload)));
                if n % 500 == 499 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let grown = penstock_agent::health::resident_bytes().saturating_sub(before);
            println!("60,000 packets of as many clients: {grown} bytes more resident");
            // What the trail's own queue and database take is in this, too.
            assert!(grown < 4 << 20, "{grown}");
            let lost: u64 = tapped
                .trail()
                .await
                .into_iter()
                .map(|kind| match kind {
                    Kind::Loss(loss) if loss.cause == "tap-overrun" => loss.events,
                    _ => 0,
                })
                .sum();
            assert!(lost > 1000, "{lost}");
            // A quiet plant is learned again once the flood's connections have been silent for a while; and at once
            // by a connection that is followed already.
            assert!(!tapped.learned().await.is_empty());
            tapped.end().await;
            assert_eq!(sides.came_out(), 0);
        },
    );
}

#[test]
fn without_the_right_to_packet_sockets_the_agent_goes_on_and_says_so() {
    test(
        "frames::without_the_right_to_packet_sockets_the_agent_goes_on_and_says_so",
        async |sides| {
            let all = rustix::thread::capabilities(None).unwrap();
            let raw = rustix::thread::CapabilitySet::NET_RAW;
            let without = rustix::thread::CapabilitySets {
                effective: all.effective - raw,
                ..all
            };
            rustix::thread::set_capabilities(None, without).unwrap();
            let mut tapped = Tapped::start(sides, &[1, 2]);
            assert_eq!(tapped.fault().await.code, "tap-not-permitted");
            // With the right it begins by itself, and the fault goes.
            rustix::thread::set_capabilities(None, all).unwrap();
            tapped.no_fault().await;
            let mut client = Client::new("10.1.0.5", "10.2.0.9", 502);
            for packet in [client.syn(), client.data(&read(1, 100))] {
                sides.wires[0].send(&framed(V4, &packet));
            }
            tapped.wait_for([100]).await;
            let steps: BTreeMap<String, usize> =
                tapped
                    .trail()
                    .await
                    .into_iter()
                    .fold(BTreeMap::new(), |mut steps, kind| {
                        if let Kind::Agent(event) = kind {
                            *steps.entry(event.step).or_default() += 1;
                        }
                        steps
                    });
            assert_eq!(steps.get("not-learning"), Some(&1), "said once: {steps:?}");
            tapped.end().await;
        },
    );
}

#[test]
fn an_observing_interface_that_is_no_ethernet_link_is_told_and_the_others_are_read() {
    test(
        "frames::an_observing_interface_that_is_no_ethernet_link_is_told_and_the_others_are_read",
        async |sides| {
            let mut tapped = Tapped::start(sides, &[1, 2]);
            let with_another = plan(&[1, 2, 3]).map(|plan| {
                let mut plan = Arc::unwrap_or_clone(plan);
                plan.interfaces[2].name = "lo".to_owned();
                Arc::new(plan)
            });
            tapped.policy.send_modify(|view| view.plan = with_another);
            let fault = tapped.fault().await;
            assert_eq!(fault.code, "tap-not-ethernet");
            assert!(
                fault.message.contains("come in by lo are not"),
                "{}",
                fault.message
            );
            let mut client = Client::new("10.1.0.5", "10.2.0.9", 502);
            for packet in [client.syn(), client.data(&read(1, 100))] {
                sides.wires[0].send(&framed(V4, &packet));
            }
            tapped.wait_for([100]).await;
            tapped.policy.send_modify(|view| view.plan = plan(&[1, 2]));
            tapped.no_fault().await;
            tapped.end().await;
        },
    );
}

//! Not a packet of what runs is lost while policies, zones' modes and agents change.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use penstock_agent::enforce::nft::run::Nft;
use penstock_agent::enforce::{ApplyMethod, EnforceSettings};
use penstock_lab as lab;
use penstock_policy::terms::GatewayMode;
use penstock_policy::verdict::Carried;

use super::plans::{SIDES, observing, two_flows};
use super::turned::{running, started_long_ago, talk};
use super::wire::{Part, Probe};
use super::world::{Agent, MODES, PATIENCE, World, at_each_gateway, settings};

/// What becomes of packets that no flow permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undeclared {
    /// They are sent too, and none may arrive.
    Refused,
    /// Zones observe for some of the time, so that they would arrive: none is sent.
    Unsent,
}

/// Sends the packets of [`running`] from both ends for as long as the agents in `changes` do theirs, from the moment that they ask
/// for it; all must arrive.
pub fn loses_nothing_while(
    name: &str,
    undeclared: Undeclared,
    changes: impl AsyncFn(GatewayMode, &AtomicBool) + Sync,
) {
    lab::sandbox::test(name, |lab| {
        for mode in MODES {
            let world = World::new(lab, mode, &SIDES);
            let (go, stop) = (AtomicBool::new(false), AtomicBool::new(false));
            let (sent, mut caught) = std::thread::scope(|scope| {
                let traffic = scope.spawn(|| {
                    let parts = [("lan2", Part::Push), ("lan1", Part::Data)];
                    let frames: Vec<_> = parts
                        .iter()
                        .flat_map(|(from, part)| {
                            running().map(|probe| (*from, world.frame("lan1", "lan2", &probe, *part)))
                        })
                        .collect();
                    let refused = world.frame("lan1", "lan2", &UNDECLARED, Part::Data);
                    let (mut sent, mut caught) = (0, Vec::new());
                    while !stop.load(Relaxed) {
                        std::thread::sleep(Duration::from_micros(200));
                        if !go.load(Relaxed) {
                            continue;
                        }
                        for (from, frame) in &frames {
                            world.sides[*from].wire.send(frame);
                            sent += 1;
                        }
                        if undeclared == Undeclared::Refused {
                            world.sides["lan1"].wire.send(&refused);
                        }
                        caught.extend(arrived(&world));
                    }
                    (sent, caught)
                });
                let changed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    world.at_gateway(async || {
                        let agent = Agent::start();
                        agent.apply(&observing(two_flows(mode), &SIDES), 1).await;
                        started_long_ago().await;
                        for probe in running() {
                            talk(&world, &probe);
                        }
                        world.drain();
                        drop(agent);
                        changes(mode, &go).await;
                    });
                }));
                stop.store(true, Relaxed);
                let result = traffic.join().unwrap();
                changed.unwrap();
                result
            });
            let patience = Instant::now() + PATIENCE;
            while caught.len() < sent && Instant::now() < patience {
                caught.extend(arrived(&world));
            }
            let passed = caught.iter().find(|frame| is_undeclared(frame));
            assert_eq!(passed, None, "{mode:?}: an undeclared packet passed");
            assert_eq!(caught.len(), sent, "{mode:?}: packets were lost");
            assert!(sent > 500, "{mode:?}: {sent}");
        }
    })
    .unwrap();
}

#[test]
fn not_a_packet_of_a_running_flow_is_lost_while_its_zones_begin_to_enforce() {
    loses_nothing_while(
        "losses::not_a_packet_of_a_running_flow_is_lost_while_its_zones_begin_to_enforce",
        Undeclared::Unsent,
        async |mode, go| {
            let agent = Agent::start();
            let plan = two_flows(mode);
            agent.apply(&observing(plan.clone(), &SIDES), 1).await;
            go.store(true, Relaxed);
            for round in 1..20 {
                agent.apply(&plan, 2 * round).await;
                agent.apply(&observing(plan.clone(), &SIDES), 2 * round + 1).await;
            }
            agent.apply(&plan, 100).await;
        },
    );
}

#[test]
fn not_a_packet_of_a_running_flow_is_lost_while_another_version_of_the_agent_replaces_the_tables() {
    loses_nothing_while(
        "losses::not_a_packet_of_a_running_flow_is_lost_while_another_version_of_the_agent_replaces_the_tables",
        Undeclared::Unsent,
        async |mode, go| {
            go.store(true, Relaxed);
            for round in 1..12 {
                // Another log group stands for other rules.
                let log_group = 86 + u16::try_from(round % 2).unwrap();
                let agent = Agent::start_with(EnforceSettings {
                    log_group,
                    ..settings()
                });
                let change = agent.apply(&two_flows(mode), round).await.change;
                assert_eq!(change, ApplyMethod::Whole, "{mode:?}");
            }
        },
    );
}

/// Such a flow was refused from the moment in which the new tables judged until the agent said for how long its grant still lasts.
#[test]
fn not_a_packet_of_a_flow_whose_grant_lasts_is_lost_while_its_tables_are_replaced_or_it_comes_to_hang_on_one()
{
    loses_nothing_while(
        "losses::not_a_packet_of_a_flow_whose_grant_lasts_is_lost_while_its_tables_are_replaced_or_it_comes_to_hang_on_one",
        Undeclared::Unsent,
        async |mode, go| {
            let open = super::granted::granted(two_flows(mode), 2, true);
            go.store(true, Relaxed);
            for round in 1..8 {
                let agent = Agent::start_with(EnforceSettings {
                    log_group: 86 + u16::try_from(round % 2).unwrap(),
                    ..settings()
                });
                let change = agent.apply(&open, 2 * round).await.change;
                assert_eq!(change, ApplyMethod::Whole, "{mode:?}");
                let change = agent.apply(&two_flows(mode), 2 * round + 1).await.change;
                assert_eq!(change, ApplyMethod::Restructured, "{mode:?}");
                let change = agent.apply(&open, 2 * round + 1).await.change;
                assert_eq!(change, ApplyMethod::Restructured, "{mode:?}");
            }
        },
    );
}

#[test]
fn not_a_packet_is_lost_at_the_replacing_of_tables_while_other_rules_take_their_time_between_theirs() {
    loses_nothing_while(
        "losses::not_a_packet_is_lost_at_the_replacing_of_tables_while_other_rules_take_their_time_between_theirs",
        Undeclared::Refused,
        async |mode, go| {
            let of_version = |log_group| EnforceSettings {
                log_group,
                ..EnforceSettings::default()
            };
            let agent = Agent::start_with(of_version(86));
            agent.apply(&two_flows(mode), 1).await;
            drop(agent);
            // Of chains of one priority the kernel runs the newest first: this one comes between what was there and what takes its place.
            let slow = format!(
                "table inet slow {{
                   chain forward {{ type filter hook forward priority filter; policy accept;
                   {rules}
                   }}
                 }}\n",
                rules = "meta mark 0x12345678 counter\n".repeat(30_000),
            );
            Nft::new("nft".into()).load(&slow).await.unwrap();
            go.store(true, Relaxed);
            for round in 0..10 {
                let agent = Agent::start_with(of_version(87 + round % 2));
                let change = agent.apply(&two_flows(mode), 2 + u64::from(round)).await.change;
                assert_eq!(change, ApplyMethod::Whole, "{mode:?}");
            }
        },
    );
}

#[test]
fn tables_that_a_killed_agent_left_beside_its_own_are_taken_away() {
    at_each_gateway(
        "losses::tables_that_a_killed_agent_left_beside_its_own_are_taken_away",
        async |mode, world, agent| {
            agent.apply(&two_flows(mode), 1).await;
            drop(agent);
            let left = "table inet penstock_beside {
                          chain forward { type filter hook forward priority filter; policy drop; }
                        }\n";
            Nft::new("nft".into()).load(left).await.unwrap();
            let agent = Agent::start_with(EnforceSettings {
                log_group: 87,
                ..settings()
            });
            agent.apply(&two_flows(mode), 1).await;
            for probe in running() {
                talk(world, &probe);
            }
            let tables = world.gateway.run("nft", &["list", "tables"]).unwrap();
            assert!(!tables.contains("penstock_beside"), "{mode:?} {tables}");
        },
    );
}

/// A datagram that no flow permits: of [`two_flows`]' client, to a port beside those of the flow.
const UNDECLARED: Probe = Probe {
    source: IpAddr::V4(Ipv4Addr::new(10, 1, 0, 6)),
    destination: IpAddr::V4(Ipv4Addr::new(10, 2, 0, 9)),
    transport: Carried::Udp(5000),
    number: 5000,
    dscp: 0,
};

/// Whether a frame carries [`UNDECLARED`], by its destination port.
fn is_undeclared(frame: &[u8]) -> bool {
    frame[12..14] == [0x08, 0] && frame[36..38] == 5000u16.to_be_bytes()
}

/// The packets of [`running`] that came out at their ends since the last look.
fn arrived(world: &World) -> Vec<Vec<u8>> {
    let protocol = |frame: &[u8]| match frame[12..14] {
        [0x08, 0] => frame[23],
        [0x86, 0xdd] => frame[20],
        _ => 0,
    };
    let mut all = Vec::new();
    for side in ["lan1", "lan2"] {
        while let Some(frame) = world.sides[side].wire.try_catch() {
            if matches!(protocol(&frame), 6 | 17) {
                all.push(frame);
            }
        }
    }
    all
}

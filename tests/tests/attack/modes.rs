//! Undeclared traffic where one side of the gateway has zones that observe and zones that enforce: each pair of zones has its
//! own mode, whatever lies beside them.

use penstock_policy::plan::{Observing, Plan};
use penstock_policy::terms::GatewayMode;
use penstock_policy::verdict::Carried;

use super::icmp::message;
use super::plans::two_flows;
use super::table::{Attempt, Must, attempt, carried, hold};
use super::wire::{Part, Probe, set_dscp};
use super::world::{World, at_each_gateway};

/// Of `lan1`, the lower half of each network observes and the upper one enforces; all of `lan2` observes; `lan3` enforces.
fn mixed(mode: GatewayMode) -> Plan {
    let mut plan = two_flows(mode);
    let lower = ["10.1.0.0/25", "fd00:1::/65"].map(|network| network.parse().unwrap());
    plan.interfaces[0].behind = vec!["adopted".parse().unwrap()];
    plan.interfaces[0].observing = Observing::Only(lower.to_vec());
    plan.interfaces[1].observing = Observing::Everything;
    plan
}

fn attempts(world: &World, v6: bool) -> Vec<Attempt> {
    let [observing, enforcing, open, shut, nowhere] = match v6 {
        false => ["10.1.0.6", "10.1.0.200", "10.2.0.8", "10.3.0.8", "192.0.2.7"],
        true => [
            "fd00:1::6",
            "fd00:1::8000:0:0:6",
            "fd00:2::8",
            "fd00:3::8",
            "fd00:99::7",
        ],
    };
    let mut number = if v6 { 7400 } else { 6400 };
    let mut row = |what: &str, way: (&'static str, &'static str), ends: (&str, &str), must| {
        number += 1;
        let probe = Probe {
            source: ends.0.parse().unwrap(),
            destination: ends.1.parse().unwrap(),
            transport: Carried::Udp(9),
            number,
            dscp: world.sides[way.1].dscp,
        };
        attempt(what, way, carried(world, way, &probe.packet(Part::Opening)), must)
    };
    let none = "no flow permits it";
    let foreign = "is in no zone on the side of";
    let (forth, back) = (("lan1", "lan2"), ("lan2", "lan1"));
    vec![
        row(
            "between zones that observe",
            forth,
            (observing, open),
            Must::PassTold(none),
        ),
        row(
            "the other way round",
            back,
            (open, observing),
            Must::PassTold(none),
        ),
        row(
            "from one that enforces",
            forth,
            (enforcing, open),
            Must::Stop(none),
        ),
        row("to one that enforces", back, (open, enforcing), Must::Stop(none)),
        row(
            "to a side that enforces",
            ("lan1", "lan3"),
            (observing, shut),
            Must::Stop(none),
        ),
        row(
            "from a side that enforces",
            ("lan3", "lan1"),
            (shut, observing),
            Must::Stop(none),
        ),
        row(
            "from nowhere, beside zones of both kinds",
            forth,
            (nowhere, open),
            Must::Stop(foreign),
        ),
        row(
            "to nowhere, beside zones of both kinds",
            back,
            (open, nowhere),
            Must::Stop(foreign),
        ),
        row(
            "from nowhere, where all observe",
            back,
            (nowhere, observing),
            Must::PassTold(foreign),
        ),
        row(
            "with an observing address of another side",
            back,
            (observing, enforcing),
            Must::Stop(foreign),
        ),
    ]
}

#[test]
fn undeclared_packets_pass_between_zones_that_observe_and_nowhere_else_whatever_lies_beside_them() {
    at_each_gateway(
        "modes::undeclared_packets_pass_between_zones_that_observe_and_nowhere_else_whatever_lies_beside_them",
        async |mode, world, mut agent| {
            agent.apply(&mixed(mode), 1).await;
            for v6 in [false, true] {
                hold(world, &mut agent, &attempts(world, v6)).await;
            }
        },
    );
}

/// What shows no address to judge by is as strictly judged as the strictest zone of each side.
#[test]
fn frames_without_addresses_do_not_pass_beside_a_zone_that_enforces() {
    at_each_gateway(
        "modes::frames_without_addresses_do_not_pass_beside_a_zone_that_enforces",
        async |mode, world, mut agent| {
            if mode == GatewayMode::Routed {
                return; // It forwards nothing but IP.
            }
            let probe = Probe {
                source: "10.1.0.6".parse().unwrap(),
                destination: "10.2.0.8".parse().unwrap(),
                transport: Carried::Udp(9),
                number: 6500,
                dscp: 0,
            };
            let packet = probe.packet(Part::Opening);
            let odd = |(from, to): (&str, &str), middle: &[u8], rest: &[u8]| {
                let mut frame = [&world.sides[to].mac[..], &world.sides[from].mac, middle, rest].concat();
                frame.resize(frame.len().max(60), 0);
                frame
            };
            let rows = |must: fn(&'static str) -> Must| {
                [("lan1", "lan2"), ("lan2", "lan1")].map(|way| {
                    attempt(
                        "PROFINET",
                        way,
                        odd(way, &[0x88, 0x92], &[0x80; 46]),
                        must("0x8892"),
                    )
                })
            };
            agent.apply(&mixed(mode), 1).await;
            let tagged = odd(("lan1", "lan2"), &[0x81, 0, 0, 5, 0x08, 0], &packet);
            let tagged = attempt(
                "an observing address inside a tag",
                ("lan1", "lan2"),
                tagged,
                Must::Stop("untagged"),
            );
            hold(world, &mut agent, &[tagged]).await;
            hold(world, &mut agent, &rows(Must::Stop)).await;
            let mut all = mixed(mode);
            all.interfaces[0].observing = Observing::Everything;
            agent.apply(&all, 2).await;
            hold(world, &mut agent, &rows(Must::PassTold)).await;
        },
    );
}

#[test]
fn a_declared_router_beside_a_zone_that_enforces_may_send_errors_about_what_is_observed() {
    at_each_gateway(
        "modes::a_declared_router_beside_a_zone_that_enforces_may_send_errors_about_what_is_observed",
        async |mode, world, mut agent| {
            let mut plan = mixed(mode);
            plan.interfaces[0].routers = ["10.9.0.1/32", "fd00:9::1/128"]
                .map(|router| router.parse().unwrap())
                .to_vec();
            agent.apply(&plan, 1).await;
            for v6 in [false, true] {
                let (near, far, router, stranger, kind) = match v6 {
                    false => ("10.1.0.6", "10.2.0.8", "10.9.0.1", "10.9.0.2", (3, 3)),
                    true => ("fd00:1::6", "fd00:2::8", "fd00:9::1", "fd00:9::2", (1, 4)),
                };
                let (forth, back) = (("lan1", "lan2"), ("lan2", "lan1"));
                let about = Probe {
                    source: near.parse().unwrap(),
                    destination: far.parse().unwrap(),
                    transport: Carried::Udp(9),
                    number: 6600,
                    dscp: world.sides["lan2"].dscp,
                };
                let answer = Probe {
                    dscp: world.sides["lan1"].dscp,
                    ..about
                }
                .packet(Part::Answer);
                let error = |from: &str, what: &str, must| {
                    let mut packet = message(from, about.destination, kind, [0; 4], &answer);
                    set_dscp(&mut packet, world.sides["lan2"].dscp);
                    attempt(what, forth, carried(world, forth, &packet), must)
                };
                let opening = about.packet(Part::Opening);
                let rows = [
                    attempt(
                        "observed",
                        forth,
                        carried(world, forth, &opening),
                        Must::PassTold("no flow permits it"),
                    ),
                    attempt("its answer", back, carried(world, back, &answer), Must::Pass),
                    error(router, "an error of the router", Must::Pass),
                    error(stranger, "an error of another", Must::Stop("nor a router there")),
                ];
                hold(world, &mut agent, &rows).await;
            }
        },
    );
}

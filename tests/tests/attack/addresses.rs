//! Packets of nobody's flow, and packets with the addresses of others.

use penstock_policy::verdict::Carried;

use super::plans::{SIDES, observing, two_flows};
use super::table::{Attempt, Must, attempt, carried, hold};
use super::wire::{Part, Probe};
use super::world::{World, at_each_gateway};

/// What anybody may try without having seen a packet of others.
fn attempts(world: &World, v6: bool, stopped: fn(&'static str) -> Must) -> Vec<Attempt> {
    let (client, server, third) = match v6 {
        false => ("10.1.0.5", "10.2.0.9", "10.3.0.7"),
        true => ("fd00:1::5", "fd00:2::9", "fd00:3::7"),
    };
    let mut number = if v6 { 7000 } else { 6000 };
    let mut row = |what: &str, way: (&'static str, &'static str), source: &str, port, must| {
        number += 1;
        let probe = Probe {
            source: source.parse().unwrap(),
            destination: server.parse().unwrap(),
            transport: port,
            number,
            dscp: world.sides[way.1].dscp,
        };
        attempt(what, way, carried(world, way, &probe.packet(Part::Opening)), must)
    };
    let (forth, aside) = (("lan1", "lan2"), ("lan3", "lan2"));
    let none = stopped("no flow permits it");
    let foreign = stopped("is in no zone on the side of");
    vec![
        row("the declared flow", forth, client, Carried::Tcp(502), Must::Pass),
        row(
            "an undeclared port",
            forth,
            client,
            Carried::Tcp(503),
            stopped("port 503 is not 502"),
        ),
        row("an undeclared client", forth, third, Carried::Tcp(502), foreign),
        row("another side's client", aside, client, Carried::Tcp(502), foreign),
        row("an own address, no flow", aside, third, Carried::Tcp(502), none),
        row("an echo", forth, client, Carried::IcmpEcho, none),
    ]
}

#[test]
fn packets_of_no_flow_and_with_addresses_of_others_come_out_nowhere_and_are_in_the_trail() {
    at_each_gateway(
        "addresses::packets_of_no_flow_and_with_addresses_of_others_come_out_nowhere_and_are_in_the_trail",
        async |mode, world, mut agent| {
            agent.apply(&two_flows(mode), 1).await;
            for v6 in [false, true] {
                hold(world, &mut agent, &attempts(world, v6, Must::Stop)).await;
            }
            // Where all zones observe, each of them passes and the same is told.
            agent.apply(&observing(two_flows(mode), &SIDES), 2).await;
            for v6 in [false, true] {
                hold(world, &mut agent, &attempts(world, v6, Must::PassTold)).await;
            }
        },
    );
}

//! What is sent to the gateway itself: echoes without end, in others' names, and errors that would mislead it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use penstock_policy::terms::GatewayMode;
use penstock_policy::verdict::Carried;

use super::icmp::message;
use super::plans::two_flows;
use super::table::{Must, attempt, hold};
use super::wire::{Mac, Part, Probe, frame};
use super::world::{PATIENCE, SILENCE, World, at_each_gateway};

const OWN: [&str; 2] = ["10.1.0.1", "fd00:1::1"];

/// Gives the gateway addresses of its own, and the client those that it is to have. Gives the gateway's MAC address.
fn addressed(world: &World) -> Mac {
    let near = &world.sides["lan1"];
    let (inside, mac) = match world.mode {
        GatewayMode::Routed => ("lan1", near.gateway_mac),
        GatewayMode::Bridged => ("br0", [2, 0, 0, 0, 9, 9]),
    };
    world
        .gateway
        .ip(&["link", "set", inside, "address", &super::world::text(mac)])
        .unwrap();
    near.namespace
        .sysctl("net.ipv6.conf.eth0.disable_ipv6", "0")
        .unwrap();
    for address in ["10.1.0.1/24", "fd00:1::1/64"] {
        world.gateway.address(inside, address).unwrap();
    }
    for address in ["10.1.0.5/24", "10.1.0.6/24", "fd00:1::5/64", "fd00:1::6/64"] {
        near.namespace.address("eth0", address).unwrap();
    }
    mac
}

/// An echo request to the gateway.
fn echo(from: &str, to: &str, number: u16) -> Vec<u8> {
    Probe {
        source: from.parse().unwrap(),
        destination: to.parse().unwrap(),
        transport: Carried::IcmpEcho,
        number,
        dscp: 0,
    }
    .packet(Part::Opening)
}

/// How many echoes come back at `lan1` with this number: waits so long for one, and then until there was silence.
fn answers(world: &World, number: u16, patience: Duration) -> usize {
    let (mut quiet, mut answers) = (Instant::now(), 0);
    while quiet.elapsed() < if answers == 0 { patience } else { SILENCE } {
        let Some(caught) = world.sides["lan1"].wire.try_catch() else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let body = if caught[12..14] == [0x86, 0xdd] { 54 } else { 34 };
        let is_it = matches!(caught.get(body), Some(0 | 129))
            && caught.get(body + 4..body + 6) == Some(&number.to_be_bytes());
        if is_it {
            answers += 1;
            quiet = Instant::now();
        }
    }
    answers
}

#[test]
fn the_gateway_answers_few_echoes_a_second_and_takes_no_error_that_is_not_about_its_own_connections() {
    at_each_gateway(
        "gateway::the_gateway_answers_few_echoes_a_second_and_takes_no_error_that_is_not_about_its_own_connections",
        async |mode, world, mut agent| {
            let mac = addressed(world);
            agent.apply(&two_flows(mode), 1).await;
            let near = &world.sides["lan1"];
            let send = |packet: &[u8]| near.wire.send(&frame(near.mac, mac, packet));
            for (own, clients, other, redirect) in [
                (OWN[0], ["10.1.0.5", "10.1.0.6"], "10.2.0.9", (5, 1)),
                (OWN[1], ["fd00:1::5", "fd00:1::6"], "fd00:2::9", (137, 0)),
            ] {
                let to: IpAddr = own.parse().unwrap();
                // Once it answers at all, its neighbours are known and its addresses are its own.
                let ready = Instant::now();
                while answers(world, 1, Duration::from_millis(100)) == 0 {
                    assert!(ready.elapsed() < PATIENCE, "{mode:?} {own}: no echo at all");
                    send(&echo(clients[1], own, 1));
                }
                for _ in 0..300 {
                    send(&echo(clients[0], own, 77));
                }
                let flood = answers(world, 77, PATIENCE);
                assert!(
                    (1..60).contains(&flood),
                    "{mode:?} {own}: {flood} of 300 echoes were answered"
                );
                send(&echo(clients[1], own, 78));
                assert_eq!(answers(world, 78, PATIENCE), 1, "{mode:?} {own}: another's echo");
                // A packet that the gateway might have sent to a host on another side.
                let sent = Probe {
                    source: to,
                    destination: other.parse().unwrap(),
                    transport: Carried::Tcp(502),
                    number: 33000,
                    dscp: 0,
                }
                .packet(Part::Data);
                let unreachable = if to.is_ipv6() { (1, 4) } else { (3, 3) };
                let row = |what: &str, packet: Vec<u8>, must| {
                    attempt(
                        format!("{what} {own}"),
                        ("lan1", "lan2"),
                        frame(near.mac, mac, &packet),
                        must,
                    )
                };
                let rows = [
                    row(
                        "a flood",
                        echo(clients[0], own, 77),
                        Must::Stop("at most 10 echo requests a second"),
                    ),
                    row(
                        "an echo in another's name",
                        echo(other, own, 79),
                        Must::Stop("in no zone on the side of lan1"),
                    ),
                    row(
                        "a redirect",
                        message(clients[0], to, redirect, [10, 1, 0, 66], &sent),
                        Must::Stop("would send packets another way"),
                    ),
                    row(
                        "an error about another side",
                        message(clients[0], to, unreachable, [0; 4], &sent),
                        Must::Stop("which is not on the side of lan1"),
                    ),
                    row(
                        "an error of nobody",
                        message(other, to, unreachable, [0; 4], &sent),
                        Must::Stop("nor a router there"),
                    ),
                ];
                hold(world, &mut agent, &rows).await;
            }
        },
    );
}

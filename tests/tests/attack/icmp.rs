//! ICMP errors that quote a live connection: what an error may be, who may send it, and how long it may be.

use std::net::IpAddr;

use penstock_policy::verdict::Carried;

use super::plans::two_flows;
use super::table::{Attempt, Must, attempt, carried, hold};
use super::wire::{Part, Probe, checksum, ip, pseudo};
use super::world::{World, at_each_gateway};

/// An ICMP message of this type, code and second word, with what it quotes.
pub fn message(from: &str, to: IpAddr, (kind, code): (u8, u8), word: [u8; 4], quoted: &[u8]) -> Vec<u8> {
    let from: IpAddr = from.parse().unwrap();
    let mut body = [&[kind, code, 0, 0][..], &word, quoted].concat();
    let (protocol, header) = match from.is_ipv6() {
        true => (58, pseudo(from, to, 58, body.len())),
        false => (1, vec![]),
    };
    let sum = checksum(&[&header, &body]);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(from, to, protocol, 0, &body)
}

/// The flow of the attempts: a client of `lan1`, a server of `lan2`.
fn standing(v6: bool) -> Probe {
    let (source, destination) = match v6 {
        false => ("10.1.0.5", "10.2.0.9"),
        true => ("fd00:1::5", "fd00:2::9"),
    };
    Probe {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        transport: Carried::Tcp(502),
        number: 4000,
        dscp: 0,
    }
}

/// Errors about the standing connection.
fn attempts(world: &World, v6: bool) -> Vec<Attempt> {
    let about = standing(v6);
    let (sent, answered) = (about.packet(Part::Data), about.packet(Part::Answer));
    let (client, server) = (about.source, about.destination);
    let side = |number: u8| match v6 {
        false => format!("10.{number}.0.1"),
        true => format!("fd00:{number}::1"),
    };
    let (too_big, unreachable, exceeded, problem) = match v6 {
        false => ((3, 4), (3, 3), (11, 0), (12, 0)),
        true => ((2, 0), (1, 4), (3, 0), (4, 0)),
    };
    let mtu = [0, 0, 5, 0];
    let row = |what: &str, way: (&'static str, &'static str), packet: Vec<u8>, must| {
        let mut packet = packet;
        super::wire::set_dscp(&mut packet, world.sides[way.1].dscp);
        attempt(
            format!("{what}, v6 {v6}"),
            way,
            carried(world, way, &packet),
            must,
        )
    };
    let (back, forth, aside) = (("lan2", "lan1"), ("lan1", "lan2"), ("lan3", "lan1"));
    let from_server = |kind, word: [u8; 4]| message(&server.to_string(), client, kind, word, &sent);
    let longest = if v6 { 1280 - 48 } else { 576 - 28 };
    let padded = |bytes: usize| {
        let mut quoted = sent.clone();
        quoted.resize(bytes, 0x41);
        message(&side(2), client, too_big, mtu, &quoted)
    };
    let mut rows = vec![
        row(
            "too big, of a router of the server's side",
            back,
            message(&side(2), client, too_big, mtu, &sent),
            Must::Pass,
        ),
        row(
            "unreachable, of the server",
            back,
            from_server(unreachable, [0; 4]),
            Must::Pass,
        ),
        row(
            "time exceeded",
            back,
            message(&side(2), client, exceeded, [0; 4], &sent),
            Must::Pass,
        ),
        row(
            "parameter problem",
            back,
            message(&side(2), client, problem, [0; 4], &sent),
            Must::Pass,
        ),
        row(
            "too big, of the client's side about an answer",
            forth,
            message(&side(1), server, too_big, mtu, &answered),
            Must::Pass,
        ),
        row("the longest that there may be", back, padded(longest), Must::Pass),
        row(
            "one byte longer",
            back,
            padded(longest + 1),
            Must::Stop("could carry data"),
        ),
        row("1,470 bytes", back, padded(1442), Must::Stop("could carry data")),
        row(
            "from a third side, by its own address",
            aside,
            message(&side(3), client, too_big, mtu, &sent),
            Must::Stop("does not come from that one's side"),
        ),
        row(
            "from a third side, by the server's address",
            aside,
            from_server(unreachable, [0; 4]),
            Must::Stop("nor a router there"),
        ),
        row(
            "about the client's own packet, from its own side to the server",
            forth,
            message(&side(1), server, unreachable, [0; 4], &sent),
            Must::Stop(""),
        ),
        row(
            "of an address that is nowhere",
            back,
            message(
                if v6 { "2001:db8::1" } else { "203.0.113.1" },
                client,
                too_big,
                mtu,
                &sent,
            ),
            Must::Stop("nor a router there"),
        ),
    ];
    let unknown = Probe {
        number: 4999,
        ..about
    };
    rows.push(row(
        "about a connection that nobody opened",
        back,
        message(&side(2), client, too_big, mtu, &unknown.packet(Part::Data)),
        Must::Stop("there is no connection"),
    ));
    let undeclared = Probe {
        transport: Carried::Tcp(503),
        ..about
    };
    rows.push(row(
        "about a port that no flow permits",
        back,
        message(&side(2), client, too_big, mtu, &undeclared.packet(Part::Data)),
        Must::Stop("by tcp/503, which no flow permits"),
    ));
    if v6 {
        let redirect = [&server_octets(server)[..], &server_octets(server), &sent].concat();
        let mut packet = message(&side(2), client, (137, 0), [0; 4], &redirect);
        packet[7] = 255;
        rows.push(row(
            "a redirect",
            back,
            packet,
            Must::Stop("would send packets another way"),
        ));
        let hidden = ip(
            side(2).parse().unwrap(),
            client,
            60,
            0,
            &[
                &[58, 0, 1, 4, 0, 0, 0, 0][..],
                &message(&side(2), client, too_big, mtu, &sent)[40..],
            ]
            .concat(),
        );
        rows.push(row(
            "an error behind destination options",
            back,
            hidden,
            Must::Stop("`destination options` (60)"),
        ));
    } else {
        let router = [10, 2, 0, 66];
        for (what, way, from) in [
            ("a redirect of the server's side", back, side(2)),
            ("a redirect of a third side", aside, side(3)),
        ] {
            rows.push(row(
                what,
                way,
                message(&from, client, (5, 1), router, &sent),
                Must::Stop("would send packets another way"),
            ));
        }
        rows.push(row(
            "source quench",
            back,
            from_server((4, 0), [0; 4]),
            Must::Stop("would send packets another way"),
        ));
    }
    rows
}

fn server_octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[test]
fn an_icmp_error_crosses_only_about_a_permitted_connection_from_its_far_end_and_no_longer_than_its_rfc_says()
{
    at_each_gateway(
        "icmp::an_icmp_error_crosses_only_about_a_permitted_connection_from_its_far_end_and_no_longer_than_its_rfc_says",
        async |mode, world, mut agent| {
            agent.apply(&two_flows(mode), 1).await;
            for v6 in [false, true] {
                for part in [Part::Opening, Part::Answer, Part::Data] {
                    assert!(
                        world.passes("lan1", "lan2", &standing(v6), part, true),
                        "{mode:?} {part:?}"
                    );
                }
                hold(world, &mut agent, &attempts(world, v6)).await;
            }
            // The flow is there, but this tuple of it is not any more: its connection is still known.
            let mut moved = two_flows(mode);
            moved.rules[0].transport = super::plans::tcp(1502);
            agent.apply(&moved, 2).await;
            for v6 in [false, true] {
                let error = attempts(world, v6).remove(0);
                let must = Must::Stop("which no flow permits");
                hold(world, &mut agent, &[Attempt { must, ..error }]).await;
            }
        },
    );
}

//! Layer 2 of a bridged gateway: claims of addresses, questions for neighbours and answers to them, and what the bridge learns.

use std::net::Ipv6Addr;

use penstock_lab as lab;
use penstock_policy::terms::GatewayMode;
use penstock_policy::verdict::Carried;

use super::plans::{SIDES, observing, two_flows};
use super::table::{Attempt, Must, attempt, carried, hold};
use super::wire::{Mac, Part, Probe, checksum, frame, ip, pseudo};
use super::world::{Agent, World};

pub const ALL: Mac = [0xff; 6];
pub const CLIENT: [u8; 4] = [10, 1, 0, 5];
pub const SERVER: [u8; 4] = [10, 2, 0, 9];
const THIRD: [u8; 4] = [10, 3, 0, 7];
pub const CLIENT6: &str = "fd00:1::5";
pub const SERVER6: &str = "fd00:2::9";

/// ARP: a request (1) or an answer (2), from a frame's sender that names itself as `named`.
pub fn arp(
    ether: (Mac, Mac),
    operation: u8,
    named: Mac,
    sender: [u8; 4],
    target: [u8; 4],
    bytes: usize,
) -> Vec<u8> {
    let (from, to) = ether;
    let mut body = [
        &[0, 1, 8, 0, 6, 4, 0, operation][..],
        &named,
        &sender,
        &[0; 6],
        &target,
    ]
    .concat();
    body.resize(bytes, 0x41);
    [&to[..], &from, &[8, 6], &body].concat()
}

/// Neighbour discovery: `rest` is what follows the checksum.
pub fn discovery(ether: (Mac, Mac), from: &str, to: &str, kind: u8, rest: &[u8]) -> Vec<u8> {
    let (source, destination) = (from.parse().unwrap(), to.parse().unwrap());
    let mut body = [&[kind, 0, 0, 0][..], rest].concat();
    let sum = checksum(&[&pseudo(source, destination, 58, body.len()), &body]);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = ip(source, destination, 58, 0, &body);
    packet[7] = 255;
    frame(ether.0, ether.1, &packet)
}

/// What follows the checksum of a solicitation or an advertisement: flags, target, and an option with a MAC address.
pub fn about(flags: u8, target: &str, option: u8, mac: Mac) -> Vec<u8> {
    let target: Ipv6Addr = target.parse().unwrap();
    [&[flags, 0, 0, 0][..], &target.octets(), &[option, 1], &mac].concat()
}

/// Attempts and what must hold; `stopped` says how.
fn attempts(world: &World, stopped: fn(&'static str) -> Must) -> Vec<Attempt> {
    let mac = |side: &str| world.sides[side].mac;
    let [one, two, three] = SIDES.map(mac);
    let (forth, back, aside) = (("lan1", "lan2"), ("lan2", "lan1"), ("lan3", "lan2"));
    let data = stopped("could carry data");
    let mut rows = vec![
        attempt(
            "a client asks for its server",
            forth,
            arp((one, ALL), 1, one, CLIENT, SERVER, 46),
            Must::Pass,
        ),
        attempt(
            "the server answers",
            back,
            arp((two, one), 2, two, SERVER, CLIENT, 46),
            Must::Pass,
        ),
        attempt(
            "the server asks for its client",
            back,
            arp((two, ALL), 1, two, SERVER, CLIENT, 46),
            Must::Pass,
        ),
        attempt(
            "the server announces itself",
            back,
            arp((two, ALL), 1, two, SERVER, SERVER, 46),
            Must::Pass,
        ),
        attempt(
            "a host without a flow asks for the server",
            aside,
            arp((three, ALL), 1, three, THIRD, SERVER, 46),
            stopped("no flow joins 10.3.0.7 and 10.2.0.9"),
        ),
        attempt(
            "the client asks for a host that it has no flow with",
            ("lan1", "lan3"),
            arp((one, ALL), 1, one, CLIENT, THIRD, 46),
            stopped("no flow joins"),
        ),
        attempt(
            "a third side claims the server's address",
            ("lan3", "lan1"),
            arp((three, one), 2, three, SERVER, CLIENT, 46),
            stopped("belongs to the side of lan2"),
        ),
        attempt(
            "the same as an announcement",
            ("lan3", "lan1"),
            arp((three, ALL), 1, three, SERVER, SERVER, 46),
            stopped("belongs to the side of lan2"),
        ),
        attempt(
            "the client's side names another MAC",
            forth,
            arp((one, two), 2, [2, 0, 0, 0, 7, 7], CLIENT, SERVER, 46),
            stopped("another MAC address than its own"),
        ),
        attempt(
            "one byte too many",
            forth,
            arp((one, two), 1, one, CLIENT, SERVER, 47),
            data,
        ),
        attempt(
            "ARP with 1,400 bytes",
            forth,
            arp((one, ALL), 1, one, CLIENT, SERVER, 1400),
            data,
        ),
        attempt(
            "another operation",
            forth,
            arp((one, ALL), 8, one, CLIENT, SERVER, 46),
            data,
        ),
        attempt(
            "a client asks for its server, IPv6",
            forth,
            discovery((one, two), CLIENT6, SERVER6, 135, &about(0, SERVER6, 1, one)),
            Must::Pass,
        ),
        attempt(
            "the server answers, IPv6",
            back,
            discovery((two, one), SERVER6, CLIENT6, 136, &about(0x60, SERVER6, 2, two)),
            Must::Pass,
        ),
        attempt(
            "a client asks from its link-local address",
            forth,
            discovery((one, two), "fe80::5", SERVER6, 135, &about(0, SERVER6, 1, one)),
            Must::Pass,
        ),
        attempt(
            "the server announces itself, IPv6",
            back,
            discovery(
                (two, [0x33, 0x33, 0, 0, 0, 1]),
                SERVER6,
                "ff02::1",
                136,
                &about(0x20, SERVER6, 2, two),
            ),
            Must::Pass,
        ),
        attempt(
            "a host without a flow asks, IPv6",
            aside,
            discovery(
                (three, two),
                "fd00:3::7",
                SERVER6,
                135,
                &about(0, SERVER6, 1, three),
            ),
            stopped("no flow joins fd00:3::7"),
        ),
        attempt(
            "a third side answers for the server",
            ("lan3", "lan1"),
            discovery(
                (three, one),
                "fe80::7",
                CLIENT6,
                136,
                &about(0x60, SERVER6, 2, three),
            ),
            stopped("claims an address of another side"),
        ),
        attempt(
            "a third side answers a duplicate-address question",
            ("lan3", "lan1"),
            discovery(
                (three, one),
                "fe80::7",
                "ff02::1",
                136,
                &about(0x20, CLIENT6, 2, three),
            ),
            stopped("claims an address of another side"),
        ),
        attempt(
            "a third side asks whether the server's address is free",
            ("lan3", "lan1"),
            discovery(
                (three, one),
                "::",
                "ff02::1:ff00:9",
                135,
                &about(0, SERVER6, 14, three),
            ),
            stopped("claims an address of another side"),
        ),
        attempt(
            "the server names another MAC",
            back,
            discovery(
                (two, one),
                SERVER6,
                CLIENT6,
                136,
                &about(0x60, SERVER6, 2, [2, 0, 0, 0, 7, 7]),
            ),
            stopped("another MAC address than its own"),
        ),
        attempt(
            "a solicitation with 600 bytes behind it",
            forth,
            discovery(
                (one, two),
                CLIENT6,
                SERVER6,
                135,
                &[about(0, SERVER6, 1, one), vec![0x41; 600]].concat(),
            ),
            data,
        ),
        attempt(
            "an advertisement with two options",
            back,
            discovery(
                (two, one),
                SERVER6,
                CLIENT6,
                136,
                &[about(0x60, SERVER6, 2, two), vec![14, 1, 0, 0, 0, 0, 0, 0]].concat(),
            ),
            data,
        ),
        attempt(
            "a router advertisement",
            ("lan3", "lan1"),
            discovery(
                (three, one),
                "fe80::7",
                "ff02::1",
                134,
                &[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
            stopped("no router of that address is declared"),
        ),
        attempt(
            "a redirect of neighbour discovery",
            back,
            discovery(
                (two, one),
                "fe80::9",
                CLIENT6,
                137,
                &[[0; 4].as_slice(), &[0; 32]].concat(),
            ),
            stopped("would send packets another way"),
        ),
    ];
    // Connection tracking makes fragments whole, so where they pass they do not come out as they were sent.
    if matches!(data, Must::Stop(_)) {
        rows.extend(hidden(world, data));
    }
    // The server's MAC address is known by now.
    let stolen = Probe {
        source: "10.3.0.7".parse().unwrap(),
        destination: "10.1.0.5".parse().unwrap(),
        transport: Carried::Udp(9),
        number: 40000,
        dscp: 0,
    };
    let mut theft = carried(world, ("lan3", "lan1"), &stolen.packet(Part::Opening));
    theft[6..12].copy_from_slice(&two);
    rows.push(attempt(
        "a third side sends from the server's MAC",
        ("lan3", "lan1"),
        theft,
        stopped("belongs to another side"),
    ));
    rows
}

/// A third side's answer for the server where no host would take it: in a fragment, and behind options.
fn hidden(world: &World, must: Must) -> Vec<Attempt> {
    let [one, _, three] = SIDES.map(|side| world.sides[side].mac);
    let said = about(0x60, SERVER6, 2, three);
    let answer = discovery((three, one), "fd00:3::7", CLIENT6, 136, &said);
    let forms = [
        ("in a fragment", 44, [58, 0, 0, 0, 0, 0, 0, 9]),
        ("behind options", 60, [58, 0, 1, 4, 0, 0, 0, 0]),
    ];
    let row = |(what, first, header): (&str, u8, [u8; 8])| {
        let source = "fd00:3::7".parse().unwrap();
        let body = [&header[..], &answer[54..]].concat();
        let mut packet = ip(source, CLIENT6.parse().unwrap(), first, 0, &body);
        packet[7] = 255;
        let sent = frame(three, one, &packet);
        attempt(
            format!("a third side's answer {what}"),
            ("lan3", "lan1"),
            sent,
            must,
        )
    };
    forms.map(row).into()
}

pub fn bridged(name: &str, test: impl AsyncFn(&World, Agent) + Sync) {
    lab::sandbox::test(name, |lab| {
        let world = World::new(lab, GatewayMode::Bridged, &SIDES);
        world.at_gateway(async || test(&world, Agent::start()).await);
    })
    .unwrap();
}

#[test]
fn neighbours_are_asked_for_and_answer_only_where_a_flow_joins_them_and_nobody_claims_what_is_anothers() {
    bridged(
        "neighbours::neighbours_are_asked_for_and_answer_only_where_a_flow_joins_them_and_nobody_claims_what_is_anothers",
        async |world, mut agent| {
            agent.apply(&two_flows(GatewayMode::Bridged), 1).await;
            hold(world, &mut agent, &attempts(world, Must::Stop)).await;
            // Where all zones observe, the same passes, and is recorded.
            agent
                .apply(&observing(two_flows(GatewayMode::Bridged), &SIDES), 2)
                .await;
            hold(world, &mut agent, &attempts(world, Must::PassTold)).await;
        },
    );
}

//! What a bridged gateway's bridge learns, whose a MAC address is, and that real hosts go on finding each other.

use penstock_policy::plan::{Hardware, Plan};
use penstock_policy::terms::GatewayMode;
use penstock_policy::terms::Mac as Declared;
use penstock_policy::verdict::Carried;

use super::neighbours::{CLIENT, CLIENT6, SERVER, SERVER6, about, arp, bridged, discovery};
use super::plans::{SIDES, two_flows};
use super::table::{Attempt, Must, attempt, carried, hold};
use super::wire::{Mac, Part, Probe};
use super::world::{PATIENCE, SILENCE, World, text};

/// The port on which the bridge has learned a MAC address.
pub fn learned(world: &World, mac: Mac) -> Option<String> {
    let table = world
        .gateway
        .run("bridge", &["fdb", "show", "br", "br0"])
        .unwrap();
    let line = table
        .lines()
        .find(|line| line.starts_with(&text(mac)))?
        .to_owned();
    let port = line.split_whitespace().skip_while(|word| *word != "dev").nth(1)?;
    Some(port.to_owned())
}

pub fn datagram(world: &World, way: (&str, &str), source: &str, mac: Mac, number: u16) -> Vec<u8> {
    let probe = Probe {
        source: source.parse().unwrap(),
        destination: "10.2.0.9".parse().unwrap(),
        transport: Carried::Udp(4050),
        number,
        dscp: 0,
    };
    let mut frame = carried(world, way, &probe.packet(Part::Opening));
    frame[6..12].copy_from_slice(&mac);
    frame
}

/// The server's device is declared, in both families.
pub fn declared(world: &World) -> Plan {
    let mut plan = two_flows(GatewayMode::Bridged);
    let mac = Declared(world.sides["lan2"].mac);
    plan.interfaces[1].hardware = [SERVER6.parse().unwrap(), "10.2.0.9".parse().unwrap()]
        .map(|address| Hardware { address, mac })
        .to_vec();
    plan
}

/// Another device on the server's side claims its addresses towards the client.
pub fn claims(world: &World, must: Must, must6: Must) -> [Attempt; 2] {
    let (other, client) = ([2, 0, 0, 0, 7, 9], world.sides["lan1"].mac);
    let to_client = ("lan2", "lan1");
    let said = about(0x60, SERVER6, 2, other);
    [
        attempt(
            "another MAC for the server's address",
            to_client,
            arp((other, client), 2, other, SERVER, CLIENT, 46),
            must,
        ),
        attempt(
            "the same in IPv6",
            to_client,
            discovery((other, client), SERVER6, CLIENT6, 136, &said),
            must6,
        ),
    ]
}

#[test]
fn the_bridge_learns_only_whom_the_rules_let_in_and_a_known_mac_address_stays_on_its_side() {
    bridged(
        "learning::the_bridge_learns_only_whom_the_rules_let_in_and_a_known_mac_address_stays_on_its_side",
        async |world, mut agent| {
            agent.apply(&two_flows(GatewayMode::Bridged), 1).await;
            let mac = |number: u8| [2, 0, 0, 0, 8, number];
            let row = |what: &str, way, frame, must| attempt(what, way, frame, must);
            let forth = ("lan1", "lan2");
            let aside = ("lan3", "lan2");
            let rows = [
                row(
                    "a host without a flow",
                    aside,
                    datagram(world, aside, "10.3.0.7", mac(1), 1),
                    Must::Stop("no flow permits it"),
                ),
                row(
                    "a forged address",
                    aside,
                    datagram(world, aside, "10.1.0.6", mac(2), 2),
                    Must::Stop("is in no zone on the side of lan3"),
                ),
                row(
                    "a frame of another type",
                    aside,
                    [&world.sides["lan2"].mac[..], &mac(3), &[0x88, 0x92], &[7; 60]].concat(),
                    Must::Stop("0x8892"),
                ),
                row(
                    "a client",
                    forth,
                    datagram(world, forth, "10.1.0.6", mac(4), 4),
                    Must::Pass,
                ),
                row(
                    "its MAC address on another side",
                    aside,
                    datagram(world, aside, "10.3.0.7", mac(4), 5),
                    Must::Stop("belongs to another side"),
                ),
            ];
            hold(world, &mut agent, &rows).await;
            for refused in 1..4 {
                assert_eq!(learned(world, mac(refused)), None, "{refused}");
            }
            assert_eq!(learned(world, mac(4)).as_deref(), Some("lan1"));
            // Frames to link-local groups pass by the rules, and teach the bridge nothing either.
            world.sides["lan3"]
                .wire
                .send(&[&[1, 0x80, 0xc2, 0, 0, 0x0e][..], &mac(4), &[0x88, 0xcc], &[7; 60]].concat());
            world.sides["lan3"]
                .wire
                .send(&[&[1, 0x80, 0xc2, 0, 0, 0x0e][..], &mac(6), &[0x88, 0xcc], &[7; 60]].concat());
            std::thread::sleep(SILENCE / 5);
            assert_eq!(
                (learned(world, mac(4)).as_deref(), learned(world, mac(6))),
                (Some("lan1"), None)
            );
            // A flood from where nobody has a flow leaves the table as it is.
            let lines = || {
                world
                    .gateway
                    .run("bridge", &["fdb", "show", "br", "br0"])
                    .unwrap()
                    .lines()
                    .count()
            };
            let before = lines();
            for number in 0..2000_u16 {
                let [high, low] = number.to_be_bytes();
                world.sides["lan3"].wire.send(&datagram(
                    world,
                    aside,
                    "10.3.0.7",
                    [2, 0, 0, 9, high, low],
                    6,
                ));
            }
            let counters = agent.counters_once(|c| c.denied_packets >= 2004).await;
            assert!(counters.denied_packets >= 2004, "{counters:?}");
            assert_eq!(lines(), before);
        },
    );
}

#[test]
fn a_declared_mac_address_is_its_assets_alone_from_the_first_frame_on() {
    bridged(
        "learning::a_declared_mac_address_is_its_assets_alone_from_the_first_frame_on",
        async |world, mut agent| {
            let [one, two, _] = SIDES.map(|side| world.sides[side].mac);
            let plan = declared(world);
            agent.apply(&plan, 1).await;
            let (forth, back) = (("lan1", "lan2"), ("lan2", "lan1"));
            let [another, another6] = claims(
                world,
                Must::Stop("which the document declares to have 02:00:00:00:02:02"),
                Must::Stop("another MAC address than its own"),
            );
            let rows = [
                attempt(
                    "the server's MAC from another side, first of all",
                    forth,
                    datagram(world, forth, "10.1.0.6", two, 1),
                    Must::Stop("belongs to another side"),
                ),
                another,
                another6,
                attempt(
                    "the server itself",
                    back,
                    arp((two, one), 2, two, SERVER, CLIENT, 46),
                    Must::Pass,
                ),
                attempt(
                    "the server itself, IPv6",
                    back,
                    discovery((two, one), SERVER6, CLIENT6, 136, &about(0x60, SERVER6, 2, two)),
                    Must::Pass,
                ),
            ];
            hold(world, &mut agent, &rows).await;
        },
    );
}

#[test]
fn real_hosts_find_each_other_again_and_again_while_a_connection_runs() {
    bridged(
        "learning::real_hosts_find_each_other_again_and_again_while_a_connection_runs",
        async |world, agent| {
            use std::io::{Read, Write};
            let (client, server) = (&world.sides["lan1"].namespace, &world.sides["lan2"].namespace);
            for (host, side, own) in [(client, 1, 5), (server, 2, 9)] {
                host.sysctl("net.ipv6.conf.eth0.disable_ipv6", "0").unwrap();
                host.address("eth0", &format!("10.{side}.0.{own}/8")).unwrap();
                host.address("eth0", &format!("fd00:{side}::{own}/16")).unwrap();
            }
            agent.apply(&two_flows(GatewayMode::Bridged), 1).await;
            for address in ["10.2.0.9:502", "[fd00:2::9]:502"] {
                let address: std::net::SocketAddr = address.parse().unwrap();
                let listener = server
                    .enter(|| std::net::TcpListener::bind(address).unwrap())
                    .unwrap();
                let mut stream = client
                    .enter(|| std::net::TcpStream::connect_timeout(&address, PATIENCE).unwrap())
                    .unwrap();
                let (mut far, _) = listener.accept().unwrap();
                for end in [&stream, &far] {
                    end.set_read_timeout(Some(PATIENCE)).unwrap();
                }
                for round in 0..20 {
                    for host in [client, server] {
                        host.ip(&["neigh", "flush", "dev", "eth0"]).unwrap();
                    }
                    let mut heard = [0; 6];
                    stream.write_all(b"request"[..6].as_ref()).unwrap();
                    far.read_exact(&mut heard).unwrap();
                    far.write_all(b"answer").unwrap();
                    stream.read_exact(&mut heard).unwrap();
                    assert_eq!(&heard, b"answer", "{address} {round}");
                }
                // A new connection, too, with nothing known.
                assert!(
                    client
                        .enter(|| std::net::TcpStream::connect_timeout(&address, PATIENCE).is_ok())
                        .unwrap()
                );
            }
            let refused = agent.enforcer.counters().await.unwrap().denied_packets;
            assert_eq!(refused, 0, "nothing of it was refused");
        },
    );
}

//! Who is in between, who only has a certificate, and who has none.

use std::sync::Arc;
use std::time::Instant;

use penstock_lab as lab;
use penstock_proto::peer::Epoch;
use penstock_proto::withdrawn::Withdrawn;

use super::world::{INNER, NORTH, PATIENCE, SOUTH, World};

/// The network between: of the gateways' datagrams one in twenty is lost, one in five comes twice, and all are delayed, each by another time.
const MIDDLE: &str = r#"
import heapq, random, select, socket, time
random.seed(13)
ports = []
for name in ("west", "east"):
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    port.bind((name, 0))
    ports.append(port)
late, count = [], 0
print("between", flush=True)
while True:
    wait = max(0, late[0][0] - time.time()) if late else 1
    for port in select.select(ports, [], [], wait)[0]:
        frame, where = port.recvfrom(65536)
        if where[2] == socket.PACKET_OUTGOING:
            continue
        disturbed = frame[12:14] == b"\x08\x00" and frame[23] == 17
        if disturbed:
            # A cable of this lab computes no checksums: 0 stands for none.
            frame = frame[:40] + b"\0\0" + frame[42:]
        if disturbed and random.random() < 0.05:
            continue
        for _ in range(2 if disturbed and random.random() < 0.2 else 1):
            count += 1
            delay = random.uniform(0.002, 0.02) if disturbed else 0
            heapq.heappush(late, (time.time() + delay, count, ports.index(port), frame))
    while late and late[0][0] <= time.time():
        _, _, came, frame = heapq.heappop(late)
        ports[1 - came].send(frame)
"#;

#[test]
fn a_man_in_the_middle_who_loses_delays_reorders_and_repeats_costs_packets_and_nothing_comes_twice() {
    lab::sandbox::test(
        "attacks::a_man_in_the_middle_who_loses_delays_reorders_and_repeats_costs_packets_and_nothing_comes_twice",
        |lab| {
            let world = World::new(lab);
            for port in ["west", "east"] {
                world.between.ip(&["link", "set", port, "nomaster"]).unwrap();
            }
            let middle = world.between.spawn("middle", "python3", &["-c", MIDDLE]).unwrap();
            middle.wait_for_log("between", PATIENCE).unwrap();
            let _gateways = world.begin();
            world.wait_for_pings(true);
            let (_, said) = world.ping(&["-c", "200", "-i", "0.02", "-W", "2", SOUTH]);
            assert!(!said.contains("DUP"), "{said}");
            let received = said.split(" received").next().and_then(|text| text.rsplit(' ').next());
            let received: u32 = received.unwrap().parse().unwrap();
            assert!(received > 150, "the tunnel holds nothing back for what was lost: {said}");
            let server = world.south.spawn("iperf-server", "iperf3", &["-s", "-1", "--forceflush"]).unwrap();
            server.wait_for_log("Server listening", PATIENCE).unwrap();
            let tcp = world.north.run("iperf3", &["-c", SOUTH, "-n", "1M"]).unwrap();
            assert!(tcp.contains("receiver"), "{tcp}");
        },
    )
    .unwrap();
}

/// Hears what goes from one gateway to the other for a second, and then sends all of it three times.
const REPLAY: &str = r#"
import socket, time
heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
heard.bind(("west", 0))
heard.settimeout(0.1)
frames, until = [], time.time() + 1
print("hearing", flush=True)
while time.time() < until:
    try:
        frame, where = heard.recvfrom(65536)
        if where[2] != socket.PACKET_OUTGOING and frame[12:14] == b"\x08\x00" and frame[23] == 17:
            # A cable of this lab computes no checksums: 0 stands for none.
            frames.append(frame[:40] + b"\0\0" + frame[42:])
    except socket.timeout:
        pass
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("east", 0))
for _ in range(3):
    for frame in frames:
        out.send(frame)
print("replayed", len(frames), flush=True)
"#;

#[test]
fn what_was_recorded_and_is_sent_again_later_is_nothing() {
    lab::sandbox::test(
        "attacks::what_was_recorded_and_is_sent_again_later_is_nothing",
        |lab| {
            let world = World::new(lab);
            let [first, second] = world.begin();
            world.wait_for_pings(true);
            let south = world.record_at(&world.south, "eth0", "replayed");
            let attacker = world.between.spawn("replay", "python3", &["-c", REPLAY]).unwrap();
            attacker.wait_for_log("hearing", PATIENCE).unwrap();
            let (answered, said) = world.ping(&["-c", "15", "-i", "0.05", "-W", "1", "-s", "200", SOUTH]);
            assert!(answered && said.contains(" 0% packet loss"), "{said}");
            attacker.wait_for_log("replayed", PATIENCE).unwrap();
            assert!(!attacker.log().contains("replayed 0"), "{}", attacker.log());
            let of_them = format!("src host {NORTH} and icmp and greater 230 and less 300");
            // The next ping comes after all that was sent again.
            assert!(world.ping(&["-c", "1", "-W", "2", "-s", "400", SOUTH]).0);
            south.wait_for("icmp and greater 430");
            assert_eq!(south.packets(&of_them).len(), 15);
            for gateway in [first, second] {
                gateway.wait_for("tunnel-down", false);
            }
        },
    )
    .unwrap();
}

#[test]
fn the_tunnel_of_a_gateway_whose_key_is_withdrawn_ends_at_once_and_does_not_come_back() {
    lab::sandbox::test(
        "attacks::the_tunnel_of_a_gateway_whose_key_is_withdrawn_ends_at_once_and_does_not_come_back",
        |lab| {
            let world = World::new(lab);
            let [first, second] = world.begin();
            world.wait_for_pings(true);
            let mut withdrawn = Withdrawn::default();
            withdrawn.withdraw(&"gateway/gw-north".parse().unwrap(), Epoch(2));
            let begun = Instant::now();
            second.withdrawn.send_replace(Arc::new(withdrawn));
            second.wait_for_condition("that tunnel to another gateway does not stand", true);
            let said = second.wait_for("tunnel-down", true);
            assert!(said.contains("withdrawn"), "{said}");
            assert!(begun.elapsed() < PATIENCE);
            assert!(!world.pings(SOUTH));
            // The other one tries again, is refused, and says why.
            first.wait_to_hear("gateway/gw-north was withdrawn");
            assert!(!world.pings(SOUTH));
        },
    )
    .unwrap();
}

#[test]
fn another_gateway_of_the_plant_gets_no_tunnel_with_its_own_certificate() {
    lab::sandbox::test(
        "attacks::another_gateway_of_the_plant_gets_no_tunnel_with_its_own_certificate",
        |lab| {
            let world = World::new(lab);
            let between = world.record("another");
            let second = world.gateway("gw-south");
            let links = world
                .namespace("gw-north")
                .spawn("links", "ip", &["monitor", "link"])
                .unwrap();
            let other = world.gateway_as("gw-north", "gw-east");
            other.wait_to_hear("gateway/gw-east, not gateway/gw-north");
            // In TLS it is done before it is judged: that alone is no tunnel yet, however often it is tried.
            let begun = Instant::now();
            while between
                .packets("src host 203.0.113.1 and udp[8] & 0xf0 = 0xc0")
                .len()
                < 10
            {
                assert!(begun.elapsed() < PATIENCE, "it tries again");
            }
            let seen = links.log();
            let of_device = |line: &&str| line.contains("pst-gw-south");
            assert!(seen.lines().any(|line| of_device(&line)), "{seen}");
            assert!(
                !seen
                    .lines()
                    .filter(of_device)
                    .any(|line| line.contains("LOWER_UP")),
                "{seen}"
            );
            let said = second.wait_for("tunnel-down", true);
            assert!(said.contains("does not connect"), "{said}");
            assert!(!world.pings(SOUTH));
            drop(other);
            // Nor does one that is connected to and is not the one that is meant.
            drop(second);
            let _impostor = world.gateway_as("gw-south", "gw-east");
            let first = world.gateway("gw-north");
            let said = first.wait_for("tunnel-down", true);
            assert!(
                said.contains("gw-east") && said.contains("not gateway/gw-south"),
                "{said}"
            );
            assert!(!world.pings(SOUTH));
            assert!(between.packets(INNER).is_empty());
        },
    )
    .unwrap();
}

/// Many who begin handshakes, each from another port, and many who send anything.
const FLOOD: &str = r#"
import os, socket, time
print("flooding", flush=True)
until, count = time.time() + 4, 0
while time.time() < until:
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for _ in range(200):
        initial = b"\xc3\x00\x00\x00\x01\x08" + os.urandom(8) + b"\x08" + os.urandom(8) + b"\x00\x44\x9e" + os.urandom(1178)
        out.sendto(initial, ("203.0.113.2", 4433))
        out.sendto(os.urandom(64), ("203.0.113.2", 4433))
        count += 2
    out.close()
print("flooded", count, flush=True)
"#;

#[test]
fn strangers_who_flood_the_port_neither_end_a_tunnel_nor_keep_one_from_coming_up() {
    lab::sandbox::test(
        "attacks::strangers_who_flood_the_port_neither_end_a_tunnel_nor_keep_one_from_coming_up",
        |lab| {
            let world = World::new(lab);
            let [first, _second] = world.begin();
            world.wait_for_pings(true);
            world.between.address("br0", "203.0.113.9/24").unwrap();
            let flood = |name| {
                let flood = world.between.spawn(name, "python3", &["-c", FLOOD]).unwrap();
                flood.wait_for_log("flooding", PATIENCE).unwrap();
                flood
            };
            let standing = flood("flood-standing");
            let (answered, said) = world.ping(&["-c", "30", "-i", "0.1", "-W", "2", SOUTH]);
            assert!(answered, "{said}");
            standing.wait_for_log("flooded", PATIENCE).unwrap();
            drop(first);
            let coming = flood("flood-coming");
            let _first = world.gateway("gw-north");
            world.wait_for_pings(true);
            drop(coming);
        },
    )
    .unwrap();
}

//! What runs in a tunnel arrives, of both families, TCP, UDP and ICMP, of every size and over poor lines.

use std::time::Duration;

use penstock_lab as lab;

use super::world::{INNER, PATIENCE, SOUTH, SOUTH6, World};

/// What `iperf3` in the north says of sending to the south.
fn iperf(world: &World, name: &str, arguments: &[&str]) -> String {
    let server = world
        .south
        .spawn(name, "iperf3", &["-s", "-1", "--forceflush"])
        .unwrap();
    server.wait_for_log("Server listening", PATIENCE).unwrap();
    world
        .north
        .run("iperf3", &[&["-c", SOUTH], arguments].concat())
        .unwrap()
}

#[test]
fn a_tunnelled_conduit_carries_ping_tcp_and_udp_of_both_families_and_the_network_between_sees_none_of_it() {
    lab::sandbox::test(
        "passes::a_tunnelled_conduit_carries_ping_tcp_and_udp_of_both_families_and_the_network_between_sees_none_of_it",
        |lab| {
            let world = World::new(lab);
            let between = world.record("all");
            let _gateways = world.begin();
            world.wait_for_pings(true);
            assert!(world.pings(SOUTH6), "IPv6");
            let tcp = iperf(&world, "tcp", &["-n", "20M"]);
            assert!(tcp.contains("receiver"), "{tcp}");
            let udp = iperf(&world, "udp", &["-u", "-b", "5M", "-t", "2", "-l", "1000"]);
            assert!(udp.contains("(0%)"), "{udp}");
            let clear = between.packets(INNER);
            assert!(clear.is_empty(), "{clear:?}");
            let others = between.packets("ip and not (udp port 4433 and host 203.0.113.1 and host 203.0.113.2) and not igmp and not icmp[icmptype] = icmp-unreach");
            assert!(others.is_empty(), "{others:?}");
            let carried = between.packets("udp port 4433").len();
            assert!(carried > 10_000, "it went somewhere: {carried}");
            between.saw_all();
        },
    )
    .unwrap();
}

#[test]
fn a_packet_as_large_as_the_tunnel_takes_arrives_and_a_larger_one_is_answered_with_that_size() {
    lab::sandbox::test(
        "passes::a_packet_as_large_as_the_tunnel_takes_arrives_and_a_larger_one_is_answered_with_that_size",
        |lab| {
            let world = World::new(lab);
            let _gateways = world.begin();
            world.wait_for_pings(true);
            // 8 bytes of ICMP and 20 of IP.
            assert!(
                world
                    .ping(&["-c", "1", "-W", "2", "-M", "do", "-s", "1372", SOUTH])
                    .0
            );
            let (answered, said) = world.ping(&["-c", "1", "-W", "2", "-M", "do", "-s", "1373", SOUTH]);
            assert!(!answered && said.contains("mtu = 1400"), "{said}");
            let (answered, said) =
                world.ping(&["-6", "-c", "2", "-W", "2", "-M", "do", "-s", "1400", SOUTH6]);
            assert!(!answered && said.contains("mtu=1400"), "{said}");
        },
    )
    .unwrap();
}

#[test]
fn tcp_asks_for_segments_that_fit_the_tunnel_also_where_its_host_hears_no_icmp() {
    lab::sandbox::test(
        "passes::tcp_asks_for_segments_that_fit_the_tunnel_also_where_its_host_hears_no_icmp",
        |lab| {
            let world = World::new(lab);
            let _gateways = world.begin();
            world.wait_for_pings(true);
            for host in [&world.north, &world.south] {
                let deaf = "table inet deaf { chain input { type filter hook input priority 0; icmp type destination-unreachable drop; }; }";
                host.run("nft", &[deaf]).unwrap();
            }
            let (south, north) = (
                world.record_at(&world.south, "eth0", "south"),
                world.record_at(&world.north, "eth0", "north"),
            );
            iperf(&world, "tcp", &["-n", "2M"]);
            for (recording, filter) in [(&south, "src host 10.1.0.10"), (&north, "src host 10.2.0.10")] {
                let openings = recording.packets(&format!("{filter} and tcp[tcpflags] & tcp-syn != 0"));
                assert!(!openings.is_empty() && openings.iter().all(|line| line.contains("mss 1360")), "{openings:?}");
            }
        },
    )
    .unwrap();
}

#[test]
fn packets_of_every_size_arrive_where_the_network_between_carries_less_than_the_tunnel_takes() {
    lab::sandbox::test(
        "passes::packets_of_every_size_arrive_where_the_network_between_carries_less_than_the_tunnel_takes",
        |lab| {
            let world = World::new(lab);
            // Larger frames vanish there, without a word.
            for port in ["west", "east", "br0"] {
                world.between.ip(&["link", "set", port, "mtu", "1300"]).unwrap();
            }
            let _gateways = world.begin();
            world.wait_for_pings(true);
            for size in ["56", "1172", "1250", "1372"] {
                let (answered, said) =
                    world.ping(&["-c", "3", "-W", "2", "-i", "0.2", "-M", "do", "-s", size, SOUTH]);
                assert!(answered && said.contains(" 0% packet loss"), "{size}: {said}");
            }
            iperf(&world, "tcp", &["-n", "2M"]);
        },
    )
    .unwrap();
}

#[test]
fn certificates_that_have_ended_long_ago_keep_no_tunnel_down() {
    lab::sandbox::test(
        "passes::certificates_that_have_ended_long_ago_keep_no_tunnel_down",
        |lab| {
            let world = World::with(lab, Duration::from_secs(3 * 365 * 24 * 3600));
            let [first, second] = world.begin();
            world.wait_for_pings(true);
            for gateway in [first, second] {
                gateway.wait_for("tunnel-down", false);
            }
        },
    )
    .unwrap();
}

/// A controller that answers every read of one register with 7.
const CONTROLLER: &str = r#"
import socket
server = socket.create_server(("10.2.0.10", 502))
print("listening", flush=True)
while True:
    client, peer = server.accept()
    print("client", peer[0], flush=True)
    while request := client.recv(260):
        client.sendall(request[:4] + b"\0\x05" + request[6:7] + b"\x03\x02\0\x07")
"#;

/// Reads a register that is permitted, and one that is not.
const POLL: &str = r#"
import socket, struct
client = socket.create_connection(("10.2.0.10", 502), 10)
client.settimeout(10)
for address in (3, 300):
    client.sendall(struct.pack(">HHHBBHH", address, 0, 6, 1, 3, address, 1))
    print(address, client.recv(260)[7:].hex())
"#;

#[test]
fn operations_of_a_tunnelled_flow_are_judged_at_both_gateways_and_both_ends_see_each_others_addresses() {
    lab::sandbox::test(
        "passes::operations_of_a_tunnelled_flow_are_judged_at_both_gateways_and_both_ends_see_each_others_addresses",
        |lab| {
            let world = World::new(lab);
            let _gateways = world.begin();
            world.wait_for_pings(true);
            let between = world.record("operations");
            let controller = world.south.spawn("controller", "python3", &["-c", CONTROLLER]).unwrap();
            controller.wait_for_log("listening", PATIENCE).unwrap();
            let said = world.north.run("python3", &["-c", POLL]).unwrap();
            assert_eq!(said, "3 03020007\n300 8302\n", "the second is refused by the first gateway");
            assert!(controller.log().contains("client 10.1.0.10"), "{}", controller.log());
            assert!(between.packets(INNER).is_empty());
        },
    )
    .unwrap();
}

//! Nothing that belongs into a tunnel crosses in the clear, whatever ends the tunnel, and what ended it is known within seconds.

use penstock_lab as lab;

use super::world::{INNER, NORTH, Recording, SOUTH, World};

fn assert_nothing(recording: &Recording, filter: &str) {
    let packets = recording.packets(filter);
    assert!(packets.is_empty(), "{packets:?}");
}

#[test]
fn a_line_that_is_cut_is_known_at_both_ends_and_the_tunnel_comes_back_by_itself() {
    lab::sandbox::test(
        "clear::a_line_that_is_cut_is_known_at_both_ends_and_the_tunnel_comes_back_by_itself",
        |lab| {
            let world = World::new(lab);
            let [first, second] = world.begin();
            world.wait_for_pings(true);
            let between = world.record_at(&world.between, "west", "cut");
            world.between.ip(&["link", "set", "east", "down"]).unwrap();
            for gateway in [&first, &second] {
                let said = gateway.wait_for("tunnel-down", true);
                assert!(said.contains("nothing comes from the other gateway"), "{said}");
                gateway.wait_for_condition("that tunnel to another gateway does not stand", true);
                let faults = gateway.faults.borrow();
                assert_eq!(faults[0].zones, ["north", "south"], "not the network between");
                assert_eq!(faults[0].flows[0], "steering/stream", "the must-flow first");
            }
            assert!(!world.pings(SOUTH));
            assert_nothing(&between, INNER);
            world.between.ip(&["link", "set", "east", "up"]).unwrap();
            world.wait_for_pings(true);
            for gateway in [&first, &second] {
                gateway.wait_for("tunnel-down", false);
                gateway.wait_for_condition("that tunnel to another gateway does not stand", false);
            }
        },
    )
    .unwrap();
}

#[test]
fn an_agent_that_is_killed_leaves_no_way_in_the_clear_and_the_next_one_takes_up_the_tunnel() {
    lab::sandbox::test(
        "clear::an_agent_that_is_killed_leaves_no_way_in_the_clear_and_the_next_one_takes_up_the_tunnel",
        |lab| {
            let world = World::new(lab);
            let [first, second] = world.begin();
            world.wait_for_pings(true);
            let (between, south) = (
                world.record("killed"),
                world.record_at(&world.south, "eth0", "killed-south"),
            );
            let before = south.packets(&format!("src host {NORTH}")).len();
            // Its device is gone, and the machine's own route to the south leads over the network between.
            drop(first);
            world.wait_for_pings(false);
            let way = world.namespace("gw-north").ip(&["route", "get", SOUTH]).unwrap();
            assert!(way.contains("wan0"), "{way}");
            assert!(!world.pings(SOUTH));
            assert_nothing(&between, INNER);
            second.wait_for("tunnel-down", true);
            let first = world.gateway("gw-north");
            world.wait_for_pings(true);
            // And the other end.
            drop(second);
            world.wait_for_pings(false);
            assert!(!world.pings(SOUTH));
            assert_nothing(&between, INNER);
            first.wait_for("tunnel-down", true);
            let _second = world.gateway("gw-south");
            world.wait_for_pings(true);
            assert!(south.packets(&format!("src host {NORTH}")).len() > before);
            assert_nothing(&between, INNER);
        },
    )
    .unwrap();
}

#[test]
fn a_packet_that_claims_to_come_from_beyond_the_tunnel_does_not_get_in_beside_it() {
    lab::sandbox::test(
        "clear::a_packet_that_claims_to_come_from_beyond_the_tunnel_does_not_get_in_beside_it",
        |lab| {
            let world = World::new(lab);
            let [_first, second] = world.begin();
            world.wait_for_pings(true);
            // A stranger on the network between, with the address of the host in the north.
            world.between.address("br0", "203.0.113.9/24").unwrap();
            world.between.address("br0", &format!("{NORTH}/32")).unwrap();
            world.between.route("10.2.0.0/24", "203.0.113.2").unwrap();
            let (south, between) = (
                world.record_at(&world.south, "eth0", "forged"),
                world.record("forged-between"),
            );
            let forge = || {
                let mut ping = world.between.command("ping");
                let forged = ["-I", NORTH, "-c", "3", "-i", "0.2", "-W", "1", "-s", "99", SOUTH];
                assert!(!ping.args(forged).output().unwrap().status.success());
            };
            let of_them = "icmp[icmptype] = icmp-echo and less 160 and greater 120";
            forge();
            // What came after them is recorded.
            assert!(world.ping(&["-c", "1", "-W", "2", "-s", "400", SOUTH]).0);
            south.wait_for("icmp and greater 430");
            assert_nothing(&south, of_them);
            // Also while no agent lives there.
            drop(second);
            forge();
            assert_nothing(&south, of_them);
            between.wait_for(of_them);
        },
    )
    .unwrap();
}

#[test]
fn a_plan_that_leaves_a_tunnel_as_it_was_does_not_touch_it_and_one_without_it_ends_it() {
    lab::sandbox::test(
        "clear::a_plan_that_leaves_a_tunnel_as_it_was_does_not_touch_it_and_one_without_it_ends_it",
        |lab| {
            let world = World::new(lab);
            let [first, second] = world.begin();
            world.wait_for_pings(true);
            let device = || {
                world
                    .namespace("gw-north")
                    .ip(&["-o", "link", "show", "pst-gw-south"])
            };
            let before = device().unwrap();
            first.change(|plan| plan.rules.truncate(1));
            let (answered, said) = world.ping(&["-c", "20", "-i", "0.1", "-W", "1", SOUTH]);
            assert!(answered && said.contains(" 0% packet loss"), "{said}");
            assert_eq!(device().unwrap(), before);
            first.change(|plan| plan.tunnels = None);
            world.wait_for_pings(false);
            assert!(device().is_err());
            let said = second.wait_for("tunnel-down", true);
            assert!(said.contains("gateway gw-north"), "{said}");
        },
    )
    .unwrap();
}

//! What crosses, as it was; what does not; and that nothing comes back.

use std::time::{Duration, Instant};

use penstock_lab::wait_until;

use super::gateway::GUARDED;
use super::world::{FROM, Listener, PATIENCE, TO, numbered, permit, plan, publish, refused, test};

#[test]
fn publications_of_every_quality_cross_in_order_as_they_were_and_nothing_else_does() {
    test(
        "flows::publications_of_every_quality_cross_in_order_as_they_were_and_nothing_else_does",
        |world| {
            let _brokers = world.brokers();
            let mut gateway = world.start_connected(&plan(vec![
                permit(&["works/+/value"], 0, 2, false),
                permit(&["works/state"], 1, 1, true),
            ]));
            let listener = world.listen();
            for qos in 0..3 {
                world.publish(
                    &format!("works/{qos}/value"),
                    qos,
                    &numbered(&format!("q{qos}-"), 200),
                );
            }
            listener.wait_for(600);
            for qos in 0..3 {
                let wanted: Vec<_> = numbered(&format!("q{qos}-"), 200)
                    .iter()
                    .map(|payload| format!("works/{qos}/value {qos} 0 {payload}"))
                    .collect();
                let prefix = format!("works/{qos}/");
                let came: Vec<_> = listener
                    .lines()
                    .into_iter()
                    .filter(|line| line.starts_with(&prefix))
                    .collect();
                assert_eq!(came, wanted, "in order, once, at QoS {qos}");
            }

            // Another topic does not even come; a quality above the permitted is lowered by the sending broker; below it,
            // and retained where that is not permitted, is refused.
            world.publish("works/secret", 1, &["no".to_owned()]);
            world.publish("works/state", 2, &["lowered".to_owned()]);
            world.publish("works/state", 0, &["no".to_owned()]);
            for (topic, word) in [("works/1/value", "no"), ("works/state", "kept")] {
                let retained = ["-h", FROM, "-t", topic, "-q", "1", "-r", "-m", word];
                world.from.run("mosquitto_pub", &retained).unwrap();
            }
            wait_until("the retained state", PATIENCE, || {
                listener.lines().contains(&"works/state 1 1 kept".to_owned())
            })
            .unwrap();
            let lines = listener.lines();
            assert!(lines.iter().all(|line| !line.ends_with(" no")), "{lines:?}");
            assert!(lines.contains(&"works/state 1 0 lowered".to_owned()));
            let late = ["-h", TO, "-t", "works/state", "-C", "1", "-W", "10"];
            assert_eq!(
                world.to.run("mosquitto_sub", &late).unwrap().trim(),
                "kept",
                "retained there too"
            );

            gateway.terminate(PATIENCE).unwrap();
            assert_eq!(refused(&world.trail()), 2);
        },
    );
}

#[test]
fn nothing_flows_back_and_no_packet_is_forwarded_while_the_kernel_guards() {
    test(
        "flows::nothing_flows_back_and_no_packet_is_forwarded_while_the_kernel_guards",
        |world| {
            let _brokers = world.brokers();
            // Were there a way, it would be open: the gateway could route, and both sides know it as their router.
            world.gateway.forward().unwrap();
            world.from.route("default", "10.1.0.1").unwrap();
            world.to.route("default", "10.2.0.1").unwrap();
            world.obey(&plan(vec![permit(&["#"], 0, 2, true)]));
            let gateway = world.start_with(&[(GUARDED, "1")]);
            gateway.wait_for_log("guarded", PATIENCE).unwrap();
            world.wait_for("both brokers", |state| state.from.connected && state.to.connected);

            let there = world.listen();
            let here = Listener::new(&world.from, FROM, "here");
            publish(&world.to, TO, "works/command", 1, &numbered("back-", 50));
            world.publish("works/value", 1, &numbered("forth-", 50));
            there.wait_for(100);
            let heard = here.payloads();
            assert_eq!(heard, numbered("forth-", 50), "only what was published here");
            let reach = |from: &penstock_lab::Namespace, to: &str| {
                let address = format!("{to}:1883").parse().unwrap();
                from.enter(|| {
                    std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
                })
                .unwrap()
            };
            assert!(!reach(&world.from, TO), "no packet from one zone to the other");
            assert!(!reach(&world.to, FROM), "nor back");
        },
    );
}

#[test]
fn a_backlog_crosses_at_a_rate_that_is_worth_a_bridge() {
    test(
        "flows::a_backlog_crosses_at_a_rate_that_is_worth_a_bridge",
        |world| {
            let count: usize = std::env::var("PENSTOCK_BRIDGE_MESSAGES").map_or(5000, |n| n.parse().unwrap());
            let (_from, _to) = (
                world.broker(&world.from, FROM, "max_inflight_messages 0"),
                world.broker(&world.to, TO, "max_inflight_messages 0"),
            );
            let mut gateway = world.start_connected(&plan(vec![permit(&["works/#"], 0, 2, false)]));
            let listener = world.listen();
            gateway.terminate(PATIENCE).unwrap();
            world.publish("works/value", 1, &numbered(&"x".repeat(90), count));
            let begun = Instant::now();
            gateway = world.start();
            wait_until("the backlog", Duration::from_secs(120), || {
                std::thread::sleep(Duration::from_millis(50));
                listener.lines().len() >= count
            })
            .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", world.bridge(), gateway.log()));
            let rate = count as f64 / begun.elapsed().as_secs_f64();
            let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
            let resident = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
            println!("QoS 1: {count} messages of 100 bytes, {rate:.0} a second, {resident}");
            assert!(rate > 200.0, "{rate:.0} a second");
        },
    );
}

//! Brokers that go away and gateways that are killed: nothing acknowledged is lost, and order stays.

use std::io::Write as _;
use std::process::Stdio;
use std::thread::JoinHandle;
use std::time::Duration;

use penstock_lab::wait_until;

use super::world::{FROM, PATIENCE, TO, World, first_of_each, numbered, permit, plan, test};

/// The payloads with this prefix, as they came.
fn of(came: &[String], prefix: &str) -> Vec<String> {
    let begins = came.iter().filter(|payload| payload.starts_with(prefix));
    begins.cloned().collect()
}

#[test]
fn messages_wait_for_a_broker_that_is_away_and_arrive_whole_and_in_order() {
    test(
        "outages::messages_wait_for_a_broker_that_is_away_and_arrive_whole_and_in_order",
        |world| {
            let (_from, mut to) = world.brokers();
            let _gateway = world.start_connected(&plan(vec![permit(&["works/#"], 1, 2, false)]));
            let listener = world.listen();
            world.publish("works/1", 1, &numbered("a", 300));
            listener.wait_for(300);
            to.terminate(PATIENCE).unwrap();
            world.publish("works/1", 1, &numbered("b", 400));
            world.publish("works/2", 2, &numbered("c", 400));
            world.wait_for("the backlog", |state| state.backlog == 800 && !state.to.connected);
            assert!(world.bridge().unwrap().oldest_ms.is_some());
            let _to = world.broker(&world.to, TO, "");
            listener.wait_for(1100);
            world.wait_for("an empty queue", |state| state.backlog == 0);
            let came = listener.payloads();
            assert_eq!(first_of_each(of(&came, "a")), numbered("a", 300));
            assert_eq!(first_of_each(of(&came, "b")), numbered("b", 400));
            assert_eq!(of(&came, "c"), numbered("c", 400), "once, at QoS 2");
        },
    );
}

#[test]
fn a_receiving_broker_that_restarts_in_mid_delivery_gets_everything_in_order() {
    test(
        "outages::a_receiving_broker_that_restarts_in_mid_delivery_gets_everything_in_order",
        |world| {
            const COUNT: usize = 1500;
            let (_from, mut to) = world.brokers();
            let _gateway = world.start_connected(&plan(vec![permit(&["works/#"], 1, 2, false)]));
            let listener = world.listen();
            let publishing = [1, 2].map(|qos| publisher(world, qos, COUNT));
            for restart in 0..3 {
                std::thread::sleep(Duration::from_millis(300 + restart * 300));
                to.terminate(PATIENCE).unwrap();
                to = world.broker(&world.to, TO, "");
                world.wait_for("the broker again", |state| state.to.connected);
            }
            for publisher in publishing {
                publisher.join().unwrap();
            }
            listener.wait_for(2 * COUNT);
            world.wait_for("an empty queue", |state| state.backlog == 0);
            let came = listener.payloads();
            let repeated = of(&came, "q1-").len() - COUNT;
            println!("{repeated} of {COUNT} repeated at QoS 1");
            assert_eq!(first_of_each(of(&came, "q1-")), numbered("q1-", COUNT));
            assert_eq!(of(&came, "q2-"), numbered("q2-", COUNT), "once, at QoS 2");
        },
    );
}

#[test]
fn a_sending_broker_that_restarts_is_subscribed_again_and_loses_nothing() {
    test(
        "outages::a_sending_broker_that_restarts_is_subscribed_again_and_loses_nothing",
        |world| {
            let (mut from, _to) = world.brokers();
            let _gateway = world.start_connected(&plan(vec![permit(&["works/#"], 1, 2, false)]));
            let listener = world.listen();
            let (mut ones, mut twos) = (Vec::new(), Vec::new());
            for round in 0..3 {
                let mut publish = |when: &str| {
                    let name = |qos: u8| format!("q{qos}-{when}{round}-");
                    let (one, two) = (numbered(&name(1), 100), numbered(&name(2), 100));
                    world.publish("works/1", 1, &one);
                    world.publish("works/2", 2, &two);
                    ones.extend(one);
                    twos.extend(two);
                };
                publish("before");
                from.terminate(PATIENCE).unwrap();
                from = world.broker(&world.from, FROM, "");
                // Before the gateway is back: the broker keeps it for the session.
                publish("after");
            }
            listener.wait_for(1200);
            let came = listener.payloads();
            assert_eq!(first_of_each(of(&came, "q1-")), ones);
            assert_eq!(of(&came, "q2-"), twos, "once, at QoS 2");
        },
    );
}

/// Publishes one line every few milliseconds, so that the kills meet every stage of a message's life. No program is started for
/// a line: on a busy machine that takes longer than all the rest.
fn publisher(world: &World, qos: u8, count: usize) -> JoinHandle<()> {
    let mut command = world.from.command("mosquitto_pub");
    command.args([
        "-V",
        "5",
        "-h",
        FROM,
        "-l",
        "-t",
        &format!("works/{qos}"),
        "-q",
        &qos.to_string(),
    ]);
    let mut publishing = command.stdin(Stdio::piped()).spawn().unwrap();
    std::thread::spawn(move || {
        let mut lines = publishing.stdin.take().unwrap();
        for line in numbered(&format!("q{qos}-"), count) {
            writeln!(lines, "{line}").unwrap();
            std::thread::sleep(Duration::from_millis(3));
        }
        drop(lines);
        assert!(publishing.wait().unwrap().success());
    })
}

#[test]
fn a_gateway_killed_again_and_again_loses_nothing_repeats_only_at_qos_1_and_keeps_the_order() {
    test(
        "outages::a_gateway_killed_again_and_again_loses_nothing_repeats_only_at_qos_1_and_keeps_the_order",
        |world| {
            const COUNT: usize = 1500;
            let _brokers = world.brokers();
            let mut gateway = world.start_connected(&plan(vec![permit(&["works/#"], 1, 2, false)]));
            let listener = world.listen();
            let publishing = [1, 2].map(|qos| publisher(world, qos, COUNT));
            let mut kills = 0;
            while kills < 4 || !publishing.iter().all(JoinHandle::is_finished) {
                let wait = 150 + kills * 7919 % 400;
                std::thread::sleep(Duration::from_millis(wait));
                gateway.kill();
                kills += 1;
                gateway = world.start();
                assert!(kills < 1000, "the publishers end");
            }
            for publisher in publishing {
                publisher.join().unwrap();
            }
            listener.wait_for(2 * COUNT);
            // What was under way at the last kill has time to come twice, should it.
            world.wait_for("an empty queue", |state| state.backlog == 0 && state.to.connected);
            wait_until("silence", PATIENCE, || {
                let before = listener.lines().len();
                std::thread::sleep(Duration::from_secs(1));
                listener.lines().len() == before
            })
            .unwrap();
            let came = listener.payloads();
            assert_eq!(
                of(&came, "q2-"),
                numbered("q2-", COUNT),
                "exactly once over {kills} kills"
            );
            let repeated = of(&came, "q1-").len() - COUNT;
            println!("{kills} kills, {repeated} of {COUNT} repeated at QoS 1");
            assert_eq!(first_of_each(of(&came, "q1-")), numbered("q1-", COUNT));
            gateway.terminate(PATIENCE).unwrap();
        },
    );
}

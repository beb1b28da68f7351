//! Where there is no room: nothing is acknowledged, so nothing is lost; and what the disk damaged is never sent.

use std::time::Duration;

use super::gateway::QUEUE_BYTES;
use super::world::{PATIENCE, TO, fill, first_of_each, losses, numbered, permit, plan, test};

#[test]
fn a_full_queue_leaves_messages_with_their_broker_and_takes_them_when_there_is_room() {
    test(
        "room::a_full_queue_leaves_messages_with_their_broker_and_takes_them_when_there_is_room",
        |world| {
            let (_from, mut to) = world.brokers();
            let policy = plan(vec![permit(&["works/#"], 0, 2, false)]);
            world.start_connected(&policy).terminate(PATIENCE).unwrap();
            let listener = world.listen();
            let mut gateway = world.start_with(&[(QUEUE_BYTES, "1048576")]);
            world.wait_for("both brokers", |state| state.from.connected && state.to.connected);
            to.terminate(PATIENCE).unwrap();
            let long: Vec<_> = numbered("", 400)
                .into_iter()
                .map(|line| format!("{line}{}", "x".repeat(9_000)))
                .collect();
            world.publish("works/a", 1, &long[..200]);
            world.publish("works/b", 2, &long[200..]);
            world.wait_for("a full queue", |state| state.full.is_some());
            assert!(world.bridge().unwrap().bytes < 1_400_000);
            // Also a gateway that dies while it is full has lost nothing.
            gateway.kill();
            gateway = world.start_with(&[(QUEUE_BYTES, "1048576")]);
            world.wait_for("a full queue again", |state| state.full.is_some());
            let _to = world.broker(&world.to, TO, "");
            listener.wait_for(400);
            let came = first_of_each(listener.payloads());
            assert_eq!(came.len(), 400);
            let numbers = |from: usize, to: usize| -> Vec<String> {
                came.iter()
                    .filter(|line| (from..to).contains(&line[..6].parse().unwrap()))
                    .cloned()
                    .collect()
            };
            assert_eq!(numbers(0, 200), long[..200], "in order at QoS 1");
            assert_eq!(numbers(200, 400), long[200..], "and at QoS 2");
            world.wait_for("room", |state| state.full.is_none() && state.backlog == 0);
            gateway.terminate(PATIENCE).unwrap();
            assert_eq!(losses(&world.trail(), "bridge-full"), 0);
        },
    );
}

#[test]
fn without_room_only_qos_0_is_lost_and_it_is_told_by_number() {
    test(
        "room::without_room_only_qos_0_is_lost_and_it_is_told_by_number",
        |world| {
            let (_from, mut to) = world.brokers();
            world.obey(&plan(vec![permit(&["works/#"], 0, 2, false)]));
            let mut gateway = world.start_with(&[(QUEUE_BYTES, "1048576")]);
            world.wait_for("both brokers", |state| state.from.connected && state.to.connected);
            let listener = world.listen();
            to.terminate(PATIENCE).unwrap();
            let long: Vec<_> = numbered("", 300)
                .into_iter()
                .map(|line| format!("{line}{}", "x".repeat(9_000)))
                .collect();
            world.publish("works/a", 0, &long);
            world.wait_for("a full queue", |state| state.full.is_some());
            std::thread::sleep(Duration::from_secs(1));
            // It keeps QoS 0, too, for a listener that comes back after the bridge.
            let _to = world.broker(&world.to, TO, "queue_qos0_messages true");
            world.wait_for("an empty queue", |state| state.backlog == 0);
            gateway.terminate(PATIENCE).unwrap();
            let lost = usize::try_from(losses(&world.trail(), "bridge-full")).unwrap();
            assert!((1..300).contains(&lost), "{lost}");
            listener.wait_for(300 - lost);
            assert_eq!(listener.payloads().len(), 300 - lost);
        },
    );
}

#[test]
fn a_full_disk_loses_nothing_that_was_acknowledged_and_delivery_goes_on() {
    test(
        "room::a_full_disk_loses_nothing_that_was_acknowledged_and_delivery_goes_on",
        |world| {
            world.small_disk(6 * 1024);
            let (_from, mut to) = world.brokers();
            let mut gateway = world.start_connected(&plan(vec![permit(&["works/#"], 1, 2, false)]));
            let listener = world.listen();
            to.terminate(PATIENCE).unwrap();
            world.publish("works/a", 1, &numbered("a", 300));
            world.publish("works/b", 2, &numbered("b", 300));
            world.wait_for("the backlog", |state| state.backlog == 600);
            let ballast = fill(&world.state);
            world.publish("works/a", 1, &numbered("c", 300));
            std::thread::sleep(Duration::from_secs(2));
            gateway.kill();
            gateway = world.start();
            let _to = world.broker(&world.to, TO, "");
            // What was taken before arrives although not a byte can be written.
            listener.wait_for(600);
            std::fs::remove_file(ballast).unwrap();
            listener.wait_for(900);
            let came = first_of_each(listener.payloads());
            let (values, others): (Vec<_>, Vec<_>) =
                came.into_iter().partition(|line| !line.starts_with('b'));
            assert_eq!(values, [numbered("a", 300), numbered("c", 300)].concat());
            assert_eq!(others, numbered("b", 300));
            gateway.terminate(PATIENCE).unwrap();
        },
    );
}

#[test]
fn what_the_disk_damaged_is_not_sent_and_is_told_by_number() {
    test(
        "room::what_the_disk_damaged_is_not_sent_and_is_told_by_number",
        |world| {
            let (_from, mut to) = world.brokers();
            let mut gateway = world.start_connected(&plan(vec![permit(&["works/#"], 1, 1, false)]));
            let listener = world.listen();
            to.terminate(PATIENCE).unwrap();
            world.publish("works/a", 1, &numbered("a", 200));
            world.wait_for("the backlog", |state| state.backlog == 200);
            gateway.kill();
            let bridges = world.state.join("bridges");
            let queue = std::fs::read_dir(&bridges)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .find(|path| path.is_dir())
                .unwrap();
            let mut flipped = 0;
            for entry in std::fs::read_dir(queue).unwrap() {
                let path = entry.unwrap().path();
                let mut bytes = std::fs::read(&path).unwrap();
                for number in [17, 90, 91] {
                    let wanted = format!("a{number:06}");
                    if let Some(at) = bytes.windows(7).position(|window| window == wanted.as_bytes()) {
                        bytes[at + 3] ^= 1;
                        flipped += 1;
                    }
                }
                std::fs::write(&path, bytes).unwrap();
            }
            assert_eq!(flipped, 3);
            let _to = world.broker(&world.to, TO, "");
            gateway = world.start();
            listener.wait_for(197);
            world.wait_for("an empty queue", |state| state.backlog == 0 && state.to.connected);
            let whole = numbered("a", 200);
            let wanted: Vec<_> = [&whole[..17], &whole[18..90], &whole[92..]].concat();
            assert_eq!(first_of_each(listener.payloads()), wanted);
            gateway.terminate(PATIENCE).unwrap();
            assert_eq!(losses(&world.trail(), "bridge-damaged"), 3);
        },
    );
}

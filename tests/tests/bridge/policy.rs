//! The bridge follows the policy in force: revoked, narrowed, and at another address.

use std::time::Duration;

use penstock_lab::wait_until;

use super::world::{FROM, PATIENCE, TO, losses, numbered, permit, plan, refused, test};

#[test]
fn a_revoked_bridge_delivers_nothing_more_and_its_messages_are_told_as_lost() {
    test(
        "policy::a_revoked_bridge_delivers_nothing_more_and_its_messages_are_told_as_lost",
        |world| {
            let (_from, mut to) = world.brokers();
            let open = plan(vec![permit(&["works/#"], 1, 2, false)]);
            let mut gateway = world.start_connected(&open);
            let listener = world.listen();
            world.publish("works/a", 1, &numbered("a", 10));
            listener.wait_for(10);
            to.terminate(PATIENCE).unwrap();
            world.publish("works/a", 1, &numbered("b", 50));
            world.wait_for("the backlog", |state| state.backlog == 50);
            let mut closed = open.clone();
            closed.bridges.clear();
            world.obey(&closed);
            wait_until("no bridge", PATIENCE, || world.bridge().is_none()).unwrap();
            let _to = world.broker(&world.to, TO, "");
            world.publish("works/a", 1, &numbered("c", 10));
            std::thread::sleep(Duration::from_secs(2));
            assert_eq!(listener.payloads().len(), 10);
            // Permitted again, it begins anew: also the sending broker has forgotten what it kept for it.
            world.obey(&open);
            world.wait_for("both brokers", |state| state.from.connected && state.to.connected);
            world.publish("works/a", 1, &numbered("d", 10));
            listener.wait_for(20);
            assert_eq!(listener.payloads()[10..], numbered("d", 10));
            gateway.terminate(PATIENCE).unwrap();
            assert_eq!(losses(&world.trail(), "bridge-revoked"), 50);
        },
    );
}

#[test]
fn a_message_that_waited_meets_the_policy_of_the_day_on_which_it_leaves() {
    test(
        "policy::a_message_that_waited_meets_the_policy_of_the_day_on_which_it_leaves",
        |world| {
            let (_from, mut to) = world.brokers();
            let mut gateway = world.start_connected(&plan(vec![permit(&["works/#", "lab/#"], 1, 2, false)]));
            let listener = world.listen();
            to.terminate(PATIENCE).unwrap();
            world.publish("works/a", 1, &numbered("a", 20));
            world.publish("lab/a", 1, &numbered("b", 30));
            world.wait_for("the backlog", |state| state.backlog == 50);
            // The agent does not run while the policy changes, and is found by it when it comes back.
            gateway.kill();
            world.obey(&plan(vec![permit(&["works/#"], 1, 2, false)]));
            let _to = world.broker(&world.to, TO, "");
            gateway = world.start();
            world.wait_for("an empty queue", |state| state.backlog == 0 && state.to.connected);
            listener.wait_for(20);
            world.publish("lab/a", 1, &numbered("c", 5));
            world.publish("works/a", 1, &numbered("d", 5));
            listener.wait_for(25);
            assert_eq!(
                listener.payloads(),
                [numbered("a", 20), numbered("d", 5)].concat(),
                "in order, and nothing of the lab"
            );
            gateway.terminate(PATIENCE).unwrap();
            let trail = world.trail();
            assert_eq!(losses(&trail, "bridge-no-longer-permitted"), 30);
            assert_eq!(
                refused(&trail),
                30,
                "what is no longer subscribed to does not even come"
            );
        },
    );
}

#[test]
fn a_publication_that_has_expired_is_not_delivered_late() {
    test(
        "policy::a_publication_that_has_expired_is_not_delivered_late",
        |world| {
            let (_from, mut to) = world.brokers();
            let mut gateway = world.start_connected(&plan(vec![permit(&["works/#"], 1, 2, false)]));
            let listener = world.listen();
            to.terminate(PATIENCE).unwrap();
            let open_valve = [
                "-V",
                "5",
                "-h",
                FROM,
                "-t",
                "works/valve",
                "-q",
                "1",
                "-m",
                "open",
            ];
            let expiring = ["-D", "publish", "message-expiry-interval", "5"];
            world
                .from
                .run("mosquitto_pub", &[&open_valve[..], &expiring].concat())
                .unwrap();
            world.publish("works/value", 1, &["lasting".to_owned()]);
            world.wait_for("the backlog", |state| state.backlog == 2);
            std::thread::sleep(Duration::from_secs(6));
            let _to = world.broker(&world.to, TO, "");
            listener.wait_for(1);
            world.wait_for("an empty queue", |state| state.backlog == 0);
            assert_eq!(listener.payloads(), ["lasting"]);
            gateway.terminate(PATIENCE).unwrap();
            assert_eq!(losses(&world.trail(), "bridge-expired"), 1);
        },
    );
}

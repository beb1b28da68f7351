//! Between zones that only observe no change of the policy ends, holds or changes what stands.

use super::*;

/// What the policy says of the connection, each in turn.
fn policies(port: u16) -> Vec<(&'static str, Plan)> {
    let reading = |enforcement| plan(port, Some(operations("read-only")), enforcement);
    let observed = || reading(Enforcement::Observe);
    let without = |plan: Plan| Plan {
        rules: Vec::new(),
        ..plan
    };
    let mut in_order = observed();
    in_order.rules[0].answers = penstock_policy::terms::Answers::InOrder;
    let mut unusable = observed();
    let mut mqtt = unusable.rules[0].clone();
    mqtt.operations = Some(Arc::new(Operations::from(vec![
        penstock_policy::protocol::mqtt::MqttOperation::Connect {
            client_ids: None,
            users: None,
        },
    ])));
    unusable.rules.push(mqtt);
    vec![
        ("removed", without(observed())),
        ("back", observed()),
        ("with answers in order", in_order),
        ("another protocol", unusable),
        ("enforced", reading(Enforcement::Enforce)),
        ("observed and removed", without(observed())),
        ("plain", plan(port, None, Enforcement::Observe)),
        ("inspected again", observed()),
    ]
}

async fn put(world: &World, plan: &Plan) {
    let policy = Inspector::prepare(Arc::new(plan.clone()), Revision(3)).unwrap();
    // As the agent does: held while the kernel changes.
    let hold = world.inspector.hold(Arc::clone(&policy)).await;
    world.inspector.put(policy).await;
    drop(hold);
}

/// Half of a request and half of an answer before the change, the rest after it.
async fn goes_on(world: &World, legs: &mut (TcpStream, TcpStream), plan: &Plan, what: &str) {
    let (client, served) = legs;
    client.write_all(&READ).unwrap();
    assert_eq!(read_exactly(served, 12), READ, "{what}");
    served.write_all(&ANSWER[..4]).unwrap();
    client.write_all(&READ[..5]).unwrap();
    put(world, plan).await;
    client.write_all(&READ[5..]).unwrap();
    served.write_all(&ANSWER[4..]).unwrap();
    assert_eq!(read_exactly(served, 12), READ, "{what}");
    assert_eq!(read_exactly(client, 11), ANSWER, "{what}");
    served.write_all(&ANSWER).unwrap();
    assert_eq!(read_exactly(client, 11), ANSWER, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standing_connection_goes_on_whatever_becomes_of_its_flow_between_zones_that_observe() {
    let mut world = World::new(SeatLimits::default());
    world
        .put(Some(operations("read-only")), Enforcement::Observe)
        .await;
    let port = world.server.local_addr().unwrap().port();
    let mut legs = world.pair();
    for (what, plan) in policies(port) {
        goes_on(&world, &mut legs, &plan, what).await;
        if what == "removed" {
            let seen = world.until("the connection would be reset").await;
            let would = seen.last().unwrap();
            assert_eq!(would.decision, Some(Decision::WouldDeny));
            assert_eq!(would.reason, "no flow permits it");
        }
    }
    let removed = Plan {
        rules: Vec::new(),
        ..plan(port, None, Enforcement::Enforce)
    };
    put(&world, &removed).await;
    assert!(is_reset(&mut legs.0), "an enforcing zone ends it");
}

/// Whom the kernel handed over by the policy before.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_arrives_after_its_flow_was_removed_passes_between_zones_that_observe() {
    for at in [0, 3, 5, 6] {
        let world = World::new(SeatLimits::default());
        let (what, plan) = policies(world.server.local_addr().unwrap().port()).swap_remove(at);
        put(&world, &plan).await;
        let (mut client, mut served) = world.pair();
        client.write_all(&WRITE).unwrap();
        assert_eq!(read_exactly(&mut served, 12), WRITE, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_through_a_restart_of_the_agent_too_and_is_followed_on() {
    let world = World::new(SeatLimits::default());
    world
        .put(Some(operations("read-only")), Enforcement::Observe)
        .await;
    let mut legs = world.pair();
    let port = world.server.local_addr().unwrap().port();
    let mut world = world;
    for (what, plan) in policies(port) {
        legs.0.write_all(&READ).unwrap();
        assert_eq!(read_exactly(&mut legs.1, 12), READ, "{what}");
        legs.1.write_all(&ANSWER[..4]).unwrap();
        legs.0.write_all(&READ[..5]).unwrap();
        world = world.restarted(|_| {}).await;
        put(&world, &plan).await;
        legs.0.write_all(&READ[5..]).unwrap();
        legs.1.write_all(&ANSWER[4..]).unwrap();
        assert_eq!(read_exactly(&mut legs.1, 12), READ, "{what}");
        assert_eq!(read_exactly(&mut legs.0, 11), ANSWER, "{what}");
        legs.1.write_all(&ANSWER).unwrap();
        assert_eq!(read_exactly(&mut legs.0, 11), ANSWER, "{what}");
    }
    // It was followed from its beginning to here, so enforcing needs no new one.
    world
        .put(Some(operations("read-only")), Enforcement::Enforce)
        .await;
    legs.0.write_all(&WRITE).unwrap();
    assert_eq!(read_exactly(&mut legs.0, 9), [0, 2, 0, 0, 0, 3, 1, 0x86, 1]);
}

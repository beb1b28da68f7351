//! MQTT clients that a new policy cuts off: at once, and without their wills.

use penstock_policy::protocol::mqtt::MqttOperation;
use penstock_policy::terms::NumberRange;

use super::*;

/// CONNECT of `c` with a will on `status/c`, MQTT 3.1.1.
const CONNECT: &[u8] = b"\x10\x1f\x00\x04MQTT\x04\x06\x00\x3c\x00\x01c\x00\x08status/c\x00\x06absent";
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const DISCONNECT: [u8; 2] = [0xe0, 0];

fn permitting(client: &str, topic: &str) -> Operations {
    Operations::from(vec![
        MqttOperation::Connect {
            client_ids: Some(vec![client.to_owned()]),
            users: None,
        },
        MqttOperation::Publish {
            topics: vec![topic.to_owned()],
            qos: NumberRange { first: 0, last: 2 },
            retain: true,
        },
    ])
}

/// A client that is connected under rules that permit all it has, and that says nothing more.
async fn connected(world: &World) -> (TcpStream, TcpStream) {
    world
        .put(Some(permitting("c", "status/#")), Enforcement::Enforce)
        .await;
    let (mut client, mut served) = world.pair();
    client.write_all(CONNECT).unwrap();
    assert_eq!(read_exactly(&mut served, CONNECT.len()), CONNECT);
    served.write_all(&CONNACK).unwrap();
    assert_eq!(read_exactly(&mut client, 4), CONNACK);
    (client, served)
}

/// The broker hears the client take leave, and then the end; so does the client.
fn takes_leave(client: &mut TcpStream, served: &mut TcpStream) {
    assert_eq!(read_exactly(served, 2), DISCONNECT);
    assert_eq!(served.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_whose_will_is_no_longer_permitted_takes_leave_of_its_broker_at_once() {
    for rules in [permitting("other", "status/#"), permitting("c", "line/#")] {
        let mut world = World::new(SeatLimits::default());
        let (mut client, mut served) = connected(&world).await;
        world.put(Some(rules), Enforcement::Enforce).await;
        takes_leave(&mut client, &mut served);
        let seen = world.until("the policy no longer permits").await;
        assert_eq!(seen.last().unwrap().decision, Some(Decision::Deny));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_flow_is_taken_away_takes_leave_before_the_kernel_changes() {
    let world = World::new(SeatLimits::default());
    let (mut client, mut served) = connected(&world).await;
    let nothing = Plan {
        rules: Vec::new(),
        ..plan(1, None, Enforcement::Enforce)
    };
    let coming = Inspector::prepare(Arc::new(nothing), Revision(9)).unwrap();
    // The kernel changes while this is held.
    let _hold = world.inspector.hold(coming).await;
    takes_leave(&mut client, &mut served);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_limited_no_longer_and_then_is_cut_off_takes_leave_too() {
    let world = World::new(SeatLimits::default());
    let (mut client, mut served) = connected(&world).await;
    world.put(None, Enforcement::Enforce).await;
    world
        .put(Some(permitting("other", "status/#")), Enforcement::Enforce)
        .await;
    takes_leave(&mut client, &mut served);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_new_policy_took_away_during_a_restart_takes_leave_after_it() {
    for rules in [Some(permitting("other", "status/#")), None] {
        let world = World::new(SeatLimits::default());
        let (mut client, mut served) = connected(&world).await;
        let world = world.restarted(|_| {}).await;
        match rules {
            Some(rules) => world.put(Some(rules), Enforcement::Enforce).await,
            None => {
                let nothing = Plan {
                    rules: Vec::new(),
                    ..plan(1, None, Enforcement::Enforce)
                };
                let policy = Inspector::prepare(Arc::new(nothing), Revision(9)).unwrap();
                world.inspector.put(policy).await;
            }
        }
        takes_leave(&mut client, &mut served);
    }
}

/// Their wills are not known, and are taken back where that can be done; else they are named.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_were_not_read_from_their_beginning_leave_no_will_unsaid_when_enforcement_begins() {
    const PINGREQ: [u8; 2] = [0xc0, 0];
    let mut world = World::new(SeatLimits::default());
    world.put(None, Enforcement::Observe).await;
    let (mut unread, mut unread_served) = world.pair();
    unread.write_all(CONNECT).unwrap();
    assert_eq!(read_exactly(&mut unread_served, CONNECT.len()), CONNECT);
    world
        .put(Some(permitting("c", "status/#")), Enforcement::Observe)
        .await;
    let (mut guessed, mut served) = world.pair();
    // What cannot be read, and then a packet.
    for bytes in [&b"what is this?"[..], &PINGREQ] {
        guessed.write_all(bytes).unwrap();
        assert_eq!(read_exactly(&mut served, bytes.len()), bytes);
    }
    world.until("read again from where a packet seems to begin").await;
    world
        .put(Some(permitting("c", "status/#")), Enforcement::Enforce)
        .await;
    takes_leave(&mut guessed, &mut served);
    assert!(is_reset(&mut unread_served));
    world.until("an MQTT broker may publish the client's will").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_flow_now_speaks_another_protocol_takes_leave_too_also_after_a_restart() {
    for restarts in [false, true] {
        let mut world = World::new(SeatLimits::default());
        let (mut client, mut served) = connected(&world).await;
        if restarts {
            world = world.restarted(|_| {}).await;
        }
        world
            .put(Some(operations("read-only")), Enforcement::Enforce)
            .await;
        takes_leave(&mut client, &mut served);
    }
}

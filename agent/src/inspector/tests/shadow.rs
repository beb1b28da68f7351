//! The next plan beside the one in force: what it would refuse goes on, and is counted.

use std::collections::BTreeMap;

use penstock_policy::protocol::mqtt::MqttOperation;
use penstock_policy::terms::{Answers, NumberRange};

use super::*;

/// CONNECT of `c`, MQTT 3.1.1, SUBSCRIBE to `line/a` as number 1, and what the broker answers.
const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c";
const CONNACK: &[u8] = &[0x20, 2, 0, 0];
const SUBSCRIBE: &[u8] = b"\x82\x0b\x00\x01\x00\x06line/a\x00";
const SUBACK: &[u8] = &[0x90, 3, 0, 1, 0];
/// PUBLISH of `x` on `line/a` at QoS 0.
const PUBLISH: &[u8] = b"\x30\x09\x00\x06line/ax";

fn next(world: &World, operations: Option<Operations>) -> Plan {
    plan(
        world.server.local_addr().unwrap().port(),
        operations,
        Enforcement::Enforce,
    )
}

async fn shadow(world: &World, plan: Plan) {
    let policy = Inspector::prepare(Arc::new(plan), Revision(4)).unwrap();
    world.inspector.shadow(Some(policy)).await;
}

/// Refused, cut and reset.
fn counted(world: &World) -> [u64; 3] {
    let InspectedShadowCounts { refused, cut, reset } = world.inspector.shadowed().unwrap();
    let of_flow = |counts: &BTreeMap<u32, u64>| {
        assert!(counts.keys().all(|flow| *flow == 7), "{counts:?}");
        counts.get(&7).copied().unwrap_or_default()
    };
    [&refused, &cut, &reset].map(of_flow)
}

/// What goes on is counted just after.
#[track_caller]
fn counts(world: &World, expected: [u64; 3]) {
    let began = std::time::Instant::now();
    while counted(world) != expected && began.elapsed().as_secs() < 20 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(counted(world), expected);
}

fn reading_and_writing() -> Operations {
    let mut both = operations("read-only");
    both.permitted
        .extend(operations("write-single-register").permitted);
    both
}

/// What one sends comes out at the other.
fn goes(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    from.write_all(bytes).unwrap();
    assert_eq!(read_exactly(to, bytes.len()), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_next_plan_refuses_goes_on_and_is_counted_on_connections_that_stand_and_on_new_ones() {
    let world = World::new(SeatLimits::default());
    world.put(Some(reading_and_writing()), Enforcement::Enforce).await;
    let (mut client, mut served) = world.pair();
    goes(&mut client, &mut served, &READ);
    // It begins amid a packet, and amid an exchange.
    client.write_all(&WRITE[..5]).unwrap();
    // Nothing shows from outside that it was read.
    std::thread::sleep(std::time::Duration::from_millis(500));
    shadow(&world, next(&world, Some(operations("read-only")))).await;
    client.write_all(&WRITE[5..]).unwrap();
    assert_eq!(read_exactly(&mut served, 12), WRITE);
    goes(&mut served, &mut client, &ANSWER);
    goes(&mut served, &mut client, &WRITE);
    // What came before is not heard again; from here on all is.
    counts(&world, [0; 3]);
    goes(&mut client, &mut served, &WRITE);
    goes(&mut served, &mut client, &WRITE);
    counts(&world, [1, 0, 0]);
    let (mut client, mut served) = world.pair();
    for _ in 0..3 {
        goes(&mut client, &mut served, &WRITE);
        goes(&mut served, &mut client, &WRITE);
        goes(&mut client, &mut served, &READ);
        goes(&mut served, &mut client, &ANSWER);
    }
    counts(&world, [4, 0, 0]);
    world.inspector.shadow(None).await;
    goes(&mut client, &mut served, &WRITE);
    assert_eq!(world.inspector.shadowed(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_today_is_not_counted_again() {
    let world = World::reading().await;
    shadow(&world, next(&world, Some(operations("read-only")))).await;
    let (mut client, mut served) = world.pair();
    client.write_all(&WRITE).unwrap();
    assert_eq!(read_exactly(&mut client, 9)[7..], [0x86, 1]);
    goes(&mut client, &mut served, &READ);
    goes(&mut served, &mut client, &ANSWER);
    counts(&world, [0; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_the_next_plan_would_withhold_is_counted() {
    let world = World::new(SeatLimits::default());
    let mut lax = next(&world, Some(operations("read-only")));
    lax.rules[0].answers = Answers::InOrder;
    let policy = Inspector::prepare(Arc::new(lax), Revision(3)).unwrap();
    world.inspector.put(policy).await;
    shadow(&world, next(&world, Some(operations("read-only")))).await;
    let (mut client, mut served) = world.pair();
    goes(&mut client, &mut served, &READ);
    let mut answer = ANSWER;
    answer[1] = 9;
    served.write_all(&answer).unwrap();
    read_exactly(&mut client, 11);
    goes(&mut client, &mut served, &READ);
    let [refused, ..] = counted(&world);
    assert!(refused > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_the_next_plan_would_end_or_first_read_are_counted_once_and_go_on() {
    let world = World::reading().await;
    let (mut client, mut served) = world.pair();
    goes(&mut client, &mut served, &READ);
    let mut none = next(&world, None);
    none.rules.clear();
    shadow(&world, none).await;
    goes(&mut served, &mut client, &ANSWER);
    counts(&world, [0, 1, 0]);
    // Where the next plan limits nothing, or only observes, nothing would change.
    shadow(&world, next(&world, None)).await;
    goes(&mut client, &mut served, &READ);
    counts(&world, [0; 3]);
    let mut observing = next(&world, Some(operations("write-single-register")));
    observing.interfaces[0].observing = Enforcement::Observe.into();
    shadow(&world, observing).await;
    goes(&mut client, &mut served, &READ);
    counts(&world, [0; 3]);
    // A connection that is not read today.
    world.put(None, Enforcement::Enforce).await;
    let (mut unread, mut unread_served) = world.pair();
    shadow(&world, next(&world, Some(operations("read-only")))).await;
    goes(&mut unread, &mut unread_served, &WRITE);
    let [_, cut, reset] = counted(&world);
    assert_eq!((cut, reset), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_whose_subscription_the_next_plan_takes_away_is_counted_as_cut() {
    let subscribing = |topic: &str| {
        let (topics, qos) = (vec![topic.to_owned()], NumberRange { first: 0, last: 2 });
        Some(Operations::from(vec![
            MqttOperation::Connect {
                client_ids: Some(vec!["c".to_owned()]),
                users: None,
            },
            MqttOperation::Subscribe { topics, qos },
        ]))
    };
    let world = World::new(SeatLimits::default());
    world.put(subscribing("line/#"), Enforcement::Enforce).await;
    let (mut client, mut served) = world.pair();
    for (asked, answer) in [(CONNECT, CONNACK), (SUBSCRIBE, SUBACK)] {
        goes(&mut client, &mut served, asked);
        goes(&mut served, &mut client, answer);
    }
    shadow(&world, next(&world, subscribing("line/#"))).await;
    goes(&mut served, &mut client, PUBLISH);
    counts(&world, [0; 3]);
    shadow(&world, next(&world, subscribing("status/#"))).await;
    counts(&world, [0, 1, 0]);
    goes(&mut served, &mut client, PUBLISH);
    counts(&world, [1, 1, 0]);
}

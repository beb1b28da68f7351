//! Too many connections, and too much held for them: who has to make room, and what health says.

use penstock_policy::protocol::mqtt::MqttOperation;
use penstock_policy::terms::NumberRange;
use tokio::net::TcpSocket;

use super::*;

/// A world whose clients are all of 127.0.0.0/8, with what a rule says changed.
async fn world(limits: SeatLimits, enforcement: Enforcement, change: impl FnOnce(&mut Plan)) -> World {
    let world = World::new(limits);
    world.put_for_all(enforcement, change).await;
    world
}

fn small(connections_max: usize) -> SeatLimits {
    SeatLimits {
        connections_max,
        connections_per_client_max: connections_max,
        ..SeatLimits::default()
    }
}

impl World {
    async fn put_for_all(&self, enforcement: Enforcement, change: impl FnOnce(&mut Plan)) {
        let port = self.server.local_addr().unwrap().port();
        let mut plan = plan(port, Some(operations("read-only")), enforcement);
        let network: IpNet = "127.0.0.0/8".parse().unwrap();
        plan.rules[0].sources[0].network = network;
        plan.interfaces[0].networks = vec![network];
        change(&mut plan);
        let policy = Inspector::prepare(Arc::new(plan), Revision(3)).unwrap();
        self.inspector.put(policy).await;
    }

    /// A connection from `127.0.0.client`, and the server's end of it.
    async fn pair_from(&self, client: u8) -> (TcpStream, TcpStream) {
        let stream = self.dial_from(client).await.unwrap();
        let (served, _) = self.server.accept().unwrap();
        served.set_read_timeout(Some(PATIENCE)).unwrap();
        (stream, served)
    }

    async fn dial_from(&self, client: u8) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, client], 0))).unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], self.inspector.ports().v4));
        let stream = socket.connect(to).await?.into_std()?;
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Ok(stream)
    }
}

fn polls((client, server): &mut (TcpStream, TcpStream)) {
    client.write_all(&READ).unwrap();
    let mut bytes = [0; READ.len()];
    server.read_exact(&mut bytes).unwrap();
    server.write_all(&ANSWER).unwrap();
    let mut bytes = [0; ANSWER.len()];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, ANSWER);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_holds_all_seats_loses_an_idle_one_to_another_client_and_health_says_so() {
    let mut world = world(small(8), Enforcement::Enforce, |_| ()).await;
    let mut greedy = Vec::new();
    for _ in 0..7 {
        greedy.push(world.pair_from(2).await);
    }
    polls(&mut greedy[0]);
    assert_eq!(world.inspector.shortage(), None);
    let mut other = world.pair_from(3).await;
    polls(&mut other);
    // The first that asked nothing, not the first.
    assert!(is_reset(&mut greedy[1].0));
    polls(&mut greedy[0]);
    let told = world.until("all seats of the inspector are taken").await;
    assert_eq!(told.last().unwrap().client, IpAddr::from([127, 0, 0, 2]));
    let words = world.inspector.shortage().unwrap();
    assert!(words.starts_with("1 declared connections were reset"), "{words}");
    assert!(
        words.contains("client 127.0.0.2 on flow supply/polling held the most, 7"),
        "{words}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_zones_only_observe_a_connection_without_a_seat_passes_unread() {
    let mut world = world(small(2), Enforcement::Observe, |_| ()).await;
    let mut standing = [world.pair_from(2).await, world.pair_from(3).await];
    standing.iter_mut().for_each(polls);
    let mut unread = world.pair_from(4).await;
    polls(&mut unread);
    let told = world.until("passes unread").await;
    assert_eq!(told.last().unwrap().client, IpAddr::from([127, 0, 0, 4]));
    assert!(
        world
            .inspector
            .shortage()
            .unwrap()
            .contains("1 connections pass unread")
    );
    // It goes on under the next policy, as long as that only observes.
    world.put_for_all(Enforcement::Observe, |_| ()).await;
    polls(&mut unread);
    standing.iter_mut().for_each(polls);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_goes_on_without_the_inspector_passes_unread_but_not_for_who_takes_the_seats() {
    let mut world = world(small(2), Enforcement::Enforce, |plan| {
        plan.rules[0].on_agent_loss = OnAgentLoss::Pass;
    })
    .await;
    let mut standing = [world.pair_from(2).await, world.pair_from(3).await];
    standing.iter_mut().for_each(polls);
    // It may learn of it as it connects, or as it reads.
    if let Ok(mut greedy) = world.dial_from(3).await {
        assert!(is_reset(&mut greedy));
    }
    let mut unread = world.pair_from(4).await;
    polls(&mut unread);
    unread.0.write_all(&WRITE).unwrap();
    let mut bytes = [0; WRITE.len()];
    unread.1.read_exact(&mut bytes).unwrap();
    world.until("passes unread").await;
    // A policy under which it would not pass ends it.
    world.put_for_all(Enforcement::Enforce, |_| ()).await;
    assert!(is_reset(&mut unread.0));
    standing.iter_mut().for_each(polls);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_packets_unfinished_hold_no_more_than_may_be_held_in_all() {
    let limits = SeatLimits {
        held_bytes_max: 1024 * 1024,
        ..SeatLimits::default()
    };
    let mut world = world(limits, Enforcement::Enforce, |plan| {
        let publish = MqttOperation::Publish {
            topics: vec!["line/#".to_owned()],
            qos: NumberRange { first: 0, last: 1 },
            retain: false,
        };
        plan.rules[0].operations = Some(Operations::from(vec![publish]).into());
    })
    .await;
    // A subscription that says it has 60,000 bytes, and lacks the last one.
    let greeting: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c";
    let mut unfinished = vec![0x82, 0xe0, 0xd4, 0x03];
    unfinished.resize(60_000, 0);
    let mut light = world.pair_from(3).await;
    light.0.write_all(greeting).unwrap();
    let mut heavy = Vec::new();
    for _ in 0..40 {
        let (mut client, mut served) = world.pair_from(2).await;
        client.write_all(greeting).unwrap();
        served.read_exact(&mut vec![0; greeting.len()]).unwrap();
        served.write_all(b"\x20\x02\x00\x00").unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
        client.write_all(&unfinished).unwrap();
        heavy.push((client, served));
    }
    let told = world
        .until("held the most of them, and this one the most of those")
        .await;
    assert_eq!(told.last().unwrap().client, IpAddr::from([127, 0, 0, 2]));
    let words = world.inspector.shortage().unwrap();
    assert!(words.contains("the last of client 127.0.0.2"), "{words}");
    // Whoever holds little goes on.
    let mut bytes = vec![0; greeting.len()];
    light.1.read_exact(&mut bytes).unwrap();
    light.1.write_all(b"\x20\x02\x00\x00").unwrap();
    light.0.read_exact(&mut [0; 4]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observed_connection_that_is_not_read_goes_on_when_it_loses_its_seat() {
    let mut world = world(small(2), Enforcement::Observe, |plan| {
        plan.rules[0].operations = None
    })
    .await;
    let mut standing = [world.pair_from(2).await, world.pair_from(2).await];
    let mut other = world.pair_from(3).await;
    polls(&mut other);
    let told = world.until("passes unread from here on").await;
    assert_eq!(told.last().unwrap().client, IpAddr::from([127, 0, 0, 2]));
    standing.iter_mut().for_each(polls);
    let words = world.inspector.shortage().unwrap();
    assert!(!words.contains("reset"), "{words}");
    // And through a restart, whoever has a seat then.
    let world = world.restarted(|_| {}).await;
    world
        .put_for_all(Enforcement::Observe, |plan| plan.rules[0].operations = None)
        .await;
    standing.iter_mut().for_each(polls);
    polls(&mut other);
}

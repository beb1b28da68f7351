//! Observing is passive: whatever either side sends passes at once as it is, and what enforcing would change is told.

use penstock_inspect::connection::Sender;

use super::*;

async fn observing() -> World {
    let world = World::new(SeatLimits::default());
    world
        .put(Some(operations("read-only")), Enforcement::Observe)
        .await;
    world
}

fn with_identifiers(transaction: u8, unit: u8) -> Vec<u8> {
    let mut answer = ANSWER.to_vec();
    (answer[1], answer[6]) = (transaction, unit);
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observed_connection_passes_whatever_comes_at_once_in_both_directions() {
    let world = observing().await;
    let mut longer = ANSWER.to_vec();
    longer[5] += 1;
    let pieces: [&[u8]; 8] = [
        &READ,
        &READ[..3],
        &longer,
        // Modbus RTU over TCP, TLS, a greeting, an answer that nobody asked for, and noise.
        &[1, 3, 0, 0, 0, 10, 0xc5, 0xcd],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"220 ready\r\n",
        &ANSWER,
        &[0xff; 3000],
    ];
    for speaks_first in [Sender::Client, Sender::Server] {
        for first in pieces {
            let (mut client, mut served) = world.pair();
            for piece in [first].iter().chain(&pieces) {
                let (from, to) = match speaks_first {
                    Sender::Client => (&mut client, &mut served),
                    Sender::Server => (&mut served, &mut client),
                };
                // Nothing more is sent before it has come.
                from.write_all(piece).unwrap();
                assert_eq!(read_exactly(to, piece.len()), *piece);
                to.write_all(piece).unwrap();
                assert_eq!(read_exactly(from, piece.len()), *piece);
            }
            // One direction ends, the other goes on.
            client.write_all(&READ[..5]).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_exactly(&mut served, 5), READ[..5]);
            assert_eq!(served.read(&mut [0; 8]).unwrap(), 0);
            served.write_all(&ANSWER[..4]).unwrap();
            assert_eq!(read_exactly(&mut client, 4), ANSWER[..4]);
            // A reset stays one.
            socket2::SockRef::from(&served)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            drop(served);
            assert!(is_reset(&mut client));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_urgent_byte_passes_in_its_place() {
    let world = observing().await;
    let (mut client, mut served) = world.pair();
    client.write_all(b"be").unwrap();
    rustix::net::send(&client, b"f", rustix::net::SendFlags::OOB).unwrap();
    client.write_all(b"ore").unwrap();
    assert_eq!(read_exactly(&mut served, 6), b"before");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_enforcing_would_withhold_or_end_is_told_while_it_passes() {
    let mut world = observing().await;
    let (mut client, mut served) = world.pair();
    for (answer, told) in [
        (with_identifiers(9, 1), "another transaction identifier"),
        (with_identifiers(1, 3), "another unit identifier"),
        (
            ANSWER[..8].to_vec(),
            "a packet is not whole when its sender ends the connection",
        ),
    ] {
        client.write_all(&READ).unwrap();
        assert_eq!(read_exactly(&mut served, 12), READ);
        served.write_all(&answer).unwrap();
        assert_eq!(read_exactly(&mut client, answer.len()), answer);
        if told.contains("whole") {
            socket2::SockRef::from(&served)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            drop(served);
            assert!(is_reset(&mut client));
            (client, served) = world.pair();
        }
        let seen = world.until(told).await;
        let would = seen.last().unwrap();
        assert_eq!(
            (would.subject, would.decision),
            (Subject::Note, Some(Decision::WouldDeny))
        );
    }
    let health = world.inspector.foretold().unwrap();
    assert!(
        health.contains("hmi to plc: an answer carries another transaction identifier"),
        "{health}"
    );
    client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    assert_eq!(read_exactly(&mut served, 16), b"GET / HTTP/1.1\r\n");
    let seen = world.until("the protocol identifier").await;
    let reason = &seen.last().unwrap().reason;
    assert!(reason.contains("the connection ends"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_of_a_unit_that_calls_itself_0_or_255_pass_where_enforced() {
    let world = World::reading().await;
    let (mut client, mut served) = world.pair();
    for unit in [0, 255, 1] {
        client.write_all(&READ).unwrap();
        assert_eq!(read_exactly(&mut served, 12), READ);
        served.write_all(&with_identifiers(1, unit)).unwrap();
        assert_eq!(read_exactly(&mut client, 11), with_identifiers(1, unit));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_stood_without_limits_stands_while_observed_and_that_enforcing_resets_it_is_told() {
    let mut world = World::new(SeatLimits::default());
    world.put(None, Enforcement::Observe).await;
    let (mut client, mut served) = world.pair();
    client.write_all(&WRITE).unwrap();
    assert_eq!(read_exactly(&mut served, 12), WRITE);
    world
        .put(Some(operations("read-only")), Enforcement::Observe)
        .await;
    client.write_all(&WRITE).unwrap();
    assert_eq!(read_exactly(&mut served, 12), WRITE);
    let seen = world.until("the connection would be reset").await;
    let would = seen.last().unwrap();
    assert_eq!(
        (would.subject, would.decision),
        (Subject::Session, Some(Decision::WouldDeny))
    );
    assert!(
        would.reason.contains("not followed from its beginning"),
        "{}",
        would.reason
    );
    // Through a restart of the agent, too.
    let mut world = world.restarted(|_| {}).await;
    world
        .put(Some(operations("read-only")), Enforcement::Observe)
        .await;
    client.write_all(&WRITE).unwrap();
    assert_eq!(read_exactly(&mut served, 12), WRITE);
    world.until("the connection would be reset").await;
    world
        .put(Some(operations("read-only")), Enforcement::Enforce)
        .await;
    assert!(is_reset(&mut client));
}

#[tokio::test(flavor = "multi_thread")]
async fn between_observing_and_enforcing_no_byte_is_lost_doubled_or_kept() {
    let world = observing().await;
    let (mut client, mut served) = world.pair();
    client.write_all(&READ[..7]).unwrap();
    assert_eq!(read_exactly(&mut served, 7), READ[..7]);
    world
        .put(Some(operations("read-only")), Enforcement::Enforce)
        .await;
    client.write_all(&READ[7..]).unwrap();
    assert_eq!(read_exactly(&mut served, 5), READ[7..]);
    served.write_all(&ANSWER).unwrap();
    assert_eq!(read_exactly(&mut client, 11), ANSWER);
    // An answer that is half there when observing begins passes without another byte.
    client.write_all(&READ).unwrap();
    assert_eq!(read_exactly(&mut served, 12), READ);
    served.write_all(&ANSWER[..10]).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(
        client.read(&mut [0; 16]).is_err(),
        "it is held while it is enforced"
    );
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    world
        .put(Some(operations("read-only")), Enforcement::Observe)
        .await;
    assert_eq!(read_exactly(&mut client, 10), ANSWER[..10]);
    served.write_all(&ANSWER[10..]).unwrap();
    assert_eq!(read_exactly(&mut client, 1), ANSWER[10..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_held_at_a_restart_passes_where_the_next_agent_only_observes_or_limits_nothing() {
    for next in [Some(operations("read-only")), None] {
        let world = World::reading().await;
        let (mut client, mut served) = world.pair();
        client.write_all(&[&READ[..], &READ[..7]].concat()).unwrap();
        assert_eq!(read_exactly(&mut served, 12), READ);
        let world = world.restarted(|_| {}).await;
        let enforcement = match next {
            Some(_) => Enforcement::Observe,
            None => Enforcement::Enforce,
        };
        world.put(next, enforcement).await;
        assert_eq!(read_exactly(&mut served, 7), READ[..7]);
        client.write_all(&READ[7..]).unwrap();
        assert_eq!(read_exactly(&mut served, 5), READ[7..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observed_connection_that_loses_its_seat_goes_on_unread() {
    let mut world = World::new(SeatLimits {
        held_bytes_max: 20 * 1024,
        ..SeatLimits::default()
    });
    let rules = Operations::from(vec![penstock_policy::protocol::mqtt::MqttOperation::Connect {
        client_ids: None,
        users: None,
    }]);
    world.put(Some(rules), Enforcement::Observe).await;
    let (mut client, mut served) = world.pair();
    // A CONNECT of 60,000 bytes that is never whole is kept to be read, and is more than may be kept.
    let connect = [
        &[0x10, 0xe0, 0xd4, 0x03, 0, 4][..],
        b"MQTT\x04\x02\x00\x3c",
        &[0xea, 0x60],
        &[b'c'; 40_000],
    ]
    .concat();
    client.write_all(&connect).unwrap();
    assert_eq!(read_exactly(&mut served, connect.len()), connect);
    world.until("passes unread from here on").await;
    client.write_all(&WRITE).unwrap();
    assert_eq!(read_exactly(&mut served, 12), WRITE);
    served.write_all(&ANSWER).unwrap();
    assert_eq!(read_exactly(&mut client, 11), ANSWER);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_takes_nothing_slows_the_other_down_and_costs_one_read_where_observed() {
    let world = observing().await;
    let (mut client, mut served) = world.pair();
    let noise: Vec<u8> = (0..=u8::MAX).cycle().take(64 * 1024).collect();
    client.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let mut full = 0;
    // Full twice in a row, a while apart: the sockets are full, and the gateway reads no more.
    while full < 3 {
        match client.write(&noise[sent % noise.len()..]) {
            Ok(count) => (sent, full) = (sent + count, 0),
            Err(_) => {
                full += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        assert!(sent < 64 * 1024 * 1024, "somebody keeps all of it");
    }
    let taken = read_exactly(&mut served, sent);
    let expected = noise.iter().cycle();
    assert!(taken.iter().zip(expected).all(|(taken, sent)| taken == sent));
}

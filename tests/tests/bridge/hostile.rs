//! Brokers that mean harm, played by a few lines of bytes: none of it crosses, and none of it comes back.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use penstock_lab::{Namespace, wait_until};

use super::world::{FROM, Listener, PATIENCE, TO, losses, numbered, permit, plan, publish, refused, test};

/// A broker that says yes to CONNECT and SUBSCRIBE, then these packets; gives what it heard after that.
struct Hostile {
    listener: TcpListener,
}

impl Hostile {
    fn new(place: &Namespace, address: &str) -> Self {
        let listener = place
            .enter(|| TcpListener::bind(format!("{address}:1883")).unwrap())
            .unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener }
    }

    /// The next connection after CONNECT and, if it subscribes, SUBSCRIBE. One that a killed gateway left is passed over.
    fn accept(&self, subscribes: bool) -> TcpStream {
        let mut greeted = None;
        wait_until("the bridge to connect", PATIENCE, || {
            greeted = self.listener.accept().ok().and_then(|(stream, _)| {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                greet(stream, subscribes)
            });
            greeted.is_some()
        })
        .unwrap();
        greeted.unwrap()
    }
}

/// Answers as a broker does; `None` if the other side is gone.
fn greet(mut stream: TcpStream, subscribes: bool) -> Option<TcpStream> {
    assert_eq!(packet(&mut stream)?[0] >> 4, 1, "CONNECT");
    stream.write_all(&[0x20, 3, 0, 0, 0]).ok()?;
    if subscribes {
        assert_eq!(packet(&mut stream)?[0] >> 4, 8, "SUBSCRIBE");
        stream.write_all(&[0x90, 4, 0, 1, 0, 2]).ok()?;
    }
    Some(stream)
}

/// One packet, its first byte and its body; `None` at the end of the connection.
fn packet(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut byte = || {
        let mut one = [0];
        stream.read_exact(&mut one).ok().map(|()| one[0])
    };
    let mut out = vec![byte()?];
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let next = byte()?;
        length |= usize::from(next & 0x7f) << shift;
        shift += 7;
        if next & 0x80 == 0 {
            break;
        }
    }
    for _ in 0..length {
        out.push(byte()?);
    }
    Some(out)
}

/// PUBLISH of MQTT 5 with these raw bytes as topic.
fn publication(topic: &[u8], qos: u8, identifier: u16, retain: bool, payload: &[u8]) -> Vec<u8> {
    let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    body.extend_from_slice(topic);
    if qos > 0 {
        body.extend_from_slice(&identifier.to_be_bytes());
    }
    body.push(0);
    body.extend_from_slice(payload);
    let mut out = vec![0x30 | qos << 1 | u8::from(retain)];
    let mut length = body.len();
    loop {
        let low = u8::try_from(length & 0x7f).unwrap();
        length >>= 7;
        out.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    out.extend_from_slice(&body);
    out
}

/// Whether the other side ends this connection in time.
fn is_ended(mut stream: TcpStream) -> bool {
    let begun = Instant::now();
    while packet(&mut stream).is_some() {}
    begun.elapsed() < PATIENCE
}

#[test]
fn what_a_hostile_sender_sends_beside_the_policy_is_acknowledged_and_goes_nowhere() {
    test(
        "hostile::what_a_hostile_sender_sends_beside_the_policy_is_acknowledged_and_goes_nowhere",
        |world| {
            let hostile = Hostile::new(&world.from, FROM);
            let _to = world.broker(&world.to, TO, "");
            let listener = world.listen();
            world.obey(&plan(vec![permit(&["works/#"], 0, 1, false)]));
            let mut gateway = world.start();
            let mut stream = hostile.accept(true);
            let mut refusals = 0;
            for (topic, qos, retain) in [
                ("office/door", 1, false),
                ("$SYS/broker/uptime", 1, false),
                ("$share/g/works/a", 1, false),
                ("works/a", 2, false),
                ("works/a", 1, true),
                ("/works/a", 1, false),
            ] {
                refusals += 1;
                let said = publication(topic.as_bytes(), qos, refusals, retain, b"harm");
                stream.write_all(&said).unwrap();
                let answer = packet(&mut stream).unwrap();
                assert!(matches!(answer[0] >> 4, 4 | 5), "{topic}: {answer:?}");
                assert_eq!(answer[1..3], refusals.to_be_bytes());
            }
            stream
                .write_all(&publication(b"works/a", 1, 99, false, b"good"))
                .unwrap();
            listener.wait_for(1);
            assert_eq!(listener.payloads(), ["good"]);
            gateway.terminate(PATIENCE).unwrap();
            assert_eq!(refused(&world.trail()), u64::from(refusals));
        },
    );
}

#[test]
fn what_no_standard_has_ends_the_connection_and_nothing_of_it_crosses() {
    test(
        "hostile::what_no_standard_has_ends_the_connection_and_nothing_of_it_crosses",
        |world| {
            let hostile = Hostile::new(&world.from, FROM);
            let _to = world.broker(&world.to, TO, "");
            let listener = world.listen();
            world.obey(&plan(vec![permit(&["#"], 0, 2, true)]));
            let mut gateway = world.start();
            let flood: Vec<u8> = (1..=1000)
                .flat_map(|n| publication(b"works/a", 2, n, false, n.to_string().as_bytes()))
                .collect();
            for (what, bytes) in [
                (
                    "a wildcard in a topic",
                    publication(b"works/+", 0, 0, false, b"harm"),
                ),
                ("no topic", publication(b"", 0, 0, false, b"harm")),
                (
                    "text that is not UTF-8",
                    publication(b"works/\xff\xfe", 0, 0, false, b"harm"),
                ),
                ("a null character", publication(b"works/\0", 0, 0, false, b"harm")),
                ("QoS 3", vec![0x36, 5, 0, 1, b'a', 0, 1]),
                ("a packet beyond the limit", vec![0x30, 0xff, 0xff, 0xff, 0x7f]),
                ("an acknowledgement of nothing", vec![0x40, 2, 0, 1]),
                ("a second CONNACK", vec![0x20, 3, 0, 0, 0]),
            ] {
                let mut stream = hostile.accept(true);
                stream.write_all(&bytes).unwrap();
                assert!(is_ended(stream), "{what}");
                // Begun anew, it does not wait as long as it would after so many failures.
                assert!(gateway.ended().is_none(), "{what}");
                gateway.kill();
                gateway = world.start();
            }
            assert!(listener.payloads().is_empty(), "{:?}", listener.payloads());
            // Any number of publications that it never completes: acknowledged as they come, kept once each.
            let mut stream = hostile.accept(true);
            stream.write_all(&flood).unwrap();
            stream.write_all(&flood).unwrap();
            for _ in 0..2000 {
                assert_eq!(packet(&mut stream).unwrap()[0] >> 4, 5, "PUBREC");
            }
            world.wait_for("delivery", |state| state.backlog == 0);
            listener.wait_for(1000);
            assert_eq!(listener.payloads().len(), 1000);
            assert!(gateway.ended().is_none());
            gateway.terminate(PATIENCE).unwrap();
        },
    );
}

#[test]
fn a_hostile_receiver_can_only_end_its_own_connection() {
    test(
        "hostile::a_hostile_receiver_can_only_end_its_own_connection",
        |world| {
            let _from = world.broker(&world.from, FROM, "");
            let here = Listener::new(&world.from, FROM, "here");
            let hostile = Hostile::new(&world.to, TO);
            world.obey(&plan(vec![permit(&["works/#"], 0, 2, false)]));
            let mut gateway = world.start();
            for (what, bytes) in [
                (
                    "a publication",
                    publication(b"works/command", 1, 1, false, b"harm"),
                ),
                ("a release of nothing", vec![0x62, 2, 0, 1]),
                ("an acknowledgement of nothing", vec![0x40, 2, 0, 1]),
                ("bytes", vec![0xff; 64]),
            ] {
                let mut stream = hostile.accept(false);
                stream.write_all(&bytes).unwrap();
                assert!(is_ended(stream), "{what}");
            }
            assert!(
                here.payloads().is_empty(),
                "nothing flows back: {:?}",
                here.payloads()
            );
            assert!(gateway.ended().is_none());
            // It refuses one publication for good and acknowledges the next: the first is told as lost.
            world.publish("works/a", 1, &numbered("m", 2));
            let mut stream = hostile.accept(false);
            let first = packet(&mut stream).unwrap();
            assert_eq!(first[0] >> 4, 3);
            assert_eq!(&first[3..10], b"works/a");
            let identifier = [first[10], first[11]];
            stream
                .write_all(&[0x40, 4, identifier[0], identifier[1], 0x87, 0])
                .unwrap();
            let second = packet(&mut stream).unwrap();
            stream.write_all(&[0x40, 2, second[10], second[11]]).unwrap();
            world.wait_for("an empty queue", |state| state.backlog == 0);
            gateway.terminate(PATIENCE).unwrap();
            assert_eq!(losses(&world.trail(), "bridge-refused-by-broker"), 1);
        },
    );
}

#[test]
fn a_payload_beyond_the_limit_is_left_by_its_broker_and_holds_up_nothing() {
    test(
        "hostile::a_payload_beyond_the_limit_is_left_by_its_broker_and_holds_up_nothing",
        |world| {
            let _brokers = world.brokers();
            let _gateway = world.start_connected(&plan(vec![permit(&["works/#"], 0, 1, false)]));
            let listener = world.listen();
            publish(
                &world.from,
                FROM,
                "works/a",
                1,
                &["before".to_owned(), "x".repeat(100_000)],
            );
            publish(&world.from, FROM, "works/a", 1, &["after".to_owned()]);
            listener.wait_for(2);
            assert_eq!(listener.payloads(), ["before", "after"]);
        },
    );
}

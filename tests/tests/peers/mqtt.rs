//! A real broker (mosquitto) behind a rule that lets a client publish to `a/+` and nothing else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use penstock_lab::{Daemon, Lab, sandbox, wait_until};
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::mqtt::MqttOperation;
use penstock_policy::terms::{NumberRange, OnRefusal};
use proptest::prelude::*;
use proptest::test_runner::Config;

use super::relayed::{Traffic, connect, inspected, pieces, runner, straight};

pub const PORT: u16 = 1883;

pub fn text(text: &str) -> Vec<u8> {
    [
        &u16::try_from(text.len()).unwrap().to_be_bytes()[..],
        text.as_bytes(),
    ]
    .concat()
}

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let (mut packet, mut length) = (vec![first], body.len());
    while length > 127 {
        packet.push(u8::try_from(length % 128).unwrap() | 0x80);
        length /= 128;
    }
    packet.push(u8::try_from(length).unwrap());
    packet.extend(body);
    packet
}

/// A broker, somebody who sees all that it delivers, and somebody who says where a case ends.
pub struct Broker {
    watcher: TcpStream,
    marker: TcpStream,
    _broker: Daemon,
}

impl Broker {
    pub fn start(lab: &Lab) -> Self {
        let file = lab.directory().join("mosquitto.conf");
        let settings = "listener 1883 127.0.0.1\nallow_anonymous true\nuser root\nmax_topic_alias 10\n";
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(&file);
        let broker = Daemon::spawn("mosquitto", command, lab.directory()).unwrap();
        let listens = || TcpStream::connect(("127.0.0.1", PORT)).is_ok();
        wait_until("mosquitto to listen", Duration::from_secs(60), listens)
            .unwrap_or_else(|error| panic!("{error}: {}", broker.log()));
        let open = |id: &str| {
            let mut stream = connect(PORT);
            let body = [&text("MQTT")[..], &[4, 2, 0, 0], &text(id)].concat();
            stream.write_all(&packet(0x10, &body)).unwrap();
            stream.read_exact(&mut [0; 4]).unwrap();
            stream
        };
        let (mut watcher, marker) = (open("watcher"), open("marker"));
        // `#` does not reach topics that begin with `$`.
        let filters = [text("#"), vec![0], text("$x/#"), vec![0]].concat();
        watcher
            .write_all(&packet(0x82, &[&[0, 1][..], &filters].concat()))
            .unwrap();
        watcher.read_exact(&mut [0; 6]).unwrap();
        Self {
            watcher,
            marker,
            _broker: broker,
        }
    }

    /// The topics of all that was delivered because of `act`.
    pub fn delivers(&mut self, act: impl FnOnce()) -> Vec<String> {
        act();
        self.marker
            .write_all(&packet(0x30, &text("end of case")))
            .unwrap();
        let mut topics = Vec::new();
        loop {
            let topic = self.delivered();
            if topic == "end of case" {
                return topics;
            }
            topics.push(topic);
        }
    }

    fn delivered(&mut self) -> String {
        let mut byte = || {
            let mut one = [0];
            self.watcher.read_exact(&mut one).unwrap();
            one[0]
        };
        assert_eq!(byte() >> 4, 3, "only publications come");
        let (mut length, mut shift) = (0, 0);
        loop {
            let low = byte();
            length |= usize::from(low & 127) << shift;
            shift += 7;
            if low < 128 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.watcher.read_exact(&mut body).unwrap();
        let topic_bytes = usize::from(body[0]) << 8 | usize::from(body[1]);
        String::from_utf8_lossy(&body[2..2 + topic_bytes]).into_owned()
    }
}

fn only_a() -> Operations {
    Operations::from(vec![MqttOperation::Publish {
        topics: vec!["a/+".to_owned()],
        qos: NumberRange { first: 0, last: 2 },
        retain: true,
    }])
}

fn within(topic: &str) -> bool {
    topic.strip_prefix("a/").is_some_and(|rest| !rest.contains('/'))
}

const TOPICS: &[&str] = &[
    "a/1", "a/2", "a/", "a", "b/1", "a/1/2", "$x/y", "", "a/1/", "A/1", "/a/1", "a//1",
];

fn topic() -> impl Strategy<Value = &'static str> {
    prop::sample::select(TOPICS)
}

/// CONNECT, now and then with a will.
fn opening(version: u8) -> impl Strategy<Value = Vec<u8>> {
    (prop::option::weighted(0.4, topic()), any::<u16>()).prop_map(move |(will, id)| {
        let flags = if will.is_some() { 0x06 } else { 0x02 };
        let mut body = [&text("MQTT")[..], &[version, flags, 0, 60]].concat();
        if version == 5 {
            body.push(0);
        }
        body.extend(text(&format!("c{id}")));
        if let Some(topic) = will {
            if version == 5 {
                body.push(0);
            }
            body.extend([text(topic), text("gone")].concat());
        }
        packet(0x10, &body)
    })
}

fn publication(version: u8) -> impl Strategy<Value = Vec<u8>> {
    let flags = prop::sample::select(vec![0_u8, 2, 4, 1, 3, 10, 6]);
    (flags, topic(), 0_u8..8, any::<u16>(), 0_usize..300).prop_map(
        move |(flags, topic, alias, identifier, payload)| {
            let mut body = text(topic);
            if flags & 6 != 0 {
                body.extend(identifier.to_be_bytes());
            }
            if version == 5 {
                match alias {
                    0..4 => body.push(0),
                    alias => body.extend([3, 35, 0, alias - 3]),
                }
            }
            // A payload that itself reads as publications, for whoever loses his place.
            let inner = packet(0x30, &[text("b/inner"), vec![b'x']].concat());
            body.extend(inner.iter().cycle().take(payload));
            packet(0x30 | flags, &body)
        },
    )
}

/// One packet, and what an attacker does to it.
fn frame(version: u8) -> impl Strategy<Value = Vec<u8>> {
    let aliased = (1_u8..5).prop_map(move |alias| {
        let properties: &[u8] = if version == 5 { &[3, 35, 0, alias] } else { &[] };
        packet(0x30, &[&[0, 0][..], properties, b"x"].concat())
    });
    let one = prop_oneof![8 => publication(version), 2 => aliased, 1 => Just(vec![0xc0, 0]), 1 => Just(vec![0x62, 2, 0, 1])];
    (one, 0_u8..24, any::<u16>()).prop_map(|(mut packet, how, noise)| {
        let at = usize::from(noise) % packet.len();
        match how {
            0 => packet[at] ^= 1 << (noise >> 13),
            1 => packet[1] = packet[1].wrapping_add(1 + (noise >> 12) as u8),
            2 => packet[1] = packet[1].wrapping_sub(1 + (noise >> 12) as u8),
            3 => packet.truncate(at.max(1)),
            // The same length in more bytes than it needs.
            4 if packet[1] < 128 => {
                packet[1] |= 0x80;
                packet.insert(2, 0);
            }
            5 => packet.insert(at, (noise >> 8) as u8),
            _ => {}
        }
        packet
    })
}

fn traffic(version: u8) -> impl Strategy<Value = Traffic> {
    let frames = prop::collection::vec(frame(version), 1..8);
    let cuts = prop::collection::vec(any::<usize>(), 0..5);
    (opening(version), frames, cuts, 0_u64..3).prop_map(|(opening, frames, cuts, pause)| {
        let mut all = vec![opening];
        all.extend(pieces(&frames, &cuts));
        Traffic {
            pieces: all,
            pause: Duration::from_millis(pause / 2 * 5),
        }
    })
}

#[test]
fn with_one_filter_permitted_no_bytes_make_mosquitto_deliver_anything_else() {
    let name = "mqtt::with_one_filter_permitted_no_bytes_make_mosquitto_deliver_anything_else";
    sandbox::test(name, |lab| {
        let broker = std::cell::RefCell::new(Broker::start(lab));
        let cases = Config::default().cases;
        let (potent, useful) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        for version in [4, 5] {
            let case = (
                traffic(version),
                prop::sample::select(vec![OnRefusal::Answer, OnRefusal::Acknowledge, OnRefusal::Drop]),
            );
            runner(cases)
                .run(&case, |(traffic, on_refusal)| {
                    let mut broker = broker.borrow_mut();
                    let mut passed = Vec::new();
                    let topics = broker.delivers(|| {
                        passed = inspected(PORT, &only_a(), on_refusal, &traffic);
                    });
                    for topic in &topics {
                        prop_assert!(within(topic), "{topic} was delivered; what passed: {passed:02x?}");
                    }
                    useful.set(useful.get() + u32::from(!topics.is_empty()));
                    let topics = broker.delivers(|| straight(PORT, &traffic));
                    potent.set(potent.get() + u32::from(!topics.iter().all(|topic| within(topic))));
                    Ok(())
                })
                .unwrap();
        }
        println!(
            "of {} cases {} publish elsewhere when they come straight, {} within a/+ through the inspector",
            2 * cases,
            potent.get(),
            useful.get()
        );
        // Else this would prove nothing, or only that nothing passes at all.
        assert!(
            potent.get() > cases / 2 && useful.get() > cases / 10,
            "{potent:?} {useful:?}"
        );
    })
    .unwrap();
}

//! What mosquitto publishes of a client that a new policy cuts off.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use penstock_inspect::connection::{Connection, ConnectionLimits, Memory, Mode, Output, Sender};
use penstock_inspect::judge::Rules;
use penstock_lab::sandbox;
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::mqtt::MqttOperation;
use penstock_policy::terms::{NumberRange, OnRefusal};

use super::mqtt::{Broker, PORT, packet, text};
use super::relayed::connect;

fn publishing(topics: &[&str]) -> Arc<Rules> {
    let publish = MqttOperation::Publish {
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        qos: NumberRange { first: 0, last: 2 },
        retain: true,
    };
    Arc::new(Rules::compile(&Operations::from(vec![publish])).unwrap())
}

/// A client that stands before the broker, under rules that permit `a/+` and `b/+`.
struct Client {
    connection: Connection,
    broker: TcpStream,
    properties: &'static [u8],
}

impl Client {
    fn new(version: u8, will: Option<&str>) -> Self {
        let properties: &[u8] = if version == 5 { &[0] } else { &[] };
        let rules = publishing(&["a/+", "b/+"]);
        let mut client = Self {
            connection: Connection::new(
                rules,
                Mode::Enforce,
                OnRefusal::Answer,
                ConnectionLimits::default(),
            ),
            broker: connect(PORT),
            properties,
        };
        let flags = if will.is_some() { 0x06 } else { 0x02 };
        let mut body = [
            &text("MQTT")[..],
            &[version, flags, 0, 60],
            properties,
            &text("revoked"),
        ]
        .concat();
        if let Some(topic) = will {
            body.extend([properties, &text(topic), &text("gone")].concat());
        }
        client.says(&packet(0x10, &body));
        client.hears();
        client
    }

    fn says(&mut self, bytes: &[u8]) {
        let broker = &mut self.broker;
        self.connection
            .feed(Sender::Client, Duration::ZERO, bytes, &mut |output| {
                if let Output::ToServer(bytes) = output {
                    broker.write_all(bytes).unwrap();
                }
            });
    }

    /// One packet of the broker.
    fn hears(&mut self) {
        let mut bytes = [0; 256];
        let count = self.broker.read(&mut bytes).unwrap();
        self.connection
            .feed(Sender::Server, Duration::ZERO, &bytes[..count], &mut |_| {});
    }

    fn publication(&self, flags: u8, topic: &str, payload: usize) -> Vec<u8> {
        let identifier: &[u8] = if flags & 6 == 0 { &[] } else { &[0, 1] };
        let body = [
            &text(topic)[..],
            identifier,
            self.properties,
            &vec![b'x'; payload],
        ]
        .concat();
        packet(0x30 | flags, &body)
    }

    /// From here on only `a/+` is permitted; whether the connection is ended.
    fn comes_under_narrower_rules(&mut self) -> bool {
        self.connection.set_rules(publishing(&["a/+"]));
        let (broker, mut closed) = (&mut self.broker, false);
        self.connection.review(&mut |output| match output {
            Output::ToServer(bytes) => broker.write_all(bytes).unwrap(),
            Output::Close { .. } => closed = true,
            _ => {}
        });
        closed
    }

    /// Ends the connection as the gateway does, once the broker has heard all of it.
    fn ends(mut self) {
        self.broker.shutdown(std::net::Shutdown::Write).unwrap();
        while self.broker.read(&mut [0; 256]).is_ok_and(|count| count > 0) {}
    }
}

#[test]
fn a_client_that_a_new_policy_cuts_off_leaves_nothing_that_mosquitto_publishes() {
    let name = "revoked::a_client_that_a_new_policy_cuts_off_leaves_nothing_that_mosquitto_publishes";
    sandbox::test(name, |lab| {
        let mut broker = Broker::start(lab);
        for version in [4, 5] {
            // What a mere cut would do.
            assert_eq!(
                broker.delivers(|| Client::new(version, Some("b/will")).ends()),
                ["b/will"]
            );
            let will = broker.delivers(|| {
                let mut client = Client::new(version, Some("b/will"));
                let half = client.publication(0, "a/1", 3000);
                client.says(&half[..1000]);
                assert!(client.comes_under_narrower_rules());
                client.ends();
            });
            assert_eq!(will, [""; 0], "MQTT {version}");
            let released = broker.delivers(|| {
                let mut client = Client::new(version, None);
                client.says(&client.publication(4, "b/held", 3));
                client.hears();
                assert!(!client.comes_under_narrower_rules());
                client.says(&[0x62, 2, 0, 1]);
                client.says(&client.publication(4, "a/other", 3));
                client.says(&[0x62, 2, 0, 1]);
                client.says(&client.publication(0, "a/last", 3));
                client.ends();
            });
            assert_eq!(released, ["a/last"], "MQTT {version}");
            let passing = broker.delivers(|| {
                let mut client = Client::new(version, None);
                let half = client.publication(0, "b/passing", 3000);
                client.says(&half[..1000]);
                assert!(client.comes_under_narrower_rules());
                client.says(&half[1000..]);
                client.ends();
            });
            assert_eq!(passing, [""; 0], "MQTT {version}");
        }
    })
    .unwrap();
}

/// A client with a session that outlives its connection: whether the broker had it, and the connection.
fn of_session(version: u8, sessions: &Arc<Memory>, topics: &[&str]) -> (bool, Client) {
    let properties: &[u8] = if version == 5 { &[0] } else { &[] };
    let broker = connect(PORT);
    let address = broker.peer_addr().unwrap();
    let connection = Connection::new(
        publishing(topics),
        Mode::Enforce,
        OnRefusal::Answer,
        ConnectionLimits::default(),
    );
    let mut client = Client {
        connection: connection.remembering(sessions, address, address.ip()),
        broker,
        properties,
    };
    // In MQTT 5 a session lasts for as long as it says.
    let lasting: &[u8] = if version == 5 { &[5, 17, 0, 0, 1, 0] } else { &[] };
    let body = [&text("MQTT")[..], &[version, 0, 0, 60], lasting, &text("lasting")].concat();
    client.says(&packet(0x10, &body));
    let mut head = [0; 4];
    client.broker.read_exact(&mut head).unwrap();
    let mut rest = vec![0; usize::from(head[1]) - 2];
    client.broker.read_exact(&mut rest).unwrap();
    let answer = [&head[..], &rest].concat();
    client
        .connection
        .feed(Sender::Server, Duration::ZERO, &answer, &mut |_| {});
    (head[2] == 1, client)
}

#[test]
fn mosquitto_releases_of_a_resumed_session_only_what_is_permitted_now() {
    let name = "revoked::mosquitto_releases_of_a_resumed_session_only_what_is_permitted_now";
    sandbox::test(name, |lab| {
        let mut broker = Broker::start(lab);
        for version in [4, 5] {
            for (now, delivered) in [
                (&["a/+", "b/+"][..], &["b/held", "a/last"][..]),
                (&["a/+"], &["a/last"]),
            ] {
                let sessions = Arc::default();
                let released = broker.delivers(|| {
                    let (_, mut first) = of_session(version, &sessions, &["a/+", "b/+"]);
                    first.says(&first.publication(4, "b/held", 3));
                    first.hears();
                    // It breaks off, and comes back under other rules.
                    first.ends();
                    let (present, mut next) = of_session(version, &sessions, now);
                    assert!(present, "MQTT {version}: mosquitto keeps the session");
                    next.says(&[0x62, 2, 0, 1]);
                    next.says(&next.publication(0, "a/last", 3));
                    next.ends();
                });
                assert_eq!(released, delivered, "MQTT {version}");
            }
        }
    })
    .unwrap();
}

//! A session that is resumed by another connection: what it releases is judged by what was published, by whichever connection.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use penstock_inspect::connection::{Connection, ConnectionLimits, Memory, Mode, Sender};
use penstock_inspect::judge::{OnRefusal, Rules};
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::mqtt::MqttOperation;

use crate::mqtt_packets::{packet, publication, text};
use crate::recorder::{Record, publish};

const CLIENT: Sender = Sender::Client;
const SERVER: Sender = Sender::Server;
/// PUBREL of what [`publication`] publishes.
const RELEASE: [u8; 4] = [0x62, 2, 0, 7];

fn broker(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 1883))
}

fn wide() -> Vec<MqttOperation> {
    vec![publish(&["status/#", "line/#"], (0, 2), true)]
}

/// At QoS 2 only elsewhere.
fn elsewhere() -> Vec<MqttOperation> {
    vec![publish(&["line/#"], (0, 2), true)]
}

/// Nothing at QoS 2.
fn never_twice() -> Vec<MqttOperation> {
    vec![publish(&["status/#", "line/#"], (0, 1), true)]
}

fn compiled(rules: Vec<MqttOperation>) -> Arc<Rules> {
    Arc::new(Rules::compile(&Operations::from(rules)).unwrap())
}

/// Where clients are.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// A connection of a client to a broker, and all that came out of it.
struct Link {
    connection: Connection,
    record: Record,
}

impl Link {
    /// CONNECT and CONNACK, with or without a session from before.
    fn new(
        sessions: &Arc<Memory>,
        who: (SocketAddr, &str, u8),
        session: (bool, bool),
        terms: (Vec<MqttOperation>, Mode),
    ) -> Self {
        Self::from(HERE, sessions, who, session, terms)
    }

    /// The same of a client at another address.
    fn from(
        from: IpAddr,
        sessions: &Arc<Memory>,
        (to, client, version): (SocketAddr, &str, u8),
        (clean, present): (bool, bool),
        (rules, mode): (Vec<MqttOperation>, Mode),
    ) -> Self {
        let connection = Connection::new(
            compiled(rules),
            mode,
            OnRefusal::Answer,
            ConnectionLimits::default(),
        )
        .remembering(sessions, to, from);
        let mut link = Self {
            connection,
            record: Record::default(),
        };
        let properties: &[u8] = if version == 5 { &[0] } else { &[] };
        let flags = if clean { 2 } else { 0 };
        let name = if version == 3 { "MQIsdp" } else { "MQTT" };
        let body = [
            &text(name)[..],
            &[version, flags, 0, 60],
            properties,
            &text(client),
        ]
        .concat();
        link.feed(CLIENT, &packet(0x10, &body));
        let answer = [&[u8::from(present), 0][..], properties].concat();
        link.feed(SERVER, &packet(0x20, &answer));
        link.record = Record::default();
        link
    }

    fn feed(&mut self, from: Sender, bytes: &[u8]) {
        let record = &mut self.record;
        self.connection
            .feed(from, Duration::ZERO, bytes, &mut |output| record.take(output));
    }
}

const ENFORCE: Mode = Mode::Enforce;
const RESUMES: (bool, bool) = (false, true);

/// What happens to PUBREL on a connection under those rules, after one that published on `status/x` at QoS 2.
fn released(version: u8, first_stands: bool, how: (bool, bool), rules: Vec<MqttOperation>) -> Record {
    let sessions = Arc::default();
    let who = (broker(1), "c", version);
    let mut first = Link::new(&sessions, who, (false, false), (wide(), ENFORCE));
    first.feed(CLIENT, &publication(version, 4, "status/x", None, b"1"));
    let first = Some(first).filter(|_| first_stands);
    let mut next = Link::new(&sessions, who, how, (rules, ENFORCE));
    drop(first);
    next.feed(CLIENT, &RELEASE);
    next.record
}

#[test]
fn what_a_session_published_by_another_connection_is_released_only_if_it_is_permitted_now() {
    for (version, answer) in [(4, vec![0x70, 2, 0, 7]), (5, vec![0x70, 3, 0, 7, 0x92])] {
        for first_stands in [false, true] {
            let record = released(version, first_stands, RESUMES, elsewhere());
            assert!(record.to_server.is_empty(), "{record:?}");
            assert_eq!(record.to_client, answer);
            assert!(record.judged[0].contains("publish status/x"), "{record:?}");
            let record = released(version, first_stands, RESUMES, wide());
            assert_eq!((record.to_server, record.to_client), (RELEASE.to_vec(), vec![]));
        }
        // A broker that knows no session keeps nothing of it.
        let record = released(version, false, (true, false), elsewhere());
        assert_eq!(record.to_server, RELEASE);
    }
}

#[test]
fn of_a_client_of_mqtt_3_1_whose_broker_cannot_say_that_it_has_a_session_it_is_taken_to_have_one() {
    let untold = (false, false);
    for first_stands in [false, true] {
        let record = released(3, first_stands, untold, elsewhere());
        assert!(record.to_server.is_empty(), "{record:?}");
        assert_eq!(record.to_client, [0x70, 2, 0, 7]);
        let record = released(3, first_stands, untold, wide());
        assert_eq!(record.to_server, RELEASE);
    }
    // Nothing is known of it here, as after a restart.
    let who = (broker(1), "c", 3);
    let mut unknown = Link::new(&Arc::default(), who, untold, (never_twice(), ENFORCE));
    unknown.feed(CLIENT, &RELEASE);
    assert!(unknown.record.to_server.is_empty(), "{:?}", unknown.record);
    // It asked for a session of its own.
    assert_eq!(released(3, false, (true, false), elsewhere()).to_server, RELEASE);
}

#[test]
fn what_is_not_known_is_released_only_for_a_client_that_may_publish_so_at_all() {
    for (version, answer) in [(4, vec![0x70, 2, 0, 7]), (5, vec![0x70, 3, 0, 7, 0x92])] {
        let link = |how| {
            let mut link = Link::new(
                &Arc::default(),
                (broker(1), "c", version),
                how,
                (never_twice(), ENFORCE),
            );
            // Also after a restart of the agent.
            let frozen = link.connection.freeze(Duration::ZERO);
            let (rules, limits) = (compiled(never_twice()), ConnectionLimits::default());
            link.connection =
                Connection::thaw(&frozen, Duration::ZERO, rules, ENFORCE, OnRefusal::Answer, limits).unwrap();
            link.feed(CLIENT, &RELEASE);
            link.record
        };
        let refused = link(RESUMES);
        assert_eq!((refused.to_server, refused.to_client), (vec![], answer));
        assert!(
            refused.noted[0].contains("an earlier connection"),
            "{:?}",
            refused.noted
        );
        // The broker has nothing from before.
        assert_eq!(link((false, false)).to_server, RELEASE);
    }
    let mut may = Link::new(
        &Arc::default(),
        (broker(1), "c", 4),
        RESUMES,
        (elsewhere(), ENFORCE),
    );
    may.feed(CLIENT, &RELEASE);
    assert_eq!(may.record.to_server, RELEASE);
    let observed = (never_twice(), Mode::Observe);
    let mut observed = Link::new(&Arc::default(), (broker(1), "c", 4), RESUMES, observed);
    observed.feed(CLIENT, &RELEASE);
    assert_eq!(observed.record.to_server, RELEASE);
    assert_eq!(observed.record.foretold, 1, "{:?}", observed.record);
}

#[test]
fn sessions_of_other_clients_and_other_brokers_are_others() {
    let sessions = Arc::default();
    let mut first = Link::new(&sessions, (broker(1), "c", 4), (false, false), (wide(), ENFORCE));
    first.feed(CLIENT, &publication(4, 4, "status/x", None, b"1"));
    drop(first);
    for who in [(broker(2), "c", 4), (broker(1), "d", 4)] {
        let mut other = Link::new(&sessions, who, RESUMES, (elsewhere(), ENFORCE));
        other.feed(CLIENT, &RELEASE);
        assert_eq!(other.record.to_server, RELEASE);
    }
    // Who is not let in changes nothing of it.
    let refused = Connection::new(
        compiled(wide()),
        ENFORCE,
        OnRefusal::Answer,
        ConnectionLimits::default(),
    );
    let mut refused = Link {
        connection: refused.remembering(&sessions, broker(1), HERE),
        record: Record::default(),
    };
    let body = [&text("MQTT")[..], &[4, 2, 0, 60], &text("c")].concat();
    refused.feed(CLIENT, &packet(0x10, &body));
    refused.feed(SERVER, &[0x20, 2, 0, 5]);
    drop(refused);
    let mut next = Link::new(&sessions, (broker(1), "c", 4), RESUMES, (elsewhere(), ENFORCE));
    next.feed(CLIENT, &RELEASE);
    assert!(next.record.to_server.is_empty());
    // Once it is released, nothing is left.
    next.connection.set_rules(compiled(wide()));
    next.feed(CLIENT, &RELEASE);
    next.feed(SERVER, &[0x70, 2, 0, 7]);
    drop(next);
    assert_eq!(sessions.kept(), 0);
}

#[test]
fn of_clients_that_are_gone_a_bounded_number_is_kept_and_the_latest() {
    let sessions = Arc::default();
    let link = |client: &str, how, rules| Link::new(&sessions, (broker(1), client, 4), how, (rules, ENFORCE));
    for number in 0..1100 {
        let mut one = link(&format!("c{number}"), (false, false), wide());
        one.feed(CLIENT, &publication(4, 4, "status/x", None, b"1"));
    }
    assert_eq!(sessions.kept(), 1024);
    let mut latest = link("c1099", RESUMES, elsewhere());
    latest.feed(CLIENT, &RELEASE);
    assert!(latest.record.to_server.is_empty());
    let long = "status/".to_owned() + &"x".repeat(60_000);
    for number in 0..10 {
        let mut one = link(&format!("long{number}"), (false, false), wide());
        one.feed(CLIENT, &publication(4, 4, &long, None, b"1"));
    }
    assert!(sessions.kept() <= 5, "{}", sessions.kept());
}

#[test]
fn a_client_with_many_names_does_not_make_the_gateway_forget_what_another_address_published() {
    let sessions = Arc::default();
    let there = IpAddr::from([10, 0, 0, 2]);
    let mut other = Link::from(
        there,
        &sessions,
        (broker(1), "other", 4),
        (false, false),
        (wide(), ENFORCE),
    );
    other.feed(CLIENT, &publication(4, 4, "status/x", None, b"1"));
    drop(other);
    let long = "status/".to_owned() + &"x".repeat(30_000);
    for number in 0..1100 {
        let topic = if number < 20 { &long } else { "status/x" };
        let name = format!("c{number}");
        let mut one = Link::new(
            &sessions,
            (broker(1), &name, 4),
            (false, false),
            (wide(), ENFORCE),
        );
        one.feed(CLIENT, &publication(4, 4, topic, None, b"1"));
    }
    assert!(sessions.kept() <= 1024);
    let who = (broker(1), "other", 4);
    let mut other = Link::from(there, &sessions, who, RESUMES, (elsewhere(), ENFORCE));
    other.feed(CLIENT, &RELEASE);
    assert!(other.record.to_server.is_empty());
}

//! A connection that stands while the terms it is judged under change.

use std::sync::Arc;
use std::time::Duration;

use penstock_inspect::connection::{Connection, ConnectionLimits, Mode, Sender};
use penstock_inspect::judge::{OnRefusal, Rules};

use crate::modbus_connection::adu;
use crate::mqtt_connection;
use crate::mqtt_packets::{connack, connect, publication, subscription};
use crate::recorder::{Record, connection, function, modbus};

const READ: [u8; 12] = [0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 1];
const WRITE: [u8; 12] = [0, 2, 0, 0, 0, 6, 1, 6, 0, 40, 0, 9];

fn read_only(mode: Mode) -> Connection {
    connection(&modbus(vec![function("read-only")]), mode, OnRefusal::Answer)
}

fn feed(connection: &mut Connection, bytes: &[u8]) -> Record {
    let mut record = Record::default();
    connection.feed(Sender::Client, Duration::ZERO, bytes, &mut |output| {
        record.take(output)
    });
    record
}

fn set(connection: &mut Connection, mode: Mode) -> Record {
    let mut record = Record::default();
    connection.set_terms(mode, OnRefusal::Answer, &mut |output| record.take(output));
    record
}

#[test]
fn a_zone_that_begins_to_enforce_does_so_from_the_next_request_on() {
    let mut connection = read_only(Mode::Observe);
    assert_eq!(feed(&mut connection, &WRITE).to_server, WRITE);
    assert_eq!(feed(&mut connection, &READ[..5]).to_server, READ[..5]);
    set(&mut connection, Mode::Enforce);
    // What is half through goes on, once it is whole and permitted.
    assert!(feed(&mut connection, &READ[5..9]).to_server.is_empty());
    assert_eq!(feed(&mut connection, &READ[9..]).to_server, READ[5..]);
    let refused = feed(&mut connection, &[&[0, 3], &WRITE[2..]].concat());
    assert_eq!((refused.to_server.len(), refused.to_client.len()), (0, 9));
    set(&mut connection, Mode::Observe);
    let passed = feed(&mut connection, &[&[0, 4], &WRITE[2..]].concat());
    assert_eq!(passed.to_server.len(), 12);
}

#[test]
fn what_is_half_through_when_enforcement_begins_is_never_completed_if_it_is_refused() {
    let halves = |whole: &[u8]| {
        let mut connection = read_only(Mode::Observe);
        assert_eq!(feed(&mut connection, &whole[..9]).to_server, whole[..9]);
        // Also through a restart of the agent.
        let frozen = connection.freeze(Duration::ZERO);
        let rules = Arc::new(Rules::compile(&modbus(vec![function("read-only")])).unwrap());
        let thawed = Connection::thaw(
            &frozen,
            Duration::ZERO,
            rules,
            Mode::Enforce,
            OnRefusal::Answer,
            ConnectionLimits::default(),
        );
        set(&mut connection, Mode::Enforce);
        let [stood, restarted] = [connection, thawed.unwrap()].map(|mut one| feed(&mut one, &whole[9..]));
        assert_eq!(stood, restarted);
        stood
    };
    let refused = halves(&WRITE);
    assert_eq!((&refused.to_server[..], refused.closed), (&[][..], Some(true)));
    assert_eq!(halves(&READ).to_server, READ[9..]);
}

#[test]
fn a_forbidden_publication_whose_payload_passes_when_enforcement_begins_is_cut() {
    let rules = mqtt_connection::rules();
    for (topic, stands) in [("line/4/temperature", true), ("elsewhere", false)] {
        let chunks = [
            (Sender::Client, connect(5, "c")),
            (Sender::Server, connack(5)),
            (
                Sender::Client,
                publication(5, 0, topic, None, &[7; 90])[..60].to_vec(),
            ),
        ];
        let observing = crate::recorder::connection(&rules, Mode::Observe, OnRefusal::Answer);
        let (record, mut connection) = crate::recorder::run(observing, &chunks);
        assert!(record.to_server.ends_with(&[7; 30]));
        set(&mut connection, Mode::Enforce);
        assert_eq!(
            feed(&mut connection, &[7; 5]).to_server.is_empty(),
            !stands,
            "{topic}"
        );
        assert_eq!(connection.is_closed(), !stands);
    }
}

#[test]
fn a_zone_that_begins_to_observe_lets_go_of_what_is_held_at_once() {
    let mut connection = read_only(Mode::Enforce);
    assert!(feed(&mut connection, &READ[..5]).to_server.is_empty());
    assert_eq!(set(&mut connection, Mode::Observe).to_server, READ[..5]);
    assert_eq!(feed(&mut connection, &READ[5..]).to_server, READ[5..]);
    // What an agent that knew nothing of this left behind, too.
    let mut connection = read_only(Mode::Enforce);
    feed(&mut connection, &READ[..5]);
    let rules = Arc::new(Rules::compile(&modbus(vec![function("read-only")])).unwrap());
    let frozen = connection.freeze(Duration::ZERO);
    assert!(!String::from_utf8_lossy(&frozen).contains("passed"));
    let thawed = Connection::thaw(
        &frozen,
        Duration::ZERO,
        rules,
        Mode::Observe,
        OnRefusal::Answer,
        ConnectionLimits::default(),
    );
    let mut record = Record::default();
    thawed.unwrap().settle(&mut |output| record.take(output));
    assert_eq!(record.to_server, READ[..5]);
}

#[test]
fn a_publication_that_was_being_refused_when_observing_begins_falls_to_its_end_and_no_further() {
    let delivery = publication(5, 0, "line/1", None, &[7; 100]);
    let chunks = [
        (Sender::Client, connect(5, "c")),
        (Sender::Server, connack(5)),
        (
            Sender::Client,
            publication(5, 0, "elsewhere", None, &[7; 90])[..60].to_vec(),
        ),
        (Sender::Server, delivery[..60].to_vec()),
        (Sender::Client, vec![7; 10]),
    ];
    let enforcing = crate::recorder::connection(&mqtt_connection::rules(), Mode::Enforce, OnRefusal::Answer);
    let (_, mut connection) = crate::recorder::run(enforcing, &chunks);
    assert_eq!(set(&mut connection, Mode::Observe), Record::default());
    let left = publication(5, 0, "elsewhere", None, &[7; 90]).len() - 70;
    let ping = [0xc0, 0];
    let record = feed(&mut connection, &[&vec![7; left][..], &ping].concat());
    assert_eq!(record.to_server, ping);
    // An answer of the gateway's own follows the delivery that it waited for.
    let refused = publication(5, 2, "elsewhere", None, b"");
    let enforcing = crate::recorder::connection(&mqtt_connection::rules(), Mode::Enforce, OnRefusal::Answer);
    let chunks = [
        &chunks[..2],
        &[
            (Sender::Server, delivery[..60].to_vec()),
            (Sender::Client, refused),
        ],
    ]
    .concat();
    let (_, mut connection) = crate::recorder::run(enforcing, &chunks);
    assert_eq!(set(&mut connection, Mode::Observe), Record::default());
    let mut record = Record::default();
    let rest = [&delivery[60..], &[0xd0, 0]].concat();
    connection.feed(Sender::Server, Duration::ZERO, &rest, &mut |output| {
        record.take(output)
    });
    assert_eq!(
        record.to_client,
        [&delivery[60..], &[0x40, 3, 0, 7, 0x87], &[0xd0, 0]].concat()
    );
}

#[test]
fn a_stream_that_was_lost_while_observing_ends_where_enforcing_begins() {
    let mut connection = read_only(Mode::Observe);
    let lost = feed(&mut connection, b"GET / HTTP/1.1\r\n");
    assert_eq!(lost.to_server, b"GET / HTTP/1.1\r\n");
    connection.set_terms(Mode::Enforce, OnRefusal::Answer, &mut |_| {});
    assert!(connection.is_closed());
    assert_eq!(feed(&mut connection, &WRITE), Record::default());
}

#[test]
fn what_is_not_whole_at_the_end_of_a_side_has_passed_only_while_observing() {
    for (mode, passes) in [(Mode::Observe, true), (Mode::Enforce, false)] {
        let mut connection = read_only(mode);
        let expected: &[u8] = if passes { &READ[..7] } else { &[] };
        assert_eq!(feed(&mut connection, &READ[..7]).to_server, expected);
        let mut record = Record::default();
        connection.end(Sender::Client, &mut |output| record.take(output));
        assert!(record.to_server.is_empty());
        assert_eq!((record.noted.len(), record.foretold), (1, usize::from(passes)));
    }
}

#[test]
fn an_answer_of_the_gateways_own_never_stands_within_a_packet_that_began_to_pass_while_it_was_observed() {
    let delivery = publication(5, 0, "line/1", None, &[7; 100]);
    let rest = [&delivery[5..], &[0xd0, 0]].concat();
    let expected = [&delivery[5..], &[0x40, 3, 0, 7, 0x87], &[0xd0, 0]].concat();
    for then in [Mode::Enforce, Mode::Observe] {
        let chunks = [
            (Sender::Client, connect(5, "c")),
            (Sender::Server, connack(5)),
            (Sender::Server, delivery[..5].to_vec()),
        ];
        let observing = connection(&mqtt_connection::rules(), Mode::Observe, OnRefusal::Answer);
        let (_, mut stood) = crate::recorder::run(observing, &chunks);
        set(&mut stood, Mode::Enforce);
        let refused = feed(&mut stood, &publication(5, 2, "elsewhere", None, b""));
        assert_eq!((refused.to_client.len(), refused.closed), (0, None));
        // Also through a restart of the agent.
        let frozen = stood.freeze(Duration::ZERO);
        let rules = Arc::new(Rules::compile(&mqtt_connection::rules()).unwrap());
        let limits = ConnectionLimits::default();
        let thawed = Connection::thaw(&frozen, Duration::ZERO, rules, then, OnRefusal::Answer, limits);
        assert_eq!(set(&mut stood, then), Record::default());
        for mut one in [stood, thawed.unwrap()] {
            let mut record = Record::default();
            for piece in [&rest[..30], &rest[30..]] {
                one.feed(Sender::Server, Duration::ZERO, piece, &mut |output| {
                    record.take(output)
                });
            }
            assert_eq!(record.to_client, expected, "{then:?}");
        }
    }
}

#[test]
fn no_exception_of_the_gateways_own_stands_within_an_answer_that_began_to_pass_while_it_was_observed() {
    const ANSWER: [u8; 11] = [0, 1, 0, 0, 0, 5, 1, 3, 2, 0, 7];
    let answer = |connection: &mut Connection, bytes: &[u8]| {
        let mut record = Record::default();
        connection.feed(Sender::Server, Duration::ZERO, bytes, &mut |output| {
            record.take(output)
        });
        record
    };
    // What was asked is no longer permitted when the answer is half through.
    let mut connection = read_only(Mode::Observe);
    feed(&mut connection, &READ);
    assert_eq!(answer(&mut connection, &ANSWER[..9]).to_client, ANSWER[..9]);
    set(&mut connection, Mode::Enforce);
    let others = Rules::compile(&modbus(vec![function("write-single-register")])).unwrap();
    connection.set_rules(Arc::new(others));
    let ended = answer(&mut connection, &ANSWER[9..]);
    assert_eq!((&ended.to_client[..], ended.closed), (&[][..], Some(true)));
    // Something is refused when what nobody asked for is half through.
    let mut connection = read_only(Mode::Observe);
    answer(&mut connection, &ANSWER[..9]);
    set(&mut connection, Mode::Enforce);
    let refused = feed(&mut connection, &WRITE);
    assert_eq!((refused.to_client.len(), refused.to_server.len()), (0, 0));
    assert_eq!(answer(&mut connection, &ANSWER[9..]).to_client, b"");
}

#[test]
fn a_connection_that_other_rules_or_terms_close_takes_leave_of_its_broker_or_names_the_will() {
    let body = [
        &crate::mqtt_packets::text("MQTT")[..],
        &[4, 6, 0, 60],
        &crate::mqtt_packets::text("c"),
        &crate::mqtt_packets::text("elsewhere"),
        &crate::mqtt_packets::text("gone"),
    ]
    .concat();
    let greeting = crate::mqtt_packets::packet(0x10, &body);
    for within in [false, true] {
        let mut chunks = vec![(Sender::Client, greeting.clone()), (Sender::Server, connack(4))];
        if within {
            // One that would be held until it is whole, because of the will, is smaller.
            let refused = publication(4, 0, "elsewhere", None, &[7; 70_000])[..60].to_vec();
            chunks.push((Sender::Client, refused));
        }
        let observing = connection(&mqtt_connection::rules(), Mode::Observe, OnRefusal::Answer);
        let (_, mut connection) = crate::recorder::run(observing, &chunks);
        set(&mut connection, Mode::Enforce);
        assert_eq!(connection.is_closed(), within);
        let rules = Rules::compile(&modbus(vec![function("read-only")])).unwrap();
        connection.set_rules(Arc::new(rules));
        assert!(connection.is_closed());
        let mut record = Record::default();
        connection.leave_closed(&mut |output| record.take(output));
        let to_server: &[u8] = if within { &[] } else { &[0xe0, 0] };
        assert_eq!((&record.to_server[..], record.closed), (to_server, Some(within)));
        let named = record
            .noted
            .iter()
            .any(|note| note.contains("publish this client's will"));
        assert_eq!(named, within, "{:?}", record.noted);
    }
}

fn answered(connection: &mut Connection, bytes: &[u8]) -> Record {
    let mut record = Record::default();
    connection.feed(Sender::Server, Duration::ZERO, bytes, &mut |output| {
        record.take(output)
    });
    record
}

/// Asked while everything passed; enforcing begins before the answers come, under rules that permit another register.
#[test]
fn an_answer_to_what_passed_only_because_it_was_observed_goes_on_and_one_to_what_was_permitted_is_judged_again()
 {
    let reading = |first| {
        let mut reading = function("read-holding-registers");
        reading.addresses = Some(vec![crate::recorder::range(first, first)]);
        modbus(vec![reading])
    };
    let observed = adu(1, 1, &[3, 0, 7, 0, 1]);
    let permitted = adu(2, 1, &[3, 0, 2, 0, 1]);
    let answer = |transaction| adu(transaction, 1, &[3, 2, 0, 9]);
    for restarted in [false, true] {
        let mut connection = connection(&reading(2), Mode::Observe, OnRefusal::Answer);
        let asked = [observed.clone(), permitted.clone()].concat();
        assert_eq!(feed(&mut connection, &asked).to_server, asked);
        let rules = Arc::new(Rules::compile(&reading(5)).unwrap());
        if restarted {
            let frozen = connection.freeze(Duration::ZERO);
            let limits = ConnectionLimits::default();
            let (mode, style) = (Mode::Enforce, OnRefusal::Answer);
            connection = Connection::thaw(&frozen, Duration::ZERO, rules, mode, style, limits).unwrap();
        } else {
            set(&mut connection, Mode::Enforce);
            connection.set_rules(rules);
        }
        let record = answered(&mut connection, &[answer(1), answer(2)].concat());
        let expected = [answer(1), adu(2, 1, &[0x83, 1])].concat();
        assert_eq!(record.to_client, expected, "restarted: {restarted}");
        assert_eq!(record.closed, None);
        // What is asked from here on is enforced.
        let refused = feed(&mut connection, &adu(3, 1, &[3, 0, 7, 0, 1]));
        assert_eq!(
            (refused.to_server, refused.to_client),
            (vec![], adu(3, 1, &[0x83, 2]))
        );
    }
}

/// A server that goes by the function has the beginning of a write unread, which passed while everything did; what is read then begins
/// with the value that is written.
#[test]
fn a_write_that_began_within_what_was_observed_is_not_completed_by_what_is_permitted() {
    let write = [0, 2, 0, 0, 0, 6, 1, 6, 0, 40];
    let within = |pdu: &[u8]| adu(1, 1, &[pdu, &write].concat());
    // Of a function that nobody knows, and behind the end of one that all know.
    for (begun, answer) in [
        (within(&[90]), [0x80 | 90, 1]),
        (within(&[3, 0, 0, 0, 1]), [0x83, 3]),
    ] {
        let mut connection = read_only(Mode::Observe);
        assert_eq!(feed(&mut connection, &begun).to_server, begun);
        answered(&mut connection, &adu(1, 1, &answer));
        let frozen = connection.freeze(Duration::ZERO);
        set(&mut connection, Mode::Enforce);
        assert!(connection.is_closed());
        let mut record = Record::default();
        connection.leave_closed(&mut |output| record.take(output));
        assert_eq!((record.closed, record.noted.len()), (Some(true), 1), "{record:?}");
        assert!(
            feed(&mut connection, &adu(0x1234, 1, &[3, 0, 0, 0, 1]))
                .to_server
                .is_empty()
        );
        // Nor does a restart forget it.
        let thaw = |mode| {
            let rules = Arc::new(Rules::compile(&modbus(vec![function("read-only")])).unwrap());
            let limits = ConnectionLimits::default();
            Connection::thaw(&frozen, Duration::ZERO, rules, mode, OnRefusal::Answer, limits)
        };
        assert!(thaw(Mode::Enforce).is_err());
        assert_eq!(thaw(Mode::Observe).unwrap().freeze(Duration::ZERO), frozen);
    }
}

#[test]
fn a_connection_whose_server_knows_what_was_only_observed_stands_when_enforcing_begins() {
    let mut connection = read_only(Mode::Observe);
    feed(&mut connection, &adu(1, 1, &[90, 0, 2]));
    answered(&mut connection, &adu(1, 1, &[90, 7]));
    feed(&mut connection, &WRITE);
    set(&mut connection, Mode::Enforce);
    assert!(!connection.is_closed());
    assert_eq!(feed(&mut connection, &READ).to_server, READ);
}

#[test]
fn what_was_held_to_be_completed_goes_on_at_once_where_the_flow_is_given_another_protocol_and_observes() {
    let rules = || crate::mqtt_connection::rules();
    let mut connection = connection(&rules(), Mode::Enforce, OnRefusal::Answer);
    feed(&mut connection, &connect(5, "c"));
    answered(&mut connection, &connack(5));
    let asked = subscription(5, &[("line/#", 0), ("secret/#", 0)]);
    assert!(feed(&mut connection, &asked).to_server.len() < asked.len());
    // SUBACK of the one filter that went on, half of it.
    assert!(answered(&mut connection, &[0x90, 4, 0, 9]).to_client.is_empty());
    assert!(set(&mut connection, Mode::Observe).to_client.is_empty());
    connection.set_rules(Arc::new(
        Rules::compile(&modbus(vec![function("read-only")])).unwrap(),
    ));
    let mut record = Record::default();
    connection.settle(&mut |output| record.take(output));
    assert_eq!(record.to_client, [0x90, 4, 0, 9]);
    assert_eq!(answered(&mut connection, &[0, 0]).to_client, [0, 0]);
}

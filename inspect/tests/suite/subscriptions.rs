//! A SUBSCRIBE of several filters: each is judged, forwarded and answered by itself.

use std::sync::Arc;
use std::time::Duration;

use penstock_inspect::connection::{Connection, ConnectionLimits, Mode, Sender};
use penstock_inspect::judge::{OnRefusal, Rules};
use proptest::prelude::*;

use crate::mqtt_connection::rules;
use crate::mqtt_packets::{connack, connect, packet, subscription, text};
use crate::recorder::{Record, connection, cut, run};

const CLIENT: Sender = Sender::Client;
const SERVER: Sender = Sender::Server;

/// Of these filters the rules permit those that begin with `line/`.
const FILTERS: [(&str, bool); 5] = [
    ("line/1/#", true),
    ("#", false),
    ("line/2", true),
    ("other", false),
    ("line/+/x", true),
];

fn opened(version: u8, mode: Mode, style: OnRefusal) -> Connection {
    opened_within(ConnectionLimits::default(), version, mode, style)
}

fn opened_within(limits: ConnectionLimits, version: u8, mode: Mode, style: OnRefusal) -> Connection {
    let rules = Arc::new(Rules::compile(&rules()).unwrap());
    let mut connection = Connection::new(rules, mode, style, limits);
    for (from, bytes) in [(CLIENT, connect(version, "c")), (SERVER, connack(version))] {
        connection.feed(from, Duration::ZERO, &bytes, &mut |_| {});
    }
    connection
}

fn feed(connection: &mut Connection, from: Sender, bytes: &[u8]) -> Record {
    let mut record = Record::default();
    connection.feed(from, Duration::ZERO, bytes, &mut |output| record.take(output));
    record
}

/// SUBSCRIBE; in MQTT 5 with a subscription identifier.
fn subscribe(version: u8, identifier: u8, filters: &[(&str, u8)]) -> Vec<u8> {
    let properties: &[u8] = if version == 5 { &[2, 11, 5] } else { &[] };
    let mut body = [&[0, identifier], properties].concat();
    for (filter, options) in filters {
        body.extend(text(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

/// SUBACK; in MQTT 5 with a reason in words.
fn suback(version: u8, identifier: u8, codes: &[u8]) -> Vec<u8> {
    let properties: &[u8] = if version == 5 {
        &[5, 31, 0, 2, b'o', b'k']
    } else {
        &[]
    };
    packet(0x90, &[&[0, identifier], properties, codes].concat())
}

fn not_permitted(version: u8) -> u8 {
    if version == 5 { 0x87 } else { 0x80 }
}

#[test]
fn what_is_forbidden_of_a_subscribe_is_taken_out_of_it_and_put_into_its_answer() {
    for version in [4, 5] {
        let mut connection = opened(version, Mode::Enforce, OnRefusal::Answer);
        let no = not_permitted(version);
        let wanted = [("line/1", 1), ("other/#", 0), ("line/2", 2)];
        let asked = feed(&mut connection, CLIENT, &subscribe(version, 9, &wanted));
        assert_eq!(asked.to_server, subscribe(version, 9, &[wanted[0], wanted[2]]));
        assert!(asked.to_client.is_empty(), "the broker has not answered");
        let told: Vec<bool> = asked.judged.iter().map(|told| told.ends_with("true")).collect();
        assert_eq!(told, [true, false, true], "{:?}", asked.judged);
        let answered = feed(&mut connection, SERVER, &suback(version, 9, &[1, 2]));
        assert_eq!(answered.to_client, suback(version, 9, &[1, no, 2]));
        // Once.
        let again = feed(&mut connection, SERVER, &suback(version, 9, &[1, 2]));
        assert_eq!(again.to_client, suback(version, 9, &[1, 2]));
    }
}

#[test]
fn a_subscribe_of_which_nothing_is_permitted_is_answered_without_the_broker() {
    for version in [4, 5] {
        let mut connection = opened(version, Mode::Enforce, OnRefusal::Answer);
        let no = not_permitted(version);
        let asked = feed(
            &mut connection,
            CLIENT,
            &subscribe(version, 3, &[("#", 0), ("a", 0)]),
        );
        assert!(asked.to_server.is_empty());
        let properties: &[u8] = if version == 5 { &[0] } else { &[] };
        assert_eq!(
            asked.to_client,
            packet(0x90, &[&[0, 3], properties, &[no, no]].concat())
        );
    }
}

#[test]
fn an_unsubscribe_goes_on_whole_for_it_needs_no_rule() {
    let mut connection = opened(4, Mode::Enforce, OnRefusal::Answer);
    let whole = packet(0xa2, &[&[0, 4][..], &text("line/1"), &text("other")].concat());
    let asked = feed(&mut connection, CLIENT, &whole);
    assert_eq!(asked.to_server, whole);
    assert_eq!(asked.judged.len(), 2);
}

#[test]
fn a_style_that_ends_the_connection_lets_nothing_of_the_subscribe_on_and_says_so_of_each_filter() {
    for style in [OnRefusal::Disconnect, OnRefusal::Reset] {
        let mut connection = opened(5, Mode::Enforce, style);
        let wanted = [("line/1", 0), ("other", 0)];
        let asked = feed(&mut connection, CLIENT, &subscribe(5, 9, &wanted));
        assert!(asked.to_server.is_empty() && asked.closed.is_some());
        assert!(asked.judged[0].contains("Together"), "{:?}", asked.judged);
        assert!(
            asked.judged[1].contains("no rule covers the topic"),
            "{:?}",
            asked.judged
        );
        // So is it foretold.
        let mut observed = opened(5, Mode::Observe, style);
        let told = feed(&mut observed, CLIENT, &subscribe(5, 9, &wanted)).judged;
        let verdicts = |judged: &[String]| -> Vec<String> {
            let verdict = |told: &String| told.rsplit_once(' ').unwrap().0.to_owned();
            judged.iter().map(verdict).collect()
        };
        assert_eq!(verdicts(&told), verdicts(&asked.judged));
    }
    // Silence about a part of what is answered together would be no answer to the rest.
    let mut connection = opened(4, Mode::Enforce, OnRefusal::Drop);
    let asked = feed(
        &mut connection,
        CLIENT,
        &subscribe(4, 9, &[("line/1", 0), ("other", 0)]),
    );
    assert_eq!(asked.to_server, subscribe(4, 9, &[("line/1", 0)]));
    let answered = feed(&mut connection, SERVER, &suback(4, 9, &[0]));
    assert_eq!(answered.to_client, suback(4, 9, &[0, 0x80]));
    let nothing = feed(&mut connection, CLIENT, &subscribe(4, 9, &[("other", 0)]));
    assert!(nothing.to_server.is_empty() && nothing.to_client.is_empty());
}

#[test]
fn a_connect_whose_will_is_forbidden_is_not_told_as_allowed() {
    let mut body = [&text("MQTT")[..], &[4, 6, 0, 60], &text("c")].concat();
    body.extend([text("other"), text("gone")].concat());
    for (mode, forwarded) in [(Mode::Enforce, "false"), (Mode::Observe, "true")] {
        let mut connection = connection(&rules(), mode, OnRefusal::Answer);
        let asked = feed(&mut connection, CLIENT, &packet(0x10, &body));
        assert!(asked.judged[0].contains("Together"), "{:?}", asked.judged);
        assert!(
            asked.judged[1].contains("no rule covers the topic"),
            "{:?}",
            asked.judged
        );
        assert!(asked.judged.iter().all(|told| told.ends_with(forwarded)));
    }
}

#[test]
fn a_broker_that_answers_nothing_costs_a_bounded_memory_and_then_the_connection() {
    let limits = ConnectionLimits {
        pending_filters_max: 6,
        ..ConnectionLimits::default()
    };
    let mut connection = opened_within(limits, 5, Mode::Enforce, OnRefusal::Answer);
    let wanted = [("line/1", 0), ("other", 0)];
    for identifier in 1..=3 {
        let asked = feed(&mut connection, CLIENT, &subscribe(5, identifier, &wanted));
        assert_eq!(asked.closed, None);
    }
    // What asks nothing forbidden needs no room.
    let plain = subscribe(5, 8, &[("line/1", 0)]);
    assert_eq!(feed(&mut connection, CLIENT, &plain).to_server, plain);
    let asked = feed(&mut connection, CLIENT, &subscribe(5, 4, &wanted));
    assert!(asked.to_server.is_empty() && asked.closed == Some(false));
    assert!(asked.noted[0].contains("too much waits"), "{:?}", asked.noted);
    assert!(
        asked.judged.iter().all(|told| told.ends_with("false")),
        "{:?}",
        asked.judged
    );
}

#[test]
fn a_wrong_number_of_codes_is_completed_as_a_failure_and_nothing_is_lost() {
    for (codes, expected) in [
        (&[0][..], &[0, 0x80, 0x80][..]),
        (&[0, 1, 2], &[0, 0x80, 1, 2]),
        (&[0, 1], &[0, 0x80, 1]),
    ] {
        let mut connection = opened(4, Mode::Enforce, OnRefusal::Answer);
        let wanted = [("line/1", 0), ("other", 0), ("line/2", 0)];
        feed(&mut connection, CLIENT, &subscribe(4, 9, &wanted));
        let answered = feed(&mut connection, SERVER, &suback(4, 9, codes));
        assert_eq!(answered.to_client, suback(4, 9, expected));
    }
}

#[test]
fn a_packet_identifier_that_is_used_again_too_early_is_answered_in_order() {
    let mut connection = opened(4, Mode::Enforce, OnRefusal::Answer);
    feed(
        &mut connection,
        CLIENT,
        &subscribe(4, 1, &[("other", 0), ("line/1", 0)]),
    );
    feed(&mut connection, CLIENT, &subscribe(4, 1, &[("line/2", 0)]));
    feed(
        &mut connection,
        CLIENT,
        &subscribe(4, 1, &[("line/3", 0), ("#", 0)]),
    );
    let answers: Vec<u8> = [0, 1, 2]
        .iter()
        .flat_map(|code| feed(&mut connection, SERVER, &suback(4, 1, &[*code])).to_client)
        .collect();
    let expected = [
        suback(4, 1, &[0x80, 0]),
        suback(4, 1, &[1]),
        suback(4, 1, &[2, 0x80]),
    ];
    assert_eq!(answers, expected.concat());
}

#[test]
fn an_answer_is_completed_although_its_zones_only_observe_by_then() {
    let answer = suback(5, 9, &[1, 0]);
    let next = packet(0x30, &[&text("line/1")[..], &[0], b"20"].concat());
    let wrong = [0x30, 0];
    for at in 0..=answer.len() {
        for behind in [&next[..], &wrong] {
            let mut connection = opened(5, Mode::Enforce, OnRefusal::Answer);
            let wanted = [("line/1", 1), ("other", 0), ("line/2", 2)];
            feed(&mut connection, CLIENT, &subscribe(5, 9, &wanted));
            let mut told = feed(&mut connection, SERVER, &answer[..at]);
            connection.set_terms(Mode::Observe, OnRefusal::Answer, &mut |output| told.take(output));
            let stream = [&answer[at..], behind].concat();
            connection.feed(SERVER, Duration::ZERO, &stream, &mut |output| told.take(output));
            assert_eq!(
                told.to_client,
                [&suback(5, 9, &[1, 0x87, 0]), behind].concat(),
                "{at}"
            );
            let passed = feed(&mut connection, SERVER, &answer);
            assert_eq!(passed.to_client, answer, "{at}");
        }
    }
    // What cannot be read instead passes, as does what ends before it is whole.
    let mut connection = opened(5, Mode::Enforce, OnRefusal::Answer);
    feed(
        &mut connection,
        CLIENT,
        &subscribe(5, 9, &[("line/1", 1), ("other", 0)]),
    );
    let mut told = feed(&mut connection, SERVER, &answer[..3]);
    connection.set_terms(Mode::Observe, OnRefusal::Answer, &mut |output| told.take(output));
    assert!(told.to_client.is_empty());
    let mut lost = connection;
    lost.feed(SERVER, Duration::ZERO, &[0xff; 40], &mut |output| {
        told.take(output)
    });
    assert_eq!(told.to_client, [&answer[..3], &[0xff; 40]].concat());
}

#[test]
fn what_a_server_began_to_answer_passes_when_it_ends_or_when_its_client_cannot_be_read() {
    let answer = suback(4, 9, &[1]);
    for by_client in [false, true] {
        let mut connection = opened(4, Mode::Enforce, OnRefusal::Answer);
        feed(
            &mut connection,
            CLIENT,
            &subscribe(4, 9, &[("line/1", 1), ("other", 0)]),
        );
        let mut told = feed(&mut connection, SERVER, &answer[..3]);
        connection.set_terms(Mode::Observe, OnRefusal::Answer, &mut |output| told.take(output));
        if by_client {
            connection.feed(CLIENT, Duration::ZERO, &[0xff], &mut |output| told.take(output));
            connection.feed(SERVER, Duration::ZERO, &answer[3..], &mut |output| {
                told.take(output)
            });
            assert_eq!(told.to_client, answer);
        } else {
            connection.end(SERVER, &mut |output| told.take(output));
            assert_eq!(told.to_client, answer[..3]);
        }
    }
}

proptest! {
    #[test]
    fn a_client_gets_one_answer_for_each_filter_in_its_order_however_it_is_cut_or_frozen(
        version in prop_oneof![Just(4_u8), Just(5)],
        requests in prop::collection::vec(prop::collection::vec((0..FILTERS.len(), 0_u8..3), 1..6), 1..5),
        later in any::<bool>(),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let no = not_permitted(version);
        let (mut chunks, mut answers, mut forwarded) = (Vec::new(), Vec::new(), Vec::new());
        let (mut of_broker, mut own) = (Vec::new(), Vec::new());
        for (identifier, request) in (1_u8..).zip(&requests) {
            let wanted: Vec<(&str, u8)> = request.iter().map(|(at, qos)| (FILTERS[*at].0, *qos)).collect();
            let kept: Vec<(&str, u8)> = wanted
                .iter()
                .copied()
                .filter(|(filter, _)| filter.starts_with("line/"))
                .collect();
            chunks.push((CLIENT, subscribe(version, identifier, &wanted)));
            let codes: Vec<u8> = kept.iter().map(|(_, qos)| *qos).collect();
            let all: Vec<u8> = request
                .iter()
                .map(|(at, qos)| if FILTERS[*at].1 { *qos } else { no })
                .collect();
            if kept.is_empty() {
                let properties: &[u8] = if version == 5 { &[0] } else { &[] };
                own.extend(packet(0x90, &[&[0, identifier], properties, &all].concat()));
                continue;
            }
            forwarded.extend(subscribe(version, identifier, &kept));
            let answer = (SERVER, suback(version, identifier, &codes));
            if later { answers.push(answer) } else { chunks.push(answer) }
            of_broker.extend(suback(version, identifier, &all));
        }
        chunks.extend(answers);
        let mut frozen = opened(version, Mode::Enforce, OnRefusal::Answer);
        let chunks = cut(&chunks, &cuts);
        let (record, _) = run(opened(version, Mode::Enforce, OnRefusal::Answer), &chunks);
        prop_assert_eq!(&record.to_server, &forwarded);
        prop_assert_eq!(record.to_client.len(), of_broker.len() + own.len());
        if later {
            prop_assert_eq!(&record.to_client, &[own, of_broker].concat());
        }
        let mut again = Record::default();
        for (from, bytes) in &chunks {
            let bytes_of = frozen.freeze(Duration::ZERO);
            let rules = Arc::new(Rules::compile(&rules()).unwrap());
            let (mode, style) = (Mode::Enforce, OnRefusal::Answer);
            frozen = Connection::thaw(&bytes_of, Duration::ZERO, rules, mode, style, ConnectionLimits::default()).unwrap();
            frozen.feed(*from, Duration::ZERO, bytes, &mut |output| again.take(output));
        }
        prop_assert_eq!(again, record);
    }

    #[test]
    fn observing_foretells_of_each_filter_what_enforcing_does(
        wanted in prop::collection::vec((0..FILTERS.len(), 0_u8..3), 1..8),
        style in prop_oneof![
            Just(OnRefusal::Answer), Just(OnRefusal::Acknowledge), Just(OnRefusal::Disconnect),
            Just(OnRefusal::Reset), Just(OnRefusal::Drop)
        ],
    ) {
        let wanted: Vec<(&str, u8)> = wanted.iter().map(|(at, qos)| (FILTERS[*at].0, *qos)).collect();
        let asked = subscription(4, &wanted);
        let enforced = feed(&mut opened(4, Mode::Enforce, style), CLIENT, &asked);
        let observed = feed(&mut opened(4, Mode::Observe, style), CLIENT, &asked);
        prop_assert_eq!(&observed.to_server, &asked);
        prop_assert_eq!(observed.judged.len(), enforced.judged.len());
        for (observed, enforced) in observed.judged.iter().zip(&enforced.judged) {
            let (verdict, forwarded) = enforced.rsplit_once(' ').unwrap();
            prop_assert_eq!(observed.rsplit_once(' ').unwrap(), (verdict, "true"));
            prop_assert_eq!(forwarded == "true", !verdict.contains("Refuse"));
        }
    }
}

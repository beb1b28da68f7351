//! Observing is passive, and foretells exactly what enforcing would change: for any bytes, however they are cut.

use std::sync::Arc;
use std::time::Duration;

use penstock_inspect::connection::{Connection, ConnectionLimits, Mode, Output, Sender};
use penstock_inspect::judge::{OnRefusal, Rules};
use penstock_policy::protocol::Operations;
use penstock_policy::terms::Answers;
use proptest::prelude::*;

use crate::modbus_connection::{self, adu, read_only};
use crate::mqtt_connection::{self, rules};
use crate::mqtt_packets::{connack, connect};
use crate::recorder::{Record, cut};

type Chunks = Vec<(Sender, Vec<u8>)>;

/// Feeds chunks ten milliseconds apart, and ends both sides; `each` is asked after every feed.
fn play(mut connection: Connection, chunks: &Chunks, mut each: impl FnMut(&[u8], &[Played])) -> Record {
    let mut record = Record::default();
    for (at, (from, bytes)) in (0..).zip(chunks) {
        let mut played = Vec::new();
        connection.feed(*from, Duration::from_millis(10) * at, bytes, &mut |output| {
            played.push(match &output {
                Output::ToServer(bytes) => Played::Bytes(Sender::Client, bytes.to_vec()),
                Output::ToClient(bytes) => Played::Bytes(Sender::Server, bytes.to_vec()),
                Output::Close { .. } => Played::Close,
                _ => Played::Told,
            });
            record.take(output);
        });
        each(bytes, &played);
    }
    for from in [Sender::Client, Sender::Server] {
        if !connection.is_closed() {
            connection.end(from, &mut |output| record.take(output));
        }
    }
    record
}

#[derive(Debug, PartialEq, Eq)]
enum Played {
    Bytes(Sender, Vec<u8>),
    Told,
    Close,
}

fn sent(chunks: &Chunks, by: Sender) -> Vec<u8> {
    let of = chunks.iter().filter(|(from, _)| *from == by);
    of.flat_map(|(_, bytes)| bytes.clone()).collect()
}

/// Observing, the first thing that comes of a feed is all of it, to the other side; then only words.
fn is_passive(operations: &Operations, answers: Answers, chunks: &Chunks) -> Record {
    let mut at = 0;
    let record = play(
        connection(operations, answers, Mode::Observe),
        chunks,
        |bytes, played| {
            let passed = Played::Bytes(chunks[at].0, bytes.to_vec());
            let (first, told) = match bytes.is_empty() {
                true => (None, played),
                false => (played.first(), played.get(1..).unwrap_or_default()),
            };
            assert!(
                first.is_none_or(|first| *first == passed),
                "{first:?} of {bytes:?}"
            );
            assert_eq!(first.is_none(), bytes.is_empty());
            assert!(told.iter().all(|told| *told == Played::Told), "{told:?}");
            at += 1;
        },
    );
    assert_eq!(record.to_server, sent(chunks, Sender::Client));
    assert_eq!(record.to_client, sent(chunks, Sender::Server));
    assert_eq!(record.closed, None);
    record
}

/// Something is foretold if and only if enforcing changes what passes.
fn foretells(operations: &Operations, chunks: &Chunks) {
    for answers in [Answers::Strict, Answers::InOrder] {
        foretells_under(operations, answers, chunks);
    }
}

fn connection(operations: &Operations, answers: Answers, mode: Mode) -> Connection {
    let rules = Rules::compile(operations).unwrap().with_answers(answers);
    Connection::new(
        Arc::new(rules),
        mode,
        OnRefusal::Answer,
        ConnectionLimits::default(),
    )
}

fn foretells_under(operations: &Operations, answers: Answers, chunks: &Chunks) {
    let observed = is_passive(operations, answers, chunks);
    let foretold = observed.foretold > 0 || observed.judged.iter().any(|judged| judged.contains("Refuse"));
    let enforced = play(connection(operations, answers, Mode::Enforce), chunks, |_, _| {});
    let changed = enforced.to_server != sent(chunks, Sender::Client)
        || enforced.to_client != sent(chunks, Sender::Server)
        || enforced.closed.is_some();
    assert_eq!(
        foretold, changed,
        "foretold: {observed:#?}\nenforced: {enforced:#?}"
    );
}

/// Requests with the answers of a server that is mostly honest, by turns.
fn modbus_talk() -> impl Strategy<Value = Chunks> {
    let one = (0_u16..4, 0_u8..3, 0_u8..24, any::<u8>(), 1_u8..4).prop_map(
        |(transaction, unit, odd, noise, count)| {
            let unit = [1, 255, 0][usize::from(unit)];
            let request = match odd {
                0 => adu(transaction, unit, &[6, 0, noise, 0, 1]),
                _ => adu(transaction, unit, &[3, 0, noise, 0, count]),
            };
            let values = [&[3, 2 * count][..], &vec![noise; usize::from(2 * count)]].concat();
            let answer = match odd {
                0 => request.clone(),
                1 => adu(transaction + 1, unit, &values),
                2 => adu(0, unit, &values),
                3 => adu(transaction, unit.wrapping_add(7), &values),
                4 => adu(transaction, 255, &values),
                5 => adu(transaction, 0, &values),
                6 => adu(transaction, unit, &values[..values.len() - 1]),
                7 => [adu(transaction, unit, &values), adu(transaction, unit, &values)].concat(),
                8 => {
                    let mut answer = adu(transaction, unit, &values);
                    answer[5] = answer[5].wrapping_add(noise);
                    answer
                }
                9 => adu(transaction, unit, &[0x83, 2]),
                10 => values.clone(),
                11 => Vec::new(),
                12 => adu(transaction, unit, &[4, 2, 0, 0]),
                _ => adu(transaction, unit, &values),
            };
            vec![(Sender::Client, request), (Sender::Server, answer)]
        },
    );
    prop::collection::vec(one, 1..6).prop_map(|talk| talk.concat())
}

fn noise() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..80)
}

fn dealt(client: Vec<u8>, server: Vec<u8>, cuts: &[usize]) -> Chunks {
    let (client, server) = ([(Sender::Client, client)], [(Sender::Server, server)]);
    let pairs = cut(&client, cuts).into_iter().zip(cut(&server, cuts));
    pairs.flat_map(|(one, other)| [one, other]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases * 2))]
    #[test]
    fn observing_modbus_passes_every_byte_at_once_and_foretells_what_enforcing_changes(
        client in modbus_connection::stream(), server in modbus_connection::stream(), talk in modbus_talk(),
        noise in (noise(), noise()), cuts in prop::collection::vec(any::<usize>(), 0..10)
    ) {
        foretells(&read_only(), &talk);
        foretells(&read_only(), &cut(&talk, &cuts[..cuts.len().min(2)]));
        foretells(&read_only(), &dealt(client, server, &cuts));
        foretells(&read_only(), &dealt(noise.0, noise.1, &cuts));
    }

    #[test]
    fn observing_mqtt_passes_every_byte_at_once_and_foretells_what_enforcing_changes(
        version in 4_u8..6, streams in (mqtt_connection::stream(4), mqtt_connection::stream(5), mqtt_connection::stream(4), mqtt_connection::stream(5)),
        noise in (noise(), noise()), cuts in prop::collection::vec(any::<usize>(), 0..10)
    ) {
        let (client, server) = if version == 4 { (streams.0, streams.2) } else { (streams.1, streams.3) };
        let opening = dealt(connect(version, "c"), connack(version), &[3]);
        for (client, server) in [(client.clone(), Vec::new()), (Vec::new(), server.clone()), (client, server)] {
            foretells(&rules(), &[&opening[..], &dealt(client, server, &cuts)].concat());
        }
        foretells(&rules(), &dealt(noise.0, noise.1, &cuts));
    }
}

/// What devices in the field do, and what enforcing makes of it.
#[test]
fn answers_under_other_identifiers_and_lengths_are_foretold_as_what_enforcing_makes_of_them() {
    let values = [3, 2, 0, 7];
    let asked = adu(5, 1, &[3, 0, 0, 0, 1]);
    let mut longer = adu(5, 1, &values);
    longer[5] += 1;
    for (answer, told) in [
        (adu(5, 1, &values), ""),
        // No more than one request is in flight under this transaction: whose answer it is is certain.
        (adu(5, 0, &values), ""),
        (adu(5, 255, &values), ""),
        (
            adu(5, 2, &values),
            "an answer carries another unit identifier than the request that it follows: withheld",
        ),
        (
            adu(0, 1, &values),
            "an answer carries another transaction identifier than the request that it follows: withheld",
        ),
        (
            adu(6, 255, &values),
            "an answer carries another transaction and another unit identifier than the request that it follows: withheld",
        ),
        (
            adu(6, 1, &[3, 4, 0, 7, 0, 7]),
            "an answer to transaction 6 of unit 1, which nobody asked: withheld",
        ),
        (
            longer,
            "a packet is not whole when its sender ends the connection: withheld",
        ),
        // Modbus RTU over TCP.
        (
            vec![1, 3, 2, 0, 7, 0xf9, 0x86],
            "the protocol identifier is 512, Modbus has 0: ended",
        ),
    ] {
        let chunks = vec![(Sender::Client, asked.clone()), (Sender::Server, answer)];
        let record = is_passive(&read_only(), Answers::Strict, &chunks);
        assert_eq!(record.noted.join(", "), told);
        foretells(&read_only(), &chunks);
    }
}

#[test]
fn of_several_requests_in_flight_none_is_answered_under_another_unit() {
    let requests = [1, 2].map(|unit| adu(0, unit, &[3, 0, 0, 0, 1])).concat();
    let answer = adu(0, 255, &[3, 2, 0, 7]);
    let chunks = vec![(Sender::Client, requests), (Sender::Server, answer)];
    let record = is_passive(&read_only(), Answers::Strict, &chunks);
    assert_eq!(
        record.noted,
        ["an answer to transaction 0 of unit 255, which nobody asked: withheld"]
    );
}

/// What passes, what is withheld.
fn passes_in_order(chunks: &Chunks) -> Record {
    let record = play(
        connection(&read_only(), Answers::InOrder, Mode::Enforce),
        chunks,
        |_, _| {},
    );
    foretells(&read_only(), chunks);
    record
}

#[test]
fn in_order_an_answer_belongs_to_the_one_request_that_waits_under_whatever_identifiers() {
    let values = [3, 2, 0, 7];
    let ask = |transaction: u16| (Sender::Client, adu(transaction, 1, &[3, 0, 0, 0, 1]));
    let answer = |transaction: u16, unit: u8| (Sender::Server, adu(transaction, unit, &values));
    // A server that counts by itself, one that counts nothing, one that has another unit.
    let talk = vec![ask(1), answer(2, 1), ask(2), answer(0, 9), ask(3), answer(3, 1)];
    assert_eq!(passes_in_order(&talk).noted, Vec::<String>::new());
    // Nobody asked for a second one, or for one of another shape.
    let twice = vec![ask(1), answer(0, 1), answer(0, 1)];
    assert_eq!(passes_in_order(&twice).to_client, twice[1].1);
    let other = vec![ask(1), (Sender::Server, adu(0, 1, &[3, 4, 0, 7, 0, 7]))];
    assert_eq!(passes_in_order(&other).to_client, Vec::<u8>::new());
    // Of two that wait at once nobody knows whose it is.
    let both = vec![ask(1), ask(2), answer(7, 1)];
    assert_eq!(passes_in_order(&both).to_client, Vec::<u8>::new());
    // A request of whose length servers may think otherwise is answered strictly.
    let echo = vec![
        (Sender::Client, adu(1, 1, &[8, 0, 0, 1, 2])),
        (Sender::Server, adu(0, 1, &[8, 0, 0, 1, 2])),
        (Sender::Server, adu(1, 255, &[8, 0, 0, 1, 2])),
    ];
    assert_eq!(passes_in_order(&echo).to_client, Vec::<u8>::new());
}

#[test]
fn in_order_a_request_that_was_given_up_does_not_hinder_the_next() {
    let mut connection = connection(&read_only(), Answers::InOrder, Mode::Enforce);
    let mut record = Record::default();
    for (seconds, from, bytes) in [
        (0, Sender::Client, adu(1, 1, &[3, 0, 0, 0, 1])),
        (1, Sender::Client, adu(2, 1, &[3, 0, 0, 0, 1])),
        (2, Sender::Server, adu(0, 1, &[3, 2, 0, 7])),
    ] {
        connection.feed(from, Duration::from_secs(seconds), &bytes, &mut |output| {
            record.take(output)
        });
    }
    assert_eq!((record.to_client.len(), record.noted.len()), (11, 0));
}

#[test]
fn a_stream_that_was_lost_is_told_once_and_read_again_where_a_packet_begins() {
    let write = adu(9, 1, &[6, 0, 1, 0, 1]);
    let chunks = vec![
        (Sender::Client, b"\x16\x03\x01\x02\x00\x01".to_vec()),
        (Sender::Client, b"\x17\x03\x03\x00\x10noise".to_vec()),
        (Sender::Client, write.clone()),
        (Sender::Server, write),
    ];
    let mut observing = connection(&read_only(), Answers::Strict, Mode::Observe);
    let (mut told, mut judged) = (Vec::new(), 0);
    for (from, bytes) in &chunks {
        observing.feed(*from, Duration::ZERO, bytes, &mut |output| match output {
            Output::Deviation { what, done, .. } => told.push((what.to_string(), done)),
            Output::Judged { .. } => judged += 1,
            _ => {}
        });
    }
    assert_eq!(
        told,
        [("the protocol identifier is 258, Modbus has 0".to_owned(), false)]
    );
    assert_eq!(judged, 1);
    // It is a guess, on which nothing is enforced.
    observing.set_terms(Mode::Enforce, OnRefusal::Answer, &mut |_| {});
    assert!(observing.is_closed());
}

#[test]
fn a_client_that_a_new_policy_does_not_let_connect_is_foretold_once() {
    let chunks = [(Sender::Client, connect(5, "c")), (Sender::Server, connack(5))];
    let (_, mut observing) =
        crate::recorder::run(connection(&rules(), Answers::Strict, Mode::Observe), &chunks);
    let only = Operations::from(vec![penstock_policy::protocol::mqtt::MqttOperation::Connect {
        client_ids: Some(vec!["other".to_owned()]),
        users: None,
    }]);
    observing.set_rules(std::sync::Arc::new(
        penstock_inspect::judge::Rules::compile(&only).unwrap(),
    ));
    let mut record = Record::default();
    for _ in 0..2 {
        observing.feed(Sender::Client, Duration::ZERO, &[0xc0, 0], &mut |output| {
            record.take(output)
        });
    }
    assert_eq!(
        record.noted,
        ["the policy no longer permits this client to be connected: ended"]
    );
    assert_eq!(
        (record.to_server.len(), record.foretold, record.closed),
        (4, 1, None)
    );
}

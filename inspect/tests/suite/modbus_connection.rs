//! A Modbus connection: what is forwarded is what was judged, however it is cut.

use std::time::Duration;

use penstock_inspect::connection::{Mode, Sender};
use penstock_inspect::judge::OnRefusal;
use penstock_policy::protocol::Operations;
use proptest::prelude::*;

use crate::recorder::{Record, connection, cut, function, modbus, range, run};

pub(crate) fn adu(transaction: u16, unit: u8, pdu: &[u8]) -> Vec<u8> {
    let mut bytes = transaction.to_be_bytes().to_vec();
    bytes.extend([0, 0]);
    bytes.extend(u16::try_from(pdu.len() + 1).unwrap().to_be_bytes());
    bytes.push(unit);
    bytes.extend(pdu);
    bytes
}

pub(crate) fn read_only() -> Operations {
    modbus(vec![function("read-only")])
}

/// A reader that knows nothing of ours: cuts by the length field, as the simplest of servers does.
fn functions_executed(stream: &[u8]) -> Vec<(u8, Option<u16>)> {
    let mut at = 0;
    let mut out = Vec::new();
    while stream.len() >= at + 8 {
        let length = usize::from(stream[at + 4]) << 8 | usize::from(stream[at + 5]);
        let sub = stream
            .get(at + 8..at + 10)
            .map(|pair| u16::from(pair[0]) << 8 | u16::from(pair[1]));
        out.push((stream[at + 7], sub));
        at += 6 + length.max(2);
    }
    out
}

/// Frames that are mostly right, and streams of them that are mostly not.
pub(crate) fn stream() -> impl Strategy<Value = Vec<u8>> {
    let pdu = prop_oneof![
        (any::<u16>(), 1_u8..126).prop_map(|(at, count)| [&[3][..], &at.to_be_bytes(), &[0, count]].concat()),
        (any::<u16>(), any::<u16>()).prop_map(|(at, value)| [
            &[6][..],
            &at.to_be_bytes(),
            &value.to_be_bytes()
        ]
        .concat()),
        any::<u16>().prop_map(|at| [&[16][..], &at.to_be_bytes(), &[0, 1, 2, 3, 4]].concat()),
        (0_u8..20).prop_map(|sub| vec![8, 0, sub, 0, 0]),
        (0_u8..129, prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(code, data)| [&[code][..], &data].concat()),
        Just(vec![43, 14, 1, 0]),
        Just(vec![7]),
    ];
    let frame = (0_u16..6, any::<u8>(), pdu, 0_u8..40, any::<u16>()).prop_map(
        |(transaction, unit, pdu, spoil, noise)| {
            let mut frame = adu(transaction, unit, &pdu);
            match spoil {
                0 => frame[2] = 1,
                1 => frame[5] = frame[5].wrapping_add(1),
                2 => frame[5] = frame[5].wrapping_sub(1),
                3 => frame[4] = 1,
                4 => frame.push(0),
                5 => frame.truncate(frame.len() - 1),
                6 => {
                    let at = usize::from(noise) % frame.len();
                    frame[at] ^= 1 << (noise % 8);
                }
                _ => {}
            }
            frame
        },
    );
    prop::collection::vec(frame, 1..12).prop_map(|frames| frames.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases * 2))]
    #[test]
    fn however_a_stream_is_cut_the_same_comes_out(stream in stream(), answers in stream(), cuts in prop::collection::vec(any::<usize>(), 0..12), observe in any::<bool>()) {
        let mode = if observe { Mode::Observe } else { Mode::Enforce };
        let whole = vec![(Sender::Client, stream), (Sender::Server, answers)];
        let (uncut, _) = run(connection(&read_only(), mode, OnRefusal::Answer), &whole);
        let (pieces, _) = run(connection(&read_only(), mode, OnRefusal::Answer), &cut(&whole, &cuts));
        prop_assert_eq!(&uncut, &pieces);
        let every: Vec<usize> = (0..4000).collect();
        let (bytes, _) = run(connection(&read_only(), mode, OnRefusal::Answer), &cut(&whole, &every));
        prop_assert_eq!(&uncut, &bytes);
    }

    #[test]
    fn with_a_read_only_rule_no_byte_stream_carries_a_write(stream in stream(), cuts in prop::collection::vec(any::<usize>(), 0..8)) {
        let whole = vec![(Sender::Client, stream)];
        let (record, connection) = run(connection(&read_only(), Mode::Enforce, OnRefusal::Answer), &cut(&whole, &cuts));
        for (code, sub) in functions_executed(&record.to_server) {
            let reads = matches!(code, 1..=4 | 7 | 11 | 12 | 17 | 20 | 24)
                || (code == 8 && matches!(sub, Some(0 | 2 | 11..=18)))
                || (code == 43 && sub.is_some_and(|sub| sub >> 8 == 14));
            prop_assert!(reads, "function {} with {:?}", code, sub);
        }
        prop_assert!(connection.held_bytes() <= 2 * 1028);
    }

    #[test]
    fn noise_is_survived(client in prop::collection::vec(any::<u8>(), 0..600), server in prop::collection::vec(any::<u8>(), 0..600)) {
        let (record, _) = run(connection(&read_only(), Mode::Enforce, OnRefusal::Answer), &[(Sender::Client, client), (Sender::Server, server)]);
        prop_assert!(record.judged.len() < 100);
    }
}

#[test]
fn a_refused_request_is_answered_by_its_exception_and_the_next_one_passes() {
    let mut holding = function("read-holding-registers");
    holding.addresses = Some(vec![range(0, 9)]);
    let mut setpoint = function("write-single-register");
    setpoint.values = Some(vec![range(0, 5)]);
    let rules = modbus(vec![holding, setpoint]);
    let good = adu(9, 1, &[3, 0, 0, 0, 10]);
    let stream = [
        adu(5, 1, &[5, 0, 0, 0xff, 0]), // a function that nobody permits
        adu(6, 1, &[3, 0, 5, 0, 10]),   // addresses beyond
        adu(7, 1, &[6, 0, 0, 0, 6]),    // value beyond
        adu(8, 1, &[3, 0, 0, 0, 0]),    // malformed
        good.clone(),
    ]
    .concat();
    let (record, _) = run(
        connection(&rules, Mode::Enforce, OnRefusal::Answer),
        &[(Sender::Client, stream)],
    );
    assert_eq!(record.to_server, good);
    let exceptions = [
        adu(5, 1, &[0x85, 1]),
        adu(6, 1, &[0x83, 2]),
        adu(7, 1, &[0x86, 3]),
        adu(8, 1, &[0x83, 3]),
    ];
    assert_eq!(record.to_client, exceptions.concat());
}

#[test]
fn a_header_that_cannot_be_followed_ends_the_connection_before_anything_after_it() {
    let mut stream = adu(1, 1, &[3, 0, 0, 0, 1]);
    let first = stream.clone();
    stream.extend([0, 2, 0, 1, 0, 6, 1, 3, 0, 0, 0, 1]);
    stream.extend(adu(3, 1, &[3, 0, 0, 0, 1]));
    let (record, _) = run(
        connection(&read_only(), Mode::Enforce, OnRefusal::Answer),
        &[(Sender::Client, stream)],
    );
    assert_eq!((record.to_server, record.closed), (first, Some(false)));
}

/// modicon_test.pcap, frames 19 and 20: Schneider's function 90 with a byte more than the standard has room for. The
/// connection was ended.
#[test]
fn a_function_outside_the_standard_may_be_longer_than_the_standard_allows_and_no_other() {
    let programming = modbus(vec![function("function-90"), function("read-only")]);
    for (pdu_bytes, passes) in [(254, true), (1022, true), (1023, false)] {
        let long = adu(7, 0, &vec![90; pdu_bytes]);
        let (record, _) = run(
            connection(&programming, Mode::Enforce, OnRefusal::Answer),
            &cut(
                &[(Sender::Client, long.clone()), (Sender::Server, long.clone())],
                &[7, 300],
            ),
        );
        let expected = if passes { long } else { vec![] };
        assert_eq!(
            (&record.to_server, &record.to_client),
            (&expected, &expected),
            "{pdu_bytes}"
        );
        assert_eq!(record.closed, (!passes).then_some(false));
    }
    let refused = run(
        connection(&read_only(), Mode::Enforce, OnRefusal::Answer),
        &[(Sender::Client, adu(7, 0, &[90; 254]))],
    );
    assert_eq!(
        (refused.0.to_client, refused.0.closed),
        (adu(7, 0, &[0xda, 1]), None)
    );
    let echo = [&[8, 0, 0][..], &[7; 251]].concat();
    let (record, _) = run(
        connection(&read_only(), Mode::Enforce, OnRefusal::Answer),
        &[(Sender::Client, adu(7, 0, &echo))],
    );
    assert_eq!((record.to_server.len(), record.closed), (0, Some(false)));
}

#[test]
fn answers_that_nobody_asked_for_or_that_do_not_fit_never_reach_the_client() {
    let asked = adu(1, 1, &[3, 0, 0, 0, 2]);
    let stray = adu(2, 1, &[3, 4, 0, 0, 0, 0]);
    let other_unit = adu(1, 2, &[3, 4, 0, 0, 0, 0]);
    let short = adu(1, 1, &[3, 2, 0, 0]);
    let (record, _) = run(
        connection(&read_only(), Mode::Enforce, OnRefusal::Answer),
        &[
            (Sender::Client, asked),
            (Sender::Server, [stray, other_unit, short].concat()),
        ],
    );
    assert_eq!(record.to_client, adu(1, 1, &[0x83, 4]));
    assert_eq!(record.noted.len(), 3);
}

/// Feeds packets at their milliseconds; what each brought, as (to the server, to the client).
fn timed(rules: &Operations, packets: &[(u64, Sender, Vec<u8>)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut connection = connection(rules, Mode::Enforce, OnRefusal::Answer);
    let step = |(now, from, bytes): &(u64, Sender, Vec<u8>)| {
        let mut record = Record::default();
        connection.feed(*from, Duration::from_millis(*now), bytes, &mut |output| {
            record.take(output)
        });
        (record.to_server, record.to_client)
    };
    packets.iter().map(step).collect()
}

fn read(transaction: u16, count: u8) -> Vec<u8> {
    adu(transaction, 1, &[3, 0, 0, 0, count])
}

fn registers(transaction: u16, count: u8, value: u8) -> Vec<u8> {
    let data = vec![value; usize::from(count) * 2];
    adu(transaction, 1, &[&[3, count * 2][..], &data].concat())
}

/// Frames 68 and 69 of modbus_test.pcap hold three requests under one identifier within half a millisecond; the second
/// and third were refused as busy.
#[test]
fn requests_that_share_an_identifier_all_pass_and_their_answers_are_matched_in_order() {
    let requests = [read(504, 1), read(504, 2), read(504, 1)].concat();
    let answers = [registers(504, 1, 7), registers(504, 2, 8), registers(504, 1, 9)];
    let came = timed(
        &read_only(),
        &[
            (0, Sender::Client, requests.clone()),
            (40, Sender::Server, answers[0].clone()),
            (1000, Sender::Server, answers[1..].concat()),
            (1001, Sender::Server, answers[0].clone()),
        ],
    );
    assert_eq!(came[0].0, requests);
    assert_eq!((&came[1].1, &came[2].1), (&answers[0], &answers[1..].concat()));
    assert!(came[3].1.is_empty(), "a fourth answer to three requests");
}

/// Told at once, a master that matches in order would take the refusal for the answer to its read, and the registers
/// for the answer to its write.
#[test]
fn a_refusal_waits_for_the_answers_to_what_was_asked_before_under_the_same_identifier() {
    let write = adu(0, 1, &[6, 0, 0, 0, 1]);
    let refusal = adu(0, 1, &[0x86, 1]);
    let other = adu(1, 1, &[6, 0, 0, 0, 1]);
    let client = [read(0, 1), write.clone(), read(0, 2), write, other].concat();
    let answers = [registers(0, 1, 7), registers(0, 2, 8)];
    let came = timed(
        &read_only(),
        &[
            (0, Sender::Client, client),
            (40, Sender::Server, answers.concat()),
        ],
    );
    assert_eq!(
        came[0],
        ([read(0, 1), read(0, 2)].concat(), adu(1, 1, &[0x86, 1]))
    );
    assert_eq!(
        came[1].1,
        [&answers[0][..], &refusal, &answers[1], &refusal].concat()
    );
}

#[test]
fn a_request_that_the_server_passed_over_hurts_neither_the_next_answer_nor_its_refusals() {
    let refusal = adu(0, 1, &[0x86, 1]);
    let client = [read(0, 1), adu(0, 1, &[6, 0, 0, 0, 1]), read(0, 2)].concat();
    let came = timed(
        &read_only(),
        &[
            (0, Sender::Client, client),
            (40, Sender::Server, registers(0, 2, 8)),
            (41, Sender::Server, registers(0, 1, 7)),
        ],
    );
    assert_eq!(came[1].1, [refusal, registers(0, 2, 8)].concat());
    assert!(came[2].1.is_empty(), "the late answer belongs to nothing");
}

#[test]
fn an_identifier_that_is_used_again_after_a_quarter_second_without_answer_begins_anew() {
    let write = adu(0, 1, &[6, 0, 0, 0, 1]);
    let came = timed(
        &read_only(),
        &[
            (0, Sender::Client, read(0, 1)),
            (249, Sender::Client, write.clone()),
            (250, Sender::Client, write),
            (600, Sender::Client, read(0, 2)),
            (
                610,
                Sender::Server,
                [registers(0, 2, 8), registers(0, 1, 7)].concat(),
            ),
        ],
    );
    let refusal = adu(0, 1, &[0x86, 1]);
    assert!(came[1].1.is_empty());
    assert_eq!(
        came[2].1,
        refusal.repeat(2),
        "the read was given up, so both refusals have their turn"
    );
    assert_eq!(came[4].1, registers(0, 2, 8));
}

#[test]
fn refusals_that_wait_for_their_turn_are_bounded() {
    let mut stream = read(0, 1);
    for _ in 0..33 {
        stream.extend(adu(0, 1, &[6, 0, 0, 0, 1]));
    }
    let (record, _) = run(
        connection(&read_only(), Mode::Enforce, OnRefusal::Answer),
        &[(Sender::Client, stream)],
    );
    assert_eq!((record.to_server, record.closed), (read(0, 1), Some(true)));
    assert!(record.to_client.is_empty());
}

/// libmodbus knows no echo: it takes eight bytes of it, throws away what else has arrived (or does not, if the program
/// makes its own exception), and reads the next byte as the beginning of a header.
#[test]
fn nothing_follows_a_function_without_a_known_length_until_it_is_answered() {
    let echo = adu(1, 1, &[8, 0, 0, 0, 7]);
    let came = timed(
        &read_only(),
        &[
            (0, Sender::Client, [read(0, 1), echo.clone(), read(2, 1)].concat()),
            (10, Sender::Server, registers(0, 1, 7)),
            (20, Sender::Client, read(3, 1)),
            (30, Sender::Server, echo.clone()),
            (31, Sender::Client, [read(4, 1), echo.clone()].concat()),
            (281, Sender::Client, read(5, 1)),
        ],
    );
    let busy = |transaction| adu(transaction, 1, &[0x83, 6]);
    assert_eq!(came[0], ([read(0, 1), echo.clone()].concat(), busy(2)));
    assert_eq!(came[2], (vec![], busy(3)));
    assert_eq!(came[4].0, [read(4, 1), echo].concat());
    assert_eq!(
        came[5],
        (vec![], vec![]),
        "nobody knows where a server reads on that said nothing for so long"
    );
}

#[test]
fn no_more_requests_are_in_flight_than_the_limit() {
    let stream: Vec<u8> = (0..40)
        .flat_map(|transaction| adu(transaction, 1, &[3, 0, 0, 0, 1]))
        .collect();
    let (record, _) = run(
        connection(&read_only(), Mode::Enforce, OnRefusal::Answer),
        &[(Sender::Client, stream)],
    );
    assert_eq!(record.to_server.len(), 32 * 12);
    assert_eq!(record.to_client.len(), 8 * 9);
}

#[test]
fn a_new_policy_holds_from_the_next_request_on() {
    let mut connection = connection(
        &modbus(vec![function("read-write")]),
        Mode::Enforce,
        OnRefusal::Answer,
    );
    let mut record = Record::default();
    let write = |transaction| adu(transaction, 1, &[6, 0, 0, 0, 1]);
    connection.feed(Sender::Client, Duration::ZERO, &write(1), &mut |output| {
        record.take(output)
    });
    connection.feed(Sender::Client, Duration::ZERO, &write(2)[..5], &mut |output| {
        record.take(output)
    });
    connection.set_rules(std::sync::Arc::new(
        penstock_inspect::judge::Rules::compile(&read_only()).unwrap(),
    ));
    connection.feed(Sender::Client, Duration::ZERO, &write(2)[5..], &mut |output| {
        record.take(output)
    });
    connection.feed(Sender::Server, Duration::ZERO, &write(1), &mut |output| {
        record.take(output)
    });
    assert_eq!(record.to_server, write(1));
    assert_eq!(record.to_client, [adu(2, 1, &[0x86, 1]), write(1)].concat());
}

#[test]
fn each_way_of_refusing_does_what_it_says() {
    let write = adu(1, 1, &[6, 0, 0, 0, 1]);
    for (style, to_client, closed) in [
        (OnRefusal::Answer, 9, None),
        (OnRefusal::Acknowledge, 9, None),
        (OnRefusal::Drop, 0, None),
        (OnRefusal::Disconnect, 0, Some(false)),
        (OnRefusal::Reset, 0, Some(true)),
    ] {
        let (record, _) = run(
            connection(&read_only(), Mode::Enforce, style),
            &[(Sender::Client, write.clone())],
        );
        assert_eq!(
            (record.to_client.len(), record.closed),
            (to_client, closed),
            "{style:?}"
        );
        assert!(record.to_server.is_empty());
    }
}

/// A read that was asked under the rules before, and answered under those of now.
#[test]
fn an_answer_is_the_clients_only_if_it_may_still_ask() {
    let read = |first: u8| adu(first.into(), 1, &[3, 0, first, 0, 1]);
    let answer = |first: u8| adu(first.into(), 1, &[3, 2, 0, 7]);
    let rules = |last| {
        let mut reading = function("read-holding-registers");
        reading.addresses = Some(vec![crate::recorder::range(0, last)]);
        modbus(vec![reading, function("write-single-register")])
    };
    for thawed in [false, true] {
        let write = adu(9, 1, &[6, 0, 9, 0, 1]);
        let asked = [read(2), read(7), write.clone()].concat();
        let (_, mut connection) = run(
            connection(&rules(9), Mode::Enforce, OnRefusal::Answer),
            &[(Sender::Client, asked)],
        );
        let narrower = std::sync::Arc::new(penstock_inspect::judge::Rules::compile(&rules(5)).unwrap());
        if thawed {
            let frozen = connection.freeze(Duration::ZERO);
            let limits = penstock_inspect::connection::ConnectionLimits::default();
            let (mode, style) = (Mode::Enforce, OnRefusal::Answer);
            connection = penstock_inspect::connection::Connection::thaw(
                &frozen,
                Duration::ZERO,
                narrower,
                mode,
                style,
                limits,
            )
            .unwrap();
        } else {
            connection.set_rules(narrower);
        }
        let (record, _) = run(
            connection,
            &[(Sender::Server, [answer(2), answer(7), write.clone()].concat())],
        );
        assert_eq!(
            record.to_client,
            [answer(2), adu(7, 1, &[0x83, 1]), write].concat()
        );
        assert!(
            record.noted[0].contains("no longer permitted"),
            "{:?}",
            record.noted
        );
        assert_eq!(record.closed, None);
    }
}

//! Requests: the standard's own examples, and what must not pass for one.

use penstock_inspect::modbus::request::{Request, RequestError};
use penstock_inspect::modbus::response::{Expectation, Response};
use proptest::prelude::*;

fn bytes(hex: &str) -> Vec<u8> {
    hex.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

/// The request and response examples of V1.1b3, section 6, each with what it does.
const EXAMPLES: &[(&str, &str, &str)] = &[
    (
        "01 00 13 00 13",
        "01 03 CD 6B 05",
        "read-coils 19\u{2013}37 of unit 1",
    ),
    (
        "02 00 C4 00 16",
        "02 03 AC DB 35",
        "read-discrete-inputs 196\u{2013}217 of unit 1",
    ),
    (
        "03 00 6B 00 03",
        "03 06 02 2B 00 00 00 64",
        "read-holding-registers 107\u{2013}109 of unit 1",
    ),
    (
        "04 00 08 00 01",
        "04 02 00 0A",
        "read-input-registers 8 of unit 1",
    ),
    (
        "05 00 AC FF 00",
        "05 00 AC FF 00",
        "write-single-coil 172 of unit 1",
    ),
    (
        "06 00 01 00 03",
        "06 00 01 00 03",
        "write-single-register 1 of unit 1",
    ),
    ("07", "07 6D", "read-exception-status of unit 1"),
    (
        "08 00 00 A5 37",
        "08 00 00 A5 37",
        "diagnostics 0 (return-query-data) of unit 1",
    ),
    (
        "08 00 04 00 00",
        "08 00 04 00 00",
        "diagnostics 4 (force-listen-only-mode) of unit 1",
    ),
    ("0B", "0B FF FF 01 08", "get-comm-event-counter of unit 1"),
    (
        "0C",
        "0C 08 00 00 01 08 01 21 20 00",
        "get-comm-event-log of unit 1",
    ),
    (
        "0F 00 13 00 0A 02 CD 01",
        "0F 00 13 00 0A",
        "write-multiple-coils 19\u{2013}28 of unit 1",
    ),
    (
        "10 00 01 00 02 04 00 0A 01 02",
        "10 00 01 00 02",
        "write-multiple-registers 1\u{2013}2 of unit 1",
    ),
    ("11", "11 03 01 FF 2A", "report-server-id of unit 1"),
    (
        "14 0E 06 00 04 00 01 00 02 06 00 03 00 09 00 02",
        "14 0C 05 06 0D FE 00 20 05 06 33 CD 00 40",
        "read-file-record of file 3\u{2013}4 of unit 1",
    ),
    (
        "15 0D 06 00 04 00 07 00 03 06 AF 04 BE 10 0D",
        "15 0D 06 00 04 00 07 00 03 06 AF 04 BE 10 0D",
        "write-file-record of file 4 of unit 1",
    ),
    (
        "16 00 04 00 F2 00 25",
        "16 00 04 00 F2 00 25",
        "mask-write-register 4 of unit 1",
    ),
    (
        "17 00 03 00 06 00 0E 00 03 06 00 FF 00 FF 00 FF",
        "17 0C 00 FE 0A CD 00 01 00 03 00 0D 00 FF",
        "read-write-multiple-registers (read 3\u{2013}8, write 14\u{2013}16) of unit 1",
    ),
    (
        "18 04 DE",
        "18 00 06 00 02 01 B8 12 84",
        "read-fifo-queue 1246 of unit 1",
    ),
    (
        "2B 0E 01 00",
        "2B 0E 01 01 00 00 03 00 02 41 42 01 01 43 02 02 56 31",
        "read-device-identification of unit 1",
    ),
    (
        "2B 0D 00 01",
        "2B 0D 00 02",
        "canopen-general-reference of unit 1",
    ),
    ("5A 00 02", "5A 00 FE", "function-90 of unit 1"),
];

#[test]
fn the_standards_examples_read_as_the_standard_says() {
    for (request, response, operation) in EXAMPLES {
        let pdu = bytes(request);
        let decoded = Request::decode(1, &pdu).unwrap();
        assert_eq!(&decoded.operation().to_string(), operation);
        let expectation = Expectation::of(&decoded, &pdu);
        assert_eq!(
            expectation.check(&bytes(response)),
            Ok(Response::Normal),
            "{operation}"
        );
        assert_eq!(expectation.check(&[pdu[0] | 0x80, 2]), Ok(Response::Exception(2)));
    }
}

#[test]
fn no_prefix_and_no_extension_of_a_request_is_a_request() {
    for (request, _, operation) in EXAMPLES {
        let pdu = bytes(request);
        // The echo, CANopen and codes without a standard carry what they like.
        let free = matches!(pdu[0], 0x5a) || pdu.starts_with(&[8, 0, 0]) || pdu.starts_with(&[0x2b, 0x0d]);
        for length in 1..pdu.len() {
            let cut = Request::decode(1, &pdu[..length]);
            assert!(free || cut.is_err(), "{operation} cut to {length}");
        }
        let mut longer = pdu.clone();
        longer.push(0);
        assert!(
            free || Request::decode(1, &longer).is_err(),
            "{operation} with a byte more"
        );
    }
}

#[test]
fn no_prefix_and_no_extension_of_an_answer_is_one() {
    for (request, response, operation) in EXAMPLES {
        let pdu = bytes(request);
        if matches!(pdu[0], 0x5a) || pdu.starts_with(&[0x2b, 0x0d]) {
            continue; // They may answer what they like.
        }
        let expectation = Expectation::of(&Request::decode(1, &pdu).unwrap(), &pdu);
        let answer = bytes(response);
        for length in 0..answer.len() {
            assert!(
                expectation.check(&answer[..length]).is_err(),
                "{operation} cut to {length}"
            );
        }
        let mut longer = answer.clone();
        longer.push(0);
        assert!(
            expectation.check(&longer).is_err(),
            "{operation} with a byte more"
        );
        longer.truncate(answer.len());
        longer[0] ^= 1;
        assert!(
            expectation.check(&longer).is_err(),
            "{operation} with another function"
        );
    }
}

#[test]
fn what_the_standard_forbids_is_refused_with_its_exception() {
    for (pdu, exception) in [
        ("03 00 00 00 00", 3),                   // no registers
        ("03 00 00 00 7E", 3),                   // 126 registers
        ("01 00 00 07 D1", 3),                   // 2001 coils
        ("03 FF FF 00 02", 2),                   // past 65535
        ("10 FF FF 00 02 04 00 0A 01 02", 2),    // past 65535
        ("05 00 00 12 34", 3),                   // neither on nor off
        ("05 00 00 00 FF", 3),                   // on, the wrong way round
        ("0F 00 13 00 0A 01 CD", 3),             // byte count of 8 coils
        ("10 00 01 00 02 02 00 0A", 3),          // byte count of one register
        ("10 00 01 00 7C F8", 3),                // 124 registers
        ("17 00 03 00 06 00 0E 00 7A F4", 3),    // 122 written
        ("08 00 01 00 01", 3),                   // restart takes 0000 or FF00
        ("08 00 0A 00 01", 3),                   // counters take 0000
        ("08 00 00", 3),                         // an echo of nothing
        ("2B 0E 05 00", 3),                      // no such identification code
        ("2B 10 00", 1),                         // reserved type
        ("14 07 05 00 04 00 01 00 02", 3),       // reference type 5
        ("14 07 06 00 00 00 01 00 02", 3),       // file 0
        ("14 07 06 00 01 27 10 00 01", 2),       // record 10000
        ("14 07 06 00 01 00 00 00 7F", 3),       // an answer that no PDU can hold
        ("14 08 06 00 04 00 01 00 02 06", 3),    // a record cut short
        ("15 09 06 00 04 00 07 00 02 06 AF", 3), // two registers announced, one there
        ("00", 1),
        ("80", 1),
        ("83 02", 1),
        ("FF 00 00", 1),
    ] {
        let error: RequestError = Request::decode(1, &bytes(pdu)).unwrap_err();
        assert_eq!(error.exception(), exception, "{pdu}: {error}");
    }
    assert!(Request::decode(1, &[]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases * 8))]
    #[test]
    fn whatever_is_decoded_says_its_own_length(pdu in prop::collection::vec(any::<u8>(), 1..260), code in 0_u8..50) {
        let mut pdu = pdu;
        pdu[0] = code;
        let opaque = !matches!(code, 1..=8 | 11 | 12 | 15..=17 | 20..=24 | 43);
        if let Ok(request) = Request::decode(7, &pdu) {
            let operation = request.operation();
            prop_assert!(!operation.to_string().is_empty());
            let free = opaque || (code == 8 && request.sub_function == Some(0)) || (code == 43 && request.sub_function == Some(13));
            let mut longer = pdu.clone();
            longer.push(0);
            prop_assert!(free || Request::decode(7, &longer).is_err());
            // Judging an answer made of anything does not fall over.
            let _ = Expectation::of(&request, &pdu).check(&longer);
        }
    }
}

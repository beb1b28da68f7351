//! Operations as people ask for them.

use penstock_inspect::modbus::Request;
use penstock_inspect::query::Query;
use penstock_policy::protocol::modbus_tcp::functions::MODBUS_FUNCTIONS;

#[test]
fn an_operation_that_is_said_reads_back_as_it_was_said() {
    for text in [
        "write-single-register 40 of unit 1",
        "read-holding-registers 0\u{2013}9 of unit 255",
        "read-device-identification of unit 1",
        "report-server-id of unit 3",
        "function-65 of unit 1",
        "read-write-multiple-registers (read 0\u{2013}9, write 20) of unit 1",
        "publish line4/a/temperature at QoS 1, retained",
        "subscribe line4/# at QoS 2",
        "connect as pump-7 with user operator",
        "unsubscribe line4/#",
    ] {
        let operation = Query::read(text).unwrap().operation().to_string();
        assert_eq!(operation, text);
    }
}

#[test]
fn every_function_of_the_standard_can_be_asked_for() {
    for function in MODBUS_FUNCTIONS {
        let text = format!(
            "{} 4 reading 4 file 4 sub-function 0 value 1 unit 1",
            function.name
        );
        let asked = Query::read(&text).unwrap();
        let operation = asked.operation();
        assert_eq!(operation.name, function.name);
        let values = operation.numbers("values");
        assert_eq!(values.is_some(), function.values, "{}", function.name);
    }
    for (text, said) in [
        (
            "write-multiple-coils 0-9 value 1 unit 1",
            "write-multiple-coils 0\u{2013}9 of unit 1 on plc-7 with value 1",
        ),
        (
            "mask-write-register 7 value 5 unit 1",
            "mask-write-register 7 of unit 1 on plc-7 with value 5",
        ),
        (
            "write-single-register 40 unit 1",
            "write-single-register 40 of unit 1 on plc-7 with value 0",
        ),
    ] {
        assert_eq!(Query::read(text).unwrap().said("plc-7"), said);
    }
}

#[test]
fn a_write_without_a_value_says_that_it_was_judged_with_0() {
    let assumption = |text: &str| Query::read(text).unwrap().assumption();
    let said = assumption("write-single-register 40 unit 1").unwrap();
    assert!(said.contains("judged with value 0"), "{said}");
    for complete in [
        "write-single-register 40 unit 1 value 0",
        "read-coils 0-3 unit 1",
        "publish a/b",
    ] {
        assert_eq!(assumption(complete), None, "{complete}");
    }
}

#[test]
fn what_cannot_be_asked_is_refused_with_what_is_missing() {
    for (text, why) in [
        ("", "no operation is named"),
        ("write-single-register 40", "does not say which unit"),
        ("write-single-register unit 1", "does not say which addresses"),
        ("write-single-register 40 41 unit 1", "second range"),
        ("read-coils 9-3 unit 1", "says nothing about"),
        ("read-coils 0-4000 unit 1", "no master could ask"),
        ("write-single-coil 4 value 7 unit 1", "no master could ask"),
        ("read-only 0-9 unit 1", "is not an operation"),
        ("publish", "does not say what"),
        ("publish line4/# qos 1", "cannot be used there"),
        ("publish a qos 3", "0, 1 or 2"),
        ("subscribe a retain", "says nothing about"),
    ] {
        let said = Query::read(text).unwrap_err().what;
        assert!(said.contains(why), "{text}: {said}");
    }
}

#[test]
fn a_request_is_named_with_all_that_tells_it_from_others() {
    let said = |unit: u8, pdu: &[u8]| Request::decode(unit, pdu).unwrap().operation().to_string();
    for (pdu, expected) in [
        (
            &[3, 0, 0, 0, 10][..],
            "read-holding-registers 0\u{2013}9 of unit 1",
        ),
        (
            &[8, 0, 4, 0, 0],
            "diagnostics 4 (force-listen-only-mode) of unit 1",
        ),
        (&[8, 0, 99, 0, 0], "diagnostics 99 of unit 1"),
        (&[43, 14, 1, 0], "read-device-identification of unit 1"),
        (&[43, 13, 0], "canopen-general-reference of unit 1"),
        (&[90, 1, 2, 3], "function-90 of unit 1"),
        (
            &[20, 14, 6, 0, 4, 0, 0, 0, 1, 6, 0, 7, 0, 0, 0, 1],
            "read-file-record of file 4\u{2013}7 of unit 1",
        ),
        (&[22, 0, 7, 0, 0, 0, 5], "mask-write-register 7 of unit 1"),
    ] {
        assert_eq!(said(1, pdu), expected);
    }
}

#[test]
fn what_no_protocol_has_is_refused_with_what_there_is() {
    let error = Query::read("toggle 4 unit 1").unwrap_err();
    assert_eq!(error.what, "`toggle` is not an operation of Modbus or MQTT");
    assert!(
        error.help.starts_with("Modbus has read-coils, "),
        "{}",
        error.help
    );
    assert!(
        error.help.ends_with("; MQTT publish, subscribe, connect"),
        "{}",
        error.help
    );
    let group = Query::read("read-write 4 unit 1").unwrap_err();
    assert_eq!(group.help, "read-write is a group: ask for one of its functions");
}

//! Recordings that showed a fault of learning, each for its kind; and what a proposal promises, whatever was recorded.

use std::fs;
use std::path::Path;
use std::time::Duration;

use penstock_inspect::capture::Frames;
use penstock_inspect::learn::{Learned, Learner, document};
use penstock_inspect::replay::{Plans, Replay, Report};
use proptest::prelude::*;

use crate::offline::{KEY, clock, load, plans};
use crate::recording::{Recording, Step};

fn capture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures/learn");
    fs::read(folder.join(name)).unwrap()
}

pub(crate) fn learned(bytes: &[u8], plans: Option<&Plans>) -> Learned {
    let mut learner = Learner::new(plans);
    let frames = || Frames::open(bytes).unwrap().flatten();
    frames().for_each(|frame| learner.survey(&frame));
    frames().for_each(|frame| learner.frame(&frame));
    learner.finish()
}

fn proposed(bytes: &[u8]) -> String {
    document::write(&learned(bytes, None), None, Some(KEY), &clock)
}

fn replayed(bytes: &[u8], text: &str) -> Report {
    let plans = plans(&load(&[text]));
    let mut replay = Replay::new(&plans);
    for frame in Frames::open(bytes).unwrap().flatten() {
        replay.frame(&frame);
    }
    replay.finish()
}

/// Operations that a replay refuses, or would refuse if the zones enforced.
fn refused(report: &Report) -> Vec<String> {
    let treatments = report.flows.iter().flat_map(|flow| &flow.treatments);
    let operations = treatments.flat_map(|treatment| {
        treatment
            .operations
            .iter()
            .filter(move |one| !one.answer.allowed || treatment.observed)
    });
    operations.map(|one| one.operation.clone()).collect()
}

/// What is not behind `#`.
fn active(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_controller_that_opens_a_connection_itself_stays_one_and_its_operations_are_listed() {
    let text = proposed(&capture("controller-opens-once.pcap"));
    assert!(text.contains("host-10-0-0-2: { zone: control,"), "{text}");
    assert!(
        text.contains("- write-single-register: { units: 1, addresses: [10], values: [0-4] }"),
        "{text}"
    );
    assert!(
        text.contains("# 10.0.0.2 to 10.0.0.9:80: inside zone control"),
        "{text}"
    );
    load(&[&text]);
}

#[test]
fn connections_that_nobody_answered_are_listed_apart() {
    let text = proposed(&capture("scan-refused.pcap"));
    assert!(!active(&text).contains("conduits:"), "{text}");
    for line in [
        "# 10.0.0.1 tried 3 services of 3 machines:",
        "#   10.0.0.5 tcp/502: once, at 1700000000 s: 1 refused by a reset",
        "#   10.0.0.6 tcp/502: once, at 1700000001 s: 1 not answered",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn what_is_written_to_one_register_is_not_permitted_at_another() {
    let text = proposed(&capture("values-hull-train.pcap"));
    for line in [
        "- write-single-register: { units: 1, addresses: [10], values: [0-1] }",
        "- write-single-register: { units: 1, addresses: [40], values: [0, 65535] }",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert_eq!(
        refused(&replayed(&capture("values-hull-train.pcap"), &text)),
        [""; 0]
    );
    let report = replayed(
        &capture("values-hull-attack.pcap"),
        &text.replace("observe", "enforce"),
    );
    assert_eq!(refused(&report), ["write-single-register 10 of unit 1"]);
    let values = &report.flows[0].treatments[0].operations[0].values;
    assert_eq!(
        values.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["65535"]
    );
}

#[test]
fn mqtt_3_1_is_read_and_permitted_by_what_was_seen() {
    let text = proposed(&capture("mqtt31.pcap"));
    for line in [
        "service: mqtt\n",
        "- connect: { client_ids: [\"old-plc\"] }",
        "- publish: { topics: [\"plant/temp/1\"], qos: 0, retain: no }",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert_eq!(refused(&replayed(&capture("mqtt31.pcap"), &text)), [""; 0]);
}

#[test]
fn a_subscription_from_before_the_recording_is_inferred_from_what_it_brings_and_marked() {
    let bytes = capture("mqtt-midway-subscriber.pcap");
    let text = proposed(&bytes);
    let line = text
        .lines()
        .find(|line| line.contains("- subscribe: { topics: [\"plant/setpoints/line1\"]"));
    assert!(line.is_some_and(|line| line.contains("inferred from")), "{text}");
    assert!(
        text.contains("- publish: { topics: [\"plant/heartbeat/hmi\"]"),
        "{text}"
    );
    assert_eq!(refused(&replayed(&bytes, &text)), [""; 0]);
}

#[test]
fn client_identifiers_that_are_made_up_each_time_are_left_open_with_a_remark() {
    let bytes = capture("mqtt-random-ids.pcap");
    let text = proposed(&bytes);
    assert!(!active(&text).contains("mosq-"), "{text}");
    assert!(
        text.contains("# Client identifiers look made up for each connection"),
        "{text}"
    );
    assert_eq!(refused(&replayed(&bytes, &text)), [""; 0]);
}

#[test]
fn a_protocol_at_another_port_is_known_by_its_content() {
    let text = proposed(&capture("modbus-1502.pcap"));
    assert!(text.contains("service: modbus-tcp:1502\n"), "{text}");
    assert!(text.contains("# The port is not the protocol's own"), "{text}");
    assert_eq!(refused(&replayed(&capture("modbus-1502.pcap"), &text)), [""; 0]);
}

#[test]
fn of_a_connection_from_before_the_recording_the_service_s_port_tells_who_opened() {
    let text = proposed(&capture("enip-midway-small.pcap"));
    assert!(text.contains("service: tcp/44818"), "{text}");
    assert!(
        text.contains("source: host-10-0-0-1\n") && !text.contains("guess"),
        "{text}"
    );
}

#[test]
fn a_connect_alone_is_read() {
    let mut recording = Recording::default();
    let connect = [&[0x10, 15][..], &[0, 4], b"MQTT", &[4, 0x02, 0, 60, 0, 3], b"hmi"].concat();
    recording.connection("10.0.0.1:40000", "10.0.0.2:1883", &[Step::Client(connect)]);
    let text = proposed(&recording.pcap());
    assert!(text.contains("service: mqtt\n"), "{text}");
    assert!(text.contains("- connect: { client_ids: [\"hmi\"] }"), "{text}");
    load(&[&text]);
}

#[test]
fn what_a_device_refused_or_did_not_answer_is_listed_with_its_count_and_not_proposed() {
    let mut recording = Recording::default();
    let steps = [
        Step::asked(1, &[3, 0, 10, 0, 2], &[3, 4, 0, 1, 0, 2]),
        Step::asked(2, &[3, 0, 200, 0, 1], &[0x83, 2]),
        Step::asked(3, &[3, 0, 201, 0, 1], &[0x83, 2]),
    ];
    let mut steps: Vec<Step> = steps.into_iter().flatten().collect();
    steps.push(Step::request(4, &[6, 0, 40, 0, 7]));
    recording.connection("10.0.0.1:40000", "10.0.0.2:502", &steps);
    let text = proposed(&recording.pcap());
    let active = active(&text);
    assert!(
        active.contains("- read-holding-registers: { units: 1, addresses: [10-11] }"),
        "{text}"
    );
    assert!(
        !active.contains("200") && !active.contains("write-single-register"),
        "{text}"
    );
    for line in [
        "# Of 4 operations: 2 refused by its server, 1 not answered.",
        "# not proposed: - read-holding-registers: { units: 1, addresses: [200-201] } # refused by its server 2 times",
        "# not proposed: - write-single-register: { units: 1, addresses: [40], values: [7] } # not answered once",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    load(&[&text]);
}

#[test]
fn of_one_direction_alone_what_was_asked_is_proposed_and_marked() {
    let mut recording = Recording::default();
    recording.connection(
        "10.0.0.1:40000",
        "10.0.0.2:502",
        &Step::asked(1, &[3, 0, 10, 0, 2], &[3, 4, 0, 1, 0, 2]),
    );
    recording.keep(|packet| packet.from_client);
    let text = proposed(&recording.pcap());
    assert!(
        active(&text).contains("- read-holding-registers: { units: 1, addresses: [10-11] }"),
        "{text}"
    );
    assert!(
        text.contains("# The recording lacks the answers to 1 of its operations"),
        "{text}"
    );
}

#[test]
fn flows_with_the_greatest_doubts_come_first_and_days_are_counted() {
    let mut recording = Recording::default();
    for day in 0..3_u64 {
        recording.at = Duration::from_secs(day * 86_400);
        recording.connection(
            "10.0.0.1:40000",
            "10.0.0.2:502",
            &Step::asked(1, &[3, 0, 1, 0, 1], &[3, 2, 0, 1]),
        );
    }
    recording.connection(
        "10.0.0.1:40001",
        "10.0.0.3:502",
        &Step::asked(1, &[3, 0, 1, 0, 1], &[3, 2, 0, 1]),
    );
    let text = proposed(&recording.pcap());
    let (certain, rare) = (
        text.find("Seen on 3 of 3 days.").unwrap(),
        text.find("Seen on 1 of 3 days.").unwrap(),
    );
    assert!(rare < certain, "{text}");
}

/// Random talk over Modbus: who asks whom for what, how it is answered, and whether the recording has the opening.
fn traffic() -> impl Strategy<Value = Recording> {
    let request = (0..3_u8, 0..6_u16, 0..4_u16, 0..4_u8);
    let one = (
        1..4_u8,
        1..4_u8,
        prop::collection::vec(request, 0..8),
        any::<bool>(),
    );
    prop::collection::vec(one, 1..8).prop_map(|all| {
        let mut recording = Recording::default();
        for (number, (client, server, requests, midway)) in (0_u16..).zip(all) {
            let mut steps = Vec::new();
            for (transaction, (function, address, value, answer)) in (1_u16..).zip(requests) {
                let address = address.to_be_bytes();
                let (pdu, normal) = match function {
                    0 => {
                        let value = value.to_be_bytes();
                        let pdu = vec![6, address[0], address[1], value[0], value[1]];
                        (pdu.clone(), pdu)
                    }
                    1 => (vec![3, address[0], address[1], 0, 1], vec![3, 2, 0, 9]),
                    _ => (vec![1, address[0], address[1], 0, 1], vec![1, 1, 0]),
                };
                match answer {
                    0 => steps.extend(Step::asked(transaction, &pdu, &[pdu[0] | 0x80, 2])),
                    1 => steps.push(Step::request(transaction, &pdu)),
                    _ => steps.extend(Step::asked(transaction, &pdu, &normal)),
                }
            }
            recording.midway = midway;
            let client = format!("10.0.0.{client}:{}", 40_000 + number);
            recording.connection(&client, &format!("10.0.1.{server}:502"), &steps);
        }
        recording
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn a_proposal_refuses_nothing_that_worked_and_permits_nothing_that_was_only_refused(recording in traffic()) {
        let bytes = recording.pcap();
        let text = proposed(&bytes);
        let answered = recording.answered();
        if !active(&text).contains("conduits:") {
            prop_assert!(answered.is_empty(), "{:?}\n{}", answered, text);
            return Ok(());
        }
        let report = replayed(&bytes, &text.replace("observe", "enforce"));
        for flow in &report.flows {
            let client = flow.client.split(':').next().unwrap();
            if recording.is_silent(client, &flow.server) {
                continue;
            }
            // What is between two ends that the proposal does not have is judged by nobody.
            let crossing = flow.treatments.iter().filter(|treatment| treatment.gateway.is_some());
            for one in crossing.flat_map(|treatment| &treatment.operations) {
                let worked = |value: Option<u32>| {
                    let asked = (client.to_owned(), flow.server.clone(), one.operation.clone(), value);
                    answered.contains(&asked)
                };
                let values: Vec<u32> = one.values.iter().flat_map(|range| range.first..=range.last).collect();
                let (any, all) = match values.as_slice() {
                    [] => (worked(None), worked(None)),
                    values => (
                        values.iter().any(|value| worked(Some(*value))),
                        values.iter().all(|value| worked(Some(*value))),
                    ),
                };
                prop_assert!(if one.answer.allowed { all } else { !any }, "{:?}\n{}", one, text);
            }
        }
    }

    #[test]
    fn duplicates_and_the_form_of_time_and_link_change_nothing(recording in traffic(), every in 1..5_usize) {
        let plain = active(&proposed(&recording.pcap()));
        for other in [recording.doubled(every).pcap(), recording.nanoseconds(), recording.cooked(), recording.ng()] {
            let other = active(&proposed(&other));
            prop_assert_eq!(&plain.lines().map(without_remark).collect::<Vec<_>>(), &other.lines().map(without_remark).collect::<Vec<_>>());
        }
    }
}

/// A line without what stands behind `#`, and without a MAC address, which not each kind of link has.
fn without_remark(line: &str) -> String {
    let line = line.split(" # ").next().unwrap_or(line);
    line.split(", mac:")
        .next()
        .unwrap_or(line)
        .trim_end_matches(" }")
        .to_owned()
}

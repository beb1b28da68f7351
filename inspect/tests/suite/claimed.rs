//! What machines claim of themselves on the network, as a proposal has it: with its source, and never as more than text.

use std::fs;
use std::path::Path;

use etherparse::PacketBuilder;
use penstock_inspect::learn::document;

use crate::beyond_flows::{plant, polling};
use crate::learn_cases::learned;
use crate::offline::{KEY, clock, load};
use crate::recording::{Recording, Step};

/// MAC addresses that their makers gave.
const SIEMENS: [u8; 6] = [0x00, 0x0e, 0x8c, 1, 2, 3];

/// A PROFINET DCP answer of a station with this name.
fn named(sender: [u8; 6], name: &str, address: [u8; 4]) -> Vec<u8> {
    let mut blocks = Vec::new();
    let ip = [&address[..], &[255, 255, 255, 0, 0, 0, 0, 0]].concat();
    for (option, part, value) in [(2, 1, &b"S7-1500"[..]), (2, 2, name.as_bytes()), (1, 2, &ip)] {
        blocks.extend([option, part, 0, u8::try_from(value.len() + 2).unwrap(), 0, 0]);
        blocks.extend(value);
        if value.len() % 2 == 1 {
            blocks.push(0);
        }
    }
    let length = u8::try_from(blocks.len()).unwrap();
    let head = [0x88, 0x92, 0xfe, 0xff, 5, 1, 0, 0, 0, 1, 0, 0, 0, length];
    [&[0x02; 6][..], &sender, &head, &blocks].concat()
}

fn proposed(recording: &Recording) -> String {
    let text = document::write(&learned(&recording.pcap(), None), None, Some(KEY), &clock);
    load(&[&text]);
    text
}

#[test]
fn a_machine_is_proposed_under_the_name_that_it_alone_claims_with_where_that_comes_from() {
    let mut recording = polling();
    recording.frame(named(SIEMENS, "PLC_01", [10, 2, 0, 9]));
    let text = proposed(&recording);
    assert!(
        text.contains(
            "  # Claimed on the network: name by PROFINET DCP, model by PROFINET DCP.\n  plc-01: { zone: control, address: \"10.2.0.9\""
        ),
        "{text}"
    );
    assert!(text.contains("model: \"S7-1500\" }"), "{text}");
    assert!(text.contains("destination: plc-01\n"), "{text}");
}

#[test]
fn names_that_several_claim_or_that_would_break_out_of_the_document_are_not_taken() {
    let mut recording = polling();
    recording.frame(named(SIEMENS, "plc", [10, 2, 0, 9]));
    recording.frame(named([0x00, 0x0e, 0x8c, 9, 9, 9], "plc", [10, 1, 0, 5]));
    let text = proposed(&recording);
    assert!(text.contains("host-10-2-0-9: { zone: control"), "{text}");
    assert!(
        text.contains("# Claimed of 10.2.0.9, and not taken: name \"plc\" (PROFINET DCP)."),
        "{text}"
    );

    let mut recording = polling();
    recording.frame(named(SIEMENS, "x\" }\nzones: {\u{202e}", [10, 2, 0, 9]));
    let text = proposed(&recording);
    assert!(text.contains("  x-zones: { zone: control"), "{text}");
    assert!(!text.contains('\u{202e}'), "{text}");
}

#[test]
fn a_machine_that_claims_a_word_of_yaml_as_its_name_leaves_the_proposal_valid() {
    for claimed in ["NULL", "yes", "off", "0x1f", "1e5"] {
        let mut recording = polling();
        recording.frame(named(SIEMENS, claimed, [10, 2, 0, 9]));
        let text = proposed(&recording);
        let not_taken = format!("# Claimed of 10.2.0.9, and not taken: name \"{claimed}\" (PROFINET DCP).");
        assert!(text.contains(&not_taken), "{text}");
        assert!(text.contains("host-10-2-0-9: { zone: control"), "{text}");
    }
}

#[test]
fn a_name_that_a_machine_without_a_flow_claims_too_or_that_is_a_tag_of_the_plant_is_not_taken() {
    let mut recording = polling();
    recording.frame(named(SIEMENS, "plc", [10, 2, 0, 9]));
    recording.frame(named([0x00, 0x0e, 0x8c, 9, 9, 9], "PLC", [10, 2, 0, 77]));
    let text = proposed(&recording);
    assert!(text.contains("host-10-2-0-9: { zone: control"), "{text}");

    let declared =
        plant("bridged", "enforce").replace("address: 10.2.0.9", "address: 10.2.0.99, tag: \"PLC_01\"");
    let plant = load(&[&declared]);
    let mut recording = polling();
    recording.frame(named(SIEMENS, "plc-01", [10, 2, 0, 9]));
    let text = document::write(&learned(&recording.pcap(), None), Some(&plant), None, &clock);
    assert!(text.contains("and not taken: name \"plc-01\""), "{text}");
}

#[test]
fn device_identification_over_modbus_names_maker_model_and_firmware() {
    let mut recording = Recording::default();
    let mut answer = vec![0x2b, 0x0e, 1, 1, 0, 0, 3];
    for (object, value) in [(0, "Acme"), (1, "X-1"), (2, "2.10")] {
        answer.extend([object, u8::try_from(value.len()).unwrap()]);
        answer.extend(value.as_bytes());
    }
    let steps = Step::asked(1, &[0x2b, 0x0e, 1, 0], &answer);
    recording.connection("10.1.0.5:40000", "10.2.0.9:502", &steps);
    let text = proposed(&recording);
    assert!(
        text.contains("vendor: \"Acme\", model: \"X-1\", firmware: \"2.10\" }"),
        "{text}"
    );

    // Of an asset that the plant has.
    let declared =
        plant("bridged", "enforce").replace("address: 10.2.0.9", "address: 10.2.0.9, firmware: \"2.9\"");
    let plant = load(&[&declared]);
    let text = document::write(&learned(&recording.pcap(), None), Some(&plant), None, &clock);
    for line in [
        "#   plc: vendor \"Acme\" (Modbus device identification)",
        "#   plc: declared firmware \"2.9\", seen \"2.10\" (Modbus device identification)",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn an_answer_of_a_name_server_names_a_machine() {
    let mut recording = polling();
    let mut answer = vec![0, 7, 0x81, 0x80, 0, 0, 0, 1, 0, 0, 0, 0];
    answer.extend(b"\x03plc\x05plant\x00\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x0a\x02\x00\x09");
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 2, 0, 1], [10, 1, 0, 5], 60)
        .udp(53, 40_001);
    let mut frame = Vec::new();
    builder.write(&mut frame, &answer).unwrap();
    recording.frame(frame);
    let text = proposed(&recording);
    assert!(
        text.contains("  # Claimed on the network: name by DNS.\n  plc.plant: {"),
        "{text}"
    );
}

#[test]
fn makers_are_known_by_the_mac_addresses_in_recordings_of_others() {
    let capture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures/udp/EIP-RemoteModeChangeAttempt.pcap");
    let text = document::write(
        &learned(&fs::read(capture).unwrap(), None),
        None,
        Some(KEY),
        &clock,
    );
    assert!(
        text.contains("mac: \"00:00:bc:3b:d6:59\", vendor: \"Rockwell Automation\" }"),
        "{text}"
    );
    load(&[&text]);
}

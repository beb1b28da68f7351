//! Both directions of the captures, transaction identifiers included, against what tshark reads; and packets whose IP
//! headers are unusual.

use std::collections::BTreeMap;
use std::fs;

use penstock_inspect::capture::direction::NoDeclarations;
use penstock_inspect::capture::{
    Flows, Fragments, Frame, Frames, Happening, SkipReason, Transport, flows, link,
};
use penstock_inspect::connection::Sender;
use penstock_inspect::modbus::frame;

use crate::captures::folder;

/// Count and sum of the identifiers, by connection, side, unit and function.
fn adus(bytes: &[u8]) -> BTreeMap<String, (u64, u64)> {
    let mut fragments = Fragments::default();
    let mut flows = Flows::new(flows::FlowLimits::default());
    let mut held: BTreeMap<(usize, bool), Vec<u8>> = BTreeMap::new();
    let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut happened =
        |number: usize, key: penstock_inspect::capture::FlowKey, _, happening: Happening<'_>| {
            let (from, bytes) = match happening {
                Happening::Data(from, bytes) if key.server.port() == 502 => (from, bytes),
                Happening::Gap(from, _) => {
                    held.remove(&(number, from == Sender::Client));
                    return;
                }
                _ => return,
            };
            let held = held.entry((number, from == Sender::Client)).or_default();
            held.extend_from_slice(bytes);
            loop {
                let adu = match frame::next(held) {
                    Ok(Some(adu)) => adu,
                    Ok(None) => return,
                    Err(_) => return held.clear(),
                };
                let code = adu.pdu[0];
                let side = match (from, code & 0x80) {
                    (Sender::Client, _) => "asks",
                    (Sender::Server, 0) => "answers",
                    (Sender::Server, _) => "excepts",
                };
                let line = format!(
                    "{} {} {side} {} {}",
                    key.client,
                    key.server,
                    adu.unit,
                    code & 0x7f
                );
                let sum = sums.entry(line).or_default();
                sum.0 += 1;
                sum.1 += u64::from(adu.transaction);
                let adu_bytes = adu.adu_bytes;
                held.drain(..adu_bytes);
            }
        };
    for frame in Frames::open(bytes).unwrap().flatten() {
        if let Ok(Some(Transport::Tcp(segment))) = fragments.transport(&frame) {
            flows.segment(frame.at, &segment, &NoDeclarations, &mut happened);
        }
    }
    sums
}

/// Where tshark reads what Penstock does not, and why.
const ONLY_TSHARK: &[(&str, &str)] = &[
    // 10.0.0.8 opened this connection from its port 502: by their roles nothing asks 10.0.0.57:4446 anything in Modbus.
    (
        "modbus_test_data_part1",
        "10.0.0.57:4446 10.0.0.8:502 answers 10 42 1 1",
    ),
    (
        "modbus_test_data_part1",
        "10.0.0.57:4446 10.0.0.8:502 excepts 10 1 10 10",
    ),
];

/// Captures of real devices, not of a fuzzer: every count and every sum of identifiers agrees.
#[test]
fn both_directions_of_the_captures_are_read_as_tshark_reads_them() {
    let mut answers = 0;
    for name in [
        "modbusSmall",
        "modbus_test",
        "modbus_test_2",
        "modbus_test_data_part1",
        "modbus_test_data_part2",
        "modicon_test",
        "fragmented",
    ] {
        let capture = folder().join(format!("{name}.pcap"));
        let ours: Vec<String> = adus(&fs::read(&capture).unwrap())
            .into_iter()
            .map(|(line, (count, identifiers))| format!("{line} {count} {identifiers}"))
            .collect();
        let golden = fs::read_to_string(capture.with_extension("adus")).unwrap();
        let mut theirs: Vec<&str> = golden.lines().collect();
        for (capture, line) in ONLY_TSHARK {
            let listed = theirs.iter().position(|their| capture == &name && their == line);
            assert_eq!(listed.is_some(), capture == &name, "{line} is listed, and agrees");
            listed.map(|at| theirs.remove(at));
        }
        let only_ours: Vec<&String> = ours
            .iter()
            .filter(|line| !theirs.contains(&line.as_str()))
            .collect();
        theirs.retain(|line| !ours.iter().any(|our| our == line));
        assert!(
            only_ours.is_empty() && theirs.is_empty(),
            "{name}: {only_ours:#?} instead of {theirs:#?}"
        );
        answers += ours.iter().filter(|line| !line.contains(" asks ")).count();
    }
    assert!(answers > 300, "only {answers} kinds of answers");
}

/// A packet over IPv6 with these extension headers, the last of which leads to TCP.
fn over_ipv6(tcp: &[u8], first: u8, extensions: &[u8]) -> Vec<u8> {
    let length = u16::try_from(extensions.len() + tcp.len()).unwrap().to_be_bytes();
    let head = [0x60, 0, 0, 0, length[0], length[1], first, 64];
    [&head[..], &[0xfd; 16], &[0xfc; 16], extensions, tcp].concat()
}

fn raw(bytes: &[u8]) -> Frame<'_> {
    Frame {
        number: 1,
        link_type: 101,
        at: std::time::Duration::ZERO,
        bytes,
        wire_bytes: bytes.len(),
    }
}

#[test]
fn extension_headers_are_read_through_and_fragments_are_told() {
    let bytes = fs::read(folder().join("modbusSmall.pcap")).unwrap();
    let mut compared = 0;
    for frame in Frames::open(&bytes).unwrap().flatten() {
        let Ok(segment) = link::segment(&frame) else {
            continue;
        };
        let ip = &frame.bytes[14..];
        let total = usize::from(ip[2]) << 8 | usize::from(ip[3]);
        let tcp = &ip[20..total];
        let padding = [1, 4, 0, 0, 0, 0];
        // Hop by hop, destination options, routing, and a fragment that is the whole packet (RFC 6946).
        let hop = [&[60, 0][..], &padding].concat();
        let options = [&[43, 0][..], &padding].concat();
        let routing = [44, 0, 0, 0, 0, 0, 0, 0];
        let whole = [6, 0, 0, 0, 0, 0, 0, 9];
        let first = [6, 0, 0, 1, 0, 0, 0, 9];
        let later = [6, 0, 0, 16, 0, 0, 0, 9];
        let chain = [&hop[..], &options, &routing, &whole].concat();
        let packet = over_ipv6(tcp, 0, &chain);
        let read = link::segment(&raw(&packet)).unwrap();
        assert_eq!(
            (read.sequence, read.payload, read.missing_bytes, read.fin),
            (segment.sequence, segment.payload, 0, segment.fin)
        );
        for fragment in [first, later] {
            let packet = over_ipv6(tcp, 44, &fragment);
            assert_eq!(link::segment(&raw(&packet)), Err(SkipReason::Fragment));
        }
        for flags in [[0x20, 0], [0, 2], [0x20, 2]] {
            let mut packet = ip[..total].to_vec();
            packet[6..8].copy_from_slice(&flags);
            assert_eq!(link::segment(&raw(&packet)), Err(SkipReason::Fragment));
        }
        compared += 1;
    }
    assert!(compared > 30, "only {compared} packets");
}

//! Recorded traffic that others made, against a reader that others wrote.

use penstock_policy::protocol::modbus_tcp::MODBUS_TCP;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use penstock_inspect::Operation;
use penstock_inspect::capture::direction::{NoDeclarations, Opening};
use penstock_inspect::capture::{CaptureError, Flows, Fragments, Frames, Happening, Transport, flows};
use penstock_inspect::follow::{Follower, StreamFinding};
use penstock_inspect::judge::{Objection, Refusal, Rules, Verdict};
use penstock_policy::protocol::modbus_tcp::functions::modbus_function;
use penstock_policy::terms::NumberRange;

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures/modbus")
}

/// The line that the golden has for a request.
fn line(operation: &Operation<'_>) -> String {
    let number = |name| operation.numbers(name).map(|range| range.first);
    let function = modbus_function(operation.name);
    let code = function.map(|function| function.code);
    let code = code.unwrap_or_else(|| operation.name["function-".len()..].parse().unwrap());
    let mut line = format!("{} {code}", number("units").unwrap());
    let fixed = function.and_then(|function| function.sub_function);
    if let Some(sub_function) = number("sub_functions").or(fixed.map(u32::from)) {
        line += &format!(" sub {sub_function}");
    }
    if function.is_some_and(|function| function.files) {
        return line;
    }
    let count = |range: NumberRange| range.last - range.first + 1;
    let single = matches!(code, 5 | 6 | 22 | 24);
    if let Some(read) = operation.numbers("read_addresses") {
        line += &format!(" read {} {}", read.first, count(read));
    }
    if let Some(span) = operation.numbers("addresses") {
        line += &format!(" {}", span.first);
        if !single {
            line += &format!(" {}", count(span));
        }
    }
    line
}

/// All requests of a capture as Penstock reads them, and all notes.
pub(crate) fn requests(capture: &Path) -> (Vec<String>, BTreeMap<String, usize>) {
    let bytes = fs::read(capture).unwrap();
    let mut fragments = Fragments::default();
    let mut flows = Flows::new(flows::FlowLimits::default());
    let mut followers: Vec<Option<Follower>> = Vec::new();
    let mut requests = Vec::new();
    let mut notes = BTreeMap::new();
    let mut happened =
        |number: usize, key: penstock_inspect::capture::FlowKey, at, happening: Happening<'_>| {
            if let Happening::Begins { opening } = happening {
                let rules = Arc::new(Rules::nothing(MODBUS_TCP).unwrap());
                followers.push(
                    (key.server.port() == 502).then(|| Follower::new(rules, opening != Opening::Recorded)),
                );
                return;
            }
            let Some(follower) = &mut followers[number] else {
                return;
            };
            let mut found = |finding: StreamFinding<'_>| match finding {
                StreamFinding::Judged { operation, verdict } => {
                    let malformed = matches!(
                        verdict,
                        Verdict::Refuse(Refusal {
                            why: Objection::Malformed(_),
                            ..
                        })
                    );
                    let mark = if malformed { " malformed" } else { "" };
                    requests.push(format!("{} {} {}{mark}", key.client, key.server, line(operation)));
                }
                StreamFinding::Exception { .. } | StreamFinding::Answered { .. } => {}
                other => *notes.entry(format!("{other:?}")).or_default() += 1,
            };
            match happening {
                Happening::Data(from, bytes) => follower.data(from, at, bytes, &mut found),
                Happening::Gap(from, _) => follower.gap(from),
                Happening::Conflict(from, bytes) => {
                    *notes.entry(format!("conflict {from:?} {bytes}")).or_default() += 1
                }
                Happening::Ends { seen } => follower.finish(seen, &mut found),
                Happening::Begins { .. } | Happening::Unopened(_) => {}
            }
        };
    for frame in Frames::open(&bytes).unwrap() {
        let Ok(frame) = frame else { break };
        if let Ok(Some(Transport::Tcp(segment))) = fragments.transport(&frame) {
            flows.segment(frame.at, &segment, &NoDeclarations, &mut happened);
        }
    }
    flows.finish(&mut happened);
    (requests, notes)
}

#[test]
fn every_request_in_the_captures_is_read_as_tshark_reads_it_or_the_difference_is_explained() {
    let mut requests_in_all = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let capture = entry.unwrap().path();
        if capture.extension().is_none_or(|extension| extension != "pcap") {
            continue;
        }
        let (ours, _) = requests(&capture);
        let golden = fs::read_to_string(capture.with_extension("golden")).unwrap();
        let mut expected: BTreeMap<&str, i64> = BTreeMap::new();
        let mut explained = false;
        for line in golden.lines() {
            if let Some(line) = line.strip_prefix("# only tshark: ") {
                *expected.entry(line).or_default() -= 1;
                assert!(explained, "{line} without a reason");
            } else if let Some(line) = line.strip_prefix("# only penstock: ") {
                *expected.entry(line).or_default() += 1;
                assert!(explained, "{line} without a reason");
            } else if line.starts_with('#') {
                explained |= line.starts_with("# because: ");
            } else {
                *expected.entry(line).or_default() += 1;
            }
        }
        for line in &ours {
            *expected.entry(line).or_default() -= 1;
        }
        expected.retain(|_, difference| *difference != 0);
        assert!(
            expected.is_empty(),
            "{}: tshark minus Penstock: {expected:#?}",
            capture.display()
        );
        requests_in_all += ours.len();
    }
    assert!(
        requests_in_all > 3700,
        "only {requests_in_all} requests were compared"
    );
}

/// A capture cut anywhere gives the packets before the cut, and says where it was cut.
#[test]
fn a_file_that_ends_within_a_packet_gives_what_is_whole_and_says_so() {
    let bytes = fs::read(folder().join("modbusSmall.pcap")).unwrap();
    let all = Frames::open(&bytes).unwrap().count();
    for cut in (24..bytes.len()).step_by(97) {
        let frames: Vec<_> = Frames::open(&bytes[..cut]).unwrap().collect();
        let whole = frames.iter().filter(|frame| frame.is_ok()).count();
        assert!(whole <= all && frames.len() - whole <= 1);
        let cut_within = 24
            + frames
                .iter()
                .flatten()
                .map(|frame| 16 + frame.bytes.len())
                .sum::<usize>()
            != cut;
        assert_eq!(
            cut_within,
            matches!(frames.last(), Some(Err(CaptureError::CutShort(_)))),
            "cut at {cut}"
        );
    }
    assert!(Frames::open(b"GET / HTTP/1.1").is_err());
}

/// The same traffic as pcapng, in either byte order, with a VLAN or two, in Linux cooked form, or over raw IP.
#[test]
fn the_wrapping_of_a_capture_does_not_change_what_is_read() {
    let bytes = fs::read(folder().join("modbusSmall.pcap")).unwrap();
    let (plain, _) = requests(&folder().join("modbusSmall.pcap"));
    type Wrap = fn(&[u8]) -> Vec<u8>;
    let vlan: Wrap = |frame| [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat();
    let double: Wrap = |frame| [&frame[..12], &[0x88, 0xa8, 0, 9, 0x81, 0, 0, 7], &frame[12..]].concat();
    let raw: Wrap = |frame| frame[14..].to_vec();
    let cooked: Wrap = |frame| [&[0, 0, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0][..], &frame[12..]].concat();
    let cooked2: Wrap = |frame| [&frame[12..14], &[0; 18], &frame[14..]].concat();
    let same: Wrap = <[u8]>::to_vec;
    for (link_type, wrap) in [
        (1_u16, same),
        (1, vlan),
        (1, double),
        (101, raw),
        (113, cooked),
        (276, cooked2),
    ] {
        for big in [false, true] {
            let u32_of = |value: usize| {
                let value = u32::try_from(value).unwrap();
                if big {
                    value.to_be_bytes()
                } else {
                    value.to_le_bytes()
                }
            };
            let u16_of = |value: u16| {
                if big {
                    value.to_be_bytes()
                } else {
                    value.to_le_bytes()
                }
            };
            let block = |kind: usize, body: &[u8]| {
                let padded = body.len().next_multiple_of(4);
                let length = u32_of(12 + padded);
                [
                    &u32_of(kind)[..],
                    &length,
                    body,
                    &vec![0; padded - body.len()],
                    &length,
                ]
                .concat()
            };
            let mut file = block(
                0x0a0d_0d0a,
                &[&u32_of(0x1a2b_3c4d)[..], &u16_of(1), &u16_of(0), &[0xff; 8]].concat(),
            );
            file.extend(block(
                1,
                &[&u16_of(link_type)[..], &u16_of(0), &u32_of(0)].concat(),
            ));
            file.extend(block(0x0bad, &[1, 2, 3])); // An unknown block is passed over.
            for frame in Frames::open(&bytes).unwrap().flatten() {
                let wrapped = wrap(frame.bytes);
                let head = [
                    u32_of(0),
                    u32_of(0),
                    u32_of(5),
                    u32_of(wrapped.len()),
                    u32_of(wrapped.len()),
                ]
                .concat();
                file.extend(block(6, &[&head[..], &wrapped].concat()));
            }
            let folder = std::env::temp_dir().join(format!("penstock-wrapping-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            let path = folder.join("wrapped.pcapng");
            fs::write(&path, &file).unwrap();
            let (wrapped, _) = requests(&path);
            fs::remove_dir_all(&folder).unwrap();
            assert_eq!(wrapped, plain, "link type {link_type}, big {big}");
        }
    }
}

#[test]
fn a_clock_whose_offset_lies_before_1970_is_read() {
    let block = |kind: u32, body: &[u8]| {
        let length = u32::try_from(12 + body.len()).unwrap().to_le_bytes();
        [&kind.to_le_bytes()[..], &length, body, &length].concat()
    };
    let section = [&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
    let offset = [
        &[101, 0, 0, 0, 0, 0, 0, 0, 14, 0, 8, 0][..],
        &(-1_i64).to_le_bytes(),
    ]
    .concat();
    let five_seconds = 5_000_000_u32.to_le_bytes();
    let packet = [&[0; 8][..], &five_seconds, &[0; 8]].concat();
    let file = [block(0x0a0d_0d0a, &section), block(1, &offset), block(6, &packet)].concat();
    let frames: Vec<_> = Frames::open(&file).unwrap().flatten().collect();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].at.as_secs(), 4);
}

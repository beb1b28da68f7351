//! Every packet of every capture here, field by field, against a reader that others wrote. Where `tshark` is wrong, a list says so by name.
//!
//! `captures` and `answers` compare whole conversations with what `tshark` once read of them; here it reads each packet alone, as it is installed.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use penstock_inspect::Operation;
use penstock_inspect::capture::link::{self, Packet};
use penstock_inspect::capture::{Frame, FrameKind, Frames, Segment, SkipReason, Transport};
use penstock_inspect::follow::{Follower, StreamFinding};
use penstock_inspect::judge::{Objection, Refusal, Rules, Verdict};
use penstock_policy::protocol::Protocol;
use penstock_policy::protocol::modbus_tcp::MODBUS_TCP;
use penstock_policy::protocol::modbus_tcp::functions::modbus_function;
use penstock_policy::protocol::mqtt::MQTT;

/// Said of a request that does not have the form that its protocol gives it: of it only function and unit are compared.
const MALFORMED: &str = ", malformed";

/// What is asked of `tshark`, in the order of its columns.
const FIELDS: [&str; 26] = [
    "frame.protocols",
    "eth.type",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "ip.proto",
    "ip.flags.mf",
    "ip.frag_offset",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.seq_raw",
    "tcp.ack_raw",
    "tcp.flags",
    "tcp.len",
    "udp.srcport",
    "udp.dstport",
    "udp.length",
    "mbtcp.unit_id",
    "modbus.func_code",
    "modbus.reference_num",
    "modbus.regval_uint16",
    "modbus.data",
    "mqtt.msgtype",
    "mqtt.clientid",
    "mqtt.topic",
];

/// A packet as `tshark` reads it: by field.
struct Row(BTreeMap<&'static str, String>);

impl Row {
    /// The outermost.
    fn first(&self, field: &str) -> &str {
        self.0[field].split('|').next().unwrap()
    }

    fn has(&self, field: &str) -> bool {
        !self.0[field].is_empty()
    }

    fn number(&self, field: &str) -> u64 {
        self.first(field).parse().unwrap()
    }

    fn ends(&self, carrier: &str) -> String {
        let end = |side: &str, port: &str| {
            let address = if self.has("ip.src") { "ip" } else { "ipv6" };
            let address: IpAddr = self.first(&format!("{address}.{side}")).parse().unwrap();
            let port = self.number(&format!("{carrier}.{port}")).try_into().unwrap();
            SocketAddr::new(address, port)
        };
        format!("{carrier} {} {}", end("src", "srcport"), end("dst", "dstport"))
    }

    /// What the packet is, in the words of [`ours`].
    fn packet(&self) -> String {
        let network = if self.has("ip.src") { "ip" } else { "ipv6" };
        let is_fragment = self.has("ip.src")
            && (matches!(self.first("ip.flags.mf"), "1" | "True") || self.number("ip.frag_offset") > 0);
        if is_fragment {
            return format!("fragment {} {}", self.first("ip.src"), self.first("ip.dst"));
        }
        let quotes = self.has("ip.proto") && !matches!(self.first("ip.proto"), "6" | "17");
        if quotes {
            return format!("ip {}", self.first("ip.proto"));
        }
        if self.has("tcp.srcport") {
            let flags = u64::from_str_radix(&self.first("tcp.flags")[2..], 16).unwrap();
            let is = |bit: u64| flags & bit != 0;
            let acknowledged = if is(0x10) { self.first("tcp.ack_raw") } else { "-" };
            return format!(
                "{} {} {acknowledged} {} {} {} {}",
                self.ends("tcp"),
                self.first("tcp.seq_raw"),
                is(2) && !is(1) && !is(4),
                is(1),
                is(4),
                self.first("tcp.len")
            );
        }
        if self.has("udp.srcport") {
            return format!("{} {}", self.ends("udp"), self.number("udp.length") - 8);
        }
        let protocols = &self.0["frame.protocols"];
        if protocols.contains(":arp") {
            return "arp".to_owned();
        }
        if self.has(&format!("{network}.src")) {
            return format!("ip of {protocols}");
        }
        match self.first("eth.type") {
            "" => "of IEEE 802.2".to_owned(),
            kind => format!("EtherType {kind}"),
        }
    }

    /// The operations in it, in the words of [`asked`].
    fn asked(&self) -> Vec<String> {
        let all = |field: &str| {
            let text = self.0[field].clone();
            let parts = text.split('|').filter(|part| !part.is_empty());
            parts.map(str::to_owned).collect::<Vec<_>>()
        };
        let mut asked = Vec::new();
        if self.first("tcp.dstport") == "502" {
            let (codes, units) = (all("modbus.func_code"), all("mbtcp.unit_id"));
            let [code] = codes.as_slice() else {
                return codes
                    .iter()
                    .zip(&units)
                    .map(|(code, unit)| format!("{code} of unit {unit}"))
                    .collect();
            };
            let mut words = format!("{code} of unit {}", units.concat());
            if self.has("modbus.reference_num") {
                words += &format!(" from {}", self.first("modbus.reference_num"));
            }
            let values: Vec<u64> = match code.as_str() {
                "6" => all("modbus.data")
                    .iter()
                    .map(|value| u64::from_str_radix(value, 16).unwrap())
                    .collect(),
                "16" => all("modbus.regval_uint16")
                    .iter()
                    .map(|value| value.parse().unwrap())
                    .collect(),
                _ => Vec::new(),
            };
            if let (Some(least), Some(most)) = (values.iter().min(), values.iter().max()) {
                words += &format!(" values {least}-{most}");
            }
            asked.push(words);
        }
        if self.first("tcp.dstport") == "1883" {
            let (mut names, mut topics) = (all("mqtt.clientid").into_iter(), all("mqtt.topic").into_iter());
            for kind in all("mqtt.msgtype") {
                match kind.as_str() {
                    "1" => asked.push(format!("connect {}", names.next().unwrap_or_default())),
                    "3" => asked.push(format!("publish {}", topics.next().unwrap_or_default())),
                    "8" => asked.push(format!("subscribe {}", topics.next().unwrap_or_default())),
                    _ => {}
                }
            }
        }
        asked
    }
}

/// What a packet is to Penstock.
fn ours(frame: &Frame<'_>) -> String {
    match link::packet(frame) {
        Ok(Packet::Whole(Transport::Tcp(segment))) => format!(
            "tcp {} {} {} {} {} {} {} {}",
            segment.source,
            segment.destination,
            segment.sequence,
            segment
                .acknowledged
                .map_or("-".to_owned(), |number| number.to_string()),
            segment.syn,
            segment.fin,
            segment.rst,
            segment.payload.len() + segment.missing_bytes
        ),
        Ok(Packet::Whole(Transport::Udp(datagram))) => format!(
            "udp {} {} {}",
            datagram.source, datagram.destination, datagram.payload_bytes
        ),
        Ok(Packet::Fragment(fragment)) => format!("fragment {} {}", fragment.source, fragment.destination),
        Err(SkipReason::Group) => {
            let (source, destination, payload) = link::datagram_payload(frame).unwrap();
            format!("udp {source} {destination} {}", payload.len())
        }
        Err(SkipReason::Arp) => "arp".to_owned(),
        Err(SkipReason::Protocol(number)) => format!("ip {number}"),
        Err(SkipReason::NotIp(what)) => match what.kind {
            FrameKind::EtherType(number) => format!("EtherType {number:#06x}"),
            FrameKind::Llc(_) | FrameKind::Snap(..) => "of IEEE 802.2".to_owned(),
            FrameKind::Ppp(protocol) => format!("PPP {protocol:#06x}"),
        },
        Err(other) => format!("{other:?}"),
    }
}

/// What a segment asks by itself, if it is whole and well-formed.
fn asked(segment: &Segment<'_>) -> Vec<String> {
    let protocol = match segment.destination.port() {
        502 => MODBUS_TCP,
        1883 => MQTT,
        _ => return Vec::new(),
    };
    let mut asked = Vec::new();
    let mut follower = Follower::new(Arc::new(Rules::nothing(protocol).unwrap()), protocol == MQTT);
    let mut found = |finding: StreamFinding<'_>| {
        if let StreamFinding::Judged { operation, verdict } = finding {
            let why = match verdict {
                Verdict::Refuse(Refusal { why, .. }) => Some(why),
                _ => None,
            };
            let is_malformed = matches!(why, Some(Objection::Malformed(_)));
            asked.push(in_words(protocol, operation, is_malformed));
        }
    };
    follower.data(
        penstock_inspect::connection::Sender::Client,
        Duration::ZERO,
        segment.payload,
        &mut found,
    );
    asked
}

fn in_words(protocol: Protocol, operation: &Operation<'_>, is_malformed: bool) -> String {
    if protocol == MQTT {
        let name = operation.text("client_ids").or(operation.text("topics"));
        return format!("{} {}", operation.name, name.unwrap_or_default());
    }
    let number = |name| operation.numbers(name).map(|range| range.first);
    let known = modbus_function(operation.name).map(|function| function.code);
    let code = known.unwrap_or_else(|| operation.name["function-".len()..].parse().unwrap());
    let mut words = format!("{code} of unit {}", number("units").unwrap());
    if is_malformed {
        return words + MALFORMED;
    }
    if let Some(first) = number("addresses") {
        words += &format!(" from {first}");
    }
    // Of coils tshark gives the bits as they are packed.
    if let Some(values) = operation.numbers("values").filter(|_| matches!(code, 6 | 16)) {
        words += &format!(" values {}-{}", values.first, values.last);
    }
    words
}

fn captures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let mut captures = Vec::new();
    for kind in fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
    {
        let files = fs::read_dir(kind).unwrap().map(|entry| entry.unwrap().path());
        captures.extend(files.filter(|file| {
            file.extension()
                .is_some_and(|ending| ending == "pcap" || ending == "pcapng")
        }));
    }
    captures.sort();
    captures
}

/// A packet: when, what was kept of it, and how long it was.
type Recorded = (Duration, Vec<u8>, usize);

/// Which `tshark` it is: another may read otherwise.
fn version() -> String {
    let said = Command::new("tshark").arg("-v").output();
    let said = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned());
    let said = said.unwrap_or_default();
    said.lines().next().unwrap_or("tshark of no version").to_owned()
}

/// What `tshark` reads in a file with these packets, all of one link type.
fn rows(link_type: u16, packets: &[Recorded]) -> Vec<Row> {
    let mut file: Vec<u8> = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, link_type.into()] {
        file.extend(word.to_le_bytes());
    }
    for (at, bytes, wire_bytes) in packets {
        let seconds = u32::try_from(at.as_secs()).unwrap();
        let lengths = [bytes.len(), *wire_bytes].map(|length| u32::try_from(length).unwrap());
        for word in [seconds, at.subsec_micros(), lengths[0], lengths[1]] {
            file.extend(word.to_le_bytes());
        }
        file.extend(bytes);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.pcap");
    fs::write(&path, file).unwrap();
    // Each packet alone: nothing is put together, and no number is relative to another packet's.
    let settings = folder.path().join("settings");
    fs::create_dir(&settings).unwrap();
    let mut command = Command::new("tshark");
    command
        .env("WIRESHARK_CONFIG_DIR", settings)
        .args([
            "-n",
            "-T",
            "fields",
            "-E",
            "occurrence=a",
            "-E",
            "aggregator=|",
            "-r",
        ])
        .arg(&path);
    for preference in [
        "ip.defragment:FALSE",
        "tcp.desegment_tcp_streams:FALSE",
        "tcp.check_checksum:FALSE",
        "tcp.analyze_sequence_numbers:FALSE",
    ] {
        command.args(["-o", preference]);
    }
    FIELDS.iter().for_each(|field| {
        command.args(["-e", field]);
    });
    let read = command
        .output()
        .expect("tshark is there: scripts/setup installs it");
    assert!(
        read.status.success(),
        "{}: {}",
        version(),
        String::from_utf8_lossy(&read.stderr)
    );
    let text = String::from_utf8(read.stdout).unwrap();
    let row = |line: &str| {
        Row(FIELDS
            .into_iter()
            .zip(line.split('\t').map(str::to_owned))
            .collect())
    };
    text.lines().map(row).collect()
}

/// Where `tshark` reads otherwise: which packet, and why.
const EXCEPTIONS: [(&str, &str); 6] = [
    (
        "fuzz-1011.pcap 2",
        "its IP header has another version than its EtherType says; tshark goes by the EtherType",
    ),
    (
        "fuzz-72.pcap 1",
        "IP announces more than is there; tshark counts what is there, Penstock the rest as missing",
    ),
    (
        "fuzz-72.pcap 20",
        "IP announces more than is there; tshark counts what is there, Penstock the rest as missing",
    ),
    (
        "fuzz-72.pcap 14",
        "its header announces 37 bytes, of which 6 are there; tshark reads those",
    ),
    (
        "modbus_test_data_part1.pcap 76",
        "its header announces 34,820 bytes, which no request has; tshark reads it",
    ),
    (
        "modbus_test_data_part1.pcap 78",
        "its header announces 34,820 bytes, which no request has; tshark reads it",
    ),
];

/// Of a request that is malformed, or of several in one packet, function and unit.
fn in_short(asked: &[String], other: &[String]) -> String {
    let is_short = asked.len() > 1 || other.iter().any(|asked| asked.ends_with(MALFORMED));
    let each = asked.iter().map(|asked| match is_short {
        true => asked.trim_end_matches(MALFORMED).split(" from ").next().unwrap(),
        false => asked,
    });
    each.collect::<Vec<_>>().join(", ")
}

#[test]
fn every_packet_is_what_tshark_says_that_it_is() {
    let mut by_link: BTreeMap<u16, (Vec<String>, Vec<Recorded>)> = BTreeMap::new();
    for capture in captures() {
        let bytes = fs::read(&capture).unwrap();
        let name = capture.file_name().unwrap().to_string_lossy().into_owned();
        for (frame, number) in Frames::open(&bytes).unwrap().flatten().zip(1..) {
            let (names, packets) = by_link.entry(frame.link_type).or_default();
            names.push(format!("{name} {number}"));
            packets.push((frame.at, frame.bytes.to_vec(), frame.wire_bytes));
        }
    }
    let (mut differences, mut packets_in_all, mut asked_in_all) = (BTreeMap::new(), 0, 0);
    for (link_type, (names, packets)) in &by_link {
        let (link_type, rows) = (*link_type, rows(*link_type, packets));
        assert_eq!(rows.len(), packets.len());
        for ((row, name), (at, bytes, wire_bytes)) in rows.iter().zip(names).zip(packets) {
            let frame = Frame {
                number: 1,
                link_type,
                at: *at,
                bytes,
                wire_bytes: *wire_bytes,
            };
            let mut pairs = vec![(row.packet(), ours(&frame))];
            if let Ok(segment) = link::segment(&frame) {
                let ours = asked(&segment);
                asked_in_all += ours.len();
                let theirs = row.asked();
                pairs.push((in_short(&theirs, &ours), in_short(&ours, &ours)));
            }
            packets_in_all += 1;
            for (theirs, ours) in pairs {
                if theirs != ours {
                    differences.insert(
                        name.as_str(),
                        format!("{name}: tshark: {theirs}; Penstock: {ours}"),
                    );
                }
            }
        }
    }
    for (packet, why) in EXCEPTIONS {
        assert!(
            differences.remove(packet).is_some(),
            "{packet} is no exception any more for {}: {why}",
            version()
        );
    }
    let differences: Vec<String> = differences.into_values().collect();
    assert!(
        differences.is_empty(),
        "{}:\n{}",
        version(),
        differences.join("\n")
    );
    assert!(
        packets_in_all > 10_000,
        "only {packets_in_all} packets were compared"
    );
    assert!(
        asked_in_all > 3_700,
        "only {asked_in_all} operations were compared"
    );
}

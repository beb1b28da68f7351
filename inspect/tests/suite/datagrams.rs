//! UDP datagrams in recordings, read as tshark reads them; what is none to one machine is left aside.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use etherparse::PacketBuilder;
use penstock_inspect::capture::direction::NoDeclarations;
use penstock_inspect::capture::{
    Conversations, Envelope, Fragments, Frame, FrameKind, Frames, NotIp, SkipReason, Transport,
};
pub(crate) const MANAGER: &str = "10.1.0.5:50000";
pub(crate) const DEVICE: &str = "10.2.0.9:161";

/// An Ethernet frame with a datagram.
pub(crate) fn packet(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => panic!("two families"),
    };
    let mut bytes = Vec::new();
    ip.udp(from.port(), to.port()).write(&mut bytes, payload).unwrap();
    bytes
}

/// Packets with their times, as frames of one recording.
pub(crate) fn frames(packets: &[(u64, Vec<u8>)]) -> impl Iterator<Item = Frame<'_>> {
    (1..).zip(packets).map(|(number, (at_s, bytes))| Frame {
        number,
        link_type: 1,
        at: Duration::from_secs(*at_s),
        bytes,
        wire_bytes: bytes.len(),
    })
}

fn read(frame: &Frame<'_>) -> Result<(String, String, usize), SkipReason> {
    match Fragments::default().transport(frame)? {
        Some(Transport::Udp(read)) => Ok((
            read.source.to_string(),
            read.destination.to_string(),
            read.payload_bytes,
        )),
        other => panic!("{other:?}"),
    }
}

#[test]
fn datagrams_of_real_devices_are_counted_as_tshark_counts_them() {
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let mut in_all = 0;
    for entry in fs::read_dir(captures.join("udp")).unwrap() {
        let golden = entry.unwrap().path();
        if golden.extension().is_none_or(|extension| extension != "golden") {
            continue;
        }
        let name = golden.with_extension("pcap");
        let name = name.file_name().unwrap();
        let capture = ["udp", "modbus"].map(|folder| captures.join(folder).join(name));
        let bytes = fs::read(capture.iter().find(|path| path.exists()).unwrap()).unwrap();
        let (mut fragments, mut conversations) = (Fragments::default(), Conversations::default());
        let (mut counts, mut groups) = (BTreeMap::new(), 0);
        let mut count = |of: [SocketAddr; 2], datagrams: [u64; 2]| {
            let turned = of[0] > of[1];
            let pair = if turned { [of[1], of[0]] } else { of };
            let sums: &mut [u64; 2] = counts.entry(pair).or_default();
            sums[0] += datagrams[usize::from(turned)];
            sums[1] += datagrams[usize::from(!turned)];
        };
        for frame in Frames::open(&bytes).unwrap().flatten() {
            match fragments.transport(&frame) {
                Ok(Some(Transport::Udp(datagram))) => {
                    conversations.datagram(frame.at, &datagram, &NoDeclarations, &mut |over| {
                        count([over.client, over.server], over.datagrams);
                    });
                }
                Err(SkipReason::Group) => groups += 1,
                _ => {}
            }
        }
        conversations.finish(&NoDeclarations, &mut |over| {
            count([over.client, over.server], over.datagrams)
        });
        let mut expected: BTreeMap<[SocketAddr; 2], [u64; 2]> = BTreeMap::new();
        for line in fs::read_to_string(&golden).unwrap().lines() {
            let words: Vec<&str> = line.split(' ').collect();
            if words[0] == "groups" {
                assert_eq!(groups, words[1].parse::<u64>().unwrap(), "{}", golden.display());
                continue;
            }
            let ends = [words[0], words[1]].map(|end| end.parse::<SocketAddr>().unwrap());
            let datagrams = [words[2], words[3]].map(|count| count.parse::<u64>().unwrap());
            let turned = ends[0] > ends[1];
            expected.insert(
                if turned { [ends[1], ends[0]] } else { ends },
                if turned {
                    [datagrams[1], datagrams[0]]
                } else {
                    datagrams
                },
            );
        }
        assert_eq!(counts, expected, "{}", golden.display());
        in_all += counts.values().flatten().sum::<u64>() + groups;
    }
    assert_eq!(in_all, 44, "datagrams were compared");
}

#[test]
fn a_datagram_is_read_in_any_wrapping_whole_or_in_fragments() {
    for (from, to) in [(MANAGER, DEVICE), ("[fd00::5]:50000", "[fd01::9]:161")] {
        let ethernet = packet(from, to, b"twelve bytes");
        let tagged = [&ethernet[..12], &[0x81, 0, 0, 7], &ethernet[12..]].concat();
        let cooked = [&[0, 0, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0][..], &ethernet[12..]].concat();
        let cooked2 = [&ethernet[12..14], &[0; 18], &ethernet[14..]].concat();
        let raw = ethernet[14..].to_vec();
        for (link_type, bytes) in [
            (1, ethernet),
            (1, tagged),
            (113, cooked),
            (276, cooked2),
            (101, raw),
        ] {
            let frame = Frame {
                number: 1,
                link_type,
                at: Duration::ZERO,
                bytes: &bytes,
                wire_bytes: bytes.len(),
            };
            assert_eq!(read(&frame), Ok((from.to_owned(), to.to_owned(), 12)));
            // What the capture's length limit cut off was on the wire all the same.
            let cut = Frame {
                bytes: &bytes[..bytes.len() - 5],
                ..frame
            };
            assert_eq!(read(&cut), Ok((from.to_owned(), to.to_owned(), 12)));
        }
    }
    let whole = packet(MANAGER, DEVICE, &[7; 40]);
    let fragment = |from: usize, to: usize, place: u16| {
        let length = u16::try_from(20 + to - from).unwrap();
        let mut head = whole[..34].to_vec();
        head[16..18].copy_from_slice(&length.to_be_bytes());
        head[20..22].copy_from_slice(&place.to_be_bytes());
        [head, whole[34 + from..34 + to].to_vec()].concat()
    };
    let parts = [(0, fragment(24, 48, 3)), (1, fragment(0, 24, 0x2000))];
    let mut fragments = Fragments::default();
    let mut read = frames(&parts).map(|frame| {
        let transport = fragments.transport(&frame).unwrap();
        transport.map(|transport| format!("{transport:?}"))
    });
    assert_eq!(read.next(), Some(None));
    let joined = read.next().unwrap().unwrap();
    assert!(joined.contains("10.2.0.9:161, payload_bytes: 40"), "{joined}");
}

#[test]
fn what_is_no_datagram_to_one_machine_is_left_aside_with_its_reason() {
    let good = packet(MANAGER, DEVICE, b"1234");
    let with = |at: usize, bytes: &[u8]| {
        let mut other = good.clone();
        other[at..at + bytes.len()].copy_from_slice(bytes);
        other
    };
    let arp = [&[0xff; 6][..], &[2; 6], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &[0; 20]].concat();
    let profinet = NotIp {
        kind: FrameKind::EtherType(0x8892),
        envelope: Envelope::default(),
    };
    let cases = [
        (with(0, &[0xff; 6]), SkipReason::Group),
        (with(0, &[1, 0, 0x5e, 0, 0, 1]), SkipReason::Group),
        (packet(MANAGER, "239.1.2.3:5000", b""), SkipReason::Group),
        (packet(MANAGER, "255.255.255.255:67", b""), SkipReason::Group),
        (
            packet("[fd00::5]:5353", "[ff02::fb]:5353", b""),
            SkipReason::Group,
        ),
        // A length shorter than the header, longer than the packet; port 0; a header that is cut off.
        (with(38, &[0, 7]), SkipReason::Headers),
        (with(38, &[0, 13]), SkipReason::Headers),
        (with(36, &[0, 0]), SkipReason::Headers),
        (good[..40].to_vec(), SkipReason::Headers),
        (with(23, &[1]), SkipReason::Protocol(1)),
        (with(23, &[89]), SkipReason::Protocol(89)),
        (with(12, &[0x88, 0x92]), SkipReason::NotIp(profinet)),
        (arp, SkipReason::Arp),
    ];
    for (bytes, reason) in &cases {
        let one = [(0, bytes.clone())];
        assert_eq!(
            frames(&one).map(|frame| read(&frame)).next(),
            Some(Err(*reason)),
            "{bytes:x?}"
        );
    }
}

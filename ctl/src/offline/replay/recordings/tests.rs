//! Recordings in any order, cut, compressed and overlapping are one recording.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::{Pass, read};

/// What a packet is known by: its number, its time in milliseconds, and its bytes.
type Taken = (u64, u128, Vec<u8>);

/// The packets, as they were read, and where files were cut.
fn taken(files: &[PathBuf]) -> (Vec<Taken>, Vec<String>) {
    let mut taken = Vec::new();
    let cut = read(files, |pass, frame| {
        if pass == Pass::Take {
            taken.push((frame.number, frame.at.as_millis(), frame.bytes.to_vec()));
        }
    })
    .unwrap();
    (taken, cut)
}

/// A pcap file with a packet for each of these times, in seconds.
fn recorded(times: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let mut file = Vec::new();
    for field in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(field.to_le_bytes());
    }
    for at in times {
        // Some are larger than what is read at a time.
        let length = if at % 3 == 0 { 100_000_u32 } else { 60 };
        for field in [at, 0, length, length] {
            file.extend(field.to_le_bytes());
        }
        file.extend(at.to_le_bytes());
        file.extend(vec![0; usize::try_from(length).unwrap() - 4]);
    }
    file
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let file = self.0.path().join(name);
        fs::write(&file, bytes).unwrap();
        file
    }
}

#[test]
fn a_recording_that_is_cut_into_files_is_the_same_in_any_order_and_compression() {
    let folder = Folder::new();
    let whole = taken(&[folder.write("whole.pcap", &recorded(1..30))]);
    assert_eq!(whole.0.len(), 29);
    let parts = [
        folder.write("c.pcap", &zstd(&recorded(21..30))),
        folder.write("a.pcap.gz", &gzip(&recorded(1..10))),
        // Two members, one behind the other, as `cat` makes them; the same of Zstandard.
        folder.write(
            "b.pcap.gz",
            &[gzip(&recorded(10..21)[..40]), gzip(&recorded(10..21)[40..])].concat(),
        ),
    ];
    assert_eq!(taken(&parts), whole);
    assert_eq!(
        taken(&[folder.0.path().join("[ab].pcap"), folder.0.path().join("*.pcap*")][1..])
            .0
            .len(),
        58
    );
    let split = recorded(1..30);
    let twice = folder.write("d.zst", &[zstd(&split[..1000]), zstd(&split[1000..])].concat());
    assert_eq!(taken(&[twice]), whole);
}

#[test]
fn recordings_of_the_same_time_are_read_in_the_order_of_their_packets() {
    let folder = Folder::new();
    let odd = folder.write("odd.pcap", &recorded((1..30).step_by(2)));
    let even = folder.write("even.pcap", &recorded((2..30).step_by(2)));
    let whole = folder.write("whole.pcap", &recorded(1..30));
    assert_eq!(taken(&[odd, even]), taken(&[whole]));
}

#[test]
fn a_silence_between_two_recordings_is_a_new_beginning() {
    let folder = Folder::new();
    let first = folder.write("1.pcap", &recorded([1, 2]));
    let second = folder.write("2.pcap", &recorded([60, 61]));
    let numbers = taken(&[second, first]).0.into_iter().map(|(number, ..)| number);
    assert_eq!(numbers.collect::<Vec<_>>(), [1, 2, 1, 2]);
}

#[test]
fn what_is_cut_or_damaged_in_its_compression_gives_what_is_whole_and_says_so() {
    let folder = Folder::new();
    let plain = recorded(1..30);
    let cut = folder.write("cut.pcap", &plain[..plain.len() - 10]);
    let (packets, said) = taken(&[cut]);
    assert_eq!(packets.len(), 28);
    assert!(
        said[0].contains("cut short") && said[0].contains("unread: 66 of "),
        "{said:?}"
    );
    let squeezed = gzip(&plain);
    let damaged = folder.write("damaged.gz", &squeezed[..squeezed.len() / 2]);
    let (packets, said) = taken(&[damaged]);
    assert!(!packets.is_empty() && packets.len() < 29, "{}", packets.len());
    assert!(said[0].contains("unread: what follows"), "{said:?}");
}

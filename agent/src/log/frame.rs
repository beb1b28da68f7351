//! The bytes of a segment, whatever its records mean.
//!
//! ```text
//! segment:  "PSQ1" | identity (16) | number (8, BE) | record …
//! record:   length of body (4, BE) | first 12 of SHA-256(identity | number | offset | body) | body
//! ```
//!
//! The digest binds a record to its log, its segment and its place, so that a flipped bit, a moved record and
//! another log's file are all seen.

use sha2::Digest as _;

/// What binds segments to their log.
pub type LogId = [u8; 16];

const MAGIC: &[u8; 4] = b"PSQ1";
/// Bytes before the first record.
pub const HEADER_BYTES: usize = 28;
/// Bytes of a record before its body.
pub const FRAME_BYTES: usize = 16;
/// The largest body: the largest packet that MQTT has is far beyond what configuration allows.
pub const BODY_BYTES_MAX: usize = 17 * 1024 * 1024;

/// The beginning of a segment.
pub fn header(identity: &LogId, number: u64) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(identity);
    out.extend_from_slice(&number.to_be_bytes());
    out
}

/// Whose segment it is, and its number.
pub fn read_header(bytes: &[u8]) -> Option<(LogId, u64)> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (identity, rest) = rest.split_first_chunk::<16>()?;
    let (number, _) = rest.split_first_chunk::<8>()?;
    Some((*identity, u64::from_be_bytes(*number)))
}

fn checksum(identity: &LogId, number: u64, offset: u64, body: &[u8]) -> [u8; 12] {
    let mut hash = sha2::Sha256::new();
    hash.update(identity);
    hash.update(number.to_be_bytes());
    hash.update(offset.to_be_bytes());
    hash.update(body);
    let whole: [u8; 32] = hash.finalize().into();
    let mut short = [0; 12];
    short.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
    short
}

/// Appends a record that will stand at `base` + what `out` holds already.
pub fn put(out: &mut Vec<u8>, identity: &LogId, number: u64, base: u64, body: &[u8]) {
    let offset = base.saturating_add(out.len() as u64);
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&checksum(identity, number, offset, body));
    out.extend_from_slice(body);
}

/// What stands at a place.
#[derive(Debug, PartialEq, Eq)]
pub enum FrameOutcome<'a> {
    /// A whole body, and how many bytes it takes with its frame.
    Whole(&'a [u8], usize),
    /// More bytes are needed: so many from the beginning of the record.
    Needs(usize),
    /// The body is not what was written; the next record may stand after so many bytes.
    Damaged(usize),
}

/// Reads the record at `offset` from the bytes that begin there.
pub fn read<'a>(identity: &LogId, number: u64, offset: u64, bytes: &'a [u8]) -> FrameOutcome<'a> {
    let Some((frame, rest)) = bytes.split_first_chunk::<FRAME_BYTES>() else {
        return FrameOutcome::Needs(FRAME_BYTES);
    };
    let (length, sum) = frame.split_at(4);
    let length = length
        .iter()
        .fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
    let whole = FRAME_BYTES + length;
    if length > BODY_BYTES_MAX {
        return FrameOutcome::Damaged(usize::MAX);
    }
    let Some(body) = rest.get(..length) else {
        return FrameOutcome::Needs(whole);
    };
    if checksum(identity, number, offset, body) == sum {
        FrameOutcome::Whole(body, whole)
    } else {
        FrameOutcome::Damaged(whole)
    }
}

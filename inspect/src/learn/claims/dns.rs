//! DNS and mDNS answers: which name has which address.

use std::net::IpAddr;

use crate::bytes::Reader;

pub(super) const PORT: u16 = 53;
pub(super) const MULTICAST_PORT: u16 = 5353;
/// Records of one answer that are read.
const RECORDS_MAX: u16 = 64;
/// How often a name goes on elsewhere.
const JUMPS_MAX: usize = 8;
/// Bytes of a name.
const NAME_MAX: usize = 255;
const HOST: u16 = 1;
const HOST_V6: u16 = 28;
const INTERNET: u16 = 1;

/// The addresses that one whole answer gives, each with its name.
pub(super) fn answers(bytes: &[u8]) -> Vec<(IpAddr, Vec<u8>)> {
    read(bytes).unwrap_or_default()
}

fn read(bytes: &[u8]) -> Option<Vec<(IpAddr, Vec<u8>)>> {
    let mut reader = Reader::new(bytes);
    reader.u16()?;
    let flags = reader.u16()?;
    // An answer, to a standard query, without an error.
    if flags & 0xf80f != 0x8000 {
        return None;
    }
    let (questions, answers) = (reader.u16()?, reader.u16()?);
    reader.take(4)?;
    if questions > RECORDS_MAX || answers > RECORDS_MAX {
        return None;
    }
    for _ in 0..questions {
        name(bytes, &mut reader)?;
        reader.take(4)?;
    }
    let mut found = Vec::new();
    for _ in 0..answers {
        let name = name(bytes, &mut reader)?;
        let kind = reader.u16()?;
        // The highest bit of mDNS says that others are to be forgotten.
        let class = reader.u16()? & 0x7fff;
        reader.u32()?;
        let length = reader.u16()?;
        let value = reader.take(length.into())?;
        let address = match (kind, class) {
            (HOST, INTERNET) => IpAddr::from(<[u8; 4]>::try_from(value).ok()?),
            (HOST_V6, INTERNET) => IpAddr::from(<[u8; 16]>::try_from(value).ok()?),
            _ => continue,
        };
        found.push((address, name));
    }
    Some(found)
}

/// A name with dots, from where the reader stands.
fn name<'a>(bytes: &'a [u8], reader: &mut Reader<'a>) -> Option<Vec<u8>> {
    let mut name: Vec<u8> = Vec::new();
    let mut elsewhere: Option<Reader<'a>> = None;
    for _ in 0..=JUMPS_MAX {
        loop {
            let from = elsewhere.as_mut().unwrap_or(reader);
            let length = from.u8()?;
            match length {
                0 => return Some(name),
                1..=63 => {
                    if !name.is_empty() {
                        name.push(b'.');
                    }
                    name.extend(from.take(length.into())?);
                    if name.len() > NAME_MAX {
                        return None;
                    }
                }
                192.. => {
                    let at = usize::from(length & 0x3f) << 8 | usize::from(from.u8()?);
                    elsewhere = Some(Reader::new(bytes.get(at..)?));
                    break;
                }
                _ => return None,
            }
        }
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::*;

    pub(in super::super) fn example() -> Vec<u8> {
        let mut bytes = vec![0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        bytes.extend(b"\x09historian\x05plant\x00\x00\x01\x00\x01");
        bytes.extend([0xc0, 12, 0, 1, 0x80, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 8]);
        bytes
    }

    #[test]
    fn an_answer_gives_names_their_addresses() {
        let expected = [(IpAddr::from([10, 0, 0, 8]), b"historian.plant".to_vec())];
        assert_eq!(answers(&example()), expected);
        // The question alone.
        let mut question = example();
        question[2] = 1;
        assert!(answers(&question).is_empty());
    }

    #[test]
    fn a_name_that_goes_round_in_circles_is_none() {
        let mut bytes = vec![0, 7, 0x81, 0x80, 0, 0, 0, 1, 0, 0, 0, 0];
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 8]);
        assert!(answers(&bytes).is_empty());
    }
}

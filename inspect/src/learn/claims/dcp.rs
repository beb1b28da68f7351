//! PROFINET DCP: under which name a device answers, of which type it is, and which address it has.

use std::net::{IpAddr, Ipv4Addr};

use super::{Attribute, Said};
use crate::bytes::Reader;

pub(super) const ETHER_TYPE: u16 = 0x8892;
/// What a station answers who is looked for by all.
const IDENTIFY_ANSWER: u16 = 0xfeff;
/// An answer that it could.
const SUCCESS: u8 = 1;

/// Its address, if it has one, and what it says.
pub(super) fn answer(bytes: &[u8]) -> (Option<IpAddr>, Said) {
    read(bytes).unwrap_or_default()
}

fn read(bytes: &[u8]) -> Option<(Option<IpAddr>, Said)> {
    let mut reader = Reader::new(bytes);
    let is_answer = reader.u16()? == IDENTIFY_ANSWER;
    reader.u8()?;
    let is_answer = is_answer && reader.u8()? == SUCCESS;
    // Which question it answers, and a reserved field.
    reader.take(6)?;
    let length = reader.u16().filter(|_| is_answer)?;
    // What follows pads the frame.
    let mut reader = Reader::new(reader.take(length.into())?);
    let (mut address, mut claims) = (None, Vec::new());
    while !reader.is_empty() {
        let (option, part) = (reader.u8()?, reader.u8()?);
        let length = usize::from(reader.u16()?);
        let block = reader.take(length)?;
        if length % 2 == 1 && !reader.is_empty() {
            reader.u8()?;
        }
        // Two bytes say of what kind the value is.
        let value = block.get(2..)?;
        match (option, part) {
            (1, 2) => {
                let found = Ipv4Addr::from(*value.first_chunk::<4>()?);
                address = (!found.is_unspecified()).then_some(IpAddr::V4(found));
            }
            (2, 1) => claims.push((Attribute::Model, value.to_vec())),
            (2, 2) => claims.push((Attribute::Name, value.to_vec())),
            _ => {}
        }
    }
    Some((address, claims))
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::*;

    pub(in super::super) fn example() -> Vec<u8> {
        let mut blocks = Vec::new();
        for (option, part, value) in [
            (2, 1, &b"S7-1500"[..]),
            (2, 2, b"plc-1"),
            (1, 2, &[10, 0, 0, 2, 255, 255, 255, 0, 0, 0, 0, 0]),
        ] {
            let length = u8::try_from(value.len() + 2).unwrap_or(0);
            blocks.extend([option, part, 0, length, 0, 0]);
            blocks.extend(value);
            if length % 2 == 1 {
                blocks.push(0);
            }
        }
        let length = u8::try_from(blocks.len()).unwrap_or(0);
        [&[0xfe, 0xff, 5, 1, 0, 0, 0, 1, 0, 0, 0, length][..], &blocks].concat()
    }

    #[test]
    fn an_answer_gives_name_type_and_address() {
        let (address, claims) = answer(&example());
        assert_eq!(address, Some(IpAddr::from([10, 0, 0, 2])));
        let expected = [
            (Attribute::Model, b"S7-1500".to_vec()),
            (Attribute::Name, b"plc-1".to_vec()),
        ];
        assert_eq!(claims, expected);
        // Bytes that pad the frame say nothing.
        assert_eq!(answer(&[example(), vec![2, 2, 0]].concat()), (address, claims));
    }
}

//! BACnet I-Am: the number of a device in its network.

use super::{Attribute, Said};
use crate::bytes::Reader;

pub(super) const PORT: u16 = 47_808;
/// The type of an object that is a device.
const DEVICE: u32 = 8;

/// What one whole I-Am says of who sent it; nothing if it comes from behind a router, since then it is of another machine.
pub(super) fn i_am(bytes: &[u8]) -> Said {
    read(bytes).map_or_else(Vec::new, |device| {
        vec![(Attribute::Name, format!("bacnet-{device}").into_bytes())]
    })
}

fn read(bytes: &[u8]) -> Option<u32> {
    let mut reader = Reader::new(bytes);
    // BACnet/IP, to one or to all.
    let is_bacnet = reader.u8()? == 0x81 && matches!(reader.u8()?, 0x0a | 0x0b);
    let is_whole = is_bacnet && usize::from(reader.u16()?) == bytes.len() && reader.u8()? == 1;
    let control = reader.u8().filter(|_| is_whole)?;
    let (is_message, has_destination, has_source) =
        (control & 0x80 != 0, control & 0x20 != 0, control & 0x08 != 0);
    if is_message || has_source {
        return None;
    }
    if has_destination {
        reader.u16()?;
        let length = reader.u8()?;
        // And how far it may go.
        reader.take(usize::from(length) + 1)?;
    }
    // An unconfirmed request, I-Am, and which object it is.
    if reader.take(3)? != [0x10, 0x00, 0xc4] {
        return None;
    }
    let object = reader.u32()?;
    // The longest request that it takes, whether in parts, and its vendor's number.
    let numbers = [0x20, 0x90, 0x20];
    for tag in numbers {
        let found = reader.u8()?;
        let length = usize::from(found & 0x07);
        reader
            .take(length)
            .filter(|_| found & 0xf8 == tag && (1..=4).contains(&length))?;
    }
    (reader.is_empty() && object >> 22 == DEVICE).then_some(object & 0x003f_ffff)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::*;

    pub(in super::super) fn example() -> Vec<u8> {
        vec![
            0x81, 0x0b, 0, 24, 1, 0x20, 0xff, 0xff, 0, 0xff, 0x10, 0, 0xc4, 0x02, 0x00, 0x04, 0xd2, 0x22,
            0x05, 0xc4, 0x91, 3, 0x21, 24,
        ]
    }

    #[test]
    fn an_i_am_names_its_device_and_one_from_behind_a_router_does_not() {
        assert_eq!(i_am(&example()), [(Attribute::Name, b"bacnet-1234".to_vec())]);
        let mut routed = example();
        routed[5] = 0x28;
        routed.splice(9..9, [0, 5, 1, 7]);
        routed[3] += 4;
        assert!(i_am(&routed).is_empty());
    }
}

//! LLDP (IEEE 802.1AB): what a machine is called, what it is, and by which address it is managed.

use std::net::IpAddr;

use super::{Attribute, Said};
use crate::bytes::Reader;

pub(super) const ETHER_TYPE: u16 = 0x88cc;

/// The address by which it is managed, if it names one, and what it says.
pub(super) fn neighbour(bytes: &[u8]) -> (Option<IpAddr>, Said) {
    read(bytes).unwrap_or_default()
}

fn read(bytes: &[u8]) -> Option<(Option<IpAddr>, Said)> {
    let mut reader = Reader::new(bytes);
    let (mut address, mut claims) = (None, Vec::new());
    loop {
        let head = reader.u16()?;
        let value = reader.take(usize::from(head & 0x01ff))?;
        match head >> 9 {
            0 => return Some((address, claims)),
            5 => claims.push((Attribute::Name, value.to_vec())),
            6 => claims.push((Attribute::Model, value.to_vec())),
            8 if address.is_none() => address = managed_by(value),
            _ => {}
        }
    }
}

fn managed_by(value: &[u8]) -> Option<IpAddr> {
    // How long, of which family, the address.
    let address = match value {
        [5, 1, rest @ ..] => IpAddr::from(*rest.first_chunk::<4>()?),
        [17, 2, rest @ ..] => IpAddr::from(*rest.first_chunk::<16>()?),
        _ => return None,
    };
    (!address.is_unspecified()).then_some(address)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::*;

    pub(in super::super) fn example() -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, value) in [
            (1, &[4, 0, 0x0e, 0x8c, 1, 2, 3][..]),
            (5, b"switch-7"),
            (6, b"SCALANCE XC208"),
            (8, &[5, 1, 10, 0, 0, 7, 2, 0, 0, 0, 1, 0]),
            (0, b""),
        ] {
            bytes.extend([kind << 1, u8::try_from(value.len()).unwrap_or(0)]);
            bytes.extend(value);
        }
        bytes
    }

    #[test]
    fn a_neighbour_says_its_name_and_its_address() {
        let (address, claims) = neighbour(&example());
        assert_eq!(address, Some(IpAddr::from([10, 0, 0, 7])));
        let expected = [
            (Attribute::Name, b"switch-7".to_vec()),
            (Attribute::Model, b"SCALANCE XC208".to_vec()),
        ];
        assert_eq!(claims, expected);
    }
}

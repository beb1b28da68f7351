//! DHCP: the name under which a machine asks for its address.

use std::net::{IpAddr, Ipv4Addr};

use penstock_policy::terms::Mac;

use super::Subject;
use crate::bytes::Reader;

const COOKIE: u32 = 0x6382_5363;
const HOST_NAME: u8 = 12;
const REQUESTED: u8 = 50;
const MESSAGE: u8 = 53;
/// What a client wants to keep, and what a server grants.
const REQUEST: u8 = 3;
const ACKNOWLEDGED: u8 = 5;

/// Whose name it is, by the address that is asked for or given, and otherwise by its MAC address.
pub(super) fn host_name(bytes: &[u8]) -> Option<(Subject, Vec<u8>)> {
    let address = |at: usize| Some(Ipv4Addr::from(*bytes.get(at..)?.first_chunk::<4>()?));
    let is_ethernet = *bytes.get(1)? == 1 && *bytes.get(2)? == 6;
    let (own, given) = (address(12)?, address(16)?);
    let mac: [u8; 6] = *bytes.get(28..)?.first_chunk()?;
    let mut reader = Reader::new(bytes.get(236..)?);
    if reader.u32()? != COOKIE {
        return None;
    }
    let (mut name, mut requested, mut message) = (None, None, None);
    loop {
        let option = match reader.u8()? {
            0 => continue,
            255 => break,
            option => option,
        };
        let length = reader.u8()?;
        let value = reader.take(length.into())?;
        match option {
            HOST_NAME => name = Some(value.to_vec()),
            REQUESTED => requested = value.first_chunk::<4>().map(|address| Ipv4Addr::from(*address)),
            MESSAGE => message = value.first().copied(),
            _ => {}
        }
    }
    let address = match message? {
        REQUEST => requested.unwrap_or(own),
        ACKNOWLEDGED => given,
        _ => return None,
    };
    let subject = match address.is_unspecified() {
        false => Subject::Address(IpAddr::V4(address)),
        true => Subject::Mac(Some(Mac(mac)).filter(|_| is_ethernet)?),
    };
    Some((subject, name?))
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::*;

    pub(in super::super) fn example() -> Vec<u8> {
        let mut bytes = vec![1, 1, 6, 0];
        bytes.resize(28, 0);
        bytes.extend([0, 0x0e, 0x8c, 1, 2, 3]);
        bytes.resize(236, 0);
        bytes.extend(COOKIE.to_be_bytes());
        bytes.extend([MESSAGE, 1, REQUEST, REQUESTED, 4, 10, 0, 0, 9, HOST_NAME, 5]);
        bytes.extend(b"hmi-2");
        bytes.push(255);
        bytes
    }

    #[test]
    fn a_request_names_who_will_have_the_address() {
        let address = Subject::Address(IpAddr::from([10, 0, 0, 9]));
        assert_eq!(host_name(&example()), Some((address, b"hmi-2".to_vec())));
        let mut unknown = example();
        unknown.splice(243..249, []);
        let mac = Subject::Mac(Mac([0, 0x0e, 0x8c, 1, 2, 3]));
        assert_eq!(host_name(&unknown), Some((mac, b"hmi-2".to_vec())));
        // A client that only looks around.
        let mut discover = example();
        discover[242] = 1;
        assert_eq!(host_name(&discover), None);
    }
}

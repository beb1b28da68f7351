//! Which MAC addresses the kernel knows behind which addresses, as it found them for packets that it sent on. Only reads: no neighbour is asked for it.

use std::io;
use std::net::IpAddr;

use penstock_policy::terms::Mac;

use super::routing::PATIENCE;
use crate::enforce::nft::netlink::{DONE, DUMP, ERROR, NetlinkSocket, ROUTE, attributes, message, messages};

// linux/rtnetlink.h, linux/neighbour.h.
const GET_NEIGHBOUR: u16 = 30;
const DESTINATION: u16 = 1;
const LINK_ADDRESS: u16 = 2;
const CACHE_INFO: u16 = 3;
/// `NUD_REACHABLE`, `NUD_STALE`, `NUD_DELAY`, `NUD_PROBE`: it has answered once. What people set by hand is no answer.
const ANSWERED: u16 = 0x02 | 0x04 | 0x08 | 0x10;
/// Bytes of a neighbour message's header behind the part that all messages have.
const HEADER_REST: usize = 8;
const BUFFER_BYTES: usize = 32 * 1024;
/// What the kernel counts time in for programs, milliseconds.
const TICK_MS: u64 = 10;

/// A neighbour that has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KernelNeighbour {
    /// Its address.
    pub(crate) address: IpAddr,
    /// Its MAC address.
    pub(crate) mac: Mac,
    /// The number of the interface.
    pub(crate) interface: u32,
    /// How long ago it was last known to be there, milliseconds.
    pub(crate) ago_ms: u64,
}

/// Reads them, and hands each on.
///
/// # Errors
/// The kernel cannot be asked.
pub(crate) fn read(mut each: impl FnMut(KernelNeighbour)) -> io::Result<()> {
    let socket = NetlinkSocket::open(ROUTE, 0, 1 << 20)?;
    socket.limit_wait(PATIENCE)?;
    socket.send(&message(GET_NEIGHBOUR, DUMP, &[0; 12], &[]))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        for message in messages(socket.receive(&mut buffer)?) {
            match message.kind {
                DONE => return Ok(()),
                ERROR => return Err(io::Error::from_raw_os_error(message.error_number())),
                _ => neighbour(message.payload).into_iter().for_each(&mut each),
            }
        }
    }
}

fn neighbour(payload: &[u8]) -> Option<KernelNeighbour> {
    let interface = u32::from_ne_bytes(*payload.first_chunk()?);
    let state = u16::from_ne_bytes(*payload.get(4..)?.first_chunk()?);
    let (mut address, mut mac, mut ago) = (None, None, 0);
    for (kind, value) in attributes(payload.get(HEADER_REST..)?) {
        match kind {
            DESTINATION => {
                let four = <[u8; 4]>::try_from(value).map(IpAddr::from);
                address = four
                    .or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from))
                    .ok();
            }
            LINK_ADDRESS => mac = <[u8; 6]>::try_from(value).ok(),
            // When it was confirmed, used and updated: one that only asked for this gateway itself updates its entry, and confirms nothing.
            CACHE_INFO => {
                let at = |at: usize| value.get(at..).and_then(|rest| rest.first_chunk());
                let number = |place| at(place).map_or(0, |bytes| u32::from_ne_bytes(*bytes));
                ago = number(0).min(number(8));
            }
            _ => {}
        }
    }
    let mac = mac.filter(|mac| *mac != [0; 6] && mac.first().is_some_and(|first| first & 1 == 0))?;
    (state & ANSWERED != 0).then_some(KernelNeighbour {
        address: address?,
        mac: Mac(mac),
        interface,
        ago_ms: u64::from(ago).saturating_mul(TICK_MS),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::enforce::nft::netlink::attribute;

    fn payload(state: u16, mac: &[u8]) -> Vec<u8> {
        let head = [&7_u32.to_ne_bytes()[..], &state.to_ne_bytes(), &[0, 1]].concat();
        let ago = [6_000_u32, 9, 300, 0].map(u32::to_ne_bytes).concat();
        let rest = [
            attribute(DESTINATION, &[10, 0, 0, 7]),
            attribute(LINK_ADDRESS, mac),
            attribute(CACHE_INFO, &ago),
        ];
        [head, rest.concat()].concat()
    }

    #[test]
    fn a_neighbour_counts_once_it_has_answered_and_not_where_people_set_it_by_hand() {
        let mac = [0, 0x1d, 0x9c, 0, 0, 7];
        let found = neighbour(&payload(0x04, &mac)).unwrap();
        assert_eq!((found.interface, found.ago_ms, found.mac), (7, 3_000, Mac(mac)));
        assert_eq!(found.address.to_string(), "10.0.0.7");
        for (state, mac) in [
            (0x80, &mac[..]),
            (0x20, &mac),
            (0x02, &[]),
            (0x02, &[0; 6]),
            (0x02, &[1, 0, 0, 0, 0, 1]),
        ] {
            assert_eq!(neighbour(&payload(state, mac)), None, "{state:#x} {mac:?}");
        }
        let whole = payload(0x02, &mac);
        for length in 0..whole.len() {
            assert_eq!(
                neighbour(&whole[..length])
                    .map(|one| one.mac)
                    .filter(|one| one.0 != mac),
                None
            );
        }
    }

    #[test]
    fn this_machines_neighbours_can_be_read() {
        read(|one| assert!(one.interface > 0)).unwrap();
    }
}

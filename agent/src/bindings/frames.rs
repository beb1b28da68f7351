//! Copies of the ARP and neighbour discovery that a bridged gateway's ports receive: the kernel of a bridge knows where a MAC address is, and not whose.
//!
//! One socket for each port, bound to it, so that a frame's port is known by its socket. They are read at each look, and no sooner: what does not fit
//! the kernel's queue until then is not learned this time.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;

use penstock_inspect::learn::macs::sighting;

use super::table::{SIGHTINGS_MAX, Sighting};
use crate::tap::filter::{INTERFACES_MAX, neighbour_program};
use crate::tap::socket::PacketSocket;

/// Bytes of a frame that are read.
const FRAME_BYTES: usize = 128;

/// The sockets, by the numbers of their ports.
#[derive(Debug, Default)]
pub(super) struct FrameSockets {
    open: BTreeMap<u32, PacketSocket>,
    /// Whether it was said that they cannot be opened.
    said: bool,
}

impl FrameSockets {
    /// What came since the last time, on these ports and no others.
    pub(super) fn drain(&mut self, interfaces: &BTreeMap<u32, String>, now_ms: u64) -> Vec<Sighting> {
        self.open.retain(|index, _| interfaces.contains_key(index));
        let mut sightings = Vec::new();
        let mut buffer = [0; FRAME_BYTES];
        for (index, name) in interfaces.iter().take(INTERFACES_MAX) {
            let Some(socket) = self.socket(*index, name) else {
                return sightings;
            };
            let end = loop {
                if sightings.len() >= SIGHTINGS_MAX {
                    break None;
                }
                match socket.receive(&mut buffer) {
                    Ok(length) => {
                        let frame = buffer.get(..length).unwrap_or(&buffer);
                        sightings.extend(sighting(frame).map(|(address, mac)| Sighting {
                            address,
                            mac,
                            interface: name.clone(),
                            at_ms: now_ms,
                        }));
                    }
                    Err(error) => break Some(error),
                }
            };
            // A port that went down says so here. Opening it again is never wrong.
            if end.is_some_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
                self.open.remove(index);
            }
        }
        sightings
    }

    fn socket(&mut self, index: u32, name: &str) -> Option<&PacketSocket> {
        let place = match self.open.entry(index) {
            Entry::Occupied(held) => return Some(held.into_mut()),
            Entry::Vacant(place) => place,
        };
        match PacketSocket::open_at(&neighbour_program(), index) {
            Ok(socket) => {
                tracing::info!(
                    interface = name,
                    "learning, passively, which MAC addresses are behind which addresses"
                );
                Some(place.insert(socket))
            }
            Err(error) => {
                if !std::mem::replace(&mut self.said, true) {
                    tracing::info!(%error, "which MAC addresses are behind which addresses is not learned: the agent may not open packet sockets (penstock-agent-tap.conf)");
                }
                None
            }
        }
    }
}

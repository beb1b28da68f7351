//! Which MAC address is behind which address, and whether it can be written down as an asset's own.
//!
//! Only what comes from the machine itself counts: ARP and neighbour discovery, which no router passes on, and IP packets that no router has
//! passed on yet. Even so a MAC address that stands for several addresses of one family may be a router's, a proxy's or a server's with many
//! services: it is never proposed. Nor is one that may stand for another machine tomorrow: a virtual one (VRRP, HSRP, GLBP) or one that
//! its machine chose by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use penstock_policy::terms::Mac;

use crate::capture::{Frame, link::is_group};

/// Addresses that are remembered.
const ADDRESSES_MAX: usize = 65_536;
/// MAC addresses of one address, and addresses of one MAC address, that are remembered: more make it no clearer.
const EACH_MAX: usize = 8;
/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;
/// What machines write into a packet as the number of routers that it may pass.
const FRESH: [u8; 3] = [64, 128, 255];
/// Prefixes of MAC addresses that a redundant pair shares.
const VIRTUAL: [(&[u8], &str); 6] = [
    (&[0x00, 0x00, 0x5e, 0x00, 0x01], "VRRP"),
    (&[0x00, 0x00, 0x5e, 0x00, 0x02], "VRRP"),
    (&[0x00, 0x00, 0x0c, 0x07, 0xac], "HSRP"),
    (&[0x00, 0x00, 0x0c, 0x9f], "HSRP"),
    (&[0x00, 0x05, 0x73, 0xa0], "HSRP"),
    (&[0x00, 0x07, 0xb4, 0x00], "GLBP"),
];

/// Which MAC addresses were seen behind which addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenMacs {
    by_address: BTreeMap<IpAddr, BTreeSet<Mac>>,
    by_mac: BTreeMap<Mac, BTreeSet<IpAddr>>,
    /// In which VLANs, of those that were seen in a tagged frame.
    by_vlan: BTreeMap<IpAddr, BTreeSet<u16>>,
}

/// Why a MAC address that was seen is not proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MacDoubt {
    /// Behind the same address more than one was seen, perhaps in several VLANs.
    Several(Vec<Mac>, Vec<u16>),
    /// It was seen behind another address, too, which is none of the same machine's.
    Shared(Mac, IpAddr),
    /// It belongs to a redundant pair, by this protocol.
    Virtual(Mac, &'static str),
    /// Its machine chose it by itself: it may choose another.
    Local(Mac),
}

impl fmt::Display for MacDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Several(macs, vlans) => {
                let macs: Vec<String> = macs.iter().map(Mac::to_string).collect();
                let macs = macs.join(" and ");
                if vlans.len() < 2 {
                    return write!(
                        f,
                        "{macs} were seen: a redundant pair, or two machines with one address"
                    );
                }
                let vlans: Vec<String> = vlans.iter().map(u16::to_string).collect();
                write!(
                    f,
                    "{macs} were seen, in VLANs {}: equal addresses may be two machines there, and what both do is proposed as one's; record \
                     each VLAN by itself",
                    vlans.join(" and ")
                )
            }
            Self::Shared(mac, other) => {
                write!(
                    f,
                    "{mac} was seen, which stands for {other} too: it may be a router's"
                )
            }
            Self::Virtual(mac, protocol) => {
                write!(
                    f,
                    "{mac} was seen, which a redundant pair shares ({protocol}) and moves between its machines"
                )
            }
            Self::Local(mac) => {
                write!(
                    f,
                    "{mac} was seen, which its machine chose by itself, at random perhaps, and may change"
                )
            }
        }
    }
}

impl SeenMacs {
    /// Adds one.
    pub fn add(&mut self, address: IpAddr, mac: Mac) {
        if !self.by_address.contains_key(&address) && self.by_address.len() >= ADDRESSES_MAX {
            return;
        }
        let macs = self.by_address.entry(address).or_default();
        if macs.len() < EACH_MAX {
            macs.insert(mac);
        }
        if self.by_mac.len() < ADDRESSES_MAX || self.by_mac.contains_key(&mac) {
            let addresses = self.by_mac.entry(mac).or_default();
            if addresses.len() < EACH_MAX {
                addresses.insert(address);
            }
        }
    }

    /// Adds what a recorded frame shows.
    pub(crate) fn frame(&mut self, frame: &Frame<'_>) {
        if frame.link_type == ETHERNET
            && let Some((address, mac)) = sighting(frame.bytes)
        {
            self.add(address, mac);
            // The outer tag is the provider's, where there are two: it tells machines apart as well.
            if let Some([_, _, high, low]) = array::<4>(frame.bytes, 12).filter(|tag| is_tag(tag))
                && (self.by_vlan.len() < ADDRESSES_MAX || self.by_vlan.contains_key(&address))
            {
                let vlans = self.by_vlan.entry(address).or_default();
                let vlan = u16::from_be_bytes([high & 0x0f, low]);
                if vlan > 0 && vlans.len() < EACH_MAX {
                    vlans.insert(vlan);
                }
            }
        }
    }

    /// The addresses that were seen behind a MAC address.
    pub fn behind(&self, mac: Mac) -> impl Iterator<Item = IpAddr> + '_ {
        self.by_mac.get(&mac).into_iter().flatten().copied()
    }

    /// The MAC address of the machine that has these addresses and no others, or why it is in doubt; `None`: none was seen.
    pub fn of(&self, own: &BTreeSet<IpAddr>) -> Option<Result<Mac, MacDoubt>> {
        let macs: BTreeSet<Mac> = own
            .iter()
            .filter_map(|address| self.by_address.get(address))
            .flatten()
            .copied()
            .collect();
        let mac = *macs.first()?;
        if macs.len() > 1 {
            let vlans: BTreeSet<u16> = own
                .iter()
                .filter_map(|address| self.by_vlan.get(address))
                .flatten()
                .copied()
                .collect();
            return Some(Err(MacDoubt::Several(
                macs.into_iter().collect(),
                vlans.into_iter().collect(),
            )));
        }
        let of_family = |other: &&IpAddr| own.iter().any(|one| one.is_ipv4() == other.is_ipv4());
        let mut others = self.by_mac.get(&mac).into_iter().flatten().filter(of_family);
        if let Some(other) = others.find(|other| !own.contains(other)) {
            return Some(Err(MacDoubt::Shared(mac, *other)));
        }
        let mut known = VIRTUAL.iter();
        Some(match known.find(|(prefix, _)| mac.0.starts_with(prefix)) {
            Some((_, protocol)) => Err(MacDoubt::Virtual(mac, protocol)),
            None if mac.0.first().is_some_and(|first| first & 2 != 0) => Err(MacDoubt::Local(mac)),
            None => Ok(mac),
        })
    }
}

/// Who sent an Ethernet frame, by both addresses, if it came from that machine itself.
pub fn sighting(frame: &[u8]) -> Option<(IpAddr, Mac)> {
    let sender = array::<6>(frame, 6)?;
    let mac = Mac(sender);
    let is_single = sender[0] & 1 == 0 && sender != [0; 6];
    let mut at = 12;
    let mut kind = array::<2>(frame, at)?;
    for _ in 0..2 {
        if is_tag(&kind) {
            at += 4;
            kind = array(frame, at)?;
        }
    }
    let packet = frame.get(at + 2..)?;
    let address = match kind {
        // Of Ethernet and IPv4; the sender that it names has to be the frame's own.
        [0x08, 0x06] if array(packet, 0)? == [0, 1, 8, 0, 6, 4] && array(packet, 8)? == sender => {
            IpAddr::from(array::<4>(packet, 14)?)
        }
        [0x08, 0x00] if packet.first()? >> 4 == 4 && FRESH.contains(packet.get(8)?) => {
            IpAddr::from(array::<4>(packet, 12)?)
        }
        [0x86, 0xdd] if packet.first()? >> 4 == 6 && FRESH.contains(packet.get(7)?) => {
            IpAddr::from(array::<16>(packet, 8)?)
        }
        _ => return None,
    };
    (is_single && can_be_an_assets(address)).then_some((address, mac))
}

/// Whether these bytes begin with the type of a VLAN's tag.
fn is_tag(bytes: &[u8]) -> bool {
    matches!(bytes, [0x81, 0x00, ..] | [0x88, 0xa8, ..])
}

fn can_be_an_assets(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(is_link_local || is_group(address) || address.is_unspecified() || address.is_loopback())
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const PLC: [u8; 6] = [0x00, 0x1d, 0x9c, 0, 0, 7];
    const ROUTER: [u8; 6] = [0x00, 0x1d, 0x9c, 0, 0, 1];

    fn ethernet(sender: [u8; 6], kind: [u8; 2], packet: &[u8]) -> Vec<u8> {
        [&[0xff; 6][..], &sender, &kind, packet].concat()
    }

    fn arp(sender: [u8; 6], named: [u8; 6], address: [u8; 4]) -> Vec<u8> {
        let packet = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &named, &address, &[0; 10]].concat();
        ethernet(sender, [8, 6], &packet)
    }

    fn ip(sender: [u8; 6], hops: u8, address: [u8; 4]) -> Vec<u8> {
        let packet = [
            &[0x45, 0, 0, 20, 0, 0, 0, 0, hops, 6, 0, 0][..],
            &address,
            &[10, 0, 0, 9],
        ]
        .concat();
        ethernet(sender, [8, 0], &packet)
    }

    fn one(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    fn seen(frames: &[Vec<u8>]) -> SeenMacs {
        let mut seen = SeenMacs::default();
        for bytes in frames {
            seen.frame(&Frame {
                number: 1,
                link_type: ETHERNET,
                at: std::time::Duration::ZERO,
                bytes,
                wire_bytes: bytes.len(),
            });
        }
        seen
    }

    fn of(seen: &SeenMacs, own: &[&str]) -> Option<Result<Mac, MacDoubt>> {
        seen.of(&own.iter().map(|address| one(address)).collect())
    }

    #[test]
    fn a_machine_is_known_by_its_arp_and_by_packets_that_no_router_has_passed_on() {
        let seen = seen(&[
            arp(PLC, PLC, [10, 0, 0, 7]),
            ip(PLC, 64, [10, 0, 0, 7]),
            ip(ROUTER, 63, [10, 9, 0, 5]),
        ]);
        assert_eq!(of(&seen, &["10.0.0.7"]), Some(Ok(Mac(PLC))));
        assert_eq!(of(&seen, &["10.9.0.5"]), None, "it is behind a router");
    }

    #[test]
    fn a_mac_address_that_stands_for_several_addresses_is_a_routers_and_never_proposed() {
        let seen = seen(&[ip(ROUTER, 64, [10, 9, 0, 5]), ip(ROUTER, 128, [10, 9, 0, 6])]);
        for own in ["10.9.0.5", "10.9.0.6"] {
            assert!(
                matches!(of(&seen, &[own]), Some(Err(MacDoubt::Shared(..)))),
                "{own}"
            );
        }
        assert_eq!(
            of(&seen, &["10.9.0.5", "10.9.0.6"]),
            Some(Ok(Mac(ROUTER))),
            "but for a machine that has both"
        );
    }

    #[test]
    fn an_address_of_either_family_does_not_make_a_machine_a_router() {
        let mut seen = seen(&[arp(PLC, PLC, [10, 0, 0, 7])]);
        seen.add(one("fd00::7"), Mac(PLC));
        assert_eq!(of(&seen, &["10.0.0.7"]), Some(Ok(Mac(PLC))));
        assert_eq!(of(&seen, &["fd00::7"]), Some(Ok(Mac(PLC))));
    }

    #[test]
    fn what_may_stand_for_another_machine_tomorrow_is_in_doubt() {
        for (mac, doubt) in [
            ([0x00, 0x00, 0x5e, 0x00, 0x01, 0x0a], "VRRP"),
            ([0x00, 0x00, 0x0c, 0x07, 0xac, 0x01], "HSRP"),
            ([0x00, 0x00, 0x0c, 0x9f, 0xf0, 0x01], "HSRP"),
            ([0x02, 0x70, 0x00, 0x00, 0x00, 0x07], "chose by itself"),
        ] {
            let seen = seen(&[arp(mac, mac, [10, 0, 0, 7])]);
            let said = of(&seen, &["10.0.0.7"]).unwrap().unwrap_err().to_string();
            assert!(said.contains(doubt), "{said}");
        }
        let pair = seen(&[arp(PLC, PLC, [10, 0, 0, 7]), arp(ROUTER, ROUTER, [10, 0, 0, 7])]);
        assert!(matches!(
            of(&pair, &["10.0.0.7"]),
            Some(Err(MacDoubt::Several(..)))
        ));
    }

    #[test]
    fn equal_addresses_in_two_vlans_are_said_to_be_two_machines() {
        let address = [10, 0, 0, 1];
        let tagged = |vlan: u8, sender: [u8; 6]| {
            let frame = ip(sender, 64, address);
            [&frame[..12], &[0x81, 0, 0x20, vlan], &frame[12..]].concat()
        };
        let other = [0x00, 0x0e, 0x8c, 0, 0, 9];
        let doubt = of(&seen(&[tagged(10, PLC), tagged(20, other)]), &["10.0.0.1"]);
        let words = doubt.unwrap().unwrap_err().to_string();
        assert!(
            words.contains("in VLANs 10 and 20: equal addresses may be two machines"),
            "{words}"
        );
        // One machine in a VLAN and, as a mirror port shows it, without its tag.
        let same = of(&seen(&[tagged(10, PLC), ip(PLC, 64, address)]), &["10.0.0.1"]);
        assert_eq!(same, Some(Ok(Mac(PLC))));
    }

    #[test]
    fn frames_that_say_nothing_of_their_sender_count_for_nothing() {
        let tagged = |frame: Vec<u8>| [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat();
        assert!(sighting(&tagged(arp(PLC, PLC, [10, 0, 0, 7]))).is_some());
        for silent in [
            arp(ROUTER, PLC, [10, 0, 0, 7]),
            arp(PLC, PLC, [0, 0, 0, 0]),
            arp(PLC, PLC, [169, 254, 0, 7]),
            ip(PLC, 64, [224, 0, 0, 1]),
            ip([1, 0, 0x5e, 0, 0, 1], 64, [10, 0, 0, 7]),
            ethernet(PLC, [0x88, 0xcc], &[0; 40]),
        ] {
            assert_eq!(sighting(&silent), None, "{silent:?}");
        }
        let whole = tagged(ip(PLC, 64, [10, 0, 0, 7]));
        for length in 0..whole.len() {
            // Cut anywhere, it is read as far as it goes.
            let _ = sighting(&whole[..length]);
        }
    }
}

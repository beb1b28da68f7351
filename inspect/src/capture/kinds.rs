//! What a frame is that carries neither IP nor ARP, by the name that people know it by.
//!
//! No flow can speak of such a frame: where a zone enforces, a bridged gateway lets cross beside IPv4, IPv6 and ARP what the `frames` of a
//! conduit permit, a routed one forwards only IP. What is in it is not read.

use std::fmt;

use penstock_policy::terms::{EtherType, FrameSeen};

use super::envelope::Envelope;
use super::file::Frame;

/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;

/// An Ethernet frame as a bridge sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BridgedFrame {
    /// The MAC address that it came from.
    pub sender: [u8; 6],
    /// What rules can ask of it; the APPID only of kinds that have one.
    pub seen: FrameSeen,
}

impl BridgedFrame {
    /// That of a recorded frame; `ignores_tags`: who recorded it has added its tags. `None`: it is none of Ethernet, or too short.
    pub fn of(frame: &Frame<'_>, ignores_tags: bool) -> Option<Self> {
        let bytes = frame.bytes;
        let word = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let destination = *bytes.first_chunk().filter(|_| frame.link_type == ETHERNET)?;
        let sender = *bytes.get(6..)?.first_chunk()?;
        let (mut at, mut ether_type, mut vlan) = (12, word(12)?, Some(0));
        while is_tag(ether_type) && (ignores_tags || at == 12) {
            // A rule can ask for one tag, of IEEE 802.1Q; what carries another, or more, fits none.
            let is_known = ether_type == 0x8100 && at == 12;
            vlan = Some(word(at + 2)? & 0x0fff).filter(|_| is_known);
            at += 4;
            ether_type = word(at)?;
        }
        let seen = FrameSeen {
            destination,
            vlan: match ignores_tags {
                true => Some(0),
                false => vlan.filter(|_| !is_tag(ether_type)),
            },
            ether_type,
            appid: word(at + 2).filter(|_| EtherType::try_from(ether_type).is_ok_and(EtherType::has_appid)),
        };
        Some(Self { sender, seen })
    }

    /// Whether it is for many at once.
    pub fn is_to_many(&self) -> bool {
        self.seen.destination.first().is_some_and(|first| first & 1 == 1)
    }

    /// Whether it is for who is at the other end of the cable: no bridge passes it on (IEEE 802.1Q, 8.6.3). Linux passes on what
    /// spanning trees say, unless it takes part in them itself.
    pub fn is_link_local(&self) -> bool {
        matches!(self.seen.destination, [0x01, 0x80, 0xc2, 0, 0, 0x01..=0x0f])
    }

    /// What kind it is of, where frames of that kind in that VLAN can be permitted at all.
    pub fn permittable(&self) -> Option<EtherType> {
        let kind = EtherType::try_from(self.seen.ether_type).ok()?;
        self.seen.vlan.is_some().then_some(kind)
    }
}

/// Types of VLANs' tags.
fn is_tag(ether_type: u16) -> bool {
    matches!(ether_type, 0x8100 | 0x88a8 | 0x9100 | 0x9200)
}

/// What a frame says that it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameKind {
    /// By its EtherType.
    EtherType(u16),
    /// IEEE 802.2, by the access point that it is for.
    Llc(u8),
    /// IEEE 802.2 with SNAP, by organisation and type.
    Snap(u32, u16),
    /// Control of a PPP link, by protocol.
    Ppp(u16),
}

/// A frame that carries neither IP nor ARP, with the tags before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NotIp {
    /// What it is.
    pub kind: FrameKind,
    /// The tags and labels that it came in.
    pub envelope: Envelope,
}

impl NotIp {
    /// By the least that tells it apart: without the tags and labels, and without what organisation says what it is.
    pub(crate) fn in_short(self) -> Self {
        const SNAP: u8 = 0xaa;
        let kind = match self.kind {
            FrameKind::Snap(..) => FrameKind::Llc(SNAP),
            other => other,
        };
        Self {
            kind,
            ..self.without_tags()
        }
    }

    /// The same without the tags and labels.
    pub(crate) fn without_tags(self) -> Self {
        Self {
            envelope: Envelope::default(),
            ..self
        }
    }
}

/// EtherTypes that plants have (IEEE and IANA registries).
const ETHER_TYPES: [(u16, &str); 36] = [
    (0x0842, "Wake-on-LAN"),
    (0x6002, "DEC MOP"),
    (0x8035, "RARP"),
    (0x80f3, "AppleTalk ARP"),
    (0x809b, "AppleTalk"),
    (0x8137, "IPX"),
    (0x814c, "SNMP over Ethernet"),
    (0x8808, "Ethernet flow control"),
    (0x8809, "Slow protocols (LACP, OAM)"),
    (0x8819, "CobraNet"),
    (0x8847, "MPLS"),
    (0x8848, "MPLS multicast"),
    (0x8863, "PPPoE discovery"),
    (0x8864, "PPPoE"),
    (0x886d, "Intel ANS"),
    (0x8870, "jumbo frames"),
    (0x887b, "HomePlug"),
    (0x888e, "EAPOL (IEEE 802.1X)"),
    (0x8892, "PROFINET RT"),
    (0x88a4, "EtherCAT"),
    (0x88ab, "Ethernet POWERLINK"),
    (0x88b8, "IEC 61850 GOOSE"),
    (0x88b9, "IEC 61850 GSE management"),
    (0x88ba, "IEC 61850 sampled values"),
    (0x88cc, "LLDP"),
    (0x88cd, "SERCOS III"),
    (0x88e1, "HomePlug AV"),
    (0x88e3, "MRP (IEC 62439-2)"),
    (0x88e5, "MACsec"),
    (0x88f7, "PTP (IEEE 1588)"),
    (0x88fb, "PRP supervision (IEC 62439-3)"),
    (0x8902, "connectivity fault management (IEEE 802.1ag)"),
    (0x8906, "Fibre Channel over Ethernet"),
    (0x892f, "HSR (IEC 62439-3)"),
    (0x9000, "loopback test"),
    (0x9021, "CC-Link IE"),
];

/// Access points of IEEE 802.2.
const ACCESS_POINTS: [(u8, &str); 6] = [
    (0x42, "spanning tree (STP, RSTP, MSTP)"),
    (0x06, "IP in IEEE 802.2"),
    (0xe0, "IPX"),
    (0xf0, "NetBIOS"),
    (0xfe, "OSI (IS-IS)"),
    (0xff, "IPX"),
];

/// Organisation and type of SNAP.
const SNAPS: [(u32, u16, &str); 8] = [
    (0, 0x0800, "IPv4 in LLC/SNAP"),
    (0, 0x0806, "ARP in LLC/SNAP"),
    (0, 0x86dd, "IPv6 in LLC/SNAP"),
    (0x0000_000c, 0x2000, "CDP"),
    (0x0000_000c, 0x010b, "PVST+"),
    (0x0000_000c, 0x0111, "UDLD"),
    (0x0000_000c, 0x2003, "VTP"),
    (0x0000_000c, 0x2004, "DTP"),
];

impl fmt::Display for FrameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EtherType(number) => {
                let known = ETHER_TYPES.iter().find(|(known, _)| known == number);
                let name = known.map_or("unknown frames", |(_, name)| name);
                write!(f, "{name} (EtherType {number:#06x})")
            }
            Self::Llc(point) => {
                let known = ACCESS_POINTS.iter().find(|(known, _)| known == point);
                let name = known.map_or("frames of IEEE 802.2", |(_, name)| name);
                write!(f, "{name} (LLC {point:#04x})")
            }
            Self::Snap(organisation, kind) => {
                let known = SNAPS
                    .iter()
                    .find(|(one, two, _)| (one, two) == (organisation, kind));
                let name = known.map_or("frames of IEEE 802.2", |(_, _, name)| name);
                write!(f, "{name} (SNAP {organisation:06x}, {kind:#06x})")
            }
            Self::Ppp(protocol) => write!(f, "control of a PPP link (protocol {protocol:#06x})"),
        }
    }
}

impl fmt::Display for NotIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.envelope.is_plain() {
            true => self.kind.fmt(f),
            false => write!(f, "{}, {}", self.kind, self.envelope),
        }
    }
}

/// What follows an Ethernet header with a length in place of a type (IEEE 802.2); `None`: too little of it is there.
pub(super) fn of_length(rest: &[u8]) -> Option<FrameKind> {
    match rest {
        [0xaa, 0xaa, 0x03, a, b, c, d, e, ..] => Some(FrameKind::Snap(
            u32::from_be_bytes([0, *a, *b, *c]),
            u16::from_be_bytes([*d, *e]),
        )),
        [point, _, ..] => Some(FrameKind::Llc(*point)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn kinds_are_named_as_people_know_them_and_unknown_ones_by_number() {
        let named = |kind: FrameKind| kind.to_string();
        assert_eq!(
            named(FrameKind::EtherType(0x8892)),
            "PROFINET RT (EtherType 0x8892)"
        );
        assert_eq!(
            named(FrameKind::EtherType(0x1234)),
            "unknown frames (EtherType 0x1234)"
        );
        let stp = of_length(&[0x42, 0x42, 3, 0]).unwrap();
        assert_eq!(named(stp), "spanning tree (STP, RSTP, MSTP) (LLC 0x42)");
        let cdp = of_length(&[0xaa, 0xaa, 3, 0, 0, 0xc, 0x20, 0]).unwrap();
        assert_eq!(named(cdp), "CDP (SNAP 00000c, 0x2000)");
        assert_eq!(of_length(&[0x42]), None);
    }

    #[test]
    fn no_kind_has_two_names() {
        for (at, (number, _)) in ETHER_TYPES.iter().enumerate() {
            assert!(
                !ETHER_TYPES.iter().skip(at + 1).any(|(other, _)| other == number),
                "{number:#x}"
            );
        }
    }
}

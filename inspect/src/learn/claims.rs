//! What machines say of themselves, and name services of others: names, makers, models, firmware.
//!
//! Anybody on the network can claim anything: nothing of it is trusted, decides about a flow, or finds a place in a document but as text that a
//! person reads, with where it comes from. A claim is short, has no character that a reader cannot see, and there are so many at most.
//!
//! Read are single packets, strictly: what is not of the protocol's form to its end, or is spread over several, claims nothing.

mod bacnet;
mod cip;
mod dcp;
mod dhcp;
mod dns;
mod lldp;
mod modbus;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use penstock_policy::terms::Mac;
use penstock_policy::text::{bounded, is_hidden};

use crate::capture::{Frame, Segment, link};

/// Machines of which claims are kept; of those that only a name server names, half as many, since anybody can ask it for names.
const SUBJECTS_MAX: usize = 16_384;
/// Claims of one of them; of what name servers answer half as many, so that what it says of itself finds room.
const EACH_MAX: usize = 16;
/// Bytes of one claim.
const TEXT_BYTES_MAX: usize = 64;
/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;

/// Of whom something is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Who has this address.
    Address(IpAddr),
    /// Who sends frames from this one.
    Mac(Mac),
}

/// What is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// What it is called.
    Name,
    /// Who made it.
    Vendor,
    /// What it is.
    Model,
    /// What runs on it.
    Firmware,
}

/// By what it is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimSource {
    /// Modbus, function 43/14.
    Modbus,
    /// EtherNet/IP, ListIdentity.
    Cip,
    /// I-Am.
    Bacnet,
    /// PROFINET.
    Dcp,
    /// IEEE 802.1AB.
    Lldp,
    /// What a client asks its address under.
    Dhcp,
    /// RFC 6762.
    Mdns,
    /// A server's answers.
    Dns,
    /// The prefix of its MAC address.
    MacPrefix,
}

impl fmt::Display for ClaimSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Modbus => "Modbus device identification",
            Self::Cip => "EtherNet/IP ListIdentity",
            Self::Bacnet => "BACnet I-Am",
            Self::Dcp => "PROFINET DCP",
            Self::Lldp => "LLDP",
            Self::Dhcp => "DHCP",
            Self::Mdns => "mDNS",
            Self::Dns => "DNS",
            Self::MacPrefix => "the prefix of its MAC address",
        })
    }
}

/// One claim.
pub type Claim = (Attribute, String, ClaimSource);

/// What a packet says, as it stands there.
type Said = Vec<(Attribute, Vec<u8>)>;

/// Claims by whom they are of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    by_subject: BTreeMap<Subject, BTreeSet<Claim>>,
    /// Claims that found no place.
    pub left_out: u64,
}

impl Claims {
    /// What is claimed of one.
    pub fn of(&self, subject: Subject) -> impl Iterator<Item = &Claim> {
        self.by_subject.get(&subject).into_iter().flatten()
    }

    /// Every name, with who is claimed to have it.
    pub fn names(&self) -> impl Iterator<Item = (Subject, &str)> {
        let all = self.by_subject.iter();
        let all = all.flat_map(|(subject, claims)| claims.iter().map(move |claim| (*subject, claim)));
        all.filter(|(_, (attribute, ..))| *attribute == Attribute::Name)
            .map(|(subject, (_, name, _))| (subject, name.as_str()))
    }

    /// What a TCP segment says: only a server's whole answer.
    pub(super) fn segment(&mut self, segment: &Segment<'_>) {
        let server = Subject::Address(segment.source.ip());
        match segment.source.port() {
            502 => self.take(
                server,
                ClaimSource::Modbus,
                modbus::identification(segment.payload),
            ),
            cip::PORT => self.take(server, ClaimSource::Cip, cip::identity(segment.payload)),
            _ => {}
        }
    }

    /// What a UDP datagram says, to whomever it goes.
    pub(super) fn datagram(&mut self, frame: &Frame<'_>) {
        let Some((source, destination, payload)) = link::datagram_payload(frame) else {
            return;
        };
        let sender = Subject::Address(source.ip());
        match (source.port(), destination.port()) {
            (dns::PORT, _) => self.named(ClaimSource::Dns, dns::answers(payload)),
            (dns::MULTICAST_PORT, _) => {
                // Of others it says nothing that it would have to know.
                let own = dns::answers(payload).into_iter();
                let own = own.filter(|(address, _)| *address == source.ip()).collect();
                self.named(ClaimSource::Mdns, own);
            }
            (67 | 68, 67 | 68) => {
                if let Some((subject, name)) = dhcp::host_name(payload) {
                    self.take(subject, ClaimSource::Dhcp, vec![(Attribute::Name, name)]);
                }
            }
            (cip::PORT, _) => self.take(sender, ClaimSource::Cip, cip::identity(payload)),
            (bacnet::PORT, _) => self.take(sender, ClaimSource::Bacnet, bacnet::i_am(payload)),
            _ => {}
        }
    }

    /// What a frame says that carries no IP.
    pub(super) fn frame(&mut self, frame: &Frame<'_>) {
        if frame.link_type != ETHERNET {
            return;
        }
        let Some((sender, ether_type, payload)) = ethernet(frame.bytes) else {
            return;
        };
        let (source, (address, claims)) = match ether_type {
            lldp::ETHER_TYPE => (ClaimSource::Lldp, lldp::neighbour(payload)),
            dcp::ETHER_TYPE => (ClaimSource::Dcp, dcp::answer(payload)),
            _ => return,
        };
        if let Some(address) = address {
            self.take(Subject::Address(address), source, claims.clone());
        }
        self.take(Subject::Mac(sender), source, claims);
    }

    fn named(&mut self, source: ClaimSource, names: Vec<(IpAddr, Vec<u8>)>) {
        for (address, name) in names {
            self.take(Subject::Address(address), source, vec![(Attribute::Name, name)]);
        }
    }

    fn take(&mut self, subject: Subject, source: ClaimSource, claims: Said) {
        for (attribute, text) in claims {
            let Some(text) = legible(&text) else { continue };
            let is_of_others = source == ClaimSource::Dns;
            let room = match is_of_others {
                true => SUBJECTS_MAX / 2,
                false => SUBJECTS_MAX,
            };
            let claim = (attribute, text, source);
            if let Some(known) = self.by_subject.get_mut(&subject) {
                let of_others = known.iter().filter(|(_, _, by)| *by == ClaimSource::Dns);
                let is_room = known.len() < EACH_MAX && !(is_of_others && of_others.count() >= EACH_MAX / 2);
                if is_room || known.contains(&claim) {
                    known.insert(claim);
                } else {
                    self.left_out += 1;
                }
            } else if self.by_subject.len() < room {
                self.by_subject.insert(subject, BTreeSet::from([claim]));
            } else {
                self.left_out += 1;
            }
        }
    }
}

/// Datagrams of these ports may say something.
pub(super) fn may_claim(source: SocketAddr) -> bool {
    matches!(
        source.port(),
        dns::PORT | dns::MULTICAST_PORT | 67 | 68 | cip::PORT | bacnet::PORT
    )
}

/// A text as people can read it: in one line, without what surrounds it; `None`: there is nothing to read.
fn legible(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.split(|byte| *byte == 0).next()?;
    let text = String::from_utf8_lossy(bytes);
    let text: String = text
        .chars()
        .map(|c| if is_hidden(c) || c.is_whitespace() { ' ' } else { c })
        .collect();
    let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
    let text = words.join(" ");
    let text = bounded(&text, TEXT_BYTES_MAX).trim_end();
    text.contains(char::is_alphanumeric).then(|| text.to_owned())
}

/// Who sent an Ethernet frame, and what it carries behind its tags.
fn ethernet(frame: &[u8]) -> Option<(Mac, u16, &[u8])> {
    let word = |at: usize| Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    let sender: [u8; 6] = *frame.get(6..)?.first_chunk()?;
    let mut at = 12;
    for _ in 0..2 {
        if matches!(word(at)?, 0x8100 | 0x88a8) {
            at += 4;
        }
    }
    let is_single = sender[0] & 1 == 0;
    is_single.then_some((Mac(sender), word(at)?, frame.get(at + 2..)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    /// Each reader, as it is called with what a packet carries.
    fn read_all(bytes: &[u8]) {
        let _ = modbus::identification(bytes);
        let _ = cip::identity(bytes);
        let _ = bacnet::i_am(bytes);
        let _ = dcp::answer(bytes);
        let _ = lldp::neighbour(bytes);
        let _ = dhcp::host_name(bytes);
        let _ = dns::answers(bytes);
        let _ = ethernet(bytes);
    }

    /// One packet of each kind that claims something.
    pub(super) fn examples() -> Vec<Vec<u8>> {
        vec![
            modbus::tests::example(),
            cip::tests::example(),
            bacnet::tests::example(),
            dcp::tests::example(),
            lldp::tests::example(),
            dhcp::tests::example(),
            dns::tests::example(),
        ]
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            read_all(&bytes);
        }

        #[test]
        fn neither_does_a_packet_with_a_changed_byte(which in 0..7_usize, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = examples()[which].clone();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            read_all(&bytes);
        }
    }

    #[test]
    fn a_packet_that_is_cut_short_anywhere_claims_nothing_or_less() {
        for example in examples() {
            for end in 0..example.len() {
                read_all(&example[..end]);
            }
        }
        let cut = |bytes: &[u8]| bytes[..bytes.len() - 1].to_vec();
        assert!(modbus::identification(&cut(&modbus::tests::example())).is_empty());
        assert!(cip::identity(&cut(&cip::tests::example())).is_empty());
        assert!(bacnet::i_am(&cut(&bacnet::tests::example())).is_empty());
        assert!(dns::answers(&cut(&dns::tests::example())).is_empty());
        assert!(dcp::answer(&cut(&dcp::tests::example())).1.is_empty());
    }

    #[test]
    fn claims_are_legible_short_and_so_many_at_most() {
        assert_eq!(
            legible(b"  S7-1500\r\n\x1b[31m \0rest").as_deref(),
            Some("S7-1500 [31m")
        );
        assert_eq!(legible("a\u{202e}b".as_bytes()).as_deref(), Some("a b"));
        assert_eq!(legible(&[b'x'; 300]).unwrap().len(), TEXT_BYTES_MAX);
        assert_eq!(legible(" --- ".as_bytes()), None);
        assert_eq!(legible(b""), None);
        let mut claims = Claims::default();
        let subject = Subject::Address("10.0.0.1".parse().unwrap());
        for number in 0..100 {
            let name = vec![(Attribute::Name, format!("name-{number}").into_bytes())];
            claims.take(subject, ClaimSource::Dns, name);
        }
        assert_eq!(claims.of(subject).count(), EACH_MAX / 2);
        assert_eq!(claims.left_out, 100 - 8);
        for number in 0..100 {
            let model = vec![(Attribute::Model, format!("model-{number}").into_bytes())];
            claims.take(subject, ClaimSource::Modbus, model);
        }
        assert_eq!(claims.of(subject).count(), EACH_MAX);
        assert_eq!(claims.left_out, 100 - 8 + 100 - 8);
        // Names that somebody asks a server for leave room for what machines say of themselves.
        for number in 0..20_000_u32 {
            let subject = Subject::Address(std::net::Ipv4Addr::from(0x0a01_0000 + number).into());
            let name = vec![(Attribute::Name, b"name".to_vec())];
            claims.take(subject, ClaimSource::Dns, name);
        }
        let late = Subject::Address("10.9.9.9".parse().unwrap());
        claims.take(late, ClaimSource::Dcp, vec![(Attribute::Name, b"plc".to_vec())]);
        assert_eq!(claims.of(late).count(), 1);
        assert_eq!(claims.by_subject.len(), SUBJECTS_MAX / 2 + 1);
    }
}

//! From a captured packet to the TCP segment or UDP datagram in it, or to the part of one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use etherparse::{
    IpNumber, Ipv6ExtensionSlice, LaxNetSlice, LaxSlicedPacket, TcpSlice, TransportSlice, UdpHeader, UdpSlice,
};

use super::carriers;
use super::envelope::Envelope;
use super::file::Frame;
use super::fragments::Fragment;
use super::kinds::NotIp;

/// A TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Who sent it.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// Sequence number of the first byte (of SYN, if it has one).
    pub sequence: u32,
    /// Acknowledgement number, if it has one.
    pub acknowledged: Option<u32>,
    /// SYN.
    pub syn: bool,
    /// FIN.
    pub fin: bool,
    /// RST.
    pub rst: bool,
    /// What was kept of the payload.
    pub payload: &'a [u8],
    /// Payload bytes that were on the wire and were not kept.
    pub missing_bytes: usize,
    /// The tags and labels that it came in.
    pub envelope: Envelope,
}

/// A UDP datagram. What it says is nobody's concern here: no protocol over UDP is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it.
    pub source: SocketAddr,
    /// To whom: one machine, never a group.
    pub destination: SocketAddr,
    /// Payload bytes on the wire.
    pub payload_bytes: usize,
    /// The tags and labels that it came in.
    pub envelope: Envelope,
}

/// Why a packet is left aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum SkipReason {
    /// A link type that is not read.
    #[error("link type {0} is not read")]
    LinkType(u16),
    /// ARP.
    #[error("ARP")]
    Arp,
    /// Neither IP nor ARP: what else.
    #[error("{0}")]
    NotIp(NotIp),
    /// IP may be in it, and cannot be read: how it is carried.
    #[error("{0}")]
    Encapsulated(&'static str),
    /// IP that carries another protocol, by number.
    #[error("IP protocol {0}{of}, neither TCP nor UDP", of = protocol_name(*.0))]
    Protocol(u8),
    /// A datagram to many at once. A flow names machines, and a group lies on no side of a gateway: a routed one does not
    /// forward it, a bridged one takes it for misplaced (`verdict::Reason::Misplaced`).
    #[error("UDP to a multicast or broadcast address")]
    Group,
    /// A datagram by which an end goes on that did not begin, after a silence in which a gateway has forgotten who did.
    #[error(
        "UDP answers after a silence (30 s, or 120 s once both ends have talked on) in which a gateway forgets what they \
         answer: it takes them for conversations of their own, which no flow is proposed for"
    )]
    Late,
    /// A fragment of an IP packet, where none are put together.
    #[error("a fragment of an IP packet, which is not put together")]
    Fragment,
    /// Fragments of an IP packet that did not become whole.
    #[error("fragments of an IP packet of which others are missing")]
    FragmentsMissing,
    /// Fragments of an IP packet that two readers could put together differently.
    #[error(
        "fragments of an IP packet that contradict one another, which nobody should put together (RFC 5722)"
    )]
    FragmentsContradict,
    /// Headers that are wrong, or were cut off.
    #[error("headers that are wrong or cut off")]
    Headers,
}

impl SkipReason {
    /// The same without the tags and labels that the packet came in.
    pub(crate) fn without_tags(self) -> Self {
        match self {
            Self::NotIp(what) => Self::NotIp(what.without_tags()),
            other => other,
        }
    }

    /// Whether something could have been judged in the packet, had it been whole, or of a kind that is read.
    pub fn is_unread(self) -> bool {
        match self {
            // A tunnel: what is inside could be judged.
            Self::Protocol(4 | 41 | 47 | 50 | 51) => true,
            Self::Arp | Self::NotIp(_) | Self::Protocol(_) | Self::Group | Self::Late => false,
            Self::LinkType(_)
            | Self::Encapsulated(_)
            | Self::Fragment
            | Self::FragmentsMissing
            | Self::FragmentsContradict
            | Self::Headers => true,
        }
    }
}

/// What people call it: " (ICMP)".
fn protocol_name(protocol: u8) -> &'static str {
    match protocol {
        1 | 58 => " (ICMP)",
        2 => " (IGMP)",
        4 | 41 => " (a tunnel, IP in IP, whose content is not read)",
        47 => " (a tunnel, GRE, whose content is not read)",
        50 | 51 => " (a tunnel, IPsec, whose content is not read)",
        89 => " (OSPF)",
        112 => " (VRRP)",
        132 => " (SCTP)",
        _ => "",
    }
}

/// The ends of a packet that IP carries, whatever is in it.
pub fn ends(frame: &Frame<'_>) -> Option<(IpAddr, IpAddr)> {
    match carriers::network(frame).ok()?.net? {
        LaxNetSlice::Ipv4(ip) => Some((
            IpAddr::V4(ip.header().source_addr()),
            IpAddr::V4(ip.header().destination_addr()),
        )),
        LaxNetSlice::Ipv6(ip) => Some((
            IpAddr::V6(ip.header().source_addr()),
            IpAddr::V6(ip.header().destination_addr()),
        )),
        LaxNetSlice::Arp(_) => None,
    }
}

/// The ends of a UDP datagram and what it says, also of one to many at once; `None`: it is none, or not whole.
pub fn datagram_payload<'a>(frame: &Frame<'a>) -> Option<(SocketAddr, SocketAddr, &'a [u8])> {
    let (source, destination) = ends(frame)?;
    let packet = carriers::network(frame).ok()?;
    let Some(TransportSlice::Udp(udp)) = packet.transport else {
        return None;
    };
    let payload = udp.payload();
    let is_whole = usize::from(udp.length()) == UdpHeader::LEN + payload.len();
    is_whole.then(|| {
        (
            SocketAddr::new(source, udp.source_port()),
            SocketAddr::new(destination, udp.destination_port()),
            payload,
        )
    })
}

/// Whether a packet is of neighbour discovery (RFC 4861), or of who listens to which group (RFC 2710, 3810), which is settled between
/// neighbours as ARP is: no flow speaks of it.
pub fn is_discovery(frame: &Frame<'_>) -> bool {
    let transport = carriers::network(frame).ok().and_then(|packet| packet.transport);
    matches!(transport, Some(TransportSlice::Icmpv6(icmp)) if matches!(icmp.type_u8(), 130..=137 | 143))
}

/// What an ICMP or ICMPv6 packet is, as far as gateways tell such packets apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icmp {
    /// Asks for an echo.
    EchoRequest,
    /// Is one.
    EchoReply,
    /// Quotes what it could not carry further.
    Error,
    /// Anything else, redirects among it.
    Other,
}

/// What ICMP a packet is; `None` if it is none, or its type is not in the recording.
pub fn icmp(frame: &Frame<'_>) -> Option<Icmp> {
    let kind = match carriers::network(frame).ok()?.transport? {
        TransportSlice::Icmpv4(icmp) => match icmp.type_u8() {
            0 => Icmp::EchoReply,
            8 => Icmp::EchoRequest,
            3 | 11 | 12 => Icmp::Error,
            _ => Icmp::Other,
        },
        TransportSlice::Icmpv6(icmp) => match icmp.type_u8() {
            128 => Icmp::EchoRequest,
            129 => Icmp::EchoReply,
            1..=4 => Icmp::Error,
            _ => Icmp::Other,
        },
        _ => return None,
    };
    Some(kind)
}

/// What a packet brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// All of what IP carries.
    Whole(Transport<'a>),
    /// A part of it.
    Fragment(Fragment),
}

/// What IP carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport<'a> {
    /// A segment.
    Tcp(Segment<'a>),
    /// A datagram.
    Udp(Datagram),
}

/// The TCP segment in `frame`, if it has a whole one.
///
/// # Errors
/// The frame holds no TCP segment that can be read; the reason is counted.
pub fn segment<'a>(frame: &Frame<'a>) -> Result<Segment<'a>, SkipReason> {
    whole(packet(frame)?)
}

/// The same of a frame that is on its way through a gateway: what a tunnel in it carries is not looked at.
///
/// # Errors
/// As [`segment`].
pub fn segment_on_the_wire<'a>(frame: &Frame<'a>) -> Result<Segment<'a>, SkipReason> {
    whole(packet_of(carriers::on_the_wire(frame)?, frame)?)
}

fn whole(packet: Packet<'_>) -> Result<Segment<'_>, SkipReason> {
    match packet {
        Packet::Whole(Transport::Tcp(segment)) => Ok(segment),
        Packet::Whole(Transport::Udp(_)) => Err(SkipReason::Protocol(IpNumber::UDP.0)),
        Packet::Fragment(_) => Err(SkipReason::Fragment),
    }
}

/// Whether an address stands for many machines: no asset can have it. That of a single network's broadcast is known only
/// to who knows the network; in a frame, [`to_group`] knows it too.
pub fn is_group(address: IpAddr) -> bool {
    address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// The sender of a packet to many at once, which is no one's that [`is_discovery`] knows of; `None`: it is for one machine.
pub fn group_sender(frame: &Frame<'_>) -> Option<IpAddr> {
    let (source, destination) = ends(frame)?;
    let to_many = is_group(destination) || to_group(frame);
    (to_many && !is_discovery(frame)).then_some(source)
}

/// Whether the link carries `frame` to many at once, where it tells.
pub(super) fn to_group(frame: &Frame<'_>) -> bool {
    // What Linux says of a cooked packet: 1 is a broadcast, 2 a multicast.
    let cooked = |at: usize| matches!(frame.bytes.get(at), Some(1 | 2));
    match frame.link_type {
        1 => frame.bytes.first().is_some_and(|first| first & 1 == 1),
        113 => cooked(1),
        276 => cooked(10),
        _ => false,
    }
}

/// What `frame` brings.
///
/// # Errors
/// The frame holds no packet that can be read; the reason is counted.
pub fn packet<'a>(frame: &Frame<'a>) -> Result<Packet<'a>, SkipReason> {
    packet_of(carriers::opened(frame)?, frame)
}

fn packet_of<'a>(
    (packet, envelope): (LaxSlicedPacket<'a>, Envelope),
    frame: &Frame<'a>,
) -> Result<Packet<'a>, SkipReason> {
    let (source, destination, announced) = match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let bytes = usize::from(header.total_len()).checked_sub(header.slice().len());
            (
                IpAddr::V4(header.source_addr()),
                IpAddr::V4(header.destination_addr()),
                bytes,
            )
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let extensions = ip.extensions().slice().len();
            let bytes = usize::from(header.payload_length()).checked_sub(extensions);
            (
                IpAddr::V6(header.source_addr()),
                IpAddr::V6(header.destination_addr()),
                bytes,
            )
        }
        Some(LaxNetSlice::Arp(_)) => return Err(SkipReason::Arp),
        None => return Err(SkipReason::Headers),
    };
    let Some(ip_payload) = packet.ip_payload() else {
        return Err(SkipReason::Headers);
    };
    if ip_payload.fragmented {
        let net = packet.net.as_ref().ok_or(SkipReason::Headers)?;
        let mut found = fragment(net, ip_payload.payload).ok_or(SkipReason::Headers)?;
        found.envelope = envelope;
        return Ok(Packet::Fragment(found));
    }
    // A length of 0 is what segmentation offload leaves behind: then the packet is as long as it is.
    let announced = announced
        .filter(|bytes| *bytes > 0)
        .unwrap_or(ip_payload.payload.len());
    let transport = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let mut segment = tcp_segment(source, destination, announced, tcp);
            segment.envelope = envelope;
            Transport::Tcp(segment)
        }
        Some(TransportSlice::Udp(udp)) => {
            let datagram = udp_datagram(source, destination, announced, udp);
            let mut datagram = datagram.ok_or(SkipReason::Headers)?;
            datagram.envelope = envelope;
            if is_group(destination) || to_group(frame) {
                return Err(SkipReason::Group);
            }
            Transport::Udp(datagram)
        }
        _ => {
            return Err(match ip_payload.ip_number {
                IpNumber::TCP | IpNumber::UDP => SkipReason::Headers,
                other => SkipReason::Protocol(other.0),
            });
        }
    };
    Ok(Packet::Whole(transport))
}

fn tcp_segment<'a>(source: IpAddr, destination: IpAddr, announced: usize, tcp: &TcpSlice<'a>) -> Segment<'a> {
    let payload = tcp.payload();
    let missing_bytes = announced
        .saturating_sub(tcp.header_slice().len())
        .saturating_sub(payload.len());
    Segment {
        source: SocketAddr::new(source, tcp.source_port()),
        destination: SocketAddr::new(destination, tcp.destination_port()),
        sequence: tcp.sequence_number(),
        acknowledged: tcp.ack().then(|| tcp.acknowledgment_number()),
        // SYN together with FIN or RST opens nothing (RFC 9293, 3.10.7): it is a probe, or noise.
        syn: tcp.syn() && !tcp.fin() && !tcp.rst(),
        fin: tcp.fin(),
        rst: tcp.rst(),
        payload,
        missing_bytes,
        envelope: Envelope::default(),
    }
}

/// `None`: its length is none that it can have, or it goes to port 0, where nothing listens.
fn udp_datagram(
    source: IpAddr,
    destination: IpAddr,
    announced: usize,
    udp: &UdpSlice<'_>,
) -> Option<Datagram> {
    let length = usize::from(udp.length());
    let payload_bytes = length.checked_sub(UdpHeader::LEN)?;
    (length <= announced && udp.destination_port() != 0).then(|| Datagram {
        source: SocketAddr::new(source, udp.source_port()),
        destination: SocketAddr::new(destination, udp.destination_port()),
        payload_bytes,
        envelope: Envelope::default(),
    })
}

/// The fragment in a packet with these headers, of which `rest` is what follows the headers that were read.
fn fragment(net: &LaxNetSlice<'_>, rest: &[u8]) -> Option<Fragment> {
    // What looks like further headers in a fragment may be anything: it all counts as its bytes.
    let whole = |announced: usize, headers: &[u8]| {
        let bytes = [headers, rest].concat();
        (bytes.len() == announced).then_some(bytes)
    };
    match net {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            let announced = usize::from(header.total_len()).checked_sub(header.slice().len())?;
            let read = ip.extensions().auth.as_ref().map_or(&[][..], |auth| auth.slice());
            Some(Fragment {
                source: IpAddr::V4(header.source_addr()),
                destination: IpAddr::V4(header.destination_addr()),
                identification: header.identification().into(),
                protocol: header.protocol().0,
                offset: header.fragments_offset().byte_offset().into(),
                more: header.more_fragments(),
                bytes: whole(announced, read),
                envelope: Envelope::default(),
            })
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            let extensions = ip.extensions();
            let mut before = 0;
            for extension in extensions.clone() {
                let (length, found) = match &extension {
                    Ipv6ExtensionSlice::Fragment(fragment) => (fragment.slice().len(), Some(fragment)),
                    Ipv6ExtensionSlice::Authentication(other) => (other.slice().len(), None),
                    Ipv6ExtensionSlice::HopByHop(other)
                    | Ipv6ExtensionSlice::Routing(other)
                    | Ipv6ExtensionSlice::DestinationOptions(other) => (other.slice().len(), None),
                };
                before += length;
                if let Some(fragment) = found {
                    let announced = usize::from(header.payload_length()).checked_sub(before)?;
                    return Some(Fragment {
                        source: IpAddr::V6(header.source_addr()),
                        destination: IpAddr::V6(header.destination_addr()),
                        identification: fragment.identification(),
                        protocol: fragment.next_header().0,
                        offset: fragment.fragment_offset().byte_offset().into(),
                        more: fragment.more_fragments(),
                        bytes: whole(announced, extensions.slice().get(before..)?),
                        envelope: Envelope::default(),
                    });
                }
            }
            None
        }
        LaxNetSlice::Arp(_) => None,
    }
}

//! The kernel's log messages (NFLOG): binding to a log group, and what a message tells. Parsing is pure.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::net::netdevice::index_to_name;

use crate::enforce::nft::names::{MARK_FLOW, prefix};
use crate::enforce::nft::netlink::{
    ACK, ERROR, Hearer, NETFILTER, NetlinkMessage, NetlinkSocket, attributes, be32, messages, request, text,
};

mod claim;
mod numbers;

pub use claim::NeighbourClaim;
pub use numbers::Numbers;

/// `NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET`.
const PACKET: u16 = 4 << 8;
/// `NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG`.
const CONFIG: u16 = (4 << 8) | 1;
/// What is kept unread before the kernel counts losses (`ENOBUFS`).
const RECEIVE_BYTES: usize = 4 << 20;
/// `NFULNL_CFG_F_SEQ`: number the messages, so that those that were lost are known by their numbers.
const NUMBERED: u16 = 1;
/// Log messages that the kernel gathers into one datagram.
const GATHER: u32 = 64;
/// How long it gathers at most, in hundredths of a second.
const GATHER_CENTISECONDS: u32 = 10;

/// What a log message says that the kernel did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KernelAction {
    /// Let the first packet of a connection through.
    Allow,
    /// The same, though the connection should have been inspected: there is no inspector.
    AllowUnread,
    /// Let a server's first packet through though its client has not spoken: the tables were new.
    Assumed,
    /// Reset a connection whose operations would have to be read from the middle.
    Cut,
    /// Dropped a packet.
    Deny,
    /// Let through what enforcement would drop.
    WouldDeny,
    /// Dropped a packet to the gateway itself.
    Input,
    /// Dropped a SYN in a client's name that would have ended the inspector's own connection.
    Swept,
}

/// What shows who opened a logged packet's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Opener {
    /// The packet, or the rule that logged it.
    #[default]
    Known,
    /// The plan: a server of its sent a datagram to its client.
    ByPlan,
    /// The ports of both ends.
    ByPorts,
    /// Nothing: it is named as it came.
    Unknown,
}

/// A logged packet, turned round if it was of the answering side: `source` is always who opened the connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LoggedPacket {
    /// What was done.
    pub logged: KernelAction,
    /// Number of the flow; 0 if none.
    pub flow: u32,
    /// Interface number (bridge port, if any) on the opener's side; 0 if unknown.
    pub ingress: u32,
    /// The other side's.
    pub egress: u32,
    /// What it carries.
    pub content: Content,
    /// The source's own port where the packet does not prove that the source opened the connection, until that is
    /// [settled](LoggedPacket::settled); else 0.
    pub own_port: u16,
    /// What tells that it did.
    pub opener: Opener,
    /// What of a neighbour's claim was wrong, and the MAC address that the frame came from.
    pub claim: Option<(NeighbourClaim, [u8; 6])>,
}

/// What was in a logged packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// IPv4 or IPv6.
    Ip {
        /// Who opened the connection, or sent the packet.
        source: IpAddr,
        /// To whom.
        destination: IpAddr,
        /// IP protocol number.
        protocol: u8,
        /// Destination port of TCP and UDP, else 0.
        port: u16,
        /// What of it decides beside its ends and ports.
        shape: PacketShape,
    },
    /// ARP: sender and target.
    Arp {
        /// Who sent it.
        source: Ipv4Addr,
        /// Who is looked for.
        destination: Ipv4Addr,
    },
    /// A frame of another type, or tagged.
    Frame {
        /// EtherType, behind the outermost tag.
        kind: u16,
        /// The VLAN of that tag, if there is one.
        vlan: Option<u16>,
    },
}

/// What of a packet decides beside its ends and ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacketShape {
    /// Nothing.
    Plain,
    /// It is a request of ICMP or ICMPv6 echo.
    Echo,
    /// It is an answer to one.
    EchoReply,
    /// It is another message of ICMP or ICMPv6.
    Icmp {
        /// Its type.
        kind: u8,
        /// Bytes of the whole packet.
        bytes: u16,
        /// The packet that an error quotes, if so much of it was copied.
        about: Option<About>,
    },
    /// An IPv6 extension header stands before what it carries: the first one's number.
    Behind(u8),
}

/// A packet that an ICMP error quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct About {
    /// Its sender, to whom the error is sent.
    pub source: IpAddr,
    /// To whom it was sent.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// The source and destination port of TCP and UDP, else 0.
    pub ports: (u16, u16),
}

/// A socket that hears one log group.
pub(in crate::enforce) fn listen(group: u16) -> io::Result<Hearer> {
    let socket = NetlinkSocket::open(NETFILTER, 0, RECEIVE_BYTES)?;
    socket.limit_wait(std::time::Duration::from_secs(5))?;
    let mode = [0, 0, 0xff, 0xff, 2, 0]; // Up to 65535 bytes (the rules say less), copy the packet.
    let commands: [(u16, &[u8]); 5] = [
        (1, &[1]), // NFULA_CFG_CMD: bind.
        (2, &mode),
        (4, &GATHER_CENTISECONDS.to_be_bytes()),
        (5, &GATHER.to_be_bytes()),
        (6, &NUMBERED.to_be_bytes()),
    ];
    let mut buffer = [0; 4096];
    for command in commands {
        socket.send(&request(CONFIG, ACK, 0, group, &[command]))?;
        for message in messages(socket.receive(&mut buffer)?) {
            if message.kind == ERROR && message.error_number() != 0 {
                return Err(io::Error::from_raw_os_error(message.error_number()));
            }
        }
    }
    socket.hear()
}

/// The name of an interface, if it still has one.
pub fn interface_name(index: u32) -> String {
    if index == 0 {
        return String::new();
    }
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    );
    socket
        .and_then(|socket| index_to_name(socket, index))
        .unwrap_or_else(|_| format!("#{index}"))
}

/// The logged packets of one datagram; messages of other origin are passed over.
pub fn packets(datagram: &[u8]) -> impl Iterator<Item = LoggedPacket> {
    messages(datagram).filter_map(|message| packet(&message))
}

fn packet(message: &NetlinkMessage<'_>) -> Option<LoggedPacket> {
    if message.kind != PACKET {
        return None;
    }
    let (mut kind, mut mark, mut payload, mut said, mut tag) = (0, 0, &[][..], String::new(), None);
    let (mut ingress, mut egress, mut port_in, mut port_out, mut mac) = (0, 0, 0, 0, None);
    for (attribute, value) in attributes(message.payload) {
        let number = || be32(value).unwrap_or_default();
        match attribute {
            1 => kind = value.first_chunk().map_or(0, |b| u16::from_be_bytes(*b)),
            2 => mark = number(),
            4 => ingress = number(),
            5 => egress = number(),
            6 => port_in = number(),
            7 => port_out = number(),
            8 => mac = value.get(4..).and_then(<[u8]>::first_chunk).copied(),
            9 => payload = value,
            10 => said = text(value),
            20 => tag = Some(tag_of(value)),
            _ => {}
        }
    }
    let claimed = NeighbourClaim::of(&said);
    let (logged, turned) = match said.as_str() {
        prefix::ALLOW => (KernelAction::Allow, false),
        prefix::ALLOW_REPLY => (KernelAction::Allow, true),
        prefix::ASSUMED => (KernelAction::Assumed, true),
        prefix::CUT => (KernelAction::Cut, false),
        prefix::CUT_REPLY => (KernelAction::Cut, true),
        prefix::UNATTENDED => (KernelAction::AllowUnread, false),
        prefix::UNATTENDED_REPLY => (KernelAction::AllowUnread, true),
        prefix::DENY => (KernelAction::Deny, false),
        prefix::DENY_REPLY => (KernelAction::Deny, true),
        prefix::WOULD_DENY => (KernelAction::WouldDeny, false),
        prefix::WOULD_DENY_REPLY => (KernelAction::WouldDeny, true),
        prefix::INPUT => (KernelAction::Input, false),
        prefix::SWEPT => (KernelAction::Swept, false),
        _ => (claimed?.0, false),
    };
    // Of a bridged packet the ports tell more than the bridge.
    let ingress = if port_in == 0 { ingress } else { port_in };
    let egress = if port_out == 0 { egress } else { port_out };
    let content = match tag {
        Some((VLAN_TAG, vlan)) => Content::Frame {
            kind,
            vlan: Some(vlan),
        },
        // What another tag than IEEE 802.1Q names is no VLAN that could be permitted.
        Some((kind, _)) => Content::Frame { kind, vlan: None },
        None => content(kind, payload),
    };
    let own_port = match logged {
        _ if matches!(claimed, Some((_, NeighbourClaim::Unbound))) => 0, // The MAC address is its sender's.
        KernelAction::Deny | KernelAction::WouldDeny => unproved(content, payload, turned),
        _ => 0, // The rule that logged it knows.
    };
    // An error is told by its own sender, whatever side of the connection it is about that one is on.
    let turned = turned && !is_icmp_message(&content);
    let content = if turned { turn(content, payload) } else { content };
    let (ingress, egress) = if turned {
        (egress, ingress)
    } else {
        (ingress, egress)
    };
    let flow = match logged {
        KernelAction::Allow | KernelAction::AllowUnread | KernelAction::Assumed => mark & MARK_FLOW,
        _ => 0,
    };
    Some(LoggedPacket {
        logged,
        flow,
        ingress,
        egress,
        content,
        own_port,
        opener: Opener::Known,
        claim: claimed.map(|(_, claim)| (claim, mac.unwrap_or_default())),
    })
}

/// The EtherType of a tag of IEEE 802.1Q.
const VLAN_TAG: u16 = 0x8100;

/// The EtherType and the VLAN of a tag that was taken off (`NFULA_VLAN_PROTO` and `NFULA_VLAN_TCI` of `NFULA_VLAN`).
fn tag_of(tag: &[u8]) -> (u16, u16) {
    let word = |number: u16| {
        let found = attributes(tag).find(|(attribute, _)| *attribute == number);
        found
            .and_then(|(_, value)| value.first_chunk().copied())
            .map(u16::from_be_bytes)
    };
    (word(1).unwrap_or(VLAN_TAG), word(2).unwrap_or(0) & 0x0fff)
}

/// The content of a packet by its EtherType.
pub fn content(kind: u16, payload: &[u8]) -> Content {
    let known = match kind {
        0x0800 => ipv4(payload),
        0x86dd => ipv6(payload),
        0x0806 => arp(payload),
        _ => None,
    };
    known.unwrap_or(Content::Frame { kind, vlan: None })
}

fn ipv4(bytes: &[u8]) -> Option<Content> {
    let header = bytes.first_chunk::<20>()?;
    let [first, _, long, short, .., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let protocol = *header.get(9)?;
    let fragment = u16::from_be_bytes(*header.get(6..)?.first_chunk()?) & 0x1fff;
    let rest = bytes
        .get(usize::from(first & 0xf) * 4..)
        .filter(|_| fragment == 0)
        .unwrap_or_default();
    Some(Content::Ip {
        source: Ipv4Addr::new(s0, s1, s2, s3).into(),
        destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
        protocol,
        port: service(protocol, rest),
        shape: shape(protocol, rest, u16::from_be_bytes([long, short])),
    })
}

fn ipv6(bytes: &[u8]) -> Option<Content> {
    let address =
        |at: usize| -> Option<IpAddr> { Some(Ipv6Addr::from(*bytes.get(at..)?.first_chunk::<16>()?).into()) };
    let (source, destination) = (address(8)?, address(24)?);
    let first = *bytes.get(6)?;
    let payload_bytes = u16::from_be_bytes(*bytes.get(4..)?.first_chunk()?);
    let (mut protocol, mut rest) = (first, bytes.get(40..)?);
    // Hop-by-hop, routing and destination options, at most as many as fit into what was copied.
    while let (0 | 43 | 60, [next, length, ..]) = (protocol, rest) {
        protocol = *next;
        rest = rest.get((usize::from(*length) + 1) * 8..).unwrap_or_default();
    }
    // A packet in fragments is whole again where it is judged, and shows what it carries.
    let shape = match first {
        _ if protocol != first => PacketShape::Behind(first),
        0 | 43 | 44 | 51 | 60 | 135 | 139 | 140 => PacketShape::Behind(first),
        _ => shape(protocol, rest, payload_bytes.saturating_add(40)),
    };
    Some(Content::Ip {
        source,
        destination,
        protocol,
        port: service(protocol, rest),
        shape,
    })
}

fn shape(protocol: u8, header: &[u8], bytes: u16) -> PacketShape {
    match (protocol, header) {
        (1, [8, ..]) | (58, [128, ..]) => PacketShape::Echo,
        (1, [0, ..]) | (58, [129, ..]) => PacketShape::EchoReply,
        (1 | 58, [kind, rest @ ..]) => PacketShape::Icmp {
            kind: *kind,
            bytes,
            about: rest
                .get(7..)
                .filter(|_| is_error(protocol, *kind))
                .and_then(about),
        },
        _ => PacketShape::Plain,
    }
}

/// Whether a message of ICMP (1) or ICMPv6 (58) quotes a packet.
pub(in crate::enforce) fn is_error(protocol: u8, kind: u8) -> bool {
    match protocol {
        1 => matches!(kind, 3 | 4 | 5 | 11 | 12),
        _ => matches!(kind, 1..=4),
    }
}

fn about(quoted: &[u8]) -> Option<About> {
    let family = match quoted.first()? >> 4 {
        4 => ipv4(quoted),
        _ => ipv6(quoted),
    };
    let Content::Ip {
        source,
        destination,
        protocol,
        port,
        ..
    } = family?
    else {
        return None;
    };
    let header = match source {
        IpAddr::V4(_) => usize::from(quoted.first()? & 0xf) * 4,
        IpAddr::V6(_) => 40,
    };
    let from = quoted.get(header..).and_then(<[u8]>::first_chunk);
    let from = from.map_or(0, |bytes| u16::from_be_bytes(*bytes));
    Some(About {
        source,
        destination,
        protocol,
        ports: (if port == 0 { 0 } else { from }, port),
    })
}

fn is_icmp_message(content: &Content) -> bool {
    matches!(
        content,
        Content::Ip {
            shape: PacketShape::Icmp { .. },
            ..
        }
    )
}

fn arp(bytes: &[u8]) -> Option<Content> {
    let address = |at: usize| Some(Ipv4Addr::from(*bytes.get(at..)?.first_chunk::<4>()?));
    Some(Content::Arp {
        source: address(14)?,
        destination: address(24)?,
    })
}

/// Destination port.
fn service(protocol: u8, header: &[u8]) -> u16 {
    let port = header.get(2..).and_then(<[u8]>::first_chunk);
    match protocol {
        6 | 17 => port.map_or(0, |bytes| u16::from_be_bytes(*bytes)),
        _ => 0,
    }
}

/// The header of TCP or UDP in a packet that is shown as this content.
fn ported(content: Content, payload: &[u8]) -> Option<&[u8]> {
    let Content::Ip { source, protocol, .. } = content else {
        return None;
    };
    let header = match source {
        IpAddr::V4(_) => payload.first().map_or(20, |first| usize::from(first & 0xf) * 4),
        IpAddr::V6(_) => 40,
    };
    payload.get(header..).filter(|_| matches!(protocol, 6 | 17))
}

/// The port of the end that is shown as the opener, where the packet is no opening.
fn unproved(content: Content, payload: &[u8], turned: bool) -> u16 {
    /// The flag SYN of TCP.
    const SYN: u8 = 2;
    let Content::Ip {
        protocol,
        port,
        shape: PacketShape::Plain,
        ..
    } = content
    else {
        return 0;
    };
    let Some(header) = ported(content, payload) else {
        return 0;
    };
    let opens = protocol == 6 && header.get(13).is_none_or(|flags| flags & SYN != 0);
    if opens {
        0
    } else if turned {
        port
    } else {
        header.first_chunk().map_or(0, |b| u16::from_be_bytes(*b))
    }
}

/// The content as its connection's opener would have sent it.
fn turn(content: Content, payload: &[u8]) -> Content {
    let port = ported(content, payload).and_then(<[u8]>::first_chunk);
    let port = port.map_or(0, |b| u16::from_be_bytes(*b));
    match content {
        Content::Ip {
            source,
            destination,
            protocol,
            shape,
            ..
        } => Content::Ip {
            source: destination,
            destination: source,
            protocol,
            port,
            shape,
        },
        other => other,
    }
}

#[cfg(test)]
mod tests;

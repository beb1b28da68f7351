//! Raw frames on one interface: made, sent and caught, so that a test says itself what every packet looks like.
#![allow(unsafe_code)] // One call: binding a packet socket to an interface, for which no safe wrapper is at hand.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use penstock_policy::verdict::Carried;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, netdevice, socket_with, sockopt};

/// A link-layer address.
use super::world::PATIENCE;

pub type Mac = [u8; 6];

/// A packet socket on one interface of the namespace it was opened in.
#[derive(Debug)]
pub struct Wire(File);

impl Wire {
    pub fn open(interface: &str) -> Self {
        let all = Protocol::from_raw(std::num::NonZeroU32::new(u32::from(0x0003_u16.to_be())).unwrap());
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd: OwnedFd = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, Some(all)).unwrap();
        let index = netdevice::name_to_index(&fd, interface).unwrap();
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: 0x0003_u16.to_be(),
            sll_ifindex: index as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the pointer is to a whole sockaddr_ll of the stated size, which outlives the call.
        let bound = unsafe {
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
        // In a user's namespace the system's limit holds.
        if sockopt::set_socket_recv_buffer_size_force(&fd, 16 << 20).is_err() {
            sockopt::set_socket_recv_buffer_size(&fd, 16 << 20).unwrap();
        }
        Self(File::from(fd))
    }

    pub fn send(&self, frame: &[u8]) {
        assert_eq!((&self.0).write(frame).unwrap(), frame.len());
    }

    /// One frame, if one is there.
    pub fn try_catch(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 4096];
        match (&self.0).read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                Some(buffer)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("cannot read frames: {error}"),
        }
    }

    /// Everything that comes within this time.
    pub fn catch_for(&self, time: Duration) -> Vec<Vec<u8>> {
        let end = Instant::now() + time;
        let mut frames = Vec::new();
        while Instant::now() < end {
            match self.try_catch() {
                Some(frame) => frames.push(frame),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        frames
    }

    /// Whether such a frame comes: one that is expected is waited for, and one that is not a little.
    pub fn catches(&self, expected: bool, is_it: impl Fn(&[u8]) -> bool) -> bool {
        let end = Instant::now()
            + if expected {
                PATIENCE
            } else {
                Duration::from_millis(60)
            };
        while Instant::now() < end {
            match self.try_catch() {
                Some(frame) if is_it(&frame) => return true,
                Some(_) => {}
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        false
    }
}

/// What a frame's packet is of: the opener's first word, or the answer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Opening,
    Answer,
    /// Later data of the opener (TCP: no SYN).
    Data,
    /// Data of the answering side (TCP: no SYN).
    Push,
    /// The answering side opens a connection from the very port that it answers on (TCP: SYN).
    Against,
}

impl Part {
    /// Whether the answering side sends it.
    pub fn is_of_server(self) -> bool {
        matches!(self, Self::Answer | Self::Push | Self::Against)
    }
}

/// One packet to be, by its connection's original tuple.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub transport: Carried,
    /// Source port or echo identifier: tells probes apart.
    pub number: u16,
    pub dscp: u8,
}

impl Probe {
    /// The IP packet.
    pub fn packet(&self, part: Part) -> Vec<u8> {
        let answer = part.is_of_server();
        let (from, to) = if answer {
            (self.destination, self.source)
        } else {
            (self.source, self.destination)
        };
        let v6 = from.is_ipv6();
        let ports = |port: u16| {
            let (s, d) = if answer {
                (port, self.number)
            } else {
                (self.number, port)
            };
            [s.to_be_bytes(), d.to_be_bytes()].concat()
        };
        let (protocol, mut body, checksum_at) = match self.transport {
            Carried::Tcp(port) => {
                let mut tcp = ports(port);
                let (seq, ack, flags): (u32, u32, u8) = match part {
                    Part::Opening => (1000, 0, 0x02),
                    Part::Answer => (5000, 1001, 0x12),
                    Part::Data => (1001, 5001, 0x10),
                    Part::Push => (5001, 1001, 0x18),
                    Part::Against => (9000, 0, 0x02),
                };
                tcp.extend(seq.to_be_bytes());
                tcp.extend(ack.to_be_bytes());
                tcp.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
                (6, tcp, Some(16))
            }
            Carried::Udp(port) => {
                let mut udp = ports(port);
                udp.extend([0, 12, 0, 0]);
                udp.extend(*b"test");
                (17, udp, Some(6))
            }
            Carried::IcmpEcho => {
                let kind = match (v6, answer) {
                    (false, false) => 8,
                    (false, true) => 0,
                    (true, false) => 128,
                    (true, true) => 129,
                };
                let mut echo = vec![kind, 0, 0, 0];
                echo.extend(self.number.to_be_bytes());
                echo.extend([0, 1]);
                (if v6 { 58 } else { 1 }, echo, Some(2))
            }
            Carried::Other(protocol) => {
                let mut other = vec![0, 0];
                other.extend(self.number.to_be_bytes());
                other.extend([0; 12]);
                (protocol, other, None)
            }
        };
        if let Some(at) = checksum_at {
            let pseudo = if protocol == 1 {
                vec![]
            } else {
                pseudo(from, to, protocol, body.len())
            };
            let mut sum = checksum(&[&pseudo, &body]);
            if protocol == 17 && sum == 0 {
                sum = 0xffff;
            }
            body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        ip(from, to, protocol, self.dscp, &body)
    }
}

/// An IP packet around `body`.
pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, dscp: u8, body: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, dscp << 2];
            header.extend(u16::try_from(20 + body.len()).unwrap().to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            [header, body.to_vec()].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0x60 | (dscp >> 2), (dscp & 3) << 6, 0, 0];
            header.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
            header.extend([protocol, 64]);
            header.extend(from.octets());
            header.extend(to.octets());
            [header, body.to_vec()].concat()
        }
        _ => panic!("{from} and {to} are of different families"),
    }
}

/// The pseudo header that checksums of the upper layer cover.
pub fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let length = u32::try_from(length).unwrap().to_be_bytes();
    match (from, to) {
        (IpAddr::V4(f), IpAddr::V4(t)) => {
            [&f.octets()[..], &t.octets(), &[0, protocol], &length[2..]].concat()
        }
        (IpAddr::V6(f), IpAddr::V6(t)) => {
            [&f.octets()[..], &t.octets(), &length, &[0, 0, 0, protocol]].concat()
        }
        _ => panic!("{from} and {to} are of different families"),
    }
}

/// A copy of a frame with TCP whose checksum is true: of what the system itself sends, the card would have put it in.
pub fn copy_of(frame: &[u8]) -> Vec<u8> {
    let mut copy = frame.to_vec();
    let is_v6 = copy[14] >> 4 == 6;
    let body = 14 + if is_v6 { 40 } else { 4 * usize::from(copy[14] & 15) };
    let address = |at: usize| -> IpAddr {
        match is_v6 {
            true => <[u8; 16]>::try_from(&frame[at..at + 16]).unwrap().into(),
            false => <[u8; 4]>::try_from(&frame[at..at + 4]).unwrap().into(),
        }
    };
    let [from, to] = if is_v6 { [22, 38] } else { [26, 30] }.map(address);
    copy[body + 16..body + 18].fill(0);
    let sum = checksum(&[&pseudo(from, to, 6, copy.len() - body), &copy[body..]]);
    copy[body + 16..body + 18].copy_from_slice(&sum.to_be_bytes());
    copy
}

/// The Internet checksum (RFC 1071).
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Gives a packet another DSCP.
pub fn set_dscp(packet: &mut [u8], dscp: u8) {
    if packet[0] >> 4 == 6 {
        packet[0] = 0x60 | (dscp >> 2);
        packet[1] = (dscp & 3) << 6;
    } else {
        packet[1] = dscp << 2;
        packet[10..12].copy_from_slice(&[0, 0]);
        let sum = checksum(&[&packet[..20]]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// An Ethernet frame around an IP packet.
pub fn frame(from: Mac, to: Mac, packet: &[u8]) -> Vec<u8> {
    let kind: u16 = if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
    [&to[..], &from, &kind.to_be_bytes(), packet].concat()
}

/// What of a packet no router changes: by this a caught frame is known again.
pub fn essence(packet: &[u8]) -> Vec<u8> {
    if packet[0] >> 4 == 6 {
        [&packet[6..7], &packet[8..40], &packet[40..packet.len().min(48)]].concat()
    } else {
        [&packet[9..10], &packet[12..20], &packet[20..packet.len().min(28)]].concat()
    }
}

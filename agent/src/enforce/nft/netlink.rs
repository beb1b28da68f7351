//! Netlink to the kernel's packet filter and its routing: sockets, and the reading of messages and attributes.
//!
//! Reading is bounds-checked and never fails loudly: a message that is cut short ends the iteration. Only messages
//! from the kernel itself are given out (any process may send to a netlink socket).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recvfrom, sendto,
    socket_with, sockopt,
};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// The packet filter.
pub(in crate::enforce) const NETFILTER: Option<Protocol> = Some(rustix::net::netlink::NETFILTER);
/// Routing: the protocol of number 0.
pub(in crate::enforce) const ROUTE: Option<Protocol> = None;

/// `NLMSG_ERROR`: an error, or the acknowledgement of a request.
pub(in crate::enforce) const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub(in crate::enforce) const DONE: u16 = 3;
/// `NLM_F_REQUEST`.
pub(in crate::enforce) const REQUEST: u16 = 1;
/// `NLM_F_ACK`.
pub(in crate::enforce) const ACK: u16 = 4;
/// `NLM_F_DUMP`.
pub(in crate::enforce) const DUMP: u16 = 0x300;
/// `NLM_F_DUMP_INTR`: the rules changed during the dump.
pub(in crate::enforce) const INTERRUPTED: u16 = 0x10;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of `struct nfgenmsg`, which follows it.
const GENERIC: usize = 4;

/// A netlink socket.
#[derive(Debug)]
pub(in crate::enforce) struct NetlinkSocket(OwnedFd);

impl NetlinkSocket {
    /// Opens one to a part of the kernel that hears `groups` (a bit per group) and keeps up to `buffer_bytes` unread. It
    /// blocks.
    pub(in crate::enforce) fn open(
        part: Option<Protocol>,
        groups: u32,
        buffer_bytes: usize,
    ) -> io::Result<Self> {
        let fd = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            part,
        )?;
        // Beyond the system's limit only with the right to; otherwise as much as the limit allows.
        if sockopt::set_socket_recv_buffer_size_force(&fd, buffer_bytes).is_err() {
            sockopt::set_socket_recv_buffer_size(&fd, buffer_bytes)?;
        }
        bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self(fd))
    }

    /// Gives up waiting for an answer after this long.
    pub(in crate::enforce) fn limit_wait(&self, limit: std::time::Duration) -> io::Result<()> {
        Ok(sockopt::set_socket_timeout(
            &self.0,
            sockopt::Timeout::Recv,
            Some(limit),
        )?)
    }

    /// Sends one request to the kernel.
    pub(in crate::enforce) fn send(&self, message: &[u8]) -> io::Result<()> {
        sendto(
            &self.0,
            message,
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        Ok(())
    }

    /// Receives one datagram of the kernel into `buffer`. `ENOBUFS` says that earlier ones were lost.
    pub(in crate::enforce) fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let length = receive(&self.0, buffer)?;
        Ok(buffer.get(..length).unwrap_or_default())
    }

    /// The socket as one that tasks wait for.
    pub(in crate::enforce) fn hear(self) -> io::Result<Hearer> {
        rustix::io::ioctl_fionbio(&self.0, true)?;
        // Tokio has no type for netlink sockets. Of the one for datagrams only the waiting is used, which is the same
        // for every socket.
        Ok(Hearer(UnixDatagram::from_std(self.0.into())?))
    }
}

/// A netlink socket that tasks wait for.
#[derive(Debug)]
pub(in crate::enforce) struct Hearer(UnixDatagram);

impl Hearer {
    /// Waits for the kernel's next datagram; its length. `ENOBUFS` says that earlier ones were lost.
    pub(in crate::enforce) async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.0.readable().await?;
            match self.0.try_io(Interest::READABLE, || receive(&self.0, buffer)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let (length, whole, from) = recvfrom(&socket, &mut *buffer, RecvFlags::TRUNC)?;
        let kernel = from
            .and_then(|from| SocketAddrNetlink::try_from(from).ok())
            .is_some_and(|address| address.pid() == 0);
        if !kernel {
            continue;
        }
        if whole > buffer.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a netlink message larger than its buffer",
            ));
        }
        return Ok(length);
    }
}

/// One message of a datagram.
#[derive(Debug, Clone, Copy)]
pub(in crate::enforce) struct NetlinkMessage<'a> {
    /// Subsystem and type (`NFNL_SUBSYS_… << 8 | …`), or one of the control types.
    pub kind: u16,
    /// Flags of the header.
    pub flags: u16,
    /// Protocol family (`NFPROTO_…`, `AF_…`) of the generic header.
    pub family: u8,
    /// What follows the headers of the packet filter's messages (those of routing are longer). Of an [`ERROR`] it begins with the negative error number.
    pub payload: &'a [u8],
}

impl NetlinkMessage<'_> {
    /// The error number of an [`ERROR`] message; 0 acknowledges.
    pub(in crate::enforce) fn error_number(&self) -> i32 {
        self.payload
            .first_chunk()
            .map_or(0, |bytes| i32::from_ne_bytes(*bytes).wrapping_neg())
    }
}

/// The messages of one datagram.
pub(in crate::enforce) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = NetlinkMessage<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(datagram, 0)? as usize;
        let message = datagram.get(..length)?;
        let kind = u16_at(message, 4)?;
        let flags = u16_at(message, 6)?;
        let next = length.next_multiple_of(4).min(datagram.len());
        datagram = datagram.get(next..)?;
        if kind == ERROR || kind == DONE {
            let payload = message.get(HEADER..)?;
            return Some(NetlinkMessage {
                kind,
                flags,
                family: 0,
                payload,
            });
        }
        let family = *message.get(HEADER)?;
        let payload = message.get(HEADER + GENERIC..)?;
        Some(NetlinkMessage {
            kind,
            flags,
            family,
            payload,
        })
    })
}

/// The attributes of a payload: type (without its flags) and value.
pub(in crate::enforce) fn attributes(mut payload: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(payload, 0)?);
        let kind = u16_at(payload, 2)? & 0x3fff;
        let value = payload.get(4..length)?;
        payload = payload.get(length.next_multiple_of(4).min(payload.len())..)?;
        Some((kind, value))
    })
}

/// One attribute, padded to where the next may begin.
pub(in crate::enforce) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    // Values here are names, numbers and single elements, of some hundred bytes at most.
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(value.len() + 8);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A request to the packet filter: headers and attributes.
pub(in crate::enforce) fn request(
    kind: u16,
    flags: u16,
    family: u8,
    resource: u16,
    attributes: &[(u16, &[u8])],
) -> Vec<u8> {
    let [high, low] = resource.to_be_bytes();
    message(kind, flags, &[family, 0, high, low], attributes)
}

/// A request with `header` behind the common one.
pub(in crate::enforce) fn message(
    kind: u16,
    flags: u16,
    header: &[u8],
    attributes: &[(u16, &[u8])],
) -> Vec<u8> {
    let mut message = vec![0; 4];
    message.extend(kind.to_ne_bytes());
    message.extend((flags | REQUEST).to_ne_bytes());
    message.extend([0; 8]); // Sequence and port: one request at a time, the kernel fills the port in.
    message.extend(header);
    for (kind, value) in attributes {
        message.extend(attribute(*kind, value));
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    if let Some(place) = message.first_chunk_mut() {
        *place = length.to_ne_bytes();
    }
    message
}

/// A big-endian number that is all of `value`.
pub(in crate::enforce) fn be32(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Text that ends at the first zero byte, with what is not text replaced.
pub(in crate::enforce) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_ne_bytes(*b))
}

//! The packet socket: copies of what the kernel received, and the kernel's count of those that found no room.
//!
//! One socket for all interfaces, because its queue keeps the order in which the two directions of a connection came;
//! which interfaces, the filter says. Others want one interface each ([`PacketSocket::open_at`]). It has no way to send: nothing here writes.
#![allow(unsafe_code)] // Five calls for which no safe wrapper is at hand, each with a structure of its own size.

use std::io;
use std::os::fd::AsRawFd as _;

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socket_with, sockopt};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::filter::Instruction;

/// What is kept unread before the kernel counts losses; it doubles this for its own needs.
const RECEIVE_BYTES: usize = 256 * 1024;
/// `ETH_P_ALL`: also what a bridge takes for itself.
const EVERYTHING: u16 = 3;

/// An open tap. Tokio has no type for packet sockets; of the one for datagrams only the waiting is used.
#[derive(Debug)]
pub(crate) struct PacketSocket(UnixDatagram);

impl PacketSocket {
    /// Opens it behind `filter`: not one packet comes that the filter has not seen.
    pub(super) fn open(filter: &[Instruction]) -> io::Result<Self> {
        Self::open_at(filter, 0)
    }

    /// The same for the interface of this number alone; 0: for all.
    pub(crate) fn open_at(filter: &[Instruction], interface: u32) -> io::Result<Self> {
        // Protocol 0 receives nothing until it is bound.
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        if sockopt::set_socket_recv_buffer_size_force(&fd, RECEIVE_BYTES).is_err() {
            sockopt::set_socket_recv_buffer_size(&fd, RECEIVE_BYTES)?;
        }
        let socket = Self(UnixDatagram::from_std(fd.into())?);
        socket.filter(filter)?;
        socket.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
        socket.bind(interface)?;
        Ok(socket)
    }

    /// From now on only what passes `filter`.
    pub(super) fn filter(&self, filter: &[Instruction]) -> io::Result<()> {
        let mut program: Vec<libc::sock_filter> = filter
            .iter()
            .map(|line| libc::sock_filter {
                code: line.code,
                jt: line.then,
                jf: line.otherwise,
                k: line.operand,
            })
            .collect();
        let program = libc::sock_fprog {
            len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            filter: program.as_mut_ptr(),
        };
        self.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
    }

    fn set<T>(&self, level: i32, name: i32, value: &T) -> io::Result<()> {
        let length = libc::socklen_t::try_from(size_of::<T>()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the pointer is to a whole `T` of the stated size, which outlives the call; the kernel copies it, and a
        // filter's instructions with it.
        let done = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                level,
                name,
                std::ptr::from_ref(value).cast(),
                length,
            )
        };
        checked(done)
    }

    fn bind(&self, interface: u32) -> io::Result<()> {
        let address = libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).unwrap_or_default(),
            sll_protocol: EVERYTHING.to_be(),
            sll_ifindex: i32::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput)?,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length =
            libc::socklen_t::try_from(size_of_val(&address)).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the pointer is to a whole sockaddr_ll of the stated size, which outlives the call.
        let done = unsafe { libc::bind(self.0.as_raw_fd(), (&raw const address).cast(), length) };
        checked(done)
    }

    /// What kind of link an interface is (`ARPHRD_…` of linux/if_arp.h).
    pub(super) fn link_type(&self, interface: &str) -> io::Result<u16> {
        let mut name = [0; libc::IFNAMSIZ];
        for (place, byte) in name.iter_mut().zip(interface.bytes()) {
            *place = libc::c_char::from_ne_bytes([byte]);
        }
        let none = libc::sockaddr {
            sa_family: 0,
            sa_data: [0; 14],
        };
        let mut request = libc::ifreq {
            ifr_name: name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_hwaddr: none },
        };
        // SAFETY: the pointer is to a whole ifreq, which outlives the call; the kernel writes no more than one.
        checked(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) })?;
        // SAFETY: this part of the union was written above, and by the kernel; it is plain numbers.
        Ok(unsafe { request.ifr_ifru.ifru_hwaddr.sa_family })
    }

    /// Waits until there may be packets.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.0.readable().await
    }

    /// The next packet's length on the wire; as much of it as fits is in `buffer`.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_io(Interest::READABLE, || {
            let (_, bytes) = recv(&self.0, &mut *buffer, RecvFlags::TRUNC)?;
            Ok(bytes)
        })
    }

    /// How many packets found no room since the last time this was asked.
    pub(super) fn take_missed(&self) -> u32 {
        let mut told = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let Ok(mut length) = libc::socklen_t::try_from(size_of_val(&told)) else {
            return 0;
        };
        // SAFETY: both pointers are to whole values that outlive the call, and the length is that of the first.
        let done = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut told).cast(),
                &raw mut length,
            )
        };
        if done == 0 { told.tp_drops } else { 0 }
    }
}

fn checked(done: i32) -> io::Result<()> {
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

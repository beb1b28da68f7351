//! The device of a tunnel: an interface whose packets come to the agent, and which ends with it.
#![allow(unsafe_code)] // Requests for which no safe wrapper is at hand, each with a structure of its own size.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::MTU;
use crate::enforce::ground::beyond::DEVICES;

// linux/if_tun.h: layer 3, without a header of the driver's own but the one that says what is left to a card ([`super::offload`]).
const SET_DEVICE: libc::Ioctl = 0x4004_54ca_u32 as libc::Ioctl;
const SET_OFFLOAD: libc::Ioctl = 0x4004_54d0_u32 as libc::Ioctl;
const SET_CARRIER: libc::Ioctl = 0x4004_54e2_u32 as libc::Ioctl;
const LAYER_3: libc::c_short = 0x0001 | 0x1000 | 0x4000;
/// Checksums, and streams over IPv4 and IPv6.
const OFFLOADED: libc::c_ulong = 0x01 | 0x02 | 0x04;

fn open() -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    options.open(DEVICES)
}

/// An interface of ours.
#[derive(Debug)]
pub(super) struct Device {
    name: String,
    file: AsyncFd<File>,
}

impl Device {
    /// Makes it, up and without carrier.
    pub(super) fn make(name: &str) -> io::Result<Self> {
        let file = open()?;
        let mut request = request(name);
        request.ifr_ifru.ifru_flags = LAYER_3;
        // SAFETY: the pointer is to a whole ifreq, which outlives the call.
        checked(unsafe { libc::ioctl(file.as_raw_fd(), SET_DEVICE, &raw mut request) })?;
        // SAFETY: this request takes a number, and no pointer.
        if let Err(error) = checked(unsafe { libc::ioctl(file.as_raw_fd(), SET_OFFLOAD, OFFLOADED) }) {
            tracing::debug!(%error, name, "the kernel gives each packet of a stream on its own");
        }
        // It has no address of its own, and asks no router for one: nothing but what the gateway forwards goes into a tunnel.
        for (parameter, value) in [
            ("addr_gen_mode", "1"),
            ("accept_ra", "0"),
            ("router_solicitations", "0"),
        ] {
            let path = format!("/proc/sys/net/ipv6/conf/{name}/{parameter}");
            if let Err(error) = std::fs::write(path, value) {
                tracing::debug!(%error, name, parameter, "a machine without IPv6 has no such parameter");
            }
        }
        let device = Self {
            name: name.to_owned(),
            // SAFETY: the file is owned by what is made here, which never gives it away: its descriptor is open and the same for as long.
            file: unsafe { AsyncFd::register(file) }?,
        };
        device.carrier(false)?;
        device.set_up()?;
        Ok(device)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the tunnel stands, for everybody who looks at interfaces. Without a carrier the kernel gives us no packets.
    pub(super) fn carrier(&self, on: bool) -> io::Result<()> {
        let on = libc::c_int::from(on);
        // SAFETY: the pointer is to a whole int, which outlives the call.
        checked(unsafe { libc::ioctl(self.file.get_ref().as_raw_fd(), SET_CARRIER, &raw const on) })
    }

    fn set_up(&self) -> io::Result<()> {
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::DGRAM,
            None,
        )?;
        let mut size = request(&self.name);
        size.ifr_ifru.ifru_mtu = libc::c_int::from(MTU);
        // SAFETY: the pointer is to a whole ifreq, which outlives the call.
        checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFMTU, &raw mut size) })?;
        let mut flags = request(&self.name);
        // SAFETY: as above; the kernel writes no more than one.
        checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut flags) })?;
        // SAFETY: this part of the union was written by the kernel; it is plain numbers.
        unsafe { flags.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
        // SAFETY: as above.
        checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut flags) })
    }

    /// The next frame that goes into the tunnel.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file
            .async_io(Interest::READABLE, |mut file| file.read(buffer))
            .await
    }

    /// A frame that came out of the tunnel. What the kernel does not take is lost, as on any interface.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        let mut file: &File = self.file.get_ref();
        file.write(frame).map(drop)
    }
}

fn request(name: &str) -> libc::ifreq {
    let mut letters = [0; libc::IFNAMSIZ];
    for (place, byte) in letters.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    libc::ifreq {
        ifr_name: letters,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_hwaddr: libc::sockaddr {
                sa_family: 0,
                sa_data: [0; 14],
            },
        },
    }
}

fn checked(done: libc::c_int) -> io::Result<()> {
    match done {
        ..0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

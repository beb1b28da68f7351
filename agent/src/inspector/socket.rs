//! The sockets of inspected connections: how they come in, how they go out, and what is set on them.
//!
//! They keep the agreement with the kernel's rules that [`crate::intercept`] writes down. The gateway chooses
//! the source port of the connection to the server from [`PORTS`]: below what clients' systems choose from, and none that
//! the client itself uses, so that the two do not stand in the kernel's connection tracking under one tuple.
//!
//! Keepalive (RFC 9293 §3.8.4, RFC 1122 §4.2.3.6) is what gives a dead peer's seat back. It is off by default there because
//! it could cut a connection over a link that is down for a while and costs packets: so it begins late and asks for long.
//! The system of a peer that is there answers it without its program's knowledge, however quiet that is and however old:
//! Linux sends a segment without data and with a number that was acknowledged before, which any TCP must answer
//! with an acknowledgement (RFC 9293 §3.10.7.4). While data is unacknowledged, the kernel's own limit of
//! retransmissions holds instead (`net.ipv4.tcp_retries2`, about a quarter of an hour). `TCP_USER_TIMEOUT` is not set: it would also end a
//! peer that is there and takes nothing for a while.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};

use crate::intercept::{INSPECTOR4, INSPECTOR6, is_inspector};

/// Where the inspector listens, if it can: with the port that it had, an agent that comes back finds its rules in place.
const PORT: u16 = 8686;

/// Source ports towards servers. Linux clients choose from 32768 on, Windows and devices from 49152.
const PORTS: RangeInclusive<u16> = 10_240..=32_767;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// A silent peer is asked for a sign of life after this long, ...
const KEEPALIVE_IDLE: Duration = Duration::from_secs(120);
/// ... again at this distance, ...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
/// ... and is taken for dead after so many questions: a link may be down for ten minutes.
const KEEPALIVE_COUNT: u32 = 10;

/// How connections reach the inspector, and leave it.
#[derive(Debug, Clone)]
pub enum Redirect {
    /// The kernel's rules hand them over.
    Intercepted,
    /// For tests on one machine: every connection is for this server.
    #[cfg(test)]
    Fixed(SocketAddr),
}

impl Redirect {
    /// A listener, on the usual port or, if that is taken, on another.
    pub(crate) fn listen(&self, v6: bool) -> io::Result<TcpListener> {
        self.listen_at(v6, PORT).or_else(|error| match error.kind() {
            io::ErrorKind::AddrInUse => self.listen_at(v6, 0),
            _ => Err(error),
        })
    }

    fn listen_at(&self, v6: bool, port: u16) -> io::Result<TcpListener> {
        let socket = socket(v6)?;
        let address: IpAddr = match (self, v6) {
            (Self::Intercepted, false) => INSPECTOR4.into(),
            (Self::Intercepted, true) => INSPECTOR6.into(),
            #[cfg(test)]
            (Self::Fixed(_), false) => std::net::Ipv4Addr::LOCALHOST.into(),
            #[cfg(test)]
            (Self::Fixed(_), true) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        self.make_transparent(&socket, v6)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(address, port).into())?;
        settle(&SockRef::from(&socket))?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    }

    /// Whether a socket that was kept is one of ours to listen on.
    pub(super) fn is_listener(&self, kept: &TcpListener) -> bool {
        let Ok(address) = kept.local_addr() else {
            return false;
        };
        match self {
            Self::Intercepted => is_inspector(address.ip()),
            #[cfg(test)]
            Self::Fixed(_) => address.ip().is_loopback(),
        }
    }

    fn make_transparent(&self, socket: &Socket, v6: bool) -> io::Result<()> {
        match self {
            Self::Intercepted if v6 => socket.set_ip_transparent_v6(true),
            Self::Intercepted => socket.set_ip_transparent_v4(true),
            #[cfg(test)]
            Self::Fixed(_) => Ok(()),
        }
    }

    /// Where an accepted connection was really going.
    pub(crate) fn destination(&self, accepted: &TcpStream) -> io::Result<SocketAddr> {
        match self {
            Self::Intercepted => {
                let own = accepted.local_addr()?;
                if !is_inspector(own.ip()) {
                    return Ok(own);
                }
                let socket = SockRef::from(accepted);
                let original = if own.is_ipv4() {
                    socket.original_dst_v4()?
                } else {
                    socket.original_dst_v6()?
                };
                let original = original.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
                // Nobody reaches the listener but by the rules; who did all the same goes nowhere.
                match is_inspector(original.ip()) {
                    false => Ok(original),
                    true => Err(io::ErrorKind::AddrNotAvailable.into()),
                }
            }
            #[cfg(test)]
            Self::Fixed(server) => Ok(*server),
        }
    }

    /// A socket from which `client`'s connection to `server` goes on, from none of the ports that `is_used` by clients.
    pub(crate) fn towards(
        &self,
        client: SocketAddr,
        server: SocketAddr,
        is_used: impl Fn(SocketAddr) -> bool,
    ) -> io::Result<TcpSocket> {
        let v6 = server.is_ipv6();
        let socket = socket(v6)?;
        self.make_transparent(&socket, v6)?;
        bind(&socket, client.ip(), is_used)?;
        settle(&SockRef::from(&socket))?;
        Ok(TcpSocket::from_std_stream(socket.into()))
    }
}

fn socket(v6: bool) -> io::Result<Socket> {
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if v6 {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Binds to the client's address and a port of [`PORTS`] that neither it nor we use.
fn bind(socket: &Socket, client: IpAddr, is_used: impl Fn(SocketAddr) -> bool) -> io::Result<()> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end() - PORTS.start() + 1;
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..count {
        let port = PORTS.start() + NEXT.fetch_add(1, Ordering::Relaxed) % count;
        let from = SocketAddr::new(client, port);
        if is_used(from) {
            continue;
        }
        match socket.bind(&from.into()) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// What both legs of a connection have set: no delay, signs of life, and urgent data in its place among the rest: by
/// default the kernel takes it out of the stream, and it would be lost here. Of connections from clients their listener has it: the
/// kernel gives each what its listener has, so that none costs a call for it.
pub(super) fn settle(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_out_of_band_inline(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_COUNT),
    )
}

/// Sets it on a listener that was kept. Whether it had it already, and so whatever waits at it.
pub(super) fn settle_listener(listener: &TcpListener) -> io::Result<bool> {
    let socket = SockRef::from(listener);
    let had = socket.tcp_nodelay()? && socket.keepalive()?;
    settle(&socket)?;
    Ok(had)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_a_listener_has_the_connections_that_come_by_it_have_also_at_one_that_was_kept() {
        let server = SocketAddr::from(([127, 0, 0, 1], 1));
        let fresh = Redirect::Fixed(server).listen(false).unwrap();
        let kept = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(settle_listener(&fresh).unwrap());
        assert!(!settle_listener(&kept).unwrap());
        for listener in [fresh, kept] {
            let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            let accepted = SockRef::from(&accepted);
            assert!(accepted.tcp_nodelay().unwrap() && accepted.out_of_band_inline().unwrap());
            assert!(accepted.keepalive().unwrap());
            let asks = (
                accepted.tcp_keepalive_time().unwrap(),
                accepted.tcp_keepalive_interval().unwrap(),
                accepted.tcp_keepalive_retries().unwrap(),
            );
            assert_eq!(asks, (KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT));
        }
    }
}

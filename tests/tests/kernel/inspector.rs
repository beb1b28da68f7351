//! A stand-in for the agent's inspector: it opens its sockets as `enforce::intercept` says, and passes on every byte.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use penstock_agent::inspector::pulse::Pulse;
use penstock_agent::intercept::{INSPECTOR4, INSPECTOR6, InspectorPorts, is_inspector};
use penstock_lab::Namespace;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::world::PATIENCE;

/// How often waiting threads look whether the inspector is to end.
const LOOK: Duration = Duration::from_millis(5);
/// How often it gives a sign of life.
const BEAT: Duration = Duration::from_millis(100);

/// A running inspector; dropping it closes its listeners and its connections.
#[derive(Debug)]
pub struct Inspector {
    pub ports: InspectorPorts,
    shared: Arc<Shared>,
    listeners: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ends: AtomicBool,
    /// Client and server of every connection that came, in order.
    seen: Mutex<Vec<(SocketAddr, SocketAddr)>>,
    /// Both legs of each.
    legs: Mutex<Vec<TcpStream>>,
}

impl Inspector {
    /// Begins to listen in `gateway`, on these ports, or any.
    pub fn start(gateway: &Namespace, ports: Option<InspectorPorts>) -> Self {
        let (v4, v6) = ports.map_or((0, 0), |ports| (ports.v4, ports.v6));
        let listeners = [(IpAddr::from(INSPECTOR4), v4), (INSPECTOR6.into(), v6)]
            .map(|(address, port)| gateway.enter(|| listen(SocketAddr::new(address, port))).unwrap());
        let [v4, v6] = listeners
            .each_ref()
            .map(|listener| listener.local_addr().unwrap().port());
        let shared = Arc::new(Shared::default());
        let listeners = listeners.map(|listener| {
            let (shared, gateway) = (Arc::clone(&shared), gateway.clone());
            std::thread::spawn(move || {
                gateway.move_in().unwrap();
                accept(&listener, &shared);
            })
        });
        let pulse = gateway.enter(|| Pulse::new(1, true).unwrap()).unwrap();
        let beating = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                let begun = Instant::now();
                while !shared.ends.load(Ordering::Relaxed) {
                    pulse.tick(0, begun.elapsed());
                    std::thread::sleep(BEAT);
                }
            })
        };
        Self {
            ports: InspectorPorts { v4, v6 },
            shared,
            listeners: listeners.into_iter().chain([beating]).collect(),
        }
    }

    /// Client and server of every connection that came so far.
    pub fn seen(&self) -> Vec<(SocketAddr, SocketAddr)> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The last connection's legs: the client's, and the server's.
    pub fn last_legs(&self) -> (TcpStream, TcpStream) {
        let legs = self.shared.legs.lock().unwrap();
        let [.., near, far] = &legs[..] else {
            panic!("no connection came")
        };
        (near.try_clone().unwrap(), far.try_clone().unwrap())
    }

    /// Says something of its own on both legs of every connection.
    pub fn say(&self, text: &[u8]) {
        for mut leg in self.shared.legs.lock().unwrap().iter() {
            let _ = leg.write_all(text);
        }
    }

    /// Waits until so many connections came.
    pub fn wait_for(&self, connections: usize) -> Vec<(SocketAddr, SocketAddr)> {
        let begun = Instant::now();
        while self.seen().len() < connections {
            assert!(begun.elapsed() < PATIENCE, "only {:?} came", self.seen());
            std::thread::sleep(LOOK);
        }
        self.seen()
    }
}

impl Drop for Inspector {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        for listener in self.listeners.drain(..) {
            let _ = listener.join();
        }
        for leg in self.shared.legs.lock().unwrap().drain(..) {
            // As when a process dies: what was not read makes it a reset.
            let _ = SockRef::from(&leg).set_linger(Some(Duration::ZERO));
            let _ = leg.shutdown(Shutdown::Both);
        }
    }
}

fn transparent(v6: bool) -> Socket {
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).unwrap();
    if v6 {
        socket.set_ip_transparent_v6(true).unwrap();
    } else {
        socket.set_ip_transparent_v4(true).unwrap();
    }
    socket
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = transparent(address.is_ipv6());
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(64).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.into()
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.ends.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((near, client)) => {
                near.set_nonblocking(false).unwrap();
                let server = destination(&near);
                shared.seen.lock().unwrap().push((client, server));
                let shared = Arc::clone(shared);
                std::thread::spawn(move || carry(near, client, server, &shared));
            }
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

/// Where an accepted connection was going.
fn destination(near: &TcpStream) -> SocketAddr {
    let own = near.local_addr().unwrap();
    if !is_inspector(own.ip()) {
        return own;
    }
    let socket = SockRef::from(near);
    let original = if own.is_ipv6() {
        socket.original_dst_v6()
    } else {
        socket.original_dst_v4()
    };
    original.unwrap().as_socket().unwrap()
}

/// Connects to the server from the client's address, and passes bytes on in both directions.
fn carry(near: TcpStream, client: SocketAddr, server: SocketAddr, shared: &Shared) {
    static PORT: AtomicU16 = AtomicU16::new(0);
    let far = transparent(client.is_ipv6());
    let port = 10_240 + PORT.fetch_add(1, Ordering::Relaxed) % 20_000;
    far.bind(&SocketAddr::new(client.ip(), port).into()).unwrap();
    if far.connect_timeout(&server.into(), PATIENCE).is_err() {
        let _ = SockRef::from(&near).set_linger(Some(Duration::ZERO));
        return;
    }
    let far: TcpStream = far.into();
    shared
        .legs
        .lock()
        .unwrap()
        .extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
    let (mut from_near, mut to_far) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    std::thread::spawn(move || pass_on(&mut from_near, &mut to_far));
    pass_on(&mut { far }, &mut { near });
}

fn pass_on(from: &mut TcpStream, to: &mut TcpStream) {
    let mut buffer = [0; 65536];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

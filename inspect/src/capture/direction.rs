//! Who opened what two ends say to each other, where the recording does not hold its beginning.
//!
//! Asked in this order, the first that tells one end from the other decides: an end that was opened to elsewhere in the recording;
//! the direction that the plant permits; a port that the plant names in a flow; a port of a service that the document
//! has a name for, or below 1024; of two such ports one below 1024; a port at which devices of some maker listen. Where none does, who
//! opened is a guess, and marked as one.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use penstock_policy::document::services::services;

/// Ends that were opened to, at most; a recording with more tells less.
const SERVED_MAX: usize = 65_536;

/// Ports from 1024 on at which devices and programs of plants listen that a document has no name for (IANA, and their makers' manuals):
/// Foundation Fieldbus HSE, Niagara Fox, PCWorx, CODESYS, Emerson ROC, synchrophasors (C37.118), MELSEC, OMRON, CoAP, GE SRTP, ProConOS,
/// PROFINET, EtherCAT, OSIsoft PI, Beckhoff ADS, FL-net, and HTTP beside its own port.
const LISTENING: [u16; 33] = [
    1089, 1090, 1091, 1521, 1911, 1962, 2455, 3306, 4000, 4712, 4713, 4911, 5006, 5007, 5450, 5683, 5684,
    8080, 8443, 11_740, 18_245, 18_246, 20_547, 34_962, 34_963, 34_964, 34_980, 48_898, 48_899, 55_000,
    55_001, 55_002, 55_003,
];

/// How it is known who opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Opening {
    /// The beginning is recorded.
    Recorded,
    /// It is not: another connection, the plant or the ports tell.
    Told,
    /// It is not, and nothing tells. Over TCP the end is taken for the server to which flows of the plant lead, else the one with
    /// the lower port; over UDP the one that was heard first is taken for the client. It may be the other way round.
    Guessed,
    /// The client sent the first datagram, going on with a conversation that the server had opened and that is over.
    Late,
}

/// What has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortCarrier {
    /// TCP.
    Tcp,
    /// UDP, in which nothing is read.
    Udp,
}

/// What a plant says of two ends.
pub trait Declarations {
    /// Whether every gateway between the two lets `client` open this to `server`; `false` where none stands between.
    fn permits(&self, carrier: PortCarrier, client: SocketAddr, server: SocketAddr) -> bool;

    /// Whether a flow names the port as a service's.
    fn names(&self, carrier: PortCarrier, port: u16) -> bool;

    /// Whether any flow leads from `client` to `server`, to whatever port: as much as a guess can rest on.
    fn leads(&self, client: IpAddr, server: IpAddr) -> bool;
}

/// No plant is known.
#[derive(Debug, Clone, Copy)]
pub struct NoDeclarations;

impl Declarations for NoDeclarations {
    fn permits(&self, _: PortCarrier, _: SocketAddr, _: SocketAddr) -> bool {
        false
    }

    fn names(&self, _: PortCarrier, _: u16) -> bool {
        false
    }

    fn leads(&self, _: IpAddr, _: IpAddr) -> bool {
        false
    }
}

/// Ends to which something was opened without doubt.
#[derive(Debug, Clone, Default)]
pub struct KnownServers(HashSet<SocketAddr>);

impl KnownServers {
    /// Adds one, if there is room.
    pub fn add(&mut self, end: SocketAddr) {
        if self.0.len() < SERVED_MAX {
            self.0.insert(end);
        }
    }

    /// Whether it is known.
    pub fn contains(&self, end: SocketAddr) -> bool {
        self.0.contains(&end)
    }
}

/// Whether a port is a service's, not one that a client was given.
pub fn is_service(port: u16) -> bool {
    (1..1024).contains(&port) || (port > 0 && services().any(|service| service.port == port))
}

/// Which of two ends is the server; `None` if nothing tells.
pub fn server(
    carrier: PortCarrier,
    ends: [SocketAddr; 2],
    served: &KnownServers,
    declared: &dyn Declarations,
) -> Option<SocketAddr> {
    let [one, other] = ends;
    let tells: [&dyn Fn(SocketAddr, SocketAddr) -> bool; 6] = [
        &|end, _| served.contains(end),
        &|end, client| declared.permits(carrier, client, end),
        &|end, _| declared.names(carrier, end.port()),
        &|end, _| is_service(end.port()),
        &|end, _| (1..1024).contains(&end.port()),
        &|end, _| LISTENING.contains(&end.port()),
    ];
    tells
        .iter()
        .find_map(|tells| match (tells(one, other), tells(other, one)) {
            (true, false) => Some(one),
            (false, true) => Some(other),
            _ => None,
        })
}

/// Which of two ends of a TCP connection is rather taken for the server, where nothing tells.
pub fn likely_server(ends: [SocketAddr; 2], declared: &dyn Declarations) -> SocketAddr {
    let [source, destination] = ends;
    let leads = |client: SocketAddr, server: SocketAddr| declared.leads(client.ip(), server.ip());
    match (leads(destination, source), leads(source, destination)) {
        (true, false) => source,
        (false, true) => destination,
        _ if destination.port() <= source.port() => destination,
        _ => source,
    }
}

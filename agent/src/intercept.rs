//! The agreement between the kernel's rules and the inspector: which packets it gets, and how its sockets must be
//! opened so that they get them.
//!
//! A connection whose tuple lies in `inspected` becomes two: one from the client to the inspector, one from the inspector
//! to the server. Both are on the wire with the addresses of client and server; only the second one's source port is
//! another. It is the same on routed and on bridged gateways, for IPv4 and IPv6, but for one word about the destination:
//!
//! 1. *Listener*: `IP_TRANSPARENT` (`IPV6_TRANSPARENT`), bound to [`INSPECTOR4`] or [`INSPECTOR6`] and any port. These
//!    addresses are on no interface and in no route: nobody reaches the port but by the rules, not even this machine's
//!    own programs. The listener is what the rules know an inspector by, and its beat ([`crate::inspector::pulse`]): while both are
//!    there, nothing of an inspected tuple is forwarded; when the last listener closes, or no beat came for a while, flows with `on_agent_loss: pass` are forwarded unread, and others are
//!    refused.
//! 2. *Accepted connection*: its peer is the client. Its own address is the server on a routed gateway. On a bridged one
//!    it is the listener's address, and the server is what `SO_ORIGINAL_DST` (`IP6T_SO_ORIGINAL_DST`) says. So: take the
//!    own address, unless [`is_inspector`] says that it is none of a server. The plan in force must permit
//!    (client, server, server's port), else the connection is closed: the kernel's and the inspector's
//!    plan are exchanged one after the other.
//! 3. *Connection to the server*: `IP_TRANSPARENT`, bound to the client's address and a port that is neither the client's
//!    own nor one that clients' systems choose (they would stand in the connection tracking under one tuple); then
//!    connected to the server. No mark is set on it (`SO_MARK` stays 0), nothing is registered.
//! 4. Of both connections every packet is looked up, in and out. A tuple that the plan in force does not permit
//!    any more is dead in both directions at its next packet: the sockets hear nothing and reach nobody, so they
//!    must be closed by the inspector's own knowledge of the plan. A tuple that is still permitted but no longer
//!    inspected: its standing connections go on through the inspector, new ones do not come.
//! 5. When the inspector begins, connections that stood before without it are reset at their next packet; between zones
//!    that only observe they go on unread.
//!
//! The ports are part of the rules. An agent that comes back with the ports that it had finds its rules in place; with
//! others the tables are replaced. So prefer fixed ports, or a listener that is handed over.
//!
//! Not here: the rules (`render`), the routes (`routing`), the connections (`inspector`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where the inspector listens, in IPv4: the dummy address of RFC 7600, which is never on a wire.
pub const INSPECTOR4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// Where the inspector listens, in IPv6: out of the dummy prefix of RFC 9780, which is never on a wire.
pub const INSPECTOR6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 1, 0, 0, 0, 0x86);

/// Packet mark of what goes to the inspector, among the bits of [`MARK_INTERCEPTED_BITS`]. The rules alone set it.
pub const MARK_INTERCEPTED: u32 = 0x3000_0000;
/// The bits of a packet's mark that [`MARK_INTERCEPTED`] is compared in.
pub const MARK_INTERCEPTED_BITS: u32 = 0xf000_0000;
/// How long after its last sign of life ([`crate::inspector::pulse`]) the rules take the inspector for alive: fifteen beats, which
/// a busy one does not miss.
pub const ALIVE_S: u32 = 15;
/// The packet mark of such a beat. Only who may change the rules may set it.
pub const MARK_BEAT: u32 = 0x7000_0000;
/// The routing table in which every address is this machine's own (`ps` in ASCII). Marked packets go by it.
pub const ROUTING_TABLE: u32 = 0x7073;
/// Priority of the routing rule that leads there: behind the table of own addresses, ahead of all others that are usual.
pub const ROUTING_PRIORITY: u32 = 86;

/// The listening inspector, as the rules know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InspectorPorts {
    /// Port of the listener on [`INSPECTOR4`].
    pub v4: u16,
    /// Port of the listener on [`INSPECTOR6`].
    pub v6: u16,
}

/// Whether this is where the inspector listens, and so no server's address.
pub fn is_inspector(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address == INSPECTOR4,
        IpAddr::V6(address) => address == INSPECTOR6,
    }
}

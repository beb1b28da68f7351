//! What our tables, sets and marks are called in the kernel, and the prefixes of its log: what the renderers write (`render`),
//! what changes elements (`batch`), what reads back (`readback`) and what hears the log must agree on.
//!
//! Marks: the low 28 bits of a packet's or connection's mark are the flow's number. On packets of a bridge the bits
//! above carry what the bridge table found to the `inet` table (which sees the bridge, not its ports):
//! [`MARK_GUARDED`], [`MARK_OBSERVED`], [`MARK_MISPLACED`], and back to it [`MARK_ROUTED`]. On connections
//! [`MARK_TOLD`] says that its would-deny was logged (set by the rules that log it, never ahead of them),
//! [`MARK_PASSED`] that observation let it through, [`MARK_LEG`] that the inspector has a part in it, and one bit, of a leg, that
//! one of its sockets was seen to send on it ([`MARK_CARRIED`]) and one that it opened it ([`MARK_OWN`]), of other TCP, that its opening was seen ([`MARK_OPENED`]), of
//! UDP, that it is judged turned round ([`MARK_TURNED`], see `render::turned`). Where a packet is on its way to or from the inspector, those four bits of
//! its mark are one of [`crate::intercept::MARK_INTERCEPTED`] (both modes), [`MARK_ENTERED`], [`MARK_SENT`] and
//! [`MARK_STRAY`] (bridges), none of which the first four come to together.
//!
//! Not here: the maps of tuples (`maps`), and the numbers of nf_tables (`wire`).

use penstock_policy::ids::FlowId;

use crate::intercept::MARK_INTERCEPTED_BITS;

/// The name of our tables, in the families `inet` and `bridge`.
pub const TABLE: &str = "penstock";
/// Their name while they take the place of others.
pub(in crate::enforce) const TABLE_BESIDE: &str = "penstock_beside";
/// The name of the table of a plan in its shadow. It is none of ours that judge: drift is not looked for in it.
pub const TABLE_SHADOW: &str = "penstock_shadow";
/// The name of the table that keeps the newest sealed head of the trail, and judges nothing either.
pub const TABLE_WITNESS: &str = "penstock_witness";
/// The chain of it whose comment that is.
pub(in crate::enforce) const WITNESS_HEAD: &str = "head";
/// The families.
pub(in crate::enforce) const FAMILY_NAMES: [&str; 2] = ["inet", "bridge"];
/// Bits of a mark that hold a flow's number.
pub const MARK_FLOW: u32 = FlowId::MAX;
/// Packet mark: crosses a guarded port and was not judged yet.
pub const MARK_GUARDED: u32 = 0x8000_0000;
/// Packet mark: both its ends only observe.
pub const MARK_OBSERVED: u32 = 0x4000_0000;
/// Packet mark: an end does not belong to its side, or one of the ports is not in the plan: no rule can permit it.
pub const MARK_MISPLACED: u32 = 0x2000_0000;
/// Packet mark, on bridged gateways: it does not stay on the bridge, but came to the gateway or is routed by it.
pub const MARK_ROUTED: u32 = 0x1000_0000;
/// Connection mark: its would-deny was logged.
pub const MARK_TOLD: u32 = 0x1000_0000;
/// Connection mark: it was let through by observation alone.
pub const MARK_PASSED: u32 = 0x2000_0000;
/// Connection mark: one of the two legs of an inspected connection.
pub const MARK_LEG: u32 = 0x8000_0000;
/// Connection mark, on routed gateways, of a leg: a socket of the inspector carries it.
pub const MARK_CARRIED: u32 = 0x4000_0000;
/// Connection mark, of a leg: the inspector opened it, towards a server, so that nothing comes from its client's side.
pub const MARK_OWN: u32 = 0x1000_0000;
/// Connection mark, of TCP that is no leg: its opening was seen, so the tracked direction is its own.
pub const MARK_OPENED: u32 = 0x4000_0000;
/// Connection mark, of UDP: its client has spoken against the tracked direction.
pub const MARK_TURNED: u32 = 0x4000_0000;
/// Packet mark, on bridged gateways: it came in by the guarded port where its source belongs.
pub const MARK_ENTERED: u32 = 0x5000_0000;
/// Packet mark, on bridged gateways: the inspector sent it. Its port must be the one where its destination belongs.
pub const MARK_SENT: u32 = 0x6000_0000;
/// Packet mark, on bridged gateways: sent with a foreign address, and not by the inspector.
pub const MARK_STRAY: u32 = 0x2000_0000;
/// The bits of a packet's mark that are left to others where ours are taken off.
pub(in crate::enforce) const MARKS_KEPT: u32 = !MARK_INTERCEPTED_BITS;
/// The set whose elements end by themselves.
pub const GRANTED: &str = "granted";
/// The set that holds UDP for as long as the tables count as new.
pub const STARTING: &str = "starting";
/// How long after the tables were made, or after a lull, a declared server's datagrams pass though its client has not spoken: as long as links
/// may take to come up after a start (two forwarding delays of a spanning tree are 30 s), and some more for the client.
pub const STARTING_S: u32 = 60;
/// The set of a side's MAC addresses: of at most 4096.
pub(in crate::enforce) const MACS: &str = "typeof @ll,48,48 . @ll,48,48; size 4096; flags dynamic,timeout";

/// Prefixes of log messages: what the kernel decided.
pub mod prefix {
    /// First packet of an allowed connection.
    pub const ALLOW: &str = "ps:a";
    /// Dropped.
    pub const DENY: &str = "ps:d";
    /// Passed, would be dropped.
    pub const WOULD_DENY: &str = "ps:w";
    /// First packet of a connection that was forwarded unread, since there is no inspector.
    pub const UNATTENDED: &str = "ps:u";
    /// As [`UNATTENDED`], of the answering side.
    pub const UNATTENDED_REPLY: &str = "ps:ur";
    /// As [`ALLOW`], seen first on a packet of the answering side.
    pub const ALLOW_REPLY: &str = "ps:ar";
    /// As [`ALLOW_REPLY`], of a server whose client has not spoken while the tables are new.
    pub const ASSUMED: &str = "ps:s";
    /// Reset, since what an inspector would have to read has begun before.
    pub const CUT: &str = "ps:c";
    /// As [`CUT`], of the answering side.
    pub const CUT_REPLY: &str = "ps:cr";
    /// As [`DENY`], of the answering side.
    pub const DENY_REPLY: &str = "ps:dr";
    /// As [`WOULD_DENY`], of the answering side.
    pub const WOULD_DENY_REPLY: &str = "ps:wr";
    /// Dropped on its way to the gateway itself.
    pub const INPUT: &str = "ps:i";
    /// Dropped: opens a connection in a client's name where the inspector's own stands.
    pub const SWEPT: &str = "ps:y";
    /// Behind [`DENY`] or [`WOULD_DENY`]: a MAC address that belongs to another side.
    pub const MOVED: &str = "m";
    /// The same: ARP or neighbour discovery of a form that no host needs.
    pub const MALFORMED: &str = "l";
    /// The same: the claim of an address that is another's.
    pub const FORGED: &str = "f";
    /// The same: a question or an answer between neighbours that no flow joins.
    pub const UNJOINED: &str = "j";
    /// The same: a packet from another MAC address than its sender's address is bound to.
    pub const UNBOUND: &str = "h";
    /// The same: an advertisement of a router that is not declared, or a redirect.
    pub const ADVERTISED: &str = "v";
}
